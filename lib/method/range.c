/* SPDX-License-Identifier: Apache-2.0 */
/*
 * range.c - full ranges, and those shrunk to the least error, a row a lane (range.h)
 */
#include "lib/method/range.h"

#include <math.h>
#include <string.h>

#include "lib/compute/vec.h"

#define ROWS  RANGE_ROWS
#define LANES 16  /* of a vector; sets with shorter ones take two or four */
#define CHUNK 512 /* weights whose sum is f32 */
#define EVERY 4   /* shrinkages after which it is asked whether one is left to try */

typedef float lanes __attribute__((vector_size(LANES * sizeof(float)), aligned(4), may_alias));

/* What of one shrinkage the rows have. */
struct grids {
	bool sym;
	float mid, top;           /* 2^(b-1), 2^b - 1 */
	enum dtype scale_dtype;
	float lo[ROWS], hi[ROWS]; /* full ranges */
	float scale[ROWS], zero[ROWS];
	float unit[ROWS];         /* RANGE_MSE: what errors are counted in */
	float loss[ROWS];
};

/* The scale of a range before it is rounded; 0 of none. */
static inline double step_of(bool sym, double top, double lo, double hi)
{
	const double a = -lo > hi ? -lo : hi;

	return sym ? a / (top / 2) : (hi - lo) / top;
}

void range_params(const struct quantizer *q, double lo, double hi, float *scale,
			 uint8_t *zero)
{
	const double top = (1 << q->bits) - 1, step = step_of(q->sym, top, lo, hi);
	float z;

	*scale = step > 0 ? quantizer_round_scale(step, q->scale_dtype) : 1;
	z = rintf((float)-lo / *scale);
	*zero = (uint8_t)(q->sym ? 1 << (q->bits - 1) : z < (float)top ? z : (float)top);
}

typedef int32_t mask __attribute__((vector_size(LANES * sizeof(float))));

/* b = a where a is less */
#define LESSER(a, b)                                                                               \
	do {                                                                                       \
		const lanes a_ = (a);                                                        \
		const mask less = a_ < (b);                                                  \
		(b) = (lanes)((less & (mask)a_) | (~less & (mask)(b)));          \
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
static inline void run_body(const float *w, size_t n, float *lo, float *hi)
{
	lanes l = { 0 }, h = { 0 }, x; /* h: of -w */
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

/* x within [lo, hi]; of such loops gcc makes minima and maxima, of compared vectors masks. */
#define CLAMP(x, lo, hi)                                                                           \
	do {                                                                                       \
		float in_[LANES], out_[LANES];                                                     \
                                                                                                   \
		memcpy(in_, &(x), sizeof(in_));                                                    \
		for (size_t i_ = 0; i_ < LANES; i_++) {                                            \
			float c_ = in_[i_] < (lo) ? (lo) : in_[i_];                                \
                                                                                                   \
			out_[i_] = c_ > (hi) ? (hi) : c_;                                          \
		}                                                                                  \
		memcpy(&(x), out_, sizeof(out_));                                                  \
	} while (0)

/* Minima (at most 0) and maxima (at least 0). */
__attribute__((always_inline))
static inline void extent_body(struct grids *g, const float *t, size_t n)
{
	float lo[ROWS] = { 0 }, hi[ROWS] = { 0 };

	for (size_t j = 0; j < n; j++, t += ROWS)
		for (size_t r = 0; r < ROWS; r++) {
			lo[r] = t[r] < lo[r] ? t[r] : lo[r];
			hi[r] = t[r] > hi[r] ? t[r] : hi[r];
		}
	memcpy(g->lo, lo, sizeof(lo));
	memcpy(g->hi, hi, sizeof(hi));
}

/* Scales to F16 where all are normal numbers: 13 bits go, half to even. */
__attribute__((always_inline))
static inline bool normal_f16(float s[ROWS])
{
	uint32_t bits[ROWS];
	int odd = 0;

	for (size_t r = 0; r < ROWS; r++)
		odd |= !(s[r] >= 0x1p-14f) | !(s[r] < 65504);
	if (odd)
		return false;
	memcpy(bits, s, sizeof(bits));
	for (size_t r = 0; r < ROWS; r++)
		bits[r] = (bits[r] + 0xfff + (bits[r] >> 13 & 1)) & ~(uint32_t)0x1fff;
	memcpy(s, bits, sizeof(bits));
	return true;
}

/* Scales and zeros of the ranges shrunk by p, as quantizer.h has them. */
__attribute__((always_inline))
static inline void params_body(struct grids *g, double p)
{
	const double top = (double)g->top;
	float s[ROWS];

	for (size_t r = 0; r < ROWS; r++)
		s[r] = (float)step_of(g->sym, top, p * g->lo[r], p * g->hi[r]);
	for (size_t r = 0; r < ROWS; r++)
		s[r] = g->hi[r] - g->lo[r] > 0 ? s[r] : 1;
	if (g->scale_dtype != DT_F16 || !normal_f16(s))
		for (size_t r = 0; r < ROWS; r++)
			s[r] = s[r] == 1 ? 1 : quantizer_round_scale((double)s[r], g->scale_dtype);
	for (size_t r = 0; r < ROWS; r++) {
		const float z = round_even((float)(-p * g->lo[r]) / s[r]);

		g->zero[r] = g->sym ? g->mid : z < g->top ? z : g->top;
		g->scale[r] = s[r];
	}
}

/* sum h (w - w~)^2.  w / scale is w times its inverse but for the last bit, and then both codes are
 * as good; errors are counted in steps. */
__attribute__((always_inline))
static inline void energy_body(struct grids *g, const float *t, const float *h, size_t n)
{
	const float low = -g->mid, high = g->mid - 1;

	for (size_t r = 0; r < ROWS; r += LANES) {
		const lanes scale = *(const lanes *)(g->scale + r), inv = 1 / scale;
		const lanes shift = *(const lanes *)(g->zero + r) - g->mid;
		lanes sum = { 0 };

		for (size_t j = 0; j < n; j++) {
			const lanes x = *(const lanes *)(t + j * ROWS + r) * inv + shift;
			lanes q = x;

			CLAMP(q, low, high);
			q = x - ((q + 0x1.8p23f) - 0x1.8p23f); /* round_even */
			sum += h[j] * (q * q);
		}
		*(lanes *)(g->loss + r) = sum * (scale * scale);
	}
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

/* sum |w - w~|^2.4, in units. */
__attribute__((always_inline))
static inline void power_body(struct grids *g, const float *t, size_t n)
{
	const float low = -g->mid, high = g->mid - 1;
	float sum[ROWS] = { 0 };

	for (size_t j = 0; j < n; j++, t += ROWS)
		for (size_t r = 0; r < ROWS; r++) {
			const float shift = g->zero[r] - g->mid;
			float q = t[r] / g->scale[r] + shift;

			q = q < low ? low : q;
			q = q > high ? high : q;
			q = t[r] - g->scale[r] * (round_even(q) - shift);
			sum[r] += pow24(q / g->unit[r]);
		}
	memcpy(g->loss, sum, sizeof(sum));
}

/* sum h d^2, d the distance from [lo, hi]. */
__attribute__((always_inline))
static inline void outside_body(const float *t, const float *h, size_t n, const float lo[ROWS],
				const float hi[ROWS], float out[ROWS])
{
	for (size_t r = 0; r < ROWS; r += LANES) {
		const lanes low = *(const lanes *)(lo + r), high = *(const lanes *)(hi + r);
		lanes sum = { 0 };

		for (size_t j = 0; j < n; j++) {
			const lanes x = *(const lanes *)(t + j * ROWS + r);
			lanes below = low - x, above = x - high;

			CLAMP(below, 0, INFINITY);
			CLAMP(above, 0, INFINITY);
			sum += h[j] * (below * below + above * above);
		}
		*(lanes *)(out + r) = sum;
	}
}

struct range_kernels {
	void (*run)(const float *w, size_t n, float *lo, float *hi);
	void (*extent)(struct grids *g, const float *t, size_t n);
	void (*params)(struct grids *g, double p);
	void (*energy)(struct grids *g, const float *t, const float *h, size_t n);
	void (*power)(struct grids *g, const float *t, size_t n);
	void (*outside)(const float *t, const float *h, size_t n, const float *lo, const float *hi,
			float *out);
};

/* Once for each instruction set; nothing is contracted, so that all give the same bits. */
#define DEFINE(name, attribute)                                                                    \
	attribute static void run_##name(const float *w, size_t n, float *lo, float *hi)           \
	{                                                                                          \
		run_body(w, n, lo, hi);                                                            \
	}                                                                                          \
	attribute static void extent_##name(struct grids *g, const float *t, size_t n)             \
	{                                                                                          \
		extent_body(g, t, n);                                                              \
	}                                                                                          \
	attribute static void params_##name(struct grids *g, double p)                             \
	{                                                                                          \
		params_body(g, p);                                                                 \
	}                                                                                          \
	attribute static void energy_##name(struct grids *g, const float *t, const float *h,       \
					    size_t n)                                              \
	{                                                                                          \
		energy_body(g, t, h, n);                                                           \
	}                                                                                          \
	attribute static void power_##name(struct grids *g, const float *t, size_t n)              \
	{                                                                                          \
		power_body(g, t, n);                                                               \
	}                                                                                          \
	attribute static void outside_##name(const float *t, const float *h, size_t n,             \
					     const float *lo, const float *hi, float *out)         \
	{                                                                                          \
		outside_body(t, h, n, lo, hi, out);                                                \
	}                                                                                          \
	static const struct range_kernels name = { run_##name, extent_##name, params_##name,       \
						   energy_##name, power_##name, outside_##name }

DEFINE(plain, );
#if defined(__x86_64__)
DEFINE(avx2, __attribute__((target("avx2"))));
DEFINE(avx512, __attribute__((target("avx512f,avx512dq"))));
#endif

void quantizer_choose(struct quantizer *q)
{
#if defined(__x86_64__)
	const enum vec_level level = vec_level();

	q->kernels = level >= VEC_AVX512 ? &avx512 : level >= VEC_AVX2 ? &avx2 : &plain;
#else
	q->kernels = &plain;
#endif
}

void range_of(const struct quantizer *q, const float *w, size_t n, float *lo, float *hi)
{
	(q->kernels ? q->kernels : &plain)->run(w, n, lo, hi);
}

/* What the rows lose by the grids at hand. */
static void lose(const struct quantizer *q, struct grids *g, const float *t, size_t n,
		 const float *energy, double loss[ROWS])
{
	memset(loss, 0, ROWS * sizeof(*loss));
	for (size_t at = 0, m; at < n; at += m) {
		m = n - at < CHUNK ? n - at : CHUNK;
		if (q->range == RANGE_HMSE)
			q->kernels->energy(g, t + at * ROWS, energy + at, m);
		else
			q->kernels->power(g, t + at * ROWS, m);
		for (size_t r = 0; r < ROWS; r++)
			loss[r] += (double)g->loss[r];
	}
}

/*
 * Whether no later shrinkage can have the least energy of any row.  Scales only fall from step to
 * step, rounded or not, so that all later grids end within this one's where the zero stays; with
 * zeros, within half a step (the zero's rounding) and the scale's rounding times the largest code
 * of this step's range.  What lies beyond is lost to all of them: once that alone is more than the
 * least so far, none of them can be it.
 */
static bool at_end(const struct quantizer *q, const struct grids *g, const float *t, size_t n,
		   const float *energy, double p, const double least[ROWS])
{
	const float off = 0.501f + g->top * (q->scale_dtype == DT_BF16 ? 0x1p-8f :
					     q->scale_dtype == DT_F16 ? 0x1p-11f : 0x1p-24f);
	float lo[ROWS], hi[ROWS], part[ROWS];
	double lost[ROWS] = { 0 };

	for (size_t r = 0; r < ROWS; r++) {
		const float s = g->scale[r];

		/* From here on F16 rounds as said. */
		if (q->scale_dtype == DT_F16 && s <= 0x1p-11f && least[r] >= 0)
			return false;
		lo[r] = g->sym ? -g->mid * s : (float)p * g->lo[r] - off * s;
		hi[r] = g->sym ? (g->mid - 1) * s : (float)p * g->hi[r] + off * s;
	}
	for (size_t at = 0, m; at < n; at += m) {
		m = n - at < CHUNK ? n - at : CHUNK;
		q->kernels->outside(t + at * ROWS, energy + at, m, lo, hi, part);
		for (size_t r = 0; r < ROWS; r++)
			lost[r] += (double)part[r];
	}
	for (size_t r = 0; r < ROWS; r++)
		if (lost[r] <= least[r] * 1.001)
			return false;
	return true;
}

void range_fit(const struct quantizer *q, const float *t, size_t n, const float *energy,
	       float scale[ROWS], float zero[ROWS])
{
	struct grids g = { .sym = q->sym, .mid = (float)(1 << (q->bits - 1)),
			   .top = (float)((1 << q->bits) - 1), .scale_dtype = q->scale_dtype };
	double least[ROWS], loss[ROWS];

	q->kernels->extent(&g, t, n);
	q->kernels->params(&g, 1);
	for (size_t r = 0; r < ROWS; r++) {
		g.unit[r] = scale[r] = g.scale[r];
		zero[r] = g.zero[r];
		/* Nothing to shrink, or nothing that would fit. */
		least[r] = g.hi[r] - g.lo[r] > 0 && isfinite(scale[r]) ? INFINITY : -INFINITY;
	}
	for (int i = 0; q->range != RANGE_MINMAX && i < RANGE_STEPS; i++) {
		const double p = 1 - i / 100.0;

		q->kernels->params(&g, p);
		lose(q, &g, t, n, energy, loss);
		for (size_t r = 0; r < ROWS; r++)
			if (loss[r] < least[r]) {
				least[r] = loss[r];
				scale[r] = g.scale[r];
				zero[r] = g.zero[r];
			}
		if (q->range == RANGE_HMSE && i % EVERY == EVERY - 1 &&
		    at_end(q, &g, t, n, energy, p, least))
			break;
	}
}

void range_loss(const struct quantizer *q, const float *t, size_t n, const float *energy,
		float scale, float zero, float unit, double *loss)
{
	struct grids g = { .mid = (float)(1 << (q->bits - 1)) };
	double sum[ROWS];

	for (size_t r = 0; r < ROWS; r++) {
		g.scale[r] = scale;
		g.zero[r] = zero;
		g.unit[r] = unit;
	}
	lose(q, &g, t, n, energy, sum);
	for (size_t r = 0; r < ROWS; r++)
		*loss += sum[r];
}
