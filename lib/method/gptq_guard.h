/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gptq_guard.h - no range, sweep, refit or target may lose: each linear keeps the better of two
 *
 * The candidates are what the options ask for, and the same without these four ("plain"; order,
 * groups, damping and --shrink are the same in both, and are judged by nothing: by one H, that with
 * the least added to it always wins where it was fitted).  The better one has the smaller
 *
 *     J = tr (W - Q) Hv (W - Q)'       and with a target   + 2 tr (W - Q) (Mv - Hv)' W'
 *
 * which with a target is |W X - Q X^|^2 less a part that no Q changes (gptq_target.h).  Where
 * windows are set aside (--sequential), Hv is theirs and both candidates are fitted to the others;
 * the winner is then solved again by H of all.  Where the stream has one H, Hv is that, shrunk as
 * for the solve, and W what the target made of it.
 *
 * Rows are solved alone, so that some of them, at even distances, tell which is better (one in 16,
 * 32 at least).  Only if the two differ by less than a tenth of plain's J, where one scale serves
 * all rows, or where by one H plain is better, all rows are tried.
 */
#ifndef QP_GPTQ_GUARD_H
#define QP_GPTQ_GUARD_H

#include "lib/method/gptq.h"
#include "lib/method/gptq_target.h"

/* Zero-initialise. */
struct gptq_guard {
	/* of the edge at hand */
	struct gptq_hessian *fit;   /* of windows not set aside, where there are others */
	const float *judge;         /* Hv, packed triangle; NULL: none are set aside */
	struct gptq_target *target; /* the caller's, or NULL */

	/* scratch */
	struct quantized z;
	float *was, *w, *rest;
	size_t cap_was, cap_w, cap_rest;
};

/* Every eighth window, of fewer than eight the last, of one none. */
bool gptq_guard_aside(size_t window, size_t windows);

void gptq_guard_release(struct gptq_guard *gd);

/* Can the options lose to plain at all? */
bool gptq_guard_wanted(const struct gptq_options *opt);

/* The edge at hand: H of all windows, and of those set aside (kept by reference) or NULL. */
int gptq_guard_edge(struct gptq_guard *gd, struct backend *be, const float *tri,
		    const float *aside, size_t k, const struct gptq_options *opt,
		    const char *where, struct err *e) MUST_USE;

/* As gptq_quantize, by the better candidate; res->guard says which.  was: w before the target
 * moved it, or NULL. */
int gptq_guard_quantize(struct gptq_guard *gd, struct quantized *z, struct gptq_result *res,
			struct gptq_hessian *h, float *w, const float *was, size_t rows,
			const struct gptq_options *opt, const char *where, struct err *e) MUST_USE;

#endif
