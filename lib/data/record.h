/* SPDX-License-Identifier: Apache-2.0 */
/*
 * record.h - a header between struct record and its msgpack bytes (used by stream_*.c only;
 * what everybody may call is in stream.h)
 */
#ifndef QP_RECORD_H
#define QP_RECORD_H

#include "lib/base/buf.h"
#include "lib/data/stream.h"

/*
 * The n bytes at p are one msgpack value (token_extent said so): a header.  ERR_DATA when it is
 * not a map with str keys, when a key this version knows is there twice, has a value of the wrong
 * type or beyond a limit, or when nbytes, chunks, dtype and shape contradict each other.  *r is
 * cleared first; its memory is kept.
 */
int record_decode(struct record *r, const void *p, size_t n, struct err *e) MUST_USE;

/* Append the header to b: known keys in the order of the manual, then r->extra.  chunks, enc and
 * xxh are written as they stand in r. */
void record_encode(const struct record *r, struct buf *b);

/* What to call a record in a message: "layers.3.mlp.down_proj", "block 3", "header". */
void record_label(const struct record *r, char *label, size_t cap);

/* REC_OTHER for a name this version does not know. */
enum rec_type rec_type_from_name(const char *s);
/* Room for n bytes of extra keys in all; -1 when there is no memory. */
int record_reserve(struct record *r, size_t n);

/* Append the extra keys of src, none of which dst has; -1 when there is no memory. */
int record_append(struct record *dst, const struct record *src);
int record_set_uint(struct record *r, const char *key, uint64_t v);

/* Chunks of a payload of nbytes in an encoding this version knows. */
static inline uint64_t record_chunks(uint64_t nbytes)
{
	return nbytes / STREAM_CHUNK + (nbytes % STREAM_CHUNK != 0);
}

/* Bytes of slice i of a payload, before enc. */
static inline size_t record_slice(uint64_t nbytes, uint64_t i)
{
	uint64_t left = nbytes - i * STREAM_CHUNK;

	return left < STREAM_CHUNK ? (size_t)left : STREAM_CHUNK;
}

#endif
