/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vec_bf16.c - products of bf16 summed up in f32 by vdpbf16ps (AVX-512 BF16)
 *
 * The instruction takes denormals for 0 and rounds to nearest.
 */
#include "lib/compute/vec.h"

#ifdef VEC_X86
#include <immintrin.h>
#include <string.h>

#pragma GCC target("arch=x86-64-v4,avx512bf16,prefer-vector-width=512")

#include "lib/compute/vec_bf16_units.h"

/* not the intrinsic: with it gcc 12 keeps sums in memory, at half the speed */
static inline __m512 dot(__m512 acc, __m512i w, __m512i x)
{
	__asm__("vdpbf16ps %1, %2, %0" : "+v"(acc) : "v"(w), "v"(x));
	return acc;
}

enum { ROWS = 12 };
#define TILE(name) pair_##name
#define TILE_SUM   float
#define TILE_ROWS  ROWS
#define TILE_FEW   4
#define TILE_WIDE  2
#define TILE_LANES 16
#define TILE_V     __m512
#define TILE_DOT(acc, w, x) dot(acc, (__m512i)(w), (__m512i)(x))
#include "lib/compute/vec_tile.h"

const struct vec_tiles bf16_v4 = {
	.rows = ROWS,
	.per_unit = 2,
	.multiple = 1,
	.x_units = bf16_units,
	.w_units = bf16_units,
	.run = pair_run,
};
#else
typedef int vec_bf16_is_empty;
#endif
