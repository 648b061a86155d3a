/* SPDX-License-Identifier: Apache-2.0 */
/*
 * refine.c - sweeps and refits after the columns, against slow ones in f64 that share nothing
 *
 * The slow descent takes one code at a time and tries all of its values; the slow refit sums
 * the parabola of a scale from its definition.  Both work on the damped H, dense.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "lib/compute/backend.h"
#include "lib/method/gptq_solve.h"
#include "lib/model/block.h"
#include "tests/unit/tap.h"

static uint64_t state;

static double uniform(void)
{
	state = state * 6364136223846793005u + 1442695040888963407u;
	return (double)(state >> 11) * 0x1p-53;
}

static double normal(void)
{
	double sum = -6;

	for (int i = 0; i < 12; i++)
		sum += uniform();
	return sum;
}

#define SHRINK 0.1

struct layer_case {
	size_t n, k;
	float *w, *tri;
	double *h; /* [k, k] shrunk, and damped by 0.01 of the mean of its diagonal: */
	double add;
};

static void make_case(struct layer_case *c, size_t n, size_t k, size_t tokens, uint64_t seed)
{
	double *x = malloc(k * sizeof(*x)), mean = 0;

	state = seed;
	*c = (struct layer_case){ .n = n, .k = k };
	c->w = malloc(n * k * sizeof(*c->w));
	c->tri = malloc(k * (k + 1) / 2 * sizeof(*c->tri));
	c->h = calloc(k * k, sizeof(*c->h));
	for (size_t i = 0; i < n * k; i++)
		c->w[i] = (float)normal();
	for (size_t t = 0; t < tokens; t++) {
		double last = 0;

		for (size_t j = 0; j < k; j++) {
			last = x[j] = 0.7 * last + normal();
			x[j] *= j % 7 == 3 ? 4 : 1;
		}
		for (size_t i = 0; i < k; i++)
			for (size_t j = 0; j < k; j++)
				c->h[i * k + j] += x[i] * x[j];
	}
	for (size_t i = 0; i < k; i++)
		for (size_t j = i; j < k; j++)
			c->h[i * k + j] = c->h[j * k + i] = c->tri[tri_index(i, j, k)] =
				(float)c->h[i * k + j];
	for (size_t i = 0; i < k; i++)
		mean += c->h[i * k + i] / (double)k;
	c->add = 0.01 * mean;
	for (size_t i = 0; i < k; i++)
		c->h[i * k + i] += SHRINK * c->h[i * k + i] + c->add;
	free(x);
}

static void free_case(struct layer_case *c)
{
	free(c->w);
	free(c->tri);
	free(c->h);
}

static struct gptq_options options(int bits, bool sym, long group)
{
	return (struct gptq_options){
		.q = { .bits = bits, .sym = sym, .group = group, .scale_dtype = DT_F16,
		       .range = RANGE_HMSE },
		.damp = 0.01, .shrink = SHRINK, .damp_auto = true, .block = 24,
	};
}

static int solve(struct backend *be, const struct layer_case *c, const struct gptq_options *o,
		 struct quantized *z, struct gptq_result *res)
{
	struct gptq_hessian *h = NULL;
	float *w = malloc(c->n * c->k * sizeof(*w));
	struct err e = { 0 };
	int r = -1;

	memcpy(w, c->w, c->n * c->k * sizeof(*w));
	if (gptq_hessian_new(&h, be, c->tri, c->k, o, "layer", &e) == 0)
		r = gptq_quantize(z, res, h, w, c->n, o, "layer", &e);
	gptq_hessian_free(h);
	free(w);
	return r;
}

static double value(const struct quantized *z, size_t r, size_t j, int code)
{
	const size_t g = r * z->groups + j / z->group;

	return (double)z->scale[g] * (code - z->zero[g]);
}

/* d Hd d' of a row with these codes. */
static double row_energy(const struct layer_case *c, const struct quantized *z, size_t r)
{
	double sum = 0;

	for (size_t i = 0; i < c->k; i++)
		for (size_t j = 0; j < c->k; j++)
			sum += (c->w[r * c->k + i] - value(z, r, i, z->codes[r * c->k + i])) *
			       (c->w[r * c->k + j] - value(z, r, j, z->codes[r * c->k + j])) *
			       c->h[i * c->k + j];
	return sum;
}

static double energy(const struct layer_case *c, const struct quantized *z)
{
	double sum = 0;

	for (size_t r = 0; r < c->n; r++)
		sum += row_energy(c, z, r);
	return sum;
}

/* Every code in turn, all of its values tried. */
static void slow_sweep(const struct layer_case *c, struct quantized *z)
{
	for (size_t r = 0; r < c->n; r++)
		for (size_t j = 0; j < c->k; j++) {
			uint8_t *code = &z->codes[r * c->k + j], best = *code;
			double least = INFINITY, cross = 0;

			for (size_t i = 0; i < c->k; i++)
				if (i != j)
					cross += c->h[i * c->k + j] *
						 (c->w[r * c->k + i] -
						  value(z, r, i, z->codes[r * c->k + i]));
			for (int q = 0; q < 1 << z->bits; q++) {
				double d = c->w[r * c->k + j] - value(z, r, j, q);
				double f = d * d * c->h[j * c->k + j] + 2 * d * cross;

				if (f < least) {
					least = f;
					best = (uint8_t)q;
				}
			}
			*code = best;
		}
}

/* Every group in turn: the best scale for the zero and its neighbours, stored, if it helps. */
static void slow_refit(const struct layer_case *c, struct quantized *z, enum dtype t)
{
	for (size_t g = 0; g < z->groups; g++)
		for (size_t r = 0; r < c->n; r++) {
			const size_t at = r * z->groups + g;
			const float was = z->scale[at];
			const int zero = z->zero[at];
			double least = row_energy(c, z, r);
			float best = was;
			int best_zero = zero;

			for (int k = z->sym ? 0 : -1; k <= (z->sym ? 0 : 1); k++) {
				double f0, f1, f2, a, b;

				if (zero - k < 0 || zero - k >= 1 << z->bits)
					continue;
				/* The parabola through three scales. */
				z->zero[at] = (uint8_t)(zero - k);
				z->scale[at] = 0;
				f0 = row_energy(c, z, r);
				z->scale[at] = 1;
				f1 = row_energy(c, z, r);
				z->scale[at] = 2;
				f2 = row_energy(c, z, r);
				a = (f2 - 2 * f1 + f0) / 2;
				b = f1 - f0 - a;
				if (!(a > 0) || -b / (2 * a) <= 0)
					continue;
				z->scale[at] = quantizer_round_scale(-b / (2 * a), t);
				if (row_energy(c, z, r) < least * (1 - 1e-7)) {
					least = row_energy(c, z, r);
					best = z->scale[at];
					best_zero = zero - k;
				}
			}
			z->scale[at] = best;
			z->zero[at] = (uint8_t)best_zero;
		}
}

static size_t differing(const struct quantized *a, const struct quantized *b, size_t *params)
{
	size_t codes = 0;

	*params = 0;
	for (size_t i = 0; i < a->rows * a->cols; i++)
		codes += a->codes[i] != b->codes[i];
	for (size_t i = 0; i < a->rows * a->groups; i++)
		*params += a->zero[i] != b->zero[i] ||
			   fabsf(a->scale[i] - b->scale[i]) > 0.002f * b->scale[i];
	return codes;
}

static void against_slow(struct backend *be, const char *what, size_t n, size_t k,
			 struct gptq_options o, long sweeps, bool refit)
{
	struct quantized want = { 0 }, got = { 0 };
	struct gptq_result res = { 0 };
	struct layer_case c;
	double before, after;
	size_t codes, params;

	make_case(&c, n, k, 3 * k, 31 * n + k);
	ok(solve(be, &c, &o, &want, &res) == 0, "%s: plain", what);
	before = energy(&c, &want);
	for (long i = 0; i < (sweeps ? sweeps : 1); i++) {
		if (refit)
			slow_refit(&c, &want, o.q.scale_dtype);
		if (sweeps)
			slow_sweep(&c, &want);
	}
	o.sweeps = sweeps;
	o.refit = refit;
	ok(solve(be, &c, &o, &got, &res) == 0, "%s: refined", what);
	after = energy(&c, &got);
	codes = differing(&got, &want, &params);
	/* Ties, and scales between two F16 numbers, may fall either way. */
	ok(codes * 500 <= n * k && params * 50 <= n * got.groups,
	   "%s: codes and parameters of the slow one (%zu of %zu, %zu of %zu differ)", what, codes,
	   n * k, params, n * got.groups);
	ok(after <= before && after < before * 0.995, "%s: the error falls (%.4f of it)", what,
	   after / before);
	ok_near(after / energy(&c, &want), 1, 1e-3, "%s: as far as the slow one's", what);
	quantized_release(&want);
	quantized_release(&got);
	free_case(&c);
}

/* A row at a time the error never rises, whatever is added; sweeps end where no code helps. */
static void never_rises(struct backend *be)
{
	struct layer_case c;

	make_case(&c, 40, 48, 60, 77);
	for (int bits = 2; bits <= 4; bits++)
		for (int sym = 0; sym < 2; sym++) {
			struct gptq_options o = options(bits, sym, 16);
			double first[40], last[40], now, worst = 0;
			struct gptq_result res = { 0 };
			struct quantized z = { 0 }, local = { 0 };
			size_t params;

			o.act_order = bits == 3;
			/* Each sweep beside the one before; with refits, the first beside none. */
			for (int step = 0; step < 12; step++) {
				o.sweeps = step % 6;
				o.refit = step >= 6;
				if (solve(be, &c, &o, &z, &res) < 0)
					worst = INFINITY;
				for (size_t r = 0; r < c.n; r++) {
					now = row_energy(&c, &z, r);
					if (step == 0)
						first[r] = last[r] = now;
					if (step == 6)
						last[r] = first[r];
					worst = fmax(worst, now / last[r]);
					last[r] = now;
				}
			}
			ok(worst <= 1 + 1e-6, "%d bits, %s: no row's error rises (%.7f)", bits,
			   sym ? "sym" : "asym", worst);
			o.sweeps = 60;
			o.refit = false;
			solve(be, &c, &o, &z, &res);
			solve(be, &c, &o, &local, &res);
			slow_sweep(&c, &local);
			ok(differing(&z, &local, &params) <= 1,
			   "%d bits, %s: after many sweeps no code alone does better", bits,
			   sym ? "sym" : "asym");
			quantized_release(&z);
			quantized_release(&local);
		}
	free_case(&c);
}

/* All 4^6 codes of a row. */
static void near_best(struct backend *be)
{
	double plain = 0, swept = 0, best = 0;

	for (int round = 0; round < 30; round++) {
		struct gptq_options o = options(2, true, -1);
		struct gptq_result res = { 0 };
		struct quantized z = { 0 };
		struct layer_case c;
		double least = INFINITY;

		make_case(&c, 1, 6, 30, (uint64_t)round + 1);
		solve(be, &c, &o, &z, &res);
		plain += energy(&c, &z);
		for (int all = 0; all < 1 << 12; all++) {
			for (int j = 0; j < 6; j++)
				z.codes[j] = all >> 2 * j & 3;
			least = fmin(least, energy(&c, &z));
		}
		o.sweeps = 5;
		solve(be, &c, &o, &z, &res);
		swept += energy(&c, &z);
		best += least;
		quantized_release(&z);
		free_case(&c);
	}
	ok(best <= swept * (1 + 1e-9) && swept < plain,
	   "sweeps come nearer to the best of all codes: %.4f, before %.4f, best 1", swept / best,
	   plain / best);
}

static void threads(void)
{
	struct quantized z[2] = { 0 };
	struct gptq_result res[2] = { { 0 } };
	struct layer_case c;
	struct err e = { 0 };

	make_case(&c, 200, 96, 300, 5);
	for (int t = 0; t < 2; t++) {
		struct gptq_options o = options(3, false, 32);
		struct backend be;

		o.sweeps = 3;
		o.refit = true;
		ok(backend_open(&be, "cpu", t ? 3 : 1, &e) == 0 &&
		   solve(&be, &c, &o, &z[t], &res[t]) == 0, "%d threads", t ? 3 : 1);
		backend_close(&be);
	}
	ok(memcmp(z[0].codes, z[1].codes, 200 * 96) == 0 &&
	   memcmp(z[0].scale, z[1].scale, 200 * 3 * sizeof(float)) == 0 &&
	   res[0].energy == res[1].energy, "the same bits with one thread and three");
	for (size_t i = 0; i < c.k; i++)
		c.h[i * (c.k + 1)] -= c.add;
	ok_near(res[0].shrunk / energy(&c, &z[0]), 1, 1e-4, "what judges is without damping");
	for (size_t i = 0; i < c.k; i++)
		c.h[i * (c.k + 1)] /= 1 + SHRINK;
	ok_near(res[0].energy / energy(&c, &z[0]), 1, 1e-4, "the energy noted is of H as it came");
	quantized_release(&z[0]);
	quantized_release(&z[1]);
	free_case(&c);
}

int main(void)
{
	struct gptq_options o;
	struct backend be;
	struct err e = { 0 };

	if (!ok(backend_open(&be, "cpu", 2, &e) == 0, "backend"))
		return done();
	against_slow(&be, "a sweep", 37, 72, options(4, true, 24), 1, false);
	against_slow(&be, "three sweeps, asym", 9, 60, options(3, false, 20), 3, false);
	o = options(3, true, -1);
	against_slow(&be, "a row, panels that do not divide", 5, 83, o, 2, false);
	against_slow(&be, "refit", 37, 72, options(4, true, 24), 0, true);
	against_slow(&be, "refit, asym", 11, 64, options(3, false, 16), 0, true);
	against_slow(&be, "refit, groups wider than a panel", 6, 80, options(3, true, 40), 0, true);
	against_slow(&be, "refit and sweeps", 20, 64, options(2, false, 32), 2, true);
	o = options(3, true, 16);
	o.act_order = true;
	against_slow(&be, "act order, refit and a sweep", 20, 64, o, 1, true);
	o.q.scale_dtype = DT_F32;
	against_slow(&be, "scales in F32", 20, 64, o, 2, true);
	never_rises(&be);
	near_best(&be);
	backend_close(&be);
	threads();
	return done();
}
