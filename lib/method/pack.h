/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pack.h - codes of 2, 3, 4 bits as one little-endian bit stream a row (lib/data/bits.h)
 */
#ifndef QP_PACK_H
#define QP_PACK_H

#include <stddef.h>
#include <stdint.h>

#include "lib/model/block.h"

/* dst may be codes.  -1 if a code does not fit: *bad is its index, dst is untouched. */
int pack_codes(uint8_t *dst, const uint8_t *codes, size_t rows, size_t cols, int bits,
	       size_t *bad);

/*
 * Blocks on their way through, a tensor at a time: codes become U2, U3 or U4; weights and
 * references they stand for and all statistics are dropped.  Set p->hook (pack_init) on the block
 * that is read, then end each block; it has then been written, and is not to be again.  ERR_DATA
 * for codes of 5 to 8 bits, codes that do not fit their bits, and codes packed already.
 */
struct packer {
	struct block_hook hook;
	struct stream_out *out;
	size_t next;   /* items before it have been written or dropped */
	long packed;   /* tensors */
};

void pack_init(struct packer *p, struct stream_out *out);
int pack_end(struct packer *p, struct block *b, struct err *e) MUST_USE;

/*
 * The note that stands for the calibration set whose header is calib: name "calib", kind
 * "calibration", by "pack-int4", nsamples and seqlen (the shape of the ids; of images nsamples,
 * channels, height and width), and fingerprint, sampling, seed, tokenizer and processor as far as
 * the header has them.  *note is zero-initialised or filled; the caller clears it.  ERR_DATA when
 * the shape is not that of windows or of images.
 */
int pack_calib(struct record *note, const struct record *calib, struct err *e) MUST_USE;

#endif
