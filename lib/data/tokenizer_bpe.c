/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tokenizer_bpe.c - the table of merges, and where no merge can ever reach
 */
#include <stdlib.h>
#include <string.h>

#include "lib/data/tokenizer_bpe.h"

int tok_bpe_reserve(struct tokenizer *t, size_t nmerges, struct err *e)
{
	struct tok_bpe *b = &t->bpe;
	size_t slots = 64;

	while (slots < 2 * nmerges + 2)
		slots *= 2;
	b->merge = malloc(slots * sizeof(*b->merge));
	if (!b->merge)
		return err_nomem(e, "tokenizer", slots * sizeof(*b->merge));
	b->merge_mask = slots - 1;
	for (size_t i = 0; i < slots; i++)
		b->merge[i].key = BPE_FREE;
	return 0;
}

static int unknown_token(const char *s, size_t n, size_t rank, const char *where, struct err *e)
{
	return err_set(e, ERR_DATA, where, "merge %zu: '%.*s' is not in the vocabulary", rank,
		       (int)(n < 80 ? n : 80), s);
}

int tok_bpe_add(struct tokenizer *t, const char *a, size_t an, const char *b, size_t bn,
		const char *where, struct err *e)
{
	struct tok_bpe *bpe = &t->bpe;
	int32_t ia = tok_vocab_find(&t->vocab, a, an), ib = tok_vocab_find(&t->vocab, b, bn), id;
	struct tok_merge *m;
	char small[256], *joined = small;
	size_t n = an + bn - bpe->prefix_n;

	if (ia < 0)
		return unknown_token(a, an, bpe->n_merges, where, e);
	if (ib < 0)
		return unknown_token(b, bn, bpe->n_merges, where, e);
	if (bn < bpe->prefix_n)
		return err_set(e, ERR_DATA, where, "merge %zu: '%.*s' is shorter than the "
			       "continuing_subword_prefix", bpe->n_merges, (int)bn, b);
	if (n > sizeof(small) && !(joined = malloc(n)))
		return err_nomem(e, where, n);
	memcpy(joined, a, an);
	memcpy(joined + an, b + bpe->prefix_n, bn - bpe->prefix_n);
	id = tok_vocab_find(&t->vocab, joined, n);
	if (id < 0)
		(void)unknown_token(joined, n, bpe->n_merges, where, e);
	if (joined != small)
		free(joined);
	if (id < 0)
		return -1;
	if (id == ia || id == ib) /* a part is nothing but the prefix that the merge drops */
		return err_set(e, ERR_DATA, where, "merge %zu makes '%.*s' and '%.*s' one of the "
			       "two", bpe->n_merges, (int)(an < 80 ? an : 80), a,
			       (int)(bn < 80 ? bn : 80), b);
	m = merge_slot(bpe, ia, ib);
	*m = (struct tok_merge){ .key = pair_key(ia, ib), .rank = (uint32_t)bpe->n_merges++,
				 .id = id };
	return 0;
}

void tok_bpe_release(struct tok_bpe *b)
{
	free(b->merge);
	free(b->unk_token);
	free(b->prefix);
	free(b->suffix);
	free(b->char_id);
	free(b->near);
}

/* ---- where no merge reaches ------------------------------------------------------- */

static bool join_value(int32_t *to, int32_t from)
{
	int32_t v = *to == TOK_NONE || *to == from ? from : TOK_ANY;

	if (from == TOK_NONE || v == *to)
		return false;
	*to = v;
	return true;
}

/* Symbols that a text is cut into before any merge: single characters, byte tokens, unknown. */
static bool is_initial(const struct tokenizer *t, size_t id)
{
	const struct tok_entry *x = &t->vocab.entry[id];
	size_t len;

	if (!x->used || !x->len)
		return false;
	if ((int32_t)id == t->bpe.unk)
		return true;
	(void)tok_char(t->vocab.bytes.p + x->off, &len);
	if (len == x->len)
		return true;
	for (int b = 0; b < 256 && x->len == 6; b++)
		if (t->bpe.byte_id[b] == (int32_t)id)
			return t->bpe.byte_fallback;
	return false;
}

/*
 * left[id] and right[id]: the first and the last symbol, before any merge, of the text that
 * token id was merged from.  Merges (a, b) then only ever join texts where right[a] meets
 * left[b].  Tokens that come about in two ways with different ends make it unknown; the table
 * is then left out and texts are not cut.
 */
static int find_near(struct tokenizer *t, int32_t *left, int32_t *right, struct err *e)
{
	struct tok_bpe *b = &t->bpe;
	size_t slots = b->merge_mask + 1;
	bool changed = true;

	for (size_t id = 0; id < t->vocab.n; id++)
		left[id] = right[id] = is_initial(t, id) ? (int32_t)id : TOK_NONE;
	while (changed) {
		changed = false;
		for (size_t i = 0; i < slots; i++) {
			uint64_t key = b->merge[i].key;
			size_t x = (size_t)(key >> 32), y = (size_t)(key & UINT32_MAX);

			if (key == BPE_FREE || left[x] == TOK_NONE || left[y] == TOK_NONE)
				continue;
			changed |= join_value(&left[b->merge[i].id], left[x]);
			changed |= join_value(&right[b->merge[i].id], right[y]);
		}
	}
	b->near_mask = b->merge_mask;
	b->near = malloc(slots * sizeof(*b->near));
	if (!b->near)
		return err_nomem(e, "tokenizer", slots * sizeof(*b->near));
	memset(b->near, 0xff, slots * sizeof(*b->near));
	for (size_t i = 0; i < slots; i++) {
		uint64_t key = b->merge[i].key;
		size_t x = (size_t)(key >> 32), y = (size_t)(key & UINT32_MAX);

		if (key == BPE_FREE || right[x] == TOK_NONE || left[y] == TOK_NONE)
			continue;
		if (right[x] == TOK_ANY || left[y] == TOK_ANY) {
			free(b->near);
			b->near = NULL;
			return 0;
		}
		*near_slot(b, right[x], left[y]) = pair_key(right[x], left[y]);
	}
	return 0;
}

int tok_bpe_finish(struct tokenizer *t, struct err *e)
{
	struct tok_bpe *b = &t->bpe;
	struct tok_vocab *v = &t->vocab;
	int32_t *ends;
	int ret;

	b->char_id = malloc(65536 * sizeof(*b->char_id));
	if (!b->char_id)
		return err_nomem(e, "tokenizer", 65536 * sizeof(*b->char_id));
	memset(b->char_id, 0xff, 65536 * sizeof(*b->char_id));
	for (size_t id = 0; id < v->n; id++) {
		const struct tok_entry *x = &v->entry[id];
		size_t len = 0;
		uint32_t c;

		if (!x->used || x->extra || !x->len || x->len > 3)
			continue;
		c = tok_char(v->bytes.p + x->off, &len);
		if (len == x->len)
			b->char_id[c] = (int32_t)id;
	}
	tok_byte_ids(v, b->byte_id);
	b->unk = b->unk_token ? tok_vocab_find(v, b->unk_token, strlen(b->unk_token)) : -1;
	if (b->prefix_n || b->suffix_n) /* symbols then depend on their place */
		return 0;
	ends = malloc(2 * (v->n + 1) * sizeof(*ends));
	if (!ends)
		return err_nomem(e, "tokenizer", 2 * (v->n + 1) * sizeof(*ends));
	ret = find_near(t, ends, ends + v->n, e);
	free(ends);
	return ret;
}

