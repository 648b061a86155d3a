/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dtype.c - names and sizes of element types, and rounding to and from f32
 */
#include "lib/data/dtype.h"

#include <string.h>

#include "lib/base/clones.h"

/* Index: enum dtype. */
static const struct {
	char name[8];
	unsigned char bits;
} types[DT_COUNT] = {
	[DT_NONE] = { "?", 0 },
	[DT_F64] = { "F64", 64 },
	[DT_F32] = { "F32", 32 },
	[DT_F16] = { "F16", 16 },
	[DT_BF16] = { "BF16", 16 },
	[DT_F8_E4M3] = { "F8_E4M3", 8 },
	[DT_F8_E5M2] = { "F8_E5M2", 8 },
	[DT_I64] = { "I64", 64 },
	[DT_I32] = { "I32", 32 },
	[DT_I16] = { "I16", 16 },
	[DT_I8] = { "I8", 8 },
	[DT_U64] = { "U64", 64 },
	[DT_U32] = { "U32", 32 },
	[DT_U16] = { "U16", 16 },
	[DT_U8] = { "U8", 8 },
	[DT_BOOL] = { "BOOL", 8 },
	[DT_U2] = { "U2", 2 },
	[DT_U3] = { "U3", 3 },
	[DT_U4] = { "U4", 4 },
};

#define MAX_BYTES ((uint64_t)1 << 48)

const char *dtype_name(enum dtype t)
{
	return types[t > DT_NONE && t < DT_COUNT ? t : DT_NONE].name;
}

enum dtype dtype_from_name(const char *s)
{
	for (int t = DT_NONE + 1; t < DT_COUNT; t++)
		if (strcmp(s, types[t].name) == 0)
			return (enum dtype)t;
	return DT_NONE;
}

int dtype_bits(enum dtype t)
{
	return types[t > DT_NONE && t < DT_COUNT ? t : DT_NONE].bits;
}

int dtype_nbytes(enum dtype t, int rank, const int64_t *shape, uint64_t *nbytes)
{
	uint64_t bits = (uint64_t)dtype_bits(t);
	uint64_t n = 1, row = rank > 0 ? 0 : (bits + 7) / 8;

	if (bits == 0 || rank < 0)
		return -1;
	for (int i = 0; i < rank; i++)
		if (shape[i] < 0)
			return -1;
	for (int i = 0; i < rank; i++)
		if (shape[i] == 0) {
			*nbytes = 0;
			return 0;
		}
	if (rank > 0) {
		if ((uint64_t)shape[rank - 1] > MAX_BYTES)
			return -1; /* no type has less than 2 bits, but the product must not wrap */
		row = ((uint64_t)shape[rank - 1] * bits + 7) / 8;
	}
	for (int i = 0; i + 1 < rank; i++)
		if (__builtin_mul_overflow(n, (uint64_t)shape[i], &n))
			return -1;
	if (__builtin_mul_overflow(n, row, &n) || n > MAX_BYTES)
		return -1;
	*nbytes = n;
	return 0;
}

static float float_of(uint32_t u)
{
	float f;

	memcpy(&f, &u, sizeof(f));
	return f;
}

static uint32_t bits_of(float f)
{
	uint32_t u;

	memcpy(&u, &f, sizeof(u));
	return u;
}

float bf16_to_f32(uint16_t h)
{
	return float_of((uint32_t)h << 16);
}

/* NaN keeps its sign and upper bits and becomes quiet: rounding could turn it into infinity. */
uint16_t f32_to_bf16(float f)
{
	uint32_t u = bits_of(f);
	uint32_t rounded = (u + 0x7fff + (u >> 16 & 1)) >> 16;
	uint32_t nan = u >> 16 | 0x40;

	return (uint16_t)((u & 0x7fffffff) > 0x7f800000 ? nan : rounded);
}

uint16_t f32_to_f16(float f)
{
	uint32_t u = bits_of(f), sign = u >> 16 & 0x8000, a = u & 0x7fffffff;

	if (a > 0x7f800000)
		return (uint16_t)(sign | 0x7e00 | (a >> 13 & 0x1ff));
	if (a >= 0x477ff000) /* 65520 and more round to infinity */
		return (uint16_t)(sign | 0x7c00);
	if (a < 0x38800000) /* below 2^-14: the sum's last bit is 2^-24, rounded by the FPU */
		return (uint16_t)(sign | (bits_of(float_of(a) + 0.5f) - 0x3f000000));
	a += 0xfff + (a >> 13 & 1);
	return (uint16_t)(sign | ((a - (112u << 23)) >> 13));
}

CLONES
static void widen_bf16(float *restrict dst, const uint16_t *restrict src, size_t n)
{
	for (size_t i = 0; i < n; i++)
		dst[i] = bf16_to_f32(src[i]);
}

int dtype_to_f32(float *dst, const void *src, enum dtype t, size_t n)
{
	const uint16_t *half = src;
	const double *wide = src;

	switch (t) {
	case DT_F32:
		memcpy(dst, src, n * sizeof(*dst));
		return 0;
	case DT_BF16:
		widen_bf16(dst, half, n);
		return 0;
	case DT_F16:
		for (size_t i = 0; i < n; i++)
			dst[i] = f16_to_f32(half[i]);
		return 0;
	case DT_F64:
		for (size_t i = 0; i < n; i++)
			dst[i] = (float)wide[i];
		return 0;
	default:
		return -1;
	}
}

int dtype_from_f32(void *dst, enum dtype t, const float *src, size_t n)
{
	uint16_t *half = dst;

	switch (t) {
	case DT_F32:
		memcpy(dst, src, n * sizeof(*src));
		return 0;
	case DT_BF16:
		for (size_t i = 0; i < n; i++)
			half[i] = f32_to_bf16(src[i]);
		return 0;
	case DT_F16:
		for (size_t i = 0; i < n; i++)
			half[i] = f32_to_f16(src[i]);
		return 0;
	default:
		return -1;
	}
}

/* Blocks without a branch inside, so that the compiler can use vectors. */
int64_t f32_first_nonfinite(const float *x, size_t n)
{
	enum { STEP = 1024 };

	for (size_t i = 0; i < n; i += STEP) {
		size_t end = n - i < STEP ? n : i + STEP;
		uint32_t bad = 0;

		for (size_t j = i; j < end; j++)
			bad |= (bits_of(x[j]) & 0x7f800000) == 0x7f800000;
		if (!bad)
			continue;
		for (size_t j = i; j < end; j++)
			if ((bits_of(x[j]) & 0x7f800000) == 0x7f800000)
				return (int64_t)j;
	}
	return -1;
}

/* The same for 16 bits, exponent being the mask of the type's exponent bits. */
static int64_t half_first_nonfinite(const uint16_t *x, size_t n, uint16_t exponent)
{
	enum { STEP = 2048 };

	for (size_t i = 0; i < n; i += STEP) {
		size_t end = n - i < STEP ? n : i + STEP;
		uint16_t bad = 0;

		for (size_t j = i; j < end; j++)
			bad |= (x[j] & exponent) == exponent;
		for (size_t j = i; bad && j < end; j++)
			if ((x[j] & exponent) == exponent)
				return (int64_t)j;
	}
	return -1;
}

int64_t dtype_first_nonfinite(const void *x, enum dtype t, size_t n)
{
	switch (t) {
	case DT_F32:
		return f32_first_nonfinite(x, n);
	case DT_F16:
		return half_first_nonfinite(x, n, 0x7c00);
	case DT_BF16:
		return half_first_nonfinite(x, n, 0x7f80);
	default:
		return -1;
	}
}
