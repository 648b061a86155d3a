/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pack.c - codes of a few bits, side by side (pack.h)
 */
#include "lib/method/pack.h"

size_t pack_row_bytes(size_t cols, int bits)
{
	size_t b = (size_t)bits;

	return cols / 8 * b + (cols % 8 * b + 7) / 8;
}

int pack_codes(uint8_t *dst, const uint8_t *codes, size_t rows, size_t cols, int bits, size_t *bad)
{
	size_t stride = pack_row_bytes(cols, bits);

	for (size_t i = 0; i < rows * cols; i++)
		if (codes[i] >> bits) {
			*bad = i;
			return -1;
		}
	for (size_t r = 0; r < rows; r++) {
		const uint8_t *src = codes + r * cols;
		uint8_t *out = dst + r * stride;
		unsigned acc = 0;
		int have = 0;

		/* A byte is written only after the codes in it were read: dst may be codes. */
		for (size_t j = 0; j < cols; j++) {
			acc |= (unsigned)src[j] << have;
			have += bits;
			if (have >= 8) {
				*out++ = (uint8_t)acc;
				acc >>= 8;
				have -= 8;
			}
		}
		if (have)
			*out = (uint8_t)acc;
	}
	return 0;
}

void unpack_codes(uint8_t *codes, const uint8_t *src, size_t rows, size_t cols, int bits)
{
	size_t stride = pack_row_bytes(cols, bits);
	unsigned mask = (1u << bits) - 1;

	for (size_t r = 0; r < rows; r++) {
		const uint8_t *in = src + r * stride;
		unsigned acc = 0;
		int have = 0;

		for (size_t j = 0; j < cols; j++) {
			if (have < bits) {
				acc |= (unsigned)*in++ << have;
				have += 8;
			}
			*codes++ = (uint8_t)(acc & mask);
			acc >>= bits;
			have -= bits;
		}
	}
}
