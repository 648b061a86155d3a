/* SPDX-License-Identifier: Apache-2.0 */
/* cpu_attention.c - softmax attention, a tile of queries of a head a task */
#include "lib/compute/cpu.h"

struct attention_job {
	struct cpu *cpu;
	const struct attention_shape *s;
	float *o;
	const float *q, *k, *v;
	size_t tiles; /* of a head */
};

static void attention_task(void *ctx, size_t task, int thread)
{
	const struct attention_job *j = ctx;
	const struct attention_shape *s = j->s;
	size_t heads = (size_t)s->heads, d = (size_t)s->head_dim;
	size_t tile = j->tiles - 1 - task / (s->nseq * heads); /* the longest first */
	size_t seq = task / heads % s->nseq, head = task % heads;
	size_t kv = seq * s->seqlen * s->ldkv + head / (heads / (size_t)s->kv_heads) * d;
	size_t q0 = tile * VEC_QUERIES, row = seq * s->seqlen + q0;
	struct attend t = {
		.q = j->q + row * s->ldq + head * d,
		.k = j->k + kv,
		.v = j->v + kv,
		.o = j->o + row * s->ldo + head * d,
		.ldq = s->ldq,
		.ldkv = s->ldkv,
		.ldo = s->ldo,
		.d = d,
		.seqlen = s->seqlen,
		.q0 = q0,
		.nq = s->seqlen - q0 < VEC_QUERIES ? s->seqlen - q0 : VEC_QUERIES,
		.window = s->window,
		.scale = s->scale,
		.causal = s->causal,
		.past = s->past,
		.past_k = s->past_k + (s->past ? head / (heads / (size_t)s->kv_heads) * d : 0),
		.past_v = s->past_v + (s->past ? head / (heads / (size_t)s->kv_heads) * d : 0),
		.begin = s->begin ? s->begin + q0 : NULL,
	};

	j->cpu->vec->attend(&t, j->cpu->scratch[thread]);
}

int cpu_attention(struct backend *b, float *o, const float *q, const float *k, const float *v,
		  const struct attention_shape *s, struct err *e)
{
	struct attention_job j = {
		cpu_of(b), s, o, q, k, v, (s->seqlen + VEC_QUERIES - 1) / VEC_QUERIES,
	};

	if (s->heads < 1 || s->kv_heads < 1 || s->heads % s->kv_heads || s->head_dim < 1)
		return err_set(e, ERR_BUG, "", "attention: %d heads on %d of size %d", s->heads,
			       s->kv_heads, s->head_dim);
	if ((s->past || s->begin) && (s->nseq > 1 || !s->causal || !s->begin))
		return err_set(e, ERR_BUG, "", "attention: branches of %zu sequences", s->nseq);
	if (s->extra != NULL)
		return cpu_attention_plain(b, o, q, k, v, s, e);
	if (cpu_scratch(b, VEC_ATTEND_WORK(s->head_dim) * sizeof(float), e) < 0)
		return -1;
	if (s->nseq && s->seqlen)
		pool_run(b->pool, s->nseq * (size_t)s->heads * j.tiles, attention_task, &j);
	return 0;
}
