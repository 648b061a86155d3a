/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rtn.c - every weight by itself (rtn.h)
 */
#include <stdlib.h>

#include "lib/base/pool.h"
#include "lib/base/usage.h"
#include "lib/compute/backend.h"
#include "lib/method/rtn.h"

struct rtn_ctx {
	struct quantized *z;
	const float *w;
	float *out;
};

static void code_row(void *ctx, size_t row, int thread)
{
	const struct rtn_ctx *c = ctx;
	struct quantized *z = c->z;
	size_t at = row * z->cols;

	(void)thread;
	for (size_t g = 0; g < z->groups; g++, at += z->group)
		quantize_run(z->codes + at, c->w + at, z->group, z->scale[row * z->groups + g],
			     quantized_zero(z, row * z->groups + g), z->bits);
}

int rtn_quantize(struct quantized *z, const struct quantizer *q, const float *w, size_t rows,
		 size_t cols, struct pool *pool, const char *where, struct err *e)
{
	struct rtn_ctx c = { .z = z, .w = w };

	if (quantized_init(z, q, rows, cols, where, e) < 0 ||
	    quantizer_fit_all(z, q, w, pool, where, e) < 0)
		return -1;
	pool_run(pool, rows, code_row, &c);
	return 0;
}

/* w = w - q, all rows. */
static void subtract_row(void *ctx, size_t row, int thread)
{
	const struct rtn_ctx *c = ctx;
	const struct quantized *z = c->z;
	float *w = c->out + row * z->cols;

	(void)thread;
	for (size_t i = 0, g = row * z->groups; i < z->cols; i += z->group, g++) {
		const float min = quantized_min(z, g);

		for (size_t j = i; j < i + z->group; j++)
			w[j] -= dequantize(z->codes[row * z->cols + j], z->zero[g], z->scale[g]) -
				min;
	}
}

/* RANGE_HMSE: with the diagonal of H. */
static int round_by_energy(const struct layer *l, const float *tri, struct quantized *z,
			   struct backend *be, struct err *e)
{
	struct quantizer q = l->q;
	float *energy;
	int r;

	if (!tri)
		return err_set(e, ERR_DATA, l->where, "no hessian for --range=hmse; put "
			       "\"record-acts --stats=hessian\" before, or take --range=mse");
	if (!(energy = malloc(l->cols * sizeof(*energy))))
		return err_nomem(e, l->where, l->cols * sizeof(*energy));
	for (size_t j = 0; j < l->cols; j++)
		energy[j] = tri[tri_index(j, j, l->cols)];
	q.energy = energy;
	q.n_energy = l->cols;
	r = rtn_quantize(z, &q, l->w, l->rows, l->cols, be->pool, l->where, e);
	free(energy);
	return r;
}

int rtn_layer(struct layer *l, struct block *b, const float *tri, struct quantized *z,
	      struct backend *be, const struct layer_options *o, struct err *e)
{
	struct rtn_ctx c = { .z = z, .out = l->w };
	struct layer diff = *l;
	double start = usage_seconds(), seconds;
	int r;

	if (l->q.range == RANGE_HMSE)
		r = round_by_energy(l, tri, z, be, e);
	else
		r = rtn_quantize(z, &l->q, l->w, l->rows, l->cols, be->pool, l->where, e);
	if (r < 0)
		return -1;
	seconds = usage_seconds() - start;
	if (layer_weigh(l, be, tri, e) < 0)
		return -1;
	pool_run(be->pool, l->rows, subtract_row, &c);
	if (layer_weigh(&diff, be, tri, e) < 0)
		return -1;
	quantized_dequantize(z, l->w);
	if (layer_store(l, b, z, o, e) < 0)
		return -1;
	return layer_note(l, b, o, diff.energy, tri != NULL, NULL, seconds, e);
}

int rtn_block(struct block *b, struct quantized *z, struct backend *be,
	      const struct layer_options *o, struct err *e)
{
	struct linear_row row;

	for (size_t n = 0; model_linear(b->model, b->layer, n, &row); n++) {
		struct layer l;
		const int got = layer_take(&l, b, &row, o, e);

		if (got < 0 || (got > 0 && rtn_layer(&l, b, layer_hessian(b, row.in), z, be, o,
						     e) < 0))
			return -1;
	}
	/* Not in the loop: several linears read one edge. */
	for (size_t n = 0; model_linear(b->model, b->layer, n, &row) && !o->keep_stats; n++)
		if (!layer_skipped(o, b->model, &row, b->layer))
			layer_drop_hessian(b, row.in);
	return 0;
}
