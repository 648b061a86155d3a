/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bits.h - rows of unsigned codes as little-endian bit streams: dtypes U2, U3, U4
 *
 * Bits b*k .. b*k+b-1 of a row are code k, lowest bits first; a row is padded with zero
 * bits to a whole byte.  4 bits: even columns in the low nibble.  Used by the model floor (to
 * read packed weights) and by the packers above it.
 */
#ifndef QP_BITS_H
#define QP_BITS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define BITS_LITTLE (__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__)

/* Bytes of a row of cols codes. */
static inline size_t bits_row_bytes(size_t cols, int bits)
{
	return (cols * (size_t)bits + 7) / 8;
}

/* One row, bits 1 .. 8; every code must be below 2^bits. */
static inline void bits_pack_row(uint8_t *dst, const uint8_t *codes, size_t cols, int bits)
{
	unsigned acc = 0;
	int have = 0;
	size_t k = 0;

	/* Eight at a time, where bytes lie as the bits of a word do. */
	for (; BITS_LITTLE && bits == 4 && k + 8 <= cols; k += 8, dst += 4) {
		uint64_t v;
		uint32_t w;

		memcpy(&v, codes + k, sizeof(v));
		v = (v | v >> 4) & 0x00ff00ff00ff00ff;
		v = (v | v >> 8) & 0x0000ffff0000ffff;
		w = (uint32_t)(v | v >> 16);
		memcpy(dst, &w, sizeof(w));
	}
	for (; k < cols; k++) {
		acc |= (unsigned)codes[k] << have;
		for (have += bits; have >= 8; have -= 8, acc >>= 8)
			*dst++ = (uint8_t)acc;
	}
	if (have > 0)
		*dst = (uint8_t)acc;
}

static inline void bits_unpack_row(uint8_t *codes, const uint8_t *src, size_t cols, int bits)
{
	const unsigned mask = (1u << bits) - 1;
	unsigned acc = 0;
	int have = 0;
	size_t k = 0;

	for (; BITS_LITTLE && bits == 4 && k + 8 <= cols; k += 8, src += 4) {
		uint32_t w;
		uint64_t v;

		memcpy(&w, src, sizeof(w));
		v = (w | (uint64_t)w << 16) & 0x0000ffff0000ffff;
		v = (v | v << 8) & 0x00ff00ff00ff00ff;
		v = (v | v << 4) & 0x0f0f0f0f0f0f0f0f;
		memcpy(codes + k, &v, sizeof(v));
	}
	for (; k < cols; k++) {
		if (have < bits) {
			acc |= (unsigned)*src++ << have;
			have += 8;
		}
		codes[k] = (uint8_t)(acc & mask);
		acc >>= bits;
		have -= bits;
	}
}

#endif
