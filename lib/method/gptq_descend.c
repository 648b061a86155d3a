/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gptq_descend.c - sweeps of coordinate descent over the codes (gptq.h)
 *
 * With D = W - Q, Hd damped and f = tr D Hd D', each column's code in turn becomes the best one
 * while all others stay: w~_j + G_j / H_jj, rounded, where G = D Hd.  After the columns only a few
 * codes in a hundred still move, so that G is multiplied out once, and a code that moves by delta
 * takes delta times a row of Hd from its row of G.  Where the columns' errors are known, G = E R'
 * (gptq_solve.c), half the operations, for R' is a triangle.
 *
 * Rows come in chunks, whose G all sweeps share, columns in panels: within a panel each row goes
 * on alone and keeps a list of its moves, which then go to the other columns, block of Hd by block
 * of Hd, for all rows of the chunk.
 */
#include <stdlib.h>
#include <string.h>

#include "lib/base/pool.h"
#include "lib/method/gptq_solve.h"

#define CHUNK 512  /* rows */
#define SOME  8    /* rows of a task */
#define BLOCK 512  /* columns of G that a task updates: with a panel's rows of Hd, a cache */

/* What a row moved in the panel. */
struct moves {
	size_t n;
	uint16_t at[DESCENT];
	float by[DESCENT];
};

struct chunk {
	struct solve *s;
	bool last, follow;    /* the last sweep; D in h->w follows */
	size_t row, n;        /* of the linear */
	float *d, *g;         /* [n, k]; d is scratch */
	float *inv;           /* [k] 1 / Hd_jj */
	double *gain;         /* [n] by how much f fell */
	struct moves *moves;  /* [n] */
};

/* D of a row, from what its codes stand for. */
static void difference_row(void *ctx, size_t r, int thread)
{
	const struct chunk *c = ctx;
	const struct solve *s = c->s;
	const struct quantized *z = s->z;
	const size_t k = s->h->k, row = c->row + r;

	(void)thread;
	for (size_t g = 0; g < z->groups; g++) {
		const float scale = s->scale[g * s->np + row], zero = s->zero[g * s->np + row];
		const float *w = s->dst + row * k + g * z->group;
		const uint8_t *code = z->codes + row * k + g * z->group;
		float *d = c->d + r * k + g * z->group;

		for (size_t j = 0; j < z->group; j++)
			d[j] = w[j] - scale * ((float)(int)code[j] - zero);
	}
}

/* The panel's codes of a row, and what G there becomes. */
static void descend_row(const struct chunk *c, size_t r)
{
	const struct solve *s = c->s;
	const struct quantized *z = s->z;
	const size_t k = s->h->k, row = c->row + r, n = s->c1 - s->c0;
	struct moves *m = &c->moves[r];
	struct descent d = { .n = n, .g = c->g + r * k + s->c0, .at = m->at, .by = m->by,
			     .h = gptq_full_at(s->h, s->c0, s->c0), .ld = 2 * k,
			     .top = (float)((1 << z->bits) - 1), .inv = c->inv + s->c0 };
	uint8_t *code = z->codes + row * k + s->c0;

	for (size_t j = 0, end; j < n; j = end) {
		const size_t g = (s->c0 + j) / z->group;

		end = (g + 1) * z->group - s->c0;
		end = end < n ? end : n;
		for (size_t i = j; i < end; i++) {
			d.scale[i] = s->scale[g * s->np + row];
			d.zero[i] = s->zero[g * s->np + row];
		}
	}
	for (size_t j = 0; j < n; j++)
		d.code[j] = (float)(int)code[j];
	s->kernels->descend(&d);
	m->n = d.moves;
	c->gain[r] += d.gain;
	for (size_t i = 0; i < m->n; i++) {
		code[m->at[i]] = (uint8_t)(int)d.code[m->at[i]];
		if (c->follow)
			s->h->w[(s->c0 + m->at[i]) * s->np + row] -= m->by[i];
	}
}

static void descend_rows(void *ctx, size_t task, int thread)
{
	const struct chunk *c = ctx;
	const size_t end = (task + 1) * SOME;

	(void)thread;
	for (size_t r = task * SOME; r < (end < c->n ? end : c->n); r++)
		descend_row(c, r);
}

/* The moves of some rows to a block of columns, but for those of the panel; before the panel only
 * if another sweep comes. */
static void spread_rows(void *ctx, size_t task, int thread)
{
	const struct chunk *c = ctx;
	const struct solve *s = c->s;
	const size_t k = s->h->k, tasks = (c->n + SOME - 1) / SOME;
	const size_t j0 = task / tasks * BLOCK, j1 = j0 + BLOCK < k ? j0 + BLOCK : k;
	const size_t cut0 = c->last ? j0 : s->c0, r0 = task % tasks * SOME;
	const size_t part[2][2] = { { j0, j1 < cut0 ? j1 : cut0 },
				    { j0 > s->c1 ? j0 : s->c1, j1 } };

	(void)thread;
	for (int p = 0; p < 2; p++)
		for (size_t r = r0; part[p][0] < part[p][1] && r < r0 + SOME && r < c->n; r++)
			s->kernels->spread(c->g + r * k + part[p][0], part[p][1] - part[p][0],
					   c->moves[r].at, c->moves[r].by, c->moves[r].n,
					   gptq_full_at(s->h, s->c0, part[p][0]), 2 * k);
}

/* Whether a code moved. */
static bool sweep(struct chunk *c)
{
	struct solve *s = c->s;
	struct pool *pool = s->h->be->pool;
	const size_t k = s->h->k, tasks = (c->n + SOME - 1) / SOME;
	bool moved = false;

	for (s->c0 = 0; s->c0 < k; s->c0 = s->c1) {
		bool any = false;

		s->c1 = s->c0 + DESCENT < k ? s->c0 + DESCENT : k;
		pool_run(pool, tasks, descend_rows, c);
		for (size_t r = 0; !any && r < c->n; r++)
			any = c->moves[r].n > 0;
		if (any && !(c->last && s->c1 == k))
			pool_run(pool, tasks * ((k + BLOCK - 1) / BLOCK), spread_rows, c);
		moved |= any;
	}
	return moved;
}

/* G from D, of any codes. */
static int multiply(struct chunk *c, struct err *e)
{
	struct gptq_hessian *h = c->s->h;

	pool_run(h->be->pool, c->n, difference_row, c);
	return h->be->ops->gemm(h->be, 0, c->n, h->k, h->k, 1, c->d, h->k, gptq_full_at(h, 0, 0),
				2 * h->k, 0, c->g, h->k, e);
}

/* A row of G from the order of processing, in d, to that of columns. */
static void order_row(void *ctx, size_t r, int thread)
{
	const struct chunk *c = ctx;
	const size_t k = c->s->h->k, *perm = c->s->h->perm;

	(void)thread;
	for (size_t j = 0; j < k; j++)
		c->g[r * k + perm[j]] = c->d[r * k + j];
}

/* G from the columns' errors. */
static int multiply_errors(struct chunk *c, struct err *e)
{
	struct gptq_hessian *h = c->s->h;
	struct backend *be = h->be;
	const size_t k = h->k, panel = h->panel;
	const float *errors = h->errors + c->row * k;
	float *g = h->natural ? c->g : c->d;

	for (size_t c0 = 0, c1; c0 < k; c0 = c1) {
		c1 = c0 + panel < k ? c0 + panel : k;
		if (be->ops->gemm(be, 0, c->n, c1 - c0, c1 - c0, 1, errors + c0, k,
				  h->inner + c0 * panel, panel, 0, g + c0, k, e) < 0 ||
		    (c1 < k && be->ops->gemm(be, 0, c->n, c1 - c0, k - c1, 1, errors + c1, k,
					     (float *)h->factor + c1 * 2 * k + c0, 2 * k, 1,
					     g + c0, k, e) < 0))
			return -1;
	}
	if (!h->natural)
		pool_run(be->pool, c->n, order_row, c);
	return 0;
}

static int descend_chunk(struct chunk *c, long sweeps, struct err *e)
{
	struct solve *s = c->s;

	memset(c->gain, 0, c->n * sizeof(*c->gain));
	if ((c->follow ? multiply : multiply_errors)(c, e) < 0)
		return -1;
	for (long i = 0; i < sweeps; i++) {
		c->last = i + 1 == sweeps;
		if (!sweep(c))
			break;
	}
	for (size_t r = 0; r < c->n; r++)
		s->loss[c->row + r] -= c->gain[r];
	return 0;
}

int gptq_descend(struct solve *s, long sweeps, bool follow, const char *where, struct err *e)
{
	const size_t k = s->h->k, rows = s->z->rows, most = rows < CHUNK ? rows : CHUNK;
	struct chunk c = { .s = s, .follow = follow };
	int r = 0;

	if (gptq_reserve_floats(&s->h->g, &s->h->cap_g, 2 * most * k, where, e) < 0)
		return -1;
	c.g = s->h->g;
	c.d = s->h->g + most * k;
	c.inv = malloc(k * sizeof(*c.inv));
	c.gain = malloc(most * sizeof(*c.gain));
	c.moves = malloc(most * sizeof(*c.moves));
	if (!c.inv || !c.gain || !c.moves)
		r = err_nomem(e, where, most * sizeof(*c.moves));
	for (size_t j = 0; r == 0 && j < k; j++)
		c.inv[j] = 1 / *gptq_full_at(s->h, j, j);
	for (; r == 0 && c.row < rows; c.row += CHUNK) {
		c.n = rows - c.row < CHUNK ? rows - c.row : CHUNK;
		r = descend_chunk(&c, sweeps, e);
	}
	free(c.inv);
	free(c.gain);
	free(c.moves);
	return r;
}
