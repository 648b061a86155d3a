/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kernels.c - speed of the backend as ratios to OpenBLAS and to the registers, in one run
 *
 *     kernels [-j THREADS] [-n PAIRS] [TARGET...]
 *
 * A line a figure: target, what, value, ratio, the ratio aimed at (empty: for orientation), what
 * disturbed it.  Ours and theirs run in turns; the ratio is the median over the pairs.  A pair
 * during which other processes used more than 6 % of the CPU is repeated, at most 4 times a
 * figure, then counted as noisy.  The shapes of a 7B model take a minute or two.
 */
#include <cblas.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "lib/base/pool.h"
#include "lib/compute/backend.h"

extern void openblas_set_num_threads(int);
int blas_thread_shutdown_(void) __attribute__((weak));
void dpotrf_(const char *uplo, const int *n, double *a, const int *lda, int *info, size_t);

#define MAX_PAIRS 99

static struct backend one, all; /* with one thread, with -j */
static int threads, pairs = 5, noisy;
static char **wanted;

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double own_cpu(void)
{
	struct rusage r;

	getrusage(RUSAGE_SELF, &r);
	return (double)(r.ru_utime.tv_sec + r.ru_stime.tv_sec) +
	       1e-6 * (double)(r.ru_utime.tv_usec + r.ru_stime.tv_usec);
}

/* Seconds all processors have been busy. */
static double all_cpu(void)
{
	unsigned long long user = 0, nice = 0, sys = 0;
	FILE *f = fopen("/proc/stat", "r");

	if (!f)
		return 0;
	if (fscanf(f, "cpu %llu %llu %llu", &user, &nice, &sys) != 3)
		user = nice = sys = 0;
	fclose(f);
	return (double)(user + nice + sys) / (double)sysconf(_SC_CLK_TCK);
}

static void *must(void *p)
{
	if (!p) {
		fputs("kernels: out of memory\n", stderr);
		exit(71);
	}
	return p;
}

static void check(int rc, const struct err *e)
{
	if (rc) {
		fprintf(stderr, "kernels: %s\n", rc < 0 ? e->what : "not positive definite");
		exit(70);
	}
}

static float *randoms(struct backend *b, size_t n)
{
	static unsigned long long seed = 1;
	struct err e;
	float *x = must(b->ops->alloc(b, n * sizeof(*x), &e));

	for (size_t i = 0; i < n; i++) {
		seed = seed * 6364136223846793005u + 1442695040888963407u;
		x[i] = (float)(seed >> 40) / 8388608.0f - 1.0f;
	}
	return x;
}

/* One side of a comparison: how long run(arg) takes, setup(arg) not counted. */
struct side {
	void (*run)(void *arg);
	void *arg;
	int blas; /* threads OpenBLAS may start; 0: ours */
	void (*setup)(void *arg);
};

static double time_once(const struct side *s)
{
	double t;

	if (s->setup)
		s->setup(s->arg);
	if (s->blas > 1) { /* have its threads started and awake */
		static float w[256 * 256];

		openblas_set_num_threads(s->blas);
		cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, 256, 256, 256, 0.0f, w, 256,
			    w, 256, 0.0f, w, 256);
	}
	t = now();
	s->run(s->arg);
	t = now() - t;
	if (s->blas > 1) {
		openblas_set_num_threads(1);
		if (blas_thread_shutdown_)
			blas_thread_shutdown_();
	}
	return t;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(double *v, int n)
{
	qsort(v, (size_t)n, sizeof(*v), by_value);
	return n % 2 ? v[n / 2] : 0.5 * (v[n / 2 - 1] + v[n / 2]);
}

/* Median of time b / time a over the pairs; *ta, *tb are median seconds. */
static double compare(const struct side *a, const struct side *b, double *ta, double *tb)
{
	double va[MAX_PAIRS], vb[MAX_PAIRS], r[MAX_PAIRS];
	int again = 4;

	noisy = 0;
	time_once(a);
	time_once(b);
	for (int i = 0; i < pairs; i++)
		for (;;) {
			double t = now(), own = own_cpu(), busy = all_cpu(), others;

			va[i] = time_once(a);
			vb[i] = time_once(b);
			r[i] = vb[i] / va[i];
			others = all_cpu() - busy - (own_cpu() - own) - 0.02;
			if (others <= 0.06 * pool_cores() * (now() - t))
				break;
			if (again-- <= 0) {
				noisy++;
				break;
			}
		}
	*ta = median(va, pairs);
	*tb = median(vb, pairs);
	return median(r, pairs);
}

static int want(const char *target)
{
	for (char **w = wanted; *w; w++)
		if (!strcmp(*w, target))
			return 1;
	return !*wanted;
}

static void report(const char *target, const char *what, double gf, double ratio, double aim)
{
	if (!want(target))
		return;
	printf("%s\t%s\t%.1f GF/s\t%.3f\t", target, what, gf, ratio);
	if (aim > 0)
		printf(">= %.2f", aim);
	putchar('\t');
	if (noisy)
		printf("%d of %d pairs disturbed", noisy, pairs);
	putchar('\n');
	fflush(stdout);
}

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
	float *raw[7], *x, *n, *qb, *kb, *vb, *g, *u, *norm, *cos, *sin;
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
}

static void forward_free(struct forward *f)
{
	float *all_of[] = { f->x, f->n, f->qb, f->kb, f->vb, f->g, f->u, f->norm, f->cos, f->sin };

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
				     NULL, NULL, NULL };
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

static void bench_all(void)
{
	static const struct shape shapes[] = {
		{ "135M", 576, 1536, 4, 512, 9, 3 },
		{ "135M", 576, 1536, 2, 2048, 9, 3 },
		{ "7B", 4096, 11008, 1, 2048, 32, 32 },
	};
	static const double aims[] = { 0.88, 0.80, 0.92 };
	static const size_t sizes[] = { 576, 1024, 1536, 4096 };

	int two = threads == 2 && want("T15");

	for (size_t i = 0; i < 3; i++)
		if (want("T2") || (two && i < 2))
			bench_forward(shapes[i], aims[i], two && i < 2);
	for (size_t i = 0; (want("T5") || two) && i < 4; i++)
		bench_hessian(sizes[i]);
	for (size_t i = 0; (want("T6") || two) && i < 4; i++)
		bench_factor(sizes[i]);
}

int main(int argc, char **argv)
{
	struct err e;
	int c;

	threads = pool_cores();
	while ((c = getopt(argc, argv, "j:n:")) != -1) {
		int n = optarg ? (int)strtol(optarg, NULL, 10) : 0;

		if ((c != 'j' && c != 'n') || n < 1 || n > MAX_PAIRS) {
			fputs("usage: kernels [-j THREADS] [-n PAIRS] [TARGET...]\n", stderr);
			return 64;
		}
		*(c == 'j' ? &threads : &pairs) = n;
	}
	wanted = argv + optind;
	if (blas_thread_shutdown_)
		blas_thread_shutdown_(); /* started when it was loaded */
	check(backend_open(&one, "cpu", 1, &e), &e);
	check(backend_open(&all, "cpu", threads, &e), &e);
	fprintf(stderr, "# %s, %d threads\n", all.name, threads);
	bench_all();
	backend_close(&one);
	backend_close(&all);
	return 0;
}
