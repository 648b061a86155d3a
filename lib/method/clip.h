/* SPDX-License-Identifier: Apache-2.0 */
/*
 * clip.h - ranges of weights cut to where rounding hurts the outputs least (AWQ's clip search)
 *
 * Lin et al., arXiv:2306.00978.  For a group g of a row w, a = max |w_g|, and shrink
 * p = 1 - i / n_grid for i = 0 .. max_shrink n_grid - 1:
 *     c_p = clamp(w_g, -p a, p a)        d_p = Q(c_p) - w_g
 * the p with the least d_p H_gg d_p', H_gg the group's block on the diagonal of H: the squared
 * error of the group's part of the output over all tokens in H, which the published search takes
 * from 512 of them.  The weight becomes c_p.  p = 1 is among them, and the smallest i of equals
 * wins.  Q rounds to nearest; the range of c_p is its own (quantizer.h), so that asymmetric
 * groups that reach to one side are not clipped on the other.  H_gg couples columns of a group
 * only: the whole error of a linear, in the note, can rise where groups are many.
 */
#ifndef QP_CLIP_H
#define QP_CLIP_H

#include "lib/compute/backend.h"
#include "lib/method/layer.h"

struct clip_options {
	struct layer_options layers; /* quantizer and linears to pass over */
	long n_grid;
	double max_shrink;
	bool all;                    /* q and k as well, whose errors softmax amplifies */
};

struct clip;

struct clip *clip_new(struct backend *be, const struct clip_options *o, struct err *e);
void clip_free(struct clip *c);

/* w [rows, cols] clipped in place by H, packed triangle.  *clipped: weights that were cut. */
int clip_weight(struct clip *c, float *w, size_t rows, size_t cols, const float *tri,
		const char *where, size_t *clipped, struct err *e) MUST_USE;

/* Every linear that is not passed over; Hessians stay.  A note of kind "clip" tells the share of
 * weights cut and rtn's error over the energy of the outputs before and after, both against the
 * weight as it came.  ERR_DATA for an edge without H, or a linear that is codes already. */
int clip_block(struct clip *c, struct block *b, struct err *e) MUST_USE;

#endif
