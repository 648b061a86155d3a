/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rows.c - rows of numbers as a tensor record
 */
#include "lib/model/rows.h"

int rows_write(struct stream_out *out, const char *name, const float *x, size_t rows, size_t cols,
	       struct err *e)
{
	const int64_t at = f32_first_nonfinite(x, rows * cols);
	struct record r = { .rank = -1 };
	int ret;

	if (at >= 0)
		return err_set(e, ERR_DATA, name, "the value of token %ld, column %ld is not "
			       "finite", (long)at / (long)cols, (long)at % (long)cols);
	record_init(&r, REC_TENSOR, name);
	r.dtype = DT_F32;
	r.rank = 2;
	r.shape[0] = (int64_t)rows;
	r.shape[1] = (int64_t)cols;
	r.nbytes = rows * cols * sizeof(*x);
	ret = stream_write(out, &r, x, e);
	record_clear(&r);
	return ret;
}
