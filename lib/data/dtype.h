/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dtype.h - element types, by their safetensors names, and conversion to f32
 *
 * U2, U3 and U4 are ours: unsigned codes packed as one little-endian bit stream a
 * row, lowest bits first, each row padded with zero bits to a whole byte.
 */
#ifndef QP_DTYPE_H
#define QP_DTYPE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum dtype {
	DT_NONE, DT_F64, DT_F32, DT_F16, DT_BF16, DT_F8_E4M3, DT_F8_E5M2,
	DT_I64, DT_I32, DT_I16, DT_I8, DT_U64, DT_U32, DT_U16, DT_U8, DT_BOOL,
	DT_U2, DT_U3, DT_U4, DT_COUNT
};

const char *dtype_name(enum dtype t);      /* "BF16"; "?" for DT_NONE */
enum dtype dtype_from_name(const char *s); /* DT_NONE when unknown */
int dtype_bits(enum dtype t);              /* 2, 3, 4, 8, 16, 32, 64 */

/*
 * Bytes of a tensor: product of shape times bits / 8; for U2..U4 the last
 * dimension is padded to a byte.  Returns 0 and *nbytes, or -1 when the product
 * overflows or exceeds 2^48 bytes.
 */
int dtype_nbytes(enum dtype t, int rank, const int64_t *shape, uint64_t *nbytes);

/*
 * Convert n elements to f32.  F64 F32 F16 BF16 only (exact, but F64 rounds half to
 * even); returns -1 for others.  src and dst must not overlap.
 */
int dtype_to_f32(float *dst, const void *src, enum dtype t, size_t n);
/* Round n f32 to F16 or BF16 (half to even; overflow gives infinity) or copy F32. */
int dtype_from_f32(void *dst, enum dtype t, const float *src, size_t n);

/*
 * The exponent and mantissa, moved to their place in an f32, are the value times 2^-112: a
 * multiplication puts that right, for subnormal numbers as well.  Infinity and NaN have the
 * largest exponent in both formats.
 */
static inline float f16_to_f32(uint16_t h)
{
	uint32_t u = (uint32_t)(h & 0x7fff) << 13;
	float f;

	memcpy(&f, &u, sizeof(f));
	f *= 0x1p112f;
	memcpy(&u, &f, sizeof(u));
	if ((h & 0x7c00) == 0x7c00)
		u |= 0x7f800000;
	u |= (uint32_t)(h & 0x8000) << 16;
	memcpy(&f, &u, sizeof(f));
	return f;
}
uint16_t f32_to_f16(float f);
float bf16_to_f32(uint16_t h);
uint16_t f32_to_bf16(float f);

/* Index of the first element that is NaN or infinite, or -1. */
int64_t f32_first_nonfinite(const float *x, size_t n);
/* The same of n elements F32, F16 or BF16; -1 for types that cannot hold such values. */
int64_t dtype_first_nonfinite(const void *x, enum dtype t, size_t n);

#endif
