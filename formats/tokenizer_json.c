/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tokenizer_json.c - a tokenizer.json, part by part, into a struct tokenizer
 */
#include "formats/tokenizer_json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/tokenizer_parts.h"
#include "lib/base/hash.h"
#include "lib/data/tokenizer_impl.h"

/* ---- model ------------------------------------------------------------------------ */

int part_vocabulary(struct tokenizer *t, const struct part *p, const struct json *vocab)
{
	const struct json *v;
	const char *key;

	if (json_type_of(vocab) != JSON_OBJECT)
		return part_bad(p, "vocab is missing or not an object");
	if (tok_vocab_reserve(&t->vocab, json_len(vocab), 8 * json_len(vocab), p->e))
		return -1;
	for (void *it = json_iter(vocab, NULL, &key, &v); it; it = json_iter(vocab, it, &key, &v)) {
		if (json_type_of(v) != JSON_INT)
			return part_bad(p, "the id of '%.80s' is not a number", key);
		if (tok_vocab_add(&t->vocab, key, strlen(key), json_int(v, -1), p->where, p->e))
			return -1;
	}
	return 0;
}

/* "a b", or ["a", "b"] where tokens may hold spaces */
static int merge(struct tokenizer *t, const struct part *p, const struct json *v, size_t i)
{
	size_t n, bn;
	const char *s = json_str(v, &n), *b, *space;

	if (s) {
		space = memchr(s, ' ', n);
		if (!space || memchr(space + 1, ' ', n - (size_t)(space + 1 - s)))
			return part_bad(p, "merge %zu is not two tokens: '%.80s'", i, s);
		return tok_bpe_add(t, s, (size_t)(space - s), space + 1,
				   n - (size_t)(space + 1 - s), p->where, p->e);
	}
	s = json_str(json_at(v, 0), &n);
	b = json_str(json_at(v, 1), &bn);
	if (json_type_of(v) != JSON_ARRAY || json_len(v) != 2 || !s || !b)
		return part_bad(p, "merge %zu is neither a string nor a pair", i);
	return tok_bpe_add(t, s, n, b, bn, p->where, p->e);
}

/* A string that may be absent or null, then "" and NULL. */
static int option_str(const struct part *p, const char *key, char **out, size_t *n)
{
	const struct json *v = json_get(p->v, key);
	const char *s;

	*n = 0;
	if (part_absent(v))
		return 0;
	return part_str(p, key, &s, n) || part_dup(p, s, *n, out) ? -1 : 0;
}

static int bpe_options(struct tokenizer *t, const struct part *p)
{
	const struct json *dropout = json_get(p->v, "dropout");
	struct tok_bpe *b = &t->bpe;
	size_t n;

	if (part_keys(p, "type dropout unk_token continuing_subword_prefix end_of_word_suffix "
		       "fuse_unk byte_fallback ignore_merges vocab merges"))
		return -1;
	if (!part_absent(dropout) && json_num(dropout, 1) != 0)
		return part_bad(p, "dropout is not 0: the tokens of a text would be drawn at "
				"random");
	return option_str(p, "unk_token", &b->unk_token, &n) ||
	       option_str(p, "continuing_subword_prefix", &b->prefix, &b->prefix_n) ||
	       option_str(p, "end_of_word_suffix", &b->suffix, &b->suffix_n) ||
	       part_bool(p, "fuse_unk", false, &b->fuse_unk) ||
	       part_bool(p, "byte_fallback", false, &b->byte_fallback) ||
	       part_bool(p, "ignore_merges", false, &b->ignore_merges) ? -1 : 0;
}

static int bpe(struct tokenizer *t, const struct part *p)
{
	const struct json *merges = json_get(p->v, "merges");

	if (json_type_of(merges) != JSON_ARRAY)
		return part_bad(p, "merges is missing or not an array");
	if (bpe_options(t, p) || part_vocabulary(t, p, json_get(p->v, "vocab")) ||
	    tok_bpe_reserve(t, json_len(merges), p->e))
		return -1;
	for (size_t i = 0; i < json_len(merges); i++)
		if (merge(t, p, json_at(merges, i), i))
			return -1;
	return tok_bpe_finish(t, p->e);
}

/* [["<unk>", 0.0], ["a", -1.5], ...]: the ids are the places. */
static int scored(struct tokenizer *t, const struct part *p, double *score)
{
	const struct json *vocab = json_get(p->v, "vocab");

	if (tok_vocab_reserve(&t->vocab, json_len(vocab), 8 * json_len(vocab), p->e))
		return -1;
	for (size_t i = 0; i < json_len(vocab); i++) {
		const struct json *one = json_at(vocab, i), *v = json_at(one, 1);
		size_t n;
		const char *s = json_str(json_at(one, 0), &n);

		if (json_len(one) != 2 || !s || (json_type_of(v) != JSON_REAL &&
						 json_type_of(v) != JSON_INT))
			return part_bad(p, "vocab: %zu is not a token with its score", i);
		score[i] = json_num(v, 0);
		if (tok_vocab_add(&t->vocab, s, n, (int64_t)i, p->where, p->e))
			return -1;
	}
	return 0;
}

static int unigram(struct tokenizer *t, const struct part *p)
{
	const struct json *vocab = json_get(p->v, "vocab"), *unk = json_get(p->v, "unk_id");
	const size_t n = json_len(vocab);
	double *score, least = INFINITY;
	int64_t id = -1;

	if (part_keys(p, "type unk_id vocab byte_fallback") ||
	    part_bool(p, "byte_fallback", false, &t->uni.byte_fallback))
		return -1;
	if (json_type_of(vocab) != JSON_ARRAY || !n)
		return part_bad(p, "vocab is missing, empty or not an array");
	if (!part_absent(unk)) {
		id = json_int(unk, -1);
		if (id < 0 || (uint64_t)id >= n || id >= TOK_MAX_ID)
			return part_bad(p, "unk_id is not the place of a token");
	}
	score = malloc(n * sizeof(*score));
	if (!score)
		return err_nomem(p->e, p->where, n * sizeof(*score));
	if (scored(t, p, score)) {
		free(score);
		return -1;
	}
	for (size_t i = 0; i < n; i++)
		least = score[i] < least ? score[i] : least;
	t->uni.unk = (int32_t)id;
	t->uni.unk_score = least - 10; /* tokenizers' K_UNK_PENALTY */
	return tok_unigram_finish(t, score, NULL, p->where, p->e);
}

static int model(struct tokenizer *t, const struct part *in)
{
	struct part p = *in;
	const char *type;

	if (json_type_of(p.v) != JSON_OBJECT)
		return part_bad(&p, "missing or not an object");
	/* The first versions of the format did not say the type of a BPE model. */
	if (json_get(p.v, "type") || !json_get(p.v, "merges")) {
		if (part_type(&p, &type))
			return -1;
		if (strcmp(type, "Unigram") == 0)
			return unigram(t, &p);
		if (strcmp(type, "BPE") != 0)
			return part_unsupported(&p, "model");
	}
	return bpe(t, &p);
}

static int added_token(struct tokenizer *t, const struct part *list, const struct json *v,
		       size_t i)
{
	struct tok_added a = { 0 };
	const char *content;
	char name[40];
	struct part p;
	int64_t id;

	snprintf(name, sizeof(name), "%zu", i);
	part_below(&p, list, v, name);
	id = json_int(json_get(v, "id"), -1);
	if (part_keys(&p, "id content single_word lstrip rstrip normalized special") ||
	    part_str(&p, "content", &content, &a.n) ||
	    part_bool(&p, "single_word", false, &a.single_word) ||
	    part_bool(&p, "lstrip", false, &a.lstrip) ||
	    part_bool(&p, "rstrip", false, &a.rstrip) ||
	    part_bool(&p, "special", false, &a.special) ||
	    part_bool(&p, "normalized", !a.special, &a.normalized))
		return -1;
	if (id < 0 || id >= TOK_MAX_ID)
		return part_bad(&p, "id is missing or out of range");
	a.id = (int32_t)id;
	if (!a.n)
		return part_bad(&p, "content is empty");
	if (part_dup(&p, content, a.n, &a.content))
		return -1;
	return tok_added_add(t, &a, p.where, p.e);
}

static int added_tokens(struct tokenizer *t, const struct part *p)
{
	if (part_absent(p->v))
		return 0;
	if (json_type_of(p->v) != JSON_ARRAY)
		return part_bad(p, "not an array");
	for (size_t i = 0; i < json_len(p->v); i++)
		if (added_token(t, p, json_at(p->v, i), i))
			return -1;
	return 0;
}

/* Ids that are put around a text must exist, else a later stage would meet them first. */
static int check_around(const struct tokenizer *t, const struct part *p)
{
	const struct ids *sides[2] = { &t->before, &t->after };

	for (int k = 0; k < 2; k++)
		for (size_t i = 0; i < sides[k]->n; i++)
			if (!tokenizer_has(t, sides[k]->id[i]))
				return part_bad(p, "id %d is not in the vocabulary",
					   (int)sides[k]->id[i]);
	return 0;
}

static int build(struct tokenizer *t, const struct json *root, const char *where, struct err *e)
{
	struct part top = { .v = root, .e = e }, p;
	const char *version;

	snprintf(top.where, sizeof(top.where), "%.100s", where);
	if (part_keys(&top, "version truncation padding added_tokens normalizer pre_tokenizer "
		       "post_processor decoder model"))
		return -1;
	version = json_str(json_get(root, "version"), NULL);
	if (version && strcmp(version, "1.0") != 0)
		return part_bad(&top, "version '%.60s' is not 1.0", version);
	part_below(&p, &top, json_get(root, "model"), "model");
	if (model(t, &p))
		return -1;
	part_below(&p, &top, json_get(root, "normalizer"), "normalizer");
	if (!part_absent(p.v) && part_normalizer(t, &p, 0))
		return -1;
	part_below(&p, &top, json_get(root, "pre_tokenizer"), "pre_tokenizer");
	if (!part_absent(p.v) && part_pre_tokenizer(t, &p, 0))
		return -1;
	part_below(&p, &top, json_get(root, "decoder"), "decoder");
	if (!part_absent(p.v) && part_decoder(t, &p, 0))
		return -1;
	part_below(&p, &top, json_get(root, "added_tokens"), "added_tokens");
	if (added_tokens(t, &p))
		return -1;
	part_below(&p, &top, json_get(root, "post_processor"), "post_processor");
	return !part_absent(p.v) && (part_post_processor(t, &p, 0) || check_around(t, &p)) ? -1 : 0;
}

int tokenizer_from_json(struct tokenizer **out, const char *json, size_t n, const char *where,
			struct err *e)
{
	struct tokenizer *t;
	struct json_doc *d;
	uint64_t high, low;
	int ret;

	if (json_parse(&d, json, n, where, e))
		return -1;
	t = tokenizer_new(e);
	ret = t ? build(t, json_root(d), where, e) : -1;
	if (!ret) {
		hash128(json, n, &high, &low);
		snprintf(t->fingerprint, sizeof(t->fingerprint), "xxh128:%016llx%016llx",
			 (unsigned long long)high, (unsigned long long)low);
	}
	json_free(d);
	if (ret) {
		tokenizer_free(t);
		return -1;
	}
	*out = t;
	return 0;
}
