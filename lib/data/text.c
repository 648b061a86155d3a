/* SPDX-License-Identifier: Apache-2.0 */
/*
 * text.c - records written as text
 */
#include "lib/data/text.h"

#include <inttypes.h>
#include <msgpack.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/buf.h"
#include "lib/data/bits.h"
#include "lib/data/element.h"
#include "lib/data/value.h"

/* Bytes of payload text collected before they are written. */
#define TEXT_FLUSH (64u << 10)

static void put_word(struct buf *out, const char *s, size_t n)
{
	size_t bare = 0;

	while (bare < n && text_bare_char((unsigned char)s[bare]))
		bare++;
	if (n > 0 && bare == n)
		buf_add(out, s, n);
	else
		value_quote(out, s, n);
}

/* An array whose elements are arrays or maps goes on a line an element: plan, provenance. */
static int put_array_lines(struct buf *out, const msgpack_object *o, struct err *e)
{
	msgpack_sbuffer one;
	msgpack_packer pk;
	int r = 0;

	msgpack_sbuffer_init(&one);
	msgpack_packer_init(&pk, &one, msgpack_sbuffer_write);
	buf_byte(out, '[');
	for (uint32_t i = 0; r == 0 && i < o->via.array.size; i++) {
		buf_puts(out, i > 0 ? ",\n  " : "\n  ");
		msgpack_sbuffer_clear(&one);
		if (msgpack_pack_object(&pk, o->via.array.ptr[i]) != 0)
			r = err_nomem(e, "", one.size);
		else
			r = value_to_text(out, one.data, one.size, e);
	}
	buf_puts(out, "\n]");
	msgpack_sbuffer_destroy(&one);
	return r;
}

/* A value; long lists of lists over several lines, if that loses nothing. */
static int put_value(struct buf *out, const msgpack_object *o, const char *mp, size_t n,
		     struct err *e)
{
	size_t start = out->n;

	if (value_to_text(out, mp, n, e) < 0)
		return -1;
	if (o->type == MSGPACK_OBJECT_ARRAY && o->via.array.size > 0 && !out->failed &&
	    out->p[start] == '[' && o->via.array.ptr[0].type >= MSGPACK_OBJECT_ARRAY &&
	    o->via.array.ptr[0].type <= MSGPACK_OBJECT_MAP) {
		out->n = start;
		return put_array_lines(out, o, e);
	}
	return 0;
}

/* The pairs this version has no field for, in their order. */
static int put_extra(struct buf *out, const struct record *r, struct err *e)
{
	const char *mp = (const char *)r->extra;
	size_t off = 0, start;
	msgpack_unpacked u;
	int result = 0;

	msgpack_unpacked_init(&u);
	for (unsigned i = 0; i < r->n_extra && result == 0; i++) {
		if (msgpack_unpack_next(&u, mp, r->extra_len, &off) != MSGPACK_UNPACK_SUCCESS ||
		    u.data.type != MSGPACK_OBJECT_STR) {
			result = err_set(e, ERR_DATA, r->name, "a key that is not a string");
			break;
		}
		buf_byte(out, ' ');
		put_word(out, u.data.via.str.ptr, u.data.via.str.size);
		buf_byte(out, '=');
		start = off;
		if (msgpack_unpack_next(&u, mp, r->extra_len, &off) != MSGPACK_UNPACK_SUCCESS)
			result = err_set(e, ERR_DATA, r->name, "a key without its value");
		else
			result = put_value(out, &u.data, mp + start, off - start, e);
	}
	msgpack_unpacked_destroy(&u);
	return result;
}

int text_header(struct buf *out, const struct record *r, struct err *e)
{
	put_word(out, r->type_name, strlen(r->type_name));
	if (r->name[0]) {
		buf_byte(out, ' ');
		put_word(out, r->name, strlen(r->name));
	}
	if (r->role != ROLE_NONE) {
		buf_puts(out, " role=");
		put_word(out, r->role_name, strlen(r->role_name));
	}
	if (r->dtype != DT_NONE)
		buf_printf(out, " dtype=%s", dtype_name(r->dtype));
	if (r->rank >= 0) {
		buf_puts(out, " shape=[");
		for (int i = 0; i < r->rank; i++)
			buf_printf(out, "%s%" PRId64, i > 0 ? "," : "", r->shape[i]);
		buf_byte(out, ']');
	}
	if (r->must)
		buf_puts(out, " must=true");
	if (put_extra(out, r, e) < 0)
		return -1;
	return buf_failed(out, r->name, e);
}

/* Written as they are asked for: at the end of a line, when enough is there. */
static void flush_lines(FILE *f, struct buf *out, bool all)
{
	if (!all && out->n < TEXT_FLUSH)
		return;
	if (out->n > 0)
		fwrite(out->p, 1, out->n, f);
	buf_clear(out);
}

/* Rows of cols elements; a row starts a line, and a long row is broken after `wrap`. */
static void put_rows(FILE *f, struct buf *out, const struct record *r, const char *p, size_t n,
		     size_t cols)
{
	size_t bytes = (size_t)dtype_bits(r->dtype) / 8, column = 0;
	size_t wrap = strchr("FB", dtype_name(r->dtype)[0]) && r->dtype != DT_BOOL ? 8 : 16;

	for (size_t i = 0; i < n; i++, p += bytes) {
		buf_byte(out, ' ');
		element_print(out, r->dtype, p);
		if (++column % wrap == 0 || column == cols || i + 1 == n) {
			buf_byte(out, '\n');
			flush_lines(f, out, false);
		}
		if (column == cols)
			column = 0;
	}
}

static void put_hex(FILE *f, struct buf *out, const char *p, size_t n)
{
	for (size_t i = 0; i < n; i += 32) {
		buf_byte(out, ' ');
		value_hex(out, p + i, n - i < 32 ? n - i : 32);
		buf_byte(out, '\n');
		flush_lines(f, out, false);
	}
}

/* Bytes that a person would call text: UTF-8 without control characters. */
static bool is_text(const char *p, size_t n)
{
	size_t len;

	for (size_t i = 0; i < n; i += len) {
		len = utf8_char(p + i, n - i);
		if (len == 0 || (len == 1 && (unsigned char)p[i] < 0x20 && !strchr("\n\r\t", p[i])))
			return false;
		if (p[i] == '\0' || p[i] == 0x7f)
			return false;
	}
	return true;
}

static void put_text(FILE *f, struct buf *out, const char *p, size_t n)
{
	const char *eol;
	size_t len;

	for (; n > 0; p += len, n -= len) {
		eol = memchr(p, '\n', n);
		len = eol ? (size_t)(eol - p) + 1 : n;
		buf_byte(out, ' ');
		value_quote(out, p, len);
		buf_byte(out, '\n');
		flush_lines(f, out, false);
	}
}

/* Codes of U2..U4, unless a padding bit is set: then -1, and the bytes must do. */
static int put_codes(FILE *f, struct buf *out, const struct record *r, const uint8_t *p,
		     size_t cols, struct err *e)
{
	int bits = dtype_bits(r->dtype);
	size_t row = bits_row_bytes(cols, bits), rows = row ? (size_t)r->nbytes / row : 0;
	unsigned pad = (unsigned)(row * 8 - cols * (size_t)bits);
	uint8_t *codes;

	for (size_t i = 0; i < rows && pad > 0; i++)
		if (p[(i + 1) * row - 1] >> (8 - pad))
			return 1;
	codes = malloc(cols ? cols : 1);
	if (!codes)
		return err_nomem(e, r->name, cols);
	for (size_t i = 0; i < rows; i++) {
		bits_unpack_row(codes, p + i * row, cols, bits);
		for (size_t k = 0; k < cols; k++)
			buf_printf(out, "%s%u%s", " ", codes[k],
				   k % 32 == 31 || k + 1 == cols ? "\n" : "");
		flush_lines(f, out, false);
	}
	free(codes);
	return 0;
}

static int put_payload(FILE *f, struct buf *out, const struct record *r, const void *data,
		       struct err *e)
{
	size_t n = (size_t)r->nbytes, cols = r->rank > 0 ? (size_t)r->shape[r->rank - 1] : SIZE_MAX;
	uint64_t want;
	int coded = 1;

	/* A payload that is not what dtype and shape say can only be given as bytes. */
	if (r->dtype != DT_NONE && r->rank >= 0 &&
	    (dtype_nbytes(r->dtype, r->rank, r->shape, &want) < 0 || want != r->nbytes))
		put_hex(f, out, data, n);
	else if (element_has_text(r->dtype) && n % ((size_t)dtype_bits(r->dtype) / 8) == 0)
		put_rows(f, out, r, data, n / ((size_t)dtype_bits(r->dtype) / 8), cols);
	else if (r->dtype >= DT_U2 && r->dtype <= DT_U4 && r->rank > 0) {
		coded = put_codes(f, out, r, data, cols, e);
		if (coded < 0)
			return -1;
		if (coded > 0)
			put_hex(f, out, data, n);
	} else if (r->dtype == DT_NONE && is_text(data, n))
		put_text(f, out, data, n);
	else
		put_hex(f, out, data, n);
	return 0;
}

int text_write(FILE *f, const struct record *r, const void *data, struct err *e)
{
	struct buf out = { 0 };
	int result = text_header(&out, r, e);

	if (result == 0 && !data && r->nbytes > 0)
		buf_printf(&out, " # %" PRIu64 " bytes", r->nbytes);
	buf_byte(&out, '\n');
	if (result == 0 && data && r->nbytes > 0)
		result = put_payload(f, &out, r, data, e);
	if (result == 0)
		result = buf_failed(&out, r->name, e);
	if (result == 0)
		flush_lines(f, &out, true);
	buf_release(&out);
	return result;
}
