/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tokenizer_stages.c - the normalizer, pre-tokenizer, decoder and post-processor of a
 * tokenizer.json
 */
#include <stdlib.h>
#include <string.h>

#include "formats/tokenizer_parts.h"
#include "lib/data/tokenizer_impl.h"

/* One character. */
static int get_char(const struct part *p, const char *key, uint32_t *c, const char **s, size_t *n)
{
	size_t len;

	if (part_str(p, key, s, n))
		return -1;
	if (!*n)
		return part_bad(p, "%s is empty", key);
	*c = tok_char(*s, &len);
	return len == *n ? 0 : part_bad(p, "%s is more than one character", key);
}

/* {"String": "..."} or {"Regex": "..."} */
static int get_pattern(const struct part *p, struct tok_pattern **out)
{
	const struct json *v = json_get(p->v, "pattern");
	const char *s;
	size_t n;
	bool regex = false;

	s = json_str(json_get(v, "String"), &n);
	if (!s) {
		regex = true;
		s = json_str(json_get(v, "Regex"), &n);
	}
	if (!s || json_len(v) != 1)
		return part_bad(p, "pattern is neither a String nor a Regex");
	return tok_pattern_new(out, regex, s, n, p->where, p->e);
}

/* Room for one more element of an array of n, zeroed; NULL and *p->e. */
static void *one_more(const struct part *p, void *array, size_t n, size_t size)
{
	char *v = realloc(array, (n + 1) * size);

	if (!v) {
		err_nomem(p->e, p->where, (n + 1) * size);
		return NULL;
	}
	memset(v + n * size, 0, size);
	return v;
}

/* Sequence: call fn for each element of the array under key. */
static int each(struct tokenizer *t, const struct part *p, const char *key,
		int (*fn)(struct tokenizer *, const struct part *, int), int depth)
{
	const struct json *list = json_get(p->v, key);

	if (json_type_of(list) != JSON_ARRAY)
		return part_bad(p, "%s is missing or not an array", key);
	if (depth > 8)
		return part_bad(p, "sequences nested too deeply");
	for (size_t i = 0; i < json_len(list); i++) {
		struct part one = *p;

		one.v = json_at(list, i);
		if (fn(t, &one, depth + 1))
			return -1;
	}
	return 0;
}

/* ---- normalizer ------------------------------------------------------------------- */

static int fill_normalizer(struct part *p, const char *type, struct norm_step *s)
{
	static const struct {
		const char *name;
		enum norm_kind kind;
	} simple[] = {
		{ "NFC", NORM_NFC }, { "NFD", NORM_NFD }, { "NFKC", NORM_NFKC },
		{ "NFKD", NORM_NFKD }, { "Lowercase", NORM_LOWERCASE },
		{ "StripAccents", NORM_STRIP_ACCENTS }, { "ByteLevel", NORM_BYTELEVEL },
	};
	const char *text;

	for (size_t i = 0; i < sizeof(simple) / sizeof(*simple); i++)
		if (strcmp(type, simple[i].name) == 0) {
			s->kind = simple[i].kind;
			return part_keys(p, "type");
		}
	if (strcmp(type, "Prepend") == 0) {
		s->kind = NORM_PREPEND;
		return part_keys(p, "type prepend") || part_str(p, "prepend", &text, &s->n) ||
		       part_dup(p, text, s->n, &s->s) ? -1 : 0;
	}
	if (strcmp(type, "Replace") == 0) {
		s->kind = NORM_REPLACE;
		return part_keys(p, "type pattern content") || get_pattern(p, &s->pat) ||
		       part_str(p, "content", &text, &s->n) || part_dup(p, text, s->n, &s->s) ?
		       -1 : 0;
	}
	if (strcmp(type, "Strip") == 0) {
		s->kind = NORM_STRIP;
		return part_keys(p, "type strip_left strip_right") ||
		       part_bool(p, "strip_left", false, &s->left) ||
		       part_bool(p, "strip_right", false, &s->right) ? -1 : 0;
	}
	return part_unsupported(p, "normalizer");
}

int part_normalizer(struct tokenizer *t, const struct part *in, int depth)
{
	struct part p = *in;
	struct norm_step *v;
	const char *type;

	if (part_type(&p, &type))
		return -1;
	if (strcmp(type, "Sequence") == 0)
		return part_keys(&p, "type normalizers") ||
		       each(t, in, "normalizers", part_normalizer, depth) ? -1 : 0;
	v = one_more(&p, t->norm, t->n_norm, sizeof(*v));
	if (!v)
		return -1;
	t->norm = v;
	return fill_normalizer(&p, type, &v[t->n_norm++]);
}

/* ---- pre-tokenizer ---------------------------------------------------------------- */

static int regex_step(const struct part *p, struct pre_step *s, const char *re)
{
	return tok_pattern_new(&s->pat, true, re, strlen(re), p->where, p->e);
}

static int get_behavior(const struct part *p, bool required, struct pre_step *s)
{
	static const char *const names[] = {
		[SPLIT_REMOVED] = "Removed", [SPLIT_ISOLATED] = "Isolated",
		[SPLIT_MERGED_PREVIOUS] = "MergedWithPrevious",
		[SPLIT_MERGED_NEXT] = "MergedWithNext", [SPLIT_CONTIGUOUS] = "Contiguous",
	};
	const struct json *v = json_get(p->v, "behavior");
	const char *name = json_str(v, NULL);

	s->behavior = SPLIT_ISOLATED;
	if (!v && !required)
		return 0;
	for (size_t i = 0; name && i < sizeof(names) / sizeof(*names); i++)
		if (strcmp(name, names[i]) == 0) {
			s->behavior = (enum split_behavior)i;
			return 0;
		}
	return part_bad(p, "behavior '%.60s' is not known", name ? name : "");
}

static int byte_level(const struct part *p, struct pre_step *s)
{
	bool use_regex, trim;

	s->kind = PRE_BYTELEVEL;
	s->behavior = SPLIT_ISOLATED;
	if (part_keys(p, "type add_prefix_space trim_offsets use_regex") ||
	    part_bool(p, "add_prefix_space", true, &s->prefix_space) ||
	    part_bool(p, "trim_offsets", true, &trim) || /* only offsets, which we do not have */
	    part_bool(p, "use_regex", true, &use_regex))
		return -1;
	return use_regex ? regex_step(p, s, "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+|"
				      " ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+") : 0;
}

static int get_prepend(const struct part *p, enum prepend_scheme *scheme)
{
	const struct json *add = json_get(p->v, "add_prefix_space");
	const struct json *v = json_get(p->v, "prepend_scheme");
	const char *name = json_str(v, NULL);
	bool prefix;

	*scheme = PREPEND_ALWAYS;
	if (v && (!name || (strcmp(name, "always") && strcmp(name, "first") &&
			    strcmp(name, "never"))))
		return part_bad(p, "prepend_scheme '%.60s' is not known", name ? name : "");
	if (name)
		*scheme = *name == 'a' ? PREPEND_ALWAYS : *name == 'f' ? PREPEND_FIRST :
			  PREPEND_NEVER;
	if (part_bool(p, "add_prefix_space", true, &prefix))
		return -1;
	if (add && !prefix) { /* the key before there was a scheme */
		if (name && *scheme != PREPEND_NEVER)
			return part_bad(p, "add_prefix_space and prepend_scheme disagree");
		*scheme = PREPEND_NEVER;
	}
	return 0;
}

static int metaspace(const struct part *p, struct pre_step *s)
{
	const char *mark;
	uint32_t c;
	bool split;

	s->kind = PRE_METASPACE;
	s->behavior = SPLIT_MERGED_NEXT;
	if (part_keys(p, "type replacement add_prefix_space prepend_scheme split str_rep") ||
	    get_char(p, "replacement", &c, &mark, &s->mark_n) || get_prepend(p, &s->prepend) ||
	    part_bool(p, "split", true, &split))
		return -1;
	memcpy(s->mark, mark, s->mark_n);
	return split ? tok_pattern_new(&s->pat, false, mark, s->mark_n, p->where, p->e) : 0;
}

static int fill_pre_tokenizer(struct part *p, const char *type, struct pre_step *s)
{
	bool single;

	s->kind = PRE_SPLIT;
	if (strcmp(type, "ByteLevel") == 0)
		return byte_level(p, s);
	if (strcmp(type, "Metaspace") == 0)
		return metaspace(p, s);
	if (strcmp(type, "Split") == 0)
		return part_keys(p, "type pattern behavior invert") ||
		       get_pattern(p, &s->pat) || get_behavior(p, true, s) ||
		       part_bool(p, "invert", false, &s->invert) ? -1 : 0;
	if (strcmp(type, "Digits") == 0) {
		if (part_keys(p, "type individual_digits") ||
		    part_bool(p, "individual_digits", false, &single))
			return -1;
		s->behavior = single ? SPLIT_ISOLATED : SPLIT_CONTIGUOUS;
		return regex_step(p, s, "\\p{N}");
	}
	if (strcmp(type, "Punctuation") == 0)
		return part_keys(p, "type behavior") || get_behavior(p, false, s) ||
		       regex_step(p, s, "[!-/:-@\\[-`{-~\\p{P}]") ? -1 : 0;
	if (strcmp(type, "WhitespaceSplit") == 0) {
		s->behavior = SPLIT_REMOVED;
		return part_keys(p, "type") || regex_step(p, s, "\\s") ? -1 : 0;
	}
	if (strcmp(type, "Whitespace") == 0) {
		s->behavior = SPLIT_REMOVED;
		s->invert = true;
		return part_keys(p, "type") ||
		       regex_step(p, s, "[\\w\\u200c\\u200d]+|[^\\w\\u200c\\u200d\\s]+") ? -1 : 0;
	}
	return part_unsupported(p, "pre-tokenizer");
}

int part_pre_tokenizer(struct tokenizer *t, const struct part *in, int depth)
{
	struct part p = *in;
	struct pre_step *v;
	const char *type;

	if (part_type(&p, &type))
		return -1;
	if (strcmp(type, "Sequence") == 0)
		return part_keys(&p, "type pretokenizers") ||
		       each(t, in, "pretokenizers", part_pre_tokenizer, depth) ? -1 : 0;
	v = one_more(&p, t->pre, t->n_pre, sizeof(*v));
	if (!v)
		return -1;
	t->pre = v;
	return fill_pre_tokenizer(&p, type, &v[t->n_pre++]);
}

/* ---- decoder ---------------------------------------------------------------------- */

static int get_count(const struct part *p, const char *key, size_t *out)
{
	int64_t n = json_int(json_get(p->v, key), -1);

	if (n < 0)
		return part_bad(p, "%s is missing or not a number", key);
	*out = (size_t)n;
	return 0;
}

static int fill_decoder(struct part *p, const char *type, struct dec_step *s)
{
	enum prepend_scheme scheme;
	const char *text;
	size_t n;

	if (strcmp(type, "Replace") == 0) {
		s->kind = DEC_REPLACE;
		return part_keys(p, "type pattern content") || get_pattern(p, &s->pat) ||
		       part_str(p, "content", &text, &s->n) || part_dup(p, text, s->n, &s->s) ?
		       -1 : 0;
	}
	if (strcmp(type, "ByteFallback") == 0) {
		s->kind = DEC_BYTE_FALLBACK;
		return part_keys(p, "type");
	}
	if (strcmp(type, "Fuse") == 0) {
		s->kind = DEC_FUSE;
		return part_keys(p, "type");
	}
	if (strcmp(type, "Strip") == 0) {
		s->kind = DEC_STRIP;
		return part_keys(p, "type content start stop") ||
		       get_char(p, "content", &s->c, &text, &n) ||
		       get_count(p, "start", &s->start) || get_count(p, "stop", &s->stop) ? -1 : 0;
	}
	if (strcmp(type, "ByteLevel") == 0) {
		s->kind = DEC_BYTELEVEL;
		return part_keys(p, "type add_prefix_space trim_offsets use_regex");
	}
	if (strcmp(type, "Metaspace") == 0) {
		s->kind = DEC_METASPACE;
		if (part_keys(p, "type replacement add_prefix_space prepend_scheme split "
			       "str_rep") ||
		    get_char(p, "replacement", &s->c, &text, &n) || get_prepend(p, &scheme))
			return -1;
		s->drop_first = scheme != PREPEND_NEVER;
		return 0;
	}
	return part_unsupported(p, "decoder");
}

int part_decoder(struct tokenizer *t, const struct part *in, int depth)
{
	struct part p = *in;
	struct dec_step *v;
	const char *type;

	if (part_type(&p, &type))
		return -1;
	t->has_decoder = true;
	if (strcmp(type, "Sequence") == 0)
		return part_keys(&p, "type decoders") ||
		       each(t, in, "decoders", part_decoder, depth) ? -1 : 0;
	v = one_more(&p, t->dec, t->n_dec, sizeof(*v));
	if (!v)
		return -1;
	t->dec = v;
	return fill_decoder(&p, type, &v[t->n_dec++]);
}

/* ---- post-processor --------------------------------------------------------------- */

/* The ids of special token `name` of a template, appended to out. */
static int special_ids(const struct part *p, const char *name, struct ids *out)
{
	const struct json *ids =
		json_get(json_get(json_get(p->v, "special_tokens"), name), "ids");

	if (json_type_of(ids) != JSON_ARRAY || !json_len(ids))
		return part_bad(p, "special token '%.80s' has no ids", name);
	for (size_t i = 0; i < json_len(ids); i++) {
		int64_t id = json_int(json_at(ids, i), -1);

		if (id < 0 || id >= TOK_MAX_ID)
			return part_bad(p, "special token '%.80s' has a bad id", name);
		if (ids_push(out, (int32_t)id, p->e))
			return -1;
	}
	return 0;
}

/* A processor around what those before it have put around the text. */
static int surround(struct tokenizer *t, struct ids *before, const struct ids *after,
		    struct err *e)
{
	struct ids old = t->before;

	for (size_t i = 0; i < old.n; i++)
		if (ids_push(before, old.id[i], e))
			return -1;
	for (size_t i = 0; i < after->n; i++)
		if (ids_push(&t->after, after->id[i], e))
			return -1;
	t->before = *before;
	*before = old;
	return 0;
}

static int template(struct tokenizer *t, const struct part *p)
{
	const struct json *list = json_get(p->v, "single");
	struct ids side[2] = { { 0 }, { 0 } };
	int at = 0, ret = 0;

	if (part_keys(p, "type single pair special_tokens"))
		return -1;
	if (json_type_of(list) != JSON_ARRAY)
		return part_bad(p, "single is missing or not an array");
	for (size_t i = 0; i < json_len(list) && !ret; i++) {
		const struct json *one = json_at(list, i);
		const char *special = json_str(json_get(json_get(one, "SpecialToken"), "id"), NULL);
		const char *seq = json_str(json_get(json_get(one, "Sequence"), "id"), NULL);

		if (special)
			ret = special_ids(p, special, &side[at]);
		else if (seq && strcmp(seq, "A") == 0 && !at)
			at = 1;
		else
			ret = part_bad(p, "element %zu of single is neither a special token nor "
				       "the one sequence A", i);
	}
	if (!ret && !at)
		ret = part_bad(p, "single has no sequence A");
	if (!ret)
		ret = surround(t, &side[0], &side[1], p->e);
	ids_release(&side[0]);
	ids_release(&side[1]);
	return ret;
}

/* ["<s>", 0] */
static int pair_id(const struct part *p, const char *key, struct ids *out)
{
	const struct json *v = json_get(p->v, key);
	int64_t id = json_int(json_at(v, 1), -1);

	if (json_type_of(v) != JSON_ARRAY || json_len(v) != 2 || id < 0 || id >= TOK_MAX_ID)
		return part_bad(p, "%s is not a pair of token and id", key);
	return ids_push(out, (int32_t)id, p->e);
}

static int cls_sep(struct tokenizer *t, const struct part *p, const char *keys)
{
	struct ids before = { 0 }, after = { 0 };
	int ret = part_keys(p, keys) || pair_id(p, "cls", &before) || pair_id(p, "sep", &after) ||
		  surround(t, &before, &after, p->e) ? -1 : 0;

	ids_release(&before);
	ids_release(&after);
	return ret;
}

int part_post_processor(struct tokenizer *t, const struct part *in, int depth)
{
	struct part p = *in;
	const char *type;

	if (part_type(&p, &type))
		return -1;
	if (strcmp(type, "Sequence") == 0)
		return part_keys(&p, "type processors") ||
		       each(t, in, "processors", part_post_processor, depth) ? -1 : 0;
	if (strcmp(type, "ByteLevel") == 0) /* offsets only */
		return part_keys(&p, "type add_prefix_space trim_offsets use_regex");
	if (strcmp(type, "TemplateProcessing") == 0)
		return template(t, &p);
	if (strcmp(type, "RobertaProcessing") == 0)
		return cls_sep(t, &p, "type sep cls trim_offsets add_prefix_space");
	if (strcmp(type, "BertProcessing") == 0)
		return cls_sep(t, &p, "type sep cls");
	return part_unsupported(&p, "post-processor");
}
