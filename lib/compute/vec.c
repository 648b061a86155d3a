/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vec.c - which of the vec_*.c this processor gets, and at most
 *
 * A fixed table by what cpuid says, never a timing: the same machine, the same bytes.
 */
#include "lib/compute/vec.h"

#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifdef VEC_X86
#include <cpuid.h>

#define ARCH_REQ_XCOMP_PERM 0x1023
#define XFEATURE_XTILEDATA  18

/* AMX with both products, and tiles enabled by the system. */
static int has_amx(void)
{
	unsigned int a, b, c, d, lo, hi;

	if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || ~d & (1u << 22 | 1u << 24 | 1u << 25))
		return 0;
	if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & 1u << 27)) /* OSXSAVE */
		return 0;
	__asm__("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
	return (lo & 3u << 17) == 3u << 17;
}

static int amx_granted(void)
{
	return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}
#endif

static const char *const names[] = {
	"plain", "avx2", "avx512", "avx512vnni", "avx512bf16", "amx", NULL
};

static int has(enum vec_level l)
{
#ifdef VEC_X86
	switch (l) {
	case VEC_PLAIN:
		return 1;
	case VEC_AVX2:
		return __builtin_cpu_supports("x86-64-v3") != 0;
	case VEC_AVX512:
		return __builtin_cpu_supports("x86-64-v4") != 0;
	case VEC_VNNI:
		return has(VEC_AVX512) && __builtin_cpu_supports("avx512vnni");
	case VEC_BF16:
		return has(VEC_VNNI) && __builtin_cpu_supports("avx512bf16");
	case VEC_AMX:
		return has(VEC_BF16) && has_amx();
	}
#endif
	return l == VEC_PLAIN;
}

/* What is asked for with QP_CPU; -1: an unknown word. */
static int asked(void)
{
	const char *cap = getenv("QP_CPU");
	int i = 0;

	if (!cap || !*cap)
		return VEC_AMX;
	while (names[i] && strcmp(names[i], cap))
		i++;
	return names[i] ? i : -1;
}

enum vec_level vec_level(void)
{
	int level = asked();

	if (level < 0)
		level = VEC_AMX;
	while (!has((enum vec_level)level))
		level--;
	return (enum vec_level)level;
}

#ifdef VEC_X86
/* Intel's vdpbf16ps has half the speed of its f32, which gives the same to the last bits. */
static int slow_bf16(void)
{
	__builtin_cpu_init();
	return !__builtin_cpu_is("amd");
}

static void fill(struct vec_set *s, enum vec_level level)
{
	s->ops = level >= VEC_AVX512 ? &vec_v4 : level == VEC_AVX2 ? &vec_v3 : &vec_base;
	s->i8 = level == VEC_AMX ? &i8_amx : level >= VEC_VNNI ? &i8_vnni :
		level == VEC_AVX512 ? &i8_v4 : level == VEC_AVX2 ? &i8_v3 : &i8_base;
	s->bf16 = level == VEC_AMX ? &bf16_amx :
		  level == VEC_BF16 && !slow_bf16() ? &bf16_v4 : NULL;
}
#else
static void fill(struct vec_set *s, enum vec_level level)
{
	(void)level;
	s->ops = &vec_base;
	s->i8 = &i8_base;
	s->bf16 = NULL;
}
#endif

int vec_select(struct vec_set *s, struct err *e)
{
	const char *cap = getenv("QP_CPU");
	enum vec_level level = vec_level();

	if (asked() < 0)
		return err_set(e, ERR_USAGE, "QP_CPU", "expected plain, avx2, avx512, avx512vnni, "
			       "avx512bf16 or amx, got '%s'", cap);
	if (cap && *cap && (int)level != asked())
		return err_set(e, ERR_UNAVAIL, "QP_CPU", "this processor has no %s", cap);
	s->refused = "";
#ifdef VEC_X86
	if (level == VEC_AMX && !amx_granted()) {
		level = VEC_BF16;
		s->refused = " (amx refused)";
	}
#endif
	s->level = level;
	s->name = names[level];
	s->capped = cap && *cap;
	fill(s, level);
	return 0;
}
