/* SPDX-License-Identifier: Apache-2.0 */
/*
 * value_pack.c - msgpack values in their shortest encodings
 */
#include "lib/data/value_pack.h"

#include <string.h>

void value_pack_be(struct buf *out, int tag, uint64_t v, int bytes)
{
	int i;

	buf_byte(out, tag);
	for (i = bytes - 1; i >= 0; i--)
		buf_byte(out, (int)(v >> (8 * i) & 0xff));
}

void value_pack_uint(struct buf *out, uint64_t v)
{
	if (v < 0x80)
		buf_byte(out, (int)v);
	else if (v <= UINT8_MAX)
		value_pack_be(out, 0xcc, v, 1);
	else if (v <= UINT16_MAX)
		value_pack_be(out, 0xcd, v, 2);
	else if (v <= UINT32_MAX)
		value_pack_be(out, 0xce, v, 4);
	else
		value_pack_be(out, 0xcf, v, 8);
}

void value_pack_negative(struct buf *out, int64_t v)
{
	if (v >= -32)
		buf_byte(out, (int)(v & 0xff));
	else if (v >= INT8_MIN)
		value_pack_be(out, 0xd0, (uint64_t)v, 1);
	else if (v >= INT16_MIN)
		value_pack_be(out, 0xd1, (uint64_t)v, 2);
	else if (v >= INT32_MIN)
		value_pack_be(out, 0xd2, (uint64_t)v, 4);
	else
		value_pack_be(out, 0xd3, (uint64_t)v, 8);
}

void value_pack_str(struct buf *out, const struct buf *s)
{
	if (s->n < 32)
		buf_byte(out, (int)(0xa0 | s->n));
	else if (s->n <= UINT8_MAX)
		value_pack_be(out, 0xd9, s->n, 1);
	else if (s->n <= UINT16_MAX)
		value_pack_be(out, 0xda, s->n, 2);
	else
		value_pack_be(out, 0xdb, s->n, 4);
	buf_add(out, s->p, s->n);
}

void value_pack_bin(struct buf *out, const struct buf *s)
{
	int tag = s->n <= UINT8_MAX ? 0xc4 : s->n <= UINT16_MAX ? 0xc5 : 0xc6;

	value_pack_be(out, tag, s->n, 1 << (tag - 0xc4));
	buf_add(out, s->p, s->n);
}

void value_pack_ext(struct buf *out, int type, const struct buf *s)
{
	int tag = s->n == 1 ? 0xd4 : s->n == 2 ? 0xd5 : s->n == 4 ? 0xd6 : s->n == 8 ? 0xd7 :
		  s->n == 16 ? 0xd8 : 0;

	if (tag) {
		buf_byte(out, tag);
	} else {
		tag = s->n <= UINT8_MAX ? 0xc7 : s->n <= UINT16_MAX ? 0xc8 : 0xc9;
		value_pack_be(out, tag, s->n, 1 << (tag - 0xc7));
	}
	buf_byte(out, type & 0xff);
	buf_add(out, s->p, s->n);
}

void value_pack_count(struct buf *out, int fix, int tag16, size_t n)
{
	if (n < 16)
		buf_byte(out, (int)((size_t)fix | n));
	else if (n <= UINT16_MAX)
		value_pack_be(out, tag16, n, 2);
	else
		value_pack_be(out, tag16 + 1, n, 4);
}

void value_pack_f64(struct buf *out, double v)
{
	uint64_t bits;

	memcpy(&bits, &v, sizeof(bits));
	value_pack_be(out, 0xcb, bits, 8);
}
