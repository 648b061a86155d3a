/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lowrank.c - T17: the best map of rank 64 by subspace iteration, beside LAPACK's full SVD
 *
 * What qwt-fit --rank does with a d x d map, and sgesdd of a matrix as large, which is what
 * PyTorch's svd calls; once each, after each other, d = 1024.  Prints a line of TSV for bench.sh.
 * With operands it runs only if T17 is one of them.
 */
#include <cblas.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lib/method/qwt_solve.h"

enum { D = 1024, RANK = 64 };

void sgesdd_(const char *job, const int *m, const int *n, float *a, const int *lda, float *s,
	     float *u, const int *ldu, float *vt, const int *ldvt, float *work, const int *lwork,
	     int *iwork, int *info);

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double random_one(void)
{
	static unsigned long long seed = 1;

	seed = seed * 6364136223846793005u + 1442695040888963407u;
	return (double)(seed >> 40) / 8388608.0 - 1.0;
}

/* -1: no memory, or it failed. */
static double full_svd(void)
{
	const size_t dd = (size_t)D * D;
	const int d = D, lwork = 8 * D * D;
	float *a = calloc(3 * dd + D + (size_t)lwork, sizeof(*a));
	int *iwork = calloc(8 * (size_t)D, sizeof(*iwork)), info = -1;
	double t = -1;

	if (a && iwork) {
		for (size_t i = 0; i < dd; i++)
			a[i] = (float)random_one();
		t = now();
		sgesdd_("S", &d, &d, a, &d, a + 3 * dd, a + dd, &d, a + 2 * dd, &d,
			a + 3 * dd + D, &lwork, iwork, &info);
		t = info == 0 ? now() - t : -1;
	}
	free(a);
	free(iwork);
	return t;
}

static double low_rank(void)
{
	const size_t d = D, r = RANK;
	double *w = calloc(d * d + 2 * d * r + d, sizeof(*w)), t = -1;
	struct qwt_sums s;
	struct err e;

	if (!w || qwt_sums_init(&s, d, &e) < 0) {
		free(w);
		return -1;
	}
	qwt_sums_zero(&s);
	s.n = 4 * d;
	for (size_t i = 0; i < d * d; i++) { /* G = I, so that C = W */
		w[i] = random_one();
		s.c[i] = w[i];
		s.g[i] = i % (d + 1) == 0;
	}
	t = now();
	if (qwt_low_rank(&s, w, r, w + d * d, w + d * d + d * r, w + d * d + 2 * d * r, &e) < 0)
		t = -1;
	else
		t = now() - t;
	qwt_sums_release(&s);
	free(w);
	return t;
}

int main(int argc, char **argv)
{
	int run = argc < 2;
	double ours, theirs;

	for (int i = 1; i < argc; i++)
		run |= strcmp(argv[i], "T17") == 0;
	if (!run)
		return 0;
	ours = low_rank();
	theirs = full_svd();
	if (ours < 0 || theirs <= 0) {
		fprintf(stderr, "lowrank: out of memory\n");
		return 71;
	}
	printf("T17\trank %d of a %d x %d map, time / full SVD (sgesdd)\t%.2f s\t%.3f\t<= 0.1\t\n",
	       RANK, D, D, ours, ours / theirs);
	return 0;
}
