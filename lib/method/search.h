/* SPDX-License-Identifier: Apache-2.0 */
/*
 * search.h - diagonal maps found by trying them (AWQ, Lin et al., arXiv:2306.00978)
 *
 * On an edge with input x, consumers W_f, and r = i / n_grid for i = 0 .. n_grid - 1:
 *     s_j = max(x_j^r, 1e-4)                            x_j: a statistic of channel j
 *     s_j = max(x_j^r / (w_j^(1-r) + 1e-4), 1e-4)       duo; w_j: mean over rows of all W_f of
 *                                                       |w| / (1e-6 + the largest |w| of its group)
 *     s  /= sqrt(max s * min s)
 * and the s with the least
 *     sum_f tr D H D'            D = Q(W_f s) / s - W_f, from the Hessian: no forward pass; or
 *     sum_f |Qa(X / s) Q(W_f s)' - X W_f'|^2    over the rows of X in the statistic "samples",
 *                                               Qa the identity where activations stay as they are
 * Q rounds to nearest, as rtn does.  Beside the grid stands s = 1, which wins unless something is
 * better: no edge is worse, by this measure, than it came.  Dead channels (x_j = 0) keep s_j = 1
 * and are no part of the norm.  Where consumer columns share a producer channel (v -> o under
 * GQA), x_j and w_j are means over them.  The published search compares the outputs of the module
 * (attention, the MLP) rather than of the linears, and has no s = 1 in duo.
 *
 * Qa: a scale for each token, absmax / (2^(b-1) - 1), half to even, no zero point.
 */
#ifndef QP_SEARCH_H
#define QP_SEARCH_H

#include "lib/compute/backend.h"
#include "lib/method/quantizer.h"
#include "lib/method/smooth.h"

enum search_stat {
	SEARCH_RMS,     /* sqrt(H_jj / tokens) */
	SEARCH_ABSMEAN,
	SEARCH_ABSMAX,
};

struct search_options {
	struct smooth_options smooth; /* its edges */
	struct quantizer q;
	int act_bits;        /* 0: activations are not rounded */
	bool duo;
	bool samples;        /* the loss is over samples, else from the Hessian */
	long n_grid;
	enum search_stat stat;
};

struct search;

struct search *search_new(struct backend *be, const struct search_options *o, struct err *e);
void search_free(struct search *s);

/* Before anything is read: edges (smooth_check), and groups that divide every linear. */
int search_check(const struct model *m, const struct search_options *o, struct err *e) MUST_USE;

/* Every edge asked for: the best s is applied (smooth.h), and a note of kind "search" tells the
 * ratio r and the loss over the energy of the outputs, without s and with it.  ERR_DATA naming an
 * edge without the statistics that are needed. */
int search_block(struct search *s, struct block *b, struct err *e) MUST_USE;

/* The s of one candidate, from x and w over n channels. */
void search_scales(double *s, const double *x, const double *w, size_t n, double r, bool duo);
/* Qa of rows x [rows, k], in place. */
void search_round_tokens(float *x, size_t rows, size_t k, int bits);

#endif
