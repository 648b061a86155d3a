/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cpu_short.h - products of short numbers (int8, bf16) on packed weights; private to lib/compute
 */
#ifndef QP_CPU_SHORT_H
#define QP_CPU_SHORT_H

#include "lib/compute/cpu.h"

/* W [n, k] in panels of units, as struct vec_product wants it. */
struct short_w {
	const struct vec_tiles *tiles;
	size_t n, k, units; /* units of a row */
	uint32_t *w;
};

/* From w [n, k] of type I8 or, for tiles of bf16, F32, F16 or BF16; rest: what rounding
 * to bf16 leaves of it.  s is empty or has been filled
 * before, and keeps its memory if it had that shape. */
int short_pack(struct backend *b, struct short_w *s, const struct vec_tiles *tiles, const void *w,
	       enum dtype t, int rest, size_t n, size_t k, struct err *e) MUST_USE;
void short_release(struct short_w *s);

struct short_job {
	const struct short_w *w, *rest; /* rest: NULL, or of the same weights: three products */
	const void *x;      /* [t, k] int8 or f32 */
	void *y;            /* [t, n] int32 or f32 */
	const void *start;  /* [n] what sums start from, int32 or f32; NULL: 0 */
	size_t ldx, ldy, t, xsize; /* bytes of a number of x */
	int add;
};

int short_linear(struct backend *b, const struct short_job *j, struct err *e) MUST_USE;

#endif
