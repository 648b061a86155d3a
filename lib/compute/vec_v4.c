/* SPDX-License-Identifier: Apache-2.0 */
/* vec_v4.c - vec_kernels.h for x86-64-v4 (AVX-512) */
#include "lib/compute/vec.h"

#ifdef VEC_X86
#include <immintrin.h>

#pragma GCC target("arch=x86-64-v4,prefer-vector-width=512")
#define VEC_TABLE vec_v4
#define VEC_NAME  "AVX-512"
/* a vector of floats, how many of them side by side in a product, and a * b + c */
#define VEC_FLOATS 16
#define VEC_WIDE   4
#define VEC_FMA(a, b, c) _mm512_fmadd_ps(a, b, c)
#include "lib/compute/vec_kernels.h"
#else
typedef int vec_v4_is_empty;
#endif
