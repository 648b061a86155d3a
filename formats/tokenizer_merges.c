/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tokenizer_merges.c - vocab.json and merges.txt into a struct tokenizer
 */
#include "formats/tokenizer_merges.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/tokenizer_config.h"
#include "lib/data/tokenizer_bpe.h"

struct reader {
	struct tokenizer *t;
	const struct tokenizer_config *c;
	bool *made; /* [vocab.n] a character, or the result of a line so far */
	char where[200]; /* of merges.txt */
	struct err *e;
};

/* ---- the tables ------------------------------------------------------------------- */

static int vocabulary(struct reader *r, const struct tokenizer_files *f, const char *dir)
{
	struct part p = { .e = r->e };
	struct json_doc *d;
	int ret;

	tokenizer_file_place(p.where, sizeof(p.where), dir, TOKF_VOCAB);
	if (json_parse(&d, f->file[TOKF_VOCAB].text, f->file[TOKF_VOCAB].n, p.where, r->e))
		return -1;
	p.v = json_root(d);
	ret = json_type_of(p.v) == JSON_OBJECT ? part_vocabulary(r->t, &p, p.v) :
	      part_bad(&p, "not an object");
	json_free(d);
	return ret;
}

static int mark_characters(struct reader *r)
{
	const struct tok_vocab *v = &r->t->vocab;
	size_t len;

	r->made = calloc(v->n + 1, sizeof(*r->made));
	if (!r->made)
		return err_nomem(r->e, r->where, v->n + 1);
	for (size_t id = 0; id < v->n; id++) {
		const struct tok_entry *x = &v->entry[id];

		if (!x->used || !x->len)
			continue;
		(void)tok_char(v->bytes.p + x->off, &len);
		r->made[id] = len == x->len;
	}
	return 0;
}

/* One side of a pair: its id. */
static int side(struct reader *r, const char *s, size_t n, const char *where, int32_t *id)
{
	*id = tok_vocab_find(&r->t->vocab, s, n);
	if (*id < 0)
		return err_set(r->e, ERR_DATA, where, "'%.*s' is not in the vocabulary",
			       (int)(n < 80 ? n : 80), s);
	if (!r->made[*id])
		return err_set(r->e, ERR_DATA, where, "'%.*s' is made by no line before",
			       (int)(n < 80 ? n : 80), s);
	return 0;
}

static int merge(struct reader *r, const char *s, size_t n, size_t number)
{
	const char *space = memchr(s, ' ', n);
	const size_t an = space ? (size_t)(space - s) : 0, bn = space ? n - an - 1 : 0;
	char where[240];
	int32_t a, b;

	snprintf(where, sizeof(where), "%s: line %zu", r->where, number);
	if (!an || !bn || memchr(space + 1, ' ', bn))
		return err_set(r->e, ERR_DATA, where, "not two tokens between a blank: '%.*s'",
			       (int)(n < 80 ? n : 80), s);
	if (side(r, s, an, where, &a) || side(r, space + 1, bn, where, &b))
		return -1;
	if (merge_slot(&r->t->bpe, a, b)->key != BPE_FREE)
		return err_set(r->e, ERR_DATA, where, "'%.*s' is there twice",
			       (int)(n < 80 ? n : 80), s);
	if (tok_bpe_add(r->t, s, an, space + 1, bn, where, r->e))
		return -1;
	r->made[merge_slot(&r->t->bpe, a, b)->id] = true;
	return 0;
}

static int merges(struct reader *r, const char *s, size_t n)
{
	size_t lines = 1, number = 0;

	if (tok_utf8_check(s, n) != n)
		return err_set(r->e, ERR_DATA, r->where, "not UTF-8: offset %zu",
			       tok_utf8_check(s, n));
	for (size_t i = 0; i < n; i++)
		lines += s[i] == '\n';
	if (tok_bpe_reserve(r->t, lines, r->e) || mark_characters(r))
		return -1;
	for (size_t i = 0, len; i < n; i += len + 1) {
		const char *end = memchr(s + i, '\n', n - i);

		len = end ? (size_t)(end - (s + i)) : n - i;
		number++;
		if (!len || (number == 1 && len >= 8 && !memcmp(s, "#version", 8)))
			continue;
		if (merge(r, s + i, len, number))
			return -1;
	}
	return 0;
}

/* ---- the stages, by the class ----------------------------------------------------- */

static const char gpt2[] =
	"{\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":%s},"
	"\"decoder\":{\"type\":\"ByteLevel\"}}";

/* transformers, models/qwen2/tokenization_qwen2.py */
static const char qwen2[] =
	"{\"normalizer\":{\"type\":\"NFC\"},"
	"\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\","
	"\"pattern\":{\"Regex\":\"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?"
	"\\\\p{L}+|\\\\p{N}| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|"
	"\\\\s+(?!\\\\S)|\\\\s+\"},\"behavior\":\"Isolated\",\"invert\":false},"
	"{\"type\":\"ByteLevel\",\"add_prefix_space\":%s,\"use_regex\":false}]},"
	"\"decoder\":{\"type\":\"ByteLevel\"}}";

static const struct {
	const char *name;
	const char *stages;
	bool bos; /* add_bos_token is heard */
} classes[] = {
	{ "GPT2Tokenizer", gpt2, true },
	{ "GPT2TokenizerFast", gpt2, true },
	{ "Qwen2Tokenizer", qwen2, false },
	{ "Qwen2TokenizerFast", qwen2, false },
};

static int find_class(const struct reader *r, size_t *k)
{
	const char *name = r->c->cls;

	if (!*name)
		name = !strncmp(r->c->model_type, "qwen", 4) ? "Qwen2Tokenizer" : "GPT2Tokenizer";
	for (*k = 0; *k < sizeof(classes) / sizeof(*classes); ++*k)
		if (strcmp(classes[*k].name, name) == 0)
			return 0;
	return err_set(r->e, ERR_DATA, r->c->top[TOKF_CONFIG].where, "tokenizer_class '%.60s' is "
		       "not supported with vocab.json and merges.txt", name);
}

/* What is put before a text: nothing, or bos_token. */
static int around(struct reader *r, size_t k)
{
	struct tokenizer *t = r->t;
	const char *text;
	bool bos, eos;
	int32_t id;

	if (tokenizer_config_flag(r->c, "add_bos_token", false, &bos, r->e) ||
	    tokenizer_config_flag(r->c, "add_eos_token", false, &eos, r->e) ||
	    tokenizer_config_token(r->c, "bos_token", &text, r->e))
		return -1;
	if (eos || (bos && !classes[k].bos))
		return err_set(r->e, ERR_DATA, r->c->top[TOKF_CONFIG].where, "%s is not supported "
			       "for %s", eos ? "add_eos_token" : "add_bos_token", classes[k].name);
	if (!bos)
		return 0;
	if (!text && !tokenizer_config_has(r->c, "bos_token"))
		text = "<|endoftext|>"; /* the class's own */
	id = text ? tok_vocab_find(&t->vocab, text, strlen(text)) : -1;
	if (id < 0)
		return err_set(r->e, ERR_DATA, r->c->top[TOKF_CONFIG].where, "add_bos_token, but "
			       "bos_token is %s", text ? "not in the vocabulary" : "null");
	return ids_push(&t->before, id, r->e);
}

static int build(struct reader *r, const struct tokenizer_files *f, const char *dir)
{
	struct part p = { .e = r->e };
	const char *unk;
	char json[640];
	bool prefix;
	size_t k;

	snprintf(p.where, sizeof(p.where), "%s", r->where);
	if (find_class(r, &k) || vocabulary(r, f, dir) ||
	    tokenizer_config_flag(r->c, "add_prefix_space", false, &prefix, r->e) ||
	    tokenizer_config_token(r->c, "unk_token", &unk, r->e))
		return -1;
	if (unk && tok_vocab_find(&r->t->vocab, unk, strlen(unk)) >= 0 &&
	    part_dup(&p, unk, strlen(unk), &r->t->bpe.unk_token))
		return -1;
	snprintf(json, sizeof(json), classes[k].stages, prefix ? "true" : "false");
	if (merges(r, f->file[TOKF_MERGES].text, f->file[TOKF_MERGES].n) ||
	    tok_bpe_finish(r->t, r->e) || tokenizer_config_stages(r->t, json, r->where, r->e) ||
	    tokenizer_config_add(r->c, r->t, r->e))
		return -1;
	return around(r, k);
}

int tokenizer_from_merges(struct tokenizer **out, const struct tokenizer_files *f,
			  const struct tokenizer_config *c, const char *dir, struct err *e)
{
	struct reader r = { .c = c, .e = e };
	int ret;

	tokenizer_file_place(r.where, sizeof(r.where), dir, TOKF_MERGES);
	r.t = tokenizer_new(e);
	ret = r.t ? build(&r, f, dir) : -1;
	free(r.made);
	if (ret) {
		tokenizer_free(r.t);
		return -1;
	}
	*out = r.t;
	return 0;
}
