/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cpu_hadamard.c - vectors turned by a Hadamard matrix K (x) S, slices of them in parallel
 *
 * A vector, as a matrix [k, 2^m], is multiplied by S from the right, then by K' from the left.
 */
#include <math.h>
#include <string.h>

#include "lib/compute/cpu.h"
#include "lib/compute/hadamard.h"

#define SLICE_VALUES 65536 /* a task: waking a thread for less does not pay */

struct turn_job {
	struct cpu *cpu;
	size_t order, m, k;
	const uint8_t *signs; /* [k / 4, k], of K (vec.h) */
	float *x, scale;
	size_t vectors, slice;
};

static void turn(const struct turn_job *j, float *x, float *work)
{
	j->cpu->vec->sylvester(x, j->m, j->order, j->scale);
	if (j->k > 1)
		j->cpu->vec->signs(x, j->m, j->signs, j->k, work);
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
	uint8_t *signs;

	if (n % order)
		return err_set(e, ERR_BUG, "hadamard", "%zu values by order %zu", n, order);
	if (cpu_shared(b, k * k / 4 + 1, e) < 0 ||
	    cpu_scratch(b, VEC_SIGNS_WORK(k) * sizeof(*x), e) < 0)
		return -1;
	signs = j.cpu->shared;
	memset(signs, 0, k * k / 4);
	for (size_t i = 0; k > 1 && i < k; i++)
		for (size_t l = 0; l < k; l++)
			signs[i / 4 * k + l] |= (hadamard_entry(h, i * m, l * m) < 0) << i % 4;
	j.signs = signs;
	j.slice = order < SLICE_VALUES ? SLICE_VALUES / order : 1;
	pool_run(b->pool, (j.vectors + j.slice - 1) / j.slice, turn_task, &j);
	return 0;
}
