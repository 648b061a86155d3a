/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tokenizer_text.c - buffers, pieces, and characters
 */
#include <stdlib.h>
#include <string.h>

#include <utf8proc.h>

#include "lib/data/tokenizer_impl.h"

int tok_buf_reserve(struct tok_buf *b, size_t more, struct err *e)
{
	size_t cap = b->cap ? b->cap : 64;
	char *p;

	if (b->cap - b->n >= more)
		return 0;
	if (more > SIZE_MAX / 4 || b->n > SIZE_MAX / 4)
		return err_nomem(e, "tokenizer", more);
	while (cap - b->n < more)
		cap += cap / 2;
	p = realloc(b->p, cap);
	if (!p)
		return err_nomem(e, "tokenizer", cap);
	b->p = p;
	b->cap = cap;
	return 0;
}

int tok_buf_add(struct tok_buf *b, const char *s, size_t n, struct err *e)
{
	if (!n)
		return 0;
	if (tok_buf_reserve(b, n, e))
		return -1;
	memcpy(b->p + b->n, s, n);
	b->n += n;
	return 0;
}

int tok_piece_add(struct tok_pieces *p, size_t off, size_t len, int32_t id, size_t zero,
		  struct err *e)
{
	if (!len && id < 0)
		return 0;
	if (p->n == p->cap) {
		size_t cap = p->cap ? p->cap + p->cap / 2 : 16;
		struct tok_piece *v = realloc(p->v, cap * sizeof(*v));

		if (!v)
			return err_nomem(e, "tokenizer", cap * sizeof(*v));
		p->v = v;
		p->cap = cap;
	}
	p->v[p->n++] = (struct tok_piece){ .off = off, .len = len, .id = id, .zero = zero };
	return 0;
}

void tok_work_release(struct tok_work *w)
{
	free(w->text.p);
	free(w->text2.p);
	free(w->pieces.v);
	free(w->pieces2.v);
	memset(w, 0, sizeof(*w));
}

void tok_swap_text(struct tok_work *w)
{
	struct tok_buf b = w->text;

	w->text = w->text2;
	w->text2 = b;
	w->text2.n = 0;
}

void tok_swap_pieces(struct tok_work *w)
{
	struct tok_pieces p = w->pieces;

	w->pieces = w->pieces2;
	w->pieces2 = p;
	w->pieces2.n = 0;
}

uint32_t tok_char(const char *s, size_t *len)
{
	const unsigned char *u = (const unsigned char *)s;

	if (u[0] < 0x80) {
		*len = 1;
		return u[0];
	}
	if (u[0] < 0xe0) {
		*len = 2;
		return (uint32_t)(u[0] & 0x1f) << 6 | (u[1] & 0x3f);
	}
	if (u[0] < 0xf0) {
		*len = 3;
		return (uint32_t)(u[0] & 0x0f) << 12 | (uint32_t)(u[1] & 0x3f) << 6 | (u[2] & 0x3f);
	}
	*len = 4;
	return (uint32_t)(u[0] & 0x07) << 18 | (uint32_t)(u[1] & 0x3f) << 12 |
	       (uint32_t)(u[2] & 0x3f) << 6 | (u[3] & 0x3f);
}

size_t tok_put(char *dst, uint32_t c)
{
	return (size_t)utf8proc_encode_char((utf8proc_int32_t)c, (utf8proc_uint8_t *)dst);
}

/* Bytes at s that belong together: a character, *good, or the most of one that is there
 * (Unicode 3.9, table 3-7). */
static size_t sequence(const unsigned char *s, size_t n, bool *good)
{
	unsigned char lo = 0x80, hi = 0xbf;
	size_t len, i;

	*good = s[0] < 0x80;
	if (s[0] < 0xc2 || s[0] > 0xf4)
		return 1;
	len = s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
	if (s[0] == 0xe0)
		lo = 0xa0;
	if (s[0] == 0xed)
		hi = 0x9f;
	if (s[0] == 0xf0)
		lo = 0x90;
	if (s[0] == 0xf4)
		hi = 0x8f;
	for (i = 1; i < len && i < n; i++) {
		if (s[i] < lo || s[i] > hi)
			return i;
		lo = 0x80;
		hi = 0xbf;
	}
	*good = i == len;
	return i;
}

size_t tok_utf8_bad(const char *s, size_t n)
{
	bool good;

	return sequence((const unsigned char *)s, n, &good);
}

size_t tok_utf8_check(const char *s, size_t n)
{
	const unsigned char *u = (const unsigned char *)s;
	size_t i = 0;

	while (i < n) {
		uint64_t eight;
		size_t len;
		bool good;

		while (n - i >= 8 && (memcpy(&eight, u + i, 8), !(eight & 0x8080808080808080u)))
			i += 8;
		if (i == n)
			break;
		len = sequence(u + i, n - i, &good);
		if (!good)
			return i;
		i += len;
	}
	return n;
}

bool tok_is_space(uint32_t c)
{
	return (c >= 0x09 && c <= 0x0d) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680 ||
	       (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f ||
	       c == 0x205f || c == 0x3000;
}

bool tok_is_word(uint32_t c)
{
	if (c < 0x80)
		return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') ||
		       (c >= 'a' && c <= 'z') || c == '_';
	/* Alphabetic symbols that are no letters, and the two joiners. */
	if (c == 0x200c || c == 0x200d || (c >= 0x24b6 && c <= 0x24e9) ||
	    (c >= 0x1f130 && c <= 0x1f149) || (c >= 0x1f150 && c <= 0x1f169) ||
	    (c >= 0x1f170 && c <= 0x1f189))
		return true;
	switch (utf8proc_category((utf8proc_int32_t)c)) {
	case UTF8PROC_CATEGORY_LU:
	case UTF8PROC_CATEGORY_LL:
	case UTF8PROC_CATEGORY_LT:
	case UTF8PROC_CATEGORY_LM:
	case UTF8PROC_CATEGORY_LO:
	case UTF8PROC_CATEGORY_MN:
	case UTF8PROC_CATEGORY_MC:
	case UTF8PROC_CATEGORY_ME:
	case UTF8PROC_CATEGORY_ND:
	case UTF8PROC_CATEGORY_NL:
	case UTF8PROC_CATEGORY_PC:
		return true;
	default:
		return false;
	}
}

/* Bytes that stand for themselves are '!'..'~', 0xa1..0xac, 0xae..0xff; the 68 others are
 * numbered in order from U+0100 (openai/gpt-2, encoder.py, bytes_to_unicode). */
uint32_t tok_byte_char(unsigned char b)
{
	if (b < 0x21)
		return 0x100u + b;
	if (b < 0x7f)
		return b;
	if (b < 0xa1)
		return 0x100u + 0x21 + (b - 0x7fu);
	return b == 0xad ? 0x143 : b;
}

int tok_char_byte(uint32_t c)
{
	if (c >= 0x100 && c < 0x100 + 0x21)
		return (int)(c - 0x100);
	if (c >= 0x121 && c <= 0x142)
		return (int)(c - 0x121 + 0x7f);
	if (c == 0x143)
		return 0xad;
	if ((c >= 0x21 && c < 0x7f) || (c >= 0xa1 && c <= 0xff && c != 0xad))
		return (int)c;
	return -1;
}
