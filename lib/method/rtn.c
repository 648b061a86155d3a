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
#define ROWS  16 /* of one task, where a row is soon done */

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

/* a where the mask m is set, else b: a macro, as gcc warns of functions that return vectors. */
#define CHOSEN(m, a, b) \
	((lanes_f32)(((m) & (lanes_i32)(a)) | (~(m) & (lanes_i32)(b))))

__attribute__((always_inline))
static inline void sum_lanes(const lanes_f64 *all, const lanes_f64 *rest, double sum[2])
{
	sum[0] = (*all)[0];
	sum[1] = (*rest)[0];
	for (size_t c = 1; c < LANES; c++) {
		sum[0] += (*all)[c];
		sum[1] += (*rest)[c];
	}
}

/* What a row of weights becomes, from its codes; sum[0] is of w^2, sum[1] of the square of what
 * rounding leaves of it.  Vectors by hand: left to itself gcc takes the shortest there are. */
__attribute__((always_inline))
static inline void settle_body(float *w, const uint8_t *code, const struct quantized *z,
			       size_t row, double sum[2])
{
	lanes_f64 all = { 0 }, rest = { 0 }, wide;

	for (size_t g = row * z->groups; g < (row + 1) * z->groups; g++) {
		const float scale = z->scale[g], min = quantized_min(z, g);
		const int zero = z->zero[g];
		size_t i = 0;

		for (; i + LANES <= z->group; i += LANES) {
			lanes_f32 x, y;
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
		for (; i < z->group; i++) {
			const float x = w[i], y = dequantize(code[i], zero, scale) - min;
			const double d = x - y;

			all[0] += (double)x * (double)x;
			rest[0] += d * d;
			w[i] = y;
		}
		w += z->group;
		code += z->group;
	}
	sum_lanes(&all, &rest, sum);
}

/* The codes of a row of a grid without minima, as quantize_run makes them, and the same sums; its
 * scales and zeros are there. */
__attribute__((always_inline))
static inline void code_body(const float *w, uint8_t *code, const struct quantized *z, size_t row,
			     double sum[2])
{
	const float mid = (float)(1 << (z->bits - 1));
	lanes_f64 all = { 0 }, rest = { 0 }, wide;

	for (size_t g = row * z->groups; g < (row + 1) * z->groups; g++) {
		const float scale = z->scale[g], shift = (float)z->zero[g] - mid;
		const float zero = (float)z->zero[g];
		size_t i = 0;

		for (; i + LANES <= z->group; i += LANES) {
			lanes_f32 x, t;
			lanes_u8 c;

			memcpy(&x, w + i, sizeof(x));
			t = x / scale + shift;
			t = CHOSEN(t < -mid, (lanes_f32){ 0 } - mid, t);
			t = CHOSEN(t > mid - 1, (lanes_f32){ 0 } + (mid - 1), t);
			t = (t + 0x1.8p23f) - 0x1.8p23f + mid; /* round_even */
			c = __builtin_convertvector(__builtin_convertvector(t, lanes_i32),
						    lanes_u8);
			memcpy(code + i, &c, sizeof(c));
			wide = __builtin_convertvector(x, lanes_f64);
			all += wide * wide;
			wide = __builtin_convertvector(x - scale * (t - zero), lanes_f64);
			rest += wide * wide;
		}
		quantize_run(code + i, w + i, z->group - i, scale, zero, z->bits);
		for (; i < z->group; i++) {
			const double d = w[i] - dequantize(code[i], z->zero[g], scale);

			all[0] += (double)w[i] * (double)w[i];
			rest[0] += d * d;
		}
		w += z->group;
		code += z->group;
	}
	sum_lanes(&all, &rest, sum);
}

/* Once for each instruction set; nothing is contracted, so that all give the same bits. */
#define DEFINE_ROW(set, attribute)                                                                 \
	attribute static void settle_##set(float *w, const uint8_t *code,                          \
					   const struct quantized *z, size_t row, double sum[2])   \
	{                                                                                          \
		settle_body(w, code, z, row, sum);                                                 \
	}                                                                                          \
	attribute static void code_##set(const float *w, uint8_t *code,                            \
					 const struct quantized *z, size_t row, double sum[2])     \
	{                                                                                          \
		code_body(w, code, z, row, sum);                                                   \
	}

struct row_kernels {
	void (*settle)(float *w, const uint8_t *code, const struct quantized *z, size_t row,
		       double sum[2]);
	void (*code)(const float *w, uint8_t *code, const struct quantized *z, size_t row,
		     double sum[2]);
};

DEFINE_ROW(plain, )
#if defined(__x86_64__)
DEFINE_ROW(avx2, __attribute__((target("avx2"))))
DEFINE_ROW(avx512, __attribute__((target("avx512f,avx512dq,avx512bw,avx512vl"))))
#endif

static struct row_kernels row_kernels(void)
{
#if defined(__x86_64__)
	if (vec_level() >= VEC_AVX512)
		return (struct row_kernels){ settle_avx512, code_avx512 };
	if (vec_level() >= VEC_AVX2)
		return (struct row_kernels){ settle_avx2, code_avx2 };
#endif
	return (struct row_kernels){ settle_plain, code_plain };
}

struct settle_job {
	const struct quantized *z;
	float *w;
	double (*sum)[2]; /* [rows]: of w^2, of what is left */
	struct row_kernels kernels;
};

static void settle_row(void *ctx, size_t row, int thread)
{
	const struct settle_job *j = ctx;
	const size_t at = row * j->z->cols;

	(void)thread;
	j->kernels.settle(j->w + at, j->z->codes + at, j->z, row, j->sum[row]);
}

static int settle_start(struct settle_job *j, const struct quantized *z, const struct layer *l,
			struct err *e)
{
	*j = (struct settle_job){ z, l->w, malloc(l->rows * sizeof(*j->sum)), row_kernels() };
	return j->sum ? 0 : err_nomem(e, l->where, l->rows * sizeof(*j->sum));
}

/* The sums of all rows, in their order: l->energy and *left. */
static void settle_end(struct settle_job *j, struct layer *l, double *left)
{
	l->energy = *left = 0;
	for (size_t row = 0; row < l->rows; row++) {
		l->energy += j->sum[row][0];
		*left += j->sum[row][1];
	}
	free(j->sum);
}

/* l->w becomes what its codes stand for; l->energy is its own, *left that of the difference. */
static int settle(struct layer *l, const struct quantized *z, struct backend *be, double *left,
		  struct err *e)
{
	struct settle_job j;

	if (settle_start(&j, z, l, e) < 0)
		return -1;
	pool_run(be->pool, l->rows, settle_row, &j);
	settle_end(&j, l, left);
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

/* ---- codes alone: a row is widened, rounded and forgotten ------------------------------ */

struct codes_job {
	struct settle_job settle;
	struct quantizer q;
	struct quantized *z;
	const unsigned char *from; /* the weight as it came */
	enum dtype dtype;
	float *row;                /* [threads][stride] */
	size_t stride;
};

static void code_rows(void *ctx, size_t task, int thread)
{
	const struct codes_job *c = ctx;
	struct quantized *z = c->z;
	const size_t bytes = z->cols * (size_t)dtype_bits(c->dtype) / 8;
	const size_t end = (task + 1) * ROWS < z->rows ? (task + 1) * ROWS : z->rows;
	float *w = c->row + (size_t)thread * c->stride;

	for (size_t row = task * ROWS; row < end; row++) {
		float *scale = z->scale + row * z->groups;
		uint8_t *zero = z->zero + row * z->groups;

		/* The type is one of those that can be widened: codes_at_once saw to it. */
		(void)dtype_to_f32(w, c->from + row * bytes, c->dtype, z->cols);
		for (size_t g = 0; g < z->groups; g++)
			quantizer_fit(&c->q, w + g * z->group, z->group, &scale[g], &zero[g]);
		c->settle.kernels.code(w, z->codes + row * z->cols, z, row, c->settle.sum[row]);
	}
}

/* Full ranges within rows need no more than one of them at a time. */
static bool codes_at_once(const struct layer *l, const struct layer_options *o, const float *tri,
			  const struct item *w)
{
	return o->codes_only && !tri && l->q.range == RANGE_MINMAX && !l->q.grid &&
	       l->q.group != 0 && w && (w->rec.dtype == DT_F32 || w->rec.dtype == DT_F16 ||
					w->rec.dtype == DT_BF16);
}

/* Values were found to be finite when the block was read. */
static int rtn_codes(struct layer *l, struct block *b, const struct item *w, struct quantized *z,
		     struct backend *be, const struct layer_options *o, struct err *e)
{
	const double start = usage_seconds();
	struct codes_job c = {
		.q = l->q, .z = z, .from = w->data, .dtype = w->rec.dtype,
		.stride = (l->cols + 31) / 16 * 16,
	};
	const size_t bytes = (size_t)pool_threads(be->pool) * c.stride * sizeof(*c.row);
	double left;

	if (quantized_init(z, &l->q, l->rows, l->cols, l->where, e) < 0)
		return -1;
	if (!(c.row = aligned_alloc(64, bytes)))
		return err_nomem(e, l->where, bytes);
	if (settle_start(&c.settle, z, l, e) < 0) {
		free(c.row);
		return -1;
	}
	quantizer_choose(&c.q);
	pool_run(be->pool, (l->rows + ROWS - 1) / ROWS, code_rows, &c);
	settle_end(&c.settle, l, &left);
	free(c.row);
	if (quantized_check_scales(z, &l->q, l->where, e) < 0 || layer_store(l, b, z, o, e) < 0)
		return -1;
	return layer_note(l, b, o, left, false, NULL, usage_seconds() - start, e);
}

static int do_linear(struct block *b, const struct linear_row *row, struct quantized *z,
		     struct backend *be, const struct layer_options *o, struct err *e)
{
	const float *tri = layer_hessian(b, row->in);
	struct layer l;
	int got = layer_pick(&l, b, row, o, e);

	if (got <= 0)
		return got;
	if (codes_at_once(&l, o, tri, block_find(b, row->weight, ROLE_WEIGHT))) {
		got = rtn_codes(&l, b, block_find(b, row->weight, ROLE_WEIGHT), z, be, o, e);
	} else {
		l.w = block_weight_f32(b, row->weight, e);
		got = l.w ? rtn_layer(&l, b, tri, z, be, o, e) : -1;
	}
	if (got == 0 && o->codes_only)
		block_find(b, row->weight, ROLE_WEIGHT)->drop = true;
	return got;
}

int rtn_block(struct block *b, struct quantized *z, struct backend *be,
	      const struct layer_options *o, struct err *e)
{
	struct linear_row row;

	for (size_t n = 0; model_linear(b->model, b->layer, n, &row); n++)
		if (do_linear(b, &row, z, be, o, e) < 0)
			return -1;
	/* Not in the loop: several linears read one edge. */
	for (size_t n = 0; model_linear(b->model, b->layer, n, &row) && !o->keep_stats; n++)
		if (!layer_skipped(o, b->model, &row, b->layer))
			layer_drop_hessian(b, row.in);
	return 0;
}
