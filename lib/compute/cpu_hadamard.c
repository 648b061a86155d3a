/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cpu_hadamard.c - vectors turned by a Hadamard matrix K (x) S, slices of them in parallel
 *
 * A vector, as a matrix [k, 2^m], is multiplied by S from the right, then by K' from the left:
 * that is a linear of K's columns on panels of the vector.  Products by +-1 are exact.
 */
#include <math.h>
#include <string.h>

#include "lib/compute/cpu.h"
#include "lib/compute/hadamard.h"

#define SLICE_VALUES 65536 /* a task: waking a thread for less does not pay */

struct turn_job {
	struct cpu *cpu;
	size_t order, m, k;
	const float *kernel; /* [k, k], a row a column of K */
	float *x, scale;
	size_t vectors, slice;
};

static void turn(const struct turn_job *j, float *x, float *panel)
{
	float *y = panel + j->k * VEC_PANEL;

	j->cpu->vec->sylvester(x, j->m, j->order, j->scale);
	if (j->k == 1)
		return;
	memcpy(y, x, j->order * sizeof(*y));
	for (size_t c = 0; c < j->m; c += VEC_PANEL) {
		const size_t n = j->m - c < VEC_PANEL ? j->m - c : VEC_PANEL;

		for (size_t i = 0; i < j->k; i++)
			memcpy(panel + i * VEC_PANEL, y + i * j->m + c, n * sizeof(*y));
		j->cpu->vec->linear(x + c, j->m, j->kernel, j->k, j->k, panel, n, j->k, 0);
	}
}

static void turn_task(void *ctx, size_t task, int thread)
{
	const struct turn_job *j = ctx;
	const size_t from = task * j->slice;
	const size_t to = from + j->slice < j->vectors ? from + j->slice : j->vectors;

	for (size_t i = from; i < to; i++)
		turn(j, j->x + i * j->order, j->cpu->scratch[thread]);
}

int cpu_hadamard(struct backend *b, float *x, size_t n, const struct hadamard *h, struct err *e)
{
	const size_t order = hadamard_order(h), m = hadamard_pow2(h), k = order / m;
	struct turn_job j = {
		.cpu = cpu_of(b), .order = order, .m = m, .k = k, .x = x, .vectors = n / order,
		.scale = (float)(1 / sqrt((double)order)),
	};
	float *kernel;

	if (n % order)
		return err_set(e, ERR_BUG, "hadamard", "%zu values by order %zu", n, order);
	if (cpu_shared(b, k * k * sizeof(*x), e) < 0 ||
	    cpu_scratch(b, (order + k * VEC_PANEL) * sizeof(*x), e) < 0)
		return -1;
	kernel = j.cpu->shared;
	for (size_t i = 0; i < k; i++)
		for (size_t l = 0; l < k; l++)
			kernel[i * k + l] = (float)hadamard_entry(h, l * m, i * m);
	j.kernel = kernel;
	j.slice = order < SLICE_VALUES ? SLICE_VALUES / order : 1;
	pool_run(b->pool, (j.vectors + j.slice - 1) / j.slice, turn_task, &j);
	return 0;
}
