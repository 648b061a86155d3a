/* SPDX-License-Identifier: Apache-2.0 */
/* cpu_hadamard.c - vectors turned by a Hadamard matrix, slices of them in parallel */
#include <stdlib.h>

#include "lib/compute/cpu.h"
#include "lib/compute/hadamard.h"

#define SLICE_VALUES 65536 /* a task: waking a thread for less does not pay */

struct turn_job {
	const struct hadamard *h;
	float *x, *work; /* work [threads, order] */
	size_t vectors, slice;
};

static void turn_task(void *ctx, size_t task, int thread)
{
	const struct turn_job *j = ctx;
	const size_t n = hadamard_order(j->h), from = task * j->slice;
	const size_t to = from + j->slice < j->vectors ? from + j->slice : j->vectors;

	for (size_t i = from; i < to; i++)
		hadamard_f32(j->h, j->x + i * n, false, j->work + (size_t)thread * n);
}

int cpu_hadamard(struct backend *b, float *x, size_t n, const struct hadamard *h, struct err *e)
{
	const size_t order = hadamard_order(h);
	const size_t need = (size_t)pool_threads(b->pool) * order;
	struct turn_job j = { .h = h, .x = x, .vectors = n / order };

	if (n % order)
		return err_set(e, ERR_BUG, "hadamard", "%zu values by order %zu", n, order);
	j.slice = order < SLICE_VALUES ? SLICE_VALUES / order : 1;
	j.work = malloc(need * sizeof(*j.work));
	if (!j.work)
		return err_nomem(e, "hadamard", need * sizeof(*j.work));
	pool_run(b->pool, (j.vectors + j.slice - 1) / j.slice, turn_task, &j);
	free(j.work);
	return 0;
}
