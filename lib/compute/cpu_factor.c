/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cpu_factor.c - the factor of an inverse, panel by panel, in f64
 *
 * With h = R R', R upper triangular (Cholesky run from the last row up), and U_cc the inverse of
 * a diagonal tile R_cc, the tiles r, c obey
 *
 *     r < c:  R_rc = (H_rc - sum over l > c of R_rl R_cl') U_cc'
 *
 * and within a diagonal tile, where all of U is wanted, the smaller tiles obey that and
 *
 *     r > c:  U_cr' = -(sum over c < l <= r of U_lr' R_cl') U_cc'
 *
 * U' is kept on and below the diagonal, block U_cr' at tile (r, c): then both lines are the
 * same two calls, dgemm of rows r and c of tiles and dtrmm by U_cc', and every row of tiles is
 * finished from right to left.  A task is a tile; it waits until rows r and c are finished up
 * to it.  Tasks are handed out in an order in which whatever one waits for was handed out
 * before.  (Multiplying by the inverse of a diagonal tile, where LAPACK solves with the tile,
 * is 2-3 times as fast and costs accuracy only if the condition of one tile is near 1 / eps.)
 */
#include <float.h>
#include <math.h>
#include <pthread.h>
#include <string.h>

#include "lib/compute/cpu.h"

#define BASE_TILE 64 /* at most: a diagonal tile for LAPACK */

/* A matrix cut in tiles: h itself, or a diagonal tile of it. */
struct tiling {
	const struct blas *blas;
	double *h;
	size_t k, ld, nb, nt;
	size_t first; /* row of h that row 0 is */
};

struct breakdown {
	double slack; /* a pivot this small against its diagonal is rounding error */
	double pivot;
	size_t at;
};

struct factor_job {
	struct tiling m;
	struct breakdown why;
	size_t *done; /* [nt]: tiles finished in a row of tiles, from the right */
	pthread_mutex_t lock;
	pthread_cond_t more;
	int failed;
	double *was; /* [k]: the diagonal of h */
};

static size_t tile_size(const struct tiling *m, size_t i)
{
	return m->k - i * m->nb < m->nb ? m->k - i * m->nb : m->nb;
}

static double *tile(const struct tiling *m, size_t r, size_t c)
{
	return m->h + r * m->nb * m->ld + c * m->nb;
}

/* The sums of the two lines above, over the tiles [l, end). */
static void tile_sum(const struct tiling *m, size_t r, size_t c, size_t l, size_t end)
{
	size_t n = end * m->nb < m->k ? end * m->nb : m->k;

	if (l < end)
		m->blas->dgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)tile_size(m, r),
			       (int)tile_size(m, c), (int)(n - l * m->nb), -1.0, tile(m, r, l),
			       (int)m->ld, tile(m, c, l), (int)m->ld, r < c ? 1.0 : 0.0,
			       tile(m, r, c), (int)m->ld);
}

static void diagonal_sum(const struct tiling *m, size_t c, size_t l, size_t end)
{
	size_t n = end * m->nb < m->k ? end * m->nb : m->k;

	if (l < end)
		m->blas->dsyrk(CblasRowMajor, CblasUpper, CblasNoTrans, (int)tile_size(m, c),
			       (int)(n - l * m->nb), -1.0, tile(m, c, l), (int)m->ld, 1.0,
			       tile(m, c, c), (int)m->ld);
}

/* and the products */
static void tile_product(const struct tiling *m, size_t r, size_t c)
{
	m->blas->dtrmm(CblasRowMajor, CblasRight, CblasLower, CblasNoTrans, CblasNonUnit,
		       (int)tile_size(m, r), (int)tile_size(m, c), 1.0, tile(m, c, c),
		       (int)m->ld, tile(m, r, c), (int)m->ld);
}

/* Cholesky of the upper triangle from the end, one value at a time, to find the pivot at which
 * the faster form has broken down. */
static void find_pivot(const struct tiling *m, const double *was, struct breakdown *why)
{
	double worst = INFINITY;
	size_t n = m->k;

	for (size_t c = n; c-- > 0;) {
		double p = m->h[c * m->ld + c], left = p - why->slack * was[c];

		if (!(left >= worst)) {
			worst = left;
			why->pivot = p;
			why->at = m->first + c;
		}
		if (!(p > 0.0))
			return;
		for (size_t r = 0; r < c; r++)
			for (size_t l = r; l < c; l++)
				m->h[r * m->ld + l] -=
					m->h[r * m->ld + c] * m->h[l * m->ld + c] / p;
	}
}

/* h of at most BASE_TILE: U' instead of it, zeros above the diagonal.  was: the diagonal before
 * anything was subtracted. */
static int factor_base(const struct tiling *m, const double *was, struct breakdown *why)
{
	double a[BASE_TILE * BASE_TILE];
	size_t n = m->k, bad = 0;
	int in = (int)n, info;

	/* reversed in both directions, upper becomes lower; row-major lower is LAPACK's 'U' */
	for (size_t i = 0; i < n; i++)
		for (size_t l = 0; l < n; l++)
			a[(n - 1 - i) * n + n - 1 - l] = l < i ? 0.0 : m->h[i * m->ld + l];
	m->blas->dpotrf("U", &in, a, &in, &info, 1);
	for (size_t i = 0; !info && i < n; i++) {
		double p = a[(n - 1 - i) * n + n - 1 - i];

		bad += !(p * p > why->slack * was[i]) || !(p < INFINITY);
	}
	if (info || bad) {
		find_pivot(m, was, why);
		return -1;
	}
	m->blas->dtrtri("U", "N", &in, a, &in, &info, 1, 1);
	for (size_t i = 0; i < n; i++)
		for (size_t l = 0; l < n; l++)
			m->h[i * m->ld + l] = l <= i ? a[(n - 1 - l) * n + n - 1 - i] : 0.0;
	return 0;
}

/* The diagonal tile c of m, whose sums are taken, by smaller tiles in one thread; was as above,
 * for all of m. */
static int factor_diagonal(const struct tiling *m, size_t c, const double *was,
			   struct breakdown *why)
{
	size_t n = tile_size(m, c);
	struct tiling t = { .blas = m->blas, .h = tile(m, c, c), .k = n, .ld = m->ld,
			    .first = m->first + c * m->nb };

	was += c * m->nb;
	if (n <= BASE_TILE)
		return factor_base(&t, was, why);
	t.nt = cpu_parts(n, BASE_TILE, 8, &t.nb);
	for (size_t i = t.nt; i-- > 0;) {
		diagonal_sum(&t, i, i + 1, t.nt);
		if (factor_diagonal(&t, i, was, why) < 0)
			return -1;
		for (size_t r = 0; r < t.nt; r++)
			if (r != i) {
				tile_sum(&t, r, i, i + 1, r < i ? t.nt : r + 1);
				tile_product(&t, r, i);
			}
	}
	for (size_t i = 0; i < n; i++)
		memset(t.h + i * t.ld + i + 1, 0, (n - 1 - i) * sizeof(double));
	return 0;
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

static void finish(struct factor_job *j, size_t r, int failed)
{
	pthread_mutex_lock(&j->lock);
	j->done[r]++;
	j->failed |= failed;
	pthread_cond_broadcast(&j->more);
	pthread_mutex_unlock(&j->lock);
}

/* The nearest tile, which is finished last, apart: on it the next diagonal waits, and so on. */
static void diagonal_task(struct factor_job *j, size_t c)
{
	size_t right = j->m.nt - 1 - c, far = right ? right - 1 : 0;

	if (!await(j, c, far))
		return;
	diagonal_sum(&j->m, c, j->m.nt - far, j->m.nt);
	if (!await(j, c, right))
		return;
	diagonal_sum(&j->m, c, c + 1, j->m.nt - far);
	finish(j, c, factor_diagonal(&j->m, c, j->was, &j->why) < 0);
}

static void tile_task(struct factor_job *j, size_t r, size_t c)
{
	if (!await(j, r, j->m.nt - 1 - c) || !await(j, c, j->m.nt - 1 - c))
		return;
	tile_sum(&j->m, r, c, c + 1, j->m.nt);
	if (!await(j, c, j->m.nt - c))
		return;
	tile_product(&j->m, r, c);
	finish(j, r, 0);
}

/*
 * Task numbers: the last diagonal first; then for each c from the last down the c tiles above
 * it, the nearest first, and behind that the next diagonal, which then runs beside the rest of
 * the column.
 */
static void factor_task(void *ctx, size_t task, int thread)
{
	struct factor_job *j = ctx;
	size_t c = j->m.nt - 1;

	(void)thread;
	if (task == 0) {
		diagonal_task(j, c);
		return;
	}
	for (task--; task > c; c--)
		task -= c + 1;
	if (task == 1)
		diagonal_task(j, c - 1);
	else
		tile_task(j, task ? c - task : c - 1, c);
}

/* U' of a diagonal tile from below the diagonal to U above it. */
static void transpose_task(void *ctx, size_t i, int thread)
{
	const struct tiling *m = ctx;
	double *u = tile(m, i, i);
	size_t n = tile_size(m, i);

	(void)thread;
	for (size_t r = 0; r < n; r++)
		for (size_t c = r + 1; c < n; c++)
			u[r * m->ld + c] = u[c * m->ld + r];
}

int cpu_panel_factor(struct backend *b, double *h, size_t k, size_t panel, double *pivot,
		     size_t *at, struct err *e)
{
	struct factor_job j = { .m = { .blas = &cpu_of(b)->blas, .h = h, .k = k, .ld = k,
				       .nb = panel } };

	if (k == 0)
		return 0;
	if (panel == 0)
		return err_set(e, ERR_BUG, "", "panels of no column");
	if (k > INT32_MAX / 2)
		return err_set(e, ERR_BUG, "", "a matrix of %zu x %zu is too large", k, k);
	j.m.nt = (k + panel - 1) / panel;
	j.why.slack = (double)k * DBL_EPSILON;
	if (cpu_shared(b, k * sizeof(double) + j.m.nt * sizeof(size_t), e) < 0)
		return -1;
	j.was = cpu_of(b)->shared;
	j.done = (size_t *)(void *)(j.was + k);
	memset(j.done, 0, j.m.nt * sizeof(size_t));
	for (size_t i = 0; i < k; i++)
		j.was[i] = h[i * k + i];
	pthread_mutex_init(&j.lock, NULL);
	pthread_cond_init(&j.more, NULL);
	/* a diagonal, and c tiles with the next diagonal for c = nt - 1 .. 1 */
	pool_run(b->pool, j.m.nt + j.m.nt * (j.m.nt - 1) / 2, factor_task, &j);
	pthread_cond_destroy(&j.more);
	pthread_mutex_destroy(&j.lock);
	if (j.failed) {
		*pivot = j.why.pivot;
		*at = j.why.at;
		return 1;
	}
	pool_run(b->pool, j.m.nt, transpose_task, &j.m);
	return 0;
}
