/* SPDX-License-Identifier: Apache-2.0 */
/* vec_base.c - vec_kernels.h for the instruction set of the build */
#include "lib/compute/vec.h"

#define VEC_TABLE vec_base
#define VEC_NAME  "baseline"
#include "lib/compute/vec_kernels.h"
