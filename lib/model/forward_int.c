/* SPDX-License-Identifier: Apache-2.0 */
/*
 * forward_int.c - linears in integers: codes of weights times codes of activations
 *
 * With x~ = sx (qx - zx) and w~ = sw (qw - zw), constant over a run of len columns,
 *     x~ w~' = sx sw (qx.qw - zx sum qw - zw sum qx + len zx zw)
 * where all that is in brackets is exact.  The runs are the smaller of the weight's groups and the
 * activation's; their products are summed in f32.  What has no codes, or codes on a grid of
 * super-blocks, or groups of which neither divides the other, multiplies in f32 as ever.
 */
#include <stdlib.h>
#include <string.h>

#include "lib/base/pool.h"
#include "lib/model/codes.h"
#include "lib/model/forward_impl.h"

#define ROWS 16 /* tokens of a task */

/* One linear. */
struct int_linear {
	size_t n, k, run, runs, group, groups; /* of columns: in a run; in a group of the weight */
	struct packed_i8 **w;                  /* [runs] */
	float *scale;                          /* [n, groups] */
	int32_t *zero;
};

/* ---- loading --------------------------------------------------------------------- */

void int_linear_free(struct forward *f, struct int_linear *l)
{
	if (l == NULL)
		return;
	for (size_t i = 0; l->w != NULL && i < l->runs; i++)
		if (l->w[i] != NULL)
			f->be->ops->pack_i8_free(f->be, l->w[i]);
	free(l->w);
	free(l->scale);
	free(l->zero);
	free(l);
}

/* The last op at the place that the linear reads, if integers come of it. */
static const struct quant *int_input(const struct forward *f, enum slot s)
{
	const struct run_op *op, *last = NULL;
	struct linear_row row;

	for (size_t n = 0; model_linear(f->m, f->layer, n, &row); n++)
		if (row.weight == s && !row.keep)
			for (size_t i = 0; (op = run_at(&f->run, PLACE_EDGES + (int)row.in, &i));)
				last = op;
	return last != NULL && last->kind == RUN_QUANT && quant_has_codes(&last->quant) ?
	       &last->quant : NULL;
}

static int unpack(struct int_linear *l, struct block *b, enum slot s, const struct codes *c,
		  int8_t *q, struct err *e)
{
	const struct item *scale = block_find(b, s, ROLE_SCALE);
	const struct item *zero = block_find(b, s, ROLE_ZERO);
	const struct item *codes = block_find(b, s, ROLE_CODES);

	for (size_t i = 0; i < l->n; i++)
		if (codes_row_int(c, q + i * l->k, l->scale + i * l->groups,
				  l->zero + i * l->groups, i, codes->data, scale->data,
				  zero != NULL ? zero->data : NULL, e) < 0)
			return -1;
	return 0;
}

static int pack_runs(struct forward *f, struct int_linear *l, const int8_t *q, struct err *e)
{
	int8_t *one = malloc(l->n * l->run);
	int ret = 0;

	if (one == NULL)
		return err_nomem(e, "integers", l->n * l->run);
	for (size_t r = 0; r < l->runs && ret == 0; r++) {
		for (size_t i = 0; i < l->n; i++)
			memcpy(one + i * l->run, q + i * l->k + r * l->run, l->run);
		ret = f->be->ops->pack_i8(f->be, &l->w[r], one, l->n, l->run, e);
	}
	free(one);
	return ret;
}

int int_linear_load(struct forward *f, struct int_linear **dst, struct block *b, enum slot s,
		    struct err *e)
{
	const struct quant *x = int_input(f, s);
	struct int_linear *l;
	struct codes c;
	int8_t *q;
	size_t group;
	int ret;

	int_linear_free(f, *dst);
	*dst = NULL;
	if (x == NULL || block_find(b, s, ROLE_CODES) == NULL)
		return 0;
	if (block_codes(b, s, &c, e) < 0)
		return -1;
	group = x->per == QUANT_GROUP ? x->group : c.cols;
	if (c.f8 || c.grid || c.cols % c.group != 0 ||
	    (group % c.group != 0 && c.group % group != 0))
		return 0;
	l = calloc(1, sizeof(*l));
	if (l == NULL)
		return err_nomem(e, "integers", sizeof(*l));
	*dst = l;
	l->n = c.rows;
	l->k = c.cols;
	l->group = c.group;
	l->groups = c.cols / c.group;
	l->run = group < c.group ? group : c.group;
	l->runs = l->k / l->run;
	l->w = calloc(l->runs, sizeof(struct packed_i8 *));
	l->scale = malloc(l->n * l->groups * sizeof(*l->scale));
	l->zero = malloc(l->n * l->groups * sizeof(*l->zero));
	q = malloc(l->n * l->k);
	if (l->w == NULL || l->scale == NULL || l->zero == NULL || q == NULL) {
		free(q);
		return err_nomem(e, "integers", l->n * l->k);
	}
	ret = unpack(l, b, s, &c, q, e);
	if (ret == 0)
		ret = pack_runs(f, l, q, e);
	free(q);
	return ret;
}

/* ---- the input ------------------------------------------------------------------- */

void int_input_release(struct int_input *in)
{
	free(in->codes.code);
	free(in->codes.scale);
	free(in->codes.zero);
	free(in->product);
	memset(in, 0, sizeof(*in));
}

int int_input_reserve(struct int_input *in, size_t t, size_t k, size_t groups, struct err *e)
{
	in->x = NULL;
	in->k = k;
	in->groups = groups;
	if (t * k > in->cap) {
		free(in->codes.code);
		free(in->codes.scale);
		free(in->codes.zero);
		in->cap = 0;
		in->codes.code = malloc(t * k);
		in->codes.scale = malloc(t * k * sizeof(float));
		in->codes.zero = malloc(t * k * sizeof(int32_t));
		if (in->codes.code == NULL || in->codes.scale == NULL || in->codes.zero == NULL)
			return err_nomem(e, "integers", 9 * t * k);
		in->cap = t * k;
	}
	return 0;
}

/* ---- products -------------------------------------------------------------------- */

struct int_job {
	const struct int_linear *l;
	const struct int_input *in;
	const float *bias;
	float *y;
	size_t t, r;   /* r: the run at hand */
	int add;
};

static void int_task(void *ctx, size_t task, int thread)
{
	const struct int_job *j = ctx;
	const struct int_linear *l = j->l;
	const struct int_input *in = j->in;
	const size_t at = j->r * l->run, n = l->n;
	const size_t ga = at / (l->k / in->groups), gw = at / l->group;
	const int32_t *sums = packed_i8_sums(l->w[j->r]);

	(void)thread;
	for (size_t i = task * ROWS; i < j->t && i < (task + 1) * ROWS; i++) {
		const float sx = in->codes.scale[i * in->groups + ga];
		const int64_t zx = in->codes.zero[i * in->groups + ga];
		const int8_t *q = in->codes.code + i * l->k + at;
		float *y = j->y + i * n;
		int64_t sum = 0;

		for (size_t c = 0; c < l->run; c++)
			sum += q[c];
		for (size_t c = 0; c < n; c++) {
			const int64_t zw = l->zero[c * l->groups + gw];
			const int64_t v = in->product[i * n + c] - zx * sums[c] - zw * sum +
					  (int64_t)l->run * zx * zw;
			const float had = j->r > 0 || j->add ? y[c] : 0;

			y[c] = had + (j->r == 0 && j->bias != NULL ? j->bias[c] : 0) +
			       (float)((double)v * sx * l->scale[c * l->groups + gw]);
		}
	}
}

int int_linear_run(struct forward *f, const struct int_linear *l, float *y, size_t t,
		   const float *bias, int add, struct err *e)
{
	struct int_input *in = &f->in;
	struct int_job j = { l, in, bias, y, t, 0, add };

	if (t * l->n > in->product_cap) {
		free(in->product);
		in->product_cap = 0;
		in->product = malloc(t * l->n * sizeof(*in->product));
		if (in->product == NULL)
			return err_nomem(e, "integers", t * l->n * sizeof(*in->product));
		in->product_cap = t * l->n;
	}
	for (; j.r < l->runs; j.r++) {
		if (f->be->ops->linear_i8(f->be, in->product, l->n, in->codes.code + j.r * l->run,
					  l->k, t, l->w[j.r], e) < 0)
			return -1;
		pool_run(f->be->pool, (t + ROWS - 1) / ROWS, int_task, &j);
	}
	return 0;
}
