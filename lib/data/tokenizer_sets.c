/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tokenizer_sets.c - sets of characters as Oniguruma 6.9 has them, as members of a class of PCRE2
 */
#include <stdio.h>
#include <string.h>

#include "lib/data/tokenizer_impl.h"

#define SPACES "\\t-\\r\\x{85}\\p{Z}"
/* Alphabetic (with its letter-like numbers and circled letters), marks, digits, connectors. */
#define WORDS "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{24b6}-\\x{24e9}\\x{1f130}-\\x{1f149}" \
	"\\x{1f150}-\\x{1f169}\\x{1f170}-\\x{1f189}"
/* A habit of Oniguruma's: outside of a class also the superscripts and fractions of Latin-1. */
#define WORDS_ALONE "\\xb2\\xb3\\xb9\\xbc-\\xbe"
#define HEX "0-9A-Fa-f"
#define DIGITS "\\p{Nd}"

/*
 * Characters of Unicode 15 to 16, by what they are: letters, marks, digits, other numbers,
 * punctuation, symbols, and Han.  Oniguruma knows them; PCRE2 may be built for Unicode 14 (as in
 * Debian 12), and what a text's tokens are must not depend on that.
 */
static const struct {
	uint32_t first, last;
	char kind;
} newer[] = {
	{ 0x1c89, 0x1c8a, 'L' }, { 0xa7cb, 0xa7cd, 'L' }, { 0xa7da, 0xa7dc, 'L' },
	{ 0x105c0, 0x105f3, 'L' }, { 0x10d4a, 0x10d65, 'L' }, { 0x10d6f, 0x10d85, 'L' },
	{ 0x10ec2, 0x10ec4, 'L' }, { 0x1123f, 0x11240, 'L' }, { 0x11380, 0x11389, 'L' },
	{ 0x1138b, 0x1138b, 'L' }, { 0x1138e, 0x1138e, 'L' }, { 0x11390, 0x113b5, 'L' },
	{ 0x113b7, 0x113b7, 'L' }, { 0x113d1, 0x113d1, 'L' }, { 0x113d3, 0x113d3, 'L' },
	{ 0x11bc0, 0x11be0, 'L' }, { 0x11f02, 0x11f02, 'L' }, { 0x11f04, 0x11f10, 'L' },
	{ 0x11f12, 0x11f33, 'L' }, { 0x1342f, 0x1342f, 'L' }, { 0x13441, 0x13446, 'L' },
	{ 0x13460, 0x143fa, 'L' }, { 0x16100, 0x1611d, 'L' }, { 0x16d40, 0x16d6c, 'L' },
	{ 0x18cff, 0x18cff, 'L' }, { 0x1b132, 0x1b132, 'L' }, { 0x1b155, 0x1b155, 'L' },
	{ 0x1df25, 0x1df2a, 'L' }, { 0x1e030, 0x1e06d, 'L' }, { 0x1e4d0, 0x1e4eb, 'L' },
	{ 0x1e5d0, 0x1e5ed, 'L' }, { 0x1e5f0, 0x1e5f0, 'L' }, { 0x2b739, 0x2b739, 'L' },
	{ 0x2ebf0, 0x2ee5d, 'L' }, { 0x31350, 0x323af, 'L' }, { 0x897, 0x897, 'M' },
	{ 0xcf3, 0xcf3, 'M' }, { 0xece, 0xece, 'M' }, { 0x10d69, 0x10d6d, 'M' },
	{ 0x10efc, 0x10eff, 'M' }, { 0x11241, 0x11241, 'M' }, { 0x113b8, 0x113c0, 'M' },
	{ 0x113c2, 0x113c2, 'M' }, { 0x113c5, 0x113c5, 'M' }, { 0x113c7, 0x113ca, 'M' },
	{ 0x113cc, 0x113d0, 'M' }, { 0x113d2, 0x113d2, 'M' }, { 0x113e1, 0x113e2, 'M' },
	{ 0x11f00, 0x11f01, 'M' }, { 0x11f03, 0x11f03, 'M' }, { 0x11f34, 0x11f3a, 'M' },
	{ 0x11f3e, 0x11f42, 'M' }, { 0x11f5a, 0x11f5a, 'M' }, { 0x13440, 0x13440, 'M' },
	{ 0x13447, 0x13455, 'M' }, { 0x1611e, 0x1612f, 'M' }, { 0x1e08f, 0x1e08f, 'M' },
	{ 0x1e4ec, 0x1e4ef, 'M' }, { 0x1e5ee, 0x1e5ef, 'M' }, { 0x10d40, 0x10d49, 'D' },
	{ 0x116d0, 0x116e3, 'D' }, { 0x11bf0, 0x11bf9, 'D' }, { 0x11f50, 0x11f59, 'D' },
	{ 0x16130, 0x16139, 'D' }, { 0x16d70, 0x16d79, 'D' }, { 0x1ccf0, 0x1ccf9, 'D' },
	{ 0x1e4f0, 0x1e4f9, 'D' }, { 0x1e5f1, 0x1e5fa, 'D' }, { 0x1d2c0, 0x1d2d3, 'N' },
	{ 0x1b4e, 0x1b4f, 'P' }, { 0x1b7f, 0x1b7f, 'P' }, { 0x10d6e, 0x10d6e, 'P' },
	{ 0x113d4, 0x113d5, 'P' }, { 0x113d7, 0x113d8, 'P' }, { 0x11b00, 0x11b09, 'P' },
	{ 0x11be1, 0x11be1, 'P' }, { 0x11f43, 0x11f4f, 'P' }, { 0x16d6d, 0x16d6f, 'P' },
	{ 0x1e5ff, 0x1e5ff, 'P' }, { 0x2427, 0x2429, 'S' }, { 0x2ffc, 0x2fff, 'S' },
	{ 0x31e4, 0x31e5, 'S' }, { 0x31ef, 0x31ef, 'S' }, { 0x10d8e, 0x10d8f, 'S' },
	{ 0x1cc00, 0x1ccef, 'S' }, { 0x1cd00, 0x1ceb3, 'S' }, { 0x1f6dc, 0x1f6dc, 'S' },
	{ 0x1f774, 0x1f776, 'S' }, { 0x1f77b, 0x1f77f, 'S' }, { 0x1f7d9, 0x1f7d9, 'S' },
	{ 0x1f8b2, 0x1f8bb, 'S' }, { 0x1f8c0, 0x1f8c1, 'S' }, { 0x1fa75, 0x1fa77, 'S' },
	{ 0x1fa87, 0x1fa89, 'S' }, { 0x1fa8f, 0x1fa8f, 'S' }, { 0x1faad, 0x1faaf, 'S' },
	{ 0x1fabb, 0x1fabf, 'S' }, { 0x1fac6, 0x1fac6, 'S' }, { 0x1face, 0x1facf, 'S' },
	{ 0x1fada, 0x1fadc, 'S' }, { 0x1fadf, 0x1fadf, 'S' }, { 0x1fae8, 0x1fae9, 'S' },
	{ 0x1faf7, 0x1faf8, 'S' }, { 0x1fbcb, 0x1fbef, 'S' }, { 0x2b739, 0x2b739, 'H' },
	{ 0x2ebf0, 0x2ee5d, 'H' }, { 0x31350, 0x323af, 'H' },
};

static int put(struct tok_buf *out, const char *s, struct err *e)
{
	return tok_buf_add(out, s, strlen(s), e);
}

static int put_newer(struct tok_buf *out, const char *kinds, struct err *e)
{
	char range[40];

	for (size_t i = 0; i < sizeof(newer) / sizeof(*newer); i++) {
		if (!strchr(kinds, newer[i].kind))
			continue;
		snprintf(range, sizeof(range), "\\x{%x}-\\x{%x}", (unsigned)newer[i].first,
			 (unsigned)newer[i].last);
		if (put(out, range, e))
			return -1;
	}
	return 0;
}

int tok_set_shorthand(struct tok_buf *out, int c, bool alone, struct err *e)
{
	switch (c) {
	case 's': case 'S':
		return put(out, SPACES, e);
	case 'w': case 'W':
		return put(out, WORDS, e) || (alone && put(out, WORDS_ALONE, e)) ||
		       put_newer(out, "LMD", e) ? -1 : 0;
	case 'h': case 'H':
		return put(out, HEX, e);
	default:
		return put(out, DIGITS, e) || put_newer(out, "D", e) ? -1 : 0;
	}
}

int tok_set_bracket(struct tok_buf *out, const char *name, size_t n, struct err *e)
{
	static const char *const names[][3] = { /* name, members, kinds of newer */
		{ "space", SPACES, "" }, { "word", WORDS, "LMD" }, { "digit", DIGITS, "D" },
		{ "xdigit", HEX, "" }, { "alpha", "\\p{Alphabetic}", "L" },
		{ "upper", "\\p{Uppercase}", "" }, { "lower", "\\p{Lowercase}", "" },
		{ "alnum", "\\p{Alphabetic}\\p{Nd}", "LD" }, { "cntrl", "\\p{Cc}", "" },
		{ "punct", "\\p{P}\\p{S}", "PS" }, { "blank", "\\t\\p{Zs}", "" },
	};

	for (size_t k = 0; k < sizeof(names) / sizeof(*names); k++)
		if (strlen(names[k][0]) == n && memcmp(names[k][0], name, n) == 0)
			return put(out, names[k][1], e) || put_newer(out, names[k][2], e) ? -1 : 1;
	return 0;
}

/*
 * A name of one or two letters is a general category in both.  Of a script PCRE2 would by default
 * match the script extensions, Oniguruma matches the script itself.
 */
int tok_set_property(struct tok_buf *out, const char *name, size_t n, struct err *e)
{
	static const char *const binary[] = {
		"Alphabetic", "Lowercase", "Uppercase", "White_Space", "Emoji",
		"Extended_Pictographic", "Ideographic", "ASCII", "Any", "Math", NULL
	};
	static const char *const known[][3] = { /* name, PCRE2's, kinds of newer */
		{ "Letter", "L", "L" }, { "Mark", "M", "M" }, { "Number", "N", "DN" },
		{ "Punctuation", "P", "P" }, { "Symbol", "S", "S" }, { "Separator", "Z", "" },
		{ "Other", "C", "" }, { "L", "L", "L" }, { "M", "M", "M" }, { "N", "N", "DN" },
		{ "Nd", "Nd", "D" }, { "P", "P", "P" }, { "S", "S", "S" },
		{ "Alphabetic", "Alphabetic", "L" }, { "Han", "sc:Han", "H" },
	};
	char text[TOK_SET_NAME + 10];
	bool script = n > 2;

	for (size_t k = 0; k < sizeof(known) / sizeof(*known); k++)
		if (strlen(known[k][0]) == n && memcmp(known[k][0], name, n) == 0) {
			snprintf(text, sizeof(text), "\\p{%s}", known[k][1]);
			return put(out, text, e) || put_newer(out, known[k][2], e) ? -1 : 0;
		}
	for (size_t k = 0; binary[k]; k++)
		script = script && (strlen(binary[k]) != n || memcmp(binary[k], name, n) != 0);
	snprintf(text, sizeof(text), "\\p{%s%.*s}", script ? "sc:" : "", (int)n, name);
	return put(out, text, e);
}
