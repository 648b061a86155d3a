/* SPDX-License-Identifier: Apache-2.0 */
/* vec.c - which of the vec_*.c this processor gets */
#include "lib/compute/vec.h"

const struct vec_ops *vec_select(void)
{
#ifdef VEC_X86
	if (__builtin_cpu_supports("x86-64-v4"))
		return &vec_v4;
	if (__builtin_cpu_supports("x86-64-v3"))
		return &vec_v3;
#endif
	return &vec_base;
}
