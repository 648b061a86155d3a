/* SPDX-License-Identifier: Apache-2.0 */
/*
 * forward_tree.c - sequences that begin alike through a block, their beginning once
 */
#include <stdlib.h>

#include "lib/model/forward_impl.h"

static size_t rows_of(const struct forward_tree *t)
{
	size_t rows = t->stem;

	for (size_t i = 0; i < t->n; i++)
		rows += t->len[i];
	return rows;
}

/* Rotate the rows of t from `row` on: the branches' positions follow the stem's. */
static int rotate(struct forward *f, const struct forward_tree *t, size_t row, struct err *e)
{
	if (t->stem > 0 && forward_rope(f, row, 0, t->stem, t->stem, e) < 0)
		return -1;
	row += t->stem;
	for (size_t i = 0, same; i < t->n; i += same, row += same * t->len[i - 1]) {
		for (same = 1; i + same < t->n && t->len[i + same] == t->len[i];)
			same++;
		if (forward_rope(f, row, t->stem, same * t->len[i], t->len[i], e) < 0)
			return -1;
	}
	return 0;
}

/* a = attention of the rows of t from `row` on; begin: room for its branches' rows. */
static int attend(struct forward *f, const struct forward_tree *t, size_t row, size_t *begin,
		  struct err *e)
{
	struct attention_shape s = forward_shape(f);
	const struct attention_extra none = { 0 };
	struct attention_extra extra = s.extra != NULL ? *s.extra : none;
	size_t own = 0;

	if (s.extra != NULL)
		s.extra = &extra;
	if (extra.recent > 0) {
		extra.k += row * f->kv_dim;
		extra.v += row * f->kv_dim;
	}

	s.seqlen = t->stem;
	if (t->stem > 0 &&
	    f->be->ops->attention(f->be, f->a + row * f->q_dim, f->q + row * f->q_dim,
				  f->k + row * f->kv_dim, f->v + row * f->kv_dim, &s, e) < 0)
		return -1;
	for (size_t i = 0; i < t->n; i++)
		for (size_t k = 0, first = own; k < t->len[i]; k++)
			begin[own++] = first;
	s.seqlen = own;
	s.begin = begin;
	s.past = t->stem;
	s.past_k = f->k + row * f->kv_dim;
	s.past_v = f->v + row * f->kv_dim;
	if (extra.recent > 0) {
		extra.past_k = extra.k;
		extra.past_v = extra.v;
		extra.k += t->stem * f->kv_dim;
		extra.v += t->stem * f->kv_dim;
	}
	row += t->stem;
	return own == 0 ? 0 :
	       f->be->ops->attention(f->be, f->a + row * f->q_dim, f->q + row * f->q_dim,
				     f->k + row * f->kv_dim, f->v + row * f->kv_dim, &s, e);
}

static int check(const struct forward *f, const struct forward_tree *t, struct err *e)
{
	size_t longest = 0;

	for (size_t i = 0; i < t->n; i++)
		longest = t->len[i] > longest ? t->len[i] : longest;
	if (rows_of(t) == 0 || t->stem + longest > f->max_seq)
		return err_set(e, ERR_BUG, "forward", "sequence of %zu tokens, prepared for %zu",
			       t->stem + longest, f->max_seq);
	return 0;
}

static int slice(struct forward *f, const struct forward_tree *trees, size_t n, size_t rows,
		 size_t *begin, struct err *e)
{
	const struct hook none = { NULL, NULL };

	f->seqlen = 0;
	if (forward_sum_begin(f, PLACE_OUT, rows, e) < 0 || forward_qkv(f, rows, &none, e) < 0)
		return -1;
	for (size_t i = 0, row = 0; i < n; row += rows_of(&trees[i++]))
		if (rotate(f, &trees[i], row, e) < 0)
			return -1;
	if (forward_cache(f, rows, e) < 0)
		return -1;
	for (size_t i = 0, row = 0; i < n; row += rows_of(&trees[i++]))
		if (attend(f, &trees[i], row, begin, e) < 0)
			return -1;
	if (forward_input(f, EDGE_ATTN_MID, f->a, f->a, rows, &none, e) == NULL ||
	    forward_slice_out(f, rows, e) < 0 || forward_slice_mlp(f, rows, true, &none, e) < 0)
		return -1;
	return forward_sum_end(f, PLACE_OUT, rows, e);
}

int forward_trees(struct forward *f, float *x, const struct forward_tree *trees, size_t n,
		  struct err *e)
{
	size_t rows = 0, nbytes;
	size_t *begin;
	int ret;

	for (size_t i = 0; i < n; i++) {
		if (check(f, &trees[i], e) < 0)
			return -1;
		rows += rows_of(&trees[i]);
	}
	nbytes = rows * f->hidden * sizeof(*x);
	begin = malloc(rows * sizeof(*begin));
	if (begin == NULL)
		return err_nomem(e, "forward", rows * sizeof(*begin));
	ret = forward_reserve(f, rows, e);
	if (ret == 0)
		ret = f->be->ops->upload(f->be, f->x, x, nbytes, e);
	if (ret == 0)
		ret = slice(f, trees, n, rows, begin, e);
	if (ret == 0)
		ret = f->be->ops->download(f->be, x, f->x, nbytes, e);
	free(begin);
	return ret;
}
