/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vec_vnni.c - products of int8 by vpdpbusd (AVX-512 VNNI)
 *
 * It multiplies unsigned bytes by signed ones: X goes in as x + 128, and sums start from
 * -128 times the sum of the row of W.  Sums wrap around, so the result is exact wherever it fits.
 */
#include "lib/compute/vec.h"

#ifdef VEC_X86
#include <immintrin.h>
#include <string.h>

#pragma GCC target("arch=x86-64-v4,avx512vnni,prefer-vector-width=512")

static void x_units(uint32_t *u, const void *from, size_t k)
{
	const uint8_t *x = from;
	uint8_t *to = (uint8_t *)u;

	for (size_t i = 0; i < k; i++)
		to[i] = x[i] ^ 0x80;
	memset(to + k, 0, -k % 4);
}

static void w_units(uint32_t *u, const void *from, size_t k)
{
	memcpy(u, from, k);
	memset((char *)u + k, 0, -k % 4);
}

/* not the intrinsic: with it gcc 12 copies sums to and fro and ends in memory, at half the speed */
static inline __m512i dot(__m512i acc, __m512i w, __m512i x)
{
	__asm__("vpdpbusd %1, %2, %0" : "+v"(acc) : "v"(w), "v"(x));
	return acc;
}

enum { ROWS = 12 };
#define TILE(name) vnni_##name
#define TILE_SUM   int32_t
#define TILE_ROWS  ROWS
#define TILE_WIDE  2
#define TILE_LANES 16
#define TILE_V     __m512i
#define TILE_DOT(acc, w, x) dot(acc, (__m512i)(w), (__m512i)(x))
#include "lib/compute/vec_tile.h"

const struct vec_tiles i8_vnni = {
	.rows = ROWS,
	.per_unit = 4,
	.multiple = 1,
	.offset = 128,
	.x_units = x_units,
	.w_units = w_units,
	.run = vnni_run,
};
#else
typedef int vec_vnni_is_empty;
#endif
