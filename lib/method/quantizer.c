/* SPDX-License-Identifier: Apache-2.0 */
/*
 * quantizer.c - ranges, codes, and what they stand for (quantizer.h)
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/pool.h"
#include "lib/compute/vec.h"
#include "lib/method/kquant.h"
#include "lib/method/quantizer.h"

#define MSE_STEPS 80      /* maxshrink 0.8 of a grid of 100 */
#define MSE_CHUNK 512     /* weights in cache at a time */
#define LANES 16          /* sums side by side */
#define STEPS 4           /* of the shrinking at a time */

void quantizer_sizes(size_t n, char *buf, size_t cap)
{
	size_t len = 0;

	buf[0] = '\0';
	for (size_t d = 1; d <= n; d++) {
		int w;

		if (n % d)
			continue;
		w = snprintf(buf + len, cap - len, "%s%zu", len ? ", " : "", d);
		if (w < 0 || len + (size_t)w + 6 > cap) {
			snprintf(buf + len, cap - len, ", ...");
			return;
		}
		len += (size_t)w;
	}
}

int quantizer_groups(const struct quantizer *q, size_t cols, const char *where, size_t *groups,
		     size_t *group, struct err *e)
{
	size_t g = q->group > 0 ? (size_t)q->group : cols;
	char sizes[320];

	if (!cols || cols % g) {
		quantizer_sizes(cols, sizes, sizeof(sizes));
		return err_set(e, ERR_DATA, where, "groups of %zu do not divide %zu columns; "
			       "sizes that do: %s, -1 (a row), 0 (the tensor)", g, cols, sizes);
	}
	*group = g;
	*groups = cols / g;
	return 0;
}

/* What a grid of super-blocks has beside scales. */
static int init_grid(struct quantized *z, const char *where, struct err *e)
{
	const struct kgrid *k = kgrid(z->grid);
	const size_t heads = z->rows * (z->cols / KGRID_BLOCK) * k->head;
	const size_t mins = k->sym ? 0 : z->rows * z->groups;

	if (heads > z->cap_head) {
		free(z->head);
		z->cap_head = 0;
		if (!(z->head = malloc(heads)))
			return err_nomem(e, where, heads);
		z->cap_head = heads;
	}
	if (mins > z->cap_min) {
		free(z->min_room);
		z->cap_min = 0;
		if (!(z->min_room = malloc(mins * sizeof(*z->min))))
			return err_nomem(e, where, mins * sizeof(*z->min));
		z->cap_min = mins;
	}
	z->min = k->sym ? NULL : z->min_room;
	return 0;
}

int quantized_init(struct quantized *z, const struct quantizer *q, size_t rows, size_t cols,
		   const char *where, struct err *e)
{
	size_t groups, group, n = rows * cols;

	if (quantizer_groups(q, cols, where, &groups, &group, e) < 0)
		return -1;
	if (q->grid) {
		group = kgrid(q->grid)->group;
		groups = cols / group;
	}
	if (n > z->cap) {
		free(z->codes);
		z->cap = 0;
		if (!(z->codes = malloc(n)))
			return err_nomem(e, where, n);
		z->cap = n;
	}
	n = rows * groups;
	if (n > z->cap_groups) {
		free(z->scale);
		free(z->zero);
		z->cap_groups = 0;
		z->scale = malloc(n * sizeof(*z->scale));
		z->zero = malloc(n);
		if (!z->scale || !z->zero)
			return err_nomem(e, where, n * (sizeof(*z->scale) + 1));
		z->cap_groups = n;
	}
	z->rows = rows;
	z->cols = cols;
	z->groups = groups;
	z->group = group;
	z->bits = q->bits;
	z->sym = q->sym;
	z->per_tensor = q->group == 0;
	z->grid = q->grid;
	z->min = NULL;
	return z->grid ? init_grid(z, where, e) : 0;
}

void quantized_release(struct quantized *z)
{
	free(z->codes);
	free(z->scale);
	free(z->zero);
	free(z->head);
	free(z->min_room);
	memset(z, 0, sizeof(*z));
}

float quantizer_round_scale(double s, enum dtype t)
{
	float f = (float)s;

	switch (t) {
	case DT_F16:
		if (f >= 0x1p-14f && f < 65504) { /* a normal number: 13 bits go, half to even */
			uint32_t bits;

			memcpy(&bits, &f, sizeof(bits));
			bits = (bits + 0xfff + (bits >> 13 & 1)) & ~(uint32_t)0x1fff;
			memcpy(&f, &bits, sizeof(f));
			return f;
		}
		f = f16_to_f32(f32_to_f16(f));
		return f > 0 ? f : 0x1p-24f;
	case DT_BF16:
		f = bf16_to_f32(f32_to_bf16(f));
		return f > 0 ? f : 0x1p-133f;
	default:
		return f > 0 ? f : 0x1p-149f;
	}
}

/* Scale and zero of the range [lo, hi], lo <= 0 <= hi. */
static void range_params(const struct quantizer *q, double lo, double hi, float *scale,
			 uint8_t *zero)
{
	double top = (1 << q->bits) - 1;
	float z;

	if (q->sym) {
		double a = -lo > hi ? -lo : hi;

		*zero = (uint8_t)(1 << (q->bits - 1));
		*scale = a > 0 ? quantizer_round_scale(a / (top / 2), q->scale_dtype) : 1;
		return;
	}
	if (lo == 0 && hi == 0) {
		*scale = 1;
		*zero = 0;
		return;
	}
	*scale = quantizer_round_scale((hi - lo) / top, q->scale_dtype);
	z = rintf((float)-lo / *scale);
	*zero = (uint8_t)(z > (float)top ? (float)top : z);
}

typedef float range_lanes __attribute__((vector_size(LANES * sizeof(float))));
typedef int32_t range_mask __attribute__((vector_size(LANES * sizeof(float))));

/* b = a where a is less */
#define LESSER(a, b)                                                                               \
	do {                                                                                       \
		const range_lanes a_ = (a);                                                        \
		const range_mask less = a_ < (b);                                                  \
		(b) = (range_lanes)((less & (range_mask)a_) | (~less & (range_mask)(b)));          \
	} while (0)

/* Lanes moved down by n, round. */
#define TURNED(x, n)                                                                               \
	__builtin_shufflevector(x, x, (0 + (n)) % LANES, (1 + (n)) % LANES, (2 + (n)) % LANES,     \
				(3 + (n)) % LANES, (4 + (n)) % LANES, (5 + (n)) % LANES,           \
				(6 + (n)) % LANES, (7 + (n)) % LANES, (8 + (n)) % LANES,           \
				(9 + (n)) % LANES, (10 + (n)) % LANES, (11 + (n)) % LANES,         \
				(12 + (n)) % LANES, (13 + (n)) % LANES, (14 + (n)) % LANES,        \
				(15 + (n)) % LANES)

/* Minimum (at most 0) and maximum (at least 0).  Vectors by hand: of loops over lanes gcc makes
 * branches. */
__attribute__((always_inline))
static inline void range_body(const float *w, size_t n, float *lo, float *hi)
{
	range_lanes l = { 0 }, h = { 0 }, x; /* h: of -w */
	float least, most;
	size_t i = 0;

	for (; i + LANES <= n; i += LANES) {
		memcpy(&x, w + i, sizeof(x));
		LESSER(x, l);
		LESSER(-x, h);
	}
	LESSER(TURNED(l, 8), l);
	LESSER(TURNED(h, 8), h);
	LESSER(TURNED(l, 4), l);
	LESSER(TURNED(h, 4), h);
	LESSER(TURNED(l, 2), l);
	LESSER(TURNED(h, 2), h);
	LESSER(TURNED(l, 1), l);
	LESSER(TURNED(h, 1), h);
	least = l[0];
	most = 0 - h[0];
	for (; i < n; i++) {
		least = w[i] < least ? w[i] : least;
		most = w[i] > most ? w[i] : most;
	}
	*lo = least;
	*hi = most;
}

/*
 * |x|^2.4 = y^2 r^4 with y = x^2 and r = y^(-1/5) by Newton's iteration r (6 - y r^5) / 5,
 * which has no division and no call.  The start, a fifth of the bits, is within 4 %; two
 * steps leave 1e-5, three the rounding of f32.
 */
static inline float pow24(float x)
{
	float y = x * x, r, r2;
	uint32_t bits;

	memcpy(&bits, &y, sizeof(bits));
	bits = 0x4c2b0000u - (uint32_t)(int32_t)((float)(int32_t)bits * 0.2f);
	memcpy(&r, &bits, sizeof(r));
	for (int i = 0; i < 3; i++) {
		r2 = r * r;
		r = r * (1.2f - 0.2f * (y * r2) * (r2 * r));
	}
	r2 = r * r;
	return (y * r2) * (y * r2);
}

/* Of LANES sums; in pairs, which every instruction set does in the same order. */
__attribute__((always_inline))
static inline double lanes_sum(const float *lane)
{
	double d[LANES / 2];

	for (size_t c = 0; c < LANES / 2; c++)
		d[c] = (double)lane[c] + (double)lane[c + LANES / 2];
	for (size_t n = LANES / 4; n > 0; n /= 2)
		for (size_t c = 0; c < n; c++)
			d[c] += d[c + n];
	return d[0];
}

/* sum |w - w~|^2.4 of n adjacent weights, n a multiple of LANES, in units of unit. */
__attribute__((always_inline))
static inline double loss_body(const float *w, size_t n, float scale, int zero, int bits,
			       float unit)
{
	float mid = (float)(1 << (bits - 1)), shift = (float)zero - mid, inv = 1 / unit;
	float lane[LANES] = { 0 };

	for (size_t i = 0; i < n; i += LANES) {
		for (size_t c = 0; c < LANES; c++) {
			float x = w[i + c], t = x / scale + shift;

			t = t < -mid ? -mid : t;
			t = t > mid - 1 ? mid - 1 : t;
			lane[c] += pow24((x - scale * (round_even(t) - shift)) * inv);
		}
	}
	return lanes_sum(lane);
}

/* sum h (w - w~)^2 of n adjacent weights likewise, by each of STEPS grids. */
__attribute__((always_inline))
static inline void energy_body(const float *w, const float *h, size_t n, const float *scale,
			       const uint8_t *zero, int bits, double *sum)
{
	/* x inv is x / scale but for its last bit, and then both codes are as good. */
	const float mid = (float)(1 << (bits - 1));
	float lane[STEPS][LANES] = { 0 }, shift[STEPS], inv[STEPS];
	bool centred = true;

	for (int s = 0; s < STEPS; s++) {
		shift[s] = (float)zero[s] - mid;
		inv[s] = 1 / scale[s];
		centred &= shift[s] == 0;
	}
	for (size_t i = 0; centred && i < n; i += LANES)
		for (int s = 0; s < STEPS; s++)
			for (size_t c = 0; c < LANES; c++) {
				float x = w[i + c], t = x * inv[s];

				t = t < -mid ? -mid : t;
				t = t > mid - 1 ? mid - 1 : t;
				x -= scale[s] * round_even(t);
				lane[s][c] += h[i + c] * (x * x);
			}
	for (size_t i = 0; !centred && i < n; i += LANES)
		for (int s = 0; s < STEPS; s++)
			for (size_t c = 0; c < LANES; c++) {
				float x = w[i + c], t = x * inv[s] + shift[s];

				t = t < -mid ? -mid : t;
				t = t > mid - 1 ? mid - 1 : t;
				x -= scale[s] * (round_even(t) - shift[s]);
				lane[s][c] += h[i + c] * (x * x);
			}
	for (int s = 0; s < STEPS; s++)
		sum[s] = lanes_sum(lane[s]);
}

/* sum h d^2 over weights, d their distance from [lo, hi]: what no grid within it can mend. */
__attribute__((always_inline))
static inline double clip_body(const float *w, const float *h, size_t n, float lo, float hi)
{
	float lane[LANES] = { 0 };

	for (size_t i = 0; i < n; i += LANES) {
		for (size_t c = 0; c < LANES; c++) {
			float x = w[i + c], t = x;

			t = t < lo ? lo : t;
			t = t > hi ? hi : t;
			lane[c] += h[i + c] * ((x - t) * (x - t));
		}
	}
	return lanes_sum(lane);
}

/* Once for each instruction set; nothing is contracted, so that all give the same bits. */
#define DEFINE_LOSS(name, attribute)                                                               \
	attribute static void name(const float *w, const float *h, size_t n, const float *scale,   \
				   const uint8_t *zero, int bits, float unit, double *sum)         \
	{                                                                                          \
		if (h)                                                                             \
			energy_body(w, h, n, scale, zero, bits, sum);                              \
		else                                                                               \
			for (int s = 0; s < STEPS; s++)                                            \
				sum[s] = loss_body(w, n, scale[s], zero[s], bits, unit);           \
	}                                                                                          \
	attribute static void name##_range(const float *w, size_t n, float *lo, float *hi)         \
	{                                                                                          \
		range_body(w, n, lo, hi);                                                          \
	}                                                                                          \
	attribute static double name##_clip(const float *w, const float *h, size_t n, float lo,    \
					    float hi)                                              \
	{                                                                                          \
		return clip_body(w, h, n, lo, hi);                                                 \
	}

DEFINE_LOSS(loss_plain, )
#if defined(__x86_64__)
DEFINE_LOSS(loss_avx2, __attribute__((target("avx2"))))
DEFINE_LOSS(loss_avx512, __attribute__((target("avx512f,avx512dq"))))
#endif

struct range_kernels {
	/* Of STEPS grids; h or, if it is NULL, unit. */
	void (*loss)(const float *w, const float *h, size_t n, const float *scale,
		     const uint8_t *zero, int bits, float unit, double *sum);
	double (*clip)(const float *w, const float *h, size_t n, float lo, float hi);
	void (*range)(const float *w, size_t n, float *lo, float *hi);
};

void quantizer_choose(struct quantizer *q)
{
	static const struct range_kernels plain = { loss_plain, loss_plain_clip, loss_plain_range };
#if defined(__x86_64__)
	static const struct range_kernels avx2 = { loss_avx2, loss_avx2_clip, loss_avx2_range };
	static const struct range_kernels avx512 = { loss_avx512, loss_avx512_clip,
						     loss_avx512_range };
	const enum vec_level level = vec_level();

	q->kernels = level >= VEC_AVX512 ? &avx512 : level >= VEC_AVX2 ? &avx2 : &plain;
#else
	q->kernels = &plain;
#endif
}

/* Weights [at, at + m) into buf and, for RANGE_HMSE, their energies; zeros, which have no error,
 * fill the last vector. */
static const float *take_chunk(const struct quantizer *q, const float *w, size_t stride, size_t at,
			       size_t m, float buf[MSE_CHUNK], float energy[MSE_CHUNK])
{
	for (size_t i = 0; i < m; i++)
		buf[i] = w[(at + i) * stride];
	for (size_t i = m; i % LANES; i++)
		buf[i] = 0;
	if (q->range != RANGE_HMSE)
		return NULL;
	for (size_t i = 0; i < m; i++)
		energy[i] = q->energy[(at + i) % q->n_energy];
	for (size_t i = m; i % LANES; i++)
		energy[i] = 0;
	return energy;
}

/*
 * The step with the least energy of m weights, all at hand.  Scales only fall from step to step,
 * rounded or not, so that all later grids end within this one's where the zero stays; with zeros,
 * within half a step (the zero's rounding) and the scale's rounding times the largest code of this
 * step's range.  What lies beyond is lost to all of them: once that alone is more than the least so
 * far, none of them can be it.
 */
static void least_energy(const struct quantizer *q, const float *w, const float *h, size_t m,
			 double lo, double hi, float *scale, uint8_t *zero)
{
	const double top = (1 << q->bits) - 1, mid = 1 << (q->bits - 1);
	const double off = 0.501 + top * (q->scale_dtype == DT_BF16 ? 0x1p-8 :
					  q->scale_dtype == DT_F16 ? 0x1p-11 : 0x1p-24);
	double least = INFINITY, loss[STEPS], p = 1, end;
	float s[STEPS];
	uint8_t z[STEPS];

	m = (m + LANES - 1) / LANES * LANES;
	for (int i = 0; i < MSE_STEPS; i += STEPS) {
		for (int c = 0; c < STEPS; c++) {
			p = 1 - (i + c) / 100.0;
			range_params(q, p * lo, p * hi, &s[c], &z[c]);
		}
		q->kernels->loss(w, h, m, s, z, q->bits, 1, loss);
		for (int c = 0; c < STEPS; c++)
			if (loss[c] < least) {
				least = loss[c];
				*scale = s[c];
				*zero = z[c];
			}
		end = s[STEPS - 1];
		if (end > 0x1p-11f && /* F16 rounds as said */
		    q->kernels->clip(w, h, m, (float)(q->sym ? -mid * end : p * lo - off * end),
			 (float)(q->sym ? (mid - 1) * end : p * hi + off * end)) > least * 1.001)
			break;
	}
}

/* Shrink [lo, hi] to where the loss is least; the first of equals. */
static void shrink_params(const struct quantizer *q, const float *w, size_t n, size_t stride,
			  double lo, double hi, float *scale, uint8_t *zero)
{
	float s[MSE_STEPS], buf[MSE_CHUNK], energy[MSE_CHUNK];
	double loss[MSE_STEPS] = { 0 }, sum[STEPS];
	uint8_t z[MSE_STEPS];
	int best = 0;

	if (q->range == RANGE_HMSE && n <= MSE_CHUNK) {
		const float *h = take_chunk(q, w, stride, 0, n, buf, energy);

		least_energy(q, buf, h, n, lo, hi, scale, zero);
		return;
	}
	for (int i = 0; i < MSE_STEPS; i++)
		range_params(q, (1 - i / 100.0) * lo, (1 - i / 100.0) * hi, &s[i], &z[i]);
	for (size_t at = 0; at < n; at += MSE_CHUNK) {
		size_t m = n - at < MSE_CHUNK ? n - at : MSE_CHUNK;
		const float *h = take_chunk(q, w, stride, at, m, buf, energy);

		for (int i = 0; i < MSE_STEPS; i += STEPS) {
			q->kernels->loss(buf, h, (m + LANES - 1) / LANES * LANES, s + i, z + i,
					 q->bits, s[0], sum);
			for (int c = 0; c < STEPS; c++)
				loss[i + c] += sum[c];
		}
	}
	for (int i = best + 1; i < MSE_STEPS; i++)
		if (loss[i] < loss[best])
			best = i;
	*scale = s[best];
	*zero = z[best];
}

void quantizer_fit_range(const struct quantizer *q, const float *w, size_t n, size_t stride,
			 double lo, double hi, float *scale, uint8_t *zero)
{
	struct quantizer with = *q;

	range_params(q, lo, hi, scale, zero);
	if (q->range == RANGE_MINMAX || (lo == 0 && hi == 0) || !isfinite(*scale))
		return;
	if (!with.kernels)
		quantizer_choose(&with);
	shrink_params(&with, w, n, stride, lo, hi, scale, zero);
}

static void find_range(const struct quantizer *q, const float *w, size_t n, size_t stride,
		       float *lo, float *hi)
{
	*lo = *hi = 0;
	if (stride == 1 && q->kernels)
		q->kernels->range(w, n, lo, hi);
	else if (stride == 1)
		loss_plain_range(w, n, lo, hi);
	for (size_t i = 0; stride != 1 && i < n; i++) {
		const float x = w[i * stride];

		*lo = x < *lo ? x : *lo;
		*hi = x > *hi ? x : *hi;
	}
}

void quantizer_fit(const struct quantizer *q, const float *w, size_t n, size_t stride,
		   float *scale, uint8_t *zero)
{
	float lo, hi;

	find_range(q, w, n, stride, &lo, &hi);
	quantizer_fit_range(q, w, n, stride, lo, hi, scale, zero);
}

struct fit_ctx {
	struct quantized *z;
	const struct quantizer *q;
	const float *w;
};

static void fit_row(void *ctx, size_t row, int thread)
{
	const struct fit_ctx *f = ctx;
	struct quantized *z = f->z;
	struct quantizer q = *f->q;

	(void)thread;
	for (size_t b = 0; z->grid && b < z->cols / KGRID_BLOCK; b++)
		kquant_fit(z, &q, f->w + row * z->cols + b * KGRID_BLOCK, 1,
			   q.range == RANGE_HMSE ? q.energy + b * KGRID_BLOCK : NULL, row, b);
	for (size_t g = 0; !z->grid && g < z->groups; g++) {
		q.energy = f->q->range == RANGE_HMSE ? f->q->energy + g * z->group : NULL;
		q.n_energy = z->group;
		quantizer_fit(&q, f->w + row * z->cols + g * z->group, z->group, 1,
			      &z->scale[row * z->groups + g], &z->zero[row * z->groups + g]);
	}
}

int quantized_check_scales(const struct quantized *z, const struct quantizer *q,
			   const char *where, struct err *e)
{
	int64_t bad = f32_first_nonfinite(z->scale, z->rows * z->groups);

	if (bad < 0 && z->min)
		bad = f32_first_nonfinite(z->min, z->rows * z->groups);
	if (bad < 0)
		return 0;
	return err_set(e, ERR_DATA, where, "the scale of row %zu, group %zu does not fit %s%s",
		       (size_t)bad / z->groups, (size_t)bad % z->groups,
		       dtype_name(q->scale_dtype),
		       q->scale_dtype == DT_F16 && !z->grid ? "; try --scale-dtype=f32" : "");
}

int quantizer_check_finite(const float *w, size_t rows, size_t cols, const char *where,
			   struct err *e)
{
	int64_t bad = f32_first_nonfinite(w, rows * cols);

	if (bad < 0)
		return 0;
	return err_set(e, ERR_DATA, where, "value at row %zu column %zu is not finite",
		       (size_t)bad / cols, (size_t)bad % cols);
}

int quantizer_fit_all(struct quantized *z, const struct quantizer *q, const float *w,
		      struct pool *pool, const char *where, struct err *e)
{
	struct quantizer with = *q;
	struct fit_ctx f = { .z = z, .q = &with, .w = w };

	if (quantizer_check_finite(w, z->rows, z->cols, where, e) < 0)
		return -1;
	quantizer_choose(&with);
	if (z->per_tensor) {
		float scale;
		uint8_t zero;

		quantizer_fit(q, w, z->rows * z->cols, 1, &scale, &zero);
		for (size_t r = 0; r < z->rows; r++) {
			z->scale[r] = scale;
			z->zero[r] = zero;
		}
	} else {
		pool_run(pool, z->rows, fit_row, &f);
	}
	return quantized_check_scales(z, q, where, e);
}

int quantize(float w, float scale, int zero, int bits)
{
	uint8_t code;

	quantize_run(&code, &w, 1, scale, (float)zero, bits);
	return code;
}

void quantize_run(uint8_t *code, const float *w, size_t n, float scale, float zero, int bits)
{
	float mid = (float)(1 << (bits - 1)), shift = zero - mid;

	/* Clamped before it is rounded: the bounds are integers, so that the code is the same,
	 * and nothing is too large for round_even. */
	for (size_t i = 0; i < n; i++) {
		float t = w[i] / scale + shift;

		t = t < -mid ? -mid : t;
		t = t > mid - 1 ? mid - 1 : t;
		code[i] = (uint8_t)(int)(round_even(t) + mid);
	}
}

void quantized_dequantize(const struct quantized *z, float *w)
{
	const uint8_t *code = z->codes;

	for (size_t r = 0; r < z->rows; r++)
		for (size_t g = 0; g < z->groups; g++) {
			float s = z->scale[r * z->groups + g];
			float min = quantized_min(z, r * z->groups + g);
			int zero = z->zero[r * z->groups + g];

			for (size_t j = 0; j < z->group; j++)
				*w++ = dequantize(*code++, zero, s) - min;
		}
}
