/* SPDX-License-Identifier: Apache-2.0 */
/*
 * value.c - msgpack values printed: the lossless text form, and JSON
 */
#include "lib/data/value.h"

#include <inttypes.h>
#include <math.h>
#include <msgpack.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

size_t utf8_char(const char *p, size_t n)
{
	const unsigned char *u = (const unsigned char *)p;
	uint32_t v, min;
	size_t len, i;

	if (n == 0)
		return 0;
	if (u[0] < 0x80)
		return 1;
	if (u[0] >= 0xc2 && u[0] < 0xe0) {
		len = 2;
		v = u[0] & 0x1f;
		min = 0x80;
	} else if ((u[0] & 0xf0) == 0xe0) {
		len = 3;
		v = u[0] & 0x0f;
		min = 0x800;
	} else if (u[0] >= 0xf0 && u[0] < 0xf5) {
		len = 4;
		v = u[0] & 0x07;
		min = 0x10000;
	} else {
		return 0;
	}
	if (len > n)
		return 0;
	for (i = 1; i < len; i++) {
		if ((u[i] & 0xc0) != 0x80)
			return 0;
		v = v << 6 | (u[i] & 0x3f);
	}
	return v < min || v > 0x10ffff || (v >= 0xd800 && v < 0xe000) ? 0 : len;
}

/* The escapes that both forms share; false if c needs none. */
static bool put_escape(struct buf *out, unsigned char c)
{
	switch (c) {
	case '"':  buf_puts(out, "\\\""); return true;
	case '\\': buf_puts(out, "\\\\"); return true;
	case '\n': buf_puts(out, "\\n"); return true;
	case '\r': buf_puts(out, "\\r"); return true;
	case '\t': buf_puts(out, "\\t"); return true;
	default:
		if (c >= 0x20 && c != 0x7f)
			return false;
		buf_printf(out, "\\u%04x", c);
		return true;
	}
}

static void quote(struct buf *out, const char *s, size_t n, bool json)
{
	size_t i, len;

	buf_byte(out, '"');
	for (i = 0; i < n; i += len) {
		len = utf8_char(s + i, n - i);
		if (len == 0) {
			len = 1;
			if (json)
				buf_puts(out, "\\ufffd");
			else
				buf_printf(out, "\\x%02x", (unsigned char)s[i]);
		} else if (len > 1 || !put_escape(out, (unsigned char)s[i])) {
			buf_add(out, s + i, len);
		}
	}
	buf_byte(out, '"');
}

void value_quote(struct buf *out, const char *s, size_t n)
{
	quote(out, s, n, false);
}

void value_quote_json(struct buf *out, const char *s, size_t n)
{
	quote(out, s, n, true);
}

/* word'00ff' */
static void put_hex(struct buf *out, const char *word, const void *p, size_t n)
{
	static const char digit[] = "0123456789abcdef";
	const unsigned char *u = p;
	size_t i;

	buf_puts(out, word);
	buf_byte(out, '\'');
	for (i = 0; i < n; i++) {
		buf_byte(out, digit[u[i] >> 4]);
		buf_byte(out, digit[u[i] & 15]);
	}
	buf_byte(out, '\'');
}

void value_hex(struct buf *out, const void *p, size_t n)
{
	put_hex(out, "h", p, n);
}

/* A number without a point would read back as an integer. */
static void put_number(struct buf *out, const char *s)
{
	buf_puts(out, s);
	if (!strpbrk(s, ".e"))
		buf_puts(out, ".0");
}

void value_double(struct buf *out, double v)
{
	char s[40];
	int digits;

	if (isnan(v)) {
		buf_puts(out, "nan");
		return;
	}
	if (isinf(v)) {
		buf_puts(out, v < 0 ? "-inf" : "inf");
		return;
	}
	for (digits = 1; digits <= 17; digits++) {
		snprintf(s, sizeof(s), "%.*g", digits, v);
		if (strtod(s, NULL) == v)
			break;
	}
	put_number(out, s);
}

static void put_f64(struct buf *out, double v, bool json)
{
	uint64_t bits;

	memcpy(&bits, &v, sizeof(bits));
	if (isnan(v) && !json && bits != UINT64_C(0x7ff8000000000000))
		buf_printf(out, "f64'%016" PRIx64 "'", bits);
	else if (json && !isfinite(v))
		buf_puts(out, isnan(v) ? "\"nan\"" : v < 0 ? "\"-inf\"" : "\"inf\"");
	else
		value_double(out, v);
}

static void put_f32(struct buf *out, double v, bool json)
{
	float f = (float)v;
	uint32_t bits;
	char s[40];
	int digits;

	if (json) {
		put_f64(out, v, json);
		return;
	}
	memcpy(&bits, &f, sizeof(bits));
	if (!isfinite(f)) {
		buf_printf(out, "f32'%08" PRIx32 "'", bits);
		return;
	}
	for (digits = 1; digits <= 9; digits++) {
		snprintf(s, sizeof(s), "%.*g", digits, (double)f);
		if (strtof(s, NULL) == f)
			break;
	}
	put_number(out, s);
	buf_byte(out, 'f');
}

static void put_object(struct buf *out, const msgpack_object *o, bool json);

static void put_ext(struct buf *out, const msgpack_object *o)
{
	buf_printf(out, "ext(%d,", o->via.ext.type);
	value_hex(out, o->via.ext.ptr, o->via.ext.size);
	buf_byte(out, ')');
}

static void put_key(struct buf *out, const msgpack_object *key, bool json)
{
	struct buf text = { 0 };

	if (!json || key->type == MSGPACK_OBJECT_STR) {
		put_object(out, key, json);
		return;
	}
	put_object(&text, key, false);
	value_quote_json(out, text.p ? text.p : "", text.n);
	out->failed |= text.failed;
	buf_release(&text);
}

static void put_container(struct buf *out, const msgpack_object *o, bool json)
{
	uint32_t i;

	if (o->type == MSGPACK_OBJECT_ARRAY) {
		buf_byte(out, '[');
		for (i = 0; i < o->via.array.size; i++) {
			if (i > 0)
				buf_byte(out, ',');
			put_object(out, &o->via.array.ptr[i], json);
		}
		buf_byte(out, ']');
		return;
	}
	buf_byte(out, '{');
	for (i = 0; i < o->via.map.size; i++) {
		if (i > 0)
			buf_byte(out, ',');
		put_key(out, &o->via.map.ptr[i].key, json);
		buf_byte(out, ':');
		put_object(out, &o->via.map.ptr[i].val, json);
	}
	buf_byte(out, '}');
}

static void put_object(struct buf *out, const msgpack_object *o, bool json)
{
	switch (o->type) {
	case MSGPACK_OBJECT_NIL:
		buf_puts(out, "null");
		break;
	case MSGPACK_OBJECT_BOOLEAN:
		buf_puts(out, o->via.boolean ? "true" : "false");
		break;
	case MSGPACK_OBJECT_POSITIVE_INTEGER:
		buf_printf(out, "%" PRIu64, o->via.u64);
		break;
	case MSGPACK_OBJECT_NEGATIVE_INTEGER:
		buf_printf(out, "%" PRId64, o->via.i64);
		break;
	case MSGPACK_OBJECT_FLOAT32:
		put_f32(out, o->via.f64, json);
		break;
	case MSGPACK_OBJECT_FLOAT64:
		put_f64(out, o->via.f64, json);
		break;
	case MSGPACK_OBJECT_STR:
		quote(out, o->via.str.ptr, o->via.str.size, json);
		break;
	case MSGPACK_OBJECT_BIN:
	case MSGPACK_OBJECT_EXT:
		if (json)
			buf_byte(out, '"');
		if (o->type == MSGPACK_OBJECT_BIN)
			value_hex(out, o->via.bin.ptr, o->via.bin.size);
		else
			put_ext(out, o);
		if (json)
			buf_byte(out, '"');
		break;
	case MSGPACK_OBJECT_ARRAY:
	case MSGPACK_OBJECT_MAP:
		put_container(out, o, json);
		break;
	}
}

/* True if packing o again gives back the same bytes. */
static bool shortest(const msgpack_object *o, const void *mp, size_t n)
{
	msgpack_sbuffer again;
	msgpack_packer pk;
	bool same;

	msgpack_sbuffer_init(&again);
	msgpack_packer_init(&pk, &again, msgpack_sbuffer_write);
	same = msgpack_pack_object(&pk, *o) == 0 && again.size == n &&
	       memcmp(again.data, mp, n) == 0;
	msgpack_sbuffer_destroy(&again);
	return same;
}

static int depth_of(const msgpack_object *o)
{
	int deepest = 0, d;
	uint32_t i;

	if (o->type == MSGPACK_OBJECT_ARRAY) {
		for (i = 0; i < o->via.array.size; i++) {
			d = depth_of(&o->via.array.ptr[i]);
			deepest = d > deepest ? d : deepest;
		}
		return deepest + 1;
	}
	if (o->type == MSGPACK_OBJECT_MAP) {
		for (i = 0; i < o->via.map.size; i++) {
			d = depth_of(&o->via.map.ptr[i].key);
			deepest = d > deepest ? d : deepest;
			d = depth_of(&o->via.map.ptr[i].val);
			deepest = d > deepest ? d : deepest;
		}
		return deepest + 1;
	}
	return 0;
}

static int print_value(struct buf *out, const void *mp, size_t n, bool json, struct err *e)
{
	msgpack_unpacked u;
	size_t off = 0;

	msgpack_unpacked_init(&u);
	if (msgpack_unpack_next(&u, mp, n, &off) != MSGPACK_UNPACK_SUCCESS || off != n) {
		msgpack_unpacked_destroy(&u);
		return err_set(e, ERR_DATA, "", "not one msgpack value (%zu bytes)", n);
	}
	if (!json && (!shortest(&u.data, mp, n) || depth_of(&u.data) > VALUE_MAX_DEPTH)) {
		put_hex(out, "raw", mp, n);
	} else {
		put_object(out, &u.data, json);
	}
	msgpack_unpacked_destroy(&u);
	return buf_failed(out, "", e);
}

int value_to_text(struct buf *out, const void *mp, size_t n, struct err *e)
{
	return print_value(out, mp, n, false, e);
}

int value_to_json(struct buf *out, const void *mp, size_t n, struct err *e)
{
	return print_value(out, mp, n, true, e);
}
