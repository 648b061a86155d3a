/* SPDX-License-Identifier: Apache-2.0 */
/* vec.c - which of the vec_*.c this processor gets */
#include "lib/compute/vec.h"

void vec_select(struct vec_set *s)
{
	*s = (struct vec_set){ "plain", &vec_base, &i8_base };
#ifdef VEC_X86
	if (__builtin_cpu_supports("x86-64-v3"))
		*s = (struct vec_set){ "avx2", &vec_v3, &i8_v3 };
	if (__builtin_cpu_supports("x86-64-v4")) {
		*s = (struct vec_set){ "avx512", &vec_v4, &i8_v4 };
		if (__builtin_cpu_supports("avx512vnni"))
			s->i8 = &i8_vnni;
	}
#endif
}
