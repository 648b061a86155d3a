/* SPDX-License-Identifier: Apache-2.0 */
/*
 * text.h - records as lines of text, and back, without loss
 *
 *     # a comment; blank lines are nothing
 *     stream v=[1,0] family="llama" config={"hidden":2} plan=[] prov=[]
 *     tensor model.norm.weight role=weight dtype=F32 shape=[2]
 *      0x1p+0 -0x1.8p-3
 *     file config.json
 *      "{\"model_type\":\"llama\"}\n"
 *     end
 *
 * A header is TYPE, NAME if it has one, and key=value pairs; values as in value.h, but role and
 * dtype may be bare words; a name or key with other than letters, digits and . _ - / + : @ is
 * quoted.  Inside brackets a header may run over several lines.  The payload follows on lines
 * that begin with a blank:
 *     F64 F32 F16 BF16     hex or decimal floats (rounded half to even), inf, nan, -nan, and
 *                          nan'7fc00001' for any other NaN's bits
 *     I64 ... U8 BOOL      integers
 *     U2 U3 U4             codes; packed row by row
 *     anything else        h'00ff' (allowed for every dtype) and "strings", for their bytes
 * V*N stands for N times V.  nbytes, chunks, enc, xxh and the contents of `end` are not in the
 * text: they are computed.  The line `end` is: text without it is refused as cut short.
 */
#ifndef QP_TEXT_H
#define QP_TEXT_H

#include <stdbool.h>
#include <stdio.h>

#include "lib/data/stream.h"

struct buf;

/* Characters of names, keys and words that need no quotes. */
static inline bool text_bare_char(int c)
{
	return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
	       c == '.' || c == '_' || c == '-' || c == '/' || c == '+' || c == ':' || c == '@';
}

/* The header of r, and its payload unless data is NULL (then "# N bytes" is said if it has one).
 * A bad header is ERR_DATA, a failing f is left to the caller's ferror. */
int text_write(FILE *f, const struct record *r, const void *data, struct err *e) MUST_USE;

/* The header alone, without the end of its line. */
int text_header(struct buf *out, const struct record *r, struct err *e) MUST_USE;

struct text_in;

/* f is the caller's. NULL and *e (ERR_NOMEM) on failure. */
struct text_in *text_open(FILE *f, struct err *e);
void text_close(struct text_in *t);
/*
 * The next record; *payload (r->nbytes, in t until the next call) is NULL if it has none.
 * 1: a record; 0: the line `end` was read and nothing follows; -1: *e, ERR_DATA at "line 12".
 */
int text_next(struct text_in *t, struct record *r, const void **payload, struct err *e) MUST_USE;
/* The line where the record just read began. */
long text_line(const struct text_in *t);

#endif
