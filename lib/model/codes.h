/* SPDX-License-Identifier: Apache-2.0 */
/*
 * codes.h - a quantized weight as a stream carries it: records codes, scale and zero
 *
 * w[n,k] = scale[n,g] (code[n,k] - zero[n,g]), g = k / group, in f32 (one rounding).
 *     codes  U8 with a code a byte, or U2 U3 U4, [rows, cols]; keys bits, group, sym
 *     scale  F16, BF16 or F32, [rows, groups], or [1, 1] for one scale a tensor
 *     zero   U8, of the shape of scale; absent when sym: then it is 2^(bits-1)
 *
 * Or the codes are floats, F8_E4M3: w[n,k] = scale[n/tall, k/group] code[n,k].  Keys bits = 8 and
 * group, as above; there is no zero.  With key tall (rows that share a scale, 1 if absent) blocks
 * have one scale each: tall and group need not divide rows and columns, and may exceed them.
 *
 * Or, with key grid, q4_K or q6_K: codes of a grid of super-blocks (kgrid.h).  The scale is then
 * U8 [rows, cols / 256, bytes of a head], there is no zero, and bits, group and sym are the grid's.
 */
#ifndef QP_CODES_H
#define QP_CODES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"
#include "lib/model/kgrid.h"

struct record;

struct codes {
	size_t rows, cols, groups, group; /* group: columns in each */
	int bits;
	size_t tall;       /* rows that share a scale: 1 but for blocks of F8 */
	bool sym, one_row; /* one_row: scale and zero have one row for all */
	bool f8;
	enum codes_grid grid;
	const struct record *codes, *scale, *zero; /* zero NULL when sym */
};

/* Look at a record of codes: shape, dtype and keys.  ERR_DATA naming it. */
int codes_init(struct codes *c, const struct record *codes, struct err *e) MUST_USE;
/* Its scale and its zero (NULL: there is none) fit it: shape and dtype.  ERR_DATA. */
int codes_fit(struct codes *c, const struct record *scale, const struct record *zero,
	      struct err *e) MUST_USE;

/*
 * Row n of the weight, w[cols]; the payloads are those of the three records, buf[cols] is
 * scratch.  ERR_DATA when a code does not fit its bits, or is a NaN.
 */
int codes_row(const struct codes *c, float *w, size_t n, const void *codes, const void *scale,
	      const void *zero, uint8_t *buf, struct err *e) MUST_USE;

/* Row n as integers, not of codes that are floats or have a grid: w[n,k] = scale[g] (q[k] -
 * zero[g]), q [cols], scale and zero [groups]; codes of 8 bits and their zero are less 128.
 * ERR_DATA as codes_row. */
int codes_row_int(const struct codes *c, int8_t *q, float *scale, int32_t *zero, size_t n,
		  const void *codes, const void *scales, const void *zeros,
		  struct err *e) MUST_USE;

/* Bits that the codes would take packed, and those that scale and zero take. */
double codes_bits(const struct codes *c);

#endif
