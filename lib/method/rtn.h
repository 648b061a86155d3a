/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rtn.h - round to nearest: every weight to the closest point of its group's grid
 */
#ifndef QP_RTN_H
#define QP_RTN_H

#include "lib/method/layer.h"
#include "lib/method/quantizer.h"

struct backend;
struct pool;

/* w [rows, cols] is not changed.  ERR_DATA for a group that does not divide, or a weight that is
 * not finite (named by row and column). */
int rtn_quantize(struct quantized *z, const struct quantizer *q, const float *w, size_t rows,
		 size_t cols, struct pool *pool, const char *where, struct err *e) MUST_USE;

/* Every linear of the block: codes, scales, zeros, the dequantized weight, a note.  Where the
 * block has a Hessian the note's error is that of the output, and the Hessian is dropped unless
 * it is kept.  o->codes_only: the weights are dropped.  z: scratch, zeroed before the first
 * block. */
int rtn_block(struct block *b, struct quantized *z, struct backend *be,
	      const struct layer_options *o, struct err *e) MUST_USE;

/* One linear taken up (layer_take), by H or, if it is NULL, without: ERR_DATA for RANGE_HMSE. */
int rtn_layer(struct layer *l, struct block *b, const float *tri, struct quantized *z,
	      struct backend *be, const struct layer_options *o, struct err *e) MUST_USE;

#endif
