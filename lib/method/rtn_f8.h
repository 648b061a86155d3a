/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rtn_f8.h - weights to float8: every one to the nearest e4m3 of its group's scale
 *
 * w~[n,k] = s[n/tall, k/width] c[n,k], c = e4m3(w / s), half to even, beyond 448 saturated, and
 * s = max |w| / 448 of the group, computed in f64 and rounded to the type it will be stored in
 * before any code is computed; 1 where all are 0.  (Micikevicius et al., FP8 Formats for Deep
 * Learning, 2022, section 3.)  A group is a row, a tensor, or a block of rows and columns; blocks
 * at the lower and right edge, or of a weight that is less than one, may hold fewer weights.
 */
#ifndef QP_RTN_F8_H
#define QP_RTN_F8_H

#include "lib/method/layer.h"

struct backend;
struct pool;

enum f8_scales { F8_ROW, F8_TENSOR, F8_BLOCK };

struct f8_options {
	enum f8_scales scales;
	size_t tall, width;     /* F8_BLOCK: rows and columns that share a scale */
};

/* One linear: scale [scale_rows, groups] in f32, codes [rows, cols]. */
struct f8_quantized {
	size_t rows, cols, tall, width, scale_rows, groups;
	uint8_t *codes;
	float *scale;
	size_t cap, cap_scales;
};

void f8_release(struct f8_quantized *z);
/* w [rows, cols] is not changed; z: zeroed, or used before.  ERR_DATA for a weight that is not
 * finite (named by row and column), or a scale beyond its type. */
int f8_quantize(struct f8_quantized *z, const struct f8_options *f, enum dtype scale_dtype,
		const float *w, size_t rows, size_t cols, struct pool *pool, const char *where,
		struct err *e) MUST_USE;

/* As rtn_block: codes, scales, the dequantized weight, a note; o->q's scale_dtype holds, the rest
 * of it does not. */
int rtn_f8_block(struct block *b, struct f8_quantized *z, struct backend *be,
		 const struct f8_options *f, const struct layer_options *o,
		 struct err *e) MUST_USE;

#endif
