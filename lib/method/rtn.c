/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rtn.c - every weight by itself (rtn.h)
 */
#include "lib/base/pool.h"
#include "lib/method/rtn.h"

struct rtn_ctx {
	struct quantized *z;
	const float *w;
};

static void code_row(void *ctx, size_t row, int thread)
{
	const struct rtn_ctx *c = ctx;
	struct quantized *z = c->z;
	size_t at = row * z->cols;

	(void)thread;
	for (size_t g = 0; g < z->groups; g++, at += z->group)
		quantize_run(z->codes + at, c->w + at, z->group, z->scale[row * z->groups + g],
			     z->zero[row * z->groups + g], z->bits);
}

int rtn_quantize(struct quantized *z, const struct quantizer *q, const float *w, size_t rows,
		 size_t cols, struct pool *pool, const char *where, struct err *e)
{
	struct rtn_ctx c = { .z = z, .w = w };

	if (quantized_init(z, q, rows, cols, where, e) < 0 ||
	    quantizer_fit_all(z, q, w, pool, where, e) < 0)
		return -1;
	pool_run(pool, rows, code_row, &c);
	return 0;
}
