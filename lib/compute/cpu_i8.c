/* SPDX-License-Identifier: Apache-2.0 */
/* cpu_i8.c - products of int8, exact in int32 */
#include <stdlib.h>

#include "lib/compute/cpu_short.h"

#define K_MOST (((size_t)1 << 17) - 1) /* numbers whose products, 2^14 at most, fit in a sum */

struct packed_i8 {
	struct short_w w;
	int32_t *sums;  /* [n] of a row of W */
	int32_t *start; /* [n] of the kernel's sums, or NULL: 0 */
};

struct sum_job {
	const struct packed_i8 *p;
	const int8_t *w;
};

static void sum_task(void *ctx, size_t task, int thread)
{
	const struct sum_job *j = ctx;
	const struct short_w *w = &j->p->w;

	(void)thread;
	for (size_t i = task * VEC_TILE; i < w->n && i < (task + 1) * VEC_TILE; i++) {
		const int8_t *row = j->w + i * w->k;
		int32_t s = 0;

		for (size_t l = 0; l < w->k; l++)
			s += row[l];
		j->p->sums[i] = s;
		if (j->p->start)
			j->p->start[i] = -w->tiles->offset * s;
	}
}

/* The memory for sums of n rows. */
static int room(struct packed_i8 *p, const struct vec_tiles *tiles, size_t n, struct err *e)
{
	size_t bytes = n * sizeof(*p->sums);

	free(p->sums);
	free(p->start);
	p->sums = cpu_malloc(bytes);
	p->start = tiles->offset ? cpu_malloc(bytes) : NULL;
	if (!p->sums || (tiles->offset && !p->start))
		return err_nomem(e, "", bytes);
	return 0;
}

int cpu_pack_i8(struct backend *b, struct packed_i8 **p, const int8_t *w, size_t n, size_t k,
		struct err *e)
{
	const struct vec_tiles *tiles = cpu_of(b)->set.i8;
	struct sum_job j = { NULL, w };

	if (k > K_MOST)
		return err_set(e, ERR_BUG, "", "a product of int8 over %zu numbers may not fit in "
			       "its sum", k);
	if (!*p)
		*p = calloc(1, sizeof(**p));
	if (!*p)
		return err_nomem(e, "", sizeof(**p));
	if (((!(*p)->sums || (*p)->w.n != n) && room(*p, tiles, n, e) < 0) ||
	    short_pack(b, &(*p)->w, tiles, w, DT_I8, 0, n, k, e) < 0) {
		cpu_pack_i8_free(b, *p);
		*p = NULL;
		return -1;
	}
	j.p = *p;
	pool_run(b->pool, (n + VEC_TILE - 1) / VEC_TILE, sum_task, &j);
	return 0;
}

void cpu_pack_i8_free(struct backend *b, struct packed_i8 *p)
{
	(void)b;
	if (!p)
		return;
	short_release(&p->w);
	free(p->sums);
	free(p->start);
	free(p);
}

const int32_t *packed_i8_sums(const struct packed_i8 *p)
{
	return p->sums;
}

int cpu_linear_i8(struct backend *b, int32_t *y, size_t ldy, const int8_t *x, size_t ldx, size_t t,
		  const struct packed_i8 *w, struct err *e)
{
	const struct short_job j = {
		.w = &w->w, .x = x, .y = y, .start = w->start, .ldx = ldx, .ldy = ldy, .t = t,
		.xsize = 1,
	};

	return short_linear(b, &j, e);
}
