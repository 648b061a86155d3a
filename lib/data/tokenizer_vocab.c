/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tokenizer_vocab.c - texts of tokens to ids and back
 */
#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL /* most texts are a few bytes long */
#include <xxhash.h>

#include "lib/data/tokenizer_impl.h"

static size_t slots_for(size_t n)
{
	size_t slots = 64;

	while (slots < 2 * n)
		slots *= 2;
	return slots;
}

#define HIGH 0xffffffff00000000u

static const struct tok_entry *entry_of(const struct tok_vocab *v, uint64_t slot)
{
	return &v->entry[(uint32_t)slot - 1];
}

/* Where a text is, or the free slot where it would go: *free_slot is then what to put there, but
 * for the id + 1.  Entries are looked at only when half the hash agrees. */
static size_t slot_of(const struct tok_vocab *v, const char *s, size_t n, uint64_t *free_slot)
{
	const uint64_t hash = XXH3_64bits(s, n);
	size_t i = (size_t)hash & v->mask;

	for (; v->slot[i]; i = (i + 1) & v->mask) {
		const struct tok_entry *t;

		if ((v->slot[i] & HIGH) != (hash & HIGH))
			continue;
		t = entry_of(v, v->slot[i]);
		if (t->len == n && memcmp(v->bytes.p + t->off, s, n) == 0)
			break;
	}
	*free_slot = hash & HIGH;
	return i;
}

static int rehash(struct tok_vocab *v, size_t ntokens, struct err *e)
{
	size_t slots = slots_for(ntokens);
	uint64_t *slot = calloc(slots, sizeof(*slot)), high;

	if (!slot)
		return err_nomem(e, "tokenizer", slots * sizeof(*slot));
	free(v->slot);
	v->slot = slot;
	v->mask = slots - 1;
	for (size_t id = 0; id < v->n; id++)
		if (v->entry[id].used) {
			size_t i = slot_of(v, v->bytes.p + v->entry[id].off, v->entry[id].len,
					   &high);

			v->slot[i] = high | ((uint32_t)id + 1);
		}
	return 0;
}

int tok_vocab_reserve(struct tok_vocab *v, size_t ntokens, size_t nbytes, struct err *e)
{
	return rehash(v, ntokens, e) || tok_buf_reserve(&v->bytes, nbytes, e) ? -1 : 0;
}

static int grow(struct tok_vocab *v, size_t n, struct err *e)
{
	size_t cap = v->cap ? v->cap : 256;
	struct tok_entry *entry;

	if (n <= v->n)
		return 0;
	while (cap < n)
		cap += cap / 2;
	if (cap > v->cap) {
		entry = realloc(v->entry, cap * sizeof(*entry));
		if (!entry)
			return err_nomem(e, "tokenizer", cap * sizeof(*entry));
		v->entry = entry;
		v->cap = cap;
	}
	for (; v->n < n; v->n++)
		v->entry[v->n] = (struct tok_entry){ .added = -1 };
	return 0;
}

int tok_vocab_add(struct tok_vocab *v, const char *s, size_t n, int64_t id, const char *where,
		  struct err *e)
{
	struct tok_entry *t;
	uint64_t high;
	size_t i;

	if (id < 0 || id >= TOK_MAX_ID)
		return err_set(e, ERR_DATA, where, "token '%.*s' has id %lld, outside 0 to %lld",
			       (int)(n < 80 ? n : 80), s, (long long)id,
			       (long long)TOK_MAX_ID - 1);
	if ((!v->slot || 2 * (v->used + 1) > v->mask + 1) && rehash(v, 2 * v->used + 64, e))
		return -1;
	if (n > UINT32_MAX || grow(v, (size_t)id + 1, e))
		return n > UINT32_MAX ? err_nomem(e, where, n) : -1;
	t = &v->entry[id];
	if (t->used)
		return err_set(e, ERR_DATA, where, "tokens '%.*s' and '%.*s' have the same id %lld",
			       (int)(t->len < 80 ? t->len : 80), v->bytes.p + t->off,
			       (int)(n < 80 ? n : 80), s, (long long)id);
	i = slot_of(v, s, n, &high);
	if (v->slot[i])
		return err_set(e, ERR_DATA, where, "token '%.*s' is given twice",
			       (int)(n < 80 ? n : 80), s);
	t->off = v->bytes.n;
	if (tok_buf_add(&v->bytes, s, n, e))
		return -1;
	t->len = (uint32_t)n;
	t->used = true;
	v->slot[i] = high | ((uint32_t)id + 1);
	v->used++;
	return 0;
}

int32_t tok_vocab_find(const struct tok_vocab *v, const char *s, size_t n)
{
	uint64_t high;

	return v->slot ? (int32_t)(uint32_t)v->slot[slot_of(v, s, n, &high)] - 1 : -1;
}

int32_t tok_model_find(const struct tok_vocab *v, const char *s, size_t n)
{
	int32_t id = tok_vocab_find(v, s, n);

	return id >= 0 && !v->entry[id].extra ? id : -1;
}

/* ---- added tokens ---------------------------------------------------------------- */

static int trie_node(struct tok_trie *t, unsigned char byte, uint32_t sibling, uint32_t *node,
		     struct err *e)
{
	if (t->n == t->cap) {
		size_t cap = t->cap ? t->cap + t->cap / 2 : 64;
		struct tok_trie_node *v = realloc(t->v, cap * sizeof(*v));

		if (!v)
			return err_nomem(e, "tokenizer", cap * sizeof(*v));
		t->v = v;
		t->cap = cap;
	}
	t->v[t->n] = (struct tok_trie_node){ .sibling = sibling, .token = -1, .byte = byte };
	*node = (uint32_t)t->n++;
	return 0;
}

int tok_trie_add(struct tok_trie *t, const char *s, size_t n, int32_t token, const char *where,
		 struct err *e)
{
	uint32_t at, next;

	if (!t->n && trie_node(t, 0, 0, &at, e))
		return -1;
	next = t->first[(unsigned char)s[0]];
	if (!next) {
		if (trie_node(t, (unsigned char)s[0], 0, &next, e))
			return -1;
		t->first[(unsigned char)s[0]] = next;
	}
	at = next;
	for (size_t i = 1; i < n; i++) {
		for (next = t->v[at].child; next; next = t->v[next].sibling)
			if (t->v[next].byte == (unsigned char)s[i])
				break;
		if (!next) {
			if (trie_node(t, (unsigned char)s[i], t->v[at].child, &next, e))
				return -1;
			t->v[at].child = next;
		}
		at = next;
	}
	if (t->v[at].token >= 0)
		return err_set(e, ERR_DATA, where, "two added tokens are found by the same text "
			       "'%.*s'", (int)(n < 80 ? n : 80), s);
	t->v[at].token = token;
	return 0;
}

int32_t tok_trie_prefix(const struct tok_trie *t, const char *s, size_t n, size_t *len)
{
	uint32_t at = n ? t->first[(unsigned char)s[0]] : 0;
	int32_t token = -1;

	for (size_t i = 1; at; i++) {
		if (t->v[at].token >= 0) {
			token = t->v[at].token;
			*len = i;
		}
		if (i == n)
			break;
		for (at = t->v[at].child; at; at = t->v[at].sibling)
			if (t->v[at].byte == (unsigned char)s[i])
				break;
	}
	return token;
}

/* The id an added token gets: the vocabulary's if it is in there, else its own. */
static int place(struct tokenizer *t, const struct tok_added *a, const char *where,
		 struct err *e)
{
	int32_t id = tok_vocab_find(&t->vocab, a->content, a->n);
	struct tok_entry *entry;

	if (id >= 0 && id != a->id)
		return err_set(e, ERR_DATA, where, "added token '%.*s' has id %d here and %d in "
			       "the vocabulary", (int)(a->n < 80 ? a->n : 80), a->content,
			       (int)a->id, (int)id);
	if (id < 0 && tok_vocab_add(&t->vocab, a->content, a->n, a->id, where, e))
		return -1;
	entry = &t->vocab.entry[a->id];
	entry->extra = id < 0;
	if (entry->added >= 0)
		return err_set(e, ERR_DATA, where, "added token '%.*s' is given twice",
			       (int)(a->n < 80 ? a->n : 80), a->content);
	entry->added = (int32_t)t->n_added;
	return 0;
}

int tok_added_add(struct tokenizer *t, struct tok_added *a, const char *where, struct err *e)
{
	struct tok_added *v = realloc(t->added, (t->n_added + 1) * sizeof(*v));
	struct tok_buf norm = { 0 };
	size_t zero = 0;

	if (v)
		t->added = v;
	if (!v || place(t, a, where, e)) {
		free(a->content);
		return v ? -1 : err_nomem(e, where, (t->n_added + 1) * sizeof(*v));
	}
	v[t->n_added++] = *a; /* from here on the tokenizer's */
	a = &v[t->n_added - 1];
	if (!a->normalized)
		return tok_trie_add(&t->raw, a->content, a->n, (int32_t)t->n_added - 1, where,
				    e);
	if (tok_normalize(t, a->content, a->n, &norm, &zero, e)) {
		free(norm.p);
		return -1;
	}
	a->norm = norm.p;
	a->norm_n = norm.n;
	if (!norm.n)
		return err_set(e, ERR_DATA, where, "added token '%.*s' is nothing after the "
			       "normalizer", (int)(a->n < 80 ? a->n : 80), a->content);
	return tok_trie_add(&t->normalized, norm.p, norm.n, (int32_t)t->n_added - 1, where, e);
}
