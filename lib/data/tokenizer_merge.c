/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tokenizer_merge.c - byte pair encoding by merge ranks
 *
 * The rule: of all neighbouring pairs with a merge take the one of lowest rank, the leftmost
 * among equals, join it, repeat (Sennrich et al. 2016, "Neural Machine Translation of Rare
 * Words with Subword Units").  A linked list of symbols and a heap of candidate pairs make
 * that O(n log n).  Short stretches are scanned instead, and their results remembered.
 */
#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "lib/data/tokenizer_bpe.h"

#define NO_RANK UINT32_MAX
#define SCAN_MAX 24       /* symbols that are scanned rather than put on a heap */
#define CACHE_SYMBOLS 32  /* longest stretch that is remembered */
#define CACHE_ARENA ((size_t)1 << 20) /* ids and symbols remembered, at most */

struct cached {
	uint64_t hash;
	uint32_t at, n_symbols, n_ids; /* in the arena: symbols, then ids */
};

struct bpe_run {
	const struct tokenizer *t;
	int32_t *sym; /* symbols of the piece */
	size_t n, cap;
	/* of one stretch: links, and the rank of the pair that begins at a symbol */
	uint32_t *next, *prev, *rank;
	uint64_t *heap; /* rank << 32 | position */
	size_t nheap, work_cap, heap_cap;
	struct cached *cache;
	size_t cache_mask;
	int32_t *arena;
	size_t narena, arena_cap;
};

struct bpe_run *bpe_run_new(const struct tokenizer *t, size_t expect, struct err *e)
{
	struct bpe_run *r = calloc(1, sizeof(*r));
	size_t slots = 64;

	if (!r) {
		err_nomem(e, "tokenizer", sizeof(*r));
		return NULL;
	}
	r->t = t;
	while (slots < expect / 8 && slots < 32768)
		slots *= 2;
	r->cache = calloc(slots, sizeof(*r->cache));
	r->cache_mask = slots - 1;
	if (!r->cache) {
		free(r);
		err_nomem(e, "tokenizer", slots * sizeof(*r->cache));
		return NULL;
	}
	return r;
}

void bpe_run_free(struct bpe_run *r)
{
	if (!r)
		return;
	free(r->sym);
	free(r->next);
	free(r->prev);
	free(r->rank);
	free(r->heap);
	free(r->cache);
	free(r->arena);
	free(r);
}

static int push_symbol(struct bpe_run *r, int32_t id, struct err *e)
{
	if (r->n == r->cap) {
		size_t cap = r->cap ? r->cap + r->cap / 2 : 256;
		int32_t *v = realloc(r->sym, cap * sizeof(*v));

		if (!v)
			return err_nomem(e, "tokenizer", cap * sizeof(*v));
		r->sym = v;
		r->cap = cap;
	}
	r->sym[r->n++] = id;
	return 0;
}

static int no_token(const char *s, const struct tok_bpe *b, struct err *e)
{
	size_t len;
	uint32_t c = tok_char(s, &len);

	if (b->unk_token)
		return err_set(e, ERR_DATA, "tokenizer", "U+%04X has no token, and the unknown "
			       "token '%.80s' is not in the vocabulary", (unsigned)c, b->unk_token);
	return err_set(e, ERR_DATA, "tokenizer", "U+%04X has no token and there is no unknown "
		       "token", (unsigned)c);
}

/* A character, with what belongs before and after it, as byte tokens.  0: one is missing. */
static int as_bytes(struct bpe_run *r, const char *s, size_t n, struct err *e)
{
	const struct tok_bpe *b = &r->t->bpe;

	for (size_t i = 0; i < n; i++)
		if (b->byte_id[(unsigned char)s[i]] < 0)
			return 0;
	for (size_t i = 0; i < n; i++)
		if (push_symbol(r, b->byte_id[(unsigned char)s[i]], e))
			return -1;
	return 1;
}

/* The token of a character at its place in the piece; its text is left in buf. */
static int32_t char_token(const struct tokenizer *t, const char *s, size_t len, bool first,
			  bool last, struct tok_buf *buf, struct err *e)
{
	const struct tok_bpe *b = &t->bpe;

	buf->n = 0;
	if ((!first && tok_buf_add(buf, b->prefix, b->prefix_n, e)) ||
	    tok_buf_add(buf, s, len, e) ||
	    (last && tok_buf_add(buf, b->suffix, b->suffix_n, e)))
		return -2;
	return tok_model_find(&t->vocab, buf->p, buf->n);
}

/*
 * The piece's characters as symbols (HF's BPE::merge_word).  An unknown character waits, so
 * that with fuse_unk the next ones join it; byte tokens do not end the waiting (they overtake
 * it), as in the original.
 */
static int symbols(struct bpe_run *r, const char *s, size_t n, struct tok_buf *buf,
		   struct err *e)
{
	const struct tok_bpe *b = &r->t->bpe;
	bool plain = !b->prefix_n && !b->suffix_n, waiting = false;

	r->n = 0;
	for (size_t i = 0, len; i < n; i += len) {
		int32_t id = r->t->user.n ? tok_trie_prefix(&r->t->user, s + i, n - i, &len) : -1;
		uint32_t c = id < 0 ? tok_char(s + i, &len) : 0;
		int got;

		if (id < 0 && plain && c < 65536)
			id = b->char_id[c];
		else if (id < 0)
			id = char_token(r->t, s + i, len, i == 0, i + len == n, buf, e);
		if (id == -2)
			return -1;
		if (id >= 0) {
			if (waiting && push_symbol(r, b->unk, e))
				return -1;
			waiting = false;
			if (push_symbol(r, id, e))
				return -1;
			continue;
		}
		got = !b->byte_fallback ? 0 : plain ? as_bytes(r, s + i, len, e) :
		      as_bytes(r, buf->p, buf->n, e);
		if (got < 0)
			return -1;
		if (got)
			continue;
		if (b->unk < 0)
			return no_token(s + i, b, e);
		if (waiting && !b->fuse_unk && push_symbol(r, b->unk, e))
			return -1;
		waiting = true;
	}
	return waiting ? push_symbol(r, b->unk, e) : 0;
}

/* ---- merging a stretch of symbols ------------------------------------------------- */

static uint32_t pair_rank(const struct tok_bpe *b, int32_t left, int32_t right, int32_t *id)
{
	const struct tok_merge *m = merge_slot(b, left, right);

	if (m->key == BPE_FREE)
		return NO_RANK;
	*id = m->id;
	return m->rank;
}

/* In place; the number of symbols that are left.  n <= SCAN_MAX. */
static size_t merge_by_scan(const struct tok_bpe *b, int32_t *sym, size_t n)
{
	uint32_t rank[SCAN_MAX];
	int32_t id[SCAN_MAX];

	for (size_t i = 0; i + 1 < n; i++)
		rank[i] = pair_rank(b, sym[i], sym[i + 1], &id[i]);
	while (n > 1) {
		size_t best = 0;

		for (size_t i = 1; i + 1 < n; i++)
			if (rank[i] < rank[best])
				best = i;
		if (rank[best] == NO_RANK)
			break;
		sym[best] = id[best];
		n--;
		memmove(sym + best + 1, sym + best + 2, (n - best - 1) * sizeof(*sym));
		if (best + 1 < n) {
			memmove(rank + best + 1, rank + best + 2, (n - best - 2) * sizeof(*rank));
			memmove(id + best + 1, id + best + 2, (n - best - 2) * sizeof(*id));
			rank[best] = pair_rank(b, sym[best], sym[best + 1], &id[best]);
		}
		if (best)
			rank[best - 1] = pair_rank(b, sym[best - 1], sym[best], &id[best - 1]);
	}
	return n;
}

static void sift_down(uint64_t *heap, size_t n, size_t i)
{
	uint64_t v = heap[i];

	for (;;) {
		size_t child = 2 * i + 1;

		if (child >= n)
			break;
		if (child + 1 < n && heap[child + 1] < heap[child])
			child++;
		if (heap[child] >= v)
			break;
		heap[i] = heap[child];
		i = child;
	}
	heap[i] = v;
}

static int heap_push(struct bpe_run *r, uint64_t v, struct err *e)
{
	size_t i = r->nheap;

	if (r->nheap == r->heap_cap) {
		size_t cap = r->heap_cap + r->heap_cap / 2;
		uint64_t *heap = realloc(r->heap, cap * sizeof(*heap));

		if (!heap)
			return err_nomem(e, "tokenizer", cap * sizeof(*heap));
		r->heap = heap;
		r->heap_cap = cap;
	}
	r->nheap++;
	for (; i && r->heap[(i - 1) / 2] > v; i = (i - 1) / 2)
		r->heap[i] = r->heap[(i - 1) / 2];
	r->heap[i] = v;
	return 0;
}

static uint64_t heap_pop(struct bpe_run *r)
{
	uint64_t top = r->heap[0];

	r->heap[0] = r->heap[--r->nheap];
	if (r->nheap)
		sift_down(r->heap, r->nheap, 0);
	return top;
}

static int work_reserve(struct bpe_run *r, size_t n, struct err *e)
{
	if (n <= r->work_cap)
		return 0;
	free(r->next);
	free(r->prev);
	free(r->rank);
	free(r->heap);
	r->next = malloc(n * sizeof(*r->next));
	r->prev = malloc(n * sizeof(*r->prev));
	r->rank = malloc(n * sizeof(*r->rank));
	r->heap = malloc(n * sizeof(*r->heap));
	r->work_cap = r->heap_cap = n;
	if (!r->next || !r->prev || !r->rank || !r->heap) {
		r->work_cap = r->heap_cap = 0;
		return err_nomem(e, "tokenizer", 20ull * n);
	}
	return 0;
}

#define END UINT32_MAX

/* The pair that begins at i has changed: note its rank, and queue it if it can be merged. */
static int offer(struct bpe_run *r, const int32_t *sym, uint32_t i, struct err *e)
{
	int32_t id;

	r->rank[i] = r->next[i] == END ? NO_RANK :
		     pair_rank(&r->t->bpe, sym[i], sym[r->next[i]], &id);
	return r->rank[i] == NO_RANK ? 0 : heap_push(r, (uint64_t)r->rank[i] << 32 | i, e);
}

static int merge_by_heap(struct bpe_run *r, int32_t *sym, size_t *count, struct err *e)
{
	size_t n = *count, left = 0;
	int32_t id = -1;

	if (n >= END)
		return err_set(e, ERR_DATA, "tokenizer", "a piece of %zu characters is too long",
			       n);
	if (work_reserve(r, n, e))
		return -1;
	r->nheap = 0;
	for (size_t i = 0; i < n; i++) {
		r->prev[i] = i ? (uint32_t)i - 1 : END;
		r->next[i] = i + 1 < n ? (uint32_t)i + 1 : END;
		r->rank[i] = i + 1 < n ? pair_rank(&r->t->bpe, sym[i], sym[i + 1], &id) : NO_RANK;
		if (r->rank[i] != NO_RANK)
			r->heap[r->nheap++] = (uint64_t)r->rank[i] << 32 | i;
	}
	for (size_t i = r->nheap / 2; i-- > 0;)
		sift_down(r->heap, r->nheap, i);
	while (r->nheap) {
		uint64_t top = heap_pop(r);
		uint32_t i = (uint32_t)top, j = r->next[i];

		if (r->rank[i] != (uint32_t)(top >> 32))
			continue; /* of a pair that is no more */
		(void)pair_rank(&r->t->bpe, sym[i], sym[j], &sym[i]);
		r->rank[j] = NO_RANK;
		r->next[i] = r->next[j];
		if (r->next[i] != END)
			r->prev[r->next[i]] = i;
		if ((r->prev[i] != END && offer(r, sym, r->prev[i], e)) || offer(r, sym, i, e))
			return -1;
	}
	for (uint32_t i = 0; i != END; i = r->next[i])
		sym[left++] = sym[i];
	*count = left;
	return 0;
}

static int push_ids(struct ids *out, const int32_t *id, size_t n, struct err *e)
{
	for (size_t i = 0; i < n; i++)
		if (ids_push(out, id[i], e))
			return -1;
	return 0;
}

/* Remember that n symbols became ids; symbols lie at r->arena[r->narena] already. */
static void remember(struct bpe_run *r, struct cached *c, uint64_t hash, size_t n,
		     const int32_t *ids, size_t n_ids)
{
	memcpy(r->arena + r->narena + n, ids, n_ids * sizeof(*ids));
	*c = (struct cached){ .hash = hash, .at = (uint32_t)r->narena, .n_symbols = (uint32_t)n,
			      .n_ids = (uint32_t)n_ids };
	r->narena += n + n_ids;
}

static int arena_reserve(struct bpe_run *r, struct err *e)
{
	int32_t *v;
	size_t cap;

	if (r->arena_cap - r->narena >= 2 * CACHE_SYMBOLS)
		return 0;
	if (r->arena_cap >= CACHE_ARENA) { /* full: forget all */
		memset(r->cache, 0, (r->cache_mask + 1) * sizeof(*r->cache));
		r->narena = 0;
		return 0;
	}
	cap = r->arena_cap ? 2 * r->arena_cap : 4096;
	v = realloc(r->arena, cap * sizeof(*v));
	if (!v)
		return err_nomem(e, "tokenizer", cap * sizeof(*v));
	r->arena_cap = cap;
	r->arena = v;
	return 0;
}

/* Symbols that no merge crosses the ends of; sym is overwritten. */
static int stretch(struct bpe_run *r, int32_t *sym, size_t n, struct ids *out, struct err *e)
{
	struct cached *c;
	uint64_t hash;
	size_t left = n;

	if (n == 1)
		return ids_push(out, sym[0], e);
	if (n > CACHE_SYMBOLS)
		return merge_by_heap(r, sym, &left, e) || push_ids(out, sym, left, e) ? -1 : 0;
	hash = XXH3_64bits(sym, n * sizeof(*sym));
	c = &r->cache[hash & r->cache_mask];
	if (c->n_symbols == n && c->hash == hash &&
	    memcmp(r->arena + c->at, sym, n * sizeof(*sym)) == 0)
		return push_ids(out, r->arena + c->at + n, c->n_ids, e);
	if (arena_reserve(r, e))
		return -1;
	memcpy(r->arena + r->narena, sym, n * sizeof(*sym));
	if (n <= SCAN_MAX)
		left = merge_by_scan(&r->t->bpe, sym, n);
	else if (merge_by_heap(r, sym, &left, e))
		return -1;
	remember(r, c, hash, n, sym, left);
	return push_ids(out, sym, left, e);
}

int bpe_run_piece(struct bpe_run *r, const char *s, size_t n, struct ids *out, struct err *e)
{
	const struct tok_bpe *b = &r->t->bpe;
	struct tok_buf buf = { 0 };
	int ret;

	if (b->ignore_merges) {
		int32_t id = tok_model_find(&r->t->vocab, s, n);

		if (id >= 0)
			return ids_push(out, id, e);
	}
	ret = symbols(r, s, n, &buf, e);
	free(buf.p);
	for (size_t i = 0, j; !ret && i < r->n; i = j) {
		j = i + 1;
		while (j < r->n && (!b->near ||
				    *near_slot(b, r->sym[j - 1], r->sym[j]) != BPE_FREE))
			j++;
		ret = stretch(r, r->sym + i, j - i, out, e);
	}
	return ret;
}
