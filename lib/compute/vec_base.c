/* SPDX-License-Identifier: Apache-2.0 */
/* vec_base.c - vec_kernels.h for the instruction set of the build */
#include "lib/compute/vec.h"

#define VEC_TABLE vec_base
#define VEC_NAME  "baseline"
/* a vector of floats, how many of them side by side in a product, and a * b + c */
#define VEC_FLOATS 4
#define VEC_WIDE   2
#define VEC_FMA(a, b, c) ((a) * (b) + (c))
#include "lib/compute/vec_kernels.h"
