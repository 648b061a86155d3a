/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kernels.c - speed of the backend as ratios to OpenBLAS and to the registers, in one run; see
 * pairs.h.  The shapes of a 7B model take a minute or two.
 */
#include <math.h>

#include "lib/compute/hadamard.h"
#include "lib/compute/quant.h"
#include "tests/bench/pairs.h"

void dpotrf_(const char *uplo, const int *n, double *a, const int *lda, int *info, size_t);

/* ---- linears and the forward of a block ---- */

struct shape {
	const char *name;
	size_t hidden, ffn, nseq, seqlen;
	int heads, kv_heads;
};

struct forward {
	struct backend *b;
	struct shape s;
	size_t t, q, kv, hd;
	struct packed *w[7];
	float *raw[7], *x, *n, *qb, *kb, *vb, *g, *u, *norm, *cos, *sin, *cs;
};

/* q k v o gate up down: rows n, columns k */
static void linear_shape(const struct forward *f, int i, size_t *n, size_t *k)
{
	size_t d = f->s.hidden, rows[] = { f->q, f->kv, f->kv, d, f->s.ffn, f->s.ffn, d };
	size_t cols[] = { d, d, d, f->q, d, d, f->s.ffn };

	*n = rows[i];
	*k = cols[i];
}

static double linear_flops(const struct forward *f)
{
	double s = 0;

	for (int i = 0; i < 7; i++) {
		size_t n, k;

		linear_shape(f, i, &n, &k);
		s += 2.0 * (double)f->t * (double)n * (double)k;
	}
	return s;
}

static double attention_flops(const struct forward *f)
{
	return 2.0 * (double)f->t * (double)(f->s.seqlen + 1) * (double)f->q;
}

static void forward_init(struct forward *f, struct backend *b, struct shape s)
{
	struct err e;

	memset(f, 0, sizeof(*f));
	f->b = b;
	f->s = s;
	f->t = s.nseq * s.seqlen;
	f->hd = s.hidden / (size_t)s.heads;
	f->q = s.hidden;
	f->kv = f->hd * (size_t)s.kv_heads;
	for (int i = 0; i < 7; i++) {
		size_t n, k;

		linear_shape(f, i, &n, &k);
		f->raw[i] = randoms(b, n * k);
		check(b->ops->pack(b, &f->w[i], f->raw[i], DT_F32, n, k, &e), &e);
	}
	f->x = randoms(b, f->t * s.hidden);
	f->n = randoms(b, f->t * s.hidden);
	f->qb = randoms(b, f->t * f->q);
	f->kb = randoms(b, f->t * f->kv);
	f->vb = randoms(b, f->t * f->kv);
	f->g = randoms(b, f->t * s.ffn);
	f->u = randoms(b, f->t * s.ffn);
	f->norm = randoms(b, s.hidden);
	f->cos = randoms(b, s.seqlen * f->hd / 2);
	f->sin = randoms(b, s.seqlen * f->hd / 2);
	f->cs = randoms(b, s.ffn);
}

static void forward_free(struct forward *f)
{
	float *all_of[] = { f->x, f->n, f->qb, f->kb, f->vb, f->g, f->u, f->norm, f->cos, f->sin,
			    f->cs };

	for (int i = 0; i < 7; i++) {
		f->b->ops->pack_free(f->b, f->w[i]);
		f->b->ops->free(f->b, f->raw[i]);
	}
	for (size_t i = 0; i < sizeof(all_of) / sizeof(*all_of); i++)
		f->b->ops->free(f->b, all_of[i]);
}

static void linear(struct forward *f, int i, float *y, const float *x, int add)
{
	size_t n, k;
	struct err e;

	linear_shape(f, i, &n, &k);
	check(f->b->ops->linear(f->b, y, n, x, k, f->t, f->w[i], NULL, add, &e), &e);
}

static void run_attention(void *arg)
{
	struct forward *f = arg;
	struct attention_shape a = { f->s.nseq, f->s.seqlen, f->s.heads, f->s.kv_heads, (int)f->hd,
				     f->q, f->kv, f->q, 1.0f / sqrtf((float)f->hd), 1, 0, 0,
				     NULL, NULL, NULL, NULL };
	struct err e;

	check(f->b->ops->attention(f->b, f->n, f->qb, f->kb, f->vb, &a, &e), &e);
}

static void run_forward(void *arg)
{
	struct forward *f = arg;
	const struct backend_ops *o = f->b->ops;
	struct err e;

	check(o->rmsnorm(f->b, f->n, f->x, f->norm, f->t, f->s.hidden, 1e-5f, &e), &e);
	linear(f, 0, f->qb, f->n, 0);
	linear(f, 1, f->kb, f->n, 0);
	linear(f, 2, f->vb, f->n, 0);
	check(o->rope(f->b, f->qb, f->q, f->t, f->s.seqlen, f->s.heads, (int)f->hd, f->cos, f->sin,
		      &e), &e);
	check(o->rope(f->b, f->kb, f->kv, f->t, f->s.seqlen, f->s.kv_heads, (int)f->hd, f->cos,
		      f->sin, &e), &e);
	run_attention(f);
	linear(f, 3, f->x, f->n, 1);
	check(o->rmsnorm(f->b, f->n, f->x, f->norm, f->t, f->s.hidden, 1e-5f, &e), &e);
	linear(f, 4, f->g, f->n, 0);
	linear(f, 5, f->u, f->n, 0);
	check(o->gate(f->b, f->g, f->g, f->u, f->t * f->s.ffn, ACT_FN_SILU, &e), &e);
	linear(f, 6, f->x, f->g, 1);
}

static void run_linears(void *arg)
{
	struct forward *f = arg;

	for (int i = 0; i < 7; i++)
		linear(f, i, i == 4 || i == 5 ? f->g : f->n, i == 6 ? f->u : f->x, 0);
}

static void run_sgemms(void *arg)
{
	struct forward *f = arg;

	for (int i = 0; i < 7; i++) {
		size_t n, k;

		linear_shape(f, i, &n, &k);
		cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)f->t, (int)n, (int)k,
			    1.0f, i == 6 ? f->u : f->x, (int)k, f->raw[i], (int)k, 0.0f,
			    i == 4 || i == 5 ? f->g : f->n, (int)n);
	}
}

/* Values must stay finite from run to run: the residual stream starts anew. */
static void reset_forward(void *arg)
{
	struct forward *f = arg;

	for (size_t i = 0; i < f->t * f->s.hidden; i++)
		f->x[i] = (float)(i % 17) - 8.0f;
}

/* In bf16 beside the rate of its own linears. */
static void bench_bf16(struct shape s, double aim)
{
	struct forward f;
	struct side ours = { run_forward, &f, 0, reset_forward };
	struct side linears = { run_linears, &f, 0, NULL };
	struct side attention = { run_attention, &f, 0, NULL };
	double ta, tb, r, lin, att;
	char what[96];
	struct err e;

	check(backend_compute(&all, "bf16", &e), &e);
	forward_init(&f, &all, s);
	lin = linear_flops(&f);
	att = attention_flops(&f);
	r = compare(&attention, &linears, &ta, &tb);
	snprintf(what, sizeof(what), "attention of %s, %zu x %zu, bf16 / linears", s.name, s.nseq,
		 s.seqlen);
	report("T2", what, att / ta * 1e-9, att / lin * r, 0);
	r = compare(&ours, &linears, &ta, &tb);
	snprintf(what, sizeof(what), "block of %s, %zu x %zu, bf16 / linears", s.name, s.nseq,
		 s.seqlen);
	report("T2", what, (lin + att) / ta * 1e-9, (lin + att) / lin * r, aim);
	forward_free(&f);
	check(backend_compute(&all, "f32", &e), &e);
}

/* ---- the rest of a block --------------------------------------------------------------- */

static void run_norms(void *arg)
{
	struct forward *f = arg;
	struct err e;

	for (int i = 0; i < 2; i++)
		check(f->b->ops->rmsnorm(f->b, f->n, f->x, f->norm, f->t, f->s.hidden, 1e-5f, &e),
		      &e);
}

static void run_ropes(void *arg)
{
	struct forward *f = arg;
	const struct backend_ops *o = f->b->ops;
	struct err e;

	check(o->rope(f->b, f->qb, f->q, f->t, f->s.seqlen, f->s.heads, (int)f->hd, f->cos, f->sin,
		      &e), &e);
	check(o->rope(f->b, f->kb, f->kv, f->t, f->s.seqlen, f->s.kv_heads, (int)f->hd, f->cos,
		      f->sin, &e), &e);
}

static void run_gate(void *arg)
{
	struct forward *f = arg;
	struct err e;

	check(f->b->ops->gate(f->b, f->g, f->u, f->u, f->t * f->s.ffn, ACT_FN_SILU, &e), &e);
}

/* The largest of each channel, of all four edges. */
static void run_stats(void *arg)
{
	struct forward *f = arg;
	struct err e;

	for (int i = 0; i < 3; i++)
		check(f->b->ops->colstats(f->b, f->x, f->t, f->s.hidden, f->norm, NULL, NULL, NULL,
					  &e), &e);
	check(f->b->ops->colstats(f->b, f->u, f->t, f->s.ffn, f->cs, NULL, NULL, NULL, &e), &e);
}

/* All four edges to 8 bits, a scale for each token. */
static void run_quants(void *arg)
{
	static const struct quant q = { .format = QUANT_INT, .bits = 8, .sym = true,
					.per = QUANT_TOKEN, .clip = 1 };
	struct forward *f = arg;
	struct err e;

	for (int i = 0; i < 3; i++)
		check(f->b->ops->quantize(f->b, f->n, f->x, f->t, f->s.hidden, 0, &q, NULL,
					  &e), &e);
	check(f->b->ops->quantize(f->b, f->g, f->u, f->t, f->s.ffn, 0, &q, NULL,
				  &e), &e);
}

/* What of a block's time each stage takes that is no matrix product; of attention, what its
 * products would not at the rate of the linears. */
static void bench_shares(struct shape s, const char *compute)
{
	static const struct { const char *name; void (*run)(void *); double aim; } stage[] = {
		{ "norms", run_norms, 0.1 }, { "rope", run_ropes, 0.1 }, { "gate", run_gate, 0.1 },
		{ "statistics, beside", run_stats, 0.1 },
		{ "int8 of activations, beside", run_quants, 0.1 },
		{ "attention but for its products", run_attention, 0.1 },
	};
	struct forward f;
	struct side block = { run_forward, &f, 0, reset_forward };
	struct side linears = { run_linears, &f, 0, NULL };
	double ta, tb, rate, share, lin, att;
	struct err e;

	check(backend_compute(&all, compute, &e), &e);
	forward_init(&f, &all, s);
	lin = linear_flops(&f);
	att = attention_flops(&f);
	rate = compare(&linears, &block, &ta, &tb); /* a block's time / its linears' */
	for (size_t i = 0; i < sizeof(stage) / sizeof(*stage); i++) {
		struct side part = { stage[i].run, &f, 0, reset_forward };
		const int last = i + 1 == sizeof(stage) / sizeof(*stage);

		share = 1 / compare(&part, &block, &ta, &tb) - (last ? att / lin / rate : 0);
		printf("T2\t  %s, %s, %zu x %zu, %s: share of its time\t%.2f ms\t%.3f\t<= %.1f\t",
		       stage[i].name, s.name, s.nseq, s.seqlen, compute, ta * 1e3, share,
		       stage[i].aim);
		printf(noisy ? "%d of %d pairs disturbed\n" : "\n", noisy, pairs);
		fflush(stdout);
	}
	forward_free(&f);
	check(backend_compute(&all, "f32", &e), &e);
}

static void bench_rates(struct forward *f, double aim)
{
	struct side theirs = { run_sgemms, f, threads, NULL };
	struct side ours = { run_forward, f, 0, reset_forward };
	struct side linears = { run_linears, f, 0, NULL };
	struct side attention = { run_attention, f, 0, NULL };
	double ta, tb, r, lin = linear_flops(f), att = attention_flops(f);
	const struct shape s = f->s;
	char what[96];

	r = compare(&linears, &theirs, &ta, &tb);
	snprintf(what, sizeof(what), "linears of %s, %zu x %zu / sgemm", s.name, s.nseq, s.seqlen);
	report("T2", what, lin / ta * 1e-9, r, 0);
	r = compare(&attention, &theirs, &ta, &tb);
	snprintf(what, sizeof(what), "attention of %s, %zu x %zu / sgemm", s.name, s.nseq,
		 s.seqlen);
	report("T2", what, att / ta * 1e-9, att / lin * r, 0);
	r = compare(&ours, &theirs, &ta, &tb);
	snprintf(what, sizeof(what), "block of %s, %zu x %zu / sgemm", s.name, s.nseq, s.seqlen);
	report("T2", what, (lin + att) / ta * 1e-9, (lin + att) / lin * r, aim);
}

static void bench_forward(struct shape s, double aim, int two)
{
	char what[96];
	struct forward f, f1;
	struct side ours = { run_forward, &f, 0, reset_forward };
	struct side alone = { run_forward, &f1, 0, reset_forward };
	double ta, tb, r;

	forward_init(&f, &all, s);
	forward_init(&f1, &one, s);
	if (want("T2"))
		bench_rates(&f, aim);
	if (two) {
		r = compare(&ours, &alone, &ta, &tb);
		snprintf(what, sizeof(what), "block of %s, %zu x %zu, 2 threads / 1", s.name,
			 s.nseq, s.seqlen);
		report("T15", what, (linear_flops(&f) + attention_flops(&f)) / ta * 1e-9, r, 1.85);
	}
	forward_free(&f);
	forward_free(&f1);
}

/* ---- Hessians ---- */

struct gram {
	struct backend *b;
	struct hessian *h;
	float *x, *c;
	size_t t, k;
	int reps; /* so that a run is long enough to time */
};

static void run_hessian(void *arg)
{
	struct gram *g = arg;
	struct err e;

	for (int i = 0; i < g->reps; i++)
		check(g->b->ops->hessian_add(g->b, g->h, g->x, g->t, &e), &e);
}

static void run_ssyrk(void *arg)
{
	struct gram *g = arg;

	for (int i = 0; i < g->reps; i++)
		cblas_ssyrk(CblasRowMajor, CblasUpper, CblasTrans, (int)g->k, (int)g->t, 1.0f, g->x,
			    (int)g->k, 0.0f, g->c, (int)g->k);
}

static void bench_hessian_bf16(size_t k)
{
	struct gram g = { &all, NULL, NULL, NULL, 2048, k, 1 };
	struct side ours = { run_hessian, &g, 0, NULL };
	struct side theirs = { run_ssyrk, &g, threads, NULL };
	double ta, tb, r, gf = 2048.0 * (double)k * (double)k * 1e-9;
	char what[96];
	struct err e;

	g.reps = (int)(10.0 / gf) + 1;
	g.x = randoms(&all, g.t * k);
	g.c = randoms(&all, k * k);
	check(all.ops->hessian_new(&all, &g.h, k, &e), &e);
	check(backend_compute(&all, "bf16", &e), &e);
	r = compare(&ours, &theirs, &ta, &tb);
	snprintf(what, sizeof(what), "Hessian of %zu, bf16 / ssyrk", k);
	report("T5", what, g.reps * gf / ta, r, k >= 1536 ? 1.6 : 0);
	check(backend_compute(&all, "f32", &e), &e);
	all.ops->hessian_free(&all, g.h);
	all.ops->free(&all, g.x);
	all.ops->free(&all, g.c);
}

static void bench_hessian(size_t k)
{
	struct gram g = { &all, NULL, NULL, NULL, 2048, k, 1 }, g1;
	double ta, tb, r, gf = 2048.0 * (double)k * (double)k * 1e-9;
	char what[96];
	struct err e;
	struct side ours, theirs, alone;

	g.reps = (int)(10.0 / gf) + 1;
	g.x = randoms(&all, g.t * k);
	g.c = randoms(&all, k * k);
	check(all.ops->hessian_new(&all, &g.h, k, &e), &e);
	g1 = g;
	g1.b = &one;
	ours = (struct side){ run_hessian, &g, 0, NULL };
	theirs = (struct side){ run_ssyrk, &g, threads, NULL };
	alone = (struct side){ run_hessian, &g1, 0, NULL };
	r = compare(&ours, &theirs, &ta, &tb);
	snprintf(what, sizeof(what), "Hessian of %zu / ssyrk", k);
	report("T5", what, g.reps * gf / ta, r, k >= 1536 ? 0.9 : 0);
	if (threads == 2) {
		r = compare(&ours, &alone, &ta, &tb);
		snprintf(what, sizeof(what), "Hessian of %zu, 2 threads / 1", k);
		report(k <= 1024 ? "T5" : "T15", what, g.reps * gf / ta, r, k <= 1024 ? 1.8 : 1.85);
	}
	theirs = (struct side){ run_ssyrk, &g, 1, NULL };
	r = compare(&alone, &theirs, &ta, &tb);
	snprintf(what, sizeof(what), "Hessian of %zu, 1 thread / ssyrk", k);
	report("T5", what, g.reps * gf / ta, r, 0);
	all.ops->hessian_free(&all, g.h);
	all.ops->free(&all, g.x);
	all.ops->free(&all, g.c);
}

/* ---- the factor of H ---- */

#define PANEL 128 /* columns */

struct factor {
	struct backend *b;
	const double *h;
	double *u;
	size_t k;
};

static void reset_factor(void *arg)
{
	struct factor *f = arg;

	memcpy(f->u, f->h, f->k * f->k * sizeof(*f->u));
}

static void run_factor(void *arg)
{
	struct factor *f = arg;
	double pivot;
	size_t at;
	struct err e;

	check(f->b->ops->panel_factor(f->b, f->u, f->k, PANEL, &pivot, &at, &e), &e);
}

static void run_lapack(void *arg)
{
	struct factor *f = arg;
	int n = (int)f->k, info;

	dpotrf_("L", &n, f->u, &n, &info, 1);
}

static void bench_factor(size_t k)
{
	double *h = must(malloc(k * k * sizeof(*h))), gf = 1e-9 / 3 * pow((double)k, 3);
	struct factor f = { &all, h, must(malloc(k * k * sizeof(*h))), k }, f1 = f;
	struct side ours = { run_factor, &f, 0, reset_factor };
	struct side theirs = { run_lapack, &f, threads, reset_factor };
	struct side alone = { run_factor, &f1, 0, reset_factor };
	double ta, tb, r;
	char what[96];

	for (size_t i = 0; i < k; i++)
		for (size_t j = 0; j < k; j++)
			h[i * k + j] = exp(-0.1 * fabs((double)i - (double)j)) + (i == j);
	f1.b = &one;
	r = compare(&ours, &theirs, &ta, &tb);
	snprintf(what, sizeof(what), "factor of %zu / dpotrf", k);
	report("T6", what, gf / ta, r, 0.95);
	if (threads == 2) {
		r = compare(&ours, &alone, &ta, &tb);
		snprintf(what, sizeof(what), "factor of %zu, 2 threads / 1", k);
		report("T15", what, gf / ta, r, k >= 1536 ? 1.8 : 0);
	}
	free(h);
	free(f.u);
}

/* ---- turning by a Hadamard matrix ---- */

#define TURN_PART 65536 /* values that a thread copies at a time */

struct turning {
	const struct hadamard *h;
	const struct quant *q;
	float *x, *y;
	size_t n; /* values: more than caches hold */
};

static void run_turn(void *arg)
{
	struct turning *t = arg;
	struct err e;

	check(all.ops->hadamard(&all, t->x, t->n, t->h, &e), &e);
}

static void copy_part(void *ctx, size_t task, int thread)
{
	struct turning *t = ctx;
	size_t at = task * TURN_PART, n = t->n - at < TURN_PART ? t->n - at : TURN_PART;

	(void)thread;
	memcpy(t->y + at, t->x + at, n * sizeof(*t->x));
}

static void run_copy(void *arg)
{
	struct turning *t = arg;

	pool_run(all.pool, (t->n + TURN_PART - 1) / TURN_PART, copy_part, t);
}

static void bench_hadamard(size_t order)
{
	struct turning t = { .n = (((size_t)1 << 25) / order) * order };
	struct side ours = { run_turn, &t, 0, NULL }, copy = { run_copy, &t, 0, NULL };
	struct hadamard *h;
	double ta, tb, r;
	char what[96];
	struct err e;

	check(hadamard_new(&h, order, &e), &e);
	t.h = h;
	t.x = randoms(&all, t.n);
	t.y = randoms(&all, t.n);
	r = compare(&ours, &copy, &ta, &tb);
	snprintf(what, sizeof(what), "x H of order %zu (%s), GB/s / copy of memory", order,
		 hadamard_name(h));
	printf("hadamard\t%s\t%.1f GB/s\t%.3f\t\t", what, 8e-9 * (double)t.n / ta, r);
	if (noisy)
		printf("%d of %d pairs disturbed", noisy, pairs);
	putchar('\n');
	hadamard_free(h);
	all.ops->free(&all, t.x);
	all.ops->free(&all, t.y);
}

/* ---- activations on grids ---- */

#define QUANT_WIDTH 4096

static void run_quant(void *arg)
{
	struct turning *t = arg;
	struct err e;

	check(all.ops->quantize(&all, t->y, t->x, t->n / QUANT_WIDTH, QUANT_WIDTH, 512, t->q, NULL,
				&e), &e);
}

static void bench_quant(const char *name, const struct quant *q)
{
	struct turning t = { .q = q, .n = (size_t)1 << 25 };
	struct side ours = { run_quant, &t, 0, NULL }, copy = { run_copy, &t, 0, NULL };
	double ta, tb, r;
	char what[96];

	t.x = randoms(&all, t.n);
	t.y = randoms(&all, t.n);
	r = compare(&ours, &copy, &ta, &tb);
	snprintf(what, sizeof(what), "x to %s and back, GB/s / copy of memory", name);
	printf("quant\t%s\t%.1f GB/s\t%.3f\t\t", what, 8e-9 * (double)t.n / ta, r);
	if (noisy)
		printf("%d of %d pairs disturbed", noisy, pairs);
	putchar('\n');
	all.ops->free(&all, t.x);
	all.ops->free(&all, t.y);
}

static void bench_quants(void)
{
	static const struct {
		const char *name;
		struct quant q;
	} row[] = {
		{ "8 bits a token, sym", { .bits = 8, .sym = true, .rule = QUANT_SMOOTHQUANT,
					   .per = QUANT_TOKEN, .clip = 1 } },
		{ "8 bits a token, asym", { .bits = 8, .rule = QUANT_AWQ, .per = QUANT_TOKEN,
					    .clip = 1 } },
		{ "4 bits, groups of 128", { .bits = 4, .sym = true, .rule = QUANT_QUAROT,
					     .per = QUANT_GROUP, .group = 128, .clip = 0.9 } },
		{ "e4m3 a token", { .format = QUANT_E4M3, .bits = 8, .sym = true,
				    .per = QUANT_TOKEN, .clip = 1 } },
	};

	for (size_t i = 0; i < sizeof(row) / sizeof(*row); i++)
		bench_quant(row[i].name, &row[i].q);
}

static void bench_all(void)
{
	static const struct shape shapes[] = {
		{ "135M", 576, 1536, 4, 512, 9, 3 },
		{ "135M", 576, 1536, 2, 2048, 9, 3 },
		{ "7B", 4096, 11008, 1, 2048, 32, 32 },
	};
	static const double aims[] = { 0.88, 0.80, 0.92 }, aims_bf16[] = { 0.85, 0.80, 0.92 };
	static const size_t sizes[] = { 576, 1024, 1536, 4096 };

	int two = threads == 2 && want("T15");

	for (size_t i = 0; i < 3; i++)
		if (want("T2") || (two && i < 2))
			bench_forward(shapes[i], aims[i], two && i < 2);
	for (size_t i = 0; i < 3; i++)
		if (want("T2"))
			bench_bf16(shapes[i], aims_bf16[i]);
	for (size_t i = 0; i < 2; i++)
		if (want("T2") || want("shares")) {
			bench_shares(shapes[i], "f32");
			bench_shares(shapes[i], "bf16");
		}
	for (size_t i = 0; (want("T5") || two) && i < 4; i++)
		bench_hessian(sizes[i]);
	for (size_t i = 0; want("T5") && i < 4; i++)
		bench_hessian_bf16(sizes[i]);
	for (size_t i = 0; (want("T6") || two) && i < 4; i++)
		bench_factor(sizes[i]);
	if (want("hadamard")) {
		bench_hadamard(4096);
		bench_hadamard(11008);
	}
	if (want("quant"))
		bench_quants();
}

int main(int argc, char **argv)
{
	int ret = pairs_begin(argc, argv);

	if (ret)
		return ret;
	bench_all();
	pairs_end();
	return 0;
}
