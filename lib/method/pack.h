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
 * Blocks on their way through, a tensor at a time: codes become U2, U3 or U4, those of 5 to 8 bits
 * (and F8_E4M3) stay bytes; weights and references they stand for and all statistics are dropped;
 * weights and biases that stay are rounded to a type, if that is asked for.  Set p->hook
 * (pack_init) on the block that is read, then end each block; it has then been written, and is not
 * to be again.  ERR_DATA for codes of more than max_bits, codes that do not fit their bits, codes
 * packed already, and values beyond the range of the type.
 */
struct packer {
	struct block_hook hook;
	struct stream_out *out;
	size_t next;   /* items before it have been written or dropped */
	long packed;   /* tensors */
	int max_bits;  /* of codes: 4 or 8 */
	enum dtype to; /* of what stays float; DT_NONE: as it is */
	struct item end; /* at work: a tensor outside the blocks */
	enum slot coded; /* of the codes outside the blocks that came last */
};

void pack_init(struct packer *p, struct stream_out *out, int max_bits, enum dtype to);
void pack_release(struct packer *p);
/* A record outside the blocks, written: as it is but for floats that are to be rounded. */
int pack_end_tensor(struct packer *p, const struct model *m, struct stream_in *in,
		    struct record *rec, struct err *e) MUST_USE;
int pack_end(struct packer *p, struct block *b, struct err *e) MUST_USE;

/*
 * The note that stands for the calibration set whose header is calib: name "calib", kind
 * "calibration", by the program, nsamples and seqlen (the shape of the ids; of images nsamples,
 * channels, height and width), and fingerprint, sampling, seed, tokenizer and processor as far as
 * the header has them.  *note is zero-initialised or filled; the caller clears it.  ERR_DATA when
 * the shape is not that of windows or of images.
 */
int pack_calib(struct record *note, const struct record *calib, const char *by,
	       struct err *e) MUST_USE;

#endif
