/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cpu_solve.c - what solvers need in f64: products, and OpenBLAS's eigenvectors
 *
 * Products use the kernels of the factor (vec_f64.h): the second matrix is turned into panels,
 * GROUP numbers at a time, and the first is read where it lies; a task is a tile of the result.  So
 * products of a large matrix and a narrow one, of which iterations consist, run at 80-90 % of the
 * registers' speed, where OpenBLAS's dgemm, which copies both, reaches 55 %.
 * Eigenvectors (dsyevd) are one call: whoever wants few of a large matrix projects it on a basis
 * first (lib/method/subspace.c).
 */
#include <stdlib.h>
#include <string.h>

#include "lib/compute/cpu.h"

#define DEPTH 256 /* of a piece of the sums */
#define ROWS  66  /* of a tile, */
#define WIDE  (4 * F64_PANEL) /* and its columns */
#define GROUP ((size_t)2 << 20)

/* packed: pieces of DEPTH of the k rows of b, in each of them panels [DEPTH][F64_PANEL]. */
struct gemm64_job {
	const struct cpu *cpu;
	int tb;
	size_t m, n, k, lda, ldb, ldc, rows, across;
	double alpha, beta;
	const double *a, *b;
	double *c, *packed;
};

static size_t panels(size_t n)
{
	return (n + F64_PANEL - 1) / F64_PANEL;
}

/* Negative, for what the kernel adds to a sum it subtracts. */
static void pack64_task(void *ctx, size_t task, int thread)
{
	const struct gemm64_job *j = ctx;
	size_t col = task % panels(j->n) * F64_PANEL, at = task / panels(j->n) * DEPTH;
	size_t n = j->n - col < F64_PANEL ? j->n - col : F64_PANEL;
	size_t deep = j->k - at < DEPTH ? j->k - at : DEPTH;
	double *y = j->packed + task * DEPTH * F64_PANEL;

	(void)thread;
	if (j->tb) {
		j->cpu->vec->turn64(y, j->b + col * j->ldb + at, j->ldb, n, deep);
	} else {
		memset(y, 0, n < F64_PANEL ? deep * F64_PANEL * sizeof(*y) : 0);
		for (size_t i = 0; i < deep; i++)
			memcpy(y + i * F64_PANEL, j->b + (at + i) * j->ldb + col, n * sizeof(*y));
	}
	for (size_t i = 0; i < deep * F64_PANEL; i++)
		y[i] = -y[i];
}

static void gemm64_task(void *ctx, size_t task, int thread)
{
	const struct gemm64_job *j = ctx;
	size_t row = task / j->across * j->rows, col = task % j->across * WIDE;
	size_t m = j->m - row < j->rows ? j->m - row : j->rows;
	size_t n = j->n - col < WIDE ? j->n - col : WIDE;
	double *sum = j->cpu->scratch[thread], *c = j->c + row * j->ldc + col;

	memset(sum, 0, m * WIDE * sizeof(*sum));
	for (size_t at = 0; at < j->k; at += DEPTH) {
		size_t deep = j->k - at < DEPTH ? j->k - at : DEPTH;
		const double *b = j->packed +
				  (at / DEPTH * panels(j->n) + col / F64_PANEL) * DEPTH * F64_PANEL;

		for (size_t p = 0; p < n; p += F64_PANEL)
			j->cpu->vec->product64(sum + p, WIDE, j->a + row * j->lda + at, j->lda, m,
					       b + p * DEPTH, F64_PANEL, F64_PANEL, deep, 1);
	}
	for (size_t i = 0; i < m; i++)
		for (size_t l = 0; l < n; l++) {
			double *y = c + i * j->ldc + l, x = j->alpha * sum[i * WIDE + l];

			*y = j->beta == 0 ? x : j->beta * *y + x;
		}
}

int cpu_gemm64(struct backend *b, int tb, size_t m, size_t n, size_t k, double alpha,
	       const double *a, size_t lda, const double *bm, size_t ldb, double beta, double *c,
	       size_t ldc, struct err *e)
{
	struct gemm64_job j = {
		.cpu = cpu_of(b), .tb = tb, .m = m, .k = k, .lda = lda, .ldb = ldb, .ldc = ldc,
		.alpha = alpha, .beta = beta, .a = a,
	};
	const size_t pieces = (k + DEPTH - 1) / DEPTH;
	const size_t fit = GROUP / DEPTH / (pieces ? pieces : 1) / WIDE * WIDE;
	const size_t group = fit > WIDE ? fit : WIDE, down = cpu_parts(m, ROWS, 6, &j.rows);
	const size_t widest = n < group ? n : group;

	if (cpu_scratch(b, ROWS * WIDE * sizeof(double), e) < 0 ||
	    cpu_shared(b, pieces * panels(widest) * DEPTH * F64_PANEL * sizeof(double), e) < 0)
		return -1;
	j.packed = cpu_of(b)->shared;
	for (size_t from = 0; m > 0 && from < n; from += group) {
		j.n = n - from < group ? n - from : group;
		j.b = tb ? bm + from * ldb : bm + from;
		j.c = c + from;
		j.across = (j.n + WIDE - 1) / WIDE;
		pool_run(b->pool, pieces * panels(j.n), pack64_task, &j);
		pool_run(b->pool, down * j.across, gemm64_task, &j);
	}
	return 0;
}

int cpu_eigen64(struct backend *b, double *a, size_t n, double *values, struct err *e)
{
	const blasint order = (blasint)n, ask = -1;
	blasint info = 0, lwork, liwork = 0;
	double most = 0, *work;
	blasint *iwork;

	if (n == 0)
		return 0;
	cpu_of(b)->blas.dsyevd("V", "U", &order, a, &order, values, &most, &ask, &liwork, &ask,
			       &info, 1, 1);
	lwork = (blasint)most;
	work = malloc((size_t)lwork * sizeof(*work));
	iwork = malloc((size_t)liwork * sizeof(*iwork));
	if (!work || !iwork) {
		free(work);
		free(iwork);
		return err_nomem(e, "", (size_t)lwork * sizeof(*work));
	}
	cpu_of(b)->blas.dsyevd("V", "U", &order, a, &order, values, work, &lwork, iwork, &liwork,
			       &info, 1, 1);
	free(work);
	free(iwork);
	return info == 0 ? 0 : err_set(e, ERR_DATA, "", "eigenvalues of a matrix of order %zu do "
				       "not converge", n);
}
