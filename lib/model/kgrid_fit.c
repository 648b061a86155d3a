/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kgrid_fit.c - scales and minima of super-blocks for given weights
 */
#include "lib/model/kgrid_fit.h"

#include <math.h>

#include "lib/base/round.h"
#include "lib/compute/vec.h"
#include "lib/data/dtype.h"

enum { LANES = 16, MOST = 32, STEPS = 24 };

/* A group: weights, energies, how many; codes are counted from -mid, as mid stands for. */
struct group {
	float x[MOST], h[MOST];
	size_t n;
	float low, top; /* of codes */
};

/* What least squares need: sums of h, h q, h q^2, h x, h q x. */
struct sums {
	float h, q, qq, x, qx;
};

/* sum h (x - (s q - m))^2 with each q the nearest. */
__attribute__((always_inline))
static inline float error_body(const struct group *g, float s, float m)
{
	float lane[LANES] = { 0 }, sum = 0;
	const float inv = 1 / s;

	for (size_t i = 0; i < g->n; i += LANES)
		for (size_t c = 0; c < LANES; c++) {
			float t = (g->x[i + c] + m) * inv, d;

			t = t < g->low ? g->low : t;
			t = t > g->top ? g->top : t;
			d = g->x[i + c] - (s * round_even(t) - m);
			lane[c] += g->h[i + c] * (d * d);
		}
	for (size_t c = 0; c < LANES; c++)
		sum += lane[c];
	return sum;
}

__attribute__((always_inline))
static inline void sums_body(struct sums *to, const struct group *g, float s, float m)
{
	float a[5][LANES] = { { 0 } }, *out[5] = { &to->h, &to->q, &to->qq, &to->x, &to->qx };
	const float inv = 1 / s;

	for (size_t i = 0; i < g->n; i += LANES)
		for (size_t c = 0; c < LANES; c++) {
			const float x = g->x[i + c], h = g->h[i + c];
			float t = (x + m) * inv;

			t = t < g->low ? g->low : t;
			t = t > g->top ? g->top : t;
			t = round_even(t);
			a[0][c] += h;
			a[1][c] += h * t;
			a[2][c] += h * t * t;
			a[3][c] += h * x;
			a[4][c] += h * t * x;
		}
	for (int k = 0; k < 5; k++) {
		*out[k] = 0;
		for (size_t c = 0; c < LANES; c++)
			*out[k] += a[k][c];
	}
}

/* Once for each instruction set; nothing is contracted, so that all give the same bits. */
struct kernels {
	float (*error)(const struct group *g, float s, float m);
	void (*sums)(struct sums *to, const struct group *g, float s, float m);
};

#define DEFINE(name, attribute)                                                                    \
	attribute static float error_##name(const struct group *g, float s, float m)               \
	{                                                                                          \
		return error_body(g, s, m);                                                        \
	}                                                                                          \
	attribute static void sums_##name(struct sums *to, const struct group *g, float s,         \
					  float m)                                                 \
	{                                                                                          \
		sums_body(to, g, s, m);                                                            \
	}                                                                                          \
	static const struct kernels name = { error_##name, sums_##name }

DEFINE(plain, );
#if defined(__x86_64__)
DEFINE(avx2, __attribute__((target("avx2"))));
DEFINE(avx512, __attribute__((target("avx512f,avx512dq"))));
#endif

static const struct kernels *choose(void)
{
#if defined(__x86_64__)
	if (vec_level() >= VEC_AVX512)
		return &avx512;
	if (vec_level() >= VEC_AVX2)
		return &avx2;
#endif
	return &plain;
}

/* Weights of group j, and what they weigh: nothing may weigh nothing. */
static void take_group(struct group *g, const struct kgrid *k, const float *w, size_t stride,
		       const float *energy, size_t j)
{
	const size_t at = j * k->group;
	float sum = 0;

	g->n = k->group;
	g->low = k->sym ? -32 : 0;
	g->top = k->sym ? 31 : 15;
	for (size_t i = 0; i < g->n; i++) {
		g->x[i] = w[(at + i) * stride];
		g->h[i] = energy ? energy[at + i] : 1;
		sum += g->h[i];
	}
	for (size_t i = 0; i < g->n; i++)
		g->h[i] = sum > 0 && isfinite(sum) ? g->h[i] * ((float)g->n / sum) : 1;
}

/* The trial kept if its error is the least so far. */
static void keep_least(const struct kernels *k, const struct group *g, float s, float m,
		       float *best, float *s_best, float *m_best)
{
	float error;

	if (s == 0 || !isfinite(s) || !isfinite(m))
		return;
	error = k->error(g, s, m);
	if (error < *best) {
		*best = error;
		*s_best = s;
		*m_best = m;
	}
}

/* Scale and minimum: m >= 0, so that 0 is between the ends. */
static void fit_min(const struct kernels *k, const struct group *g, bool search, float *s, float *m)
{
	float lo = 0, hi = 0, best;
	struct sums a;

	for (size_t i = 0; i < g->n; i++) {
		lo = g->x[i] < lo ? g->x[i] : lo;
		hi = g->x[i] > hi ? g->x[i] : hi;
	}
	*s = (hi - lo) / g->top;
	*m = -lo;
	if (!search || *s == 0 || !isfinite(*s))
		return;
	best = k->error(g, *s, *m);
	for (int i = 0; i < STEPS; i++) {
		const float shrink = g->top / (g->top - 1 + 0.3f * (float)i);
		float step = (hi - lo) / g->top * shrink, det, to, min;

		k->sums(&a, g, step, -lo * (shrink < 1 ? shrink : 1));
		det = a.h * a.qq - a.q * a.q;
		if (!(det > 0))
			continue;
		to = (a.h * a.qx - a.q * a.x) / det;
		min = (a.q * a.qx - a.qq * a.x) / det;
		if (min < 0) {
			min = 0;
			to = a.qx / a.qq;
		}
		keep_least(k, g, to > 0 ? to : 0, min, &best, s, m);
	}
}

/* Scale of a grid about 0, of either sign: that end reaches further which is at -32. */
static void fit_sym(const struct kernels *k, const struct group *g, bool search, float *s)
{
	float far = 0, best, none;
	struct sums a;

	for (size_t i = 0; i < g->n; i++)
		far = fabsf(g->x[i]) > fabsf(far) ? g->x[i] : far;
	*s = far / g->low;
	if (!search || *s == 0 || !isfinite(*s))
		return;
	best = k->error(g, *s, 0);
	for (int i = 0; i < STEPS; i++)
		for (int sign = -1; sign <= 1; sign += 2) {
			const float step = (float)sign * far / (31 + 0.25f * (float)i);

			k->sums(&a, g, step, 0);
			if (a.qq > 0)
				keep_least(k, g, a.qx / a.qq, 0, &best, s, &none);
		}
}

/* The largest |x| of n, with its sign. */
static float furthest(const float *x, size_t n)
{
	float far = 0;

	for (size_t i = 0; i < n; i++)
		far = fabsf(x[i]) > fabsf(far) ? x[i] : far;
	return far;
}

static int nearest(float x, int lo, int hi)
{
	return !(x > (float)lo) ? lo : x > (float)hi ? hi : (int)rintf(x);
}

/* x as bits of F16, but no 0 */
static uint16_t some_half(float x)
{
	const uint16_t h = f32_to_f16(x);

	return h & 0x7fff ? h : 1;
}

/* The integers of a group, for its real s and m: no scale is 0. */
static void round_group(const struct kernels *k, const struct group *g, bool search, float d,
			float dmin, float s, float m, int *si, int *mi)
{
	const bool sym = g->low < 0;
	const int lo = sym ? -128 : 1, hi = sym ? 127 : 63;
	const int s0 = nearest(s / d, lo, hi), m0 = sym ? 0 : nearest(m / dmin, 0, 63);
	float best = INFINITY;

	*si = s0 ? s0 : 1;
	*mi = m0;
	for (int a = s0 - search; a <= s0 + search; a++)
		for (int b = m0 - (search && !sym); b <= m0 + (search && !sym); b++) {
			float error;

			if (a < lo || a > hi || a == 0 || b < 0 || b > 63)
				continue;
			error = k->error(g, d * (float)a, dmin * (float)b);
			if (error < best) {
				best = error;
				*si = a;
				*mi = b;
			}
		}
}

void kgrid_fit(enum codes_grid type, uint8_t *head, const float *w, size_t stride,
	       const float *energy, bool search)
{
	const struct kgrid *grid = kgrid(type);
	const size_t groups = KGRID_BLOCK / grid->group;
	const struct kernels *k = choose();
	float s[KGRID_MAX_GROUPS], m[KGRID_MAX_GROUPS] = { 0 }, far;
	int si[KGRID_MAX_GROUPS], mi[KGRID_MAX_GROUPS];
	struct group g[KGRID_MAX_GROUPS];
	uint16_t d, dmin = 0;

	for (size_t j = 0; j < groups; j++) {
		take_group(&g[j], grid, w, stride, energy, j);
		if (grid->sym)
			fit_sym(k, &g[j], search, &s[j]);
		else
			fit_min(k, &g[j], search, &s[j], &m[j]);
	}
	far = furthest(s, groups);
	d = some_half(grid->sym ? far / -128 : far / 63);
	if (!grid->sym)
		dmin = f32_to_f16(furthest(m, groups) / 63);
	for (size_t j = 0; j < groups; j++)
		round_group(k, &g[j], search, f16_to_f32(d), dmin ? f16_to_f32(dmin) : 1, s[j],
			    dmin ? m[j] : 0, &si[j], &mi[j]);
	for (size_t j = 0; j < groups && !dmin; j++)
		mi[j] = 0;
	kgrid_head(type, head, d, dmin, si, mi);
}

void kgrid_codes(enum codes_grid type, uint8_t *code, const float *w, const uint8_t *head)
{
	const struct kgrid *grid = kgrid(type);
	const float mid = (float)(1 << (grid->bits - 1)), shift = grid->sym ? 0 : -mid;
	float scale[KGRID_MAX_GROUPS], min[KGRID_MAX_GROUPS] = { 0 };

	kgrid_params(type, head, scale, min);
	for (size_t i = 0; i < KGRID_BLOCK; i++) {
		const size_t j = i / grid->group;
		float t = (w[i] + min[j]) / scale[j] + shift;

		/* Clamped before it is rounded: the bounds are integers, so that the code is the
		 * same, and nothing is too large for round_even. */
		t = t < -mid ? -mid : t;
		t = t > mid - 1 ? mid - 1 : t;
		code[i] = (uint8_t)(int)(round_even(t) + mid);
	}
}
