/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tokenizer.c - the order of the stages: added tokens, normalizer, pre-tokenizer, model,
 * post-processor; and back
 */
#include <stdlib.h>
#include <string.h>

#include "lib/data/tokenizer_impl.h"

void ids_release(struct ids *v)
{
	free(v->id);
	memset(v, 0, sizeof(*v));
}

int ids_push(struct ids *v, int32_t id, struct err *e)
{
	if (v->n == v->cap) {
		size_t cap = v->cap ? v->cap + v->cap / 2 : 64;
		int32_t *p = realloc(v->id, cap * sizeof(*p));

		if (!p)
			return err_nomem(e, "token ids", cap * sizeof(*p));
		v->id = p;
		v->cap = cap;
	}
	v->id[v->n++] = id;
	return 0;
}

struct tokenizer *tokenizer_new(struct err *e)
{
	struct tokenizer *t = calloc(1, sizeof(*t));

	if (!t)
		err_nomem(e, "tokenizer", sizeof(*t));
	else
		t->bpe.unk = t->uni.unk = -1;
	return t;
}

void tokenizer_free(struct tokenizer *t)
{
	if (!t)
		return;
	for (size_t i = 0; i < t->n_norm; i++)
		norm_step_release(&t->norm[i]);
	for (size_t i = 0; i < t->n_pre; i++)
		pre_step_release(&t->pre[i]);
	for (size_t i = 0; i < t->n_dec; i++)
		dec_step_release(&t->dec[i]);
	for (size_t i = 0; i < t->n_added; i++) {
		free(t->added[i].content);
		free(t->added[i].norm);
	}
	free(t->norm);
	free(t->pre);
	free(t->dec);
	free(t->added);
	free(t->raw.v);
	free(t->normalized.v);
	free(t->user.v);
	ids_release(&t->before);
	ids_release(&t->after);
	tok_bpe_release(&t->bpe);
	tok_unigram_release(&t->uni);
	free(t->vocab.bytes.p);
	free(t->vocab.entry);
	free(t->vocab.slot);
	free(t);
}

/* ---- added tokens ---------------------------------------------------------------- */

/* The leftmost token from *start on, the longest there; its index, or -1. */
static int32_t trie_find(const struct tok_trie *t, const char *s, size_t n, size_t *start,
			 size_t *end)
{
	for (size_t i = *start; i < n; i++) {
		uint32_t at = t->first[(unsigned char)s[i]];
		int32_t token = -1;

		for (size_t j = i; at;) {
			if (t->v[at].token >= 0) {
				token = t->v[at].token;
				*end = j + 1;
			}
			if (++j == n)
				break;
			for (at = t->v[at].child; at; at = t->v[at].sibling)
				if (t->v[at].byte == (unsigned char)s[j])
					break;
		}
		if (token >= 0) {
			*start = i;
			return token;
		}
	}
	return -1;
}

static size_t char_before(const char *s, size_t i)
{
	do
		i--;
	while ((s[i] & 0xc0) == 0x80);
	return i;
}

static bool is_single_word(const char *s, size_t n, size_t start, size_t end)
{
	size_t len;

	return (!start || !tok_is_word(tok_char(s + char_before(s, start), &len))) &&
	       (end == n || !tok_is_word(tok_char(s + end, &len)));
}

/*
 * Cut the added tokens of trie out of a stretch of w->text2; pieces go to pieces2.  The rules,
 * also where tokens with lstrip and rstrip share white space, are those of HF's
 * AddedVocabulary::find_matches.
 */
static int cut(const struct tokenizer *t, const struct tok_trie *trie, struct tok_work *w,
	       size_t off, size_t n, size_t zero, struct err *e)
{
	const char *s = w->text2.p + off;
	size_t done = 0, from = 0, len;
	int32_t token;

	if (!trie->n || !n)
		return tok_piece_add(&w->pieces2, off, n, -1, zero, e);
	for (;;) {
		size_t start = from, end = from;
		const struct tok_added *a;

		token = trie_find(trie, s, n, &start, &end);
		if (token < 0)
			break;
		from = end;
		a = &t->added[token];
		if (a->single_word && !is_single_word(s, n, start, end))
			continue;
		while (a->lstrip && start > done && start > 0 &&
		       tok_is_space(tok_char(s + char_before(s, start), &len)))
			start -= len;
		if (a->lstrip && start < done)
			start = done;
		while (a->rstrip && end < n && tok_is_space(tok_char(s + end, &len)))
			end += len;
		if (done < start &&
		    tok_piece_add(&w->pieces2, off + done, start - done, -1,
				  zero > done ? zero - done : 0, e))
			return -1;
		/* White space that is a token itself may be eaten by the one before. */
		if (start < end &&
		    tok_piece_add(&w->pieces2, off + start, end - start, a->id, 0, e))
			return -1;
		done = end;
	}
	return done == n ? 0 : tok_piece_add(&w->pieces2, off + done, n - done, -1,
					     zero > done ? zero - done : 0, e);
}

/* From the raw text to normalized pieces and added tokens. */
static int extract(const struct tokenizer *t, const char *text, size_t n, struct tok_work *w,
		   struct err *e)
{
	size_t first = 0;

	/* What is not normalized is looked for in the raw text, ... */
	if (n)
		(void)tok_char(text, &first);
	if (tok_buf_add(&w->text2, text, n, e) || cut(t, &t->raw, w, 0, n, first, e))
		return -1;
	tok_swap_text(w);
	tok_swap_pieces(w);
	/* ... the rest in what the normalizer makes of each stretch between. */
	for (size_t i = 0; i < w->pieces.n; i++) {
		struct tok_piece p = w->pieces.v[i];
		size_t off = w->text2.n;

		if (p.id >= 0 ? tok_piece_add(&w->pieces2, off, 0, p.id, 0, e) :
		    tok_normalize(t, w->text.p + p.off, p.len, &w->text2, &p.zero, e) ||
		    cut(t, &t->normalized, w, off, w->text2.n - off, p.zero, e))
			return -1;
	}
	tok_swap_text(w);
	tok_swap_pieces(w);
	return 0;
}

static int put_ids(struct ids *out, const struct ids *v, struct err *e)
{
	for (size_t i = 0; i < v->n; i++)
		if (ids_push(out, v->id[i], e))
			return -1;
	return 0;
}

static int model(const struct tokenizer *t, const struct tok_work *w, struct ids *out,
		 struct err *e)
{
	struct bpe_run *bpe = t->model == MODEL_BPE ? bpe_run_new(t, w->text.n, e) : NULL;
	struct uni_run uni = { .t = t };
	int ret = t->model == MODEL_BPE && !bpe ? -1 : 0;

	for (size_t i = 0; i < w->pieces.n && !ret; i++) {
		const struct tok_piece *p = &w->pieces.v[i];
		const char *s = w->text.p + p->off;

		ret = p->id >= 0 ? ids_push(out, p->id, e) :
		      bpe ? bpe_run_piece(bpe, s, p->len, out, e) :
			    uni_run_piece(&uni, s, p->len, out, e);
	}
	bpe_run_free(bpe);
	uni_run_release(&uni);
	return ret;
}

int tokenizer_encode(const struct tokenizer *t, const char *text, size_t n, bool special,
		     struct ids *out, struct err *e)
{
	size_t bad = tok_utf8_check(text, n);
	struct tok_work w = { 0 };
	int ret;

	if (bad != n)
		return err_set(e, ERR_DATA, "text", "not UTF-8: byte 0x%02x at offset %zu",
			       (unsigned char)text[bad], bad);
	ret = extract(t, text, n, &w, e);
	for (size_t i = 0; i < t->n_pre && !ret; i++)
		ret = tok_pre_run(&t->pre[i], &w, e);
	if (!ret && special)
		ret = put_ids(out, &t->before, e);
	if (!ret)
		ret = model(t, &w, out, e);
	if (!ret && special)
		ret = put_ids(out, &t->after, e);
	tok_work_release(&w);
	return ret;
}

/* ---- and back --------------------------------------------------------------------- */

/* The texts of the tokens.  An added token that was normalized stands as it was looked for,
 * for that is what the decoders undo. */
static int spell(const struct tokenizer *t, const int32_t *ids, size_t n, bool skip_special,
		 struct tok_work *w, struct err *e)
{
	for (size_t i = 0; i < n; i++) {
		const struct tok_entry *x;
		const struct tok_added *a;
		size_t off = w->text.n, len;
		const char *s;

		if (!tokenizer_has(t, ids[i]))
			return err_set(e, ERR_DATA, "token ids", "%d at position %zu is not in the "
				       "vocabulary", (int)ids[i], i);
		x = &t->vocab.entry[ids[i]];
		s = t->vocab.bytes.p + x->off;
		len = x->len;
		a = x->added >= 0 ? &t->added[x->added] : NULL;
		if (a && a->special && skip_special)
			continue;
		if (a && a->norm) {
			s = a->norm;
			len = a->norm_n;
		}
		if (!t->has_decoder && w->pieces.n && tok_buf_add(&w->text, " ", 1, e))
			return -1;
		if (tok_buf_add(&w->text, s, len, e) ||
		    tok_piece_add(&w->pieces, off, w->text.n - off, 0, 0, e))
			return -1;
	}
	return 0;
}

int tokenizer_decode(const struct tokenizer *t, const int32_t *ids, size_t n, bool skip_special,
		     char **text, size_t *len, struct err *e)
{
	struct tok_work w = { 0 };
	struct tok_buf out = { 0 };
	int ret = spell(t, ids, n, skip_special, &w, e);

	for (size_t i = 0; i < t->n_dec && !ret; i++)
		ret = tok_dec_run(&t->dec[i], &w, e);
	for (size_t i = 0; i < w.pieces.n && !ret; i++)
		ret = tok_buf_add(&out, w.text.p + w.pieces.v[i].off, w.pieces.v[i].len, e);
	if (!ret)
		ret = tok_buf_reserve(&out, 1, e);
	tok_work_release(&w);
	if (ret) {
		free(out.p);
		return -1;
	}
	out.p[out.n] = '\0';
	*text = out.p;
	*len = out.n;
	return 0;
}

size_t tokenizer_vocab(const struct tokenizer *t)
{
	return t->vocab.n;
}

bool tokenizer_has(const struct tokenizer *t, int32_t id)
{
	return id >= 0 && (size_t)id < t->vocab.n && t->vocab.entry[id].used;
}

int32_t tokenizer_id(const struct tokenizer *t, const char *token)
{
	return tok_vocab_find(&t->vocab, token, strlen(token));
}

int32_t tokenizer_prefix_id(const struct tokenizer *t)
{
	return t->before.n ? t->before.id[0] : -1;
}

int tokenizer_fits(const struct tokenizer *t, long vocab, struct err *e)
{
	if (vocab >= 0 && t->vocab.n <= (size_t)vocab)
		return 0;
	return err_set(e, ERR_DATA, "tokenizer", "has ids up to %zu, but the model's vocabulary is "
		       "%ld", t->vocab.n - 1, vocab);
}

const char *tokenizer_fingerprint(const struct tokenizer *t)
{
	return t->fingerprint;
}
