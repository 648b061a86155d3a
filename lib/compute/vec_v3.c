/* SPDX-License-Identifier: Apache-2.0 */
/* vec_v3.c - vec_kernels.h for x86-64-v3 (AVX2) */
#include "lib/compute/vec.h"

#ifdef VEC_X86
#include <immintrin.h>

#pragma GCC target("arch=x86-64-v3")
#define VEC_TABLE vec_v3
#define VEC_NAME  "avx2"
/* a vector of floats, how many of them side by side in a product, and a * b + c, in f64 too */
#define VEC_FLOATS 8
#define VEC_WIDE   2
#define VEC_FMA(a, b, c) _mm256_fmadd_ps(a, b, c)
#define VEC_FMAD(a, b, c) _mm256_fmadd_pd(a, b, c)
#include "lib/compute/vec_kernels.h"

#define PAIRS_TABLE i8_v3
#define TILE_ROWS   6
#define TILE_WIDE   2
#define TILE_LANES  8
#define TILE_V      __m256i
#define TILE_DOT(acc, w, x) \
	_mm256_add_epi32(acc, _mm256_madd_epi16((__m256i)(w), (__m256i)(x)))
#include "lib/compute/vec_pairs.h"
#else
typedef int vec_v3_is_empty;
#endif
