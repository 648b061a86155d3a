/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gguf_vocab.c - the keys tokenizer.ggml.* of a GGUF file, gathered for the one who knows them
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/gguf_model.h"
#include "formats/tokenizer_gguf.h"

#define PREFIX "tokenizer.ggml."

/* What is gathered, and what it lies in. */
struct vocab {
	const struct gguf *g;
	struct tokenizer_gguf out;
	char model[64], pre[64];
	struct gguf_text *tokens, *merges;
	float *scores;
	int32_t *types;
	struct err *e;
};

static const struct gguf_kv *find(const struct vocab *v, const char *name)
{
	char key[64];

	snprintf(key, sizeof(key), PREFIX "%s", name);
	return gguf_find(v->g, key);
}

static int wrong(const struct vocab *v, const char *name, const char *expected)
{
	char where[320];

	snprintf(where, sizeof(where), "%s: " PREFIX "%s", v->g->path, name);
	return err_set(v->e, ERR_DATA, where, "expected %s", expected);
}

static int take_text(const struct vocab *v, const char *name, char *text, size_t cap)
{
	const struct gguf_kv *kv = find(v, name);
	uint64_t at = 0;
	const char *s;
	size_t n;

	*text = '\0';
	if (!kv)
		return 0;
	if (kv->type != GGUF_STRING || !gguf_str(v->g, kv, &at, &s, &n) || n >= cap ||
	    memchr(s, 0, n))
		return wrong(v, name, "a short string");
	memcpy(text, s, n);
	text[n] = '\0';
	return 0;
}

static int take_texts(const struct vocab *v, const char *name, struct gguf_text **out, size_t *n)
{
	const struct gguf_kv *kv = find(v, name);
	uint64_t at = 0;

	if (!kv)
		return 0;
	if (kv->type != GGUF_ARRAY || kv->elem != GGUF_STRING)
		return wrong(v, name, "an array of strings");
	*n = (size_t)kv->n;
	*out = malloc(*n * sizeof(**out) + 1);
	if (!*out)
		return err_nomem(v->e, name, *n * sizeof(**out));
	for (size_t i = 0; gguf_str(v->g, kv, &at, &(*out)[i].s, &(*out)[i].n); i++)
		;
	return 0;
}

static int take_scores(struct vocab *v)
{
	const struct gguf_kv *kv = find(v, "scores");
	double x;

	if (!kv)
		return 0;
	if (kv->type != GGUF_ARRAY || kv->n != v->out.n || kv->elem != GGUF_F32)
		return wrong(v, "scores", "an array of f32, one for each token");
	v->scores = malloc(v->out.n * sizeof(*v->scores) + 1);
	if (!v->scores)
		return err_nomem(v->e, PREFIX "scores", v->out.n * sizeof(*v->scores));
	for (size_t i = 0; gguf_real(v->g, kv, i, &x); i++)
		v->scores[i] = (float)x;
	v->out.scores = v->scores;
	return 0;
}

static int take_types(struct vocab *v)
{
	const struct gguf_kv *kv = find(v, "token_type");
	int64_t x;

	if (!kv)
		return 0;
	if (kv->type != GGUF_ARRAY || kv->n != v->out.n || kv->elem != GGUF_I32)
		return wrong(v, "token_type", "an array of i32, one for each token");
	v->types = malloc(v->out.n * sizeof(*v->types) + 1);
	if (!v->types)
		return err_nomem(v->e, PREFIX "token_type", v->out.n * sizeof(*v->types));
	for (size_t i = 0; gguf_int(v->g, kv, i, &x); i++)
		v->types[i] = (int32_t)x;
	v->out.types = v->types;
	return 0;
}

static int take_id(const struct vocab *v, const char *name, int64_t *id)
{
	const struct gguf_kv *kv = find(v, name);

	*id = -1;
	if (kv && (kv->type == GGUF_ARRAY || !gguf_int(v->g, kv, 0, id) || *id < 0))
		return wrong(v, name, "a token id");
	return 0;
}

static int take_flag(const struct vocab *v, const char *name, int *flag)
{
	const struct gguf_kv *kv = find(v, name);
	bool b;

	*flag = -1;
	if (kv && !gguf_bool(v->g, kv, &b))
		return wrong(v, name, "a bool");
	if (kv)
		*flag = b;
	return 0;
}

static int gather(struct vocab *v)
{
	struct tokenizer_gguf *t = &v->out;

	if (take_text(v, "pre", v->pre, sizeof(v->pre)) ||
	    take_texts(v, "tokens", &v->tokens, &t->n) ||
	    take_texts(v, "merges", &v->merges, &t->n_merges) || take_scores(v) ||
	    take_types(v) || take_id(v, "bos_token_id", &t->bos) ||
	    take_id(v, "eos_token_id", &t->eos) || take_id(v, "unknown_token_id", &t->unk) ||
	    take_flag(v, "add_bos_token", &t->add_bos) ||
	    take_flag(v, "add_eos_token", &t->add_eos) ||
	    take_flag(v, "add_space_prefix", &t->add_space_prefix) ||
	    take_flag(v, "remove_extra_whitespaces", &t->remove_extra_whitespaces))
		return -1;
	if (!v->tokens)
		return wrong(v, "tokens", "an array of strings; it is missing");
	t->model = v->model;
	t->pre = find(v, "pre") ? v->pre : NULL;
	t->tokens = v->tokens;
	t->merges = v->merges;
	return 0;
}

int gguf_tokenizer(const struct gguf *g, struct tokenizer_files *f, struct err *e)
{
	struct vocab v = { .g = g, .e = e };
	int ret;

	if (take_text(&v, "model", v.model, sizeof(v.model)))
		return -1;
	/* What llama.cpp's converter writes for a model without one. */
	if (!v.model[0] || strcmp(v.model, "none") == 0 || strcmp(v.model, "no_vocab") == 0)
		return 0;
	ret = gather(&v) ? -1 : tokenizer_gguf_files(f, &v.out, e);
	free(v.tokens);
	free(v.merges);
	free(v.scores);
	free(v.types);
	return ret;
}
