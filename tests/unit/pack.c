/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pack.c - the bit order by hand, every width and many lengths there and back
 */
#include <stdlib.h>

#include "lib/data/bits.h"
#include "lib/method/pack.h"
#include "tests/unit/tap.h"

int main(void)
{
	static const uint8_t nibbles[] = { 1, 2, 3, 4, 5 };
	static const uint8_t threes[] = { 1, 2, 3, 4, 5, 6, 7, 0, 7 };
	uint8_t out[64] = { 0 };
	size_t bad = 99;

	ok(pack_codes(out, nibbles, 1, 5, 4, &bad) == 0 && out[0] == 0x21 && out[1] == 0x43 &&
	   out[2] == 0x05, "4 bits: even columns in the low nibble, zeros behind");
	/* 1 + 2<<3 + 3<<6 + 4<<9 + 5<<12 + 6<<15 + 7<<18 = 0x1f58d1; then 7 */
	ok(pack_codes(out, threes, 1, 9, 3, &bad) == 0 && out[0] == 0xd1 && out[1] == 0x58 &&
	   out[2] == 0x1f && out[3] == 0x07, "3 bits: a stream, low bits first");
	ok(pack_codes(out, nibbles, 1, 4, 2, &bad) < 0 && bad == 3, "a code too wide is found");

	for (int bits = 2; bits <= 4; bits++) {
		bool same = true, padded = true, inside = true;

		for (size_t cols = 1; cols < 70; cols++) {
			size_t rows = 3, stride = bits_row_bytes(cols, bits);
			uint8_t *codes = malloc(rows * cols), *back = malloc(rows * cols);
			uint8_t *packed = malloc(rows * stride);

			for (size_t i = 0; i < rows * cols; i++)
				codes[i] = (uint8_t)((i * 2654435761u >> 7) & ((1u << bits) - 1));
			same = same && pack_codes(packed, codes, rows, cols, bits, &bad) == 0;
			for (size_t r = 0; r < rows; r++)
				bits_unpack_row(back + r * cols, packed + r * stride, cols, bits);
			same = same && memcmp(codes, back, rows * cols) == 0;
			if (cols * (size_t)bits % 8)
				padded = padded &&
					 packed[stride - 1] >> (cols * (size_t)bits % 8) == 0;
			/* In place. */
			inside = inside && pack_codes(codes, codes, rows, cols, bits, &bad) == 0 &&
				 memcmp(codes, packed, rows * stride) == 0;
			free(codes);
			free(back);
			free(packed);
		}
		ok(same, "%d bits: 1 to 69 columns, there and back", bits);
		ok(padded, "%d bits: rows end in zero bits", bits);
		ok(inside, "%d bits: the same in place", bits);
	}
	return done();
}
