/* SPDX-License-Identifier: Apache-2.0 */
/* cpu_act.c - activations, losses and column statistics */
#include "lib/compute/cpu.h"

#define GATE_SLICE   65536
#define NLL_VALUES   65536
#define STAT_COLUMNS 128

struct gate_job {
	const struct vec_ops *vec;
	float *y;
	const float *gate, *up;
	size_t n;
	enum act_fn act;
};

static void gate_task(void *ctx, size_t task, int thread)
{
	const struct gate_job *j = ctx;
	size_t i = task * GATE_SLICE;
	size_t n = j->n - i < GATE_SLICE ? j->n - i : GATE_SLICE;

	(void)thread;
	j->vec->gate(j->y + i, j->gate ? j->gate + i : NULL, j->up + i, n, j->act);
}

int cpu_gate(struct backend *b, float *y, const float *gate, const float *up, size_t n,
	     enum act_fn act, struct err *e)
{
	struct gate_job j = { cpu_of(b)->vec, y, gate, up, n, act };

	(void)e;
	if (n)
		pool_run(b->pool, (n + GATE_SLICE - 1) / GATE_SLICE, gate_task, &j);
	return 0;
}

struct nll_job {
	const struct vec_ops *vec;
	double *nll;
	const float *logits;
	size_t n, vocab, rows;
	const int32_t *target;
};

static void nll_task(void *ctx, size_t task, int thread)
{
	const struct nll_job *j = ctx;
	size_t to = (task + 1) * j->rows < j->n ? (task + 1) * j->rows : j->n;

	(void)thread;
	for (size_t i = task * j->rows; i < to; i++) {
		const float *row = j->logits + i * j->vocab;

		j->nll[i] = 0.0;
		if (j->target[i] >= 0)
			j->nll[i] = j->vec->logsumexp(row, j->vocab) - row[j->target[i]];
	}
}

int cpu_nll(struct backend *b, double *nll, const float *logits, size_t n, size_t vocab,
	    const int32_t *target, struct err *e)
{
	struct nll_job j = { cpu_of(b)->vec, nll, logits, n, vocab, 1, target };

	for (size_t i = 0; i < n; i++)
		if (target[i] >= 0 && (size_t)target[i] >= vocab)
			return err_set(e, ERR_DATA, "", "token %d is not in a vocabulary of %zu",
				       (int)target[i], vocab);
	if (vocab < NLL_VALUES)
		j.rows = NLL_VALUES / (vocab ? vocab : 1);
	if (n)
		pool_run(b->pool, (n + j.rows - 1) / j.rows, nll_task, &j);
	return 0;
}

struct stat_job {
	const struct vec_ops *vec;
	const float *x;
	size_t t, k;
	float *absmax, *min, *max;
	double *abssum;
};

static void stat_task(void *ctx, size_t task, int thread)
{
	const struct stat_job *j = ctx;
	size_t c = task * STAT_COLUMNS;
	size_t n = j->k - c < STAT_COLUMNS ? j->k - c : STAT_COLUMNS;

	(void)thread;
	j->vec->colstats(j->x + c, j->k, j->t, n, j->absmax ? j->absmax + c : NULL,
			 j->abssum ? j->abssum + c : NULL, j->min ? j->min + c : NULL,
			 j->max ? j->max + c : NULL);
}

int cpu_colstats(struct backend *b, const float *x, size_t t, size_t k, float *absmax,
		 double *abssum, float *min, float *max, struct err *e)
{
	struct stat_job j = { cpu_of(b)->vec, x, t, k, absmax, min, max, abssum };

	(void)e;
	if (t && k)
		pool_run(b->pool, (k + STAT_COLUMNS - 1) / STAT_COLUMNS, stat_task, &j);
	return 0;
}
