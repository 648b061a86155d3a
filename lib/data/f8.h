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
	const float a = fminf(fabsf(f), F8_MAX);
	int exp;

	if (isnan(f))
		return 0x7f;
	if (a < 0x1p-6f) /* multiples of 2^-9; eight of them carry into the exponent */
		return (uint8_t)(sign | (int)rintf(a * 0x1p9f));
	(void)frexpf(a, &exp); /* a = m 2^exp, m in [1/2, 1): 8 to 16 steps of 2^(exp - 4) */
	return (uint8_t)(sign | (((exp + 6) << 3) + (int)rintf(ldexpf(a, 4 - exp)) - 8));
}

#endif
