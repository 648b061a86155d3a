/* SPDX-License-Identifier: Apache-2.0 */
/*
 * zslice.h - one slice of a payload as one zstd frame, and back
 *
 * planes: elements of two bytes are split first, all low bytes, then all high bytes.  The high
 * bytes of weights (sign, exponent) compress well, the low ones hardly.
 */
#ifndef QP_ZSLICE_H
#define QP_ZSLICE_H

#include <stdbool.h>
#include <stddef.h>

#include "lib/base/err.h"
#include "lib/data/stream.h"

/* A frame is never longer: zstd's bound for 16 MiB that do not compress. */
#define ZSLICE_MAX (STREAM_CHUNK + STREAM_CHUNK / 256)

struct zslice; /* contexts and buffers, reused from slice to slice */

struct zslice *zslice_new(void); /* NULL: out of memory */
void zslice_free(struct zslice *z);

/* src[n], n <= STREAM_CHUNK and even for planes, into dst[cap], cap >= zslice_bound(n); *out
 * bytes. */
size_t zslice_bound(size_t n);
int zslice_encode(struct zslice *z, void *dst, size_t cap, const void *src, size_t n, bool planes,
		  int level, size_t *out, struct err *e) MUST_USE;

/* A buffer for a frame of n <= ZSLICE_MAX bytes, good until the next call; NULL and *e. */
void *zslice_buffer(struct zslice *z, size_t n, struct err *e);
/* The frame src[len] must decode to exactly n bytes: ERR_DATA if not.  src may be the buffer. */
int zslice_decode(struct zslice *z, void *dst, size_t n, const void *src, size_t len, bool planes,
		  struct err *e) MUST_USE;

#endif
