/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rows.h - rows of numbers as a tensor record of their own: logits, hidden states
 */
#ifndef QP_ROWS_H
#define QP_ROWS_H

#include "lib/data/stream.h"

/* x [rows, cols] as F32; ERR_DATA naming the first value that is not finite. */
int rows_write(struct stream_out *out, const char *name, const float *x, size_t rows, size_t cols,
	       struct err *e) MUST_USE;

#endif
