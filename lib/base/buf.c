/* SPDX-License-Identifier: Apache-2.0 */
/*
 * buf.c - bytes that grow
 */
#include "lib/base/buf.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void buf_release(struct buf *b)
{
	free(b->p);
	memset(b, 0, sizeof(*b));
}

void buf_clear(struct buf *b)
{
	b->n = 0;
}

void *buf_room(struct buf *b, size_t n)
{
	size_t cap = b->cap ? b->cap : 256;
	char *p;

	if (b->failed || n > SIZE_MAX / 4 || b->n > SIZE_MAX / 4) {
		b->failed = true;
		return NULL;
	}
	while (cap < b->n + n)
		cap *= 2;
	if (cap != b->cap) {
		p = realloc(b->p, cap);
		if (!p) {
			b->failed = true;
			return NULL;
		}
		b->p = p;
		b->cap = cap;
	}
	return b->p + b->n;
}

void buf_add(struct buf *b, const void *p, size_t n)
{
	void *to;

	if (n == 0)
		return;
	to = buf_room(b, n);
	if (!to)
		return;
	memcpy(to, p, n);
	b->n += n;
}

void buf_byte(struct buf *b, int c)
{
	char *to = buf_room(b, 1);

	if (!to)
		return;
	*to = (char)c;
	b->n++;
}

void buf_puts(struct buf *b, const char *s)
{
	buf_add(b, s, strlen(s));
}

void buf_printf(struct buf *b, const char *fmt, ...)
{
	va_list ap;
	char *to;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	if (n < 0) {
		b->failed = true;
		return;
	}
	to = buf_room(b, (size_t)n + 1);
	if (!to)
		return;
	va_start(ap, fmt);
	vsnprintf(to, (size_t)n + 1, fmt, ap);
	va_end(ap);
	b->n += (size_t)n;
}

const char *buf_str(struct buf *b)
{
	char *to = buf_room(b, 1);

	if (!to)
		return "";
	*to = '\0';
	return b->p;
}

int buf_failed(const struct buf *b, const char *where, struct err *e)
{
	return b->failed ? err_nomem(e, where, b->cap) : 0;
}
