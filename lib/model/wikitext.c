/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wikitext.c - pages, words and detokenization as lm-evaluation-harness does them
 */
#include "lib/model/wikitext.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "lib/data/pystr.h"

int wikitext_blank(const char *text, size_t n)
{
	return pystr_leading(text, n) == n;
}

size_t wikitext_words(const char *text, size_t n)
{
	size_t words = 1, at = 0;

	while (at < n) {
		const size_t k = pystr_leading(text + at, n - at);

		words += k > 0;
		at += k > 0 ? k : 1;
	}
	return words;
}

/* A level-1 heading: "= Title =" and not "= = Title = =". */
static bool is_title(const char *line, size_t n)
{
	const size_t skip = pystr_leading(line, n);

	line += skip;
	n = pystr_trailing(line, n - skip);
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
		const size_t skip = pystr_leading(first + 1, n);

		buf_add(&p->b, s, (size_t)(first + 1 - s));
		buf_add(&p->b, first + 1 + skip,
			pystr_trailing(first + 1 + skip, n - skip));
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
