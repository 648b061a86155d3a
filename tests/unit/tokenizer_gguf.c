/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tokenizer_gguf.c - tokenizers from the arrays that a GGUF file embeds
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "formats/tokenizer_gguf.h"
#include "lib/base/buf.h"
#include "lib/data/tokenizer.h"
#include "tests/unit/tap.h"

#define MARK "\xe2\x96\x81" /* U+2581 */

static struct err err;

/* The ids of a text, "1 2 3", or the error. */
static const char *ids_of(const struct tokenizer *t, const char *text)
{
	static struct buf b;
	struct ids ids = { 0 };

	buf_clear(&b);
	if (!t || tokenizer_encode(t, text, strlen(text), true, &ids, &err)) {
		ids_release(&ids);
		return err.what;
	}
	for (size_t i = 0; i < ids.n; i++)
		buf_printf(&b, i ? " %d" : "%d", (int)ids.id[i]);
	ids_release(&ids);
	return buf_str(&b);
}

static struct tokenizer *from(const struct tokenizer_gguf *g)
{
	struct tokenizer *t = NULL;

	if (tokenizer_from_gguf(&t, g, &err))
		printf("# %s: %s\n", err.where, err.what);
	return t;
}

static void gives(const struct tokenizer_gguf *g, const char *text, const char *want,
		  const char *what)
{
	struct tokenizer *t = from(g);

	ok_str(ids_of(t, text), want, "%s", what);
	tokenizer_free(t);
}

static void refuses(const struct tokenizer_gguf *g, const char *where, const char *why)
{
	struct tokenizer *t = NULL;
	int ret = tokenizer_from_gguf(&t, g, &err);

	ok(ret == -1 && err.cls == ERR_DATA && !strcmp(err.where, where) && strstr(err.what, why),
	   "refused: %s: %s", ret ? err.where : "", ret ? err.what : where);
	tokenizer_free(t);
}

static size_t fill(struct gguf_text *v, const char *const *s, size_t n)
{
	for (size_t i = 0; i < n; i++)
		v[i] = (struct gguf_text){ s[i], strlen(s[i]) };
	return n;
}

#define COUNT(a) (sizeof(a) / sizeof(*(a)))

static void test_llama(void)
{
	static const char *const texts[] = { "<unk>", "<s>", "</s>", MARK, "a", "b", MARK "a", "ab",
					     "[u]", "[PAD9]" };
	static const float scores[] = { 0, 0, 0, -9, -8, -7, -2, -1, 0, 0 };
	static const int32_t types[] = { 2, 3, 3, 1, 1, 1, 1, 1, 4, 5 };
	struct gguf_text tokens[COUNT(texts)];
	struct tokenizer_gguf g = { .model = "llama", .tokens = tokens, .scores = scores,
				    .types = types, .n = fill(tokens, texts, COUNT(texts)),
				    .bos = -1, .eos = -1, .unk = -1, .add_bos = -1, .add_eos = -1,
				    .add_space_prefix = -1, .remove_extra_whitespaces = -1 };
	float strange[COUNT(texts)];
	int32_t other[COUNT(texts)];

	gives(&g, "ab", "1 3 7", "llama: the highest score first, BOS in front");
	gives(&g, "a ab", "1 6 3 7", "a space is a mark");
	gives(&g, "a[u]b</s>", "1 6 8 5 2", "user-defined and control tokens");
	gives(&g, "x", "1 3 0", "no bytes: unknown");
	g.add_bos = 0;
	g.add_eos = 1;
	gives(&g, "ab", "3 7 2", "as the flags say");
	g.add_space_prefix = 0;
	gives(&g, "ab", "7 2", "no space in front");
	gives(&g, " a  b ", "6 3 3 5 3 2", "spaces stay");
	g.remove_extra_whitespaces = 1;
	gives(&g, " a  b ", "4 3 5 2", "unless they are to go");
	g.bos = 2;
	g.add_bos = 1;
	gives(&g, "b", "2 5 2", "another BOS");
	g.bos = 10;
	refuses(&g, "tokenizer.ggml.bos_token_id", "10, but there are 10 tokens");
	g.bos = -1;
	memcpy(strange, scores, sizeof(scores));
	strange[5] = NAN;
	g.scores = strange;
	refuses(&g, "tokenizer.model", "piece 5 has a score that is not finite");
	g.scores = NULL;
	refuses(&g, "tokenizer.ggml.scores", "is missing");
	g.scores = scores;
	memcpy(other, types, sizeof(types));
	other[4] = 7;
	g.types = other;
	refuses(&g, "tokenizer.ggml.token_type", "4 is 7");
	g.types = types;
	tokens[4].s = "\xff";
	refuses(&g, "tokenizer.ggml.tokens", "4 is not UTF-8");
	g.model = "bert";
	tokens[4].s = "a";
	refuses(&g, "tokenizer.ggml.model", "'bert' is not supported");
}

/* Texts in GPT-2's alphabet: a space is U+0120. */
#define SP "\xc4\xa0"

static void test_gpt2(void)
{
	static const char *const texts[] = { "a", "b", SP, "1", "2", "12", "ab", SP "a", "\"\\",
					     "<e>", "[u]", "[PAD]", "abab" };
	static const int32_t types[] = { 1, 1, 1, 1, 1, 1, 1, 1, 1, 3, 4, 5, 1 };
	static const char *const pairs[] = { "a b", SP " a", "1 2" };
	struct gguf_text tokens[COUNT(texts)], merges[COUNT(pairs)];
	struct tokenizer_gguf g = { .model = "gpt2", .pre = "gpt-2", .tokens = tokens,
				    .types = types, .n = fill(tokens, texts, COUNT(texts)),
				    .merges = merges, .n_merges = fill(merges, pairs, COUNT(pairs)),
				    .bos = -1, .eos = 9, .unk = -1, .add_bos = -1, .add_eos = -1,
				    .add_space_prefix = -1, .remove_extra_whitespaces = -1 };
	struct tokenizer *t;

	gives(&g, "ab a12", "6 7 5", "gpt2: merges in their order");
	gives(&g, "a<e>[u]b", "0 9 10 1", "control and user-defined tokens");
	g.pre = "smollm";
	gives(&g, "ab a12", "6 7 3 4", "digits stand alone");
	g.pre = "qwen2";
	gives(&g, "12", "3 4", "here too");
	g.pre = "llama-bpe";
	g.bos = 9;
	gives(&g, "abab12", "9 12 5", "a piece that is a token is that, and BOS in front");
	g.add_bos = 0;
	g.add_eos = 1;
	gives(&g, "12", "5 9", "as the flags say");
	g.add_bos = 1;
	gives(&g, "12", "9 5 9", "both");
	g.pre = NULL;
	gives(&g, "ab a", "9 6 7 9", "no pre-tokenizer is the default one");
	t = from(&g);
	ok(t && tokenizer_has(t, 8) && !tokenizer_has(t, 11) && tokenizer_id(t, "\"\\") == 8,
	   "quotes survive, rows of padding are no tokens");
	tokenizer_free(t);
	g.pre = "fancy";
	refuses(&g, "tokenizer.ggml.pre", "'fancy' is not supported");
	g.pre = "gpt-2";
	g.bos = -1;
	refuses(&g, "tokenizer.ggml.bos_token_id", "is missing");
	g.add_bos = 0;
	g.n_merges = 0;
	refuses(&g, "tokenizer.ggml.merges", "is missing");
	g.n_merges = 1;
	merges[0] = (struct gguf_text){ "a c", 3 };
	refuses(&g, "tokenizer.json: model: BPE", "'c' is not in the vocabulary");
	merges[0] = (struct gguf_text){ "ab", 2 };
	refuses(&g, "tokenizer.json: model: BPE", "merge 0");
}

int main(void)
{
	test_llama();
	test_gpt2();
	return done();
}
