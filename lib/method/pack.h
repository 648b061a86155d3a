/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pack.h - codes of 2, 3, 4 bits as one little-endian bit stream a row, and back
 *
 * Bit b*k .. b*k+b-1 of row n is code [n, k], low bits first; rows start on a byte.  4 bits:
 * even columns in the low nibble.
 */
#ifndef QP_PACK_H
#define QP_PACK_H

#include <stddef.h>
#include <stdint.h>

size_t pack_row_bytes(size_t cols, int bits);
/* dst may be codes.  -1 if a code does not fit: *bad is its index, dst is untouched. */
int pack_codes(uint8_t *dst, const uint8_t *codes, size_t rows, size_t cols, int bits,
	       size_t *bad);
void unpack_codes(uint8_t *codes, const uint8_t *src, size_t rows, size_t cols, int bits);

#endif
