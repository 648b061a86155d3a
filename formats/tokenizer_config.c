/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tokenizer_config.c - tokenizer_config.json and the two smaller files that go with it
 */
#include "formats/tokenizer_config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/data/tokenizer_impl.h"

void tokenizer_file_place(char *where, size_t cap, const char *dir, enum tokenizer_file which)
{
	const char *name = tokenizer_file_name(which);

	if (dir && *dir)
		snprintf(where, cap, "%.150s%s%s", dir, dir[strlen(dir) - 1] == '/' ? "" : "/",
			 name);
	else
		snprintf(where, cap, "%s", name);
}

/* Settings that would change the tokens of a text, and at which value they do not. */
static int check_settings(const struct part *p)
{
	static const char *const off[] = { "split_special_tokens", "do_lower_case", NULL };

	for (size_t i = 0; off[i]; i++) {
		bool on;

		if (part_bool(p, off[i], false, &on))
			return -1;
		if (on)
			return part_bad(p, "%s is not supported", off[i]);
	}
	if (json_len(json_get(p->v, "sp_model_kwargs")))
		return part_bad(p, "sp_model_kwargs is not supported");
	return 0;
}

int tokenizer_config_read(struct tokenizer_config *c, const struct tokenizer_files *f,
			  const char *dir, struct err *e)
{
	static const enum tokenizer_file read[] = { TOKF_CONFIG, TOKF_SPECIAL, TOKF_ADDED,
						    TOKF_MODEL_CONFIG };
	const char *s;

	memset(c, 0, sizeof(*c));
	for (size_t i = 0; i < sizeof(read) / sizeof(*read); i++) {
		const enum tokenizer_file k = read[i];
		struct part *p = &c->top[k];

		p->e = e;
		tokenizer_file_place(p->where, sizeof(p->where), dir, k);
		if (!f->file[k].text)
			continue;
		if (json_parse(&c->doc[k], f->file[k].text, f->file[k].n, p->where, e))
			return -1;
		p->v = json_root(c->doc[k]);
		if (json_type_of(p->v) != JSON_OBJECT)
			return part_bad(p, "not an object");
	}
	s = json_str(json_get(c->top[TOKF_CONFIG].v, "tokenizer_class"), NULL);
	c->cls = s ? s : "";
	s = json_str(json_get(c->top[TOKF_MODEL_CONFIG].v, "model_type"), NULL);
	c->model_type = s ? s : "";
	return c->top[TOKF_CONFIG].v ? check_settings(&c->top[TOKF_CONFIG]) : 0;
}

void tokenizer_config_release(struct tokenizer_config *c)
{
	for (int i = 0; i < TOKF_COUNT; i++)
		json_free(c->doc[i]);
	memset(c, 0, sizeof(*c));
}

int tokenizer_config_flag(const struct tokenizer_config *c, const char *key, bool otherwise,
			  bool *value, struct err *e)
{
	struct part p = c->top[TOKF_CONFIG];

	p.e = e;
	*value = otherwise;
	return p.v ? part_bool(&p, key, otherwise, value) : 0;
}

/* The file that has the key, or NULL. */
static const struct part *holder(const struct tokenizer_config *c, const char *key)
{
	static const enum tokenizer_file in[] = { TOKF_CONFIG, TOKF_SPECIAL };

	for (size_t i = 0; i < sizeof(in) / sizeof(*in); i++)
		if (json_get(c->top[in[i]].v, key))
			return &c->top[in[i]];
	return NULL;
}

bool tokenizer_config_has(const struct tokenizer_config *c, const char *key)
{
	return holder(c, key) != NULL;
}

/* A token is a string or an object with its content; NULL where null. */
static int content(const struct part *p, const struct json *v, const char *key, const char **text,
		   size_t *n)
{
	const struct json *c = json_type_of(v) == JSON_OBJECT ? json_get(v, "content") : v;

	*text = json_str(c, n);
	if (!*text && !part_absent(v))
		return part_bad(p, "%.60s is neither a string nor an object with a content", key);
	if (*text && !*n)
		return part_bad(p, "%.60s is empty", key);
	return 0;
}

int tokenizer_config_token(const struct tokenizer_config *c, const char *key, const char **text,
			   struct err *e)
{
	const struct part *held = holder(c, key);
	struct part p;
	size_t n;

	*text = NULL;
	if (!held)
		return 0;
	p = *held;
	p.e = e;
	return content(&p, json_get(p.v, key), key, text, &n);
}

/* ---- tokens that are cut out ------------------------------------------------------ */

/* Add one; without an id (-1) it has the vocabulary's, or the next.  One that was added already
 * is left as it is. */
static int add(struct tokenizer *t, const struct part *p, const struct json *v, const char *key,
	       int64_t id, bool special)
{
	struct tok_added a = { .special = special };
	const char *text;
	struct part at = *p;
	bool ignored;

	if (content(p, v, key, &text, &a.n))
		return -1;
	if (!text)
		return 0;
	if (json_type_of(v) == JSON_OBJECT) {
		part_below(&at, p, v, key);
		if (part_bool(&at, "single_word", false, &a.single_word) ||
		    part_bool(&at, "lstrip", false, &a.lstrip) ||
		    part_bool(&at, "rstrip", false, &a.rstrip) ||
		    part_bool(&at, "normalized", false, &ignored) ||
		    part_bool(&at, "special", special, &a.special))
			return -1;
	}
	if (id < 0)
		id = tok_vocab_find(&t->vocab, text, a.n);
	if (id < 0)
		id = (int64_t)t->vocab.n;
	if (id >= TOK_MAX_ID)
		return part_bad(&at, "id %lld is out of range", (long long)id);
	a.id = (int32_t)id;
	if ((size_t)id < t->vocab.n && t->vocab.entry[id].added >= 0 &&
	    tok_vocab_find(&t->vocab, text, a.n) == a.id)
		return 0;
	return part_dup(&at, text, a.n, &a.content) ||
	       tok_added_add(t, &a, at.where, at.e) ? -1 : 0;
}

/* {"32000": {"content": "<pad>", ...}, ...} */
static int add_decoder(struct tokenizer *t, const struct part *config)
{
	const struct json *map = json_get(config->v, "added_tokens_decoder"), *v;
	struct part p;
	const char *key;

	if (part_absent(map))
		return 0;
	part_below(&p, config, map, "added_tokens_decoder");
	if (json_type_of(map) != JSON_OBJECT)
		return part_bad(&p, "not an object");
	for (void *it = json_iter(map, NULL, &key, &v); it; it = json_iter(map, it, &key, &v)) {
		char *end;
		long long id = strtoll(key, &end, 10);

		if (*end || !*key || id < 0 || id >= TOK_MAX_ID)
			return part_bad(&p, "'%.40s' is not an id", key);
		if (add(t, &p, v, key, id, false))
			return -1;
	}
	return 0;
}

/* {"<pad>": 32000, ...}: the texts are keys. */
static int add_map(struct tokenizer *t, const struct part *p)
{
	const struct json *v;
	const char *key;

	for (void *it = json_iter(p->v, NULL, &key, &v); it; it = json_iter(p->v, it, &key, &v)) {
		struct tok_added a = { .n = strlen(key) };
		int64_t id = json_int(v, -1);

		if (id < 0 || id >= TOK_MAX_ID || !a.n)
			return part_bad(p, "the id of '%.80s' is out of range", key);
		a.id = (int32_t)id;
		if ((size_t)id < t->vocab.n && t->vocab.entry[id].added >= 0 &&
		    tok_vocab_find(&t->vocab, key, a.n) == a.id)
			continue;
		if (part_dup(p, key, a.n, &a.content) || tok_added_add(t, &a, p->where, p->e))
			return -1;
	}
	return 0;
}

static int add_named(const struct tokenizer_config *c, struct tokenizer *t, struct err *e)
{
	static const char *const names[] = { "bos_token", "eos_token", "unk_token", "sep_token",
					     "pad_token", "cls_token", "mask_token", NULL };
	static const char *const lists[] = { "additional_special_tokens", "extra_special_tokens",
					     NULL };

	for (size_t i = 0; names[i]; i++) {
		const struct part *held = holder(c, names[i]);
		struct part p;

		if (!held)
			continue;
		p = *held;
		p.e = e;
		if (add(t, &p, json_get(p.v, names[i]), names[i], -1, true))
			return -1;
	}
	for (size_t i = 0; lists[i]; i++) {
		const struct part *held = holder(c, lists[i]);
		const struct json *list = held ? json_get(held->v, lists[i]) : NULL, *v;
		bool array = json_type_of(list) == JSON_ARRAY;
		const char *key = lists[i];
		struct part p = { .e = e };

		if (held)
			p = *held;
		p.e = e;
		for (size_t k = 0; array && k < json_len(list); k++)
			if (add(t, &p, json_at(list, k), key, -1, true))
				return -1;
		if (json_type_of(list) != JSON_OBJECT)
			continue;
		for (void *it = json_iter(list, NULL, &key, &v); it;
		     it = json_iter(list, it, &key, &v))
			if (add(t, &p, v, key, -1, true))
				return -1;
	}
	return 0;
}

int tokenizer_config_add(const struct tokenizer_config *c, struct tokenizer *t, struct err *e)
{
	struct part config = c->top[TOKF_CONFIG], added = c->top[TOKF_ADDED];

	config.e = added.e = e;
	if ((config.v && add_decoder(t, &config)) || (added.v && add_map(t, &added)))
		return -1;
	return add_named(c, t, e);
}

int tokenizer_config_stages(struct tokenizer *t, const char *json, const char *where,
			    struct err *e)
{
	struct part top = { .e = e }, p;
	struct json_doc *d;
	int ret = 0;

	if (json_parse(&d, json, strlen(json), where, e))
		return -1;
	snprintf(top.where, sizeof(top.where), "%.150s", where);
	part_below(&p, &top, json_get(json_root(d), "normalizer"), "normalizer");
	if (p.v)
		ret = part_normalizer(t, &p, 0);
	part_below(&p, &top, json_get(json_root(d), "pre_tokenizer"), "pre_tokenizer");
	if (p.v && !ret)
		ret = part_pre_tokenizer(t, &p, 0);
	part_below(&p, &top, json_get(json_root(d), "decoder"), "decoder");
	if (p.v && !ret)
		ret = part_decoder(t, &p, 0);
	json_free(d);
	return ret;
}
