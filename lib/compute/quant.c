/* SPDX-License-Identifier: Apache-2.0 */
/*
 * quant.c - grids from ranges, values to grids (quant.h)
 */
#include "lib/compute/quant.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "lib/base/round.h"

#define E4M3_MAX 448.0f
#define LANES 16 /* minima and maxima side by side */
/* Beyond it a sum with it rounds no more to integers. */
#define MAX_ZERO 4194304.0f

static float larger(float a, float b)
{
	return a > b ? a : b;
}

static float smaller(float a, float b)
{
	return a < b ? a : b;
}

static float clampf(float x, float lo, float hi)
{
	return smaller(larger(x, lo), hi);
}

/* ---- the table: scale and zero of a range ---------------------------------------- */

struct line {
	float scale, zero;
};

/* 2^b - 1 codes above the lowest; 2^(b-1) - 1 above 0 */
static float steps(int bits)
{
	return (float)((1 << bits) - 1);
}

static float half_steps(int bits)
{
	return (float)((1 << (bits - 1)) - 1);
}

static struct line quarot_sym(int bits, float m, float M)
{
	return (struct line){ larger(fabsf(m), fabsf(M)) / half_steps(bits), 0 };
}

static struct line gptq_asym(int bits, float m, float M)
{
	const float lo = smaller(m, 0), hi = larger(M, 0);
	const float s = lo == 0 && hi == 0 ? 2 / steps(bits) : (hi - lo) / steps(bits);

	return (struct line){ s, rintf((lo == 0 && hi == 0 ? 1 : -lo) / s) };
}

static struct line gptq_sym(int bits, float m, float M)
{
	const float a = larger(fabsf(smaller(m, 0)), larger(M, 0)), lo = m < 0 ? -a : 0;

	return (struct line){ a == 0 ? 2 / steps(bits) : (a - lo) / steps(bits),
			      (float)(1 << (bits - 1)) };
}

static struct line awq_asym(int bits, float m, float M)
{
	const float s = larger(M - m, 1e-5f) / steps(bits);

	return (struct line){ s, clampf(-rintf(m / s), 0, steps(bits)) };
}

static struct line awq_sym(int bits, float m, float M)
{
	return (struct line){ larger(larger(fabsf(m), fabsf(M)), 1e-5f) / half_steps(bits), 0 };
}

static struct line omniquant_asym(int bits, float m, float M)
{
	const float s = clampf((M - m) / steps(bits), 1e-5f, 1e4f);

	return (struct line){ s, rintf(clampf(-m / s, -1e4f, 1e4f)) };
}

static struct line ostquant_asym(int bits, float m, float M)
{
	const float lo = smaller(m, 0), hi = larger(M, 1e-6f);
	const float s = larger(hi - lo, 1e-6f) / steps(bits);

	return (struct line){ s, rintf(-lo / s) };
}

static struct line ostquant_sym(int bits, float m, float M)
{
	const float lo = smaller(m, 0), hi = larger(M, 1e-6f);

	return (struct line){ larger(-lo / (half_steps(bits) + 1), hi / half_steps(bits)), 0 };
}

static struct line awrq_asym(int bits, float m, float M)
{
	const float s = (M - m) / steps(bits);

	return (struct line){ s, s > 0 ? rintf(-m / s) : -rintf(m) };
}

static struct line ct_sym(int bits, float m, float M)
{
	return (struct line){ 2 * larger(fabsf(m), fabsf(M)) / steps(bits), 0 };
}

static const struct {
	const char *name;
	struct line (*sym)(int bits, float m, float M), (*asym)(int bits, float m, float M);
} rules[QUANT_RULES] = {
	[QUANT_QUAROT] = { "quarot", quarot_sym, NULL },
	[QUANT_GPTQ] = { "gptq", gptq_sym, gptq_asym },
	[QUANT_AWQ] = { "awq", awq_sym, awq_asym },
	[QUANT_SMOOTHQUANT] = { "smoothquant", awq_sym, NULL },
	[QUANT_OMNIQUANT] = { "omniquant", NULL, omniquant_asym },
	[QUANT_OSTQUANT] = { "ostquant", ostquant_sym, ostquant_asym },
	[QUANT_AWRQ] = { "awrq", NULL, awrq_asym },
	[QUANT_FQT] = { "fqt", quarot_sym, NULL },
	[QUANT_CT] = { "ct", ct_sym, gptq_asym },
};

const char *quant_rule_name(enum quant_rule r)
{
	return rules[r].name;
}

int quant_rule_find(const char *name)
{
	for (int i = 0; i < QUANT_RULES; i++)
		if (strcmp(rules[i].name, name) == 0)
			return i;
	return -1;
}

bool quant_rule_has(enum quant_rule r, bool sym)
{
	return (sym ? rules[r].sym : rules[r].asym) != NULL;
}

/* ---- a grid ---------------------------------------------------------------------- */

/* Codes that count from 0: asym, and GPTQ's sym, whose zero is stored. */
static bool unsigned_codes(const struct quant *q)
{
	return !q->sym || q->rule == QUANT_GPTQ;
}

void quant_grid_of(const struct quant *q, float scale, float zero, struct quant_grid *g)
{
	g->scale = scale;
	g->zero = zero;
	if (q->format == QUANT_E4M3) {
		g->hi = E4M3_MAX;
		g->lo = -g->hi;
		return;
	}
	g->lo = unsigned_codes(q) ? -zero : -(float)(1 << (q->bits - 1));
	g->hi = g->lo + steps(q->bits);
}

int quant_fit(const struct quant *q, float m, float M, struct quant_grid *g)
{
	struct line l;

	if (!(isfinite(m) && isfinite(M)))
		return -1;
	m *= (float)q->clip;
	M *= (float)q->clip;
	if (q->format == QUANT_E4M3)
		l = (struct line){ larger(fabsf(m), fabsf(M)) / E4M3_MAX, 0 };
	else if (q->sym)
		l = rules[q->rule].sym(q->bits, m, M);
	else
		l = rules[q->rule].asym(q->bits, m, M);
	if (l.scale == 0)
		l.scale = 1;
	if (l.scale < FLT_MIN) /* x / s must not overflow */
		l.scale = FLT_MIN;
	if (!(isfinite(l.scale) && fabsf(l.zero) < MAX_ZERO))
		return -1;
	quant_grid_of(q, l.scale, l.zero, g);
	return 0;
}

/* ---- values ---------------------------------------------------------------------- */

/* Without a branch, so that loops vectorise.  Normal numbers: the fraction is rounded to 3 bits,
 * half to even, in the number's own bits, a carry goes to the exponent.  Below 2^-6: a sum whose
 * last place is the step of the subnormal numbers, 2^-9. */
static inline float e4m3(float x)
{
	const float a = fabsf(x) < E4M3_MAX ? fabsf(x) : E4M3_MAX, few = (a + 0x1p14f) - 0x1p14f;
	uint32_t u;
	float r;

	memcpy(&u, &a, sizeof(u));
	u = (u + 0x7ffff + (u >> 20 & 1)) & 0xfff00000;
	memcpy(&r, &u, sizeof(r));
	return copysignf(a < 0x1p-6f ? few : r, x);
}

float e4m3_round(float x)
{
	return isnan(x) ? x : e4m3(x);
}

static void run_int(const struct quant_grid *g, float *y, const float *x, size_t n)
{
	const float s = g->scale, lo = g->lo, hi = g->hi;

	for (size_t i = 0; i < n; i++) {
		float v = x[i] / s;

		v = v < lo ? lo : v;
		v = v > hi ? hi : v;
		y[i] = round_even(v) * s;
	}
}

/* Codes first, as y may be x. */
static void codes_int(const struct quant_grid *g, const float *x, size_t n, float offset,
		      int8_t *code)
{
	const float s = g->scale, lo = g->lo, hi = g->hi;

	for (size_t i = 0; i < n; i++) {
		float v = x[i] / s;

		v = v < lo ? lo : v;
		v = v > hi ? hi : v;
		code[i] = (int8_t)(int)(round_even(v) + offset);
	}
}

static void run_e4m3(const struct quant_grid *g, float *y, const float *x, size_t n)
{
	const float s = g->scale;

	for (size_t i = 0; i < n; i++)
		y[i] = e4m3(x[i] / s) * s;
}

static float code_offset(const struct quant *q, const struct quant_grid *g)
{
	return unsigned_codes(q) ? g->zero - (float)(1 << (q->bits - 1)) : 0;
}

/* Codes to where they count from 0, clamped, and back. */
static void run_clamped(const struct quant *q, const struct quant_grid *g, float *y,
			const float *x, size_t n, int8_t *code)
{
	const float s = g->scale, lo = g->lo, hi = g->hi, offset = code_offset(q, g) + 128;
	int16_t c[CLAMP_MAX];

	for (size_t at = 0; at < n; at += q->clamp.group) {
		for (size_t i = 0; i < q->clamp.group; i++) {
			float v = x[at + i] / s;

			v = v < lo ? lo : v;
			v = v > hi ? hi : v;
			c[i] = (int16_t)(int)(round_even(v) + offset);
		}
		clamp_group(&q->clamp, c);
		for (size_t i = 0; i < q->clamp.group; i++)
			y[at + i] = ((float)c[i] - offset) * s;
		for (size_t i = 0; code != NULL && i < q->clamp.group; i++)
			code[at + i] = (int8_t)(c[i] - 128);
	}
}

void quant_run(const struct quant *q, const struct quant_grid *g, float *y, const float *x,
	       size_t n, int8_t *code)
{
	if (q->clamp.group > 0) {
		run_clamped(q, g, y, x, n, code);
		return;
	}
	if (q->format == QUANT_E4M3) {
		run_e4m3(g, y, x, n);
		return;
	}
	if (code != NULL)
		codes_int(g, x, n, code_offset(q, g), code);
	run_int(g, y, x, n);
}

/* 0, or -1 when a value is not finite, *at which. */
static int range(const float *x, size_t n, float *m, float *M, size_t *at)
{
	float lo = x[0], hi = x[0], bad = 0, los[LANES], his[LANES], bads[LANES];
	const size_t whole = n / LANES * LANES;

	for (size_t l = 0; l < LANES; l++) {
		los[l] = his[l] = x[0];
		bads[l] = 0;
	}
	for (size_t i = 0; i < whole; i += LANES)
		for (size_t l = 0; l < LANES; l++) {
			const float v = x[i + l];

			los[l] = v < los[l] ? v : los[l];
			his[l] = v > his[l] ? v : his[l];
			bads[l] += v * 0; /* NaN if v is not finite */
		}
	for (size_t i = 0; i < LANES + n - whole; i++) {
		const float v = i < LANES ? los[i] : x[whole + i - LANES];
		const float w = i < LANES ? his[i] : v;

		lo = v < lo ? v : lo;
		hi = w > hi ? w : hi;
		bad += i < LANES ? bads[i] : v * 0;
	}
	*m = lo;
	*M = hi;
	for (size_t i = 0; bad != 0 && i < n; i++)
		if (!isfinite(x[i])) {
			*at = i;
			return -1;
		}
	return 0;
}

int quant_row(const struct quant *q, float *y, const float *x, size_t k,
	      const struct quant_codes *codes, size_t *at)
{
	const size_t groups = quant_groups(q, k), n = k / groups;

	for (size_t i = 0; i < groups; i++, x += n, y += n) {
		struct quant_grid own;
		const struct quant_grid *g = &own;
		float m, M;

		*at = 0;
		if (range(x, n, &m, &M, at) < 0 ||
		    (q->fixed == NULL && quant_fit(q, m, M, &own) < 0)) {
			*at += i * n;
			return -1;
		}
		if (q->fixed != NULL)
			g = &q->fixed[i];
		quant_run(q, g, y, x, n, codes != NULL ? codes->code + i * n : NULL);
		if (codes == NULL)
			continue;
		codes->scale[i] = g->scale;
		codes->zero[i] = (int32_t)code_offset(q, g);
	}
	return 0;
}
