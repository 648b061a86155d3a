/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tokenizer_gguf.c - tokenizer.ggml.* as the files that a Hugging Face model has
 */
#include "formats/tokenizer_gguf.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/buf.h"
#include "lib/data/tokenizer_impl.h"

#define KEY "tokenizer.ggml."

static enum gguf_token type_of(const struct tokenizer_gguf *g, size_t i)
{
	return g->types ? (enum gguf_token)g->types[i] : GGUF_TOKEN_NORMAL;
}

static int check_id(int64_t id, const struct tokenizer_gguf *g, const char *where, struct err *e)
{
	if (id < -1 || id >= (int64_t)g->n)
		return err_set(e, ERR_DATA, where, "%lld, but there are %zu tokens", (long long)id,
			       g->n);
	return 0;
}

static int check_text(const struct gguf_text *v, size_t n, const char *where, struct err *e)
{
	for (size_t i = 0; i < n; i++) {
		if (!v[i].n)
			return err_set(e, ERR_DATA, where, "%zu is empty", i);
		if (tok_utf8_check(v[i].s, v[i].n) != v[i].n)
			return err_set(e, ERR_DATA, where, "%zu is not UTF-8", i);
	}
	return 0;
}

static int check(const struct tokenizer_gguf *g, struct err *e)
{
	if (!g->n || !g->tokens)
		return err_set(e, ERR_DATA, KEY "tokens", "is missing or empty");
	if (g->n >= (size_t)TOK_MAX_ID)
		return err_set(e, ERR_DATA, KEY "tokens", "%zu are too many", g->n);
	for (size_t i = 0; i < g->n; i++)
		if (type_of(g, i) < GGUF_TOKEN_NORMAL || type_of(g, i) > GGUF_TOKEN_BYTE)
			return err_set(e, ERR_DATA, KEY "token_type", "%zu is %d, which is not "
				       "known", i, (int)type_of(g, i));
	if (check_id(g->bos, g, KEY "bos_token_id", e) ||
	    check_id(g->eos, g, KEY "eos_token_id", e) ||
	    check_id(g->unk, g, KEY "unknown_token_id", e))
		return -1;
	return check_text(g->tokens, g->n, KEY "tokens", e) ||
	       check_text(g->merges, g->n_merges, KEY "merges", e) ? -1 : 0;
}

/* ---- "llama": sentencepiece_model.proto ------------------------------------------- */

static void put_varint(struct buf *b, uint64_t v)
{
	for (; v >= 0x80; v >>= 7)
		buf_byte(b, (int)(v & 0x7f) | 0x80);
	buf_byte(b, (int)v);
}

static void put_bytes(struct buf *b, unsigned field, const void *p, size_t n)
{
	put_varint(b, field << 3 | 2);
	put_varint(b, n);
	buf_add(b, p, n);
}

static void put_number(struct buf *b, unsigned field, uint64_t v)
{
	put_varint(b, field << 3);
	put_varint(b, v);
}

struct special {
	int64_t bos, eos, unk;
};

static void put_piece(struct buf *model, struct buf *one, const struct tokenizer_gguf *g, size_t i,
		      const struct special *s)
{
	unsigned type = (unsigned)type_of(g, i);
	uint32_t score;

	/* The numbers of the types are SentencePiece's. */
	if ((int64_t)i == s->unk)
		type = GGUF_TOKEN_UNKNOWN;
	else if ((int64_t)i == s->bos || (int64_t)i == s->eos)
		type = GGUF_TOKEN_CONTROL;
	buf_clear(one);
	put_bytes(one, 1, g->tokens[i].s, g->tokens[i].n);
	memcpy(&score, &g->scores[i], sizeof(score));
	put_varint(one, 2 << 3 | 5);
	for (int k = 0; k < 32; k += 8)
		buf_byte(one, (int)(score >> k & 0xff));
	put_number(one, 3, type);
	put_bytes(model, 1, one->p, one->n);
}

/* What llama.cpp assumes where the file says nothing: <unk> 0, <s> 1, </s> 2. */
static struct special special_ids(const struct tokenizer_gguf *g)
{
	struct special s = { g->bos, g->eos, g->unk };

	for (size_t i = 0; i < g->n && s.unk < 0; i++)
		if (type_of(g, i) == GGUF_TOKEN_UNKNOWN)
			s.unk = (int64_t)i;
	s.unk = s.unk < 0 ? 0 : s.unk;
	s.bos = s.bos < 0 && g->n > 1 ? 1 : s.bos;
	s.eos = s.eos < 0 && g->n > 2 ? 2 : s.eos;
	return s;
}

static void put_model(struct buf *b, const struct tokenizer_gguf *g)
{
	const struct special s = special_ids(g);
	struct buf one = { 0 };
	bool bytes = false;

	for (size_t i = 0; i < g->n; i++) {
		put_piece(b, &one, g, i, &s);
		bytes = bytes || type_of(g, i) == GGUF_TOKEN_BYTE;
	}
	buf_clear(&one);
	put_number(&one, 3, 2); /* BPE */
	put_number(&one, 35, bytes);
	put_number(&one, 40, (uint64_t)s.unk);
	put_number(&one, 41, (uint64_t)s.bos);
	put_number(&one, 42, (uint64_t)s.eos);
	put_bytes(b, 2, one.p, one.n);
	buf_clear(&one);
	put_number(&one, 3, g->add_space_prefix != 0);
	put_number(&one, 4, g->remove_extra_whitespaces == 1);
	put_number(&one, 5, 1);
	put_bytes(b, 3, one.p, one.n);
	if (one.failed)
		b->failed = true;
	buf_release(&one);
}

/* ---- "gpt2": tokenizer.json ------------------------------------------------------- */

#define SPLIT(regex) "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"" regex "\"}," \
	"\"behavior\":\"Isolated\",\"invert\":false}"
#define GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\\\p{L}+| ?\\\\p{N}+| ?[^\\\\s\\\\p{L}\\\\p{N}]+|" \
	"\\\\s+(?!\\\\S)"
#define LLAMA3(digits) "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|" \
	digits "| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|" \
	"\\\\s+(?!\\\\S)|\\\\s+"

/*
 * tokenizer.ggml.pre: how a text is cut.  The expressions are those of the models' own
 * tokenizer.json (what llama.cpp's src/llama-vocab.cpp notes as "original regex"); for "default"
 * there is none, so llama.cpp's.
 */
static const struct {
	const char *name;
	const char *split;
	bool nfc, ignore_merges, bos;
} pres[] = {
	{ .name = "default",
	  .split = SPLIT("[\\\\p{P}\\\\$\\\\+<=>\\\\^~\\\\|]+") "," SPLIT(GPT2) ","
		   SPLIT("\\\\p{N}+") "," SPLIT("[0-9][0-9][0-9]") },
	/* openai-community/gpt2 */
	{ .name = "gpt-2", .split = SPLIT(GPT2 "|\\\\s+") },
	/* meta-llama/Meta-Llama-3-8B */
	{ .name = "llama-bpe", .split = SPLIT(LLAMA3("\\\\p{N}{1,3}")), .ignore_merges = true,
	  .bos = true },
	{ .name = "llama3", .split = SPLIT(LLAMA3("\\\\p{N}{1,3}")), .ignore_merges = true,
	  .bos = true },
	{ .name = "llama-v3", .split = SPLIT(LLAMA3("\\\\p{N}{1,3}")), .ignore_merges = true,
	  .bos = true },
	/* Qwen/Qwen2-0.5B; deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B has the same */
	{ .name = "qwen2", .split = SPLIT(LLAMA3("\\\\p{N}")), .nfc = true },
	{ .name = "deepseek-r1-qwen", .split = SPLIT(LLAMA3("\\\\p{N}")) },
	/* HuggingFaceTB/SmolLM-135M; bigcode/starcoder cuts in the same way */
	{ .name = "smollm", .split = SPLIT("\\\\p{N}") "," SPLIT(GPT2 "|\\\\s+") },
	{ .name = "starcoder", .split = SPLIT("\\\\p{N}") "," SPLIT(GPT2 "|\\\\s+") },
};
enum { N_PRES = sizeof(pres) / sizeof(*pres) };

static void put_string(struct buf *b, const char *s, size_t n)
{
	buf_byte(b, '"');
	for (size_t i = 0; i < n; i++) {
		const unsigned char c = (unsigned char)s[i];

		if (c < 0x20)
			buf_printf(b, "\\u%04x", c);
		else if (c == '"' || c == '\\')
			buf_printf(b, "\\%c", c);
		else
			buf_byte(b, c);
	}
	buf_byte(b, '"');
}

/* Control and user-defined tokens are cut out of a text before all else. */
static void put_added(struct buf *b, const struct tokenizer_gguf *g)
{
	const char *comma = "";

	buf_puts(b, "\"added_tokens\":[");
	for (size_t i = 0; i < g->n; i++) {
		const enum gguf_token type = type_of(g, i);

		if (type != GGUF_TOKEN_CONTROL && type != GGUF_TOKEN_USER &&
		    type != GGUF_TOKEN_UNKNOWN)
			continue;
		buf_printf(b, "%s{\"id\":%zu,\"content\":", comma, i);
		put_string(b, g->tokens[i].s, g->tokens[i].n);
		buf_printf(b, ",\"special\":%s,\"normalized\":false}", type == GGUF_TOKEN_USER ?
			   "false" : "true");
		comma = ",";
	}
	buf_puts(b, "],");
}

static void put_template(struct buf *b, const struct tokenizer_gguf *g, bool bos, bool eos)
{
	static const char special[] = "{\"SpecialToken\":{\"id\":\"%s\",\"type_id\":0}}%s";

	buf_puts(b, "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[");
	if (bos)
		buf_printf(b, special, "bos", ",");
	buf_puts(b, "{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}");
	if (eos)
		buf_printf(b, ",");
	if (eos)
		buf_printf(b, special, "eos", "");
	buf_puts(b, "],\"pair\":[],\"special_tokens\":{");
	if (bos)
		buf_printf(b, "\"bos\":{\"id\":\"bos\",\"ids\":[%lld],\"tokens\":[\"bos\"]}%s",
			   (long long)g->bos, eos ? "," : "");
	if (eos)
		buf_printf(b, "\"eos\":{\"id\":\"eos\",\"ids\":[%lld],\"tokens\":[\"eos\"]}",
			   (long long)g->eos);
	buf_puts(b, "}},");
}

/* A part of a merge may itself begin with a blank, so the first byte is not looked at. */
static void put_merges(struct buf *b, const struct tokenizer_gguf *g)
{
	for (size_t i = 0; i < g->n_merges; i++) {
		const struct gguf_text *m = &g->merges[i];
		const char *space = memchr(m->s + 1, ' ', m->n - 1);
		const size_t n = space ? (size_t)(space - m->s) : m->n;

		buf_puts(b, i ? ",[" : "[");
		put_string(b, m->s, n);
		buf_byte(b, ',');
		put_string(b, m->s + (space ? n + 1 : n), m->n - (space ? n + 1 : n));
		buf_byte(b, ']');
	}
}

static void put_json(struct buf *b, const struct tokenizer_gguf *g, size_t pre, bool bos, bool eos)
{
	const char *comma = "";

	buf_puts(b, "{\"version\":\"1.0\",");
	put_added(b, g);
	buf_printf(b, "\"normalizer\":%s,\"pre_tokenizer\":{\"type\":\"Sequence\","
		   "\"pretokenizers\":[%s,{\"type\":\"ByteLevel\",\"add_prefix_space\":%s,"
		   "\"trim_offsets\":false,\"use_regex\":false}]},", pres[pre].nfc ?
		   "{\"type\":\"NFC\"}" : "null", pres[pre].split,
		   g->add_space_prefix == 1 ? "true" : "false");
	if (bos || eos)
		put_template(b, g, bos, eos);
	buf_printf(b, "\"decoder\":{\"type\":\"ByteLevel\"},\"model\":{\"type\":\"BPE\","
		   "\"ignore_merges\":%s,\"vocab\":{", pres[pre].ignore_merges ? "true" : "false");
	for (size_t i = 0; i < g->n; i++) {
		if (type_of(g, i) == GGUF_TOKEN_UNUSED) /* rows of padding */
			continue;
		buf_puts(b, comma);
		put_string(b, g->tokens[i].s, g->tokens[i].n);
		buf_printf(b, ":%zu", i);
		comma = ",";
	}
	buf_puts(b, "},\"merges\":[");
	put_merges(b, g);
	buf_puts(b, "]}}");
}

/* ---- both ------------------------------------------------------------------------- */

static int put_file(struct tokenizer_files *f, enum tokenizer_file kind, struct buf *b,
		    struct err *e)
{
	if (buf_failed(b, KEY "tokens", e)) {
		buf_release(b);
		return -1;
	}
	return tokenizer_files_put(f, kind, b->p, b->n, e);
}

static int llama_files(struct tokenizer_files *f, const struct tokenizer_gguf *g, struct err *e)
{
	struct buf model = { 0 }, config = { 0 };

	if (!g->scores)
		return err_set(e, ERR_DATA, KEY "scores", "is missing");
	put_model(&model, g);
	if (put_file(f, TOKF_MODEL, &model, e))
		return -1;
	buf_printf(&config, "{\"add_bos_token\":%s,\"add_eos_token\":%s,"
		   "\"tokenizer_class\":\"LlamaTokenizer\"}\n", g->add_bos ? "true" : "false",
		   g->add_eos == 1 ? "true" : "false");
	return put_file(f, TOKF_CONFIG, &config, e);
}

static int gpt2_files(struct tokenizer_files *f, const struct tokenizer_gguf *g, struct err *e)
{
	struct buf json = { 0 };
	bool bos, eos = g->add_eos == 1;
	size_t k = 0;

	while (g->pre && k < N_PRES && strcmp(pres[k].name, g->pre))
		k++;
	if (k == N_PRES)
		return err_set(e, ERR_DATA, KEY "pre", "'%.60s' is not supported", g->pre);
	bos = g->add_bos < 0 ? pres[k].bos : g->add_bos;
	if (!g->merges || !g->n_merges)
		return err_set(e, ERR_DATA, KEY "merges", "is missing");
	if ((bos && g->bos < 0) || (eos && g->eos < 0))
		return err_set(e, ERR_DATA, bos && g->bos < 0 ? KEY "bos_token_id" :
			       KEY "eos_token_id", "is missing, but the token is to be added");
	put_json(&json, g, k, bos, eos);
	return put_file(f, TOKF_JSON, &json, e);
}

int tokenizer_gguf_files(struct tokenizer_files *f, const struct tokenizer_gguf *g, struct err *e)
{
	if (check(g, e))
		return -1;
	if (strcmp(g->model, "llama") == 0)
		return llama_files(f, g, e);
	if (strcmp(g->model, "gpt2") == 0)
		return gpt2_files(f, g, e);
	return err_set(e, ERR_DATA, KEY "model", "'%.60s' is not supported", g->model);
}

int tokenizer_from_gguf(struct tokenizer **t, const struct tokenizer_gguf *g, struct err *e)
{
	struct tokenizer_files f = { 0 };
	int ret = tokenizer_gguf_files(&f, g, e);

	if (!ret)
		ret = tokenizer_files_build(t, &f, NULL, e);
	tokenizer_files_release(&f);
	return ret;
}
