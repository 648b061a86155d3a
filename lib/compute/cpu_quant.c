/* SPDX-License-Identifier: Apache-2.0 */
/* cpu_quant.c - rows quantized and back, or scaled: slices of rows in parallel */
#include <stdatomic.h>
#include <stdlib.h>

#include "lib/compute/cpu.h"
#include "lib/compute/quant.h"

#define SLICE_VALUES 32768 /* a task: waking a thread for less does not pay */

struct quant_job {
	const struct quant *q;
	const struct quant_codes *codes; /* or NULL */
	float *y;
	const float *x;
	size_t t, k, rows;  /* rows: in a task */
	bool together;      /* the rows of a task share a grid */
	atomic_size_t bad;  /* the first value that is not finite, SIZE_MAX: none */
};

static void report(struct quant_job *j, size_t at)
{
	size_t was = atomic_load(&j->bad);

	while (at < was && !atomic_compare_exchange_weak(&j->bad, &was, at))
		;
}

static void quant_task(void *ctx, size_t task, int thread)
{
	struct quant_job *j = ctx;
	const size_t from = task * j->rows, to = from + j->rows < j->t ? from + j->rows : j->t;
	const size_t groups = j->together ? 1 : quant_groups(j->q, j->k);
	size_t at;

	(void)thread;
	for (size_t i = from; i < to; i += j->together ? j->rows : 1) {
		const size_t n = j->together ? (to - i) * j->k : j->k;
		struct quant_codes row, *codes = NULL;

		if (j->codes != NULL) {
			row = (struct quant_codes){ j->codes->code + i * j->k,
						    j->codes->scale + i * groups,
						    j->codes->zero + i * groups };
			codes = &row;
		}
		if (quant_row(j->q, j->y + i * j->k, j->x + i * j->k, n, codes, &at) < 0) {
			report(j, i * j->k + at);
			return;
		}
		for (size_t r = i + 1; codes != NULL && j->together && r < to; r++) {
			j->codes->scale[r] = row.scale[0];
			j->codes->zero[r] = row.zero[0];
		}
	}
}

int cpu_quantize(struct backend *b, float *y, const float *x, size_t t, size_t k, size_t seqlen,
		 const struct quant *q, const struct quant_codes *codes, struct err *e)
{
	struct quant_job j = { .q = q, .codes = codes, .y = y, .x = x, .t = t, .k = k,
			       .together = q->per == QUANT_TENSOR && q->fixed == NULL };

	if (t == 0 || k == 0)
		return 0;
	if ((q->per == QUANT_GROUP && (q->group == 0 || k % q->group)) ||
	    (j.together && (seqlen == 0 || t % seqlen)))
		return err_set(e, ERR_BUG, "", "quantize: %zu rows of %zu in %zu", t, k, seqlen);
	atomic_init(&j.bad, SIZE_MAX);
	j.rows = j.together ? seqlen : SLICE_VALUES / k > 0 ? SLICE_VALUES / k : 1;
	pool_run(b->pool, (t + j.rows - 1) / j.rows, quant_task, &j);
	if (atomic_load(&j.bad) == SIZE_MAX)
		return 0;
	return err_set(e, ERR_DATA, "activations", "no grid holds the range at token %zu channel "
		       "%zu: not finite, or too narrow and far from 0",
		       atomic_load(&j.bad) / k, atomic_load(&j.bad) % k);
}

struct affine_job {
	float *y;
	const float *x, *w, *bias;
	size_t t, d, rows;
};

static void affine_task(void *ctx, size_t task, int thread)
{
	const struct affine_job *j = ctx;
	const size_t from = task * j->rows, to = from + j->rows < j->t ? from + j->rows : j->t;

	(void)thread;
	for (size_t i = from; i < to; i++)
		for (size_t k = 0; k < j->d; k++)
			j->y[i * j->d + k] += j->x[i * j->d + k] * j->w[k] + j->bias[k];
}

int cpu_affine(struct backend *b, float *y, const float *x, const float *w, const float *bias,
	       size_t t, size_t d, struct err *e)
{
	struct affine_job j = { y, x, w, bias, t, d, 1 };

	(void)e;
	if (t == 0 || d == 0)
		return 0;
	j.rows = SLICE_VALUES / d > 0 ? SLICE_VALUES / d : 1;
	pool_run(b->pool, (t + j.rows - 1) / j.rows, affine_task, &j);
	return 0;
}
