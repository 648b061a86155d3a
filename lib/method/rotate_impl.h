/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rotate_impl.h - what the files that make up rotate.h share: lib/method/rotate*.c only
 */
#ifndef QP_ROTATE_IMPL_H
#define QP_ROTATE_IMPL_H

#include "lib/method/rotate.h"

/* What a norm multiplies with, on its way into the linears that read it. */
struct gain {
	double *g;     /* [hidden]; NULL until the norm has come: ones */
	double *c;     /* [hidden] its bias, to be folded into the linears; NULL: none is */
	bool invertible; /* no g is 0 */
	bool shifted;  /* statistics of the norm's output cannot follow: a bias left it */
};

struct rotate {
	const struct model *m, *to;
	struct rotate_options opt;
	struct pool *pool;
	struct rotation *r1, *r2;	/* NULL: not asked for, here too: */
	struct rotation *r4, *r4_shared, *r4_expert;
	bool untie, untied;
	long lost;         /* Hessians that could not follow */
	struct gain final;
	struct item end;   /* at work */
	struct item embed; /* the original, if the head is to part from it */
	double *wide;		/* scratch, a matrix in F64 */
	size_t wide_values;
};

/* Scratch of so many values, good until the next call; NULL and *e. */
double *rotate_wide(struct rotate *r, size_t values, struct err *e);

/* Ones. */
int gain_reset(struct rotate *r, struct gain *g, struct err *e) MUST_USE;
/* The gain of a norm, w [hidden], moves to g and becomes 1.  bias NULL, or that of the norm, which
 * moves to g->c and becomes 0. */
int gain_take(struct rotate *r, struct gain *g, float *w, float *bias, struct err *e) MUST_USE;
/* A norm's bias that stays: (bias / g) R1.  ERR_DATA where g is 0 and the bias is not. */
int gain_bias(struct rotate *r, struct gain *g, float *bias, const char *where,
	      struct err *e) MUST_USE;

#endif
