/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lowrank.c - T17: the best map of rank 64 by subspace iteration, beside LAPACK's full SVD
 *
 * What qwt-fit --rank does with a d x d map, and sgesdd of a matrix as large; once each, after each
 * other, d = 1024.  Maps are random: their values fall so slowly that there is hardly anything
 * worse for an iteration.  Prints a line of TSV for bench.sh; with operands only if T17 is one of
 * them.  At d = 4096, beside PyTorch's SVD: lowrank_torch.py.
 */
#include <cblas.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lib/compute/backend.h"
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

/* Seconds; *caught: of what the best map of full rank explains. */
static double low_rank(struct backend *b, size_t d, size_t r, double *caught)
{
	double *w = calloc(d * d + 2 * d * r + d, sizeof(*w)), t = -1, all = 0;
	double *up, *down;
	struct qwt_sums s;
	struct err e;

	if (!w || qwt_sums_init(&s, d, &e) < 0) {
		free(w);
		return -1;
	}
	up = w + d * d;
	down = up + d * r;
	qwt_sums_zero(&s);
	s.n = 4 * d;
	for (size_t i = 0; i < d * d; i++) { /* G = I, so that C = W */
		w[i] = random_one();
		s.c[i] = w[i];
		s.g[i] = i % (d + 1) == 0;
		all += w[i] * w[i];
	}
	t = now();
	t = qwt_low_rank(b, &s, w, r, up, down, down + r * d, &e) < 0 ? -1 : now() - t;
	*caught = 0;
	for (size_t i = 0; i < r * d; i++)
		*caught += down[i] * down[i] / all;
	qwt_sums_release(&s);
	free(w);
	return t;
}

/* As ... D R: seconds, and what is caught, for lowrank_torch.py. */
int main(int argc, char **argv)
{
	int run = argc < 2, alone = argc == 3 && argv[1][0] != 'T';
	double ours, theirs, caught;
	struct backend b;
	struct err e;

	for (int i = 1; i < argc; i++)
		run |= strcmp(argv[i], "T17") == 0;
	if (!run && !alone)
		return 0;
	if (backend_open(&b, "cpu", 0, &e) < 0)
		return 69;
	ours = alone ? low_rank(&b, strtoul(argv[1], NULL, 10), strtoul(argv[2], NULL, 10),
				&caught) : low_rank(&b, D, RANK, &caught);
	backend_close(&b);
	theirs = alone ? 1 : full_svd();
	if (ours < 0 || theirs <= 0) {
		fprintf(stderr, "lowrank: out of memory\n");
		return 71;
	}
	if (alone)
		printf("%.6f %.8f\n", ours, caught);
	else
		printf("T17\trank %d of a %d x %d map, time / full SVD (sgesdd)\t%.3f s\t%.3f\t"
		       "\t\n", RANK, D, D, ours, ours / theirs);
	return 0;
}
