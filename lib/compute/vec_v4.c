/* SPDX-License-Identifier: Apache-2.0 */
/* vec_v4.c - vec_kernels.h for x86-64-v4 (AVX-512) */
#include "lib/compute/vec.h"

#ifdef VEC_X86
#include <immintrin.h>

#pragma GCC target("arch=x86-64-v4,prefer-vector-width=512")
#define VEC_TABLE vec_v4
#define VEC_NAME  "avx512"
/* a vector of floats, how many of them side by side in a product, and a * b + c, in f64 too */
#define VEC_FLOATS 16
#define VEC_WIDE   4
#define VEC_FMA(a, b, c) _mm512_fmadd_ps(a, b, c)
#define VEC_FMAD(a, b, c) _mm512_fmadd_pd(a, b, c)
#include "lib/compute/vec_kernels.h"

#define PAIRS_TABLE i8_v4
#define TILE_ROWS   12
#define TILE_WIDE   2
#define TILE_LANES  16
#define TILE_V      __m512i
#define TILE_DOT(acc, w, x) \
	_mm512_add_epi32(acc, _mm512_madd_epi16((__m512i)(w), (__m512i)(x)))
#include "lib/compute/vec_pairs.h"
#else
typedef int vec_v4_is_empty;
#endif
