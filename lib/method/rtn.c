/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rtn.c - every weight by itself (rtn.h)
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/pool.h"
#include "lib/base/usage.h"
#include "lib/compute/backend.h"
#include "lib/compute/vec.h"
#include "lib/method/rtn.h"

#define LANES 16 /* sums side by side */

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

/* ---- all of a row at once -------------------------------------------------------- */

typedef float lanes_f32 __attribute__((vector_size(LANES * sizeof(float))));
typedef double lanes_f64 __attribute__((vector_size(LANES * sizeof(double))));
typedef int32_t lanes_i32 __attribute__((vector_size(LANES * sizeof(int32_t))));
typedef uint8_t lanes_u8 __attribute__((vector_size(LANES)));

/* What n weights of a group become, from their codes; whole[LANES] += w^2, left[LANES] += what
 * rounding leaves of it.  Vectors by hand: left to itself gcc takes the shortest there are. */
__attribute__((always_inline))
static inline void settle_body(float *w, const uint8_t *code, size_t n, float scale, int zero,
			       float min, double *whole, double *left)
{
	lanes_f64 all, rest;
	size_t i = 0;

	memcpy(&all, whole, sizeof(all));
	memcpy(&rest, left, sizeof(rest));
	for (; i + LANES <= n; i += LANES) {
		lanes_f32 x, y;
		lanes_f64 wide;
		lanes_u8 c;

		memcpy(&x, w + i, sizeof(x));
		memcpy(&c, code + i, sizeof(c));
		y = __builtin_convertvector(__builtin_convertvector(c, lanes_i32) - zero,
					    lanes_f32);
		y = scale * y - min;
		memcpy(w + i, &y, sizeof(y));
		wide = __builtin_convertvector(x, lanes_f64);
		all += wide * wide;
		wide = __builtin_convertvector(x - y, lanes_f64);
		rest += wide * wide;
	}
	memcpy(whole, &all, sizeof(all));
	memcpy(left, &rest, sizeof(rest));
	for (; i < n; i++) {
		const float x = w[i], y = dequantize(code[i], zero, scale) - min;
		const double d = x - y;

		whole[0] += (double)x * (double)x;
		left[0] += d * d;
		w[i] = y;
	}
}

/* Once for each instruction set; nothing is contracted, so that all give the same bits. */
#define DEFINE_SETTLE(name, attribute)                                                             \
	attribute static void name(float *w, const uint8_t *code, size_t n, float scale, int zero, \
				   float min, double *whole, double *left)                         \
	{                                                                                          \
		settle_body(w, code, n, scale, zero, min, whole, left);                            \
	}

DEFINE_SETTLE(settle_plain, )
#if defined(__x86_64__)
DEFINE_SETTLE(settle_avx2, __attribute__((target("avx2"))))
DEFINE_SETTLE(settle_avx512, __attribute__((target("avx512f,avx512dq,avx512bw,avx512vl"))))
#endif

struct settle_job {
	const struct quantized *z;
	float *w;
	double (*sum)[2]; /* [rows]: of w^2, of what is left */
	void (*settle)(float *w, const uint8_t *code, size_t n, float scale, int zero, float min,
		       double *whole, double *left);
};

static void settle_row(void *ctx, size_t row, int thread)
{
	const struct settle_job *j = ctx;
	const struct quantized *z = j->z;
	double whole[LANES] = { 0 }, left[LANES] = { 0 };

	(void)thread;
	for (size_t i = row * z->cols, g = row * z->groups; i < (row + 1) * z->cols;
	     i += z->group, g++)
		j->settle(j->w + i, z->codes + i, z->group, z->scale[g], z->zero[g],
			  quantized_min(z, g), whole, left);
	for (size_t c = 1; c < LANES; c++) {
		whole[0] += whole[c];
		left[0] += left[c];
	}
	j->sum[row][0] = whole[0];
	j->sum[row][1] = left[0];
}

/* l->w becomes what its codes stand for; l->energy is its own, *left that of the difference. */
static int settle(struct layer *l, const struct quantized *z, struct backend *be, double *left,
		  struct err *e)
{
	struct settle_job j = { z, l->w, malloc(l->rows * sizeof(*j.sum)), settle_plain };

	if (!j.sum)
		return err_nomem(e, l->where, l->rows * sizeof(*j.sum));
#if defined(__x86_64__)
	j.settle = vec_level() >= VEC_AVX512 ? settle_avx512 :
		   vec_level() >= VEC_AVX2 ? settle_avx2 : settle_plain;
#endif
	pool_run(be->pool, l->rows, settle_row, &j);
	l->energy = *left = 0;
	for (size_t row = 0; row < l->rows; row++) {
		l->energy += j.sum[row][0];
		*left += j.sum[row][1];
	}
	free(j.sum);
	return 0;
}

/* The same with H. */
static int settle_weighed(struct layer *l, struct quantized *z, const float *tri,
			  struct backend *be, double *left, struct err *e)
{
	struct rtn_ctx c = { .z = z, .out = l->w };
	struct layer diff = *l;

	if (layer_weigh(l, be, tri, e) < 0)
		return -1;
	pool_run(be->pool, l->rows, subtract_row, &c);
	if (layer_weigh(&diff, be, tri, e) < 0)
		return -1;
	quantized_dequantize(z, l->w);
	*left = diff.energy;
	return 0;
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
	r = rtn_quantize(z, &q, l->w, l->rows, l->cols, be->pool, l->where, e);
	free(energy);
	return r;
}

int rtn_layer(struct layer *l, struct block *b, const float *tri, struct quantized *z,
	      struct backend *be, const struct layer_options *o, struct err *e)
{
	double start = usage_seconds(), seconds, left;
	int r;

	if (l->q.range == RANGE_HMSE)
		r = round_by_energy(l, tri, z, be, e);
	else
		r = rtn_quantize(z, &l->q, l->w, l->rows, l->cols, be->pool, l->where, e);
	if (r < 0)
		return -1;
	seconds = usage_seconds() - start;
	if ((tri ? settle_weighed(l, z, tri, be, &left, e) : settle(l, z, be, &left, e)) < 0 ||
	    layer_store(l, b, z, o, e) < 0)
		return -1;
	return layer_note(l, b, o, left, tri != NULL, NULL, seconds, e);
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
