/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cpu_factor.c - the factor of an inverse, by tiles, in f64
 *
 * With h = R R', R upper triangular (Cholesky run from the last row up), and U = R^-1, row
 * blocks r, c, l of tiles obey
 *
 *     r < c:  R_rc  = (H_rc - sum over l > c of R_rl R_cl') R_cc^-T
 *     r > c:  U_cr' = -(sum over c < l <= r of U_lr' R_cl') R_cc^-T
 *
 * U' is kept below the diagonal, block U_cr' at tile (r, c): then both lines are the same two
 * calls, dgemm of rows r and c of tiles and dtrsm by R_cc, and every row of tiles is finished
 * from right to left.  A task is a tile; it waits until rows r and c are finished up to it.
 * Tasks are handed out in an order in which whatever one waits for was handed out before.
 */
#include <cblas.h>
#include <float.h>
#include <math.h>
#include <pthread.h>
#include <string.h>

#include "lib/compute/cpu.h"

/* Of LAPACK, with 32-bit integers; the lengths of the strings come last. */
void dpotrf_(const char *uplo, const int *n, double *a, const int *lda, int *info, size_t);
void dtrtri_(const char *uplo, const char *diag, const int *n, double *a, const int *lda, int *info,
	     size_t, size_t);

struct factor_job {
	double *h;
	size_t k, nb, nt;
	double *diag;  /* [nt][nb * nb]: R_cc, row-major of its own width */
	size_t *done;  /* [nt]: tiles finished in a row of tiles, from the right */
	pthread_mutex_t lock;
	pthread_cond_t more;
	int failed;
	double pivot;
	size_t at;
	struct cpu *cpu;
};

static size_t tile_size(const struct factor_job *j, size_t i)
{
	return j->k - i * j->nb < j->nb ? j->k - i * j->nb : j->nb;
}

static double *tile(const struct factor_job *j, size_t r, size_t c)
{
	return j->h + r * j->nb * j->k + c * j->nb;
}

/* Wait until n tiles of row r are finished; 0 when the job has failed. */
static int await(struct factor_job *j, size_t r, size_t n)
{
	int alive;

	pthread_mutex_lock(&j->lock);
	while (!j->failed && j->done[r] < n)
		pthread_cond_wait(&j->more, &j->lock);
	alive = !j->failed;
	pthread_mutex_unlock(&j->lock);
	return alive;
}

static void finish(struct factor_job *j, size_t r)
{
	pthread_mutex_lock(&j->lock);
	j->done[r]++;
	pthread_cond_broadcast(&j->more);
	pthread_mutex_unlock(&j->lock);
}

/* A pivot this small against its diagonal is rounding error, not a number. */
static double pivot_floor(const struct factor_job *j, double diagonal)
{
	return (double)j->k * DBL_EPSILON * diagonal;
}

/* s [n, ld], upper triangle: Cholesky from the end, one value at a time, to find the pivot at
 * which it breaks down; what was asked of it has failed in blocked form already. */
static void find_pivot(struct factor_job *j, double *s, size_t n, size_t first, const double *was)
{
	double worst = INFINITY;

	for (size_t c = n; c-- > 0;) {
		double p = s[c * j->k + c], slack = p - pivot_floor(j, was[c]);

		if (!(slack >= worst)) {
			worst = slack;
			j->pivot = p;
			j->at = first + c;
		}
		if (!(p > 0.0))
			return;
		for (size_t r = 0; r < c; r++)
			for (size_t l = r; l < c; l++)
				s[r * j->k + l] -= s[r * j->k + c] * s[l * j->k + c] / p;
	}
}

static int factor_diagonal(struct factor_job *j, size_t c, double *a)
{
	size_t n = tile_size(j, c), right = j->k - c * j->nb - n, bad = 0;
	double *s = tile(j, c, c), *r = j->diag + c * j->nb * j->nb, *was = r; /* until r is set */
	int in = (int)n, info;

	for (size_t i = 0; i < n; i++)
		was[i] = s[i * j->k + i];
	if (right)
		cblas_dsyrk(CblasRowMajor, CblasUpper, CblasNoTrans, in, (int)right, -1.0, s + n,
			    (int)j->k, 1.0, s, (int)j->k);
	/* reversed in both directions, upper becomes lower; row-major lower is LAPACK's 'U' */
	for (size_t i = 0; i < n; i++)
		for (size_t l = 0; l < n; l++)
			a[(n - 1 - i) * n + n - 1 - l] = l < i ? 0.0 : s[i * j->k + l];
	dpotrf_("U", &in, a, &in, &info, 1);
	for (size_t i = 0; !info && i < n; i++) {
		double p = a[(n - 1 - i) * n + n - 1 - i];

		bad += !(p * p > pivot_floor(j, was[i])) || !(p < INFINITY);
	}
	if (info || bad) {
		find_pivot(j, s, n, c * j->nb, was);
		return -1;
	}
	for (size_t i = 0; i < n * n; i++)
		r[i] = a[n * n - 1 - i];
	dtrtri_("U", "N", &in, a, &in, &info, 1, 1);
	for (size_t i = 0; i < n; i++)
		for (size_t l = 0; l < n; l++)
			s[i * j->k + l] = l <= i ? a[(n - 1 - l) * n + n - 1 - i] : 0.0;
	return 0;
}

static void diagonal_task(struct factor_job *j, size_t c, double *work)
{
	if (!await(j, c, j->nt - 1 - c))
		return;
	if (factor_diagonal(j, c, work) < 0) {
		pthread_mutex_lock(&j->lock);
		j->failed = 1;
		pthread_cond_broadcast(&j->more);
		pthread_mutex_unlock(&j->lock);
		return;
	}
	finish(j, c);
}

static void tile_task(struct factor_job *j, size_t r, size_t c)
{
	size_t from = (c + 1) * j->nb, to = r < c ? j->k : r * j->nb + tile_size(j, r);
	int nr = (int)tile_size(j, r), nc = (int)tile_size(j, c), ld = (int)j->k;
	double *out = tile(j, r, c);

	if (!await(j, r, j->nt - 1 - c) || !await(j, c, j->nt - 1 - c))
		return;
	if (from < to)
		cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasTrans, nr, nc, (int)(to - from), -1.0,
			    j->h + r * j->nb * j->k + from, ld, j->h + c * j->nb * j->k + from, ld,
			    r < c ? 1.0 : 0.0, out, ld);
	if (!await(j, c, j->nt - c))
		return;
	cblas_dtrsm(CblasRowMajor, CblasRight, CblasUpper, CblasTrans, CblasNonUnit, nr, nc, 1.0,
		    j->diag + c * j->nb * j->nb, nc, out, ld);
	finish(j, r);
}

/*
 * Task numbers: the last diagonal first; then for each c from the last down nt - 1 tiles of
 * column c, the one above the diagonal first, and behind it the next diagonal, which then
 * runs beside the rest of the column.
 */
static void factor_task(void *ctx, size_t task, int thread)
{
	struct factor_job *j = ctx;
	double *work = j->cpu->scratch[thread];
	size_t c, n;

	if (task == 0) {
		diagonal_task(j, j->nt - 1, work);
		return;
	}
	c = j->nt - 1 - (task - 1) / j->nt;
	n = (task - 1) % j->nt;
	if (c == 0)
		tile_task(j, n + 1, 0);
	else if (n == 0)
		tile_task(j, c - 1, c);
	else if (n == 1)
		diagonal_task(j, c - 1, work);
	else if (n - 2 < c - 1)
		tile_task(j, c - 2 - (n - 2), c);
	else
		tile_task(j, n, c);
}

/* U' from below the diagonal to U above it, a row of tiles of U. */
static void transpose_task(void *ctx, size_t i, int thread)
{
	const struct factor_job *j = ctx;

	(void)thread;
	for (size_t l = i; l < j->nt; l++) {
		const double *from = tile(j, l, i);
		double *to = tile(j, i, l);
		size_t ni = tile_size(j, i), nl = tile_size(j, l);

		for (size_t r = 0; r < ni; r++)
			for (size_t c = l == i ? r : 0; c < nl; c++)
				to[r * j->k + c] = from[c * j->k + r];
	}
}

int cpu_inverse_factor(struct backend *b, double *h, size_t k, double *pivot, size_t *at,
		       struct err *e)
{
	struct factor_job j = { .h = h, .k = k, .cpu = cpu_of(b) };
	size_t diag_bytes, bytes;

	if (k == 0)
		return 0;
	if (k > INT32_MAX / 2)
		return err_set(e, ERR_BUG, "", "a matrix of %zu x %zu is too large", k, k);
	j.nt = cpu_parts(k, 128, 8, &j.nb);
	diag_bytes = j.nt * j.nb * j.nb * sizeof(double);
	bytes = diag_bytes + j.nt * sizeof(size_t);
	if (cpu_scratch(b, j.nb * j.nb * sizeof(double), e) < 0 || cpu_shared(b, bytes, e) < 0)
		return -1;
	j.diag = j.cpu->shared;
	j.done = (size_t *)(void *)((char *)j.cpu->shared + diag_bytes);
	memset(j.done, 0, j.nt * sizeof(size_t));
	pthread_mutex_init(&j.lock, NULL);
	pthread_cond_init(&j.more, NULL);
	pool_run(b->pool, 1 + (j.nt - 1) * j.nt + (j.nt - 1), factor_task, &j);
	pthread_cond_destroy(&j.more);
	pthread_mutex_destroy(&j.lock);
	if (j.failed) {
		*pivot = j.pivot;
		*at = j.at;
		return 1;
	}
	pool_run(b->pool, j.nt, transpose_task, &j);
	return 0;
}
