/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vec_kernels.h - bodies of struct vec_ops; included by vec_*.c, which name the table
 *
 * Written for the vectorizer: fixed lane counts, no branch and no libm call in an inner loop.
 * (The Makefile gives -fno-trapping-math, without which a choice is a branch to gcc.)
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

#define LANES 16

/*
 * e^x for x <= 88.37 within 2 ulp: x = n ln 2 + r, |r| <= ln 2 / 2, and a polynomial of degree 7
 * in r.  Below -87.33 (where results are denormal) 0; NaN is NaN.
 */
static inline float exp_below_88(float x)
{
	const float round = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer */
	float c = x < -87.33f ? -87.33f : x;
	float n, r, p, s;
	int32_t bits;

	n = c * 1.44269504f + round;
	memcpy(&bits, &n, 4);
	n -= round;
	r = c - n * 0.693359375f; /* exact: 10 bits times an integer below 2^8 */
	r = r + n * 2.12194440e-4f;
	p = 1.9841270e-4f;
	p = p * r + 1.3888889e-3f;
	p = p * r + 8.3333333e-3f;
	p = p * r + 4.1666667e-2f;
	p = p * r + 1.6666667e-1f;
	p = p * r + 0.5f;
	p = p * r * r + r + 1.0f;
	bits = (int32_t)((uint32_t)bits << 23) + 0x3f800000;
	memcpy(&s, &bits, 4);
	return x < -87.33f ? 0.0f : p * s;
}

/* The same for any x; above 88.37 (2.4e38) infinity. */
static inline float vexp(float x)
{
	float p = exp_below_88(x > 88.37f ? 88.37f : x);

	return x > 88.37f ? INFINITY : p;
}

#include "lib/compute/vec_product.h"

#include "lib/compute/vec_hadamard.h"

#include "lib/compute/vec_attention.h"

#include "lib/compute/vec_f64.h"

static inline double sum16d(const double *a)
{
	double t[8], u[4];

	for (int i = 0; i < 8; i++)
		t[i] = a[i] + a[i + 8];
	for (int i = 0; i < 4; i++)
		u[i] = t[i] + t[i + 4];
	return (u[0] + u[2]) + (u[1] + u[3]);
}

static void rmsnorm(float *y, const float *x, const float *w, size_t d, float eps)
{
	double acc[LANES] = { 0 };
	size_t i = 0;
	float inv;

	for (; i + LANES <= d; i += LANES)
		for (int l = 0; l < LANES; l++)
			acc[l] += (double)x[i + l] * x[i + l];
	for (; i < d; i++)
		acc[i % LANES] += (double)x[i] * x[i];
	inv = (float)(1.0 / sqrt(sum16d(acc) / (double)d + (double)eps));
#pragma GCC ivdep
	for (i = 0; i < d; i++)
		y[i] = x[i] * inv * w[i];
}

static void layernorm(float *y, const float *x, const float *w, const float *bias, size_t d,
		      float eps)
{
	double acc[LANES] = { 0 }, mean;
	size_t i = 0;
	float inv, m;

	for (; i + LANES <= d; i += LANES)
		for (int l = 0; l < LANES; l++)
			acc[l] += x[i + l];
	for (; i < d; i++)
		acc[i % LANES] += x[i];
	mean = sum16d(acc) / (double)d;
	memset(acc, 0, sizeof(acc));
	for (i = 0; i + LANES <= d; i += LANES)
		for (int l = 0; l < LANES; l++)
			acc[l] += (x[i + l] - mean) * (x[i + l] - mean);
	for (; i < d; i++)
		acc[i % LANES] += (x[i] - mean) * (x[i] - mean);
	inv = (float)(1.0 / sqrt(sum16d(acc) / (double)d + (double)eps));
	m = (float)mean;
#pragma GCC ivdep
	for (i = 0; i < d; i++)
		y[i] = (x[i] - m) * inv * w[i];
	if (bias)
		for (i = 0; i < d; i++)
			y[i] += bias[i];
}

static void rope(float *x, const float *restrict cos_, const float *restrict sin_, size_t half)
{
	float *restrict lo = x, *restrict hi = x + half;

	for (size_t i = 0; i < half; i++) {
		float a = lo[i], b = hi[i];

		lo[i] = a * cos_[i] - b * sin_[i];
		hi[i] = b * cos_[i] + a * sin_[i];
	}
}

static inline float act_silu(float x)
{
	return x / (1.0f + vexp(-x));
}

/* 0.5 x (1 + tanh u) = x / (1 + e^-2u), which does not cancel for x < 0 */
static inline float act_gelu_tanh(float x)
{
	float u = 0.797884561f * (x + 0.044715f * x * x * x);

	return x / (1.0f + vexp(-2.0f * u));
}

static inline float act_relu(float x)
{
	return x < 0.0f ? 0.0f : x;
}

/*
 * x Phi(x), Phi(x) = erfc(-x / sqrt 2) / 2.  For z >= 0, erfc(z) = t e^(-z^2 + p(t)) within
 * 1.2e-7 of itself, t = 1 / (1 + z / 2) and p of degree 9 (Press et al., Numerical Recipes in C,
 * 6.2).
 */
static inline float act_gelu(float x)
{
	float z = 0.707106781f * fabsf(x), t = 1.0f / (1.0f + 0.5f * z), p, e;

	p = 0.17087277f;
	p = p * t - 0.82215223f;
	p = p * t + 1.48851587f;
	p = p * t - 1.13520398f;
	p = p * t + 0.27886807f;
	p = p * t - 0.18628806f;
	p = p * t + 0.09678418f;
	p = p * t + 0.37409196f;
	p = p * t + 1.00002368f;
	p = p * t - 1.26551223f;
	e = 0.5f * t * exp_below_88(p - z * z);
	return x * (x > 0.0f ? 1.0f - e : e);
}

/* y may be g or u but not overlap them otherwise: no iteration reads what another wrote */
#define EACH _Pragma("GCC ivdep") for (size_t i = 0; i < n; i++)
#define GATE(ACT)                                            \
	do {                                                 \
		if (g)                                       \
			EACH y[i] = ACT(g[i]) * u[i];        \
		else                                         \
			EACH y[i] = ACT(u[i]);               \
	} while (0)

static void gate(float *y, const float *g, const float *u, size_t n, enum act_fn act)
{
	switch (act) {
	case ACT_FN_SILU:
		GATE(act_silu);
		break;
	case ACT_FN_RELU:
		GATE(act_relu);
		break;
	case ACT_FN_GELU:
		GATE(act_gelu);
		break;
	case ACT_FN_GELU_TANH:
		GATE(act_gelu_tanh);
		break;
	}
}

static float row_max(const float *x, size_t n)
{
	float m[LANES], r;
	size_t i = 0;

	for (int l = 0; l < LANES; l++)
		m[l] = -INFINITY;
	for (; i + LANES <= n; i += LANES)
		for (int l = 0; l < LANES; l++)
			m[l] = x[i + l] > m[l] ? x[i + l] : m[l];
	for (; i < n; i++)
		m[i % LANES] = x[i] > m[i % LANES] ? x[i] : m[i % LANES];
	r = m[0];
	for (int l = 1; l < LANES; l++)
		r = m[l] > r ? m[l] : r;
	return r;
}

static double logsumexp(const float *x, size_t n)
{
	double acc[LANES] = { 0 };
	float m = row_max(x, n), p[LANES * 16];

	for (size_t i = 0; i < n; i += LANES * 16) {
		size_t k = n - i < LANES * 16 ? n - i : LANES * 16;

		for (size_t j = 0; j < k; j++)
			p[j] = exp_below_88(x[i + j] - m);
		for (size_t j = k; j < LANES * 16; j++)
			p[j] = 0.0f;
		for (size_t j = 0; j < LANES * 16; j += LANES)
			for (int l = 0; l < LANES; l++)
				acc[l] += (double)p[j + (size_t)l];
	}
	return log(sum16d(acc)) + m;
}

/* Columns in strips that stay in registers' reach; a NaN wins every comparison and stays. */
static void colstats(const float *x, size_t ld, size_t t, size_t n, float *restrict absmax,
		     double *restrict abssum, float *restrict min, float *restrict max)
{
	for (size_t i = 0; i < t; i++, x += ld) {
		if (absmax)
			for (size_t j = 0; j < n; j++) {
				float a = fabsf(x[j]);

				absmax[j] = a > absmax[j] || a != a ? a : absmax[j];
			}
		if (abssum)
			for (size_t j = 0; j < n; j++)
				abssum[j] += (double)fabsf(x[j]);
		if (min)
			for (size_t j = 0; j < n; j++)
				min[j] = x[j] < min[j] || x[j] != x[j] ? x[j] : min[j];
		if (max)
			for (size_t j = 0; j < n; j++)
				max[j] = x[j] > max[j] || x[j] != x[j] ? x[j] : max[j];
	}
}

static void addf64(double *restrict y, const float *restrict x, size_t n)
{
	for (size_t i = 0; i < n; i++)
		y[i] += (double)x[i];
}

static void fill(float *restrict y, const float *restrict x, size_t n)
{
	for (size_t i = 0; i < n; i++)
		y[i] = x[i];
}

static inline float to_bf16(float x)
{
	uint32_t u, r;

	memcpy(&u, &x, 4);
	r = (u + 0x7fff + (u >> 16 & 1)) & 0xffff0000;
	r = (u & 0x7fffffff) > 0x7f800000 ? u | 0x400000 : r; /* a NaN stays one */
	memcpy(&x, &r, 4);
	return x;
}

static void bf16(float *restrict y, const float *restrict x, size_t n, int rest)
{
	if (!rest)
		for (size_t i = 0; i < n; i++)
			y[i] = to_bf16(x[i]);
	else
		for (size_t i = 0; i < n; i++) {
			float d = x[i] - to_bf16(x[i]);

			y[i] = to_bf16(fabsf(d) <= 3e38f ? d : 0.0f);
		}
}

const struct vec_ops VEC_TABLE = {
	.name = VEC_NAME,
	.linear = linear,
	.inner = inner,
	.transpose = transpose,
	.rmsnorm = rmsnorm,
	.layernorm = layernorm,
	.rope = rope,
	.gate = gate,
	.attend = attend,
	.logsumexp = logsumexp,
	.colstats = colstats,
	.addf64 = addf64,
	.fill = fill,
	.bf16 = bf16,
	.sylvester = sylvester,
	.signs = signs,
	.product64 = product64,
	.turn64 = turn64,
	.factor64 = factor64,
};
