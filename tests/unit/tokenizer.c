/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tokenizer.c - small tokenizer.json files, one for each thing that they can say
 *
 * What is expected was worked out from the documentation of Hugging Face's tokenizers and agrees
 * with what its version 0.23 gives for the same files.
 */
#include <stdarg.h>
#include <stdlib.h>

#include "formats/tokenizer_json.h"
#include "lib/base/buf.h"
#include "lib/data/rng.h"
#include "lib/data/tokenizer_impl.h"
#include "tests/unit/tap.h"

#define MARK "\xe2\x96\x81" /* U+2581 */

static struct err err;

static struct tokenizer *from(const char *json)
{
	struct tokenizer *t = NULL;

	if (tokenizer_from_json(&t, json, strlen(json), "tokenizer.json", &err)) {
		printf("# %s: %s\n", err.where, err.what);
		return NULL;
	}
	return t;
}

/* A file of the parts given, each NULL or JSON; free it. */
static char *file(const char *model, const char *normalizer, const char *pre,
		  const char *post, const char *decoder, const char *added)
{
	struct buf b = { 0 };

	buf_printf(&b, "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,"
		   "\"added_tokens\":%s,\"normalizer\":%s,\"pre_tokenizer\":%s,"
		   "\"post_processor\":%s,\"decoder\":%s,\"model\":%s}", added ? added : "[]",
		   normalizer ? normalizer : "null", pre ? pre : "null", post ? post : "null",
		   decoder ? decoder : "null", model);
	(void)buf_str(&b);
	return b.p;
}

/* The texts of the tokens of a text, joined by '|'; or the error. */
static const char *tokens(const struct tokenizer *t, const char *text, size_t n)
{
	static struct buf b;
	struct ids ids = { 0 };

	buf_clear(&b);
	if (!t || tokenizer_encode(t, text, n, true, &ids, &err)) {
		ids_release(&ids);
		return t ? err.what : "no tokenizer";
	}
	for (size_t i = 0; i < ids.n; i++) {
		const struct tok_entry *x = &t->vocab.entry[ids.id[i]];

		if (i)
			buf_byte(&b, '|');
		buf_add(&b, t->vocab.bytes.p + x->off, x->len);
	}
	ids_release(&ids);
	return buf_str(&b);
}

static void gives(const char *json, const char *text, const char *want, const char *what)
{
	struct tokenizer *t = from(json);

	ok_str(tokens(t, text, strlen(text)), want, "%s", what);
	tokenizer_free(t);
}

/* ---- BPE --------------------------------------------------------------------------- */

#define BPE(options, vocab, merges) \
	"{\"type\":\"BPE\"," options "\"vocab\":{" vocab "},\"merges\":[" merges "]}"

static void bpe(const char *model, const char *text, const char *want, const char *what)
{
	char *json = file(model, NULL, NULL, NULL, NULL, NULL);

	gives(json, text, want, what);
	free(json);
}

#define ABC "\"a\":0,\"b\":1,\"c\":2,\"aa\":3,\"ab\":4,\"bc\":5,\"abc\":6,\"aaaa\":7"
#define UNK "\"unk_token\":\"?\","

static void test_bpe(void)
{
	bpe(BPE("", ABC, "\"a a\""), "aaa", "aa|a", "of equal pairs the leftmost is merged");
	bpe(BPE("", ABC, "\"a a\",\"aa aa\""), "aaaaaaa", "aaaa|aa|a", "merges of merges");
	bpe(BPE("", ABC, "\"b c\",\"a b\""), "abc", "a|bc", "the lower rank first");
	bpe(BPE("", ABC, "\"a b\",\"b c\",\"ab c\""), "abcab", "abc|ab", "and on with the result");
	bpe(BPE("", ABC, "[\"a\",\"b\"]"), "ab", "ab", "merges as pairs");
	bpe(BPE("", "\"a\":0,\" \":1,\"a \":2,\"a a\":3", "[\"a\",\" \"],[\"a \",\"a\"]"), "a aa",
	    "a a|a", "tokens with spaces in pairs");
	bpe(BPE("", ABC, "\"a b\",\"b c\",\"a b\""), "abc", "a|bc",
	    "a pair given twice has its last rank");
	bpe("{\"vocab\":{" ABC "},\"merges\":[\"a b\"]}", "ab", "ab",
	    "a model without a type is BPE");
	bpe(BPE(UNK "\"fuse_unk\":false,", ABC ",\"?\":8", ""), "axyb", "a|?|?|b",
	    "unknown characters");
	bpe(BPE(UNK "\"fuse_unk\":true,", ABC ",\"?\":8", ""), "axyb", "a|?|b",
	    "unknown characters fused");
	bpe(BPE(UNK "\"fuse_unk\":true,", ABC ",\"?\":8,\"?b\":9", "\"? b\""), "axyb", "a|?b",
	    "a merge with the unknown token");
	bpe(BPE(UNK "\"byte_fallback\":true,", ABC ",\"?\":8,\"<0xC3>\":9,\"<0xA9>\":10", ""),
	    "a\xc3\xa9" "b\xc3\xaa", "a|<0xC3>|<0xA9>|b|?",
	    "bytes of an unknown character, if there is a token for each");
	bpe(BPE(UNK "\"byte_fallback\":true,\"fuse_unk\":true,",
		ABC ",\"?\":8,\"<0xC3>\":9,\"<0xA9>\":10", ""), "x\xc3\xa9y", "<0xC3>|<0xA9>|?",
	    "as in tokenizers, bytes overtake an unknown character that waits");
	bpe(BPE("", ABC, "\"a b\""), "axb", "U+0078 has no token and there is no unknown token",
	    "a character without a token and no unknown token is an error");
	bpe(BPE("\"ignore_merges\":true,", ABC, ""), "abc", "abc",
	    "ignore_merges: a piece that is a token is that token");
	bpe(BPE("\"ignore_merges\":true,", ABC, ""), "abca", "a|b|c|a", "and only the whole piece");
	bpe(BPE("\"end_of_word_suffix\":\"_\",", "\"a\":0,\"b_\":1,\"ab_\":2", "\"a b_\""), "ab",
	    "ab_", "end_of_word_suffix");
	bpe(BPE("\"continuing_subword_prefix\":\"##\",",
		"\"a\":0,\"##b\":1,\"ab\":2,\"##c\":3", "\"a ##b\""), "abc", "ab|##c",
	    "continuing_subword_prefix, which a merge drops");
	bpe(BPE("", "\"\xf0\x9f\x98\x80\":0,\"\xe6\x97\xa5\":1", ""),
	    "\xe6\x97\xa5\xf0\x9f\x98\x80", "\xe6\x97\xa5|\xf0\x9f\x98\x80",
	    "characters of three and four bytes");
}

#define UNIGRAM(options, vocab) "{\"type\":\"Unigram\"," options "\"vocab\":[" vocab "]}"
#define WORDS "[\"?\",0],[\"a\",-1],[\"b\",-1],[\"ab\",-2],[\"abc\",-20],[\"de\",-3.5]"

static void test_unigram(void)
{
	bpe(UNIGRAM("\"unk_id\":0,", WORDS), "ba", "b|a", "Unigram: the tokens that there are");
	bpe(UNIGRAM("\"unk_id\":0,", WORDS), "ab", "ab", "of equal scores the longer token's");
	bpe(UNIGRAM("\"unk_id\":0,", WORDS ",[\"aba\",-2.5]"), "aba", "aba", "the best path");
	bpe(UNIGRAM("\"unk_id\":0,", WORDS ",[\"aba\",-3.5]"), "abaab", "ab|a|ab",
	    "not the longest tokens");
	bpe(UNIGRAM("\"unk_id\":0,", WORDS), "abc", "abc",
	    "an unknown character is 10 below the least likely token");
	bpe(UNIGRAM("\"unk_id\":0,", WORDS), "xyaxb", "?|a|?|b", "unknown ones are fused");
	bpe(UNIGRAM("\"unk_id\":0,", WORDS), "ded", "de|?", "part of a token is unknown");
	bpe(UNIGRAM("\"unk_id\":0,\"byte_fallback\":true,",
		    WORDS ",[\"<0xC3>\",-9],[\"<0xA9>\",-9]"), "a\xc3\xa9" "b\xc3\xaa",
	    "a|<0xC3>|<0xA9>|b|?", "or bytes, if there is a token for each");
	bpe(UNIGRAM("", WORDS), "axb", "U+0078 has no token and there is no unknown token",
	    "no unknown token");
	bpe(UNIGRAM("\"unk_id\":0,", WORDS ",[\"\xe6\x97\xa5\",-4]"),
	    "\xe6\x97\xa5\xe6\x97\xa4", "\xe6\x97\xa5|?", "characters of several bytes");
}

/* The rule itself, in O(n^2): look at all pairs, join the best, again. */
static size_t merge_plainly(const struct tok_bpe *b, int32_t *sym, size_t n)
{
	for (;;) {
		const struct tok_merge *best = NULL;
		size_t at = 0;

		for (size_t i = 0; i + 1 < n; i++)
			for (size_t k = 0; k <= b->merge_mask; k++)
				if (b->merge[k].key == ((uint64_t)(uint32_t)sym[i] << 32 |
							(uint32_t)sym[i + 1]) &&
				    (!best || b->merge[k].rank < best->rank)) {
					best = &b->merge[k];
					at = i;
				}
		if (!best)
			return n;
		sym[at] = best->id;
		memmove(sym + at + 1, sym + at + 2, (n - at - 2) * sizeof(*sym));
		n--;
	}
}

static void quoted(struct buf *b, const char *s)
{
	buf_printf(b, "\"%s\"", s);
}

/* A model over the first `letters` letters with random merges. */
static struct tokenizer *random_model(struct rng *r, int letters, int merges)
{
	struct buf vocab = { 0 }, list = { 0 }, all = { 0 };
	char names[64][40], joined[80];
	struct tokenizer *t;
	int n = letters, made = 0;

	for (int i = 0; i < letters; i++) {
		snprintf(names[i], sizeof(names[i]), "%c", 'a' + i);
		buf_printf(&vocab, "%s\"%s\":%d", i ? "," : "", names[i], i);
	}
	while (made < merges && n < 64) {
		const char *x = names[rng_below(r, (uint64_t)n)];
		const char *y = names[rng_below(r, (uint64_t)n)];
		bool known = false;

		if (strlen(x) + strlen(y) >= sizeof(names[0]))
			continue;
		snprintf(joined, sizeof(joined), "%s%s", x, y);
		for (int i = 0; i < n; i++)
			known = known || !strcmp(names[i], joined);
		buf_puts(&list, made++ ? ",[" : "[");
		quoted(&list, x);
		buf_puts(&list, ",");
		quoted(&list, y);
		buf_puts(&list, "]");
		if (!known) {
			buf_printf(&vocab, ",\"%s\":%d", joined, n);
			memcpy(names[n++], joined, sizeof(names[0]));
		}
	}
	buf_printf(&all, "{\"model\":{\"type\":\"BPE\",\"vocab\":{%s},\"merges\":[%s]}}",
		   buf_str(&vocab), made ? buf_str(&list) : "");
	t = from(buf_str(&all));
	buf_release(&vocab);
	buf_release(&list);
	buf_release(&all);
	return t;
}

static bool same_as_plain(const struct tokenizer *t, const char *text, size_t n)
{
	int32_t *sym = malloc(n * sizeof(*sym));
	struct ids ids = { 0 };
	bool same;

	for (size_t i = 0; i < n; i++)
		sym[i] = text[i] - 'a';
	same = !tokenizer_encode(t, text, n, false, &ids, &err);
	n = merge_plainly(&t->bpe, sym, n);
	same = same && ids.n == n && !memcmp(ids.id, sym, n * sizeof(*sym));
	ids_release(&ids);
	free(sym);
	return same;
}

static void test_bpe_random(void)
{
	unsigned same = 0, cut = 0, total = 0;
	struct rng r;

	rng_init(&r, 2);
	for (int round = 0; round < 150; round++) {
		int letters = 2 + (int)rng_below(&r, 5);
		struct tokenizer *t = random_model(&r, letters, (int)rng_below(&r, 30));
		/* Short enough to be scanned, and long enough for the heap. */
		size_t lengths[] = { 1, 2, 7, 23, 24, 25, 32, 33, 60, 200 };

		for (size_t k = 0; k < sizeof(lengths) / sizeof(*lengths); k++) {
			char text[200];

			for (size_t i = 0; i < lengths[k]; i++)
				text[i] = (char)('a' + rng_below(&r, (uint64_t)letters));
			same += same_as_plain(t, text, lengths[k]);
			total++;
		}
		cut += t->bpe.near != NULL;
		tokenizer_free(t);
	}
	ok(same == total, "%u of %u random texts are merged as the plain rule says", same, total);
	ok(cut == 150, "texts were cut where no merge reaches");
}

/* A megabyte in one piece that cannot be cut anywhere: a heap, or this takes hours. */
static void test_bpe_long(void)
{
	const size_t n = 1 << 20;
	char *text = malloc(n);
	struct tokenizer *t = from("{\"model\":" BPE("", ABC, "\"a a\",\"aa aa\"") "}");
	struct ids ids = { 0 };

	memset(text, 'a', n);
	ok(!tokenizer_encode(t, text, n, false, &ids, &err) && ids.n == n / 4 && ids.id[0] == 7 &&
	   ids.id[ids.n - 1] == 7, "2^20 letters in one piece become 2^18 tokens");
	ids_release(&ids);
	tokenizer_free(t);
	free(text);
}

/* ---- normalizers and pre-tokenizers: pieces made visible ---------------------------- */

/*
 * A model in which each character is a token, and another token, ending in '/', where it ends a
 * piece; the texts of the tokens put together are the pieces.
 */
static const char *pieces_of(const char *normalizer, const char *pre, const char *added,
			     const char *text, size_t n)
{
	static struct buf out;
	struct buf model = { 0 };
	uint32_t chars[1024];
	size_t count = 0;
	char *json, c[5];
	struct tokenizer *t;
	const char *s;

	for (uint32_t u = 0x20; u < 0x180; u++)
		if (u < 0x7f || u >= 0xa0)
			chars[count++] = u;
	for (size_t i = 0, len; i < n && count < 1000; i += len) {
		uint32_t u = tok_char(text + i, &len);
		bool known = false;

		for (size_t k = 0; k < count; k++)
			known = known || chars[k] == u;
		if (!known)
			chars[count++] = u;
	}
	for (const char *more = MARK "\n\xcc\x81"; *more;) {
		size_t len;

		chars[count++] = tok_char(more, &len);
		more += len;
		for (size_t k = 0; k + 1 < count; k++)
			if (chars[k] == chars[count - 1]) {
				count--;
				break;
			}
	}
	buf_puts(&model, "{\"type\":\"BPE\",\"end_of_word_suffix\":\"/\",\"merges\":[],"
		"\"vocab\":{");
	for (size_t i = 0; i < count; i++) {
		char name[16];

		c[tok_put(c, chars[i])] = '\0';
		if (chars[i] < 0x20 || chars[i] == '"' || chars[i] == '\\')
			snprintf(name, sizeof(name), "\\u%04x", (unsigned)chars[i]);
		else
			snprintf(name, sizeof(name), "%s", c);
		buf_printf(&model, "%s\"%s\":%zu,\"%s/\":%zu", i ? "," : "", name, 2 * i, name,
			   2 * i + 1);
	}
	buf_puts(&model, "}}");
	json = file(buf_str(&model), normalizer, pre, NULL, NULL, added);
	t = from(json);
	s = tokens(t, text, n);
	buf_clear(&out);
	for (size_t i = 0; s[i]; i++)
		if (s[i] != '|' || i == 0 || (s[i + 1] == '|' && s[i - 1] != '|'))
			buf_byte(&out, s[i]);
	tokenizer_free(t);
	buf_release(&model);
	free(json);
	return buf_str(&out);
}

static void pieces(const char *normalizer, const char *pre, const char *text, const char *want)
{
	ok_str(pieces_of(normalizer, pre, NULL, text, strlen(text)), want, "%s%s",
	       normalizer ? normalizer : "", pre ? pre : "");
}

#define SPLIT(pattern, behavior) \
	"{\"type\":\"Split\",\"pattern\":{" pattern "},\"behavior\":\"" behavior "\"," \
	"\"invert\":false}"
#define INVERTED(pattern, behavior) \
	"{\"type\":\"Split\",\"pattern\":{" pattern "},\"behavior\":\"" behavior "\"," \
	"\"invert\":true}"

static void test_split(void)
{
	/* The example of the documentation of SplitDelimiterBehavior. */
	static const char text[] = "the-final--countdown";

	pieces(NULL, SPLIT("\"String\":\"-\"", "Removed"), text, "the/final/countdown/");
	pieces(NULL, SPLIT("\"String\":\"-\"", "Isolated"), text, "the/-/final/-/-/countdown/");
	pieces(NULL, SPLIT("\"String\":\"-\"", "MergedWithPrevious"), text,
	       "the-/final-/-/countdown/");
	pieces(NULL, SPLIT("\"String\":\"-\"", "MergedWithNext"), text,
	       "the/-final/-/-countdown/");
	pieces(NULL, SPLIT("\"String\":\"-\"", "Contiguous"), text, "the/-/final/--/countdown/");
	pieces(NULL, SPLIT("\"String\":\"-\"", "MergedWithNext"), "-a-", "-a/-/");
	pieces(NULL, SPLIT("\"String\":\"-\"", "MergedWithPrevious"), "-a-", "-/a-/");
	pieces(NULL, SPLIT("\"String\":\"--\"", "Isolated"), text, "the-final/--/countdown/");
	pieces(NULL, SPLIT("\"String\":\".\"", "Isolated"), "a.b", "a/./b/");
	pieces(NULL, INVERTED("\"String\":\"-\"", "Removed"), text, "-/-/-/");
	pieces(NULL, INVERTED("\"Regex\":\"[a-z]+\"", "MergedWithNext"), "a--b-", "a/--b/-/");
	pieces(NULL, SPLIT("\"Regex\":\"x*\"", "Isolated"), "axxb", "a/xx/b/");
}

static void regex(const char *re, const char *text, const char *want)
{
	char pre[300];

	snprintf(pre, sizeof(pre), SPLIT("\"Regex\":\"%s\"", "Isolated"), re);
	ok_str(pieces_of(NULL, pre, NULL, text, strlen(text)), want, "regex %s", re);
}

/* What means something else in PCRE2 than in Oniguruma. */
static void test_regex(void)
{
	regex("\\\\s+", "a \xe2\x80\x83" "b\xe1\xa0\x8e" "c", "a/ \xe2\x80\x83/b\xe1\xa0\x8e" "c/");
	regex("[^\\\\S\\\\n]+", "a \n b", "a/ /\n/ /b/");
	regex("\\\\w+", "a\xcc\x81_1-b", "a\xcc\x81_1/-/b/");
	regex("\\\\w+", "-\xc2\xbd-", "-/\xc2\xbd/-/");
	regex("[\\\\w]+", "-\xc2\xbd-", "-\xc2\xbd-/");
	regex("\\\\W", "a-b", "a/-/b/");
	regex("\\\\h+", "xfedcba98 \tz", "x/fedcba98/ \tz/");
	regex("[\\\\h ]+", "xab cz", "x/ab c/z/");
	regex("\\\\H", "ag", "a/g/");
	regex("[a-z&&[^aeiou]]+", "banana", "b/a/n/a/n/a/");
	regex("[^a-z&&[^aeiou]]+", "bane", "b/a/n/e/");
	regex("[ab[de]]+", "abcde", "ab/c/de/");
	regex("[^ab[de]]+", "abcde", "ab/c/de/");
	regex("[]a]+", "x]ax", "x/]a/x/");
	regex("[a^]+", "x^ax", "x/^a/x/");
	regex("[[:digit:][:space:]]+", "a1 2b", "a/1 2/b/");
	regex("(?m)a.b", "a\nb", "a\nb/");
	regex("a.b", "xa\nb", "xa\nb/");
	regex("(?m:a.)b", "xa\nb", "x/a\nb/");
	regex("^b", "a\nb", "a\n/b/");
	regex("a$", "a\na", "a/\n/a/");
	regex("a{,2}b", "aaab", "a/aab/");
	regex("a{1,2}", "aaab", "aa/a/b/");
	regex("{a", "x{a", "x/{a/");
	regex("\\\\bb", "ab b", "ab /b/");
	regex("\\\\Bb", "ab b", "a/b/ b/");
	regex("\\\\p{Lu}\\\\p{^Lu}", "aBc", "a/Bc/");
	regex("\\\\p{Letter}+", "1ab2", "1/ab/2/");
	regex("\\\\p{Han}+", "a\xe6\x97\xa5\xe3\x80\x81", "a/\xe6\x97\xa5/\xe3\x80\x81/");
	regex("\\\\x{62}|\\\\u0063|\\\\x64", "abcd", "a/b/c/d/");
	regex("(?i:'S|É)", "a's\xc3\xa9", "a/'s/\xc3\xa9/");
	regex("(?<=a)b|(?<!a)c", "abcac", "a/b/c/ac/");
	regex(" ?\\\\p{L}++", "ab cd", "ab/ cd/");
	regex("\\\\v", "a\x0b\nb", "a/\x0b/\nb/");
	regex("(?:a|b)(?>c)", "xac", "x/ac/");
	/* Characters of Unicode 16 and 15, whatever Unicode the library was built for. */
	regex("\\\\p{N}|\\\\p{Han}", "a\xf0\x90\xb5\x80\xf0\xb1\x8d\x90",
	      "a/\xf0\x90\xb5\x80/\xf0\xb1\x8d\x90/");
	regex("[^\\\\P{L}]|\\\\W", "1\xf0\x90\xb5\x80\xf0\xb1\x8d\x90",
	      "1\xf0\x90\xb5\x80/\xf0\xb1\x8d\x90/");
	/* Llama 3, as its file has it. */
	regex("(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}{1,3}|"
	      " ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+",
	      "I'LL  pay 12345$!\n\n ok  ",
	      "I/'LL/ / pay/ /123/45/$!\n\n/ ok/  /");
}

static void refuses_regex(const char *re, const char *why)
{
	struct tok_pattern *p;

	ok(tok_pattern_new(&p, true, re, strlen(re), "here", &err) && err.cls == ERR_DATA &&
	   strstr(err.what, why), "regex %s is refused: %s", re, err.what);
}

static void test_regex_refused(void)
{
	refuses_regex("a{2,3}+", "interval followed by +");
	refuses_regex("a{2}?", "interval followed by +");
	refuses_regex("(*FAIL)", "(*");
	refuses_regex("(?~ab)", "group");
	refuses_regex("(?P<n>a)", "group");
	refuses_regex("(?(1)a|b)", "group");
	refuses_regex("\\Qa\\E", "escape \\Q");
	refuses_regex("\\X", "escape \\X");
	refuses_regex("\\K", "escape \\K");
	refuses_regex("\\1", "escape \\1");
	refuses_regex("[[:foo:]]", "bracket class");
	refuses_regex("[a", "[ without ]");
	refuses_regex("[&&a]", "empty class");
	refuses_regex("\\p{Nonsense}", "regular expression: ");
	refuses_regex("\\p{L", "without }");
	refuses_regex("\\pL", "without {name}");
	refuses_regex("(a", "regular expression: ");
	refuses_regex("\\", "at the end");
	refuses_regex("\\xg", "hexadecimal");
	refuses_regex("[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[a", "too deeply");
	refuses_regex("", "empty");
}

static void test_pre_tokenizers(void)
{
	pieces(NULL, "{\"type\":\"Digits\",\"individual_digits\":false}", "a12 3", "a/12/ /3/");
	pieces(NULL, "{\"type\":\"Digits\",\"individual_digits\":true}", "a12 \xc2\xbd",
	       "a/1/2/ /\xc2\xbd/");
	pieces(NULL, "{\"type\":\"Punctuation\"}", "a,b!?", "a/,/b/!/?/");
	pieces(NULL, "{\"type\":\"Punctuation\",\"behavior\":\"Contiguous\"}", "a$!?b", "a/$!?/b/");
	pieces(NULL, "{\"type\":\"WhitespaceSplit\"}", " a, b\n", "a,/b/");
	pieces(NULL, "{\"type\":\"Whitespace\"}", " it's, ok\n", "it/'/s/,/ok/");
	pieces(NULL, "{\"type\":\"Metaspace\",\"replacement\":\"" MARK "\"}", "a b  c",
	       MARK "a/" MARK "b/" MARK "/" MARK "c/");
	pieces(NULL, "{\"type\":\"Metaspace\",\"replacement\":\"" MARK "\",\"prepend_scheme\":"
	       "\"never\",\"split\":false}", "a b", "a" MARK "b/");
	pieces(NULL, "{\"type\":\"Metaspace\",\"replacement\":\"_\",\"add_prefix_space\":false,"
	       "\"prepend_scheme\":\"never\"}", "a b", "a/_b/");
	pieces(NULL, "{\"type\":\"Metaspace\",\"replacement\":\"_\",\"add_prefix_space\":false}",
	       "a b", "a/_b/");
	pieces(NULL, "{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":\"first\"}",
	       " a b", "_a/_b/");
	/* first: only the piece that begins with the first character of the text */
	pieces(NULL, "{\"type\":\"Sequence\",\"pretokenizers\":["
	       SPLIT("\"String\":\"b\"", "Isolated") ",{\"type\":\"Metaspace\",\"replacement\":"
	       "\"_\",\"prepend_scheme\":\"first\"}]}", "abc", "_a/b/c/");
	pieces("{\"type\":\"Strip\",\"strip_left\":true,\"strip_right\":false}",
	       "{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":\"first\"}",
	       " abc", "abc/");
	pieces(NULL, "{\"type\":\"ByteLevel\",\"add_prefix_space\":false}",
	       "we'll go  on\n\xc3\xa9", "we/'ll/\xc4\xa0go/\xc4\xa0/\xc4\xa0on/\xc4\x8a/"
	       "\xc3\x83\xc2\xa9/");
	pieces(NULL, "{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"use_regex\":false}",
	       "a b", "\xc4\xa0" "a\xc4\xa0" "b/");
	pieces(NULL, "{\"type\":\"ByteLevel\",\"add_prefix_space\":true}", " a", "\xc4\xa0" "a/");
}

static void test_normalizers(void)
{
	pieces("{\"type\":\"NFC\"}", NULL, "e\xcc\x81", "\xc3\xa9/");
	pieces("{\"type\":\"NFD\"}", NULL, "\xc3\xa9", "e\xcc\x81/");
	pieces("{\"type\":\"NFKC\"}", NULL, "\xef\xac\x81\xe2\x91\xa0", "fi1/");
	pieces("{\"type\":\"NFKD\"}", NULL, "\xef\xac\x81\xc3\xa9", "fie\xcc\x81/");
	pieces("{\"type\":\"NFC\"}", NULL, "\xef\xac\x81", "\xef\xac\x81/");
	pieces("{\"type\":\"Lowercase\"}", NULL, "AbC\xc3\x89", "abc\xc3\xa9/");
	pieces("{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFD\"},"
	       "{\"type\":\"StripAccents\"}]}", NULL, "\xc3\xa9t\xc3\xa9", "ete/");
	pieces("{\"type\":\"Prepend\",\"prepend\":\"> \"}", NULL, "a", "> a/");
	pieces("{\"type\":\"Prepend\",\"prepend\":\"> \"}", NULL, "", "");
	pieces("{\"type\":\"Replace\",\"pattern\":{\"String\":\"ab\"},\"content\":\"c\"}", NULL,
	       "ababa", "cca/");
	pieces("{\"type\":\"Replace\",\"pattern\":{\"Regex\":\" {2,}\"},\"content\":\" \"}", NULL,
	       "a   b c", "a b c/");
	pieces("{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"x*\"},\"content\":\"-\"}", NULL,
	       "axb", "-a-b-/");
	pieces("{\"type\":\"Strip\",\"strip_left\":true,\"strip_right\":true}", NULL,
	       "\t a b\xe3\x80\x80", "a b/");
	pieces("{\"type\":\"Strip\",\"strip_left\":true,\"strip_right\":true}", NULL, "  ", "");
	pieces("{\"type\":\"Sequence\",\"normalizers\":[]}", NULL, "a", "a/");
	pieces("{\"type\":\"ByteLevel\"}", NULL, " a", "\xc4\xa0" "a/");
}

/* Slices of a long text are normalized as the whole would be, wherever the slices end. */
static void test_long_normalization(void)
{
	char *json = file(BPE("\"unk_token\":\"?\",", "\"?\":0", ""), "{\"type\":\"NFC\"}", NULL,
			  NULL, NULL, NULL);
	struct tokenizer *t = from(json);
	unsigned same = 0;

	for (size_t shift = 0; shift < 6; shift++) {
		struct buf text = { 0 }, want = { 0 };
		struct tok_buf out = { 0 };
		size_t zero = 1;

		for (size_t i = 0; i < shift; i++) {
			buf_puts(&text, "x");
			buf_puts(&want, "x");
		}
		for (size_t i = 0; i < 300000; i++) {
			buf_puts(&text, i % 7 ? "ae\xcc\x81\n" : "e\xcc\x81\n\xcc\x81");
			buf_puts(&want, i % 7 ? "a\xc3\xa9\n" : "\xc3\xa9\n\xcc\x81");
		}
		same += t && !tok_normalize(t, text.p, text.n, &out, &zero, &err) &&
			out.n == want.n && !memcmp(out.p, want.p, out.n);
		free(out.p);
		buf_release(&text);
		buf_release(&want);
	}
	ok(same == 6, "NFC of 1.5 MB");
	tokenizer_free(t);
	free(json);
}

static void test_vocabulary(void)
{
	struct tok_vocab v = { 0 };
	bool all = true;
	char name[16];

	for (int i = 0; i < 5000; i++) {
		int n = snprintf(name, sizeof(name), "t%d", i);

		all = all && !tok_vocab_add(&v, name, (size_t)n, 7 * i, "v", &err);
	}
	ok(all && v.n == 7 * 4999 + 1 && v.used == 5000,
	   "5000 tokens with holes between their ids");
	for (int i = 0; i < 5000; i++) {
		int n = snprintf(name, sizeof(name), "t%d", i);

		all = all && tok_vocab_find(&v, name, (size_t)n) == 7 * i;
	}
	ok(all && tok_vocab_find(&v, "t", 1) == -1 && tok_vocab_find(&v, "t5000", 5) == -1,
	   "each is found, others are not");
	ok(tok_vocab_add(&v, "t1", 2, 1, "v", &err) == -1 && err.cls == ERR_DATA &&
	   strstr(err.what, "given twice"), "a text is in there once");
	ok(tok_vocab_add(&v, "new", 3, 7, "v", &err) == -1 && strstr(err.what, "same id 7"),
	   "and so is an id");
	free(v.bytes.p);
	free(v.entry);
	free(v.slot);
}

/* ---- added tokens ------------------------------------------------------------------- */

#define ADDED(content, options) \
	"{\"id\":900,\"content\":\"" content "\"," options "\"special\":false}"
#define RAW "\"normalized\":false,"

static void added(const char *normalizer, const char *list, const char *text, const char *want,
		  const char *what)
{
	ok_str(pieces_of(normalizer, NULL, list, text, strlen(text)), want, "%s", what);
}

static void test_added(void)
{
	static const char prepend[] = "{\"type\":\"Prepend\",\"prepend\":\"_\"}";
	static const char lower[] = "{\"type\":\"Lowercase\"}";

	added(NULL, "[" ADDED("[X]", RAW) "]", "a[X]b[X", "a/[X]b[X/", "a token inside a text");
	added(NULL, "[" ADDED("[X]", RAW) "]", "[X][X]", "[X][X]", "nothing else");
	added(prepend, "[" ADDED("[X]", RAW) "]", "a[X]b", "_a/[X]_b/",
	      "a raw token is cut out first; each rest is normalized");
	added(prepend, "[" ADDED("[X]", "\"normalized\":true,") "]", "a[X]b_[X][X]",
	      "_a[X]b/[X][X]/",
	      "a normalized token is looked for as it is normalized, in normalized text");
	added(prepend, "[" ADDED("[X]", "\"normalized\":true,") "]", "[X]b", "[X]b/",
	      "so it is found at the beginning, where it gets its mark");
	added(lower, "[" ADDED("Day", "\"normalized\":true,") "]", "todAY", "to/Day",
	      "in any case, if the normalizer makes it small");
	added(lower, "[" ADDED("Day", RAW) "]", "DayDAY", "Dayday/", "a raw one only as it is");
	added(NULL, "[" ADDED("ab", RAW) ",{\"id\":901,\"content\":\"abc\",\"normalized\":false,"
	      "\"special\":true}]", "abcab", "abcab", "the longest at a place");
	added(NULL, "[" ADDED("bc", RAW) ",{\"id\":901,\"content\":\"ab\",\"normalized\":false,"
	      "\"special\":true}]", "abc", "abc/", "the leftmost place");
	added(NULL, "[" ADDED("ab", RAW "\"single_word\":true,") "]", "ab abc cab ab.",
	      "ab abc cab /ab./", "single_word: not inside a word");
	added(NULL, "[" ADDED("[X]", RAW "\"lstrip\":true,") "]", "a  [X] b", "a/[X] b/",
	      "lstrip takes the white space before");
	added(NULL, "[" ADDED("[X]", RAW "\"rstrip\":true,") "]", "a [X] \n b", "a /[X]b/",
	      "rstrip that behind");
	added(NULL, "[" ADDED("[X]", RAW "\"rstrip\":true,\"lstrip\":true,") "]", "[X]  [X]",
	      "[X][X]", "white space between two goes to the first");
}

/* ---- post-processors and decoders ----------------------------------------------------- */

#define PLAIN BPE("", "\"a\":0,\"b\":1,\"<s>\":2,\"</s>\":3,\"" MARK "\":4,\"<0xC3>\":5," \
	"\"<0xA9>\":6," \
	"\" \":7,\"\xc4\xa0\xc3\x83\":8,\"\xc2\xa9\":9,\"" MARK MARK "\":10,\"a" MARK "\":11", "")
#define TEMPLATE \
	"{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"B\"," \
	"\"type_id\":0}}," \
	"{\"Sequence\":{\"id\":\"A\",\"type_id\":0}},{\"SpecialToken\":{\"id\":\"E\"," \
	"\"type_id\":0}}]," \
	"\"pair\":[],\"special_tokens\":{\"B\":{\"id\":\"B\",\"ids\":[2],\"tokens\":[\"<s>\"]}," \
	"\"E\":{\"id\":\"E\",\"ids\":[3,1],\"tokens\":[\"</s>\",\"b\"]}}}"

static void post(const char *processor, const char *want, const char *what)
{
	char *json = file(PLAIN, NULL, NULL, processor, NULL, NULL);

	gives(json, "ab", want, what);
	free(json);
}

static void test_post(void)
{
	struct tokenizer *t;
	struct ids ids = { 0 };
	char *json;

	post(TEMPLATE, "<s>|a|b|</s>|b", "TemplateProcessing");
	post("{\"type\":\"ByteLevel\"}", "a|b", "ByteLevel adds nothing");
	post("{\"type\":\"Sequence\",\"processors\":[{\"type\":\"ByteLevel\"}," TEMPLATE ",{"
		"\"type\":"
	     "\"RobertaProcessing\",\"sep\":[\"</s>\",3],\"cls\":[\"<s>\",2],\"trim_offsets\":true,"
	     "\"add_prefix_space\":false}]}", "<s>|<s>|a|b|</s>|b|</s>", "Sequence, inside out");
	json = file(PLAIN, NULL, NULL, TEMPLATE, NULL, NULL);
	t = from(json);
	ok(!tokenizer_encode(t, "ab", 2, false, &ids, &err) && ids.n == 2 && ids.id[0] == 0,
	   "nothing is added when special tokens are not wanted");
	ok(tokenizer_prefix_id(t) == 2, "the id in front");
	ok(tokenizer_id(t, "</s>") == 3 && tokenizer_id(t, "no") == -1, "ids by name");
	ok(tokenizer_vocab(t) == 12 && tokenizer_has(t, 11) && !tokenizer_has(t, 12) &&
	   !tokenizer_has(t, -1), "which ids there are");
	ok(!strncmp(tokenizer_fingerprint(t), "xxh128:", 7) &&
	   strlen(tokenizer_fingerprint(t)) == 39, "a fingerprint");
	ids_release(&ids);
	tokenizer_free(t);
	free(json);
}

static void decodes(const char *decoder, const char *want, bool skip, const char *what, int n,
		    ...)
{
	char *json = file(PLAIN, NULL, NULL, NULL, decoder,
			  "[{\"id\":2,\"content\":\"<s>\",\"special\":true,\"normalized\":false}]");
	struct tokenizer *t = from(json);
	int32_t ids[16];
	char *text = NULL;
	size_t len = 0;
	va_list ap;

	va_start(ap, n);
	for (int i = 0; i < n; i++)
		ids[i] = va_arg(ap, int);
	va_end(ap);
	if (!t || tokenizer_decode(t, ids, (size_t)n, skip, &text, &len, &err))
		ok_str(t ? err.what : NULL, want, "%s", what);
	else
		ok(len == strlen(want) && !strcmp(text, want), "%s: '%s'", what, text);
	free(text);
	tokenizer_free(t);
	free(json);
}

#define SP_DECODER "{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":" \
	"{\"String\":\"" MARK "\"},\"content\":\" \"},{\"type\":\"ByteFallback\"},{\"type\":" \
	"\"Fuse\"}," \
	"{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}]}"

static void test_decode(void)
{
	static const char byte_level[] = "{\"type\":\"ByteLevel\"}";

	decodes(NULL, "a b", false, "without a decoder tokens are joined by blanks", 2, 0, 1);
	decodes(SP_DECODER, "a b", false, "the decoder of Llama 2", 4, 4, 0, 4, 1);
	decodes(SP_DECODER, " a", false, "takes off one space only", 2, 10, 0);
	decodes(SP_DECODER, "a\xc3\xa9" "b", false, "bytes become characters", 4, 0, 5, 6, 1);
	decodes(SP_DECODER, "a\xef\xbf\xbd\xef\xbf\xbd" "b", false,
		"bytes that are no character become U+FFFD each", 4, 0, 6, 5, 1);
	decodes(SP_DECODER, "<s>a", false, "special tokens are shown", 2, 2, 0);
	decodes(SP_DECODER, "a", true, "unless they are to be left out", 2, 2, 0);
	decodes(byte_level, "a \xc3\xa9", false, "ByteLevel", 3, 0, 8, 9);
	decodes(byte_level, "a \xef\xbf\xbd" "b", false, "ByteLevel, half a character", 3, 0, 8, 1);
	decodes(byte_level, MARK "a", false, "a token outside of the alphabet is itself", 2, 4, 0);
	decodes(byte_level, "ba" MARK "a", false, "wherever that character is", 3, 1, 11, 0);
	decodes("{\"type\":\"Metaspace\",\"replacement\":\"" MARK "\"}", "a b", false,
		"Metaspace drops the first mark", 4, 4, 0, 4, 1);
	decodes("{\"type\":\"Metaspace\",\"replacement\":\"" MARK "\",\"prepend_scheme\":"
		"\"never\"}",
		" a b", false, "unless none was put there", 4, 4, 0, 4, 1);
	decodes("{\"type\":\"Strip\",\"content\":\"" MARK "\",\"start\":0,\"stop\":2}", "ab", false,
		"Strip at the end", 3, 0, 10, 1);
	decodes(SP_DECODER, "12 at position 1 is not in the vocabulary", false,
		"an id that does not exist is an error", 2, 0, 12);
	decodes(SP_DECODER, "-1 at position 0 is not in the vocabulary", false, "a negative id", 1,
		-1);
	decodes(SP_DECODER, "", false, "no ids are no text", 0);
}

/* ---- what is refused -------------------------------------------------------------------- */

static void refused(const char *json, const char *where, const char *why)
{
	struct tokenizer *t = NULL;
	int ret = tokenizer_from_json(&t, json, strlen(json), "t.json", &err);

	ok(ret == -1 && err.cls == ERR_DATA && !strcmp(err.where, where) && strstr(err.what, why),
	   "refused: %s: %s", ret ? err.where : "", ret ? err.what : json);
	if (ret)
		return;
	tokenizer_free(t);
}

static void refused_part(const char *normalizer, const char *pre, const char *posts,
			 const char *decoder, const char *where, const char *why)
{
	char *json = file(PLAIN, normalizer, pre, posts, decoder, NULL);

	refused(json, where, why);
	free(json);
}

static void test_refused_parts(void)
{
	refused_part("{\"type\":\"Nmt\"}", NULL, NULL, NULL, "t.json: normalizer",
		     "normalizer type 'Nmt' is not supported");
	refused_part("{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Precompiled\"}]}", NULL,
		     NULL, NULL, "t.json: normalizer", "'Precompiled' is not supported");
	refused_part("{\"type\":\"NFC\",\"form\":1}", NULL, NULL, NULL, "t.json: normalizer: NFC",
		     "key 'form' is not known");
	refused_part("{\"type\":\"Replace\",\"pattern\":{\"String\":\"\"},\"content\":\"x\"}", NULL,
		     NULL, NULL, "t.json: normalizer: Replace", "empty pattern");
	refused_part("{\"type\":\"Replace\",\"pattern\":\" \",\"content\":\"x\"}", NULL, NULL, NULL,
		     "t.json: normalizer: Replace", "neither a String nor a Regex");
	refused_part("\"NFC\"", NULL, NULL, NULL, "t.json: normalizer", "not an object");
	refused_part(NULL, "{\"type\":\"UnicodeScripts\"}", NULL, NULL, "t.json: pre_tokenizer",
		     "pre-tokenizer type 'UnicodeScripts' is not supported");
	refused_part(NULL, SPLIT("\"String\":\"-\"", "Dropped"), NULL, NULL,
		     "t.json: pre_tokenizer: Split", "behavior 'Dropped'");
	refused_part(NULL, SPLIT("\"Regex\":\"(\"", "Isolated"), NULL, NULL,
		     "t.json: pre_tokenizer: Split", "regular expression");
	refused_part(NULL, "{\"type\":\"Metaspace\",\"replacement\":\"ab\"}", NULL, NULL,
		     "t.json: pre_tokenizer: Metaspace", "more than one character");
	refused_part(NULL, "{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":"
		"\"some\"}",
		     NULL, NULL, "t.json: pre_tokenizer: Metaspace", "prepend_scheme 'some'");
	refused_part(NULL, "{\"type\":\"Metaspace\",\"replacement\":\"_\","
		"\"add_prefix_space\":false,"
		     "\"prepend_scheme\":"
			"\"first\"}", NULL, NULL, "t.json: pre_tokenizer: Metaspace",
		     "disagree");
	refused_part(NULL, "{\"type\":\"ByteLevel\",\"use_regex\":1}", NULL, NULL,
		     "t.json: pre_tokenizer: ByteLevel", "use_regex is not true or false");
	refused_part(NULL, NULL, "{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":"
		     "{\"id\":\"B\"}}],\"special_tokens\":{}}", NULL,
		     "t.json: post_processor: TemplateProcessing", "'B' has no ids");
	refused_part(NULL, NULL, "{\"type\":\"TemplateProcessing\",\"single\":[]}", NULL,
		     "t.json: post_processor: TemplateProcessing", "no sequence A");
	refused_part(NULL, NULL, "{\"type\":\"TemplateProcessing\",\"single\":[{\"Sequence\":{"
		"\"id\":"
		     "\"B\"}}]}", NULL, "t.json: post_processor: TemplateProcessing", "element 0");
	refused_part(NULL, NULL, "{\"type\":\"BertProcessing\",\"sep\":[\"x\",70],\"cls\":["
		"\"y\",2]}",
		     NULL, "t.json: post_processor", "id 70 is not in the vocabulary");
	refused_part(NULL, NULL, NULL, "{\"type\":\"WordPiece\"}", "t.json: decoder",
		     "decoder type 'WordPiece' is not supported");
	refused_part(NULL, NULL, NULL, "{\"type\":\"Strip\",\"content\":\" \",\"start\":1}",
		     "t.json: decoder: Strip", "stop is missing");
}

static void test_refused_models(void)
{
	refused("{\"model\":" UNIGRAM("", "") "}", "t.json: model: Unigram", "vocab is missing");
	refused("{\"model\":" UNIGRAM("\"unk_id\":9,", WORDS) "}", "t.json: model: Unigram",
		"unk_id is not the place of a token");
	refused("{\"model\":" UNIGRAM("", "[\"a\",-1],[\"b\"]") "}", "t.json: model: Unigram",
		"vocab: 1 is not a token with its score");
	refused("{\"model\":" UNIGRAM("\"other\":1,", WORDS) "}", "t.json: model: Unigram",
		"key 'other' is not known");
	refused("{\"model\":{\"type\":\"WordPiece\",\"vocab\":{}}}", "t.json: model",
		"model type 'WordPiece' is not supported");
	refused("{\"model\":{\"vocab\":{}}}", "t.json: model", "type is missing");
	refused("{"
		"\"model\":" BPE("\"dropout\":0.1,", ABC, "") "}", "t.json: model: BPE", "dropout");
	refused("{\"model\":" BPE("", ABC, "\"a x\"") "}", "t.json: model: BPE",
		"merge 0: 'x' is not in the vocabulary");
	refused("{\"model\":" BPE("", ABC, "\"a b\",\"c c\"") "}", "t.json: model: BPE",
		"merge 1: 'cc' is not in the vocabulary");
	refused("{\"model\":" BPE("", ABC, "\"ab\"") "}", "t.json: model: BPE", "not two tokens");
	refused("{"
		"\"model\":" BPE("", ABC, "\"a b c\"") "}", "t.json: model: BPE", "not two tokens");
	refused("{\"model\":" BPE("", ABC, "[\"a\"]") "}", "t.json: model: BPE", "nor a pair");
	refused("{\"model\":" BPE("", "\"a\":0,\"b\":0", "") "}", "t.json: model: BPE",
		"tokens 'a' and 'b' have the same id 0");
	refused("{\"model\":" BPE("", "\"a\":-1", "") "}", "t.json: model: BPE", "id -1");
	refused("{\"model\":" BPE("", "\"a\":99999999", "") "}", "t.json: model: BPE", "outside");
	refused("{\"model\":" BPE("", "\"a\":1.5", "") "}", "t.json: model: BPE", "not a number");
	refused("{\"model\":{\"type\":\"BPE\",\"merges\":[],\"vocab\":[]}}", "t.json: model: BPE",
		"vocab is missing");
	refused("{\"version\":\"2.0\",\"model\":{}}", "t.json", "version '2.0'");
	refused("{\"surprise\":1}", "t.json", "key 'surprise' is not known");
	refused("{\"\":1}", "t.json", "key '' is not known");
	refused("{\" model\":1}", "t.json", "key ' model' is not known");
	refused("{\"model \":1}", "t.json", "key 'model ' is not known");
	refused("{\"odel\":1}", "t.json", "key 'odel' is not known");
	refused("[]", "t.json", "not an object");
	refused("{}", "t.json: model", "missing");
	refused("{\"model\":", "t.json", "not JSON");
	refused("{\"model\":" BPE("", ABC, "") ",\"added_tokens\":[{\"id\":3,\"content\":\"a\"}]}",
		"t.json: added_tokens: 0", "has id 3 here and 0 in the vocabulary");
	refused("{\"model\":" BPE("", ABC, "") ",\"added_tokens\":[{\"id\":3,\"content\":\"x\"}]}",
		"t.json: added_tokens: 0", "same id 3");
	refused("{\"model\":" BPE("", ABC, "") ",\"added_tokens\":[{\"id\":0,\"content\":\"a\"},"
		"{\"id\":0,\"content\":\"a\"}]}", "t.json: added_tokens: 1", "given twice");
	refused("{\"model\":" BPE("", ABC, "") ",\"added_tokens\":[{\"id\":9,\"content\":\"\"}]}",
		"t.json: added_tokens: 0", "content is empty");
	refused("{\"model\":" BPE("", ABC, "") ",\"normalizer\":{\"type\":\"Lowercase\"},"
		"\"added_tokens\":[{\"id\":0,\"content\":\"a\"},{\"id\":9,\"content\":\"A\"}]}",
		"t.json: added_tokens: 1", "found by the same text 'a'");
}

static void test_utf8(void)
{
	static const struct {
		const char *s;
		size_t n, at;
	} bad[] = {
		{ "\x80", 1, 0 }, { "ab\xff", 3, 2 }, { "\xc0\x80", 2, 0 }, { "\xc1\xbf", 2, 0 },
		{ "a\xe0\x80\x80", 4, 1 }, { "\xed\xa0\x80", 3, 0 }, { "\xf4\x90\x80\x80", 4, 0 },
		{ "\xf5\x80\x80\x80", 4, 0 }, { "12345678\xc3", 9, 8 }, { "\xe6\x97", 2, 0 },
		{ "\xe6\x97" "a", 3, 0 }, { "\xc3\xa9\xf0\x80\x80\x80", 6, 2 },
	};
	char *json = file(PLAIN, NULL, NULL, NULL, NULL, NULL), want[80];
	struct tokenizer *t = from(json);

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		snprintf(want, sizeof(want), "not UTF-8: byte 0x%02x at offset %zu",
			 (unsigned char)bad[i].s[bad[i].at], bad[i].at);
		ok_str(tokens(t, bad[i].s, bad[i].n), want, "bad text %zu", i);
	}
	ok_str(tokens(t, "", 0), "", "an empty text has no tokens");
	ok(tok_utf8_check("\xef\xbf\xbf\xf4\x8f\xbf\xbf\xed\x9f\xbf\xee\x80\x80\0", 14) == 14,
	   "the last and first characters around the surrogates, and a NUL");
	tokenizer_free(t);
	free(json);
}

/* Files with a few bytes changed are refused or work; what they never do is crash. */
static void test_mutations(void)
{
	static const char pre[] = "{\"type\":\"Sequence\",\"pretokenizers\":["
		SPLIT("\"Regex\":"
			"\"[^\\\\s\\\\p{L}]?\\\\p{L}+|\\\\p{N}{1,3}|[a-z&&[^b]]\"", "Isolated")
		",{\"type\":\"ByteLevel\",\"add_prefix_space\":true}]}";
	static const char norm[] = "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFC\"},"
		"{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"b+\"},\"content\":\"a\"}]}";
	char *json = file(PLAIN, norm, pre, TEMPLATE, SP_DECODER,
			  "[{\"id\":2,\"content\":\"<s>\",\"special\":true,\"normalized\":true}]");
	static const char text[] = " ab<s>  b\xc3\xa9 12";
	size_t n = strlen(json), refusals = 0, worked = 0;
	char *copy = malloc(n + 1);
	struct rng r;

	rng_init(&r, 3);
	for (int round = 0; round < 20000; round++) {
		struct tokenizer *t = NULL;
		struct ids ids = { 0 };
		char *back = NULL;
		size_t len;

		memcpy(copy, json, n + 1);
		for (uint64_t k = 1 + rng_below(&r, 3); k; k--)
			copy[rng_below(&r, n)] = rng_below(&r, 4) ? json[rng_below(&r, n)] :
						 (char)rng_below(&r, 256);
		if (tokenizer_from_json(&t, copy, n, "t.json", &err)) {
			refusals += err.cls == ERR_DATA && err.where[0] && err.what[0];
			continue;
		}
		worked++;
		if (!tokenizer_encode(t, text, strlen(text), true, &ids, &err) &&
		    !tokenizer_decode(t, ids.id, ids.n, false, &back, &len, &err))
			free(back);
		ids_release(&ids);
		tokenizer_free(t);
	}
	ok(refusals + worked == 20000, "of 20000 damaged files %zu are refused with a reason",
	   refusals);
	ok(refusals > 10000 && worked > 100, "and %zu still work", worked);
	for (size_t i = 0; i < n; i++) {
		struct tokenizer *t = NULL;

		if (!tokenizer_from_json(&t, json, i, "t.json", &err)) {
			ok(false, "%zu of %zu bytes are taken for a whole file", i, n);
			tokenizer_free(t);
		}
	}
	free(copy);
	free(json);
}

int main(void)
{
	test_bpe();
	test_unigram();
	test_bpe_random();
	test_bpe_long();
	test_split();
	test_regex();
	test_regex_refused();
	test_pre_tokenizers();
	test_normalizers();
	test_long_normalization();
	test_vocabulary();
	test_added();
	test_post();
	test_decode();
	test_refused_parts();
	test_refused_models();
	test_utf8();
	test_mutations();
	return done();
}
