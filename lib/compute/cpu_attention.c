/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cpu_attention.c - softmax attention, one thread a tile of queries of a head
 *
 * A tile of QUERIES queries meets the keys it may see, by one matrix product into
 * the thread's scratch; so at most QUERIES x seqlen scores exist a thread.
 */
#include <cblas.h>
#include <string.h>

#include "lib/compute/cpu.h"

#define QUERIES 128

struct attention_job {
	struct cpu *cpu;
	const struct attention_shape *s;
	float *o;
	const float *q, *k, *v;
	size_t tiles; /* of a head */
};

/* Keys [lo, hi) that query i may see. */
static void key_range(const struct attention_shape *s, size_t i, size_t *lo, size_t *hi)
{
	*hi = s->causal || s->window ? i + 1 : s->seqlen;
	*lo = s->window && i >= s->window ? i - s->window + 1 : 0;
}

static void attention_task(void *ctx, size_t task, int thread)
{
	const struct attention_job *j = ctx;
	const struct attention_shape *s = j->s;
	size_t heads = (size_t)s->heads, d = (size_t)s->head_dim;
	size_t tile = j->tiles - 1 - task / (s->nseq * heads); /* the longest first */
	size_t seq = task / heads % s->nseq, head = task % heads;
	size_t kvhead = head / (heads / (size_t)s->kv_heads);
	size_t q0 = tile * QUERIES, row0 = seq * s->seqlen;
	size_t nq = s->seqlen - q0 < QUERIES ? s->seqlen - q0 : QUERIES;
	const float *k = j->k + row0 * s->ldkv + kvhead * d;
	const float *v = j->v + row0 * s->ldkv + kvhead * d;
	float *o = j->o + (row0 + q0) * s->ldo + head * d;
	float *p = j->cpu->scratch[thread];
	float inv[QUERIES];
	size_t k0, k1, unused, lo, hi, n;

	key_range(s, q0, &k0, &unused);
	key_range(s, q0 + nq - 1, &unused, &k1);
	n = k1 - k0;
	cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (blasint)nq, (blasint)n, (blasint)d,
		    s->scale, j->q + (row0 + q0) * s->ldq + head * d, (blasint)s->ldq,
		    k + k0 * s->ldkv, (blasint)s->ldkv, 0.0f, p, (blasint)n);
	for (size_t i = 0; i < nq; i++) {
		float *row = p + i * n;

		key_range(s, q0 + i, &lo, &hi);
		memset(row, 0, (lo - k0) * sizeof(*row));
		inv[i] = 1.0f / j->cpu->vec->softexp(row + lo - k0, hi - lo);
		memset(row + hi - k0, 0, (k1 - hi) * sizeof(*row));
	}
	cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (blasint)nq, (blasint)d, (blasint)n,
		    1.0f, p, (blasint)n, v + k0 * s->ldkv, (blasint)s->ldkv, 0.0f, o,
		    (blasint)s->ldo);
	for (size_t i = 0; i < nq; i++)
		j->cpu->vec->scale(o + i * s->ldo, d, inv[i]);
}

int cpu_attention(struct backend *b, float *o, const float *q, const float *k, const float *v,
		  const struct attention_shape *s, struct err *e)
{
	struct attention_job j = { cpu_of(b), s, o, q, k, v, (s->seqlen + QUERIES - 1) / QUERIES };

	if (s->heads < 1 || s->kv_heads < 1 || s->heads % s->kv_heads || s->head_dim < 1)
		return err_set(e, ERR_BUG, "", "attention: %d heads on %d of size %d", s->heads,
			       s->kv_heads, s->head_dim);
	if (s->ldq > INT32_MAX || s->ldkv > INT32_MAX || s->ldo > INT32_MAX ||
	    s->seqlen > INT32_MAX)
		return err_set(e, ERR_BUG, "", "attention over %zu tokens is too large", s->seqlen);
	if (cpu_scratch(b, QUERIES * s->seqlen * sizeof(float), e) < 0)
		return -1;
	if (s->nseq && s->seqlen)
		pool_run(b->pool, s->nseq * (size_t)s->heads * j.tiles, attention_task, &j);
	return 0;
}
