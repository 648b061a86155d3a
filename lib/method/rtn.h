/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rtn.h - round to nearest: every weight to the closest point of its group's grid
 */
#ifndef QP_RTN_H
#define QP_RTN_H

#include "lib/method/quantizer.h"

struct pool;

/* w [rows, cols] is not changed.  ERR_DATA for a group that does not divide, or a weight that is
 * not finite (named by row and column). */
int rtn_quantize(struct quantized *z, const struct quantizer *q, const float *w, size_t rows,
		 size_t cols, struct pool *pool, const char *where, struct err *e) MUST_USE;

#endif
