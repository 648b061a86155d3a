/* SPDX-License-Identifier: Apache-2.0 */
/*
 * value.h - one msgpack value as text, and back, without loss
 *
 * The text is JSON with what msgpack has beyond it, in the manner of CBOR's diagnostic notation:
 *     null true false  -12  18446744073709551615
 *     0.5  1e+30  inf  -inf  nan        float 64, always with a point, an e, or by name
 *     0.5f                              float 32
 *     f64'7ff8000000000001' f32'7fc00001'  any other float, its bits (nan payloads)
 *     "text\n\u00e9\xff"                str; \xff is a byte that is not UTF-8
 *     h'00ff'                           bin
 *     ext(5,h'00ff')                    ext, type -128 .. 127
 *     [1,2] {"a":1,2:"b"}               array, map (keys of any type, order kept)
 *     raw'cd0001'                       a value whose bytes are not the shortest encoding
 */
#ifndef QP_VALUE_H
#define QP_VALUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "lib/base/buf.h"
#include "lib/data/mpwalk.h"

#define VALUE_MAX_DEPTH (MP_MAX_DEPTH - 1) /* the header around it is one more */

/* The n bytes at mp are exactly one msgpack value; -1 and ERR_DATA if not. */
int value_to_text(struct buf *out, const void *mp, size_t n, struct err *e) MUST_USE;

/*
 * The same as strict JSON (RFC 8259), for other programs: bin and ext become strings in the
 * notation above, as do floats that are not finite and keys that are not strings; bytes that are
 * not UTF-8 become U+FFFD.
 */
int value_to_json(struct buf *out, const void *mp, size_t n, struct err *e) MUST_USE;

/* s as a quoted string: of the text form, or of JSON. */
void value_quote(struct buf *out, const char *s, size_t n);
void value_quote_json(struct buf *out, const char *s, size_t n);
/* Bytes as h'00ff'. */
void value_hex(struct buf *out, const void *p, size_t n);
/* The shortest decimal that reads back as v, with a point or an e; inf, nan. */
void value_double(struct buf *out, double v);

/* How many of the n bytes at p make one valid UTF-8 character; 0: none. */
size_t utf8_char(const char *p, size_t n);

/*
 * Text being read, a character at a time.  Errors say the line: where = "line 12".
 */
struct scan {
	FILE *f;
	long line;  /* of the next character, from 1 */
	int c;      /* the next character, or EOF */
};

void scan_init(struct scan *s, FILE *f);
int scan_next(struct scan *s); /* step over one character; the new s->c */
int scan_error(struct scan *s, struct err *e, const char *fmt, ...) QP_PRINTF(3, 4);

/* One value at s, appended to out as msgpack, shortest encodings.  Blanks, line ends and comments
 * (# to the end of the line) may stand inside brackets only. */
int value_scan(struct scan *s, struct buf *out, struct err *e) MUST_USE;
/* A quoted string at s: its bytes. */
int value_scan_string(struct scan *s, struct buf *out, struct err *e) MUST_USE;
/* The rest of h'00ff' from the quote on: its bytes. */
int value_scan_hex(struct scan *s, struct buf *out, struct err *e) MUST_USE;

#endif
