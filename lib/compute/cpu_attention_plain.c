/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cpu_attention_plain.c - attention with a row of probabilities at a time in memory
 *
 * For what the tiles of cpu_attention.c cannot do: probabilities that are quantized, keys and
 * values of which a query reads the recent ones elsewhere.  A task is QUERIES queries of a head.
 */
#include <math.h>
#include <stdatomic.h>

#include "lib/compute/cpu.h"
#include "lib/compute/quant.h"

#define QUERIES 64

struct plain_job {
	struct cpu *cpu;
	const struct attention_shape *s;
	float *o;
	const float *q, *k, *v;
	size_t tiles;      /* of a head */
	atomic_bool bad;   /* a probability that is not finite */
};

/* Rows [from, to) of keys and values of one kind: those at `distance` or more before the query
 * are read from k and v, the others from recent_k and recent_v. */
struct rows {
	const float *k, *v, *recent_k, *recent_v;
	size_t from, to;
	size_t query;      /* the query stands at this row, or so far beyond */
};

static const float *pick(const struct rows *r, const struct attention_shape *s, size_t row,
			 const float *old, const float *recent)
{
	const size_t recently = s->extra->recent;

	return (recently > 0 && r->query < row + recently ? recent : old) + row * s->ldkv;
}

static float dot(const float *a, const float *b, size_t n)
{
	float lane[16] = { 0 }, sum = 0;
	size_t i = 0;

	for (; i + 16 <= n; i += 16)
		for (size_t l = 0; l < 16; l++)
			lane[l] += a[i + l] * b[i + l];
	for (; i < n; i++)
		lane[i % 16] += a[i] * b[i];
	for (size_t l = 0; l < 16; l++)
		sum += lane[l];
	return sum;
}

static void scores(float *p, const struct rows *r, const struct attention_shape *s, const float *q)
{
	for (size_t i = r->from; i < r->to; i++)
		*p++ = dot(q, pick(r, s, i, r->k, r->recent_k), (size_t)s->head_dim) * s->scale;
}

static void weigh(float *o, const float *p, const struct rows *r, const struct attention_shape *s)
{
	for (size_t i = r->from; i < r->to; i++, p++) {
		const float *v = pick(r, s, i, r->v, r->recent_v);

		for (size_t l = 0; l < (size_t)s->head_dim; l++)
			o[l] += *p * v[l];
	}
}

static void soften(float *p, size_t n)
{
	float most = p[0], sum = 0;

	for (size_t i = 1; i < n; i++)
		most = p[i] > most ? p[i] : most;
	for (size_t i = 0; i < n; i++) {
		p[i] = expf(p[i] - most);
		sum += p[i];
	}
	for (size_t i = 0; i < n; i++)
		p[i] /= sum;
}

/* Query i of its sequence: which of the past and of its own rows it sees. */
static void seen(const struct attention_shape *s, size_t i, struct rows *past, struct rows *own)
{
	const size_t begin = s->begin != NULL ? s->begin[i] : 0;
	const size_t reach = s->window > 0 ? s->window : SIZE_MAX; /* itself included */

	own->query = i;
	own->from = begin;
	own->to = s->causal || s->window > 0 ? i + 1 : s->seqlen;
	if (i - begin >= reach)
		own->from = i + 1 - reach;
	past->query = s->past + (i - begin);
	past->to = s->past;
	past->from = past->query >= reach ? past->query + 1 - reach : 0;
	if (past->from > past->to)
		past->from = past->to;
}

static void plain_task(void *ctx, size_t task, int thread)
{
	struct plain_job *j = ctx;
	const struct attention_shape *s = j->s;
	const struct attention_extra *x = s->extra;
	const size_t heads = (size_t)s->heads, d = (size_t)s->head_dim, head = task % heads;
	const size_t seq = task / heads % s->nseq, tile = j->tiles - 1 - task / (s->nseq * heads);
	const size_t at = head / (heads / (size_t)s->kv_heads) * d;
	const size_t first = seq * s->seqlen, kv = first * s->ldkv + at;
	const bool recent = x->recent > 0;
	struct rows past = { 0 }, own = {
		.k = j->k + kv, .v = j->v + kv,
		.recent_k = recent ? x->k + kv : NULL, .recent_v = recent ? x->v + kv : NULL,
	};
	float *p = j->cpu->scratch[thread];

	if (s->past > 0)
		past = (struct rows){
			.k = s->past_k + at, .v = s->past_v + at,
			.recent_k = recent ? x->past_k + at : NULL,
			.recent_v = recent ? x->past_v + at : NULL,
		};
	for (size_t i = tile * QUERIES; i < s->seqlen && i < (tile + 1) * QUERIES; i++) {
		const float *q = j->q + (first + i) * s->ldq + head * d;
		float *o = j->o + (first + i) * s->ldo + head * d;
		size_t n, unused;

		seen(s, i, &past, &own);
		n = past.to - past.from;
		scores(p, &past, s, q);
		scores(p + n, &own, s, q);
		soften(p, n + own.to - own.from);
		if (x->probs != NULL &&
		    quant_row(x->probs, p, p, n + own.to - own.from, NULL, &unused) < 0)
			atomic_store(&j->bad, true);
		for (size_t l = 0; l < d; l++)
			o[l] = 0;
		weigh(o, p, &past, s);
		weigh(o, p + n, &own, s);
	}
}

int cpu_attention_plain(struct backend *b, float *o, const float *q, const float *k,
			const float *v, const struct attention_shape *s, struct err *e)
{
	struct plain_job j = { .cpu = cpu_of(b), .s = s, .o = o, .q = q, .k = k, .v = v,
			       .tiles = (s->seqlen + QUERIES - 1) / QUERIES };

	if (cpu_scratch(b, (s->past + s->seqlen) * sizeof(float), e) < 0)
		return -1;
	atomic_init(&j.bad, false);
	if (s->nseq && s->seqlen)
		pool_run(b->pool, s->nseq * (size_t)s->heads * j.tiles, plain_task, &j);
	return !atomic_load(&j.bad) ? 0 :
	       err_set(e, ERR_DATA, "attention", "a probability is not finite");
}
