/* SPDX-License-Identifier: Apache-2.0 */
/* vec_base.c - vec_kernels.h for the instruction set of the build */
#include "lib/compute/vec.h"

#define VEC_TABLE vec_base
#define VEC_NAME  "plain"
/* a vector of floats, how many of them side by side in a product, and a * b + c, in f64 too */
#define VEC_FLOATS 4
#define VEC_WIDE   2
#define VEC_FMA(a, b, c) ((a) * (b) + (c))
#define VEC_FMAD(a, b, c) ((a) * (b) + (c))
#include "lib/compute/vec_kernels.h"

typedef int32_t vi __attribute__((vector_size(16)));
typedef uint32_t vw __attribute__((vector_size(16)));

static inline vi pair_dot(vi acc, vw w, vw x)
{
	return acc + ((vi)(w << 16) >> 16) * ((vi)(x << 16) >> 16) + ((vi)w >> 16) * ((vi)x >> 16);
}

#define PAIRS_TABLE i8_base
#define TILE_ROWS   2
#define TILE_WIDE   2
#define TILE_LANES  4
#define TILE_V      vi
#define TILE_DOT(acc, w, x) pair_dot(acc, w, x)
#include "lib/compute/vec_pairs.h"
