/* SPDX-License-Identifier: Apache-2.0 */
/*
 * smooth.h - SmoothQuant on every legal edge of a block
 *
 * Xiao et al., arXiv:2211.10438, eq. (4).  On an edge with input x and consumers W_f,
 *     w_j = clamp(max_f max_n |W_f[n,j]|, 1e-5)
 *     s_j = clamp(A_j^alpha / w_j^(1-alpha), 1e-5)          A_j = max_t |x_tj|
 *     x_j /= s_j by dividing the producer's channel j;   W_f[:, j] *= s_j
 * Products in f64, one rounding to F32 on store.  A dead channel (A_j = 0) gets s_j = 1 (the
 * published code gives it the clamp, 1e-5, and multiplies a producer's weights by 1e5).
 * Statistics follow: absmax, absmean, min, max are divided by s, H_ij by s_i s_j, samples too.
 */
#ifndef QP_SMOOTH_H
#define QP_SMOOTH_H

#include "lib/model/block.h"

struct smooth_options {
	double alpha;    /* 0: the weights become flat ... 1: the activations do */
	unsigned edges;  /* bits 1 << EDGE_..., or SMOOTH_ALL: those that are legal */
};

#define SMOOTH_ALL (1u << 31 | ((1u << EDGE_COUNT) - 1))
#define SMOOTH_PUBLISHED (1u << EDGE_ATTN_IN | 1u << EDGE_MLP_IN)

/* ERR_DATA when an edge is named that this family's table has no producer for. */
int smooth_check(const struct model *m, const struct smooth_options *opt, struct err *e) MUST_USE;

/* s[n] from amax_x[n] and amax_w[n], both finite and >= 0. */
void smooth_scales(double *s, const double *amax_x, const double *amax_w, size_t n, double alpha);

/*
 * Every edge asked for, in the order of the table.  ERR_DATA when one has no absmax ("put
 * record-acts - before smooth"), or a weight is codes already, or a value leaves the range of F32.
 * For an edge whose producer is shared by groups of consumer channels (v -> o under GQA) s has
 * kv_heads * head_dim entries; channel maxima are maxima over the group's query heads.
 */
int smooth_block(struct block *b, const struct smooth_options *opt, struct err *e) MUST_USE;

/* "attn.in,mlp.in" -> bits, or "all": every legal one. */
int smooth_parse_edges(const char *list, unsigned *edges, struct err *e) MUST_USE;

#endif
