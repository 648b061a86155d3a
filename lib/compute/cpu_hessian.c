/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cpu_hessian.c - sums X'X, a tile of the upper triangle a task
 *
 * A tile's product over at most CHUNK tokens is made in f32 in the thread's scratch and
 * added to the tile in f64.  The tiles lie one after another, rows of tiles first; with tiles
 * of edge T in n = ceil(k / T) rows they take 4 n (n + 1) T^2 bytes, T <= 384.
 */
#include <stdlib.h>
#include <string.h>

#include "lib/compute/cpu.h"

#define CHUNK 2048

struct hessian {
	size_t k, tile, nt; /* nt x nt tiles of tile x tile */
	double *sum;        /* nt (nt + 1) / 2 tiles, upper ones */
};

static size_t tile_count(const struct hessian *h)
{
	return h->nt * (h->nt + 1) / 2;
}

/* Elements before tile (i, j), i <= j. */
static size_t tile_at(const struct hessian *h, size_t i, size_t j)
{
	return (i * (2 * h->nt - i + 1) / 2 + j - i) * h->tile * h->tile;
}

int cpu_hessian_new(struct backend *b, struct hessian **h, size_t k, struct err *e)
{
	struct hessian *n = calloc(1, sizeof(*n));
	size_t bytes;

	*h = NULL;
	if (!n)
		return err_nomem(e, "", sizeof(*n));
	n->k = k;
	n->nt = cpu_parts(k, k <= 288 ? (k + 1) / 2 : k <= 640 ? 192 : k <= 1024 ? 288 : 384, 16,
			  &n->tile);
	bytes = tile_count(n) * n->tile * n->tile * sizeof(double);
	n->sum = k < (size_t)1 << 24 ? cpu_malloc(bytes) : NULL;
	if (!n->sum) {
		free(n);
		return err_nomem(e, "", bytes);
	}
	*h = n;
	return cpu_hessian_zero(b, n, e);
}

void cpu_hessian_free(struct backend *b, struct hessian *h)
{
	(void)b;
	if (!h)
		return;
	free(h->sum);
	free(h);
}

static void zero_task(void *ctx, size_t task, int thread)
{
	const struct hessian *h = ctx;
	size_t n = h->tile * h->tile;

	(void)thread;
	memset(h->sum + task * n, 0, n * sizeof(double));
}

int cpu_hessian_zero(struct backend *b, struct hessian *h, struct err *e)
{
	(void)e;
	if (h->nt)
		pool_run(b->pool, tile_count(h), zero_task, h);
	return 0;
}

struct hessian_job {
	struct cpu *cpu;
	struct hessian *h;
	const float *x;
	size_t t;
};

/* Tiles off the diagonal first: they are twice the work. */
static void tile_of(size_t task, size_t nt, size_t *i, size_t *j)
{
	size_t off = nt * (nt - 1) / 2;

	if (task >= off) {
		*i = *j = task - off;
		return;
	}
	for (*i = 0; task >= nt - 1 - *i; ++*i)
		task -= nt - 1 - *i;
	*j = *i + 1 + task;
}

static void add_task(void *ctx, size_t task, int thread)
{
	const struct hessian_job *job = ctx;
	const struct blas *blas = &job->cpu->blas;
	struct hessian *h = job->h;
	float *s = job->cpu->scratch[thread];
	size_t i, j, ni, nj;
	double *sum;

	tile_of(task, h->nt, &i, &j);
	sum = h->sum + tile_at(h, i, j);
	i *= h->tile;
	j *= h->tile;
	ni = h->k - i < h->tile ? h->k - i : h->tile;
	nj = h->k - j < h->tile ? h->k - j : h->tile;
	for (size_t from = 0; from < job->t; from += CHUNK) {
		size_t n = job->t - from < CHUNK ? job->t - from : CHUNK;
		const float *x = job->x + from * h->k;

		if (i == j)
			blas->ssyrk(CblasRowMajor, CblasUpper, CblasTrans, (blasint)ni, (blasint)n,
				    1.0f, x + i, (blasint)h->k, 0.0f, s, (blasint)nj);
		else
			blas->sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (blasint)ni,
				    (blasint)nj, (blasint)n, 1.0f, x + i, (blasint)h->k, x + j,
				    (blasint)h->k, 0.0f, s, (blasint)nj);
		for (size_t r = 0; r < ni; r++) {
			size_t c = i == j ? r : 0;

			job->cpu->vec->addf64(sum + r * h->tile + c, s + r * nj + c, nj - c);
		}
	}
}

int cpu_hessian_add(struct backend *b, struct hessian *h, const float *x, size_t t, struct err *e)
{
	struct hessian_job j = { cpu_of(b), h, x, t };

	if (cpu_scratch(b, h->tile * h->tile * sizeof(float), e) < 0)
		return -1;
	if (h->k && t)
		pool_run(b->pool, tile_count(h), add_task, &j);
	return 0;
}

struct get_job {
	const struct hessian *h;
	float *tri;
};

static void get_task(void *ctx, size_t task, int thread)
{
	const struct get_job *g = ctx;
	const struct hessian *h = g->h;
	size_t end = (task + 1) * h->tile < h->k ? (task + 1) * h->tile : h->k;

	(void)thread;
	for (size_t i = task * h->tile; i < end; i++)
		for (size_t j = task; j < h->nt; j++) {
			size_t from = j == task ? i : j * h->tile;
			size_t to = (j + 1) * h->tile < h->k ? (j + 1) * h->tile : h->k;

			float *dst = g->tri + i * (2 * h->k - i + 1) / 2 + from - i;
			const double *src = h->sum + tile_at(h, task, j) +
					    i % h->tile * h->tile + (from - j * h->tile);

			for (size_t l = 0; l < to - from; l++)
				dst[l] = (float)src[l];
		}
}

int cpu_hessian_get(struct backend *b, const struct hessian *h, float *tri, struct err *e)
{
	struct get_job g = { h, tri };

	(void)e;
	if (h->nt)
		pool_run(b->pool, h->nt, get_task, &g);
	return 0;
}
