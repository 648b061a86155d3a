/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gptq.c - GPTQ of one linear against what its operations cost in OpenBLAS, in one run (T6)
 *
 *     gptq [-j THREADS] [-n ROUNDS] [TARGET | NxK ...]
 *
 * A line a figure: row, what, value, ratio, target.  The ratio is the time for factor and
 * columns over 2/3 K^3 at dpotrf's rate plus N K^2 at sgemm's; dpotrf of the same H and sgemm of
 * [K, K] by [K, N] run in turns with the solver, on as many threads.  The energy of W, which the
 * note of a layer wants besides, has a line of its own.
 */
#include <cblas.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/pool.h"
#include "lib/base/usage.h"
#include "lib/method/gptq.h"

extern void openblas_set_num_threads(int) __attribute__((weak));
int blas_thread_shutdown_(void) __attribute__((weak));
void dpotrf_(const char *uplo, const int *n, double *a, const int *lda, int *info, size_t);

#define MAX_ROUNDS 99

struct job {
	size_t n, k;
	float *tri, *w, *work, *x, *y; /* triangle; [n, k] twice; [k, k]; [k, n] */
	double *h;                     /* [k, k] */
	struct gptq_options opt;
	struct gptq_hessian *factor;
	struct quantized z;
};

static struct backend be;
static int threads, rounds = 5;

static void *must(void *p)
{
	if (!p) {
		fputs("gptq: out of memory\n", stderr);
		exit(71);
	}
	return p;
}

static void check(int r, const struct err *e)
{
	if (r) {
		fprintf(stderr, "gptq: %s: %s\n", e->where, e->what);
		exit(70);
	}
}

static float uniform(void)
{
	static unsigned long long seed = 1;

	seed = seed * 6364136223846793005u + 1442695040888963407u;
	return (float)(seed >> 40) / 8388608.0f - 1.0f;
}

/* H of random inputs with a strong diagonal: how long the work takes does not depend on it. */
static void make(struct job *j, size_t n, size_t k)
{
	size_t at = 0;

	memset(j, 0, sizeof(*j));
	j->n = n;
	j->k = k;
	j->tri = must(malloc(k * (k + 1) / 2 * sizeof(*j->tri)));
	j->h = must(malloc(k * k * sizeof(*j->h)));
	j->w = must(malloc(n * k * sizeof(*j->w)));
	j->work = must(malloc(n * k * sizeof(*j->work)));
	j->x = must(malloc(k * k * sizeof(*j->x)));
	j->y = must(malloc(k * n * sizeof(*j->y)));
	for (size_t i = 0; i < n * k; i++)
		j->w[i] = j->y[i] = uniform();
	for (size_t i = 0; i < k * k; i++)
		j->x[i] = uniform();
	for (size_t r = 0; r < k; r++)
		for (size_t c = r; c < k; c++)
			j->tri[at++] = r == c ? (float)k : uniform();
	j->opt = (struct gptq_options){
		.q = { .bits = 4, .sym = true, .group = k % 128 ? 64 : 128, .scale_dtype = DT_F16 },
		.damp = 0.01, .damp_auto = true,
	};
}

static void release(struct job *j)
{
	free(j->tri);
	free(j->h);
	free(j->w);
	free(j->work);
	free(j->x);
	free(j->y);
	gptq_hessian_free(j->factor);
	quantized_release(&j->z);
}

static double time_ours(struct job *j, double *energy)
{
	struct gptq_result res;
	struct err e = { 0 };
	double start, t, norm;

	memcpy(j->work, j->w, j->n * j->k * sizeof(*j->w));
	start = usage_seconds();
	check(gptq_hessian_new(&j->factor, &be, j->tri, j->k, &j->opt, "layer", &e), &e);
	check(gptq_quantize(&j->z, &res, j->factor, j->work, j->n, &j->opt, "layer", &e), &e);
	t = usage_seconds() - start;
	check(output_energy(&be, j->w, j->n, j->k, j->tri, &norm, &e), &e);
	*energy = usage_seconds() - start - t;
	return t;
}

/* OpenBLAS's own threads, started and awake; ended again afterwards, or they would spin. */
static void blas_threads(struct job *j, int n)
{
	if (openblas_set_num_threads)
		openblas_set_num_threads(n);
	if (n > 1)
		cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, 128, 128, 128, 0, j->x,
			    (int)j->k, j->x, (int)j->k, 0, j->y, (int)j->n);
	else if (blas_thread_shutdown_)
		blas_thread_shutdown_();
}

static double time_potrf(struct job *j)
{
	int k = (int)j->k, info;
	double start;

	for (size_t i = 0, at = 0; i < j->k; i++)
		for (size_t c = i; c < j->k; c++, at++)
			j->h[i * j->k + c] = j->h[c * j->k + i] = j->tri[at];
	blas_threads(j, threads);
	start = usage_seconds();
	dpotrf_("L", &k, j->h, &k, &info, 1);
	start = usage_seconds() - start;
	blas_threads(j, 1);
	return start;
}

static double time_gemm(struct job *j)
{
	double start;

	blas_threads(j, threads);
	start = usage_seconds();
	cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)j->k, (int)j->n, (int)j->k, 1,
		    j->x, (int)j->k, j->w, (int)j->n, 0, j->y, (int)j->n);
	start = usage_seconds() - start;
	blas_threads(j, 1);
	return start;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(double *v)
{
	qsort(v, (size_t)rounds, sizeof(*v), by_value);
	return v[rounds / 2];
}

static void measure(size_t n, size_t k, const char *target)
{
	double ours[MAX_ROUNDS], ratio[MAX_ROUNDS], more[MAX_ROUNDS];
	struct job j;
	double energy;

	make(&j, n, k);
	time_ours(&j, &energy);
	time_potrf(&j);
	time_gemm(&j);
	for (int i = 0; i < rounds; i++) {
		double floor;

		ours[i] = time_ours(&j, &energy);
		floor = 2 * time_potrf(&j) + time_gemm(&j) / 2;
		ratio[i] = ours[i] / floor;
		more[i] = energy / floor;
	}
	printf("T6\tGPTQ [%zu, %zu], %d threads, time over its operations\t%.4f s\t%.3f\t%s\n", n,
	       k, threads, median(ours), median(ratio), target);
	printf("T6\tenergy of W for the note [%zu, %zu]\t\t%.3f\t\n", n, k, median(more));
	fflush(stdout);
	release(&j);
}

int main(int argc, char **argv)
{
	struct err e;
	size_t n, k;
	int c, want;

	threads = pool_cores();
	while ((c = getopt(argc, argv, "j:n:")) != -1)
		switch (c) {
		case 'j': threads = (int)strtol(optarg, NULL, 10); break;
		case 'n': rounds = (int)strtol(optarg, NULL, 10); break;
		default: return 64;
		}
	if (threads < 1 || rounds < 1 || rounds > MAX_ROUNDS)
		return 64;
	want = optind == argc;
	check(backend_open(&be, "cpu", threads, &e), &e);
	if (blas_thread_shutdown_)
		blas_thread_shutdown_(); /* started when it was loaded */
	for (; optind < argc; optind++)
		if (sscanf(argv[optind], "%zux%zu", &n, &k) == 2)
			measure(n, k, "");
		else
			want |= strcmp(argv[optind], "T6") == 0;
	if (!want) {
		backend_close(&be);
		return 0;
	}
	measure(576, 576, "<= 1.6");
	measure(1536, 576, "<= 1.6");
	measure(576, 1536, "<= 1.2");
	measure(1536, 1536, "<= 1.2");
	measure(4096, 4096, "<= 1.2");
	backend_close(&be);
	return 0;
}
