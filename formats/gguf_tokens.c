/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gguf_tokens.c - a tokenizer as keys of a GGUF file
 */
#include "formats/gguf_tokens.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/gguf_write.h"
#include "formats/json.h"
#include "formats/sentencepiece.h"
#include "lib/base/buf.h"
#include "lib/data/tokenizer_impl.h"

#define KEY "tokenizer.ggml."
#define ADDED_SCORE (-1000.0f) /* as llama.cpp's converter has it */
#define PAD_ROOM 32

/* ---- tokens ----------------------------------------------------------------------------- */

static bool byte_level(const struct tokenizer *t)
{
	for (size_t i = 0; i < t->n_pre; i++)
		if (t->pre[i].kind == PRE_BYTELEVEL)
			return true;
	for (size_t i = 0; i < t->n_norm; i++)
		if (t->norm[i].kind == NORM_BYTELEVEL)
			return true;
	return false;
}

static int allocate(struct gguf_tokens *v, size_t n, struct err *e)
{
	v->tokens = calloc(n, sizeof(*v->tokens));
	v->types = calloc(n, sizeof(*v->types));
	v->scores = calloc(n, sizeof(*v->scores));
	v->text = malloc(n * PAD_ROOM);
	if (!v->tokens || !v->types || !v->scores || !v->text)
		return err_nomem(e, KEY "tokens", n * (PAD_ROOM + 24));
	v->g.tokens = v->tokens;
	v->g.types = v->types;
	v->g.n = n;
	return 0;
}

/* Their texts; rows of the embedding that no token has are "[PAD7]", unused. */
static void take_tokens(struct gguf_tokens *v, const struct tokenizer *t)
{
	for (size_t i = 0; i < v->g.n; i++) {
		const struct tok_entry *x = i < t->vocab.n ? &t->vocab.entry[i] : NULL;
		char *pad = v->text + i * PAD_ROOM;

		if (!x || !x->used) {
			snprintf(pad, PAD_ROOM, "[PAD%zu]", i);
			v->tokens[i] = (struct gguf_text){ pad, strlen(pad) };
			v->types[i] = GGUF_TOKEN_UNUSED;
			continue;
		}
		v->tokens[i] = (struct gguf_text){ t->vocab.bytes.p + x->off, x->len };
		v->types[i] = GGUF_TOKEN_NORMAL;
		if (x->added >= 0)
			v->types[i] = t->added[x->added].special ? GGUF_TOKEN_CONTROL :
				      GGUF_TOKEN_USER;
	}
}

/* ---- merges ----------------------------------------------------------------------------- */

static int by_rank(const void *a, const void *b)
{
	const struct tok_merge *x = a, *y = b;

	return x->rank < y->rank ? -1 : x->rank > y->rank;
}

/* In order of rank, malloc'ed; *n of them. */
static struct tok_merge *sorted_merges(const struct tok_bpe *b, size_t *n, struct err *e)
{
	struct tok_merge *v = malloc((b->n_merges + 1) * sizeof(*v));

	*n = 0;
	if (!v) {
		err_nomem(e, KEY "merges", b->n_merges * sizeof(*v));
		return NULL;
	}
	for (size_t i = 0; b->merge && i <= b->merge_mask; i++)
		if (b->merge[i].key != UINT64_MAX && *n < b->n_merges)
			v[(*n)++] = b->merge[i];
	qsort(v, *n, sizeof(*v), by_rank);
	return v;
}

static int take_merges(struct gguf_tokens *v, const struct tokenizer *t, struct err *e)
{
	struct tok_merge *m;
	size_t n, room = 0;
	char *at;

	m = sorted_merges(&t->bpe, &n, e);
	if (!m)
		return -1;
	for (size_t i = 0; i < n; i++)
		room += t->vocab.entry[m[i].key >> 32].len +
			t->vocab.entry[(uint32_t)m[i].key].len + 1;
	v->merges = malloc((n + 1) * sizeof(*v->merges));
	v->merge_text = at = malloc(room + 1);
	if (!v->merges || !at) {
		free(m);
		return err_nomem(e, KEY "merges", room);
	}
	for (size_t i = 0; i < n; i++) {
		const struct tok_entry *a = &t->vocab.entry[m[i].key >> 32];
		const struct tok_entry *b = &t->vocab.entry[(uint32_t)m[i].key];

		v->merges[i] = (struct gguf_text){ at, a->len + b->len + 1 };
		memcpy(at, t->vocab.bytes.p + a->off, a->len);
		at[a->len] = ' ';
		memcpy(at + a->len + 1, t->vocab.bytes.p + b->off, b->len);
		at += v->merges[i].n;
	}
	free(m);
	v->g.merges = v->merges;
	v->g.n_merges = n;
	return 0;
}

/* ---- scores ----------------------------------------------------------------------------- */

/* A token is worth less the later a merge makes it.  Characters, which nothing makes, stay 0. */
static int rank_scores(struct gguf_tokens *v, const struct tokenizer *t, struct err *e)
{
	size_t n;
	struct tok_merge *m = sorted_merges(&t->bpe, &n, e);

	if (!m)
		return -1;
	for (size_t i = n; i-- > 0;)
		if ((size_t)m[i].id < v->g.n)
			v->scores[m[i].id] = -(float)(m[i].rank + 1);
	free(m);
	return 0;
}

/* tokenizer.model has them, and types beside. */
static int model_scores(struct gguf_tokens *v, const struct tokenizer_files *f,
			const struct tokenizer *t, struct err *e)
{
	struct sentencepiece_piece *p;
	size_t n;
	int ret = sentencepiece_pieces(&p, &n, f->file[TOKF_MODEL].text, f->file[TOKF_MODEL].n,
				       "tokenizer.model", e);

	for (size_t i = 0; !ret && i < n && i < v->g.n; i++) {
		v->scores[i] = p[i].score;
		if (t->vocab.entry[i].added < 0 || p[i].type != GGUF_TOKEN_NORMAL)
			v->types[i] = p[i].type;
	}
	free(p);
	return ret;
}

static int take_scores(struct gguf_tokens *v, const struct tokenizer_files *f,
		       const struct tokenizer *t, struct err *e)
{
	const bool model = !f->file[TOKF_JSON].text && f->file[TOKF_MODEL].text;
	int32_t byte[256];

	tok_byte_ids(&t->vocab, byte);
	for (int i = 0; i < 256; i++)
		if (byte[i] >= 0 && t->bpe.byte_fallback)
			v->types[byte[i]] = GGUF_TOKEN_BYTE;
	if (t->bpe.unk >= 0 && (size_t)t->bpe.unk < v->g.n)
		v->types[t->bpe.unk] = GGUF_TOKEN_UNKNOWN;
	for (size_t i = 0; i < v->g.n; i++)
		if (v->types[i] == GGUF_TOKEN_CONTROL || v->types[i] == GGUF_TOKEN_USER ||
		    v->types[i] == GGUF_TOKEN_UNUSED)
			v->scores[i] = ADDED_SCORE;
	v->g.scores = v->scores;
	return model ? model_scores(v, f, t, e) : rank_scores(v, t, e);
}

/* ---- ids -------------------------------------------------------------------------------- */

/* A named token of tokenizer_config.json or special_tokens_map.json: a text, or an object with its
 * content; else `otherwise`. */
static int64_t named(const struct json *const *in, const struct tokenizer *t, const char *key,
		     long otherwise)
{
	int64_t id = -1;

	for (int i = 0; i < 2 && id < 0; i++) {
		const struct json *v = json_get(in[i], key);
		const char *text = json_str(json_type_of(v) == JSON_OBJECT ?
					    json_get(v, "content") : v, NULL);

		id = text ? tokenizer_id(t, text) : -1;
	}
	return id < 0 ? otherwise : id;
}

static int take_ids(struct gguf_tokens *v, const struct tokenizer_files *f,
		    const struct tokenizer *t, const struct gguf_tokens_model *c, struct err *e)
{
	static const enum tokenizer_file files[] = { TOKF_CONFIG, TOKF_SPECIAL };
	struct json_doc *doc[2] = { NULL, NULL };
	const struct json *in[2] = { NULL, NULL };
	int ret = 0;

	for (int i = 0; i < 2 && !ret; i++)
		if (f->file[files[i]].text) {
			ret = json_parse(&doc[i], f->file[files[i]].text, f->file[files[i]].n,
					 tokenizer_file_name(files[i]), e);
			in[i] = ret ? NULL : json_root(doc[i]);
		}
	v->g.bos = named(in, t, "bos_token", c->bos);
	v->g.eos = named(in, t, "eos_token", c->eos);
	v->g.unk = named(in, t, "unk_token", t->bpe.unk);
	v->pad = named(in, t, "pad_token", -1);
	for (int i = 0; i < 2; i++)
		json_free(doc[i]);
	if (ret)
		return -1;
	if (t->before.n > 1 || t->after.n > 1)
		return err_set(e, ERR_DATA, "tokenizer", "puts more than one token before or "
			       "behind a text, which a GGUF file cannot say");
	v->g.add_bos = t->before.n == 1;
	v->g.add_eos = t->after.n == 1;
	if (t->before.n)
		v->g.bos = t->before.id[0];
	if (t->after.n)
		v->g.eos = t->after.id[0];
	return 0;
}

/* ---- the trial -------------------------------------------------------------------------- */

static const char sample[] =
	"Hello World! It's 7 o'clock; they'll've DIDN'T she'd I'M we'RE\n\n \n\t\tx  y   z    \n"
	"3 33 333 3333 33333 12,345.678 0x7f 2024-01-31 a1b2c3 _under_score__ CamelCase\r\n"
	"$+<=>^~| `back' \"quoted\" (a)[b]{c} http://ex.am/ple?q=1&r=%20#top -- ... !!! ???\n"
	"\xc3\x84rger \xc3\x9c" "ber e\xcc\x81t\xc3\xa9 na\xc3\xafve \xd0\x9f\xd1\x80\xd0\xb8"
	"\xd0\xb2\xd0\xb5\xd1\x82 \xe4\xbd\xa0\xe5\xa5\xbd\xef\xbc\x8c\xe4\xb8\x96\xe7\x95\x8c "
	"\xe3\x81\x93\xe3\x82\x93\xe3\x81\xab\xe3\x81\xa1\xe3\x81\xaf "
	"\xd9\x85\xd8\xb1\xd8\xad\xd8\xa8\xd8\xa7 "
	"\xe0\xa4\xa8\xe0\xa4\xae\xe0\xa4\xb8\xe0\xa5\x8d\xe0\xa4\xa4\xe0\xa5\x87 "
	"\xf0\x9f\x9a\x80\xf0\x9f\x98\xb6\xe2\x80\x8d\xf0\x9f\x8c\xab\xef\xb8\x8f \xe2\x85\xa6 "
	"\xef\xac\x81 \xc2\xbd \xc2\xa0nbsp\n  indented\n    code(x);\n\n\nend ";

/* The sample, and tokens of the vocabulary as they read, some thousand of them. */
static int sample_text(struct buf *out, const struct tokenizer *t, struct err *e)
{
	const size_t n = tokenizer_vocab(t), step = n / 4096 + 1;

	buf_puts(out, sample);
	for (size_t i = 0; i < n; i += step) {
		const int32_t id = (int32_t)i;
		char *text;
		size_t len;

		if (!tokenizer_has(t, id) || t->vocab.entry[i].added >= 0)
			continue;
		if (tokenizer_decode(t, &id, 1, false, &text, &len, e))
			return -1;
		/* A part of a character decodes to what is no part of it; and no two tokens shall
		 * become an added one, such as <|end|>: those are cut out before all else. */
		if (tok_utf8_check(text, len) == len && !strstr(text, "\xef\xbf\xbd") &&
		    !memchr(text, 0, len) && !strpbrk(text, "<|[")) {
			buf_add(out, text, len);
			if (i / step % 3 == 0)
				buf_byte(out, ' ');
		}
		free(text);
	}
	return buf_failed(out, "tokenizer", e);
}

static int encode(struct ids *v, const struct tokenizer *t, const struct buf *text,
		  struct err *e)
{
	v->n = 0;
	return tokenizer_encode(t, text->p, text->n, true, v, e);
}

static bool equal(const struct ids *a, const struct ids *b)
{
	return a->n == b->n && memcmp(a->id, b->id, a->n * sizeof(*a->id)) == 0;
}

int gguf_tokens_same(bool *same, const struct tokenizer *a, const struct tokenizer *b,
		     struct err *e)
{
	struct buf text = { 0 };
	struct ids x = { 0 }, y = { 0 };
	int ret = sample_text(&text, a, e) || encode(&x, a, &text, e) || encode(&y, b, &text, e) ?
		  -1 : 0;

	*same = !ret && equal(&x, &y);
	ids_release(&x);
	ids_release(&y);
	buf_release(&text);
	return ret;
}

/* The names that tokenizer_gguf.c knows, most frequent first; NULL ends. */
static const char *const byte_pres[] = { "qwen2", "llama-bpe", "smollm", "gpt-2",
					 "deepseek-r1-qwen", "default", NULL };
static const char *const spm_pres[] = { "default", NULL };

static int try(struct gguf_tokens *v, const struct ids *want, const struct buf *text, bool *same,
	       struct err *e)
{
	struct tokenizer *t;
	struct ids got = { 0 };
	struct err ignored;

	*same = false;
	if (tokenizer_from_gguf(&t, &v->g, e))
		return -1;
	/* It may know no token for a character where the original does: then it is another. */
	*same = !encode(&got, t, text, &ignored) && equal(&got, want);
	ids_release(&got);
	tokenizer_free(t);
	return 0;
}

static int choose(struct gguf_tokens *v, const struct ids *want, const struct buf *text,
		  const char *const *pres, struct err *e)
{
	bool same = false;

	for (int space = 0; space < 2; space++)
		for (int i = 0; pres[i]; i++) {
			/* SentencePiece's usually adds one, byte-level BPE does not. */
			v->g.add_space_prefix = pres == spm_pres ? !space : space;
			v->g.pre = pres[i];
			if (try(v, want, text, &same, e))
				return -1;
			if (same)
				return 0;
		}
	return err_set(e, ERR_DATA, "tokenizer", "cuts text as no pre-tokenizer of GGUF does that "
		       "is known here; --pre=NAME writes one unseen, --no-vocab none");
}

static int find_pre(struct gguf_tokens *v, const struct tokenizer *t, struct err *e)
{
	const char *const *pres = v->g.scores ? spm_pres : byte_pres;
	struct buf text = { 0 };
	struct ids want = { 0 };
	int ret = sample_text(&text, t, e) || encode(&want, t, &text, e) ||
		  choose(v, &want, &text, pres, e) ? -1 : 0;

	ids_release(&want);
	buf_release(&text);
	return ret;
}

/* ---- all of it -------------------------------------------------------------------------- */

int gguf_tokens_make(struct gguf_tokens *v, const struct tokenizer_files *f,
		     const struct tokenizer *t, const struct gguf_tokens_model *c, const char *pre,
		     struct err *e)
{
	const bool bytes = byte_level(t);

	if (t->model != MODEL_BPE)
		return err_set(e, ERR_DATA, "tokenizer", "a Unigram model has no place in a GGUF "
			       "file of these architectures");
	if (t->bpe.prefix_n || t->bpe.suffix_n)
		return err_set(e, ERR_DATA, "tokenizer", "marks inside of words are nothing that a "
			       "GGUF file can say");
	if (tokenizer_fits(t, c->vocab, e) || allocate(v, (size_t)c->vocab, e))
		return -1;
	v->g.model = bytes ? "gpt2" : "llama";
	v->g.remove_extra_whitespaces = -1;
	take_tokens(v, t);
	if ((bytes ? take_merges(v, t, e) : take_scores(v, f, t, e)) || take_ids(v, f, t, c, e))
		return -1;
	v->g.add_space_prefix = !bytes;
	v->g.pre = pre;
	return pre ? 0 : find_pre(v, t, e);
}

static void put_id(struct gguf_writer *w, const char *key, int64_t id)
{
	if (id >= 0)
		gguf_put_u32(w, key, (uint32_t)id);
}

void gguf_tokens_put(const struct gguf_tokens *v, struct gguf_writer *w)
{
	const struct tokenizer_gguf *g = &v->g;

	gguf_put_str(w, KEY "model", g->model, strlen(g->model));
	gguf_put_str(w, KEY "pre", g->pre, strlen(g->pre));
	gguf_put_array(w, KEY "tokens", GGUF_ELEM_STR, g->n);
	for (size_t i = 0; i < g->n; i++)
		gguf_put_elem_str(w, g->tokens[i].s, g->tokens[i].n);
	if (g->scores)
		gguf_put_array(w, KEY "scores", GGUF_ELEM_F32, g->n);
	for (size_t i = 0; g->scores && i < g->n; i++)
		gguf_put_elem(w, &g->scores[i]);
	gguf_put_array(w, KEY "token_type", GGUF_ELEM_I32, g->n);
	for (size_t i = 0; i < g->n; i++)
		gguf_put_elem(w, &g->types[i]);
	if (g->merges)
		gguf_put_array(w, KEY "merges", GGUF_ELEM_STR, g->n_merges);
	for (size_t i = 0; g->merges && i < g->n_merges; i++)
		gguf_put_elem_str(w, g->merges[i].s, g->merges[i].n);
	put_id(w, KEY "bos_token_id", g->bos);
	put_id(w, KEY "eos_token_id", g->eos);
	put_id(w, KEY "unknown_token_id", g->unk);
	put_id(w, KEY "padding_token_id", v->pad);
	gguf_put_bool(w, KEY "add_bos_token", g->add_bos);
	gguf_put_bool(w, KEY "add_eos_token", g->add_eos);
	gguf_put_bool(w, KEY "add_space_prefix", g->add_space_prefix);
}

void gguf_tokens_release(struct gguf_tokens *v)
{
	free(v->tokens);
	free(v->merges);
	free(v->scores);
	free(v->types);
	free(v->text);
	free(v->merge_text);
	memset(v, 0, sizeof(*v));
}
