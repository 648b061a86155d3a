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
 * same two products, of rows r and c of tiles and by U_cc', and every row of tiles is finished
 * from right to left.  A task is a tile; it waits until rows r and c are finished up to it.
 * Tasks are handed out in an order in which whatever one waits for was handed out before.
 * (Multiplying by the inverse of a diagonal tile, where LAPACK solves with the tile, is 2-3 times
 * as fast and costs accuracy only if the condition of one tile is near 1 / eps.)
 *
 * A tile's sum is taken in the thread's scratch, DEPTH columns of its rows at a time.  Row c's
 * share of them is turned into panels; row r is read where it lies, which is faster than to copy
 * it even where its rows are 4 KiB and its multiples apart.  With this the factor runs at 85-90 %
 * of the registers' speed (vec_f64.h); OpenBLAS's dgemm and dtrmm on the same tiles reach 70 %.
 */
#include <float.h>
#include <math.h>
#include <pthread.h>
#include <string.h>

#include "lib/compute/cpu.h"

#define DEPTH 128 /* of a piece of the sums */
#define STRIP 64  /* rows of a tile that meet all its columns before the next */

struct breakdown {
	double pivot;
	size_t at;
};

struct factor_job {
	struct cpu *cpu;
	double *h;
	size_t k, nb, nt; /* nt x nt tiles, nb wide */
	double slack;     /* a pivot this small against its diagonal is rounding error */
	struct breakdown why;
	size_t *done;     /* [nt]: tiles finished in a row of tiles, from the right */
	pthread_mutex_t lock;
	pthread_cond_t more;
	int failed;
	double *was;      /* [k]: the diagonal of h */
};

/* A thread's scratch. */
struct room {
	double *sum;   /* [nb, nb] */
	double *b;     /* panels of F64_PANEL columns: DEPTH rows of all, or all rows of one */
	double *panel; /* [nb, F64_PANEL] */
	double *u;     /* [F64_PANEL, F64_PANEL] */
};

static size_t panels(size_t n)
{
	return (n + F64_PANEL - 1) / F64_PANEL;
}

static size_t room_size(size_t nb)
{
	return nb * nb + panels(nb) * F64_PANEL * DEPTH + 2 * nb * F64_PANEL +
	       F64_PANEL * F64_PANEL;
}

static struct room room_of(const struct factor_job *j, int thread)
{
	struct room r = { .u = j->cpu->scratch[thread] };
	size_t nb = j->nb, deep = panels(nb) * F64_PANEL * DEPTH;

	r.panel = r.u + F64_PANEL * F64_PANEL;
	r.b = r.panel + nb * F64_PANEL;
	r.sum = r.b + (deep > nb * F64_PANEL ? deep : nb * F64_PANEL);
	return r;
}

static size_t tile_size(const struct factor_job *j, size_t i)
{
	return j->k - i * j->nb < j->nb ? j->k - i * j->nb : j->nb;
}

static double *tile(const struct factor_job *j, size_t r, size_t c)
{
	return j->h + r * j->nb * j->k + c * j->nb;
}

static void copy(double *dst, size_t to, const double *src, size_t from, size_t m, size_t n)
{
	for (size_t i = 0; i < m; i++)
		memcpy(dst + i * to, src + i * from, n * sizeof(*dst));
}

/* From tile (r, c), in room.sum, rows nb apart, the products of rows r and c over the tiles
 * [l, end); of a diagonal tile those above the diagonal. */
static void tile_sum(const struct factor_job *j, const struct room *room, size_t r, size_t c,
		     size_t l, size_t end)
{
	const struct vec_ops *vec = j->cpu->vec;
	size_t m = tile_size(j, r), n = tile_size(j, c), last = end * j->nb;

	last = last < j->k ? last : j->k;
	for (size_t at = l * j->nb; at < last; at += DEPTH) {
		size_t deep = last - at < DEPTH ? last - at : DEPTH;

		for (size_t p = 0; p < n; p += F64_PANEL)
			vec->turn64(room->b + p * DEPTH, j->h + (c * j->nb + p) * j->k + at, j->k,
				    n - p < F64_PANEL ? n - p : F64_PANEL, deep);
		for (size_t i = 0; i < m; i += STRIP) {
			const double *a = j->h + (r * j->nb + i) * j->k + at;
			size_t rows = m - i < STRIP ? m - i : STRIP;

			for (size_t p = r == c ? i / F64_PANEL * F64_PANEL : 0; p < n;
			     p += F64_PANEL)
				vec->product64(room->sum + i * j->nb + p, j->nb, a, j->k, rows,
					       room->b + p * DEPTH, F64_PANEL,
					       n - p < F64_PANEL ? n - p : F64_PANEL, deep, 1);
		}
	}
}

/* Tile (r, c) = room.sum U_cc', which is lower triangular. */
static void tile_product(const struct factor_job *j, const struct room *room, size_t r, size_t c)
{
	size_t m = tile_size(j, r), n = tile_size(j, c);

	for (size_t p = 0; p < n; p += F64_PANEL) {
		size_t wide = n - p < F64_PANEL ? n - p : F64_PANEL;

		copy(room->b, F64_PANEL, tile(j, c, c) + p * j->k + p, j->k, n - p, wide);
		j->cpu->vec->product64(tile(j, r, c) + p, j->k, room->sum + p, j->nb, m, room->b,
				       F64_PANEL, wide, n - p, 0);
	}
}

/* Cholesky of the upper triangle of h [n, n] from the end, one value at a time, to find the pivot
 * at which the faster form has broken down. */
static struct breakdown find_pivot(double *h, size_t ld, size_t n, const double *was, double slack)
{
	struct breakdown why = { 0 };
	double worst = INFINITY;

	for (size_t c = n; c-- > 0;) {
		double p = h[c * ld + c], left = p - slack * was[c];

		if (!(left >= worst)) {
			worst = left;
			why = (struct breakdown){ p, c };
		}
		if (!(p > 0.0))
			break;
		for (size_t r = 0; r < c; r++)
			for (size_t l = r; l < c; l++)
				h[r * ld + l] -= h[r * ld + c] * h[l * ld + c] / p;
	}
	return why;
}

/* Columns [c, c + wide) of d [n, n], whose diagonal block is U' now, above and below it. */
static void finish_columns(const struct vec_ops *vec, const struct room *room, size_t ld, size_t n,
			   size_t c, size_t wide)
{
	double *d = room->sum;
	size_t end = c + wide;

	copy(room->u, F64_PANEL, d + c * ld + c, ld, wide, wide);
	copy(room->panel, F64_PANEL, d + c, ld, c, wide);
	vec->product64(d + c, ld, room->panel, F64_PANEL, c, room->u, F64_PANEL, wide, wide, 0);
	for (size_t r = end; r < n; r += F64_PANEL) {
		size_t rows = n - r < F64_PANEL ? n - r : F64_PANEL;

		vec->product64(room->panel, F64_PANEL, d + r * ld + end, ld, rows, room->b,
			       F64_PANEL, wide, r + rows - end, 0);
		for (size_t i = r; i < r + rows; i++)
			memset(d + i * ld + c, 0, wide * sizeof(*d));
		vec->product64(d + r * ld + c, ld, room->panel, F64_PANEL, rows, room->u, F64_PANEL,
			       wide, wide, 1);
	}
}

/* The diagonal tile c, whose sums are taken and in room.sum, by F64_PANEL columns; it goes to h as
 * U', with zeros above the diagonal. */
static int factor_diagonal(struct factor_job *j, const struct room *room, size_t c)
{
	const struct vec_ops *vec = j->cpu->vec;
	const double *was = j->was + c * j->nb;
	size_t n = tile_size(j, c), ld = j->nb;
	double *d = room->sum, *h = tile(j, c, c);

	for (size_t p = panels(n); p-- > 0;) {
		size_t at = p * F64_PANEL, wide = n - at < F64_PANEL ? n - at : F64_PANEL;
		size_t end = at + wide;

		vec->turn64(room->b, d + at * ld + end, ld, wide, n - end);
		vec->product64(d + at, ld, d + end, ld, end, room->b, F64_PANEL, wide, n - end, 1);
		if (vec->factor64(d + at * ld + at, ld, wide, was + at, j->slack) < 0) {
			j->why = find_pivot(d + at * ld + at, ld, wide, was + at, j->slack);
			j->why.at += c * j->nb + at;
			return -1;
		}
		finish_columns(vec, room, ld, n, at, wide);
	}
	for (size_t i = 0; i < n; i++) {
		memcpy(h + i * j->k, d + i * ld, (i + 1) * sizeof(*h));
		memset(h + i * j->k + i + 1, 0, (n - 1 - i) * sizeof(*h));
	}
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
static void diagonal_task(struct factor_job *j, size_t c, const struct room *room)
{
	size_t right = j->nt - 1 - c, far = right ? right - 1 : 0, n = tile_size(j, c);

	if (!await(j, c, far))
		return;
	copy(room->sum, j->nb, tile(j, c, c), j->k, n, n);
	tile_sum(j, room, c, c, j->nt - far, j->nt);
	if (!await(j, c, right))
		return;
	tile_sum(j, room, c, c, c + 1, j->nt - far);
	finish(j, c, factor_diagonal(j, room, c) < 0);
}

static void tile_task(struct factor_job *j, size_t r, size_t c, const struct room *room)
{
	if (!await(j, r, j->nt - 1 - c) || !await(j, c, j->nt - 1 - c))
		return;
	copy(room->sum, j->nb, tile(j, r, c), j->k, tile_size(j, r), tile_size(j, c));
	tile_sum(j, room, r, c, c + 1, j->nt);
	if (!await(j, c, j->nt - c))
		return;
	tile_product(j, room, r, c);
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
	struct room room = room_of(j, thread);
	size_t c = j->nt - 1;

	if (task == 0) {
		diagonal_task(j, c, &room);
		return;
	}
	for (task--; task > c; c--)
		task -= c + 1;
	if (task == 1)
		diagonal_task(j, c - 1, &room);
	else
		tile_task(j, task ? c - task : c - 1, c, &room);
}

/* U' of a diagonal tile from below the diagonal to U above it. */
static void transpose_task(void *ctx, size_t i, int thread)
{
	const struct factor_job *j = ctx;
	double *u = tile(j, i, i);
	size_t n = tile_size(j, i);

	(void)thread;
	for (size_t r = 0; r < n; r++)
		for (size_t c = r + 1; c < n; c++)
			u[r * j->k + c] = u[c * j->k + r];
}

int cpu_panel_factor(struct backend *b, double *h, size_t k, size_t panel, double *pivot,
		     size_t *at, struct err *e)
{
	struct factor_job j = { .cpu = cpu_of(b), .h = h, .k = k, .nb = panel < k ? panel : k };

	if (k == 0)
		return 0;
	if (panel == 0)
		return err_set(e, ERR_BUG, "", "panels of no column");
	j.nt = (k + j.nb - 1) / j.nb;
	j.slack = (double)k * DBL_EPSILON;
	if (cpu_scratch(b, room_size(j.nb) * sizeof(double), e) < 0 ||
	    cpu_shared(b, k * sizeof(double) + j.nt * sizeof(size_t), e) < 0)
		return -1;
	j.was = cpu_of(b)->shared;
	j.done = (size_t *)(void *)(j.was + k);
	memset(j.done, 0, j.nt * sizeof(size_t));
	for (size_t i = 0; i < k; i++)
		j.was[i] = h[i * k + i];
	pthread_mutex_init(&j.lock, NULL);
	pthread_cond_init(&j.more, NULL);
	/* a diagonal, and c tiles with the next diagonal for c = nt - 1 .. 1 */
	pool_run(b->pool, j.nt + j.nt * (j.nt - 1) / 2, factor_task, &j);
	pthread_cond_destroy(&j.more);
	pthread_mutex_destroy(&j.lock);
	if (j.failed) {
		*pivot = j.why.pivot;
		*at = j.why.at;
		return 1;
	}
	pool_run(b->pool, j.nt, transpose_task, &j);
	return 0;
}
