/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rtn_f8.c - weights to float8 (rtn_f8.h)
 */
#include "lib/method/rtn_f8.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/pool.h"
#include "lib/base/usage.h"
#include "lib/compute/backend.h"
#include "lib/data/f8.h"

struct f8_ctx {
	struct f8_quantized *z;
	enum dtype dtype;
	const float *w;
	float *out;
	const float *value; /* of the 256 codes */
};

void f8_release(struct f8_quantized *z)
{
	free(z->codes);
	free(z->scale);
	memset(z, 0, sizeof(*z));
}

static size_t smaller(size_t a, size_t b)
{
	return a < b ? a : b;
}

/* A row of groups: rows n * tall on. */
static void quantize_groups(void *ctx, size_t n, int thread)
{
	const struct f8_ctx *c = ctx;
	struct f8_quantized *z = c->z;
	const size_t end = smaller((n + 1) * z->tall, z->rows);

	(void)thread;
	for (size_t g = 0; g < z->groups; g++) {
		const size_t from = g * z->width, to = smaller(from + z->width, z->cols);
		float *s = &z->scale[n * z->groups + g], top = 0;

		for (size_t r = n * z->tall; r < end; r++)
			for (size_t k = from; k < to; k++)
				top = fmaxf(top, fabsf(c->w[r * z->cols + k]));
		*s = top > 0 ? quantizer_round_scale((double)top / (double)F8_MAX, c->dtype) : 1;
		for (size_t r = n * z->tall; r < end; r++)
			for (size_t k = from; k < to; k++)
				z->codes[r * z->cols + k] =
					f8_from_f32(c->w[r * z->cols + k] / *s);
	}
}

static int reserve(struct f8_quantized *z, const char *where, struct err *e)
{
	const size_t n = z->rows * z->cols, scales = z->scale_rows * z->groups;

	if (n > z->cap) {
		free(z->codes);
		z->codes = malloc(n);
		z->cap = z->codes ? n : 0;
	}
	if (scales > z->cap_scales) {
		free(z->scale);
		z->scale = malloc(scales * sizeof(*z->scale));
		z->cap_scales = z->scale ? scales : 0;
	}
	return z->codes && z->scale ? 0 : err_nomem(e, where, n + scales * sizeof(*z->scale));
}

int f8_quantize(struct f8_quantized *z, const struct f8_options *f, enum dtype scale_dtype,
		const float *w, size_t rows, size_t cols, struct pool *pool, const char *where,
		struct err *e)
{
	struct f8_ctx c = { .z = z, .dtype = scale_dtype, .w = w };

	z->rows = rows;
	z->cols = cols;
	z->tall = f->scales == F8_ROW ? 1 : f->scales == F8_TENSOR ? rows : f->tall;
	z->width = f->scales == F8_BLOCK ? f->width : cols;
	z->scale_rows = (rows + z->tall - 1) / z->tall;
	z->groups = (cols + z->width - 1) / z->width;
	if (reserve(z, where, e) < 0 || quantizer_check_finite(w, rows, cols, where, e) < 0)
		return -1;
	pool_run(pool, z->scale_rows, quantize_groups, &c);
	for (size_t i = 0; i < z->scale_rows * z->groups; i++)
		if (!isfinite(z->scale[i]))
			return err_set(e, ERR_DATA, where, "scale %zu does not fit %s; "
				       "--scale-dtype=f32", i, dtype_name(scale_dtype));
	return 0;
}

/* ---- a linear of a block -------------------------------------------------------------- */

static void subtract_row(void *ctx, size_t row, int thread)
{
	const struct f8_ctx *c = ctx;
	const struct f8_quantized *z = c->z;
	const float *s = z->scale + row / z->tall * z->groups;
	const uint8_t *q = z->codes + row * z->cols;
	float *w = c->out + row * z->cols;

	(void)thread;
	for (size_t k = 0; k < z->cols; k++)
		w[k] -= s[k / z->width] * c->value[q[k]];
}

static void dequantize_row(void *ctx, size_t row, int thread)
{
	const struct f8_ctx *c = ctx;
	const struct f8_quantized *z = c->z;
	const float *s = z->scale + row / z->tall * z->groups;
	const uint8_t *q = z->codes + row * z->cols;
	float *w = c->out + row * z->cols;

	(void)thread;
	for (size_t k = 0; k < z->cols; k++)
		w[k] = s[k / z->width] * c->value[q[k]];
}

static struct item *add(struct block *b, const struct layer *l, enum role role, enum dtype t,
			size_t rows, size_t cols, struct err *e)
{
	struct record r = { .rank = -1 };
	struct item *it;

	record_init(&r, REC_TENSOR, l->name);
	r.role = role;
	snprintf(r.role_name, sizeof(r.role_name), "%s", role_name(role));
	r.dtype = t;
	r.rank = 2;
	r.shape[0] = (int64_t)rows;
	r.shape[1] = (int64_t)cols;
	it = block_add(b, &r, e);
	record_clear(&r);
	return it;
}

static int store(const struct f8_quantized *z, const struct f8_options *f, const struct layer *l,
		 struct block *b, enum dtype t, struct err *e)
{
	struct item *it = add(b, l, ROLE_CODES, DT_F8_E4M3, z->rows, z->cols, e);

	if (!it)
		return -1;
	memcpy(it->data, z->codes, z->rows * z->cols);
	if (record_set_int(&it->rec, "bits", 8) < 0 ||
	    record_set_int(&it->rec, "group", (int64_t)z->width) < 0 ||
	    record_set_bool(&it->rec, "sym", true) < 0 ||
	    (f->scales == F8_BLOCK && z->tall > 1 &&
	     record_set_int(&it->rec, "tall", (int64_t)z->tall) < 0))
		return err_nomem(e, l->where, 64);
	it = add(b, l, ROLE_SCALE, t, z->scale_rows, z->groups, e);
	if (!it)
		return -1;
	return dtype_from_f32(it->data, t, z->scale, z->scale_rows * z->groups) < 0 ?
	       err_set(e, ERR_BUG, l->where, "no such type of scales") : 0;
}

static int quantize_layer(struct layer *l, struct block *b, const float *tri,
			  struct f8_quantized *z, struct backend *be, const struct f8_options *f,
			  const struct layer_options *o, struct err *e)
{
	float value[256];
	struct f8_ctx c = { .z = z, .out = l->w, .value = value };
	struct layer diff = *l;
	const double start = usage_seconds();
	double seconds;

	for (int i = 0; i < 256; i++)
		value[i] = f8_to_f32((uint8_t)i);
	if (f8_quantize(z, f, o->q.scale_dtype, l->w, l->rows, l->cols, be->pool, l->where, e) < 0)
		return -1;
	seconds = usage_seconds() - start;
	if (layer_weigh(l, be, tri, e) < 0)
		return -1;
	pool_run(be->pool, l->rows, subtract_row, &c);
	if (layer_weigh(&diff, be, tri, e) < 0)
		return -1;
	pool_run(be->pool, l->rows, dequantize_row, &c);
	l->q.bits = 8;
	l->q.group = f->scales == F8_ROW ? -1 : f->scales == F8_TENSOR ? 0 : (long)z->width;
	if (store(z, f, l, b, o->q.scale_dtype, e) < 0)
		return -1;
	if (o->codes_only)
		block_find(b, l->row.weight, ROLE_WEIGHT)->drop = true;
	return layer_note(l, b, o, diff.energy, tri != NULL, NULL, seconds, e);
}

int rtn_f8_block(struct block *b, struct f8_quantized *z, struct backend *be,
		 const struct f8_options *f, const struct layer_options *o, struct err *e)
{
	struct linear_row row;

	for (size_t n = 0; model_linear(b->model, b->layer, n, &row); n++) {
		struct layer l;
		const int got = layer_take(&l, b, &row, o, e);

		if (got < 0 || (got > 0 && quantize_layer(&l, b, layer_hessian(b, row.in), z, be,
							  f, o, e) < 0))
			return -1;
	}
	/* Not in the loop: several linears read one edge. */
	for (size_t n = 0; model_linear(b->model, b->layer, n, &row) && !o->keep_stats; n++)
		if (!layer_skipped(o, b->model, &row, b->layer))
			layer_drop_hessian(b, row.in);
	return 0;
}
