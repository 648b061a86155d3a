/* SPDX-License-Identifier: Apache-2.0 */
/*
 * value_pack.h - msgpack values in their shortest encodings, appended to a buf
 *
 * What value_scan makes of text; a header's own keys are written with mp.h.
 */
#ifndef QP_VALUE_PACK_H
#define QP_VALUE_PACK_H

#include <stddef.h>
#include <stdint.h>

#include "lib/base/buf.h"

/* A tag and the lowest bytes of v, big-endian. */
void value_pack_be(struct buf *out, int tag, uint64_t v, int bytes);
void value_pack_uint(struct buf *out, uint64_t v);
void value_pack_negative(struct buf *out, int64_t v); /* v < 0 */
void value_pack_f64(struct buf *out, double v);
void value_pack_str(struct buf *out, const struct buf *s);
void value_pack_bin(struct buf *out, const struct buf *s);
void value_pack_ext(struct buf *out, int type, const struct buf *s);
/* The header of an array (base 0x90, 0xdc) or a map (0x80, 0xde) of n. */
void value_pack_count(struct buf *out, int fix, int tag16, size_t n);

#endif
