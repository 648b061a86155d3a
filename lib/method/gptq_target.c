/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gptq_target.c - two streams side by side, their cross statistic (gptq_target.h)
 */
#include "lib/method/gptq_target.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/pool.h"
#include "lib/method/gptq.h"
#include "lib/method/gptq_guard.h"

enum { EDGES = EDGE_MLP_MID + 1 }; /* of a model without experts */

/* One of them. */
struct cross {
	size_t k;
	float *x;          /* [most tokens of a slice, k] of the full stream */
	size_t have, used; /* tokens of it */
	double *m, *mv;    /* [k, k] of all windows, of those set aside */
	struct hessian *hv;
};

struct gptq_target {
	const struct model *model;
	struct backend *be;
	const char *spill;
	struct forward *f;
	struct hidden hidden, mid;
	size_t seqlen, most;
	size_t at;               /* first window of the slice */
	const struct cross *now; /* of the last shift */
	struct cross cross[EDGES];
	float *turned, *product; /* [k, slice], [k, k] */
	double *factor;          /* [k, k] */
	float *inverse, *shift;
	float *tri, *turn;       /* Hv; Mv - Hv, f32 [k, k] */
};

static bool set_aside(const struct gptq_target *t, size_t window)
{
	const size_t all = t->hidden.tokens / t->seqlen;

	return gptq_guard_aside(window, all);
}

struct gptq_target *gptq_target_new(const struct model *m, struct backend *be, const char *spill,
				    struct err *e)
{
	struct gptq_target *t = calloc(1, sizeof(*t));

	if (!t) {
		err_nomem(e, "", sizeof(*t));
		return NULL;
	}
	t->model = m;
	t->be = be;
	t->spill = spill;
	return t;
}

void gptq_target_free(struct gptq_target *t)
{
	if (!t)
		return;
	for (int i = 0; i < EDGES; i++) {
		free(t->cross[i].x);
		free(t->cross[i].m);
		free(t->cross[i].mv);
		if (t->cross[i].hv)
			t->be->ops->hessian_free(t->be, t->cross[i].hv);
	}
	forward_free(t->f);
	hidden_close(&t->hidden);
	hidden_close(&t->mid);
	free(t->turned);
	free(t->product);
	free(t->factor);
	free(t->inverse);
	free(t->shift);
	free(t->tri);
	free(t->turn);
	free(t);
}

static int reserve(struct gptq_target *t, struct err *e)
{
	size_t k = 0;

	for (int i = 0; i < EDGES; i++) {
		struct cross *c = &t->cross[i];

		c->k = (size_t)model_edge_width(t->model, (enum edge)i);
		k = c->k > k ? c->k : k;
		c->x = malloc(t->most * c->k * sizeof(*c->x));
		c->m = malloc(c->k * c->k * sizeof(*c->m));
		c->mv = malloc(c->k * c->k * sizeof(*c->mv));
		if (!c->x || !c->m || !c->mv)
			return err_nomem(e, "hessian", c->k * c->k * sizeof(*c->m));
		if (t->be->ops->hessian_new(t->be, &c->hv, c->k, e) < 0)
			return -1;
	}
	t->turned = malloc(k * FORWARD_SLICE * sizeof(*t->turned));
	t->product = malloc(k * k * sizeof(*t->product));
	t->factor = aligned_alloc(64, (k * k * sizeof(double) + 63) / 64 * 64);
	t->inverse = malloc(k * k * sizeof(*t->inverse));
	t->shift = malloc(k * k * sizeof(*t->shift));
	t->tri = malloc(k * (k + 1) / 2 * sizeof(*t->tri));
	t->turn = malloc(k * k * sizeof(*t->turn));
	if (!t->turned || !t->product || !t->factor || !t->inverse || !t->shift || !t->tri ||
	    !t->turn)
		return err_nomem(e, "hessian", k * k * sizeof(double));
	return 0;
}

int gptq_target_start(struct gptq_target *t, const struct hidden *from, size_t seqlen,
		      struct err *e)
{
	const size_t mid = (size_t)model_edge_width(t->model, EDGE_ATTN_MID);

	t->seqlen = seqlen;
	if (from->tokens < 2 * seqlen)
		return err_set(e, ERR_DATA, "calib", "--target=full sets windows aside: one window "
			       "is not enough");
	t->most = seqlen < FORWARD_SLICE ? FORWARD_SLICE : seqlen;
	if (!(t->f = forward_new(t->model, t->be, (long)seqlen, e)) ||
	    hidden_open(&t->hidden, from->tokens, from->width, t->spill, e) < 0 ||
	    hidden_open(&t->mid, from->tokens, mid, t->spill, e) < 0 || reserve(t, e) < 0)
		return -1;
	memcpy(t->hidden.x, from->x, from->tokens * from->width * sizeof(*from->x));
	return 0;
}

int gptq_target_load(struct gptq_target *t, struct block *b, struct err *e)
{
	return forward_load(t->f, b, e);
}

int gptq_target_zero(struct gptq_target *t, enum edge edge, struct err *e)
{
	struct cross *c = &t->cross[edge];

	memset(c->m, 0, c->k * c->k * sizeof(*c->m));
	memset(c->mv, 0, c->k * c->k * sizeof(*c->mv));
	return t->be->ops->hessian_zero(t->be, c->hv, e);
}

static int keep(void *ctx, enum edge edge, const float *x, size_t n, struct err *e)
{
	struct gptq_target *t = ctx;
	struct cross *c = &t->cross[edge];

	if (t->be->ops->download(t->be, c->x + c->have * c->k, x, n * c->k * sizeof(*x), e) < 0)
		return -1;
	c->have += n;
	return 0;
}

int gptq_target_slice(struct gptq_target *t, int phase, size_t at, size_t n, struct err *e)
{
	const size_t tokens = n * t->seqlen;
	float *x = t->hidden.x + at * t->hidden.width, *mid = t->mid.x + at * t->mid.width;

	t->at = at / t->seqlen;
	for (int i = 0; i < EDGES; i++)
		t->cross[i].have = t->cross[i].used = 0;
	switch (phase) {
	case 0:
		return forward_attention(t->f, x, mid, n, t->seqlen, keep, t, e);
	case 1: {
		struct cross *c = &t->cross[EDGE_ATTN_MID];

		memcpy(c->x, mid, tokens * c->k * sizeof(*mid));
		c->have = tokens;
		return forward_attention_out(t->f, x, mid, tokens, e);
	}
	default:
		return forward_mlp(t->f, x, tokens, phase == 3, keep, t, e);
	}
}

struct turn {
	float *to;
	const float *x;
	size_t n, k;
};

static void turn_column(void *ctx, size_t j, int thread)
{
	const struct turn *u = ctx;

	(void)thread;
	for (size_t i = 0; i < u->n; i++)
		u->to[j * u->n + i] = u->x[i * u->k + j];
}

struct sum {
	double *to;
	const float *from;
	size_t k;
};

static void add_row(void *ctx, size_t i, int thread)
{
	const struct sum *s = ctx;

	(void)thread;
	for (size_t j = 0; j < s->k; j++)
		s->to[i * s->k + j] += s->from[i * s->k + j];
}

int gptq_target_add(struct gptq_target *t, enum edge edge, const float *x, size_t n, struct err *e)
{
	struct cross *c = &t->cross[edge];
	size_t some;

	if (c->used + n > c->have)
		return err_set(e, ERR_BUG, "target", "streams out of step");
	for (; n > 0; n -= some, x += some * c->k, c->used += some) {
		const bool aside = set_aside(t, t->at + c->used / t->seqlen);
		struct turn u = { t->turned, c->x + c->used * c->k, 0, c->k };
		struct sum s = { aside ? c->mv : c->m, t->product, c->k };

		some = t->seqlen - c->used % t->seqlen;
		some = some < n ? some : n;
		some = some < FORWARD_SLICE ? some : FORWARD_SLICE;
		u.n = some;
		pool_run(t->be->pool, c->k, turn_column, &u);
		if (t->be->ops->gemm(t->be, 0, c->k, c->k, some, 1, t->turned, some, x, c->k, 0,
				     t->product, c->k, e) < 0)
			return -1;
		pool_run(t->be->pool, c->k, add_row, &s);
		if (aside && t->be->ops->hessian_add(t->be, c->hv, x, some, e) < 0)
			return -1;
	}
	return 0;
}

struct shift {
	struct gptq_target *t;
	const struct cross *c;
	const float *tri;
	double add;
};

/* Row i: of H + d I without the windows set aside, upper, into factor; of M - H into product; of
 * Mv - Hv into turn. */
static void fill_row(void *ctx, size_t i, int thread)
{
	const struct shift *s = ctx;
	const size_t k = s->c->k;

	(void)thread;
	for (size_t j = 0; j < k; j++) {
		const size_t at = i < j ? tri_index(i, j, k) : tri_index(j, i, k);
		const double hv = s->t->tri[at], h = s->tri[at] - hv;

		if (j >= i)
			s->t->factor[i * k + j] = h + (i == j ? s->add : 0);
		s->t->product[i * k + j] = (float)(s->c->m[i * k + j] - h);
		s->t->turn[i * k + j] = (float)(s->c->mv[i * k + j] - hv);
	}
}

/* U, upper triangular, as f32. */
static void round_row(void *ctx, size_t i, int thread)
{
	const struct shift *s = ctx;
	const size_t k = s->c->k;

	(void)thread;
	for (size_t j = 0; j < k; j++)
		s->t->inverse[i * k + j] = j < i ? 0 : (float)s->t->factor[i * k + j];
}

int gptq_target_shift(struct gptq_target *t, enum edge edge, const float *tri, double damp,
		      const char *where, struct err *e)
{
	const struct cross *c = &t->cross[edge];
	struct shift s = { .t = t, .c = c, .tri = tri };
	const size_t k = c->k;
	double pivot, mean = 0;
	size_t at;
	int r;

	t->now = c;
	if (t->be->ops->hessian_get(t->be, c->hv, t->tri, e) < 0)
		return -1;
	for (size_t j = 0; j < k; j++)
		mean += tri[tri_index(j, j, k)] / (double)k;
	do {
		s.add = damp * mean;
		pool_run(t->be->pool, k, fill_row, &s);
		r = t->be->ops->panel_factor(t->be, t->factor, k, k, &pivot, &at, e);
		damp = damp > 0 ? damp * 10 : 1e-4;
	} while (r > 0 && damp <= 1);
	if (r > 0)
		return err_set(e, ERR_DATA, where, "H of the windows not set aside is not positive "
			       "definite even with damp %g", s.add / mean);
	if (r < 0)
		return -1;
	pool_run(t->be->pool, k, round_row, &s);
	/* (M - H) U' U */
	if (t->be->ops->gemm(t->be, 1, k, k, k, 1, t->product, k, t->inverse, k, 0, t->shift, k,
			     e) < 0)
		return -1;
	memcpy(t->product, t->shift, k * k * sizeof(*t->shift));
	return t->be->ops->gemm(t->be, 0, k, k, k, 1, t->product, k, t->inverse, k, 0, t->shift, k,
				e);
}

int gptq_target_move(struct gptq_target *t, float *w, size_t rows, double *step, struct err *e)
{
	const size_t k = t->now->k, n = rows * k;
	float *moved = malloc(n * sizeof(*moved)), *want = malloc(n * sizeof(*want));
	double along = 0, energy = 0, whole = 0, a = 0;
	int r = -1;

	if (!moved || !want) {
		err_nomem(e, "target", 2 * n * sizeof(*moved));
	} else if (t->be->ops->gemm(t->be, 0, rows, k, k, 1, w, k, t->shift, k, 0, moved, k,
				    e) == 0 &&
		   t->be->ops->gemm(t->be, 0, rows, k, k, 1, w, k, t->turn, k, 0, want, k,
				    e) == 0 &&
		   output_energy(t->be, moved, rows, k, t->tri, &energy, e) == 0 &&
		   output_energy(t->be, w, rows, k, t->tri, &whole, e) == 0) {
		for (size_t i = 0; i < n; i++)
			along += (double)moved[i] * want[i];
		/* Streams that are still the same differ by rounding. */
		a = energy > 1e-10 * whole && along > 0 ? fmin(along / energy, 1) : 0;
		for (size_t i = 0; i < n && a > 0; i++)
			w[i] += (float)a * moved[i];
		r = 0;
	}
	free(moved);
	free(want);
	*step = a;
	return r;
}

int gptq_target_cross(struct gptq_target *t, const float *w, const float *d, size_t rows,
		      double *cross, struct err *e)
{
	const size_t k = t->now->k, n = rows * k;
	float *want = malloc(n * sizeof(*want));
	double sum = 0;

	if (!want)
		return err_nomem(e, "target", n * sizeof(*want));
	if (t->be->ops->gemm(t->be, 0, rows, k, k, 1, w, k, t->turn, k, 0, want, k, e) < 0) {
		free(want);
		return -1;
	}
	for (size_t i = 0; i < n; i++)
		sum += (double)d[i] * want[i];
	free(want);
	*cross = sum;
	return 0;
}

const float *gptq_target_aside(const struct gptq_target *t)
{
	return t->tri;
}
