/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wikitext.c - pages, words and detokenization as lm-evaluation-harness does them
 */
#include "lib/model/wikitext.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* Length of the white space character at p (n bytes left), 0 if it is none: those that Python's
 * str.isspace and \s know.  All above U+007F are of two or three bytes. */
static size_t space_at(const char *p, size_t n)
{
	const unsigned char *u = (const unsigned char *)p;
	unsigned c;

	if (n == 0)
		return 0;
	if (u[0] < 0x80)
		return u[0] == ' ' || (u[0] >= 9 && u[0] <= 13) || (u[0] >= 28 && u[0] <= 31);
	if (n >= 2 && u[0] == 0xc2)
		return u[1] == 0x85 || u[1] == 0xa0 ? 2 : 0;
	if (n < 3 || (u[0] & 0xf0) != 0xe0)
		return 0;
	c = (unsigned)(u[0] & 15) << 12 | (unsigned)(u[1] & 63) << 6 | (u[2] & 63);
	return c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 ||
	       c == 0x202f || c == 0x205f || c == 0x3000 ? 3 : 0;
}

static size_t leading_space(const char *p, size_t n)
{
	size_t at = 0, k;

	while ((k = space_at(p + at, n - at)) > 0)
		at += k;
	return at;
}

/* Where the white space at the end of p [n] begins. */
static size_t without_trailing_space(const char *p, size_t n)
{
	for (;;) {
		if (n >= 1 && space_at(p + n - 1, 1) == 1)
			n -= 1;
		else if (n >= 2 && space_at(p + n - 2, 2) == 2)
			n -= 2;
		else if (n >= 3 && space_at(p + n - 3, 3) == 3)
			n -= 3;
		else
			return n;
	}
}

int wikitext_blank(const char *text, size_t n)
{
	return leading_space(text, n) == n;
}

size_t wikitext_words(const char *text, size_t n)
{
	size_t words = 1, at = 0;

	while (at < n) {
		const size_t k = leading_space(text + at, n - at);

		words += k > 0;
		at += k > 0 ? k : 1;
	}
	return words;
}

/* A level-1 heading: "= Title =" and not "= = Title = =". */
static bool is_title(const char *line, size_t n)
{
	const size_t skip = leading_space(line, n);

	line += skip;
	n = without_trailing_space(line, n - skip);
	/* "= =" anywhere becomes "==": it spoils a start "= " and an end " =" only there. */
	if (n < 3 || strncmp(line, "= ", 2) != 0 || strncmp(line + n - 2, " =", 2) != 0)
		return false;
	return line[2] != '=' && (line[n - 3] != '=' || n == 3);
}

size_t wikitext_page(const char *text, size_t n, size_t *skip)
{
	size_t at = 0;

	for (;;) {
		const char *nl = memchr(text + at, '\n', n - at);
		const char *end;

		*skip = 0;
		if (nl == NULL)
			return n;
		at = (size_t)(nl - text) + 1;
		end = memchr(text + at, '\n', n - at);
		if (is_title(text + at, end != NULL ? (size_t)(end - text) - at : n - at)) {
			*skip = at;
			return at - 1;
		}
	}
}

/* ---- the detokenizer: one pass over the page for each rule, in the published order ------ */

struct pass {
	struct buf a, b; /* a holds the text, b is being written */
};

static void swap(struct pass *p)
{
	const struct buf t = p->a;

	p->a = p->b;
	p->b = t;
	buf_clear(&p->b);
}

static void replace(struct pass *p, const char *from, const char *to)
{
	const size_t len = strlen(from);
	const char *s = p->a.p, *end = s + p->a.n, *hit;

	while (s < end && (hit = memmem(s, (size_t)(end - s), from, len)) != NULL) {
		buf_add(&p->b, s, (size_t)(hit - s));
		buf_puts(&p->b, to);
		s = hit + len;
	}
	if (s < end)
		buf_add(&p->b, s, (size_t)(end - s));
	swap(p);
}

/* Between open and the next close: no white space at either end. */
static void trim_inside(struct pass *p, char open, char close)
{
	const char *s = p->a.p, *end = s + p->a.n, *first, *last;

	while (s < end && (first = memchr(s, open, (size_t)(end - s))) != NULL &&
	       (last = memchr(first + 1, close, (size_t)(end - first - 1))) != NULL) {
		const size_t n = (size_t)(last - first - 1);
		const size_t skip = leading_space(first + 1, n);

		buf_add(&p->b, s, (size_t)(first + 1 - s));
		buf_add(&p->b, first + 1 + skip,
			without_trailing_space(first + 1 + skip, n - skip));
		buf_byte(&p->b, close);
		s = last + 1;
	}
	if (s < end)
		buf_add(&p->b, s, (size_t)(end - s));
	swap(p);
}

void wikitext_detokenize(struct buf *out, const char *page, size_t n)
{
	static const char *const before[][2] = {
		{ "s '", "s'" }, { " @-@ ", "-" }, { " @,@ ", "," }, { " @.@ ", "." },
		{ " : ", ": " }, { " ; ", "; " }, { " . ", ". " }, { " ! ", "! " },
		{ " ? ", "? " }, { " , ", ", " },
	};
	static const char *const after[][2] = {
		{ "= = = =", "====" }, { "= = =", "===" }, { "= =", "==" },
		{ " \302\260 ", "\302\260" }, { " \n", "\n" }, { "\n ", "\n" },
		{ " N ", " 1 " }, { " 's", "'s" },
	};
	struct pass p = { 0 };

	buf_add(&p.a, page, n);
	for (size_t i = 0; i < sizeof(before) / sizeof(*before); i++)
		replace(&p, before[i][0], before[i][1]);
	trim_inside(&p, '(', ')');
	trim_inside(&p, '[', ']');
	trim_inside(&p, '{', '}');
	trim_inside(&p, '"', '"');
	trim_inside(&p, '\'', '\'');
	for (size_t i = 0; i < sizeof(after) / sizeof(*after); i++)
		replace(&p, after[i][0], after[i][1]);
	buf_add(out, p.a.p, p.a.n);
	out->failed = out->failed || p.a.failed || p.b.failed;
	buf_release(&p.a);
	buf_release(&p.b);
}
