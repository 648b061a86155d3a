/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tokenizer_json.c - a tokenizer.json, part by part, into a struct tokenizer
 *
 * Keys that an old file may lack have the defaults of Hugging Face's `tokenizers`; keys that
 * are not known are refused, for they may change what the tokenizer does.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/json.h"
#include "formats/tokenizer_json.h"
#include "lib/base/hash.h"
#include "lib/data/tokenizer_impl.h"

/* One component at hand: where errors place it ("tokenizer.json: pre_tokenizer: Split"). */
struct part {
	const struct json *v;
	char where[200];
	struct err *e;
};

static int bad(const struct part *p, const char *fmt, ...) QP_PRINTF(2, 3);

static int bad(const struct part *p, const char *fmt, ...)
{
	char what[300];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	return err_set(p->e, ERR_DATA, p->where, "%s", what);
}

static void below(struct part *to, const struct part *p, const struct json *v, const char *name)
{
	int room = (int)(sizeof(to->where) - strlen(name) - 3);

	to->v = v;
	to->e = p->e;
	snprintf(to->where, sizeof(to->where), "%.*s: %.60s", room > 0 ? room : 0, p->where, name);
}

/* keys: the names that may occur, separated by spaces, with one at both ends. */
static int known_keys(const struct part *p, const char *keys)
{
	const char *key;
	const struct json *v;

	if (json_type_of(p->v) != JSON_OBJECT)
		return bad(p, "not an object");
	for (void *it = json_iter(p->v, NULL, &key, &v); it; it = json_iter(p->v, it, &key, &v)) {
		const char *hit = keys;
		size_t n = strlen(key);

		while ((hit = strstr(hit, key)) && (hit[-1] != ' ' || hit[n] != ' '))
			hit++;
		if (!n || !hit || strchr(key, ' '))
			return bad(p, "key '%.60s' is not known", key);
	}
	return 0;
}

static bool absent(const struct json *v)
{
	enum json_type t = json_type_of(v);

	return t == JSON_NONE || t == JSON_NULL;
}

static int get_bool(const struct part *p, const char *key, bool otherwise, bool *out)
{
	const struct json *v = json_get(p->v, key);

	if (!absent(v) && json_type_of(v) != JSON_BOOL)
		return bad(p, "%s is not true or false", key);
	*out = json_bool(v, otherwise);
	return 0;
}

static int get_str(const struct part *p, const char *key, const char **s, size_t *n)
{
	*s = json_str(json_get(p->v, key), n);
	return *s ? 0 : bad(p, "%s is missing or not a string", key);
}

static int dup_str(const struct part *p, const char *s, size_t n, char **out)
{
	*out = malloc(n + 1);
	if (!*out)
		return err_nomem(p->e, p->where, n + 1);
	memcpy(*out, s, n);
	(*out)[n] = '\0';
	return 0;
}

/* One character. */
static int get_char(const struct part *p, const char *key, uint32_t *c, const char **s, size_t *n)
{
	size_t len;

	if (get_str(p, key, s, n))
		return -1;
	if (!*n)
		return bad(p, "%s is empty", key);
	*c = tok_char(*s, &len);
	return len == *n ? 0 : bad(p, "%s is more than one character", key);
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
		return bad(p, "pattern is neither a String nor a Regex");
	return tok_pattern_new(out, regex, s, n, p->where, p->e);
}

/* The component's "type", which then also ends p->where. */
static int get_type(struct part *p, const char **type)
{
	struct part named;
	size_t n;

	if (json_type_of(p->v) != JSON_OBJECT)
		return bad(p, "not an object");
	if (get_str(p, "type", type, &n))
		return -1;
	below(&named, p, p->v, *type);
	*p = named;
	return 0;
}

static int unsupported(struct part *p, const char *kind)
{
	char *end = strrchr(p->where, ':');
	char type[64];

	snprintf(type, sizeof(type), "%s", end ? end + 2 : "");
	if (end)
		*end = '\0';
	return bad(p, "%s type '%s' is not supported", kind, type);
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
		return bad(p, "%s is missing or not an array", key);
	if (depth > 8)
		return bad(p, "sequences nested too deeply");
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
			return known_keys(p, " type ");
		}
	if (strcmp(type, "Prepend") == 0) {
		s->kind = NORM_PREPEND;
		return known_keys(p, " type prepend ") || get_str(p, "prepend", &text, &s->n) ||
		       dup_str(p, text, s->n, &s->s) ? -1 : 0;
	}
	if (strcmp(type, "Replace") == 0) {
		s->kind = NORM_REPLACE;
		return known_keys(p, " type pattern content ") || get_pattern(p, &s->pat) ||
		       get_str(p, "content", &text, &s->n) || dup_str(p, text, s->n, &s->s) ?
		       -1 : 0;
	}
	if (strcmp(type, "Strip") == 0) {
		s->kind = NORM_STRIP;
		return known_keys(p, " type strip_left strip_right ") ||
		       get_bool(p, "strip_left", false, &s->left) ||
		       get_bool(p, "strip_right", false, &s->right) ? -1 : 0;
	}
	return unsupported(p, "normalizer");
}

static int normalizer(struct tokenizer *t, const struct part *in, int depth)
{
	struct part p = *in;
	struct norm_step *v;
	const char *type;

	if (get_type(&p, &type))
		return -1;
	if (strcmp(type, "Sequence") == 0)
		return known_keys(&p, " type normalizers ") ||
		       each(t, in, "normalizers", normalizer, depth) ? -1 : 0;
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
	return bad(p, "behavior '%.60s' is not known", name ? name : "");
}

static int byte_level(const struct part *p, struct pre_step *s)
{
	bool use_regex, trim;

	s->kind = PRE_BYTELEVEL;
	s->behavior = SPLIT_ISOLATED;
	if (known_keys(p, " type add_prefix_space trim_offsets use_regex ") ||
	    get_bool(p, "add_prefix_space", true, &s->prefix_space) ||
	    get_bool(p, "trim_offsets", true, &trim) || /* only offsets, which we do not have */
	    get_bool(p, "use_regex", true, &use_regex))
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
		return bad(p, "prepend_scheme '%.60s' is not known", name ? name : "");
	if (name)
		*scheme = *name == 'a' ? PREPEND_ALWAYS : *name == 'f' ? PREPEND_FIRST :
			  PREPEND_NEVER;
	if (get_bool(p, "add_prefix_space", true, &prefix))
		return -1;
	if (add && !prefix) { /* the key before there was a scheme */
		if (name && *scheme != PREPEND_NEVER)
			return bad(p, "add_prefix_space and prepend_scheme disagree");
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
	if (known_keys(p, " type replacement add_prefix_space prepend_scheme split str_rep ") ||
	    get_char(p, "replacement", &c, &mark, &s->mark_n) || get_prepend(p, &s->prepend) ||
	    get_bool(p, "split", true, &split))
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
		return known_keys(p, " type pattern behavior invert ") ||
		       get_pattern(p, &s->pat) || get_behavior(p, true, s) ||
		       get_bool(p, "invert", false, &s->invert) ? -1 : 0;
	if (strcmp(type, "Digits") == 0) {
		if (known_keys(p, " type individual_digits ") ||
		    get_bool(p, "individual_digits", false, &single))
			return -1;
		s->behavior = single ? SPLIT_ISOLATED : SPLIT_CONTIGUOUS;
		return regex_step(p, s, "\\p{N}");
	}
	if (strcmp(type, "Punctuation") == 0)
		return known_keys(p, " type behavior ") || get_behavior(p, false, s) ||
		       regex_step(p, s, "[!-/:-@\\[-`{-~\\p{P}]") ? -1 : 0;
	if (strcmp(type, "WhitespaceSplit") == 0) {
		s->behavior = SPLIT_REMOVED;
		return known_keys(p, " type ") || regex_step(p, s, "\\s") ? -1 : 0;
	}
	if (strcmp(type, "Whitespace") == 0) {
		s->behavior = SPLIT_REMOVED;
		s->invert = true;
		return known_keys(p, " type ") ||
		       regex_step(p, s, "[\\w\\u200c\\u200d]+|[^\\w\\u200c\\u200d\\s]+") ? -1 : 0;
	}
	return unsupported(p, "pre-tokenizer");
}

static int pre_tokenizer(struct tokenizer *t, const struct part *in, int depth)
{
	struct part p = *in;
	struct pre_step *v;
	const char *type;

	if (get_type(&p, &type))
		return -1;
	if (strcmp(type, "Sequence") == 0)
		return known_keys(&p, " type pretokenizers ") ||
		       each(t, in, "pretokenizers", pre_tokenizer, depth) ? -1 : 0;
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
		return bad(p, "%s is missing or not a number", key);
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
		return known_keys(p, " type pattern content ") || get_pattern(p, &s->pat) ||
		       get_str(p, "content", &text, &s->n) || dup_str(p, text, s->n, &s->s) ?
		       -1 : 0;
	}
	if (strcmp(type, "ByteFallback") == 0) {
		s->kind = DEC_BYTE_FALLBACK;
		return known_keys(p, " type ");
	}
	if (strcmp(type, "Fuse") == 0) {
		s->kind = DEC_FUSE;
		return known_keys(p, " type ");
	}
	if (strcmp(type, "Strip") == 0) {
		s->kind = DEC_STRIP;
		return known_keys(p, " type content start stop ") ||
		       get_char(p, "content", &s->c, &text, &n) ||
		       get_count(p, "start", &s->start) || get_count(p, "stop", &s->stop) ? -1 : 0;
	}
	if (strcmp(type, "ByteLevel") == 0) {
		s->kind = DEC_BYTELEVEL;
		return known_keys(p, " type add_prefix_space trim_offsets use_regex ");
	}
	if (strcmp(type, "Metaspace") == 0) {
		s->kind = DEC_METASPACE;
		if (known_keys(p, " type replacement add_prefix_space prepend_scheme split "
			       "str_rep ") ||
		    get_char(p, "replacement", &s->c, &text, &n) || get_prepend(p, &scheme))
			return -1;
		s->drop_first = scheme != PREPEND_NEVER;
		return 0;
	}
	return unsupported(p, "decoder");
}

static int decoder(struct tokenizer *t, const struct part *in, int depth)
{
	struct part p = *in;
	struct dec_step *v;
	const char *type;

	if (get_type(&p, &type))
		return -1;
	t->has_decoder = true;
	if (strcmp(type, "Sequence") == 0)
		return known_keys(&p, " type decoders ") ||
		       each(t, in, "decoders", decoder, depth) ? -1 : 0;
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
		return bad(p, "special token '%.80s' has no ids", name);
	for (size_t i = 0; i < json_len(ids); i++) {
		int64_t id = json_int(json_at(ids, i), -1);

		if (id < 0 || id >= TOK_MAX_ID)
			return bad(p, "special token '%.80s' has a bad id", name);
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

	if (known_keys(p, " type single pair special_tokens "))
		return -1;
	if (json_type_of(list) != JSON_ARRAY)
		return bad(p, "single is missing or not an array");
	for (size_t i = 0; i < json_len(list) && !ret; i++) {
		const struct json *one = json_at(list, i);
		const char *special = json_str(json_get(json_get(one, "SpecialToken"), "id"), NULL);
		const char *seq = json_str(json_get(json_get(one, "Sequence"), "id"), NULL);

		if (special)
			ret = special_ids(p, special, &side[at]);
		else if (seq && strcmp(seq, "A") == 0 && !at)
			at = 1;
		else
			ret = bad(p, "element %zu of single is neither a special token nor the "
				  "one sequence A", i);
	}
	if (!ret && !at)
		ret = bad(p, "single has no sequence A");
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
		return bad(p, "%s is not a pair of token and id", key);
	return ids_push(out, (int32_t)id, p->e);
}

static int cls_sep(struct tokenizer *t, const struct part *p, const char *keys)
{
	struct ids before = { 0 }, after = { 0 };
	int ret = known_keys(p, keys) || pair_id(p, "cls", &before) || pair_id(p, "sep", &after) ||
		  surround(t, &before, &after, p->e) ? -1 : 0;

	ids_release(&before);
	ids_release(&after);
	return ret;
}

static int post_processor(struct tokenizer *t, const struct part *in, int depth)
{
	struct part p = *in;
	const char *type;

	if (get_type(&p, &type))
		return -1;
	if (strcmp(type, "Sequence") == 0)
		return known_keys(&p, " type processors ") ||
		       each(t, in, "processors", post_processor, depth) ? -1 : 0;
	if (strcmp(type, "ByteLevel") == 0) /* offsets only */
		return known_keys(&p, " type add_prefix_space trim_offsets use_regex ");
	if (strcmp(type, "TemplateProcessing") == 0)
		return template(t, &p);
	if (strcmp(type, "RobertaProcessing") == 0)
		return cls_sep(t, &p, " type sep cls trim_offsets add_prefix_space ");
	if (strcmp(type, "BertProcessing") == 0)
		return cls_sep(t, &p, " type sep cls ");
	return unsupported(&p, "post-processor");
}

/* ---- model ------------------------------------------------------------------------ */

static int vocabulary(struct tokenizer *t, const struct part *p)
{
	const struct json *vocab = json_get(p->v, "vocab"), *v;
	const char *key;

	if (json_type_of(vocab) != JSON_OBJECT)
		return bad(p, "vocab is missing or not an object");
	if (tok_vocab_reserve(&t->vocab, json_len(vocab), 8 * json_len(vocab), p->e))
		return -1;
	for (void *it = json_iter(vocab, NULL, &key, &v); it; it = json_iter(vocab, it, &key, &v)) {
		if (json_type_of(v) != JSON_INT)
			return bad(p, "vocab: the id of '%.80s' is not a number", key);
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
			return bad(p, "merge %zu is not two tokens: '%.80s'", i, s);
		return tok_bpe_add(t, s, (size_t)(space - s), space + 1,
				   n - (size_t)(space + 1 - s), p->where, p->e);
	}
	s = json_str(json_at(v, 0), &n);
	b = json_str(json_at(v, 1), &bn);
	if (json_type_of(v) != JSON_ARRAY || json_len(v) != 2 || !s || !b)
		return bad(p, "merge %zu is neither a string nor a pair", i);
	return tok_bpe_add(t, s, n, b, bn, p->where, p->e);
}

/* A string that may be absent or null, then "" and NULL. */
static int option_str(const struct part *p, const char *key, char **out, size_t *n)
{
	const struct json *v = json_get(p->v, key);
	const char *s;

	*n = 0;
	if (absent(v))
		return 0;
	return get_str(p, key, &s, n) || dup_str(p, s, *n, out) ? -1 : 0;
}

static int bpe_options(struct tokenizer *t, const struct part *p)
{
	const struct json *dropout = json_get(p->v, "dropout");
	struct tok_bpe *b = &t->bpe;
	size_t n;

	if (known_keys(p, " type dropout unk_token continuing_subword_prefix end_of_word_suffix "
		       "fuse_unk byte_fallback ignore_merges vocab merges "))
		return -1;
	if (!absent(dropout) && json_num(dropout, 1) != 0)
		return bad(p, "dropout is not 0: the tokens of a text would be drawn at random");
	return option_str(p, "unk_token", &b->unk_token, &n) ||
	       option_str(p, "continuing_subword_prefix", &b->prefix, &b->prefix_n) ||
	       option_str(p, "end_of_word_suffix", &b->suffix, &b->suffix_n) ||
	       get_bool(p, "fuse_unk", false, &b->fuse_unk) ||
	       get_bool(p, "byte_fallback", false, &b->byte_fallback) ||
	       get_bool(p, "ignore_merges", false, &b->ignore_merges) ? -1 : 0;
}

static int model(struct tokenizer *t, const struct part *in)
{
	struct part p = *in;
	const struct json *merges;
	const char *type;

	if (json_type_of(p.v) != JSON_OBJECT)
		return bad(&p, "missing or not an object");
	/* The first versions of the format did not say the type of a BPE model. */
	if (json_get(p.v, "type") || !json_get(p.v, "merges")) {
		if (get_type(&p, &type))
			return -1;
		if (strcmp(type, "BPE") != 0)
			return unsupported(&p, "model");
	}
	merges = json_get(p.v, "merges");
	if (json_type_of(merges) != JSON_ARRAY)
		return bad(&p, "merges is missing or not an array");
	if (bpe_options(t, &p) || vocabulary(t, &p) ||
	    tok_bpe_reserve(t, json_len(merges), p.e))
		return -1;
	for (size_t i = 0; i < json_len(merges); i++)
		if (merge(t, &p, json_at(merges, i), i))
			return -1;
	return tok_bpe_finish(t, p.e);
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
	below(&p, list, v, name);
	id = json_int(json_get(v, "id"), -1);
	if (known_keys(&p, " id content single_word lstrip rstrip normalized special ") ||
	    get_str(&p, "content", &content, &a.n) ||
	    get_bool(&p, "single_word", false, &a.single_word) ||
	    get_bool(&p, "lstrip", false, &a.lstrip) || get_bool(&p, "rstrip", false, &a.rstrip) ||
	    get_bool(&p, "special", false, &a.special) ||
	    get_bool(&p, "normalized", !a.special, &a.normalized))
		return -1;
	if (id < 0 || id >= TOK_MAX_ID)
		return bad(&p, "id is missing or out of range");
	a.id = (int32_t)id;
	if (!a.n)
		return bad(&p, "content is empty");
	if (dup_str(&p, content, a.n, &a.content))
		return -1;
	return tok_added_add(t, &a, p.where, p.e);
}

static int added_tokens(struct tokenizer *t, const struct part *p)
{
	if (absent(p->v))
		return 0;
	if (json_type_of(p->v) != JSON_ARRAY)
		return bad(p, "not an array");
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
				return bad(p, "id %d is not in the vocabulary",
					   (int)sides[k]->id[i]);
	return 0;
}

static int build(struct tokenizer *t, const struct json *root, const char *where, struct err *e)
{
	struct part top = { .v = root, .e = e }, p;
	const char *version;

	snprintf(top.where, sizeof(top.where), "%.100s", where);
	if (known_keys(&top, " version truncation padding added_tokens normalizer pre_tokenizer "
		       "post_processor decoder model "))
		return -1;
	version = json_str(json_get(root, "version"), NULL);
	if (version && strcmp(version, "1.0") != 0)
		return bad(&top, "version '%.60s' is not 1.0", version);
	below(&p, &top, json_get(root, "model"), "model");
	if (model(t, &p))
		return -1;
	below(&p, &top, json_get(root, "normalizer"), "normalizer");
	if (!absent(p.v) && normalizer(t, &p, 0))
		return -1;
	below(&p, &top, json_get(root, "pre_tokenizer"), "pre_tokenizer");
	if (!absent(p.v) && pre_tokenizer(t, &p, 0))
		return -1;
	below(&p, &top, json_get(root, "decoder"), "decoder");
	if (!absent(p.v) && decoder(t, &p, 0))
		return -1;
	below(&p, &top, json_get(root, "added_tokens"), "added_tokens");
	if (added_tokens(t, &p))
		return -1;
	below(&p, &top, json_get(root, "post_processor"), "post_processor");
	return !absent(p.v) && (post_processor(t, &p, 0) || check_around(t, &p)) ? -1 : 0;
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
