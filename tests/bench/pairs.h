/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pairs.h - two things timed in turns, for the programs here that measure the backend
 *
 *     NAME [-j THREADS] [-n PAIRS] [TARGET...]
 *
 * A line a figure: target, what, value, ratio, the ratio aimed at (empty: for orientation), what
 * disturbed it.  The ratio is the median over the pairs.  A pair during which other processes used
 * more than 6 % of the CPU is repeated, at most 4 times a figure, then counted as noisy.
 */
#ifndef QP_PAIRS_H
#define QP_PAIRS_H

#include <cblas.h>
#include <getopt.h>
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
		fputs("bench: out of memory\n", stderr);
		exit(71);
	}
	return p;
}

static void check(int rc, const struct err *e)
{
	if (rc) {
		fprintf(stderr, "bench: %s\n", rc < 0 ? e->what : "not positive definite");
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

/* Options, and both backends. */
static int pairs_begin(int argc, char **argv)
{
	struct err e;
	int c;

	threads = pool_cores();
	while ((c = getopt(argc, argv, "j:n:")) != -1) {
		int n = optarg ? (int)strtol(optarg, NULL, 10) : 0;

		if ((c != 'j' && c != 'n') || n < 1 || n > MAX_PAIRS) {
			fputs("usage: NAME [-j THREADS] [-n PAIRS] [TARGET...]\n", stderr);
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
	return 0;
}

static void pairs_end(void)
{
	backend_close(&one);
	backend_close(&all);
}

#endif
