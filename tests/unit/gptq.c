/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gptq.c - the solver against a slow one that shares nothing with it, and against a golden layer
 *
 * The slow solver is the derivation, not the algorithm: f64, the inverse by Gauss-Jordan, a
 * row and a column eliminated from it after every step (Frantar et al., eq. 3), no Cholesky, no
 * blocks, quantizers written again.
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>

#include "formats/json.h"
#include "formats/safetensors.h"
#include "lib/compute/backend.h"
#include "lib/method/gptq_solve.h"
#include "lib/method/kquant.h"
#include "lib/method/rtn.h"
#include "tests/unit/sha256.h"
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

/* ---- the slow solver -------------------------------------------------------------- */

struct params {
	double scale;
	int zero;
};

static struct params slow_fit(const double *w, size_t n, size_t stride, const struct quantizer *q)
{
	double lo = 0, hi = 0, top = (1 << q->bits) - 1, best = INFINITY;
	struct params p = { 1, q->sym ? 1 << (q->bits - 1) : 0 }, keep = p;

	for (size_t i = 0; i < n; i++) {
		lo = fmin(lo, w[i * stride]);
		hi = fmax(hi, w[i * stride]);
	}
	for (int i = 0; i < (q->range == RANGE_MSE ? 80 : 1) && (lo < 0 || hi > 0); i++) {
		double m = (1 - i / 100.0) * lo, x = (1 - i / 100.0) * hi, loss = 0;

		p.scale = q->sym ? 2 * fmax(-m, x) / top : (x - m) / top;
		if (q->scale_dtype != DT_F64)
			p.scale = (float)p.scale;
		if (q->scale_dtype == DT_F16)
			p.scale = f16_to_f32(f32_to_f16((float)p.scale));
		if (!q->sym)
			p.zero = (int)fmin(nearbyint(-m / p.scale), top);
		for (size_t j = 0; j < n && q->range == RANGE_MSE; j++) {
			double c = nearbyint(w[j * stride] / p.scale) + p.zero;

			c = fmin(fmax(c, 0), top);
			loss += pow(fabs(w[j * stride] - p.scale * (c - p.zero)), 2.4);
		}
		if (loss < best) {
			best = loss;
			keep = p;
		}
	}
	return keep;
}

static void invert(double *a, size_t n)
{
	for (size_t p = 0; p < n; p++) {
		double d = 1 / a[p * n + p];

		for (size_t j = 0; j < n; j++)
			a[p * n + j] *= j == p ? 1 : d;
		a[p * n + p] = d;
		for (size_t i = 0; i < n; i++) {
			double f = a[i * n + p];

			if (i == p)
				continue;
			for (size_t j = 0; j < n; j++)
				a[i * n + j] = j == p ? -f * d : a[i * n + j] - f * a[p * n + j];
		}
	}
}

/* codes [n, k] of w [n, k] f64, which becomes the dequantized weights. */
static void slow_gptq(uint8_t *codes, double *w, size_t n, const double *h, size_t k,
		      const struct gptq_options *o)
{
	size_t group = o->q.group > 0 ? (size_t)o->q.group : k, groups = k / group;
	bool fixed = o->static_groups || o->act_order || groups == 1;
	double *inv = malloc(k * k * sizeof(*inv)), mean = 0, live = 0;
	size_t *order = malloc(k * sizeof(*order));
	struct params *p = malloc(n * groups * sizeof(*p));
	bool *done = calloc(k, sizeof(*done));

	memcpy(inv, h, k * k * sizeof(*inv));
	for (size_t j = 0; j < k; j++) {
		mean += h[j * k + j];
		live += h[j * k + j] > 0;
	}
	for (size_t j = 0; j < k; j++) {
		if (h[j * k + j] == 0) {
			inv[j * k + j] = 1;
			for (size_t i = 0; i < n; i++)
				w[i * k + j] = 0;
		}
		inv[j * k + j] += o->shrink * h[j * k + j] + o->damp * mean / live;
	}
	invert(inv, k);
	for (size_t j = 0; j < k; j++) {
		size_t best = k;

		for (size_t c = 0; c < k; c++)
			if (!done[c] && (best == k ||
					 (o->act_order && h[c * k + c] > h[best * k + best])))
				best = c;
		order[j] = best;
		done[best] = true;
	}
	for (size_t i = 0; i < n && fixed; i++)
		for (size_t g = 0; g < groups; g++)
			p[i * groups + g] = slow_fit(w + i * k + g * group, group, 1, &o->q);
	for (size_t s = 0; s < k; s++) {
		size_t j = order[s], g = j / group;
		double d = inv[j * k + j];

		for (size_t i = 0; i < n; i++) {
			double *row = w + i * k, c, e;
			struct params *at = &p[i * groups + g];

			if (!fixed && j % group == 0)
				*at = slow_fit(row + j, group, 1, &o->q);
			c = nearbyint(row[j] / at->scale) + at->zero;
			c = fmin(fmax(c, 0), (1 << o->q.bits) - 1);
			codes[i * k + j] = (uint8_t)c;
			e = (row[j] - at->scale * (c - at->zero)) / d;
			for (size_t t = s + 1; t < k; t++)
				row[order[t]] -= e * inv[j * k + order[t]];
			row[j] = at->scale * (c - at->zero);
		}
		/* H^-1 without row and column j. */
		for (size_t a = s + 1; a < k; a++)
			for (size_t b = s + 1; b < k; b++)
				inv[order[a] * k + order[b]] -= inv[order[a] * k + j] *
								inv[j * k + order[b]] / d;
	}
	free(inv);
	free(order);
	free(p);
	free(done);
}

/* ---- a layer ---------------------------------------------------------------------- */

struct layer_case {
	size_t n, k;
	float *w, *tri;  /* as the library takes them */
	double *w64, *h; /* [n, k], [k, k] */
};

/* Correlated inputs with a few outlier channels; t tokens. */
static void make_case(struct layer_case *c, size_t n, size_t k, size_t t, uint64_t seed)
{
	double *x = malloc(k * sizeof(*x));

	state = seed;
	c->n = n;
	c->k = k;
	c->w = malloc(n * k * sizeof(*c->w));
	c->w64 = malloc(n * k * sizeof(*c->w64));
	c->tri = malloc(k * (k + 1) / 2 * sizeof(*c->tri));
	c->h = calloc(k * k, sizeof(*c->h));
	for (size_t i = 0; i < n * k; i++)
		c->w[i] = (float)normal();
	for (size_t s = 0; s < t; s++) {
		double last = 0;

		for (size_t j = 0; j < k; j++) {
			last = x[j] = 0.6 * last + normal();
			x[j] *= j % 17 == 3 ? 8 : 1;
		}
		for (size_t i = 0; i < k; i++)
			for (size_t j = 0; j < k; j++)
				c->h[i * k + j] += x[i] * x[j];
	}
	free(x);
}

/* h to tri and back, so that both sides see the same rounded numbers; w64 from w. */
static void settle(struct layer_case *c)
{
	float *tri = c->tri;

	for (size_t i = 0; i < c->k; i++)
		for (size_t j = i; j < c->k; j++) {
			*tri = (float)c->h[i * c->k + j];
			c->h[i * c->k + j] = c->h[j * c->k + i] = *tri++;
		}
	for (size_t i = 0; i < c->n * c->k; i++)
		c->w64[i] = c->w[i];
}

static void free_case(struct layer_case *c)
{
	free(c->w);
	free(c->tri);
	free(c->w64);
	free(c->h);
}

/* tr D H D' with D = a - b. */
static double slow_energy(const struct layer_case *c, const float *a, const float *b)
{
	double sum = 0;

	for (size_t r = 0; r < c->n; r++)
		for (size_t i = 0; i < c->k; i++)
			for (size_t j = 0; j < c->k; j++)
				sum += ((double)a[r * c->k + i] - (b ? b[r * c->k + i] : 0)) *
				       c->h[i * c->k + j] *
				       ((double)a[r * c->k + j] - (b ? b[r * c->k + j] : 0));
	return sum;
}

static struct gptq_options options(int bits, bool sym, long group)
{
	return (struct gptq_options){
		.q = { .bits = bits, .sym = sym, .group = group, .scale_dtype = DT_F16 },
		.damp = 0.01, .damp_auto = true, .block = 128,
	};
}

/* Solve; the dequantized weights into q (may be NULL).  Returns the energy, or -1. */
static double solve(struct backend *be, const struct layer_case *c, const struct gptq_options *o,
		    struct quantized *z, float *q, struct gptq_result *res, struct err *e)
{
	struct gptq_hessian *h = NULL;
	float *w = malloc(c->n * c->k * sizeof(*w));
	double energy = -1;

	memcpy(w, c->w, c->n * c->k * sizeof(*w));
	if (gptq_hessian_new(&h, be, c->tri, c->k, o, "layer", e) == 0 &&
	    gptq_quantize(z, res, h, w, c->n, o, "layer", e) == 0)
		energy = res->energy;
	if (q)
		memcpy(q, w, c->n * c->k * sizeof(*w));
	gptq_hessian_free(h);
	free(w);
	return energy;
}

static void against_slow(struct backend *be, const char *what, size_t n, size_t k, size_t tokens,
			 struct gptq_options o)
{
	struct layer_case c;
	struct quantized z = { 0 };
	struct gptq_result res = { 0 };
	struct err e = { 0 };
	float *q;
	uint8_t *want;
	double got;
	size_t differ = 0;

	make_case(&c, n, k, tokens, 7 * n + k);
	for (size_t r = 0; r < n; r++)
		c.w[r * k + k / 2] *= 3;
	settle(&c);
	q = malloc(n * k * sizeof(*q));
	want = malloc(n * k);
	slow_gptq(want, c.w64, n, c.h, k, &o);
	got = solve(be, &c, &o, &z, q, &res, &e);
	for (size_t i = 0; i < n * k && got >= 0; i++)
		differ += z.codes[i] != want[i];
	ok(got >= 0 && differ == 0, "%s: the slow solver's codes (%zu of %zu differ) %s", what,
	   differ, n * k, e.what);
	ok_near(got / slow_energy(&c, c.w, q), 1, 1e-4, "%s: energy is tr (W-Q) H (W-Q)'", what);
	free(q);
	free(want);
	quantized_release(&z);
	free_case(&c);
}

static void slow_cases(struct backend *be)
{
	struct gptq_options o = options(4, true, 32);

	against_slow(be, "4 bits, sym, groups of 32", 37, 160, 400, o);
	o.static_groups = true;
	against_slow(be, "static groups", 37, 160, 400, o);
	o.act_order = true;
	against_slow(be, "act order", 37, 160, 400, o);
	o = options(3, false, 16);
	against_slow(be, "3 bits, asym, groups of 16", 33, 144, 400, o);
	o.block = 40;
	against_slow(be, "blocks that are no multiple of the group", 33, 144, 400, o);
	o = options(2, false, 12);
	against_slow(be, "groups of 12 columns in blocks of 128", 5, 132, 300, o);
	o = options(4, false, 172);
	against_slow(be, "one group wider than a block", 3, 172, 400, o);
	o = options(4, true, 144);
	against_slow(be, "groups wider than a block", 9, 288, 600, o);
	o.block = 32;
	against_slow(be, "groups of several blocks", 9, 288, 600, o);
	o = options(8, true, -1);
	against_slow(be, "8 bits a row", 64, 130, 300, o);
	o = options(4, false, 32);
	o.q.range = RANGE_MSE;
	against_slow(be, "least 2.4-norm range", 8, 64, 200, o);
	o.act_order = true;
	o.q.scale_dtype = DT_F32;
	against_slow(be, "the same, act order, scales in F32", 8, 64, 200, o);
	o = options(3, true, 32);
	o.shrink = 0.3;
	against_slow(be, "correlations shrunk", 37, 160, 400, o);
	o = options(4, false, -1);
	against_slow(be, "one column", 4, 1, 10, o);
	against_slow(be, "five columns, one row", 1, 5, 20, o);
	o = options(4, true, 1);
	against_slow(be, "groups of 1", 3, 9, 20, o);
}

static void properties(struct backend *be)
{
	struct gptq_options o = options(4, true, 16);
	struct layer_case c;
	struct quantized z = { 0 }, other = { 0 };
	struct gptq_result res = { 0 };
	struct err e = { 0 };

	make_case(&c, 40, 96, 200, 5);
	memset(c.h, 0, 96 * 96 * sizeof(*c.h));
	for (size_t j = 0; j < 96; j++)
		c.h[j * 96 + j] = 3.5;
	settle(&c);
	solve(be, &c, &o, &z, NULL, &res, &e);
	ok(rtn_quantize(&other, &o.q, c.w, 40, 96, be->pool, "x", &e) == 0 &&
	   memcmp(z.codes, other.codes, 40 * 96) == 0 &&
	   memcmp(z.scale, other.scale, 40 * 6 * sizeof(float)) == 0,
	   "a multiple of the identity gives round to nearest");
	free_case(&c);

	make_case(&c, 40, 300, 900, 6);
	settle(&c);
	o = options(3, false, 50);
	o.static_groups = true;
	solve(be, &c, &o, &z, NULL, &res, &e);
	o.block = 7;
	solve(be, &c, &o, &other, NULL, &res, &e);
	ok(memcmp(z.codes, other.codes, 40 * 300) == 0,
	   "static groups: no matter how long a block is");
	free_case(&c);

	/* A group wider than a panel of the asked width. */
	make_case(&c, 40, 300, 900, 7);
	settle(&c);
	o = options(3, false, 150);
	solve(be, &c, &o, &z, NULL, &res, &e);
	o.block = 16;
	solve(be, &c, &o, &other, NULL, &res, &e);
	ok(memcmp(z.codes, other.codes, 40 * 300) == 0,
	   "groups wider than a block: no matter how long it is");
	free_case(&c);

	/* Per tensor: one scale for all rows. */
	make_case(&c, 8, 24, 100, 8);
	settle(&c);
	o = options(4, false, 0);
	ok(solve(be, &c, &o, &z, NULL, &res, &e) > 0 && z.per_tensor && z.groups == 1 &&
	   z.scale[0] == z.scale[7] && z.zero[0] == z.zero[7], "group 0: one scale a tensor");
	free_case(&c);
	quantized_release(&z);
	quantized_release(&other);
}

static void threads(void)
{
	struct gptq_options o = options(4, false, 64);
	struct layer_case c;
	struct quantized z[4] = { 0 };
	double energy[4];
	struct err e = { 0 };

	make_case(&c, 300, 576, 700, 11);
	settle(&c);
	for (int t = 0; t < 4; t++) {
		struct gptq_result res = { 0 };
		struct backend be;

		o.act_order = t == 3;
		if (!ok(backend_open(&be, "cpu", t % 3 + 1, &e) == 0, "%d threads", t % 3 + 1))
			return;
		energy[t] = solve(&be, &c, &o, &z[t], NULL, &res, &e);
		backend_close(&be);
	}
	for (int t = 1; t < 3; t++)
		ok(energy[t] == energy[0] && memcmp(z[t].codes, z[0].codes, 300 * 576) == 0 &&
		   memcmp(z[t].scale, z[0].scale, 300 * 9 * sizeof(float)) == 0,
		   "%d threads give the bits of one", t + 1);
	ok(energy[3] > 0 && memcmp(z[3].codes, z[0].codes, 300 * 576) != 0,
	   "act order is another order");
	for (int t = 0; t < 4; t++)
		quantized_release(&z[t]);
	free_case(&c);
}

/* Every set of inner loops gives the bits of plain C: whole and partial tiles, panels, eights. */
static void kernel_sets(struct backend *be)
{
	static const struct {
		size_t n, k;
		long group, block;
		bool sym, act_order;
	} cases[] = {
		{ 64, 384, 64, 0, true, false },
		{ 45, 300, 100, 0, false, false },
		{ 33, 203, -1, 50, true, true },
		{ 5, 90, 45, 7, false, false },
		{ 40, 160, 1, 0, true, false },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		size_t n = cases[i].n, k = cases[i].k;
		struct gptq_options o = options(3 + (int)i, cases[i].sym, cases[i].group);
		struct quantized want = { 0 }, z = { 0 };
		struct gptq_result first = { 0 }, res = { 0 };
		struct gptq_hessian *h = NULL;
		struct layer_case c;
		struct err e = { 0 };
		float *plain = malloc(n * k * sizeof(*plain)), *w = malloc(n * k * sizeof(*w));

		o.block = cases[i].block;
		o.act_order = cases[i].act_order;
		make_case(&c, n, k, 2 * k, 31 + i);
		settle(&c);
		memcpy(plain, c.w, n * k * sizeof(*w));
		ok(gptq_hessian_new(&h, be, c.tri, k, &o, "layer", &e) == 0 &&
		   gptq_quantize_by(0, &want, &first, h, plain, n, &o, "layer", &e) == 0,
		   "[%zu, %zu] by plain C", n, k);
		for (size_t set = 1; gptq_kernels(set); set++) {
			memcpy(w, c.w, n * k * sizeof(*w));
			ok(gptq_quantize_by(set, &z, &res, h, w, n, &o, "layer", &e) == 0 &&
			   res.energy == first.energy && memcmp(z.codes, want.codes, n * k) == 0 &&
			   memcmp(w, plain, n * k * sizeof(*w)) == 0,
			   "[%zu, %zu] by %s: the bits of plain C", n, k, gptq_kernels(set));
		}
		gptq_hessian_free(h);
		free(plain);
		free(w);
		quantized_release(&want);
		quantized_release(&z);
		free_case(&c);
	}
}

static void dead_columns(struct backend *be)
{
	struct gptq_options o = options(4, true, -1);
	struct layer_case c;
	struct quantized z = { 0 };
	struct gptq_result res = { 0 };
	struct err e = { 0 };
	uint8_t want[20 * 40];
	float *q;
	bool zero = true;

	/* Dead columns. */
	make_case(&c, 20, 40, 100, 21);
	for (size_t d = 5; d < 40; d += 20)
		for (size_t j = 0; j < 40; j++)
			c.h[d * 40 + j] = c.h[j * 40 + d] = 0;
	settle(&c);
	q = malloc(20 * 40 * sizeof(*q));
	ok(solve(be, &c, &o, &z, q, &res, &e) >= 0 && res.dead == 2,
	   "two dead columns are counted");
	for (size_t r = 0; r < 20; r++)
		zero = zero && q[r * 40 + 5] == 0 && q[r * 40 + 25] == 0 &&
		       z.codes[r * 40 + 5] == 8;
	ok(zero, "their weights become 0");
	free_case(&c);

	/* Most are dead: the damping is a part of what lives. */
	make_case(&c, 20, 40, 100, 21);
	for (size_t d = 0; d < 40; d++)
		for (size_t j = 0; j < 40 && d % 4; j++)
			c.h[d * 40 + j] = c.h[j * 40 + d] = 0;
	settle(&c);
	o.damp = 0.5;
	slow_gptq(want, c.w64, 20, c.h, 40, &o);
	ok(solve(be, &c, &o, &z, q, &res, &e) >= 0 && res.dead == 30 &&
	   memcmp(want, z.codes, 20 * 40) == 0, "30 of 40 dead: damping is relative to the others");
	free_case(&c);

	free(q);
	quantized_release(&z);
}

/* A grid with minima may have no 0: what stands in dead columns is no error. */
static void dead_columns_of_grids(struct backend *be)
{
	struct gptq_options o = options(4, false, 32);
	struct quantized z = { 0 };
	struct gptq_result res = { 0 };
	struct err e = { 0 };
	struct layer_case c;
	double sum = 0, slow;
	float *q = malloc(20 * 512 * sizeof(*q));

	kquant_set(&o.q, GRID_Q4_K);
	make_case(&c, 20, 512, 600, 23);
	for (size_t d = 5; d < 512; d += 2)
		for (size_t j = 0; j < 512; j++)
			c.h[d * 512 + j] = c.h[j * 512 + d] = 0;
	for (size_t i = 0; i < 512 * 512; i++)
		c.h[i] *= 1e-4;
	settle(&c);
	for (size_t i = 0; i < 20 * 512; i++)
		c.w[i] += 2;
	for (o.sweeps = 0; o.sweeps < 2; o.sweeps++) {
		ok(solve(be, &c, &o, &z, q, &res, &e) >= 0 && res.dead == 254,
		   "Q4_K, %ld sweeps: 254 dead columns are counted", o.sweeps);
		for (size_t i = 0; i < 20 * 512; i++)
			sum += i % 512 > 4 && i % 2 ? fabs(q[i]) : 0;
		slow = slow_energy(&c, c.w, q);
		ok(sum > 0, "their weights are not 0");
		ok_near(res.energy / slow, 1, 1e-3, "and none of the energy is theirs");
	}
	free_case(&c);
	free(q);
	quantized_release(&z);
}

static void singular_hessians(struct backend *be)
{
	struct gptq_options o = options(4, true, -1);
	struct layer_case c;
	struct quantized z = { 0 };
	struct gptq_result res = { 0 };
	struct err e = { 0 };
	float *q = malloc(20 * 600 * sizeof(*q));

	/* Fewer tokens than columns. */
	make_case(&c, 20, 40, 7, 22);
	settle(&c);
	o.damp = 0;
	ok(solve(be, &c, &o, &z, q, &res, &e) >= 0 && res.damp_raised >= 1 &&
	   fabs(res.damp / (1e-4 * pow(10, res.damp_raised - 1)) - 1) < 1e-9,
	   "a singular H: damp raised %d times to %g", res.damp_raised, res.damp);
	ok_near(res.energy / slow_energy(&c, c.w, q), 1, 1e-3, "its energy, without the damping");
	o.damp_auto = false;
	ok(solve(be, &c, &o, &z, q, &res, &e) < 0 && e.cls == ERR_DATA &&
	   strstr(e.what, "H is not positive definite with damp 0 (smallest pivot") &&
	   strstr(e.what, "try --damp=0.01"), "--no-damp-auto: %s", e.what);
	o.damp = 1;
	o.damp_auto = true;
	ok(solve(be, &c, &o, &z, q, &res, &e) >= 0, "damp 1");
	ok_near(res.energy / slow_energy(&c, c.w, q), 1, 1e-3,
		"energy where damping is most of it");

	free_case(&c);
	make_case(&c, 20, 600, 1, 24);
	settle(&c);
	o.act_order = true;
	ok(solve(be, &c, &o, &z, q, &res, &e) >= 0, "600 columns, one token, damp 1");
	ok_near(res.energy / slow_energy(&c, c.w, q), 1, 1e-3, "energy %g of %g", res.energy,
		slow_energy(&c, c.w, NULL));
	free_case(&c);
	free(q);
	quantized_release(&z);
}

static void impossible_hessians(struct backend *be)
{
	struct gptq_options o = options(4, true, -1);
	struct layer_case c;
	struct quantized z = { 0 };
	struct gptq_result res = { 0 };
	struct err e = { 0 };

	make_case(&c, 20, 40, 7, 22);
	settle(&c);
	for (size_t j = 0; j < 40; j++)
		c.tri[tri_index(3, j > 3 ? j : 3, 40)] = 900;
	c.tri[tri_index(3, 3, 40)] = 1e-3f;
	ok(solve(be, &c, &o, &z, NULL, &res, &e) < 0 && strstr(e.what, "even with damp 1"), "%s",
	   e.what);
	c.tri[tri_index(3, 3, 40)] = -1;
	ok(solve(be, &c, &o, &z, NULL, &res, &e) < 0 && e.cls == ERR_DATA &&
	   strstr(e.what, "diagonal 3 is -1"), "%s", e.what);
	c.tri[77] = NAN;
	ok(solve(be, &c, &o, &z, NULL, &res, &e) < 0 && strstr(e.what, "value 77"), "%s", e.what);
	memset(c.tri, 0, 820 * sizeof(*c.tri));
	ok(solve(be, &c, &o, &z, NULL, &res, &e) < 0 && strstr(e.what, "hessian is zero"), "%s",
	   e.what);
	free_case(&c);

	make_case(&c, 20, 40, 100, 23);
	settle(&c);
	c.w[45] = INFINITY;
	ok(solve(be, &c, &o, &z, NULL, &res, &e) < 0 && strstr(e.what, "row 1 column 5"), "%s",
	   e.what);
	c.w[45] = 1e7f;
	ok(solve(be, &c, &o, &z, NULL, &res, &e) < 0 && strstr(e.what, "row 1, group 0") &&
	   strstr(e.what, "--scale-dtype=f32"), "%s", e.what);
	free_case(&c);
	quantized_release(&z);
}

static void energies(struct backend *be)
{
	static const size_t shape[][2] = { { 1, 1 }, { 3, 255 }, { 520, 257 }, { 7, 600 } };

	for (size_t i = 0; i < sizeof(shape) / sizeof(shape[0]); i++) {
		struct layer_case c;
		struct err e = { 0 };
		double got;

		make_case(&c, shape[i][0], shape[i][1], 50, i);
		settle(&c);
		ok(output_energy(be, c.w, c.n, c.k, c.tri, &got, &e) == 0, "energy [%zu, %zu]", c.n,
		   c.k);
		ok_near(got / slow_energy(&c, c.w, NULL), 1, 1e-5, "is tr W H W'");
		free_case(&c);
	}
}

/* ---- the golden layer --------------------------------------------------------------- */

static int load_golden(struct layer_case *c, const char *path, struct err *e)
{
	const struct st_tensor *w, *h;
	struct safetensors st;
	void *raw;
	int r = -1;

	if (safetensors_open(&st, path, e) < 0)
		return -1;
	w = safetensors_find(&st, "W");
	h = safetensors_find(&st, "H_upper_rowmajor");
	c->n = (size_t)w->shape[0];
	c->k = (size_t)w->shape[1];
	c->w = malloc(c->n * c->k * sizeof(*c->w));
	c->w64 = malloc(c->n * c->k * sizeof(*c->w64));
	c->tri = malloc(h->nbytes);
	c->h = calloc(c->k * c->k, sizeof(*c->h));
	raw = malloc(w->nbytes);
	if (safetensors_read(&st, w, raw, e) == 0 && safetensors_read(&st, h, c->tri, e) == 0)
		r = dtype_to_f32(c->w, raw, w->dtype, c->n * c->k);
	for (size_t i = 0; i < c->k; i++)
		for (size_t j = i; j < c->k; j++)
			c->h[i * c->k + j] = c->tri[tri_index(i, j, c->k)];
	settle(c);
	free(raw);
	safetensors_close(&st);
	return r;
}

/* "w4-g128-asym": bits, group, sym; scales as the golden solver's, not rounded to 16 bits. */
static struct gptq_options golden_options(const char *name, const char *method)
{
	struct gptq_options o = options(name[1] - '0', !strstr(name, "asym"), -1);

	if (name[3] == 'g')
		o.q.group = strtol(name + 4, NULL, 10);
	o.q.scale_dtype = DT_F32;
	o.static_groups = strcmp(method, "gptq-static-groups") == 0;
	o.act_order = strcmp(method, "gptq-actorder-static-groups") == 0;
	return o;
}

static size_t group_of(const struct layer_case *c, const struct gptq_options *o)
{
	return o->q.group > 0 ? (size_t)o->q.group : c->k;
}

/* The golden's codes, made again: f64 throughout, scales not rounded at all.  For rounding to
 * nearest with the grids of all groups. */
static void golden_codes(const struct layer_case *c, struct gptq_options o, uint8_t *codes,
			 struct params *grid)
{
	size_t group = group_of(c, &o);
	double *w = malloc(c->n * c->k * sizeof(*w)), top = (1 << o.q.bits) - 1;

	o.q.scale_dtype = DT_F64;
	memcpy(w, c->w64, c->n * c->k * sizeof(*w));
	if (!grid)
		slow_gptq(codes, w, c->n, c->h, c->k, &o);
	for (size_t i = 0; grid && i < c->n * c->k; i++) {
		struct params *p = &grid[i / group];

		if (i % group == 0)
			*p = slow_fit(w + i, group, 1, &o.q);
		codes[i] = (uint8_t)fmin(fmax(nearbyint(w[i] / p->scale) + p->zero, 0), top);
	}
	free(w);
}

/* Is t so near to the middle between two integers that F32 cannot tell which is nearer?  Three
 * roundings, of the scale, of the quotient and of its sum with a zero of so many bits, each of
 * 2^-24 at most. */
static bool is_tie(double t, int bits)
{
	return fabs(t - floor(t) - 0.5) <= 0x1p-24 * (2 * fabs(t) + (1 << bits));
}

/*
 * Weights of 8 bits of mantissa lie on halves of the grid again and again, and there the last bit
 * of a scale decides: our scales are F32 numbers, the golden's f64.  So rounding to nearest may
 * differ from the golden in ties, and a zero point in a tie moves its whole group by one.  Nothing
 * else may differ: how many codes are not the one that the golden's grid gives, with our zero
 * point, nor its neighbour in a tie; and how many zero points that are no tie differ.
 */
static size_t unexplained(const struct layer_case *c, const struct gptq_options *o,
			  const struct quantized *z, const struct params *grid, size_t *ties)
{
	size_t group = group_of(c, o), wrong = 0;
	int top = (1 << o->q.bits) - 1;
	double lo = 0;

	*ties = 0;
	for (size_t i = 0; i < c->n * c->k; i++) {
		const struct params *p = &grid[i / group];
		int zero = z->zero[i / group], want;
		double t = c->w64[i] / p->scale;

		want = (int)fmin(fmax(nearbyint(t) + zero, 0), top);
		if (z->codes[i] != want) {
			wrong += !is_tie(t, o->q.bits) || abs(z->codes[i] - want) != 1;
			++*ties;
		}
		lo = fmin(i % group ? lo : 0, c->w64[i]);
		if (i % group == group - 1 && zero != p->zero) {
			wrong += !is_tie(-lo / p->scale, o->q.bits) || abs(zero - p->zero) != 1;
			*ties += group;
		}
	}
	return wrong;
}

/* Our grids with the golden's codes in them: what is left when all ties fall as they do there. */
static double energy_of_golden(const struct layer_case *c, const struct gptq_options *o,
			       const struct quantized *z, const struct params *grid,
			       const uint8_t *codes)
{
	size_t group = group_of(c, o);
	float *q = malloc(c->n * c->k * sizeof(*q));
	double energy;

	for (size_t i = 0; i < c->n * c->k; i++)
		q[i] = z->scale[i / group] * (float)(codes[i] - grid[i / group].zero);
	energy = slow_energy(c, c->w, q);
	free(q);
	return energy;
}

static void golden_rtn(struct backend *be, const struct layer_case *c, const char *name,
		       const uint8_t *codes, const struct params *grid, double norm, double golden)
{
	struct gptq_options o = golden_options(name, "rtn");
	struct quantized z = { 0 };
	struct err e = { 0 };
	float *q = malloc(c->n * c->k * sizeof(*q));
	size_t ties, wrong;
	double rel;

	ok(rtn_quantize(&z, &o.q, c->w, c->n, c->k, be->pool, name, &e) == 0, "%s rtn", name);
	quantized_dequantize(&z, q);
	rel = sqrt(slow_energy(c, c->w, q) / norm);
	wrong = unexplained(c, &o, &z, grid, &ties);
	ok(wrong == 0 && ties <= c->n * c->k / 80, "%s rtn: its codes but for ties, %zu of %zu; "
	   "relative error %.6f", name, ties, c->n * c->k, rel);
	ok_near(sqrt(energy_of_golden(c, &o, &z, grid, codes) / norm) / golden, 1, 1e-5,
		"%s rtn: the golden's error %.6f when ties fall as there", name, golden);
	if (ties == 0)
		ok_near(rel / golden, 1, 1e-5, "%s rtn: no ties, the golden's error", name);
	free(q);
	quantized_release(&z);
}

static void golden_gptq(struct backend *be, const struct layer_case *c, const char *name,
			const char *method, const uint8_t *codes, double norm, double golden)
{
	struct gptq_options o = golden_options(name, method);
	struct quantized z = { 0 };
	struct gptq_result res = { 0 };
	struct err e = { 0 };
	size_t n = c->n * c->k, differ = 0;
	double rel;

	ok(solve(be, c, &o, &z, NULL, &res, &e) >= 0, "%s %s", name, method);
	rel = sqrt(res.energy / norm);
	ok_near(rel / golden, 1, 1e-3, "%s %s: relative error %.6f, as the golden's", name, method,
		rel);
	for (size_t i = 0; i < n; i++)
		differ += z.codes[i] != codes[i];
	/* One tie that falls otherwise moves what comes after it. */
	ok(differ <= n / 80, "%s %s: its codes but for %zu of %zu", name, method, differ, n);
	quantized_release(&z);
}

static void golden_case(struct backend *be, const struct layer_case *c, const char *name,
			const char *method, const struct json *want)
{
	struct gptq_options o = golden_options(name, method);
	bool rtn = strcmp(method, "rtn") == 0;
	struct err e = { 0 };
	size_t n = c->n * c->k;
	uint8_t *codes = malloc(n);
	struct params *grid = rtn ? malloc(n / group_of(c, &o) * sizeof(*grid)) : NULL;
	double norm, rel_err = json_num(json_get(want, "rel_err"), -1);
	char hex[65];

	golden_codes(c, o, codes, grid);
	sha256_hex(codes, n, hex);
	ok_str(hex, json_str(json_get(want, "codes_sha256"), NULL),
	       "%s %s: the slow solver makes the golden codes", name, method);
	ok(output_energy(be, c->w, c->n, c->k, c->tri, &norm, &e) == 0, "energy of W");
	if (rtn)
		golden_rtn(be, c, name, codes, grid, norm, rel_err);
	else
		golden_gptq(be, c, name, method, codes, norm, rel_err);
	free(codes);
	free(grid);
}

static void golden(struct backend *be, const char *dir, const char *layer)
{
	char path[512];
	struct layer_case c;
	struct json_doc *doc = NULL;
	struct err e = { 0 };
	const struct json *v, *cases;
	const char *name, *method;
	void *it = NULL;

	snprintf(path, sizeof(path), "%s/%s.json", dir, layer);
	if (json_parse_file(&doc, path, &e) < 0) {
		if (e.cls == ERR_NOINPUT)
			skip("%s is not here", path);
		else
			ok(0, "%s: %s", path, e.what);
		return;
	}
	snprintf(path, sizeof(path), "%s/%s.safetensors", dir, layer);
	if (!ok(load_golden(&c, path, &e) == 0, "%s %s", path, e.what))
		return;
	cases = json_get(json_root(doc), "cases");
	while ((it = json_iter(cases, it, &name, &v))) {
		const struct json *want;
		void *at = NULL;

		while ((at = json_iter(v, at, &method, &want)))
			golden_case(be, &c, name, method, want);
	}
	free_case(&c);
	json_free(doc);
}

int main(void)
{
	const char *shared = getenv("QP_SHARED");
	struct backend be;
	struct err e = { 0 };
	char dir[400];

	if (!ok(backend_open(&be, "cpu", 2, &e) == 0, "backend %s", e.what))
		return done();
	slow_cases(&be);
	properties(&be);
	threads();
	kernel_sets(&be);
	dead_columns(&be);
	dead_columns_of_grids(&be);
	singular_hessians(&be);
	impossible_hessians(&be);
	energies(&be);
	golden(&be, "tests/data/gptq-layer", "layers-0-self_attn-q_proj");
	snprintf(dir, sizeof(dir), "%s/golden/gptq-layer", shared ? shared : "../shared/data");
	golden(&be, dir, "layers-0-mlp-down_proj");
	backend_close(&be);
	return done();
}
