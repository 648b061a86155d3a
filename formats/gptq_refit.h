/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gptq_refit.h - codes that GPTQ's or AWQ's layout cannot hold, as some that it can
 *
 * Group by group: the codes stay, moved to another zero, where all of them fit then, and with
 * them the scale, rounded to F16; else the group's weights are rounded to nearest anew, over their
 * full range (lib/method/quantizer.h's minmax).
 */
#ifndef QP_GPTQ_REFIT_H
#define QP_GPTQ_REFIT_H

#include "formats/export.h"

/* What the layout has. */
struct gptq_form {
	int bits;
	bool sym;
	bool above_0;  /* no zero is 0 */
	size_t group;  /* divides the columns */
};

struct gptq_refit {
	struct export_codes q; /* what it became; the name is the caller's */
	struct record codes, scale, zero;
	double error, norm;    /* sums of squares: of the difference to what was, of that */
};

/* Is it of that form already? */
bool gptq_conforms(const struct export_codes *q, const struct gptq_form *f);
/* Release it also after an error.  ERR_DATA for codes that do not fit their bits, or weights that
 * are too large for scales in F16. */
int gptq_refit(struct gptq_refit *r, const struct export_codes *q, const struct gptq_form *f,
	       struct err *e) MUST_USE;
void gptq_refit_release(struct gptq_refit *r);

#endif
