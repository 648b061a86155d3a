/* SPDX-License-Identifier: Apache-2.0 */
/*
 * floors.c - how long the main job would take at the rates OpenBLAS reaches right now
 *
 *     floors HIDDEN FFN KV LAYERS TOKENS SEQLEN THREADS
 *
 * KV is kv_heads * head_dim.  Prints "forward hessian solve" in seconds: the work of each part
 * divided by the rate of the kernel it consists of, timed here at the shapes of the job:
 *     forward   linears and causal attention, at sgemm's rate for each linear
 *     hessian   3 hidden^2 + ffn^2 a token and block, at ssyrk's rate, or at 1.8 times that of
 *               one thread where ssyrk does not gain from two
 *     solve     2/3 K^3 at dpotrf's rate a Hessian, N K^2 at sgemm's rate a linear
 */
#include <cblas.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

void dpotrf_(const char *uplo, const int *n, double *a, const int *lda, int *info);

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static float *fa, *fb, *fc;
static double *fd;

/* The best of a few runs of each kernel, in operations a second. */
static double sgemm_rate(int m, int n, int k)
{
	double best = 0;

	for (int i = 0; i < 4; i++) {
		double t = now();

		cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, m, n, k, 1, fa, k, fb, k, 0,
			    fc, n);
		t = 2.0 * m * n * k / (now() - t);
		best = t > best ? t : best;
	}
	return best;
}

static double ssyrk_rate(int k, int t)
{
	double best = 0;

	for (int i = 0; i < 4; i++) {
		double s = now();

		cblas_ssyrk(CblasRowMajor, CblasUpper, CblasTrans, k, t, 1, fa, k, 0, fc, k);
		s = (double)t * k * k / (now() - s);
		best = s > best ? s : best;
	}
	return best;
}

static double dpotrf_rate(int k)
{
	double best = 0;

	for (int i = 0; i < 3; i++) {
		int info;
		double t;

		memset(fd, 0, sizeof(*fd) * (size_t)k * (size_t)k);
		for (int j = 0; j < k; j++)
			fd[(size_t)j * (size_t)k + (size_t)j] = 1 + 1e-3 * j;
		t = now();
		dpotrf_("L", &k, fd, &k, &info);
		t = (double)k * k * k / 3 / (now() - t);
		best = t > best ? t : best;
	}
	return best;
}

int main(int argc, char **argv)
{
	double forward = 0, hessian = 0, solve = 0;
	int v[7], d, ffn, kv, layers, seqlen, threads, big;
	double tokens;

	for (int i = 0; i < 7; i++)
		v[i] = argc > 7 ? (int)strtol(argv[i + 1], NULL, 10) : 0;
	d = v[0], ffn = v[1], kv = v[2], layers = v[3];
	tokens = v[4], seqlen = v[5], threads = v[6];
	if (d < 1 || ffn < 1 || kv < 1 || threads < 1) {
		fprintf(stderr, "usage: floors HIDDEN FFN KV LAYERS TOKENS SEQLEN THREADS\n");
		return 64;
	}
	big = d > ffn ? d : ffn;
	fa = calloc((size_t)2048 * (size_t)big, sizeof(*fa));
	fb = calloc((size_t)big * (size_t)big, sizeof(*fb));
	fc = calloc((size_t)(big > 2048 ? big : 2048) * (size_t)big, sizeof(*fc));
	fd = calloc((size_t)big * (size_t)big, sizeof(*fd));
	if (!fa || !fb || !fc || !fd)
		return 71;
	for (size_t i = 0; i < (size_t)2048 * (size_t)big; i++)
		fa[i] = (float)(i % 7) - 3;

	const int linear[7][2] = { { d, d }, { kv, d }, { kv, d }, { d, d }, { ffn, d },
				   { ffn, d }, { d, ffn } };
	const int edge[4] = { d, d, d, ffn };

	openblas_set_num_threads(threads);
	for (int i = 0; i < 7; i++) {
		double n = linear[i][0], k = linear[i][1];
		double rate = sgemm_rate(2048, linear[i][0], linear[i][1]);

		forward += 2 * n * k * tokens / rate;
		solve += n * k * k / rate;
	}
	/* q k' and p v over the causal half: 2 * 2 * T/2 * d a token */
	forward += 2.0 * seqlen * d * tokens / sgemm_rate(2048, d, d);
	for (int i = 0; i < 4; i++) {
		double k = edge[i], rate = ssyrk_rate(edge[i], 2048), one;

		solve += 2.0 / 3 * k * k * k / dpotrf_rate(edge[i]);
		if (threads > 1) {
			openblas_set_num_threads(1);
			one = 1.8 * ssyrk_rate(edge[i], 2048);
			openblas_set_num_threads(threads);
			rate = one > rate ? one : rate;
		}
		hessian += k * k * tokens / rate;
	}
	printf("%.4f %.4f %.4f\n", forward * layers, hessian * layers, solve * layers);
	return 0;
}
