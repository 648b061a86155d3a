/* SPDX-License-Identifier: Apache-2.0 */
/* cpu_rows.c - rows picked out of a matrix and added back into one, slices of rows in parallel */
#include <string.h>

#include "lib/compute/cpu.h"

#define SLICE_VALUES 65536 /* a task: waking a thread for less does not pay */

struct rows_job {
	float *y;
	const float *x, *weight; /* weight NULL: gather */
	const uint32_t *index;
	size_t n, d, rows;
};

static void rows_task(void *ctx, size_t task, int thread)
{
	const struct rows_job *j = ctx;
	size_t from = task * j->rows;
	size_t to = from + j->rows < j->n ? from + j->rows : j->n;

	(void)thread;
	for (size_t i = from; i < to; i++) {
		const size_t at = j->index ? j->index[i] : i;
		const float *x = j->x + i * j->d;
		float *y = j->y + at * j->d;

		if (!j->weight) {
			memcpy(j->y + i * j->d, j->x + at * j->d, j->d * sizeof(*y));
			continue;
		}
		for (size_t k = 0; k < j->d; k++)
			y[k] += j->weight[i] * x[k];
	}
}

static void rows_run(struct backend *b, struct rows_job *j)
{
	j->rows = j->d < SLICE_VALUES ? SLICE_VALUES / (j->d ? j->d : 1) : 1;
	if (j->n && j->d)
		pool_run(b->pool, (j->n + j->rows - 1) / j->rows, rows_task, j);
}

int cpu_gather(struct backend *b, float *y, const float *x, const uint32_t *index, size_t n,
	       size_t d, struct err *e)
{
	struct rows_job j = { .y = y, .x = x, .index = index, .n = n, .d = d };

	(void)e;
	rows_run(b, &j);
	return 0;
}

int cpu_scatter_add(struct backend *b, float *y, const float *x, const uint32_t *index,
		    const float *weight, size_t n, size_t d, struct err *e)
{
	struct rows_job j = { .y = y, .x = x, .index = index, .weight = weight, .n = n, .d = d };

	(void)e;
	rows_run(b, &j);
	return 0;
}
