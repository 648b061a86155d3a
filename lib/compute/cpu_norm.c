/* SPDX-License-Identifier: Apache-2.0 */
/* cpu_norm.c - norms and rotary positions, slices of tokens in parallel */
#include "lib/compute/cpu.h"

#define SLICE_VALUES 65536 /* a task: waking a thread for less does not pay */

struct norm_job {
	const struct vec_ops *vec;
	float *y;
	const float *x, *w, *bias;
	size_t t, d, rows;
	float eps;
	int layer;
};

static size_t slice_rows(size_t d)
{
	return d < SLICE_VALUES ? SLICE_VALUES / (d ? d : 1) : 1;
}

static void norm_task(void *ctx, size_t task, int thread)
{
	const struct norm_job *j = ctx;
	size_t from = task * j->rows;
	size_t to = from + j->rows < j->t ? from + j->rows : j->t;

	(void)thread;
	for (size_t i = from; i < to; i++) {
		float *y = j->y + i * j->d;
		const float *x = j->x + i * j->d;

		if (j->layer)
			j->vec->layernorm(y, x, j->w, j->bias, j->d, j->eps);
		else
			j->vec->rmsnorm(y, x, j->w, j->d, j->eps);
	}
}

static void norm_run(struct backend *b, struct norm_job *j)
{
	j->vec = cpu_of(b)->vec;
	j->rows = slice_rows(j->d);
	if (j->t && j->d)
		pool_run(b->pool, (j->t + j->rows - 1) / j->rows, norm_task, j);
}

int cpu_rmsnorm(struct backend *b, float *y, const float *x, const float *w, size_t t, size_t d,
		float eps, struct err *e)
{
	struct norm_job j = { .y = y, .x = x, .w = w, .t = t, .d = d, .eps = eps };

	(void)e;
	norm_run(b, &j);
	return 0;
}

int cpu_layernorm(struct backend *b, float *y, const float *x, const float *w, const float *bias,
		  size_t t, size_t d, float eps, struct err *e)
{
	struct norm_job j = { .y = y, .x = x, .w = w, .bias = bias, .t = t, .d = d, .eps = eps,
			      .layer = 1 };

	(void)e;
	norm_run(b, &j);
	return 0;
}

struct rope_job {
	const struct vec_ops *vec;
	float *x;
	const float *cos, *sin;
	size_t ldx, t, seqlen, rows, half;
	int heads;
};

static void rope_task(void *ctx, size_t task, int thread)
{
	const struct rope_job *j = ctx;
	size_t from = task * j->rows;
	size_t to = from + j->rows < j->t ? from + j->rows : j->t;

	(void)thread;
	for (size_t i = from; i < to; i++) {
		const float *c = j->cos + i % j->seqlen * j->half;
		const float *s = j->sin + i % j->seqlen * j->half;

		for (int h = 0; h < j->heads; h++)
			j->vec->rope(j->x + i * j->ldx + (size_t)h * 2 * j->half, c, s, j->half);
	}
}

int cpu_rope(struct backend *b, float *x, size_t ldx, size_t t, size_t seqlen, int heads,
	     int head_dim, const float *cos_, const float *sin_, struct err *e)
{
	struct rope_job j = {
		.vec = cpu_of(b)->vec, .x = x, .cos = cos_, .sin = sin_, .ldx = ldx, .t = t,
		.seqlen = seqlen, .half = (size_t)head_dim / 2, .heads = heads,
		.rows = slice_rows((size_t)heads * (size_t)head_dim),
	};

	if (heads < 0 || head_dim < 0 || head_dim % 2 || !seqlen)
		return err_set(e, ERR_BUG, "", "rotary positions: %d heads of %d over %zu tokens",
			       heads, head_dim, seqlen);
	if (t)
		pool_run(b->pool, (t + j.rows - 1) / j.rows, rope_task, &j);
	return 0;
}
