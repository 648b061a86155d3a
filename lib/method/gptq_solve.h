/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gptq_solve.h - what gptq.c and gptq_solve.c share: the factor, the scratch, the inner loops
 */
#ifndef QP_GPTQ_SOLVE_H
#define QP_GPTQ_SOLVE_H

#include "lib/method/gptq.h"
#include "lib/method/gptq_kernels.h"

struct gptq_hessian {
	struct backend *be;
	const float *tri;    /* the caller's */
	size_t k, cap;
	size_t panel;        /* columns a panel, see gptq_solve.c */
	double *factor;      /* [k, k] f64: R above the panels' diagonal blocks, U in them; once
			      * factorized its lower triangle holds R' and U' there, strictly
			      * lower, f32, row j from float 2 j k on; and from have_full on, row j
			      * from float (2 j + 1) k on, damped H, f32, columns as they come */
	double *diag;        /* [k] U_jj */
	size_t *perm;        /* [k] column processed j-th */
	bool natural;        /* perm[j] = j */
	bool *dead;          /* [k] by column, not by order */
	size_t n_dead;
	double mean;         /* of the live diagonal */
	double damp, shrink;
	int damp_raised;

	/* scratch of the solver, kept from linear to linear */
	float *w;            /* [k, padded rows]: W, then W - Q, in order of processing */
	float *sum;          /* [panel, padded rows]: what a panel takes from those before it */
	float *params;       /* scale and zero, each [groups, padded rows] */
	size_t cap_w, cap_sum, cap_params;
	float *energy;       /* [k]: the diagonal of tri */
	float *part;         /* what a group's columns stand for, [group, padded rows] */
	size_t cap_part;
	float *errors;       /* E of a linear that sweeps follow, [padded rows, k] */
	float *inner;        /* [k, panel] R' in the panels' diagonal blocks */
	float *g;            /* gptq_descend's, [2, rows of a chunk, k] */
	size_t cap_errors, cap_inner, cap_g;
	bool have_full;      /* gptq_refine has put damped H and inner there */
};

/* One linear at work. */
struct solve {
	struct gptq_hessian *h;
	struct quantized *z;
	struct quantizer q;    /* with the energy of the inputs */
	const struct kernels *kernels;
	float *dst;            /* [rows, k]: w as it came, dequantized at the end */
	float *scale, *zero;   /* [groups, np] */
	double *loss;          /* [np] sum e^2 */
	double *dist, *own;    /* [np] sum (w - q)^2 (at first: not finite), the same by H_jj */
	float *buf;            /* [threads][panel][ROWS] */
	uint8_t *code;         /* [threads][panel][ROWS] */
	float *errors;         /* h->errors or, where nobody asks, NULL */
	size_t np;
	bool moving;           /* groups are fitted when their first column is reached */
	size_t c0, c1;         /* the panel at hand */
};

int gptq_reserve_floats(float **p, size_t *cap, size_t n, const char *where,
			struct err *e) MUST_USE;
/* Hd[i][j], once have_full. */
static inline float *gptq_full_at(const struct gptq_hessian *h, size_t i, size_t j)
{
	return (float *)h->factor + (2 * i + 1) * h->k + j;
}

/* Sweeps over the codes that are there (gptq_descend.c); takes what f falls by from loss.  follow:
 * W - Q in h->w, columns as they come, goes with them; else h->w is left as it is, and h->errors
 * are of these codes. */
int gptq_descend(struct solve *s, long sweeps, bool follow, const char *where,
		 struct err *e) MUST_USE;
/* After the columns: sweeps and refits on h->w = W - Q (gptq_refine.c); leaves loss. */
int gptq_refine(struct solve *s, const struct gptq_options *opt, const char *where,
		struct err *e) MUST_USE;

/* The solver's inner loops are there once for each instruction set: the name of the i-th set that
 * this machine can run, NULL behind the last; 0 is plain C. */
const char *gptq_kernels(size_t i);
/* gptq_quantize with the set of so many; all give the same bits. */
int gptq_quantize_by(size_t kernels, struct quantized *z, struct gptq_result *res,
		     struct gptq_hessian *h, float *w, size_t rows, const struct gptq_options *opt,
		     const char *where, struct err *e) MUST_USE;

#endif
