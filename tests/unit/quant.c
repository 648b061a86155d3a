/* SPDX-License-Identifier: Apache-2.0 */
/*
 * quant.c - the table of quantizers by hand-made values and against a slow copy of the formulas
 */
#include <math.h>
#include <string.h>

#include "lib/compute/backend.h"
#include "lib/compute/quant.h"
#include "tests/unit/tap.h"
#include "tests/unit/tiny.h"

static struct err e;

/* ---- by hand --------------------------------------------------------------------- */

struct hand {
	enum quant_rule rule;
	bool sym;
	int bits;
	float m, M, scale, zero, x, want; /* want: x quantized and back */
};

static const struct hand hands[] = {
	{ QUANT_QUAROT, true, 4, -7, 3.5f, 1, 0, 2.5f, 2 },       /* ties go to even */
	{ QUANT_QUAROT, true, 4, -7, 3.5f, 1, 0, 3.5f, 4 },
	{ QUANT_QUAROT, true, 8, -254, 0, 2, 0, -300, -256 },     /* one code more below */
	{ QUANT_GPTQ, false, 4, -5, 10, 1, 5, 12, 10 },
	{ QUANT_GPTQ, false, 4, 5, 30, 2, 0, 5, 4 },              /* the range holds 0 */
	{ QUANT_GPTQ, false, 2, 0, 0, 2 / 3.0f, 2, 0, 0 },        /* zeros: (-1, 1) */
	{ QUANT_GPTQ, true, 4, -7.5f, 2, 1, 8, 7.5f, 7 },         /* an offset grid: 7 s at most */
	{ QUANT_GPTQ, true, 4, 1, 7.5f, 0.5f, 8, 7.5f, 3.5f },    /* the trap of GPTQ's code */
	{ QUANT_AWQ, false, 4, -5, 10, 1, 5, 12, 10 },
	{ QUANT_AWQ, false, 4, 15, 30, 1, 0, 20, 15 },            /* and here it need not hold 0 */
	{ QUANT_AWQ, true, 8, -127, 5, 1, 0, 0.5f, 0 },
	{ QUANT_SMOOTHQUANT, true, 8, -1, 254, 2, 0, 3, 4 },      /* 1.5 to even */
	{ QUANT_OMNIQUANT, false, 4, 15, 30, 1, -15, 20, 20 },
	{ QUANT_OSTQUANT, false, 4, 1, 15, 1, 0, 2.5f, 2 },
	{ QUANT_OSTQUANT, true, 4, -16, 7, 2, 0, -20, -16 },
	{ QUANT_AWRQ, false, 4, 15, 30, 1, -15, 20, 20 },
	{ QUANT_AWRQ, false, 8, 3, 3, 1, -3, 3, 3 },              /* published: NaN */
	{ QUANT_FQT, true, 4, -7, 3.5f, 1, 0, -7.6f, -8 },
	{ QUANT_CT, true, 4, 1, 7.5f, 1, 0, 7.5f, 7 },            /* also without negatives */
	{ QUANT_CT, true, 4, -7.5f, 2, 1, 0, -7.5f, -8 },
	{ QUANT_CT, false, 4, -5, 10, 1, 5, 12, 10 },
};

static void test_hands(void)
{
	for (size_t i = 0; i < sizeof(hands) / sizeof(*hands); i++) {
		const struct hand *h = &hands[i];
		const struct quant q = { .bits = h->bits, .sym = h->sym, .rule = h->rule,
					 .clip = 1 };
		struct quant_grid g;
		float y;

		ok(quant_fit(&q, h->m, h->M, &g) == 0 && g.scale == h->scale && g.zero == h->zero,
		   "%s %s of %g ... %g: scale %g zero %g", quant_rule_name(h->rule),
		   h->sym ? "sym" : "asym", h->m, h->M, g.scale, g.zero);
		quant_run(&q, &g, &y, &h->x, 1, NULL);
		ok(y == h->want, "%g becomes %g", h->x, y);
	}
}

/* ---- a slow copy: codes counted one by one, all in f64 but scale and zero --------- */

static double slow(const struct quant *q, const struct quant_grid *g, double x)
{
	const bool from0 = !q->sym || q->rule == QUANT_GPTQ;
	const int lo = from0 ? 0 : -(1 << (q->bits - 1)), n = 1 << q->bits;
	double best = 0, least = INFINITY;

	for (int c = lo; c < lo + n; c++) {
		const double y = (double)g->scale * (c - (double)g->zero);

		if (fabs(y - x) < least) {
			least = fabs(y - x);
			best = y;
		}
	}
	return best;
}

static void test_slow(void)
{
	enum { N = 96 };
	float x[N], y[N];
	int8_t code[N];

	for (int rule = 0; rule < QUANT_RULES; rule++)
		for (int sym = 0; sym < 2; sym++)
			for (int bits = 2; bits <= 8 && quant_rule_has(rule, sym); bits++) {
				struct quant q = { .bits = bits, .sym = sym, .rule = rule,
						   .clip = bits == 5 ? 0.75 : 1,
						   .per = QUANT_GROUP, .group = N / 3 };
				float scale[3];
				int32_t zero[3];
				const struct quant_codes c = { code, scale, zero };
				double worst = 0, apart = 0;
				size_t at;

				tiny_fill(x, N, 0.2f * (float)rule, 2);
				if (quant_row(&q, y, x, N, &c, &at) < 0)
					ok(false, "finite");
				for (size_t i = 0; i < N; i++) {
					struct quant_grid g;
					const size_t k = i / q.group;
					float lo = x[k * q.group], hi = lo;

					for (size_t j = 0; j < q.group; j++) {
						lo = fminf(lo, x[k * q.group + j]);
						hi = fmaxf(hi, x[k * q.group + j]);
					}
					quant_fit(&q, lo, hi, &g);
					worst = fmax(worst, fabs(y[i] - slow(&q, &g, x[i])) /
						     g.scale);
					apart = fmax(apart, fabs((double)scale[k] *
								 (code[i] - zero[k]) - y[i]));
				}
				ok(worst < 1e-4 && apart < 1e-4, "%s %s %d bits: nearest on the "
				   "grid, codes say the same", quant_rule_name(rule),
				   sym ? "sym" : "asym", bits);
			}
}

static void test_e4m3(void)
{
	static const float in[] = { 448, 449, 1e9f, -500, 17, 18, 19, 0x1p-9f, 0x1p-10f,
				    0x1.8p-9f, 0.0156f, -1.0625f, 464 };
	static const float out[] = { 448, 448, 448, -448, 16, 18, 20, 0x1p-9f, 0,
				     0x1p-8f, 0.015625f, -1, 448 };
	bool all = true;

	for (size_t i = 0; i < sizeof(in) / sizeof(*in); i++)
		all = all && e4m3_round(in[i]) == out[i];
	ok(all, "e4m3: ties to even, subnormals, saturation");
	all = isnan(e4m3_round(NAN)) && e4m3_round(-INFINITY) == -448;
	for (uint32_t u = 0; u < 0x7f800000u; u += 4099) {
		float x, step = 0x1p-9f, want;

		memcpy(&x, &u, sizeof(x));
		for (float top = 0x1p-5f; top < 512 && x >= top; top *= 2)
			step *= 2;
		want = x >= 448 ? 448 : rintf(x / step) * step;
		all = all && e4m3_round(x) == want && e4m3_round(-x) == -want;
	}
	ok(all, "e4m3: half a million numbers of all sizes, by division and rintf");
}

static void test_rows(struct backend *be)
{
	enum { T = 700, K = 96 };
	static float x[T * K], y[T * K], z[T * K];
	struct quant q = { .bits = 8, .sym = true, .clip = 1, .per = QUANT_TOKEN };
	float most = 0;
	size_t at;

	tiny_fill(x, T * K, 0, 1);
	ok(be->ops->quantize(be, y, x, T, K, 0, &q, NULL, &e) == 0, "rows");
	for (size_t i = 0; i < T; i++)
		if (quant_row(&q, z + i * K, x + i * K, K, NULL, &at) < 0)
			ok(false, "row %zu", i);
	ok(memcmp(y, z, sizeof(y)) == 0, "a token is a row");
	q.per = QUANT_TENSOR;
	ok(be->ops->quantize(be, y, x, T, K, T / 2, &q, NULL, &e) == 0 &&
	   quant_row(&q, z, x, T / 2 * K, NULL, &at) == 0 &&
	   quant_row(&q, z + T / 2 * K, x + T / 2 * K, T / 2 * K, NULL, &at) == 0 &&
	   memcmp(y, z, sizeof(y)) == 0, "a grid a sequence");
	for (size_t i = 0; i < T * K; i++)
		most = fmaxf(most, fabsf(y[i] - x[i]));
	ok(most < 0.5f / 127 + 1e-6f, "half a step at most: %g", most);
	x[5 * K + 7] = NAN;
	q.per = QUANT_TOKEN;
	ok(be->ops->quantize(be, y, x, T, K, 0, &q, NULL, &e) < 0 && e.cls == ERR_DATA &&
	   strstr(e.what, "token 5 channel 7") != NULL, "not a number: %s", e.what);
}

int main(void)
{
	struct backend be;

	if (backend_open(&be, "cpu", 2, &e) < 0)
		return 1;
	test_hands();
	test_slow();
	test_e4m3();
	test_rows(&be);
	backend_close(&be);
	return done();
}
