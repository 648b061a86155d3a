/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ggml.h - ggml's tensor types: their blocks, and those blocks as f32
 *
 * A row is cut into blocks of `block` weights that take `bytes` bytes.  d, m, dmin are halves,
 * nibbles are stored low before high; the value is computed as ggml computes it, in f32 with each
 * product and sum rounded, so that results agree bit for bit.
 *
 *     Q4_0  d q[32]           d (q - 8)           Q4_1  d m q[32]         d q + m
 *     Q5_0  d q[32]           d (q - 16)          Q5_1  d m q[32]         d q + m
 *     Q8_0  d q[32]           d q, q signed
 *     K-quants, 256 weights; s, n: scale and minimum of 16 or 32 neighbours
 *     Q2_K  s n q d dmin      (d s) q - dmin n    Q3_K  q s d             (d (s - 32)) (q - 4)
 *     Q4_K  d dmin s n q      (d s) q - dmin n    Q5_K  d dmin s n q      (d s) q - dmin n
 *     Q6_K  q s d             (d s) (q - 32), s signed
 */
#ifndef QP_GGML_H
#define QP_GGML_H

#include <stddef.h>
#include <stdint.h>

#include "lib/data/dtype.h"

/* Numbers in a file, of those that are written. */
enum {
	GGML_F32 = 0, GGML_F16 = 1, GGML_Q4_0 = 2, GGML_Q4_1 = 3, GGML_Q5_0 = 6, GGML_Q5_1 = 7,
	GGML_Q8_0 = 8, GGML_Q4_K = 12, GGML_Q6_K = 14, GGML_BF16 = 30
};

struct ggml_type {
	const char *name;      /* "Q4_K" */
	unsigned block, bytes; /* weights in a block, and its bytes; 0: known by name only */
	enum dtype dtype;      /* what its values are handed out as: F32, F16 or BF16; DT_NONE:
				* not supported */
	/* n blocks to f32, n * block values.  NULL: the bytes are those of dtype already. */
	void (*dequantize)(float *dst, const unsigned char *src, size_t n);
};

/* By the number in a file; NULL: ggml has (or has left) no type of that number. */
const struct ggml_type *ggml_type(uint32_t number);

#endif
