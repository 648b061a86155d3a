/* SPDX-License-Identifier: Apache-2.0 */
/*
 * f8.h - F8_E4M3 (the "fn" kind): 4 bits of exponent, 3 of mantissa, no infinities
 *
 * Micikevicius et al., FP8 Formats for Deep Learning: bias 7, largest 448, least 2^-9; NaN is
 * 0x7f and 0xff.
 */
#ifndef QP_F8_H
#define QP_F8_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#define F8_MAX 448.0f

static inline int f8_is_nan(uint8_t x)
{
	return (x & 0x7f) == 0x7f;
}

static inline float f8_to_f32(uint8_t x)
{
	const int exp = x >> 3 & 15, mant = x & 7;
	const float v = exp ? ldexpf((float)(8 + mant), exp - 10) : ldexpf((float)mant, -9);

	return f8_is_nan(x) ? (float)NAN : x & 0x80 ? -v : v;
}

/* Half to even; what lies beyond 448 becomes 448. */
static inline uint8_t f8_from_f32(float f)
{
	const uint8_t sign = signbit(f) ? 0x80 : 0;
	const float a = fabsf(f);
	uint32_t u;

	if (isnan(f))
		return 0x7f;
	if (a >= F8_MAX)
		return sign | 0x7e;
	if (a < 0x1p-6f) /* multiples of 2^-9; eight of them carry into the exponent */
		return (uint8_t)(sign | (int)((a + 0x1.8p14f) * 0x1p9f - 0x1.8p23f));
	/* 20 bits of the fraction go, half to even; a carry makes the exponent right */
	memcpy(&u, &a, sizeof(u));
	u += 0x7ffff + (u >> 20 & 1);
	return (uint8_t)(sign | ((u >> 20) - (120u << 3)));
}

#endif
