/* SPDX-License-Identifier: Apache-2.0 */
/*
 * clip.c - the grid of ranges for every group, and what each would cost (clip.h)
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/pool.h"
#include "lib/method/clip.h"
#include "lib/method/gptq.h"
#include "lib/method/rtn.h"

#define CHUNK 256 /* codes on the stack */

struct clip {
	struct backend *be;
	const struct clip_options *o;
	struct quantized z;
	float *room;      /* H_gg, then D and D H_gg of all rows, then a copy of the weight */
	size_t cap;
	double *best;     /* [rows]: least error so far */
	float *limit;     /* [rows]: its range */
	size_t cap_rows;
};

/* One group of columns of all rows, at one p. */
struct cut {
	const struct quantizer *q;
	const float *w;      /* from the group's first column on */
	size_t cols, n;      /* of w; of the group */
	double p;
	float *d, *t;        /* [rows, n]: D, D H_gg */
	double *best;
	float *limit;
};

struct clip *clip_new(struct backend *be, const struct clip_options *o, struct err *e)
{
	struct clip *c = calloc(1, sizeof(*c));

	if (!c) {
		err_nomem(e, "", sizeof(*c));
		return NULL;
	}
	c->be = be;
	c->o = o;
	return c;
}

void clip_free(struct clip *c)
{
	if (!c)
		return;
	quantized_release(&c->z);
	free(c->room);
	free(c->best);
	free(c->limit);
	free(c);
}

static int reserve(struct clip *c, size_t floats, size_t rows, const char *where, struct err *e)
{
	if (floats > c->cap) {
		free(c->room);
		c->cap = 0;
		if (!(c->room = malloc(floats * sizeof(*c->room))))
			return err_nomem(e, where, floats * sizeof(*c->room));
		c->cap = floats;
	}
	if (rows > c->cap_rows) {
		free(c->best);
		free(c->limit);
		c->cap_rows = 0;
		c->best = malloc(rows * sizeof(*c->best));
		c->limit = malloc(rows * sizeof(*c->limit));
		if (!c->best || !c->limit)
			return err_nomem(e, where, rows * 12);
		c->cap_rows = rows;
	}
	return 0;
}

static float range_of(const float *w, size_t n)
{
	float a = 0;

	for (size_t j = 0; j < n; j++)
		a = fabsf(w[j]) > a ? fabsf(w[j]) : a;
	return a;
}

static inline float clamp(float x, float limit)
{
	return x > limit ? limit : x < -limit ? -limit : x;
}

/* d = Q(clamp(w)) - w of one row; limits of a row are one float for every p. */
static void cut_row(void *ctx, size_t row, int thread)
{
	const struct cut *c = ctx;
	const float *w = c->w + row * c->cols;
	float *d = c->d + row * c->n, scale, limit = (float)(c->p * range_of(w, c->n));
	uint8_t zero, code[CHUNK];

	(void)thread;
	for (size_t j = 0; j < c->n; j++)
		d[j] = clamp(w[j], limit);
	quantizer_fit(c->q, d, c->n, &scale, &zero);
	for (size_t at = 0; at < c->n; at += CHUNK) {
		const size_t m = c->n - at < CHUNK ? c->n - at : CHUNK;

		quantize_run(code, d + at, m, scale, zero, c->q->bits);
		for (size_t j = at; j < at + m; j++)
			d[j] = dequantize(code[j - at], zero, scale) - w[j];
	}
}

static void judge_row(void *ctx, size_t row, int thread)
{
	const struct cut *c = ctx;
	const float *d = c->d + row * c->n, *t = c->t + row * c->n;
	double sum = 0;

	(void)thread;
	for (size_t j = 0; j < c->n; j++)
		sum += (double)d[j] * t[j];
	if (c->p == 1 || sum < c->best[row]) {
		c->best[row] = sum;
		c->limit[row] = (float)(c->p * range_of(c->w + row * c->cols, c->n));
	}
}

/* H_gg of n columns from j0 on, full. */
static void take_diagonal(float *h, const float *tri, size_t j0, size_t n, size_t k)
{
	for (size_t i = 0; i < n; i++)
		for (size_t j = i; j < n; j++)
			h[i * n + j] = h[j * n + i] = tri[tri_index(j0 + i, j0 + j, k)];
}

int clip_weight(struct clip *c, float *w, size_t rows, size_t cols, const float *tri,
		const char *where, size_t *clipped, struct err *e)
{
	const long steps = (long)(c->o->max_shrink * (double)c->o->n_grid);
	size_t groups, n;
	float *h;

	*clipped = 0;
	if (quantizer_check_finite(w, rows, cols, where, e) < 0 ||
	    quantizer_groups(&c->o->layers.q, cols, where, &groups, &n, e) < 0 ||
	    reserve(c, n * n + 2 * rows * n, rows, where, e) < 0)
		return -1;
	h = c->room;
	for (size_t g = 0; g < groups; g++) {
		struct cut cut = {
			.q = &c->o->layers.q, .w = w + g * n, .cols = cols, .n = n,
			.d = h + n * n, .t = h + n * n + rows * n,
			.best = c->best, .limit = c->limit,
		};

		take_diagonal(h, tri, g * n, n, cols);
		for (long i = 0; i < (steps > 0 ? steps : 1); i++) {
			cut.p = 1 - (double)i / (double)c->o->n_grid;
			pool_run(c->be->pool, rows, cut_row, &cut);
			if (c->be->ops->gemm(c->be, 0, rows, n, n, 1, cut.d, n, h, n, 0, cut.t, n,
					     e) < 0)
				return -1;
			pool_run(c->be->pool, rows, judge_row, &cut);
		}
		for (size_t r = 0; r < rows; r++)
			for (size_t j = 0; j < n; j++) {
				float *x = &w[r * cols + g * n + j], was = *x;

				*x = clamp(was, c->limit[r]);
				*clipped += *x != was;
			}
	}
	return 0;
}

/* What rtn of w leaves of the output of w0. */
static int rounding_error(struct clip *c, const struct layer *l, const float *w, const float *w0,
			  const float *tri, float *room, double *error, struct err *e)
{
	const size_t n = l->rows * l->cols;

	if (rtn_quantize(&c->z, &c->o->layers.q, w, l->rows, l->cols, c->be->pool, l->where,
			 e) < 0)
		return -1;
	quantized_dequantize(&c->z, room);
	for (size_t i = 0; i < n; i++)
		room[i] -= w0[i];
	return output_energy(c->be, room, l->rows, l->cols, tri, error, e);
}

static int put_note(const struct clip *c, struct block *b, const struct layer *l, size_t clipped,
		    double before, double after, struct err *e)
{
	struct item *it = block_note(b, l->name, "clip", e);
	const double per = l->energy > 0 ? 1 / l->energy : 0;

	if (!it)
		return -1;
	if (record_set_str(&it->rec, "by", c->o->layers.by) < 0 ||
	    record_set_int(&it->rec, "bits", l->q.bits) < 0 ||
	    record_set_int(&it->rec, "group", l->q.group) < 0 ||
	    record_set_double(&it->rec, "clipped", (double)clipped /
			      (double)(l->rows * l->cols)) < 0 ||
	    record_set_double(&it->rec, "before", before * per) < 0 ||
	    record_set_double(&it->rec, "after", after * per) < 0)
		return err_nomem(e, l->where, 64);
	return 0;
}

static int clip_layer(struct clip *c, struct block *b, struct layer *l, struct err *e)
{
	const float *tri = layer_hessian(b, l->row.in);
	const size_t n = l->rows * l->cols;
	size_t groups, group, clipped;
	double before, after;
	float *was, *room;
	char where[256];

	model_edge_name(b->model, l->row.in, b->layer, where);
	if (!tri)
		return err_set(e, ERR_DATA, where, "no hessian; put \"record-acts - "
			       "--stats=hessian\" before clip");
	if (quantizer_groups(&l->q, l->cols, l->where, &groups, &group, e) < 0 ||
	    reserve(c, 2 * n + group * group + 2 * l->rows * group, l->rows, l->where, e) < 0)
		return -1;
	was = c->room + c->cap - 2 * n;
	room = was + n;
	memcpy(was, l->w, n * sizeof(*was));
	if (layer_weigh(l, c->be, tri, e) < 0 ||
	    rounding_error(c, l, l->w, was, tri, room, &before, e) < 0 ||
	    clip_weight(c, l->w, l->rows, l->cols, tri, l->where, &clipped, e) < 0 ||
	    rounding_error(c, l, l->w, was, tri, room, &after, e) < 0)
		return -1;
	return put_note(c, b, l, clipped, before, after, e);
}

int clip_block(struct clip *c, struct block *b, struct err *e)
{
	struct linear_row row;

	for (size_t n = 0; model_linear(b->model, b->layer, n, &row); n++) {
		struct layer l;
		int got;

		if ((row.weight == SLOT_Q || row.weight == SLOT_K) && !c->o->all)
			continue;
		got = layer_take(&l, b, &row, &c->o->layers, e);
		if (got < 0 || (got > 0 && clip_layer(c, b, &l, e) < 0))
			return -1;
	}
	return 0;
}
