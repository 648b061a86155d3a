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

#include "lib/base/clones.h"
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
	n->nt = cpu_parts(k, k <= 288 ? (k + 1) / 2 : k <= 640 ? 192 : k <= 1024 ? 288 : 384,
			  VEC_TILE, &n->tile);
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

/*
 * Of at most PANELS_MOST columns a chunk of x is laid out once for all tiles, in panels that our
 * kernel reads on both sides; OpenBLAS's packs its share of x for each tile.  Wider ones would take
 * too much memory.
 */
#define PANELS_MOST 2048

struct panel_job {
	struct cpu *cpu;
	struct hessian *h;
	const float *x;
	float *w; /* [nt][panels][t][VEC_PANEL] */
	size_t t, panels; /* panels of a tile */
};

static void panel_task(void *ctx, size_t task, int thread)
{
	const struct panel_job *j = ctx;
	size_t c = task / j->panels * j->h->tile + task % j->panels * VEC_PANEL;
	size_t end = (task / j->panels + 1) * j->h->tile, n;
	float *w = j->w + task * j->t * VEC_PANEL;

	(void)thread;
	end = end < j->h->k ? end : j->h->k;
	n = c >= end ? 0 : end - c < VEC_PANEL ? end - c : VEC_PANEL;
	for (size_t i = 0; i < j->t; i++) {
		memcpy(w + i * VEC_PANEL, j->x + i * j->h->k + c, n * sizeof(*w));
		memset(w + i * VEC_PANEL + n, 0, (VEC_PANEL - n) * sizeof(*w));
	}
}

/* Of a tile on the diagonal the panels from it on. */
static void panel_add_task(void *ctx, size_t task, int thread)
{
	const struct panel_job *j = ctx;
	struct hessian *h = j->h;
	float *s = j->cpu->scratch[thread];
	size_t i, l, ni, nl, ld = j->panels * VEC_PANEL;
	double *sum;
	const float *a, *w;

	tile_of(task, h->nt, &i, &l);
	sum = h->sum + tile_at(h, i, l);
	a = j->w + i * j->panels * j->t * VEC_PANEL;
	w = j->w + l * j->panels * j->t * VEC_PANEL;
	ni = h->k - i * h->tile < h->tile ? h->k - i * h->tile : h->tile;
	nl = h->k - l * h->tile < h->tile ? h->k - l * h->tile : h->tile;
	for (size_t r = 0; r < ni; r += VEC_PANEL) {
		size_t c = i == l ? r : 0;

		j->cpu->vec->inner(s + r * ld + c, ld, a + r * j->t,
				   ni - r < VEC_PANEL ? ni - r : VEC_PANEL, w + c * j->t, nl - c,
				   j->t);
	}
	for (size_t r = 0; r < ni; r++) {
		size_t c = i == l ? r : 0;

		j->cpu->vec->addf64(sum + r * h->tile + c, s + r * ld + c, nl - c);
	}
}

static int panel_add(struct backend *b, struct hessian *h, const float *x, size_t t, struct err *e)
{
	struct panel_job j = { .cpu = cpu_of(b), .h = h };
	size_t most = t < CHUNK ? t : CHUNK, wide;

	j.panels = (h->tile + VEC_PANEL - 1) / VEC_PANEL;
	wide = j.panels * VEC_PANEL;
	if (cpu_shared(b, h->nt * wide * most * sizeof(float), e) < 0 ||
	    cpu_scratch(b, wide * wide * sizeof(float), e) < 0)
		return -1;
	j.w = cpu_of(b)->shared;
	for (size_t from = 0; from < t; from += CHUNK) {
		j.x = x + from * h->k;
		j.t = t - from < CHUNK ? t - from : CHUNK;
		pool_run(b->pool, h->nt * j.panels, panel_task, &j);
		pool_run(b->pool, tile_count(h), panel_add_task, &j);
	}
	return 0;
}

/*
 * With bf16, at most TOKENS of x at a time become units of two tokens, in panels (as W) and in rows
 * (as X) in the shared memory: what a linear multiplies too, and then products of two such numbers
 * are exact.
 */
#define TOKENS	512 /* <= 2 VEC_DEPTH */
#define SUBTILE 96 /* rows: of a tile on the diagonal what lies below is left out in such steps */

struct short_hessian {
	struct cpu *cpu;
	struct hessian *h;
	const float *x;
	uint32_t *w, *rows; /* [panels][units][VEC_TILE]; [columns, padded][VEC_PITCH] */
	size_t t, units;
};

#define WIDE (4 * VEC_TILE) /* columns that are rounded at once */

/* Pairs of f32 that were rounded to bf16: the first in the lower half. */
CLONES
static void interleave(uint32_t *restrict w, const uint32_t *restrict lo,
		       const uint32_t *restrict hi)
{
	for (size_t l = 0; l < VEC_TILE; l++)
		w[l] = lo[l] >> 16 | hi[l];
}

/* A few panels, of VEC_TILE columns of x each. */
static void units_task(void *ctx, size_t task, int thread)
{
	const struct short_hessian *j = ctx;
	const size_t from = task * WIDE, k = j->h->k, n = k - from < WIDE ? k - from : WIDE;
	uint32_t a[2][WIDE] = { { 0 } };

	(void)thread;
	for (size_t u = 0; u < j->units; u++) {
		for (size_t i = 0; i < 2; i++) {
			const size_t row = 2 * u + i;

			if (row < j->t)
				j->cpu->vec->bf16((float *)a[i], j->x + row * k + from, n, 0);
			else
				memset(a[i], 0, sizeof(a[i]));
		}
		for (size_t c = 0; c < n; c += VEC_TILE)
			interleave(j->w + (from + c) * j->units + u * VEC_TILE, a[0] + c,
				   a[1] + c);
	}
	for (size_t c = from; c < from + n; c += VEC_TILE)
		j->cpu->vec->transpose((float *)j->rows + c * VEC_PITCH, VEC_PITCH,
				       (const float *)(j->w + c * j->units), VEC_TILE, j->units,
				       VEC_TILE);
}

static void short_task(void *ctx, size_t task, int thread)
{
	const struct short_hessian *j = ctx;
	struct hessian *h = j->h;
	float *s = j->cpu->scratch[thread];
	size_t i, l, ni, nl;
	double *sum;

	tile_of(task, h->nt, &i, &l);
	sum = h->sum + tile_at(h, i, l);
	i *= h->tile;
	l *= h->tile;
	ni = h->k - i < h->tile ? h->k - i : h->tile;
	nl = h->k - l < h->tile ? h->k - l : h->tile;
	for (size_t r = 0; r < ni; r += SUBTILE) {
		size_t c = i == l ? r : 0;

		j->cpu->set.bf16->run(&(struct vec_product){
			.y = s + r * h->tile + c, .ldy = h->tile,
			.x = j->rows + (i + r) * VEC_PITCH, .ldx = VEC_PITCH,
			.w = j->w + (l + c) * j->units, .ldw = VEC_TILE * j->units,
			.t = ni - r < SUBTILE ? ni - r : SUBTILE, .n = nl - c, .units = j->units,
		});
	}
	for (size_t r = 0; r < ni; r++) {
		size_t c = i == l ? r : 0;

		j->cpu->vec->addf64(sum + r * h->tile + c, s + r * h->tile + c, nl - c);
	}
}

static int short_add(struct backend *b, struct hessian *h, const float *x, size_t t, struct err *e)
{
	struct short_hessian j = { .cpu = cpu_of(b), .h = h };
	size_t panels = (h->k + VEC_TILE - 1) / VEC_TILE, m = j.cpu->set.bf16->multiple;

	/* the kernel may read rows behind the last */
	if (cpu_shared(b, (panels * VEC_TILE * (VEC_DEPTH + VEC_PITCH) + VEC_TILE * VEC_PITCH) *
		       sizeof(uint32_t), e) < 0)
		return -1;
	for (size_t from = 0; from < t; from += TOKENS) {
		j.x = x + from * h->k;
		j.t = t - from < TOKENS ? t - from : TOKENS;
		j.units = ((j.t + 1) / 2 + m - 1) / m * m;
		j.w = j.cpu->shared;
		j.rows = j.w + panels * VEC_TILE * j.units;
		pool_run(b->pool, (h->k + WIDE - 1) / WIDE, units_task, &j);
		pool_run(b->pool, tile_count(h), short_task, &j);
	}
	return 0;
}

/* Where there are no such products: x rounded, of CHUNK tokens at a time. */
static void round_task(void *ctx, size_t task, int thread)
{
	const struct short_hessian *j = ctx;
	size_t k = j->h->k;

	(void)thread;
	j->cpu->vec->bf16((float *)j->cpu->shared + task * k, j->x + task * k, k, 0);
}

static int rounded_add(struct backend *b, struct hessian *h, const float *x, size_t t,
		       struct err *e)
{
	struct short_hessian j = { .cpu = cpu_of(b), .h = h };
	struct hessian_job run = { .cpu = j.cpu, .h = h };

	if (cpu_shared(b, (t < CHUNK ? t : CHUNK) * h->k * sizeof(float), e) < 0)
		return -1;
	for (size_t from = 0; from < t; from += CHUNK) {
		run.t = t - from < CHUNK ? t - from : CHUNK;
		j.x = x + from * h->k;
		run.x = j.cpu->shared;
		pool_run(b->pool, run.t, round_task, &j);
		pool_run(b->pool, tile_count(h), add_task, &run);
	}
	return 0;
}

int cpu_hessian_add(struct backend *b, struct hessian *h, const float *x, size_t t, struct err *e)
{
	struct hessian_job j = { cpu_of(b), h, x, t };

	if (h->k && t && b->compute == COMPUTE_BF16) {
		if (cpu_scratch(b, h->tile * h->tile * sizeof(float), e) < 0)
			return -1;
		return j.cpu->set.bf16 ? short_add(b, h, x, t, e) : rounded_add(b, h, x, t, e);
	}
	if (cpu_scratch(b, h->tile * h->tile * sizeof(float), e) < 0)
		return -1;
	if (h->k && t && h->k <= PANELS_MOST && cpu_of(b)->set.level > VEC_PLAIN)
		return panel_add(b, h, x, t, e);
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
