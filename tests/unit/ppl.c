/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ppl.c - what the three dialects run and score, on texts short enough to count by hand
 */
#include "formats/tokenizer_json.h"
#include "lib/data/tokenizer.h"
#include "lib/model/ppl.h"
#include "lib/model/wikitext.h"
#include "tests/unit/tap.h"
#include "tests/unit/tiny.h"

static struct err e;
static struct model m;

/* One token a character: ids 2.. are the letters of `alphabet`; 1 begins a text if bos. */
static const char alphabet[] = "abcdefghijklmnop =\nTU";

static struct tokenizer *make_tokenizer(bool bos)
{
	struct tokenizer *t = NULL;
	char json[2048] = "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,"
			  "\"added_tokens\":[{\"id\":1,\"content\":\"<s>\",\"single_word\":false,"
			  "\"lstrip\":false,\"rstrip\":false,\"normalized\":false,"
			  "\"special\":true}],"
			  "\"normalizer\":null,\"pre_tokenizer\":null,\"decoder\":null,"
			  "\"post_processor\":";

	strcat(json, !bos ? "null" :
	       "{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<s>\","
	       "\"type_id\":0}},{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}],\"pair\":["
	       "{\"Sequence\":{\"id\":\"A\",\"type_id\":0}},{\"Sequence\":{\"id\":\"B\","
	       "\"type_id\":1}}],\"special_tokens\":{\"<s>\":{\"id\":\"<s>\",\"ids\":[1],"
	       "\"tokens\":[\"<s>\"]}}}");
	strcat(json, ",\"model\":{\"type\":\"BPE\",\"dropout\":null,\"unk_token\":\"<unk>\","
	       "\"continuing_subword_prefix\":null,\"end_of_word_suffix\":null,"
	       "\"fuse_unk\":false,\"byte_fallback\":false,\"merges\":[],"
	       "\"vocab\":{\"<unk>\":0,\"<s>\":1");
	for (size_t i = 0; alphabet[i] != '\0'; i++) {
		char *end = json + strlen(json);

		if (alphabet[i] == '\n')
			snprintf(end, 24, ",\"\\n\":%zu", i + 2);
		else
			snprintf(end, 24, ",\"%c\":%zu", alphabet[i], i + 2);
	}
	strcat(json, "}}}");
	if (tokenizer_from_json(&t, json, strlen(json), "test", &e) < 0)
		printf("# %s: %s\n", e.where, e.what);
	return t;
}

static int32_t id(char c)
{
	return c == '<' ? 1 : (int32_t)(strchr(alphabet, c) - alphabet) + 2;
}

static int prepare(struct ppl_set *s, const struct tokenizer *t, enum ppl_dialect d, long ctx,
		   long windows, const char *text)
{
	const struct ppl_options opt = { .dialect = d, .ctx = ctx, .windows = windows };

	ppl_release(s);
	return ppl_prepare(s, t, &m, text, strlen(text), &opt, &e);
}

/* Window w reads `in` and is to predict `want` ('.': nothing); '<' is the first token, '~' the
 * filling behind a short sequence. */
static bool window(const struct ppl_set *s, size_t w, const char *in, const char *want)
{
	const size_t n = s->seqlen;

	if (strlen(in) != n || strlen(want) != n || w >= s->windows)
		return false;
	for (size_t t = 0; t < n; t++)
		if (s->ids[w * n + t] != (in[t] == '~' ? 0 : id(in[t])) ||
		    s->target[w * n + t] != (want[t] == '.' ? -1 : id(want[t])))
			return false;
	return true;
}

static void test_windows(const struct tokenizer *bos, const struct tokenizer *plain)
{
	struct ppl_set s = { 0 };

	ok(prepare(&s, bos, PPL_GPTQ, 4, 0, "abcdefghij") == 0 && s.windows == 2 && s.scored == 6 &&
	   s.units == 6, "gptq: two windows of four, the tail dropped");
	ok(window(&s, 0, "<abc", "abc.") && window(&s, 1, "defg", "efg."),
	   "gptq: each predicts all but its first");
	ok_str(s.bos, "stream", "gptq: the tokenizer's first token once");
	ok(prepare(&s, plain, PPL_GPTQ, 4, 1, "abcdefghij") == 0 && s.windows == 1 &&
	   window(&s, 0, "abcd", "bcd."), "gptq: the first window only, no first token");
	ok_str(s.bos, "none", "gptq: which is said");
	ok(prepare(&s, bos, PPL_LLAMA_CPP, 4, 0, "abcdefghij") == 0 && s.windows == 2 &&
	   s.scored == 2 && window(&s, 0, "<abc", "..c.") && window(&s, 1, "<efg", "..g."),
	   "llama.cpp: first token replaced, the second half scored");
	ok_str(s.bos, "window", "llama.cpp: the first token in each window");
	ok(prepare(&s, plain, PPL_LLAMA_CPP, 5, 0, "abcdefghij") == 0 &&
	   window(&s, 1, "fghij", "..ij."), "llama.cpp: nothing to replace, odd length");
	ok(prepare(&s, plain, PPL_LLAMA_CPP, 6, 0, "abcdefghij") < 0 && e.cls == ERR_DATA &&
	   strstr(e.what, "10 tokens"), "llama.cpp: two windows at least");
	ok(prepare(&s, bos, PPL_GPTQ, 12, 0, "abcdefghij") < 0 && e.cls == ERR_DATA &&
	   strstr(e.what, "11 tokens"), "gptq: a window at least");
	ok(prepare(&s, bos, PPL_GPTQ, 65, 0, "abcdefghij") < 0 && strstr(e.what, "64 positions"),
	   "longer than the model's positions");
	ok(prepare(&s, bos, PPL_GPTQ, 0, 0, "") < 0 && strstr(e.what, "empty"), "empty text");
	ok(prepare(&s, bos, PPL_GPTQ, 0, 0, "ab\xff") < 0 && e.cls == ERR_DATA, "not UTF-8");
	ppl_release(&s);
}

static void test_harness(const struct tokenizer *bos, const struct tokenizer *plain)
{
	/* Two pages of 10 and 20 characters, of which detokenization takes blanks before \n. */
	static const char text[] = " \n = T = \nab cd\n = U = \n = = k = = \nefghijklm";
	struct ppl_set s = { 0 };

	ok(prepare(&s, bos, PPL_HARNESS, 8, 0, text) == 0 && s.documents == 2,
	   "harness: two documents, the blank one before them left out");
	/* " = T =\nab cd" is 12 tokens: 8 after the prefix, 4 with 4 before them. */
	ok(window(&s, 0, "< = T =\n", " = T =\na"), "harness: the first after the prefix");
	ok(window(&s, 1, "T =\nab c", "....b cd"),
	   "harness: the last with as much before it as fits");
	/* " = U =\n== k ==\nefghijklm": 24 tokens. */
	ok(s.windows == 2 + 3 && s.scored == 12 + 24, "harness: every token is scored once");
	/* " = T = \nab cd" -> "", =, T, =, ab, cd; " = U = \n = = k = = \nefghijklm" -> "" and
	 * nine more. */
	ok(s.units == 6 + 10, "harness: words of the documents as they were");
	ok_str(s.bos, "prefix", "harness: a prefix token");
	ok(prepare(&s, plain, PPL_HARNESS, 64, 0, "abc\n = T = \nd") == 0 && s.seqlen == 8 &&
	   s.ctx == 64 && window(&s, 0, "<ab~~~~~", "abc.....") &&
	   window(&s, 1, "< = T =\n", " = T =\nd"),
	   "harness: short documents, the configuration's first token");
	m.cfg.bos = -1;
	ok(prepare(&s, plain, PPL_HARNESS, 64, 0, "abc") == 0 && s.ids[0] == 2,
	   "harness: else its last token");
	m.cfg.eos = -1;
	ok(prepare(&s, plain, PPL_HARNESS, 64, 0, "abc") < 0 && e.cls == ERR_DATA,
	   "harness: no token to start from");
	m.cfg.bos = 1, m.cfg.eos = 2;
	ok(prepare(&s, plain, PPL_HARNESS, 64, 0, " \n\n") < 0 && strstr(e.what, "empty"),
	   "harness: a blank text");
	ppl_release(&s);
}

static void test_score(const struct tokenizer *t)
{
	struct ppl_set s = { 0 };
	struct ppl_result r;
	double nll[8];

	ok(prepare(&s, t, PPL_GPTQ, 4, 0, "abcdefgh") == 0 && s.scored == 6, "score: six");
	for (int i = 0; i < 8; i++)
		nll[i] = i % 4 == 3 ? NAN : log(i == 0 ? 8 : 2); /* the last of each: not scored */
	ok(ppl_score(&s, nll, &r, &e) == 0, "score: what is not scored may be anything");
	ok_near(r.nll, 8.0 / 6 * log(2), 1e-12, "score: the mean");
	ok_near(r.ppl, pow(2, 8.0 / 6), 1e-12, "score: its exponential");
	/* One of log 8, five of log 2: variance (2 log 2)^2 (1/6) (5/6) 6/5 = (2 log 2)^2 / 6. */
	ok_near(r.error, r.ppl * 2 * log(2) / 6, 1e-12, "score: the standard error");
	s.units = 3; /* as if by words */
	ok(ppl_score(&s, nll, &r, &e) == 0, "score: by words");
	ok_near(r.ppl, pow(2, 8.0 / 3), 1e-12, "score: the sum over words");
	ok_near(r.error, r.ppl * 2 * log(2) / 3, 1e-12, "score: its error over words");
	nll[5] = NAN;
	ok(ppl_score(&s, nll, &r, &e) < 0 && e.cls == ERR_DATA &&
	   strstr(e.what, "window 1, position 1"), "score: NaN is named");
	nll[5] = 1e5;
	ok(ppl_score(&s, nll, &r, &e) < 0 && strstr(e.what, "out of range"), "score: overflow");
	ppl_release(&s);
}

static void detokenizes(const char *page, const char *want)
{
	struct buf out = { 0 };

	wikitext_detokenize(&out, page, strlen(page));
	ok_str(buf_str(&out), want, "detokenized: %.8s...", page);
	buf_release(&out);
}

static void test_wikitext(void)
{
	size_t skip;

	detokenizes("the cats ' tail , 1 @,@ 000 @.@ 5 m @-@ long ; yes ! no ? ok : so . \n",
		    "the cats' tail, 1,000.5 m-long; yes! no? ok: so.\n");
	detokenizes("a ( b ( c ) d ) [  e\n] { f } \" g \" ' h ' it 's",
		    "a (b ( c) d ) [e] {f} \"g\" 'h' it's");
	detokenizes(" = = x = = \n= = = y = = =", " == x ==\n=== y ===");
	detokenizes("90 \302\260 N x N (", "90\302\260N x 1 (");
	ok(wikitext_words("a b\n\nc", 6) == 3 && wikitext_words(" a ", 3) == 3 &&
	   wikitext_words("", 0) == 1 && wikitext_words("a\302\240b\342\200\211c", 8) == 3,
	   "words are what lies between runs of white space, ends included");
	ok(wikitext_blank(" \n\343\200\200", 5) && !wikitext_blank(" x", 2), "blank");
	ok(wikitext_page("a\n = T = \nb", 11, &skip) == 1 && skip == 2,
	   "a page ends before a title");
	ok(wikitext_page(" = T = \n = = U = = \n=V=\n= =\n", 29, &skip) == 29 && skip == 0,
	   "not before lower headings or what only looks like one");
	ok(wikitext_page("x\n= T =", 7, &skip) == 1 && skip == 2, "a title at the very end");
}

int main(void)
{
	struct model_config c = tiny_config();
	struct tokenizer *bos = make_tokenizer(true), *plain = make_tokenizer(false);

	c.vocab = 40;
	m = tiny_model(&c);
	if (!ok(bos != NULL && plain != NULL, "tokenizers"))
		return done();
	test_windows(bos, plain);
	test_harness(bos, plain);
	test_score(plain);
	test_wikitext();
	tokenizer_free(bos);
	tokenizer_free(plain);
	return done();
}
