/* SPDX-License-Identifier: Apache-2.0 */
/*
 * idlines.c - token ids as text, a sequence a line
 */
#include "lib/data/idlines.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/data/slurp.h"

#define MAX_TEXT ((size_t)1 << 32)

void id_lines_release(struct id_lines *l)
{
	ids_release(&l->ids);
	free(l->len);
	memset(l, 0, sizeof(*l));
}

static int push_line(struct id_lines *l, size_t len, struct err *e)
{
	if (l->n == l->cap) {
		const size_t cap = l->cap == 0 ? 16 : 2 * l->cap;
		size_t *p = realloc(l->len, cap * sizeof(*p));

		if (p == NULL)
			return err_nomem(e, "lines", cap * sizeof(*p));
		l->len = p;
		l->cap = cap;
	}
	l->len[l->n++] = len;
	l->longest = len > l->longest ? len : l->longest;
	return 0;
}

static int bad(size_t line, struct err *e, const char *what)
{
	char where[48];

	snprintf(where, sizeof(where), "line %zu", line + 1);
	return err_set(e, ERR_DATA, where, "%s", what);
}

int id_line_parse(struct ids *out, const char *s, const char *end, size_t line, struct err *e)
{
	while (s < end) {
		int64_t v = 0;

		if (*s == ' ' || *s == '\t' || *s == ',' || *s == '\r') {
			s++;
			continue;
		}
		if (*s < '0' || *s > '9')
			return bad(line, e,
				   "token ids are decimal numbers between blanks or commas");
		for (; s < end && *s >= '0' && *s <= '9' && v <= INT32_MAX; s++)
			v = v * 10 + (*s - '0');
		if (v > INT32_MAX)
			return bad(line, e, "an id beyond 2^31-1");
		if (ids_push(out, (int32_t)v, e) < 0)
			return -1;
	}
	return 0;
}

static int read_line(struct id_lines *l, const char *s, const char *end, struct err *e)
{
	const size_t before = l->ids.n;

	if (id_line_parse(&l->ids, s, end, l->n, e) < 0)
		return -1;
	if (l->ids.n == before)
		return bad(l->n, e, "no token ids");
	return push_line(l, l->ids.n - before, e);
}

int id_lines_read(struct id_lines *l, const char *path, struct err *e)
{
	struct buf text = { 0 };
	int ret;

	memset(l, 0, sizeof(*l));
	ret = slurp(&text, path, MAX_TEXT, e);
	for (const char *s = text.p; ret == 0 && s < text.p + text.n;) {
		const char *end = memchr(s, '\n', (size_t)(text.p + text.n - s));

		end = end != NULL ? end : text.p + text.n;
		ret = read_line(l, s, end, e);
		s = end + 1;
	}
	if (ret == 0 && l->n == 0)
		ret = bad(0, e, "no token ids");
	buf_release(&text);
	if (ret < 0)
		id_lines_release(l);
	return ret;
}
