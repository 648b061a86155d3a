/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tokenizer_unigram.c - the segmentation of highest probability
 *
 * Kudo 2018, "Subword Regularization", section 3.2: a text's probability is the product of its
 * tokens', and Viterbi's algorithm finds the best of all segmentations.  A character without a
 * token may stand alone at a price.  The best path to a place that no token reaches across is
 * part of every path beyond, so it is written out there and forgotten: memory is that of the
 * longest stretch between such places.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/data/tokenizer_impl.h"

#define NODES ((size_t)1 << 28) /* what 28 bits can number */
#define NOWHERE UINT32_MAX
#define NONE SIZE_MAX

/* The best path to a place: its score, where its last token begins (from base), and its id. */
struct uni_best {
	double score;
	uint32_t from;
	int32_t id;
};

void tok_byte_ids(const struct tok_vocab *v, int32_t id[256])
{
	static const char hex[] = "0123456789ABCDEF";

	for (int i = 0; i < 256; i++) {
		char name[6] = { '<', '0', 'x', hex[i >> 4], hex[i & 15], '>' };

		id[i] = tok_vocab_find(v, name, sizeof(name));
	}
}

/* ---- the trie --------------------------------------------------------------------- */

static uint64_t edge_key(uint32_t node, unsigned char byte)
{
	return (uint64_t)node << 8 | byte;
}

static size_t edge_slot(const struct tok_unigram *u, uint64_t key)
{
	const uint64_t h = key * 0x9e3779b97f4a7c15u;
	size_t i = (size_t)(h ^ h >> 32) & u->edge_mask;

	while (u->edge[i] && u->edge[i] >> 28 != key)
		i = (i + 1) & u->edge_mask;
	return i;
}

static uint32_t child(const struct tok_unigram *u, uint32_t node, unsigned char byte)
{
	return (uint32_t)(u->edge[edge_slot(u, edge_key(node, byte))] & (NODES - 1));
}

/* Room for as many nodes; the table is at most half full. */
static int trie_grow(struct tok_unigram *u, size_t nodes, const char *where, struct err *e)
{
	const size_t slots = 2 * nodes, old = u->edge ? u->edge_mask + 1 : 0;
	uint64_t *edge = calloc(slots, sizeof(*edge)), *was = u->edge;
	int32_t *token = realloc(u->token, nodes * sizeof(*token));

	if (token)
		u->token = token;
	if (!edge || !token) {
		free(edge);
		return err_nomem(e, where, slots * sizeof(*edge) + nodes * sizeof(*token));
	}
	u->edge = edge;
	u->edge_mask = slots - 1;
	for (size_t i = 0; i < old; i++)
		if (was[i])
			edge[edge_slot(u, was[i] >> 28)] = was[i];
	free(was);
	return 0;
}

static int trie_put(struct tok_unigram *u, const char *s, size_t n, int32_t id, const char *where,
		    struct err *e)
{
	uint32_t at = 0;

	for (size_t i = 0; i < n; i++) {
		const unsigned char byte = (unsigned char)s[i];
		uint32_t next = i ? child(u, at, byte) : u->first[byte];

		if (!next) {
			if (u->nodes == NODES)
				return err_set(e, ERR_DATA, where, "too many tokens");
			if (2 * u->nodes == u->edge_mask + 1 &&
			    trie_grow(u, 2 * u->nodes, where, e))
				return -1;
			next = (uint32_t)u->nodes++;
			u->token[next] = -1;
			if (i) {
				const uint64_t key = edge_key(at, byte);

				u->edge[edge_slot(u, key)] = key << 28 | next;
			} else {
				u->first[byte] = next;
			}
		}
		at = next;
	}
	u->token[at] = id;
	return 0;
}

int tok_unigram_finish(struct tokenizer *t, double *score, const bool *unused, const char *where,
		       struct err *e)
{
	struct tok_unigram *u = &t->uni;

	t->model = MODEL_UNIGRAM;
	u->score = score;
	if (trie_grow(u, 1024, where, e))
		return -1;
	u->token[0] = -1;
	u->nodes = 1; /* the root */
	for (size_t id = 0; id < t->vocab.n; id++) {
		const struct tok_entry *x = &t->vocab.entry[id];

		if (x->used && x->len && !x->extra && !(unused && unused[id]) &&
		    trie_put(u, t->vocab.bytes.p + x->off, x->len, (int32_t)id, where, e))
			return -1;
	}
	tok_byte_ids(&t->vocab, u->byte_id);
	return 0;
}

void tok_unigram_release(struct tok_unigram *u)
{
	free(u->score);
	free(u->edge);
	free(u->token);
}

/* ---- the best path ---------------------------------------------------------------- */

void uni_run_release(struct uni_run *r)
{
	free(r->best);
	free(r->step);
}

static int best_reserve(struct uni_run *r, size_t n, struct err *e)
{
	size_t cap = r->cap ? r->cap : 256;
	struct uni_best *v;

	if (n <= r->cap)
		return 0;
	while (cap < n)
		cap += cap / 2;
	v = realloc(r->best, cap * sizeof(*v));
	if (!v)
		return err_nomem(e, "tokenizer", cap * sizeof(*v));
	r->best = v;
	r->cap = cap;
	return 0;
}

/* What is left of a piece: where its undecided part begins, how far from there tokens reach, and
 * the unknown characters that wait for the end of their run. */
struct path {
	const char *s;
	size_t base, reach;
	size_t unk_begin, unk_end; /* NONE: none wait */
};

/* A token that ends at `end` (from base) at this score. */
static int offer(struct uni_run *r, struct path *p, size_t end, double score, size_t from,
		 int32_t id, struct err *e)
{
	struct uni_best *b;

	if (end > p->reach) {
		if (best_reserve(r, end + 1, e))
			return -1;
		for (size_t i = p->reach + 1; i <= end; i++)
			r->best[i].from = NOWHERE;
		p->reach = end;
	}
	b = &r->best[end];
	if (r->t->uni.single)
		score = (double)(float)score;
	if (b->from == NOWHERE || score > b->score) {
		b->score = score;
		b->from = (uint32_t)from;
		b->id = id;
	}
	return 0;
}

static int no_token(const char *s, struct err *e)
{
	size_t len;

	return err_set(e, ERR_DATA, "tokenizer", "U+%04X has no token and there is no unknown "
		       "token", (unsigned)tok_char(s, &len));
}

/* All tokens that begin at i (from base). */
static int extend(struct uni_run *r, struct path *p, size_t i, size_t n, struct err *e)
{
	const struct tok_unigram *u = &r->t->uni;
	const double till = r->best[i].score;
	const char *s = p->s + p->base;
	uint32_t node = u->first[(unsigned char)s[i]];
	bool alone = false;
	size_t len;

	(void)tok_char(s + i, &len);
	for (size_t k = i + 1; node; k++) {
		const int32_t id = u->token[node];

		if (id >= 0) {
			if (offer(r, p, k, u->score[id] + till, i, id, e))
				return -1;
			alone = alone || k == i + len;
		}
		if (k == n)
			break;
		node = child(u, node, (unsigned char)s[k]);
	}
	if (alone)
		return 0;
	if (u->unk < 0)
		return no_token(s + i, e);
	return offer(r, p, i + len, u->unk_score + till, i, u->unk, e);
}

/* The unknown characters that wait: a token if by chance they are one (as in tokenizers), or
 * bytes, or one unknown token. */
static int put_unknown(struct uni_run *r, struct path *p, struct ids *out, struct err *e)
{
	const struct tok_unigram *u = &r->t->uni;
	bool bytes = u->byte_fallback;
	const char *s;
	int32_t id;
	size_t n;

	if (p->unk_begin == NONE)
		return 0;
	s = p->s + p->unk_begin;
	n = p->unk_end - p->unk_begin;
	p->unk_begin = NONE;
	id = u->single ? -1 : tok_model_find(&r->t->vocab, s, n);
	if (id >= 0)
		return ids_push(out, id, e);
	for (size_t i = 0; i < n && bytes; i++)
		bytes = u->byte_id[(unsigned char)s[i]] >= 0;
	if (!bytes)
		return ids_push(out, u->unk, e);
	for (size_t i = 0; i < n; i++)
		if (ids_push(out, u->byte_id[(unsigned char)s[i]], e))
			return -1;
	return 0;
}

/* Write out the best path to base + end, which becomes the base. */
static int settle(struct uni_run *r, struct path *p, size_t end, struct ids *out, struct err *e)
{
	size_t n = 0;

	for (size_t at = end; at; at = r->best[at].from) {
		if (n == r->step_cap) {
			const size_t cap = n ? 2 * n : 64;
			struct uni_step *v = realloc(r->step, cap * sizeof(*v));

			if (!v)
				return err_nomem(e, "tokenizer", cap * sizeof(*v));
			r->step = v;
			r->step_cap = cap;
		}
		r->step[n++] = (struct uni_step){ p->base + r->best[at].from, p->base + at,
						  r->best[at].id };
	}
	while (n--) {
		const struct uni_step *x = &r->step[n];

		if (x->id == r->t->uni.unk) {
			if (p->unk_begin == NONE)
				p->unk_begin = x->begin;
			p->unk_end = x->end;
		} else if (put_unknown(r, p, out, e) || ids_push(out, x->id, e)) {
			return -1;
		}
	}
	r->best[0].score = r->best[end].score;
	p->base += end;
	p->reach = 0;
	return 0;
}

int uni_run_piece(struct uni_run *r, const char *s, size_t n, struct ids *out, struct err *e)
{
	struct path p = { .s = s, .unk_begin = NONE };
	size_t len;

	if (n >= NOWHERE)
		return err_set(e, ERR_DATA, "tokenizer", "a piece of %zu bytes is too long", n);
	if (best_reserve(r, 2, e))
		return -1;
	r->best[0].score = 0;
	for (size_t i = 0; i < n; i += len) {
		(void)tok_char(s + i, &len);
		if (i > p.base && i - p.base == p.reach && settle(r, &p, p.reach, out, e))
			return -1;
		if (extend(r, &p, i - p.base, n - p.base, e))
			return -1;
	}
	if (n > p.base && settle(r, &p, n - p.base, out, e))
		return -1;
	return put_unknown(r, &p, out, e);
}
