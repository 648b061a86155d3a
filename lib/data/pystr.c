/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pystr.c - what some of Python's str methods do to UTF-8 text
 */
#include "lib/data/pystr.h"

#include <string.h>
#include <utf8proc.h>

/* All above U+007F are of two or three bytes. */
size_t pystr_space(const char *p, size_t n)
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

size_t pystr_leading(const char *p, size_t n)
{
	size_t at = 0, k;

	while ((k = pystr_space(p + at, n - at)) > 0)
		at += k;
	return at;
}

size_t pystr_trailing(const char *p, size_t n)
{
	for (;;) {
		if (n >= 1 && pystr_space(p + n - 1, 1) == 1)
			n -= 1;
		else if (n >= 2 && pystr_space(p + n - 2, 2) == 2)
			n -= 2;
		else if (n >= 3 && pystr_space(p + n - 3, 3) == 3)
			n -= 3;
		else
			return n;
	}
}

size_t pystr_length(const char *p, size_t n)
{
	size_t length = 0;

	for (size_t i = 0; i < n; i++)
		length += ((unsigned char)p[i] & 0xc0) != 0x80;
	return length;
}

void pystr_replace(struct buf *out, const char *s, size_t n, const char *from, const char *to)
{
	const size_t len = strlen(from);

	while (n > 0) {
		const char *at = memmem(s, n, from, len);
		const size_t before = at != NULL ? (size_t)(at - s) : n;

		buf_add(out, s, before);
		if (at == NULL)
			return;
		buf_puts(out, to);
		s += before + len;
		n -= before + len;
	}
}

/* The first character of s, mapped, appended to out; its length in s.  A byte that begins no
 * character stays as it is. */
static size_t map(struct buf *out, const char *s, size_t n,
		  utf8proc_int32_t (*to)(utf8proc_int32_t))
{
	const utf8proc_uint8_t *u = (const utf8proc_uint8_t *)s;
	utf8proc_uint8_t bytes[4];
	utf8proc_int32_t c;
	const utf8proc_ssize_t len = utf8proc_iterate(u, (utf8proc_ssize_t)n, &c);

	if (len <= 0) {
		buf_add(out, s, 1);
		return 1;
	}
	buf_add(out, bytes, (size_t)utf8proc_encode_char(to(c), bytes));
	return (size_t)len;
}

void pystr_lower_first(struct buf *out, const char *s, size_t n)
{
	const size_t first = n > 0 ? map(out, s, n, utf8proc_tolower) : 0;

	if (n > 0)
		buf_add(out, s + first, n - first);
}

void pystr_capitalize(struct buf *out, const char *s, size_t n)
{
	for (size_t at = 0; at < n;)
		at += map(out, s + at, n - at, at == 0 ? utf8proc_totitle : utf8proc_tolower);
}
