/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gptq_solve.h - what gptq.c and gptq_solve.c share: the factor, the scratch, the inner loops
 */
#ifndef QP_GPTQ_SOLVE_H
#define QP_GPTQ_SOLVE_H

#include "lib/method/gptq.h"

struct gptq_hessian {
	struct backend *be;
	const float *tri;    /* the caller's */
	size_t k, cap;
	size_t panel;        /* columns a panel, see gptq_solve.c */
	double *factor;      /* [k, k] f64: R above the panels' diagonal blocks, U in them; once
			      * factorized its lower triangle holds R' and U' there, strictly
			      * lower, f32, row j from float 2 j k on */
	double *diag;        /* [k] U_jj */
	size_t *perm;        /* [k] column processed j-th */
	bool natural;        /* perm[j] = j */
	bool *dead;          /* [k] by column, not by order */
	size_t n_dead;
	double mean;         /* of the live diagonal */
	double damp;
	int damp_raised;

	/* scratch of the solver, kept from linear to linear */
	float *w;            /* [k, padded rows]: W, then W - Q, in order of processing */
	float *sum;          /* [panel, padded rows]: what a panel takes from those before it */
	float *params;       /* scale and zero, each [groups, padded rows] */
	size_t cap_w, cap_sum, cap_params;
};

/* The solver's inner loops are there once for each instruction set: the name of the i-th set that
 * this machine can run, NULL behind the last; 0 is plain C. */
const char *gptq_kernels(size_t i);
/* gptq_quantize with the set of so many; all give the same bits. */
int gptq_quantize_by(size_t kernels, struct quantized *z, struct gptq_result *res,
		     struct gptq_hessian *h, float *w, size_t rows, const struct gptq_options *opt,
		     const char *where, struct err *e) MUST_USE;

#endif
