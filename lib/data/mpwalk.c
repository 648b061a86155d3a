/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mpwalk.c - tokens of msgpack (github.com/msgpack/msgpack/blob/master/spec.md)
 */
#include "lib/data/mpwalk.h"

#include <string.h>

static uint64_t big_endian(const unsigned char *p, size_t n)
{
	uint64_t v = 0;

	for (size_t i = 0; i < n; i++)
		v = v << 8 | p[i];
	return v;
}

static void set_uint(struct token *t, uint64_t u)
{
	t->type = u > INT64_MAX ? TOKEN_UINT : TOKEN_INT;
	t->u = u;
	t->i = u > INT64_MAX ? 0 : (int64_t)u;
	t->d = (double)u;
}

static void set_int(struct token *t, int64_t i)
{
	t->type = TOKEN_INT;
	t->i = i;
	t->u = i < 0 ? 0 : (uint64_t)i;
	t->d = (double)i;
}

static void set_real(struct token *t, uint64_t bits, size_t width)
{
	uint32_t narrow = (uint32_t)bits;
	float f;

	t->type = TOKEN_REAL;
	if (width == 8) {
		memcpy(&t->d, &bits, sizeof(t->d));
	} else {
		memcpy(&f, &narrow, sizeof(f));
		t->d = (double)f;
	}
}

/* Bytes of the number that follows the first byte c0 .. df. */
static size_t argument(unsigned char c)
{
	static const unsigned char width[32] = {
		0, 0, 0, 0, 1, 2, 4, 1, 2, 4, 4, 8, 1, 2, 4, 8, /* nil bool bin ext float uint */
		1, 2, 4, 8, 0, 0, 0, 0, 0, 1, 2, 4, 2, 4, 2, 4, /* int fixext str array map */
	};

	return width[c - 0xc0];
}

/* A str, bin or ext whose head has taken t->size bytes. */
static int with_body(struct token *t, enum token_type type, uint64_t body, const unsigned char *p,
		     size_t n)
{
	size_t head = t->size;

	t->type = type;
	t->n = body;
	t->size = head + (size_t)body;
	t->body = (const char *)p + head;
	return t->size <= n;
}

static int container(struct token *t, enum token_type type, uint64_t n)
{
	t->type = type;
	t->n = n;
	return 1;
}

/* Sign extension of a number of w bytes. */
static int64_t extended(uint64_t v, size_t w)
{
	uint64_t sign = (uint64_t)1 << (8 * w - 1);

	return (int64_t)((v ^ sign) - sign);
}

int token_read(struct token *t, const void *bytes, size_t n)
{
	const unsigned char *p = bytes;

	memset(t, 0, sizeof(*t));
	t->size = 1;
	if (n == 0)
		return 0;
	unsigned char c = p[0];
	if (c < 0x80)
		return set_uint(t, c), 1;
	if (c >= 0xe0)
		return set_int(t, (int64_t)c - 256), 1;
	if (c < 0x90)
		return container(t, TOKEN_MAP, c & 15);
	if (c < 0xa0)
		return container(t, TOKEN_ARRAY, c & 15);
	if (c < 0xc0)
		return with_body(t, TOKEN_STR, c & 31, p, n);

	size_t w = argument(c);
	t->size = 1 + w;
	if (n < t->size)
		return 0;
	uint64_t v = big_endian(p + 1, w);
	switch (c) {
	case 0xc0:
		t->type = TOKEN_NIL;
		return 1;
	case 0xc1:
		return -1;
	case 0xc2: case 0xc3:
		t->type = TOKEN_BOOL;
		t->b = c == 0xc3;
		return 1;
	case 0xc4: case 0xc5: case 0xc6:
		return with_body(t, TOKEN_BIN, v, p, n);
	case 0xc7: case 0xc8: case 0xc9:
		return with_body(t, TOKEN_EXT, v + 1, p, n); /* the type is a byte of the body */
	case 0xca: case 0xcb:
		return set_real(t, v, w), 1;
	case 0xcc: case 0xcd: case 0xce: case 0xcf:
		return set_uint(t, v), 1;
	case 0xd0: case 0xd1: case 0xd2: case 0xd3:
		return set_int(t, extended(v, w)), 1;
	case 0xd4: case 0xd5: case 0xd6: case 0xd7: case 0xd8:
		return with_body(t, TOKEN_EXT, 1 + ((uint64_t)1 << (c - 0xd4)), p, n);
	case 0xd9: case 0xda: case 0xdb:
		return with_body(t, TOKEN_STR, v, p, n);
	case 0xdc: case 0xdd:
		return container(t, TOKEN_ARRAY, v);
	default: /* de, df */
		return container(t, TOKEN_MAP, v);
	}
}

/* left[d] counts the values still to come at depth d; each takes a byte at least, which gives
 * the lower bound. */
int token_extent(const void *bytes, size_t n, uint64_t *size)
{
	const unsigned char *p = bytes;
	uint64_t left[MP_MAX_DEPTH + 1] = { 1 };
	size_t pos = 0;
	int depth = 0, got;
	struct token t;

	while (depth >= 0) {
		if (left[depth] == 0) {
			depth--;
			continue;
		}
		got = token_read(&t, p + pos, n - pos);
		if (got < 0)
			return -1;
		left[depth]--;
		if (got == 0) {
			*size = pos + t.size;
			for (int d = 0; d <= depth; d++)
				*size += left[d]; /* at most 31 x 2^33: no overflow */
			return 0;
		}
		pos += t.size;
		if (t.type != TOKEN_ARRAY && t.type != TOKEN_MAP)
			continue;
		if (depth == MP_MAX_DEPTH)
			return -1;
		left[++depth] = t.type == TOKEN_MAP ? 2 * t.n : t.n;
	}
	*size = pos;
	return 1;
}

size_t bin_prefix(unsigned char p[5], uint32_t n)
{
	size_t w = n < 256 ? 1 : n < 65536 ? 2 : 4;

	p[0] = w == 1 ? 0xc4 : w == 2 ? 0xc5 : 0xc6;
	for (size_t i = 0; i < w; i++)
		p[1 + i] = (unsigned char)(n >> 8 * (w - 1 - i));
	return 1 + w;
}
