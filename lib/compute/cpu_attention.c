/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cpu_attention.c - softmax attention, a tile of queries of a head a task
 *
 * Where linears multiply bf16 and there are kernels for it, so does attention, but for branches of
 * a past: keys and values become blocks of units first, a block a task.
 */
#include <string.h>

#include "lib/compute/cpu.h"

struct attention_job {
	struct cpu *cpu;
	const struct attention_shape *s;
	float *o;
	const float *q, *k, *v;
	size_t tiles; /* of a head */
	size_t blocks, size; /* of a head's keys; units of a block.  0: f32 */
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

#ifdef VEC_X86
	if (j->blocks) {
		kv = (seq * (size_t)s->kv_heads + head / (heads / (size_t)s->kv_heads)) * j->blocks;
		bf16_attend(&t, j->cpu->set.bf16, (uint32_t *)j->cpu->shared + kv * j->size,
			    j->cpu->scratch[thread]);
		return;
	}
#endif
	j->cpu->vec->attend(&t, j->cpu->scratch[thread]);
}

#ifdef VEC_X86
static void block_task(void *ctx, size_t task, int thread)
{
	const struct attention_job *j = ctx;
	const struct attention_shape *s = j->s;
	size_t kv_heads = (size_t)s->kv_heads, d = (size_t)s->head_dim;
	size_t head = task / j->blocks % kv_heads, seq = task / j->blocks / kv_heads;
	size_t at = seq * s->seqlen * s->ldkv + head * d;
	struct attend t = { .k = j->k + at, .v = j->v + at, .ldkv = s->ldkv, .d = d,
			    .seqlen = s->seqlen };

	bf16_block(&t, j->cpu->set.bf16, task % j->blocks * BF16_KEYS,
		   (uint32_t *)j->cpu->shared + task * j->size, j->cpu->scratch[thread]);
}

/* Keys and values of all heads to blocks. */
static int make_blocks(struct backend *b, struct attention_job *j, struct err *e)
{
	const struct attention_shape *s = j->s;
	size_t d = (size_t)s->head_dim, units = BF16_UNITS(d, j->cpu->set.bf16->multiple), all;

	j->blocks = (s->seqlen + BF16_KEYS - 1) / BF16_KEYS;
	j->size = BF16_BLOCK(d, units);
	all = s->nseq * (size_t)s->kv_heads * j->blocks;
	if (cpu_scratch(b, BF16_WORK(d, units) * sizeof(float), e) < 0 ||
	    cpu_shared(b, (all * j->size + BF16_SLACK) * sizeof(uint32_t), e) < 0)
		return -1;
	pool_run(b->pool, all, block_task, j);
	memset((uint32_t *)j->cpu->shared + all * j->size, 0, BF16_SLACK * sizeof(uint32_t));
	return 0;
}
#endif

int cpu_attention(struct backend *b, float *o, const float *q, const float *k, const float *v,
		  const struct attention_shape *s, struct err *e)
{
	struct attention_job j = {
		cpu_of(b), s, o, q, k, v, (s->seqlen + VEC_QUERIES - 1) / VEC_QUERIES, 0, 0,
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
#ifdef VEC_X86
	if (b->compute == COMPUTE_BF16 && j.cpu->set.bf16 && !s->past && !s->begin &&
	    make_blocks(b, &j, e) < 0)
		return -1;
#endif
	if (s->nseq && s->seqlen)
		pool_run(b->pool, s->nseq * (size_t)s->heads * j.tiles, attention_task, &j);
	return 0;
}
