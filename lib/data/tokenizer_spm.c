/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tokenizer_spm.c - what SentencePiece does in its own way: normalization, merges by score
 *
 * After its normalizer.cc and bpe_model.cc (version 0.2).
 */
#include <stdlib.h>
#include <string.h>

#include "lib/data/tokenizer_bpe.h"

#define MARK "\xe2\x96\x81" /* U+2581 for a space */
#define MARK_N 3

/* ---- rules for characters --------------------------------------------------------- */

/*
 * A double array (Darts-clone) of the texts that have a rule, then what they become, each with a
 * NUL behind it.  A unit: bits 0-7 the label, 8 whether a text ends here, 9 whether the offset
 * in bits 10-30 is shifted by 8; or, of an end, bit 31 and where its rule's text begins.
 */
struct tok_charsmap {
	uint32_t *unit;
	size_t n_units;
	char *text;
	size_t n_text;
};

int tok_charsmap_new(struct tok_charsmap **out, const char *blob, size_t n, const char *where,
		     struct err *e)
{
	const unsigned char *u = (const unsigned char *)blob;
	struct tok_charsmap *m;
	size_t trie;

	trie = n < 4 ? n : (size_t)u[0] | (size_t)u[1] << 8 | (size_t)u[2] << 16 |
			   (size_t)u[3] << 24;
	if (n < 4 || !trie || trie % 4 || trie >= n - 4 || blob[n - 1])
		return err_set(e, ERR_DATA, where, "the table of rules is damaged");
	if (tok_utf8_check(blob + 4 + trie, n - 4 - trie) != n - 4 - trie)
		return err_set(e, ERR_DATA, where, "the rules are not UTF-8");
	m = calloc(1, sizeof(*m));
	if (m) {
		m->n_units = trie / 4;
		m->n_text = n - 4 - trie;
		m->unit = malloc(trie);
		m->text = malloc(m->n_text);
	}
	if (!m || !m->unit || !m->text) {
		tok_charsmap_free(m);
		return err_nomem(e, where, n);
	}
	for (size_t i = 0; i < m->n_units; i++)
		m->unit[i] = (uint32_t)u[4 + 4 * i] | (uint32_t)u[5 + 4 * i] << 8 |
			     (uint32_t)u[6 + 4 * i] << 16 | (uint32_t)u[7 + 4 * i] << 24;
	memcpy(m->text, blob + 4 + trie, m->n_text);
	*out = m;
	return 0;
}

void tok_charsmap_free(struct tok_charsmap *m)
{
	if (!m)
		return;
	free(m->unit);
	free(m->text);
	free(m);
}

static size_t unit_offset(uint32_t u)
{
	return (size_t)(u >> 10) << (u & 1u << 9 ? 8 : 0);
}

/* The longest text with a rule that s begins with: its length, or 0, and what it becomes. */
static size_t rule(const struct tok_charsmap *m, const char *s, size_t n, const char **to)
{
	size_t at = unit_offset(m->unit[0]), len = 0;

	for (size_t i = 0; i < n; i++) {
		const unsigned char c = (unsigned char)s[i];
		uint32_t u;

		at ^= c;
		if (at >= m->n_units || (m->unit[at] & (1u << 31 | 0xff)) != c)
			break;
		u = m->unit[at];
		at ^= unit_offset(u);
		if (u & 1u << 8 && at < m->n_units) {
			const size_t value = m->unit[at] & INT32_MAX;

			if (value < m->n_text) {
				*to = m->text + value;
				len = i + 1;
			}
		}
	}
	return len;
}

/* ---- the normalizer --------------------------------------------------------------- */

/* What the text at s begins with becomes to[to_n]; how much of s that is, or 0 and *e. */
static size_t first_of(const struct norm_step *step, const char *s, size_t n, const char **to,
		       size_t *to_n, struct err *e)
{
	size_t len;

	*to = s;
	if (step->keep && step->keep->n && tok_trie_prefix(step->keep, s, n, &len) >= 0) {
		*to_n = len;
		return len;
	}
	len = step->map ? rule(step->map, s, n, to) : 0;
	if (!len) {
		(void)tok_char(s, &len);
		*to_n = len;
		return len;
	}
	*to_n = strlen(*to);
	/* Both are UTF-8, so that only their ends can be wrong. */
	if ((**to & 0xc0) == 0x80 || (len < n && (s[len] & 0xc0) == 0x80)) {
		err_set(e, ERR_DATA, "tokenizer", "precompiled_charsmap: a rule cuts a character");
		return 0;
	}
	return len;
}

static void put_escaped(struct tok_buf *out, const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (s[i] == ' ') {
			memcpy(out->p + out->n, MARK, MARK_N);
			out->n += MARK_N;
		} else {
			out->p[out->n++] = s[i];
		}
	}
}

/* Neither rules nor symbols nor trimming: spaces become marks. */
static int escape(const char *s, size_t n, struct tok_buf *out, struct err *e)
{
	const char *end = s + n;

	while (s < end) {
		const char *space = memchr(s, ' ', (size_t)(end - s));

		n = (size_t)((space ? space : end) - s);
		if (tok_buf_add(out, s, n, e) || (space && tok_buf_add(out, MARK, MARK_N, e)))
			return -1;
		s += n + (space ? 1 : 0);
	}
	return 0;
}

static int by_rules(const struct norm_step *step, const char *s, size_t n, struct tok_buf *out,
		    struct err *e)
{
	bool was_space = step->trim;

	while (n) {
		const char *to;
		size_t to_n, len = first_of(step, s, n, &to, &to_n, e);

		if (!len || tok_buf_reserve(out, MARK_N * to_n, e))
			return -1;
		for (; was_space && to_n && *to == ' '; to_n--)
			to++;
		put_escaped(out, to, to_n);
		if (to_n)
			was_space = step->trim && to[to_n - 1] == ' ';
		s += len;
		n -= len;
	}
	return 0;
}

int tok_normalize_spm(const struct norm_step *step, const char *s, size_t n, struct tok_buf *out,
		      size_t *zero, struct err *e)
{
	const size_t off = out->n;

	while (step->trim && n) {
		const char *to;
		size_t to_n, len = first_of(step, s, n, &to, &to_n, e);

		if (!len)
			return -1;
		if (to_n != 1 || *to != ' ')
			break;
		s += len;
		n -= len;
	}
	if (!n)
		return 0;
	if (step->prefix && (!step->first_only || *zero) && tok_buf_add(out, MARK, MARK_N, e))
		return -1;
	if (!step->map && !step->trim && !(step->keep && step->keep->n))
		return escape(s, n, out, e);
	if (by_rules(step, s, n, out, e))
		return -1;
	while (step->trim && out->n - off >= MARK_N &&
	       memcmp(out->p + out->n - MARK_N, MARK, MARK_N) == 0)
		out->n -= MARK_N;
	return 0;
}

/* ---- merges by score -------------------------------------------------------------- */

struct scored {
	float score;
	int32_t id;
};

static int higher_first(const void *a, const void *b)
{
	const struct scored *x = a, *y = b;

	return (x->score < y->score) - (x->score > y->score);
}

/* rank[id]: 0 for the highest score. */
static int ranks(const struct tok_vocab *v, const float *score, uint32_t *rank, const char *where,
		 struct err *e)
{
	struct scored *list = malloc((v->n + 1) * sizeof(*list));
	uint32_t r = 0;

	if (!list)
		return err_nomem(e, where, (v->n + 1) * sizeof(*list));
	for (size_t id = 0; id < v->n; id++)
		list[id] = (struct scored){ score[id], (int32_t)id };
	qsort(list, v->n, sizeof(*list), higher_first);
	for (size_t i = 0; i < v->n; i++) {
		r += i && list[i].score < list[i - 1].score;
		rank[list[i].id] = r;
	}
	free(list);
	return 0;
}

/* A part of a token: its id; -1: neither a token nor a single character; -2: a character that
 * is no token; -3: never merged. */
static int32_t part(const struct tokenizer *t, const char *s, size_t n)
{
	int32_t id = tok_model_find(&t->vocab, s, n);
	size_t len;

	if (t->user.n && tok_trie_prefix(&t->user, s, n, &len) >= 0 && len == n)
		return -3;
	if (id >= 0)
		return id;
	(void)tok_char(s, &len);
	return len == n ? -2 : -1;
}

/* The ways in which two symbols make token id: entered with this rank, or, without, counted. */
static int ways(struct tokenizer *t, int32_t id, const uint32_t *rank, const bool *unused,
		size_t *count, const char *where, struct err *e)
{
	const struct tok_entry *x = &t->vocab.entry[id];
	const char *s = t->vocab.bytes.p + x->off;
	size_t len;

	for (size_t k = 0; k < x->len; k += len) {
		int32_t a, b;

		(void)tok_char(s + k, &len);
		a = k ? part(t, s, k) : -1;
		if (a == -1 || a == -3 || (b = part(t, s + k, x->len - k)) == -1 || b == -3)
			continue;
		if (a < 0 || b < 0)
			return err_set(e, ERR_DATA, where, "token '%.*s' holds a character that "
				       "is no token by itself: not supported",
				       (int)(x->len < 80 ? x->len : 80), s);
		if (unused[id])
			return err_set(e, ERR_DATA, where, "token '%.*s' can be merged but is "
				       "UNUSED: not supported", (int)(x->len < 80 ? x->len : 80),
				       s);
		++*count;
		if (rank)
			*merge_slot(&t->bpe, a, b) = (struct tok_merge){
				.key = pair_key(a, b), .rank = rank[id], .id = id };
	}
	return 0;
}

int tok_bpe_by_scores(struct tokenizer *t, const float *score, const bool *unused,
		      const char *where, struct err *e)
{
	const struct tok_vocab *v = &t->vocab;
	uint32_t *rank = malloc((v->n + 1) * sizeof(*rank));
	int ret = rank ? ranks(v, score, rank, where, e) :
		  err_nomem(e, where, (v->n + 1) * sizeof(*rank));
	size_t count = 0;

	for (int pass = 0; pass < 2 && !ret; pass++) {
		if (pass)
			ret = tok_bpe_reserve(t, count, e);
		count = 0;
		for (size_t id = 0; id < v->n && !ret; id++) {
			const struct tok_entry *x = &v->entry[id];

			if (x->used && !x->extra &&
			    part(t, v->bytes.p + x->off, x->len) != -3)
				ret = ways(t, (int32_t)id, pass ? rank : NULL, unused, &count,
					   where, e);
		}
	}
	t->bpe.n_merges = count;
	free(rank);
	return ret;
}
