/* SPDX-License-Identifier: Apache-2.0 */
/*
 * csv.c - comma-separated values
 */
#include "formats/csv.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/data/value.h"

static int bad(const struct csv *c, const char *where, const char *what, struct err *e)
{
	char place[320];

	snprintf(place, sizeof(place), "%.200s: line %zu", where, c->line);
	return err_set(e, ERR_DATA, place, "%s", what);
}

/* A cell in quotes, c->at behind the first; left behind the last. */
static int quoted(struct csv *c, struct buf *cell, const char *where, struct err *e)
{
	for (; c->at < c->n; c->at++) {
		const char ch = c->text[c->at];

		if (ch == '"' && c->at + 1 < c->n && c->text[c->at + 1] == '"')
			c->at++;
		else if (ch == '"')
			break;
		c->next_line += ch == '\n';
		buf_byte(cell, ch);
	}
	if (c->at == c->n)
		return bad(c, where, "a quote that does not close", e);
	c->at++;
	if (c->at < c->n && !memchr(",\r\n", c->text[c->at], 3))
		return bad(c, where, "text behind a closing quote", e);
	return 0;
}

/* One cell; *more: another follows in this row. */
static int cell(struct csv *c, struct buf *out, bool *more, const char *where, struct err *e)
{
	buf_clear(out);
	if (c->at < c->n && c->text[c->at] == '"') {
		c->at++;
		if (quoted(c, out, where, e) < 0)
			return -1;
	} else {
		size_t n = 0;

		while (c->at + n < c->n && !memchr(",\n", c->text[c->at + n], 2))
			n++;
		buf_add(out, c->text + c->at, n);
		c->at += n;
		if (out->n > 0 && out->p[out->n - 1] == '\r')
			out->n--;
		if (out->n > 0 && memchr(out->p, '"', out->n))
			return bad(c, where, "a quote inside a cell without quotes", e);
	}
	if (c->at < c->n && c->text[c->at] == '\r')
		c->at++;
	*more = c->at < c->n && c->text[c->at] == ',';
	if (c->at < c->n) {
		c->next_line += c->text[c->at] == '\n';
		c->at++;
	}
	return buf_failed(out, where, e);
}

/* Over blank lines; true if a row follows. */
static bool row(struct csv *c)
{
	while (c->at < c->n && memchr("\r\n", c->text[c->at], 2))
		c->next_line += c->text[c->at++] == '\n';
	c->line = c->next_line;
	return c->at < c->n;
}

int csv_open(struct csv *c, const char *text, size_t n, const char *where, struct err *e)
{
	struct buf name = { 0 };
	bool more = true;
	int ret = 0;

	*c = (struct csv){ .text = text, .n = n, .next_line = 1 };
	if (n >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0)
		c->at = 3; /* what spreadsheets put in front */
	for (size_t i = 0, k; i < n; i += k) {
		k = utf8_char(text + i, n - i);
		if (!k)
			return err_set(e, ERR_DATA, where, "not UTF-8: byte 0x%02x at offset %zu",
				       (unsigned char)text[i], i);
	}
	if (!row(c))
		return bad(c, where, "no header", e);
	while (more && ret == 0) {
		char **p = realloc(c->column, (c->columns + 1) * sizeof(*p));

		if (!p) {
			ret = err_nomem(e, where, (c->columns + 1) * sizeof(*p));
			break;
		}
		c->column = p;
		ret = cell(c, &name, &more, where, e);
		if (!ret) {
			p[c->columns] = strdup(buf_str(&name));
			ret = p[c->columns] ? 0 : err_nomem(e, where, name.n + 1);
			c->columns += !ret;
		}
	}
	buf_release(&name);
	if (ret)
		csv_close(c);
	return ret;
}

void csv_close(struct csv *c)
{
	for (size_t i = 0; i < c->columns; i++)
		free(c->column[i]);
	free(c->column);
	memset(c, 0, sizeof(*c));
}

int csv_next(struct csv *c, struct buf *out, const char *where, struct err *e)
{
	struct buf text = { 0 };
	bool more = true;
	size_t k = 0;
	int ret = 0;

	if (!row(c))
		return 0;
	buf_clear(out);
	buf_byte(out, '{');
	while (more && ret == 0) {
		ret = cell(c, &text, &more, where, e);
		if (ret == 0 && k == c->columns)
			ret = bad(c, where, "more cells than the header", e);
		if (ret < 0)
			break;
		if (k > 0)
			buf_byte(out, ',');
		value_quote_json(out, c->column[k], strlen(c->column[k]));
		buf_byte(out, ':');
		value_quote_json(out, text.p, text.n);
		k++;
	}
	if (ret == 0 && k < c->columns)
		ret = bad(c, where, "fewer cells than the header", e);
	buf_byte(out, '}');
	buf_release(&text);
	if (ret == 0)
		ret = buf_failed(out, where, e);
	return ret == 0 ? 1 : -1;
}
