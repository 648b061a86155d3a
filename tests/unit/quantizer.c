/* SPDX-License-Identifier: Apache-2.0 */
/*
 * quantizer.c - grids by hand, and properties that hold for any weights
 */
#include <float.h>
#include <stdlib.h>

#include "lib/base/pool.h"
#include "lib/method/quantizer.h"
#include "tests/unit/tap.h"

static uint64_t state = 1;

static float uniform(void)
{
	state = state * 6364136223846793005u + 1442695040888963407u;
	return (float)(state >> 40) * 0x1p-23f - 1;
}

static struct quantizer grid(int bits, bool sym, long group, enum dtype t)
{
	return (struct quantizer){ .bits = bits, .sym = sym, .group = group, .scale_dtype = t };
}

/* Scale and zero of one row, by whatever range. */
static void fit_row(struct quantizer q, const float *w, size_t n, float *scale, uint8_t *zero)
{
	struct quantized z = { 0 };
	struct err e = { 0 };
	struct pool *pool = pool_new(1, &e);

	q.group = -1;
	ok(quantized_init(&z, &q, 1, n, "x", &e) == 0 &&
	   quantizer_fit_all(&z, &q, w, pool, "x", &e) == 0, "a row of %zu is fitted", n);
	*scale = z.scale[0];
	*zero = z.zero[0];
	quantized_release(&z);
	pool_free(pool);
}

static void rounding(void)
{
	static const float x[] = { 0.5f, 1.5f, 2.5f, -0.5f, -1.5f, 0.49999997f, 4194303.5f,
				  -127.5f };
	bool same = true;

	for (size_t i = 0; i < sizeof(x) / sizeof(x[0]); i++)
		same = same && round_even(x[i]) == rintf(x[i]);
	for (int i = 0; i < 100000; i++) {
		float v = uniform() * 300;

		same = same && round_even(v) == rintf(v);
	}
	ok(same, "round_even is rintf");
	ok(quantize(2.5f, 1, 8, 4) == 10 && quantize(3.5f, 1, 8, 4) == 12 &&
	   quantize(-2.5f, 1, 8, 4) == 6, "halves go to even");
	ok(quantize(FLT_MAX, 0x1p-24f, 8, 4) == 15 && quantize(-FLT_MAX, 0x1p-24f, 8, 4) == 0,
	   "the largest weight over the smallest scale is a code");
	ok(quantize(FLT_MAX, 0x1p-149f, 255, 8) == 255 && quantize(-FLT_MAX, 0x1p-149f, 0, 8) == 0,
	   "also where their ratio is infinite");
	ok(quantize(0, 1, 3, 2) == 3 && quantize(-9, 1, 3, 2) == 0 && quantize(9, 1, 3, 2) == 3,
	   "codes stay in 0 .. 2^b - 1");
}

static void by_hand(void)
{
	/* absmax 7.5: s = 1, z = 8; +7.5 is off the grid's end, 7. */
	static const float w[] = { 7.5f, -7.5f, 0.5f, -3 };
	/* range 0 .. 3.75 of 15 steps: s = 1/4, z = 0 */
	static const float up[] = { 3.75f, 1, 0.125f, 0.375f };
	/* range -1 .. 2 of 3 steps: s = 1, z = 1 */
	static const float both[] = { -1, 2, 0.6f, 0 };
	struct quantizer q = grid(4, true, -1, DT_F16);
	uint8_t codes[4], zero;
	float s;

	quantizer_fit(&q, w, 4, &s, &zero);
	quantize_run(codes, w, 4, s, zero, 4);
	ok(s == 1 && zero == 8 && codes[0] == 15 && codes[1] == 0 && codes[2] == 8 && codes[3] == 5,
	   "symmetric, 4 bits: s = absmax / 7.5, z = 8");
	q.sym = false;
	quantizer_fit(&q, up, 4, &s, &zero);
	quantize_run(codes, up, 4, s, zero, 4);
	ok(s == 0.25f && zero == 0 && codes[0] == 15 && codes[1] == 4 && codes[2] == 0 &&
	   codes[3] == 2, "asymmetric: the range always holds 0");
	q.bits = 2;
	quantizer_fit(&q, both, 4, &s, &zero);
	quantize_run(codes, both, 4, s, zero, 2);
	ok(s == 1 && zero == 1 && codes[0] == 0 && codes[1] == 3 && codes[2] == 2 && codes[3] == 1,
	   "asymmetric, 2 bits: z = round(-min / s)");
}

static void corners(void)
{
	static const float zeros[4] = { 0 }, tiny[] = { 0x1p-149f, -0x1p-149f };
	static const float huge[] = { 3e38f, -3e38f }, large[] = { 70000 * 7.5f, 1 };
	struct quantizer q = grid(4, true, -1, DT_F16);
	uint8_t zero;
	float s;

	quantizer_fit(&q, zeros, 4, &s, &zero);
	ok(s == 1 && zero == 8 && quantize(0, s, zero, 4) == 8, "a group of zeros: s = 1");
	q.sym = false;
	quantizer_fit(&q, zeros, 4, &s, &zero);
	ok(s == 1 && zero == 0, "asymmetric too");
	q.range = RANGE_MSE;
	fit_row(q, zeros, 4, &s, &zero);
	ok(s == 1 && zero == 0, "and with --mse");
	q.range = RANGE_MINMAX;
	for (int t = 0; t < 3; t++) {
		static const enum dtype types[] = { DT_F16, DT_BF16, DT_F32 };

		q.scale_dtype = types[t];
		quantizer_fit(&q, tiny, 2, &s, &zero);
		ok(s > 0 && quantize(tiny[0], s, zero, 4) <= 15, "%s: a scale is never 0",
		   dtype_name(types[t]));
	}
	q.scale_dtype = DT_F16;
	quantizer_fit(&q, large, 2, &s, &zero);
	ok(isinf(s) || s == 35008, "F16: asymmetric 35000 rounds (%g)", (double)s);
	q.sym = true;
	quantizer_fit(&q, large, 2, &s, &zero);
	ok(isinf(s), "F16: a scale of 70000 does not fit");
	q.scale_dtype = DT_F32;
	q.sym = false;
	q.bits = 2;
	quantizer_fit(&q, huge, 2, &s, &zero);
	ok(isfinite(s) && zero <= 3, "F32: 6e38 of range is cut without overflow (%g)", (double)s);
}

/* |w - w~| <= s/2 inside the grid; what is stored is what was used. */
static void properties(void)
{
	float w[96];

	for (int bits = 2; bits <= 8; bits++)
		for (int sym = 0; sym < 2; sym++) {
			struct quantizer q = grid(bits, sym, -1, DT_F16), m;
			double power = 0, best = 0;
			float s, sm;
			uint8_t z, zm;
			bool near = true;

			for (int i = 0; i < 96; i++)
				w[i] = uniform() * uniform() * uniform() + (i % 5 ? 0 : 0.1f);
			quantizer_fit(&q, w, 96, &s, &z);
			m = q;
			m.range = RANGE_MSE;
			fit_row(m, w, 96, &sm, &zm);
			for (int i = 0; i < 96; i++) {
				float d = w[i] - dequantize(quantize(w[i], s, z, bits), z, s);
				float dm = w[i] - dequantize(quantize(w[i], sm, zm, bits), zm, sm);

				/* Half a step, and the part of a step that the grid is short at
				 * its end, by symmetry or by rounding of s and z. */
				near = near && fabsf(d) <= s * 0.5f * (sym ? 1.01f : 1.02f) +
							   s * 0.002f * (1 << bits);
				power += pow(fabs(d), 2.4);
				best += pow(fabs(dm), 2.4);
			}
			ok(near, "%d bits, %s: no error above half a step", bits,
			   sym ? "sym" : "asym");
			ok(s == f16_to_f32(f32_to_f16(s)), "the scale is an F16 number");
			ok(best <= power * 1.00001 && sm <= s, "--mse: no worse in the 2.4-norm "
			   "(%.3g of it), and no wider", best / power);
		}
}

/* The least of 80 shrinkages, found by brute force with pow. */
static void range_is_least(enum quantizer_range range, const char *name)
{
	int same = 0, n = 0;

	for (int round = 0; round < 40; round++) {
		struct quantizer q = grid(2 + round % 3, round % 2, -1, DT_F32);
		float w[530], h[530], s, best_s = 0;
		uint8_t z;
		double lo = 0, hi = 0, best = INFINITY;
		size_t count = round % 4 ? 64 : 530;

		for (size_t i = 0; i < count; i++) {
			w[i] = uniform() * uniform() * uniform();
			lo = fmin(lo, w[i]);
			hi = fmax(hi, w[i]);
			h[i] = i % 13 ? 1 : 100 * (float)(i % 7);
		}
		q.range = range;
		q.energy = h;
		fit_row(q, w, count, &s, &z);
		for (int i = 0; i < 80; i++) {
			double p = 1 - i / 100.0, top = (1 << q.bits) - 1, sum = 0;
			double a = fmax(-lo, hi) * p;
			float si = (float)(q.sym ? a / (top / 2) : (hi - lo) * p / top);
			int zi = q.sym ? 1 << (q.bits - 1) : (int)fmin(rint(-lo * p / si), top);

			for (size_t j = 0; j < count; j++) {
				double c = fmin(fmax(rint((double)w[j] / si) + zi, 0), top);

				sum += range == RANGE_MSE ? pow(fabs(w[j] - si * (c - zi)), 2.4) :
				       h[j] * pow(w[j] - si * (c - zi), 2);
			}
			if (sum < best) {
				best = sum;
				best_s = si;
			}
		}
		n++;
		same += s == best_s;
	}
	/* Two shrinkages may be equal to the last digits. */
	ok(same >= n - 1, "--range=%s finds the least of 80 ranges (%d of %d)", name, same, n);
}

static void groups(void)
{
	struct quantizer q = grid(4, true, 100, DT_F16);
	size_t n, g;
	struct err e = { 0 };

	ok(quantizer_groups(&q, 128, "layers.0.mlp.up_proj", &n, &g, &e) < 0 && e.cls == ERR_DATA,
	   "100 does not divide 128");
	ok_str(e.what,
	       "groups of 100 do not divide 128 columns; sizes that do: 1, 2, 4, 8, 16, 32, "
	       "64, 128, -1 (a row), 0 (the tensor)", "and the message says what does");
	ok(quantizer_groups(&q, 55440 * 12, "x", &n, &g, &e) < 0 && strstr(e.what, ", ...") &&
	   strlen(e.what) < sizeof(e.what) - 1, "a long list is cut");
	q.group = 32;
	ok(quantizer_groups(&q, 128, "x", &n, &g, &e) == 0 && n == 4 && g == 32, "32 does");
	q.group = -1;
	ok(quantizer_groups(&q, 172, "x", &n, &g, &e) == 0 && n == 1 && g == 172, "-1 is the row");
	q.group = 0;
	ok(quantizer_groups(&q, 172, "x", &n, &g, &e) == 0 && n == 1 && g == 172,
	   "0 too, by columns");
}

static void fit_all(void)
{
	struct quantizer q = grid(4, false, 8, DT_F16);
	struct quantized z = { 0 };
	struct err e = { 0 };
	struct pool *pool = pool_new(2, &e);
	float w[3 * 16], back[3 * 16];
	bool same = true;

	for (int i = 0; i < 48; i++)
		w[i] = uniform();
	ok(quantized_init(&z, &q, 3, 16, "x", &e) == 0 &&
	   quantizer_fit_all(&z, &q, w, pool, "x", &e) == 0 && z.groups == 2, "groups of 8");
	for (size_t g = 0; g < 6; g++) {
		float s;
		uint8_t zero;

		quantizer_fit(&q, w + g * 8, 8, &s, &zero);
		same = same && s == z.scale[g] && zero == z.zero[g];
		quantize_run(z.codes + g * 8, w + g * 8, 8, s, zero, 4);
	}
	ok(same, "each fitted by itself");
	quantized_dequantize(&z, back);
	for (size_t i = 0; i < 48; i++)
		same = same && back[i] == z.scale[i / 8] * (float)(z.codes[i] - z.zero[i / 8]);
	ok(same, "dequantized: s (q - z)");
	w[37] = NAN;
	ok(quantizer_fit_all(&z, &q, w, pool, "layer", &e) < 0 && e.cls == ERR_DATA,
	   "NaN is refused");
	ok_str(e.what, "value at row 2 column 5 is not finite", "and located");
	w[37] = 1e7f;
	ok(quantizer_fit_all(&z, &q, w, pool, "layer", &e) < 0 &&
	   strstr(e.what, "row 2, group 0") &&
	   strstr(e.what, "--scale-dtype=f32"), "a scale too large for F16: %s", e.what);
	quantized_release(&z);
	pool_free(pool);
}

int main(void)
{
	rounding();
	by_hand();
	corners();
	properties();
	range_is_least(RANGE_MSE, "mse");
	range_is_least(RANGE_HMSE, "hmse");
	groups();
	fit_all();
	return done();
}
