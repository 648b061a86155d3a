/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cpu_short.c - products of short numbers, a tile of the result a task
 *
 * A task turns its rows of X to units, as many as stay in the second level cache, and runs
 * them against one panel of W after another.
 */
#include "lib/compute/cpu_short.h"

#include <stdlib.h>
#include <string.h>

/*
 * Of a task: X in units and the part of Y that is added to once for every VEC_DEPTH units stay
 * in the second level cache (1 MiB) beside two panels of W, and there are enough tasks for their
 * threads to end together.  Two threads of a Zen 4, bf16, 2048 x 2048 x 2048, 2048 x 4096 x 4096:
 * 0.86 of the registers' speed; by 240 rows x 2048 columns without prefetching 0.80 and 0.81.
 */
#define ROWS_MOST  128
#define START_MOST 1024 /* columns */

struct pack_job {
	const struct short_w *s;
	const unsigned char *src;
	enum dtype t;
	int rest;
	struct cpu *cpu;
};

/* A panel, VEC_DEPTH units of its rows at a time. */
static void pack_task(void *ctx, size_t task, int thread)
{
	const struct pack_job *j = ctx;
	const struct short_w *s = j->s;
	size_t row = task * VEC_TILE, size = (size_t)dtype_bits(j->t) / 8;
	size_t rows = s->n - row < VEC_TILE ? s->n - row : VEC_TILE, per = s->tiles->per_unit;
	uint32_t *piece = j->cpu->scratch[thread];
	float *wide = (float *)(piece + VEC_TILE * VEC_DEPTH), *other = wide + 4 * VEC_DEPTH;

	for (size_t u = 0; u < s->units; u += VEC_DEPTH) {
		size_t units = s->units - u < VEC_DEPTH ? s->units - u : VEC_DEPTH, c = u * per;
		size_t k = c >= s->k ? 0 : s->k - c < units * per ? s->k - c : units * per;

		memset(piece, 0, VEC_TILE * units * sizeof(*piece));
		for (size_t r = 0; r < rows; r++) {
			const void *from = j->src + ((row + r) * s->k + c) * size;

			if (j->t != DT_I8) {
				dtype_to_f32(wide, from, j->t, k);
				if (j->rest)
					j->cpu->vec->bf16(other, wide, k, 1);
				from = j->rest ? other : wide;
			}
			s->tiles->w_units(piece + r * units, from, k);
		}
		j->cpu->vec->transpose((float *)(s->w + row * s->units + u * VEC_TILE),
					   VEC_TILE, (const float *)piece, units, VEC_TILE, units);
	}
}

int short_pack(struct backend *b, struct short_w *s, const struct vec_tiles *tiles, const void *w,
	       enum dtype t, int rest, size_t n, size_t k, struct err *e)
{
	struct pack_job j = { .s = s, .src = w, .t = t, .rest = rest, .cpu = cpu_of(b) };
	const size_t panels = (n + VEC_TILE - 1) / VEC_TILE;
	const size_t per = tiles->per_unit * tiles->multiple;
	const size_t units = (k + per - 1) / per * tiles->multiple;

	if (units && panels > SIZE_MAX / VEC_TILE / sizeof(*s->w) / units)
		return err_nomem(e, "", SIZE_MAX);
	if (cpu_scratch(b, (VEC_TILE + 8) * VEC_DEPTH * sizeof(float), e) < 0)
		return -1;
	if (s->w == NULL || s->tiles != tiles || s->n != n || s->k != k) {
		short_release(s);
		s->w = cpu_malloc(panels * VEC_TILE * units * sizeof(*s->w));
		if (!s->w)
			return err_nomem(e, "", panels * VEC_TILE * units * sizeof(*s->w));
		s->tiles = tiles;
		s->n = n;
		s->k = k;
		s->units = units;
	}
	pool_run(b->pool, panels, pack_task, &j);
	return 0;
}

void short_release(struct short_w *s)
{
	free(s->w);
	memset(s, 0, sizeof(*s));
}

struct cut {
	const struct short_job *j;
	struct cpu *cpu;
	size_t rows, columns, across;
};

/* A thread's scratch: X in units, what sums start from, numbers on their way to units. */
#define X_UNITS(rows)  ((rows) * VEC_PITCH)
#define AHEAD          4 /* rows of X are asked for so early: each begins on a page of its own */
#define SCRATCH(rows)  (X_UNITS(rows) + START_MOST + VEC_TILE + 2 * VEC_DEPTH)

/* Units u ... of rows of X from `row` on, or of what rounding leaves of them. */
static void to_units(const struct cut *c, uint32_t *x, float *wide, size_t row, size_t rows,
		     size_t u, size_t units, int rest)
{
	const struct short_job *j = c->j;
	const struct vec_tiles *tiles = j->w->tiles;
	size_t per = tiles->per_unit, k = j->w->k - u * per, have;

	k = k < units * per ? k : units * per;
	have = (k + per - 1) / per;
	for (size_t i = 0; i < rows; i++, x += VEC_PITCH) {
		const void *from = (const char *)j->x +
				   ((row + i) * j->ldx + u * per) * j->xsize;

		for (size_t l = 0; i + AHEAD < rows && l < k * j->xsize; l += CPU_ALIGN)
			__builtin_prefetch((const char *)from + AHEAD * j->ldx * j->xsize + l);
		if (rest) {
			c->cpu->vec->bf16(wide, from, k, 1);
			from = wide;
		}
		tiles->x_units(x, from, k);
		if (units > have)
			memset(x + have, 0, (units - have) * sizeof(*x));
	}
}

static void short_task(void *ctx, size_t task, int thread)
{
	const struct cut *c = ctx;
	const struct short_job *j = c->j;
	const struct short_w *w = j->w;
	size_t row = task / c->across * c->rows, column = task % c->across * c->columns;
	size_t parts = (w->units + VEC_DEPTH - 1) / VEC_DEPTH, m = w->tiles->multiple, depth;
	uint32_t *x = c->cpu->scratch[thread], *start = x + X_UNITS(c->rows);
	float *wide = (float *)(start + START_MOST + VEC_TILE);
	struct vec_product p = {
		.y = (uint32_t *)j->y + row * j->ldy + column, .ldy = j->ldy, .x = x,
		.ldx = VEC_PITCH,
		.ldw = w->units * VEC_TILE, .t = j->t - row < c->rows ? j->t - row : c->rows,
		.n = w->n - column < c->columns ? w->n - column : c->columns, .add = j->add,
	};

	if (j->start) {
		memcpy(start, (const uint32_t *)j->start + column, p.n * sizeof(*start));
		p.start = start;
	}
	depth = parts ? ((w->units + parts - 1) / parts + m - 1) / m * m : 1;
	for (size_t u = 0; u == 0 || u < w->units; u += depth) {
		size_t at = column * w->units + u * VEC_TILE;

		p.units = w->units - u < depth ? w->units - u : depth;
		if (j->rest) {
			to_units(c, x, wide, row, p.t, u, p.units, 1);
			p.w = w->w + at;
			w->tiles->run(&p);
			p.start = NULL;
			p.add = 1;
		}
		to_units(c, x, wide, row, p.t, u, p.units, 0);
		for (const struct short_w *v = j->rest ? j->rest : w; v; v = v == w ? NULL : w) {
			p.w = v->w + at;
			w->tiles->run(&p);
			p.start = NULL;
			p.add = 1;
		}
	}
}

int short_linear(struct backend *b, const struct short_job *j, struct err *e)
{
	struct cut c = { .j = j, .cpu = cpu_of(b) };
	size_t unit = j->w->tiles->rows, down;

	down = cpu_parts(j->t, ROWS_MOST / unit * unit, unit, &c.rows);
	c.across = cpu_parts(j->w->n, j->t < 1024 ? 512 : START_MOST, VEC_TILE, &c.columns);
	if (!j->t || !j->w->n)
		return 0;
	if (cpu_scratch(b, SCRATCH(c.rows) * sizeof(uint32_t), e) < 0)
		return -1;
	pool_run(b->pool, down * c.across, short_task, &c);
	return 0;
}
