/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ggml.c - ggml's tensor types
 */
#include "formats/ggml.h"

#include <stdbool.h>

#include "lib/base/clones.h"

/* A half, little-endian. */
static float half(const unsigned char *p)
{
	return f16_to_f32((uint16_t)(p[0] | p[1] << 8));
}

static uint32_t word(const unsigned char *p)
{
	return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

CLONES static void q4_0(float *restrict y, const unsigned char *restrict x, size_t n)
{
	for (; n--; x += 18, y += 32) {
		float d = half(x);

		for (int j = 0; j < 16; j++) {
			y[j] = (float)((x[2 + j] & 15) - 8) * d;
			y[j + 16] = (float)((x[2 + j] >> 4) - 8) * d;
		}
	}
}

CLONES static void q4_1(float *restrict y, const unsigned char *restrict x, size_t n)
{
	for (; n--; x += 20, y += 32) {
		float d = half(x), m = half(x + 2);

		for (int j = 0; j < 16; j++) {
			y[j] = (float)(x[4 + j] & 15) * d + m;
			y[j + 16] = (float)(x[4 + j] >> 4) * d + m;
		}
	}
}

/* The fifth bits: of weight j bit j. */
static int fifth(uint32_t high, int j)
{
	return (int)(high >> j & 1) << 4;
}

CLONES static void q5_0(float *restrict y, const unsigned char *restrict x, size_t n)
{
	for (; n--; x += 22, y += 32) {
		float d = half(x);
		uint32_t high = word(x + 2);

		for (int j = 0; j < 16; j++) {
			y[j] = (float)(((x[6 + j] & 15) | fifth(high, j)) - 16) * d;
			y[j + 16] = (float)((x[6 + j] >> 4 | fifth(high, j + 16)) - 16) * d;
		}
	}
}

CLONES static void q5_1(float *restrict y, const unsigned char *restrict x, size_t n)
{
	for (; n--; x += 24, y += 32) {
		float d = half(x), m = half(x + 2);
		uint32_t high = word(x + 4);

		for (int j = 0; j < 16; j++) {
			y[j] = (float)((x[8 + j] & 15) | fifth(high, j)) * d + m;
			y[j + 16] = (float)(x[8 + j] >> 4 | fifth(high, j + 16)) * d + m;
		}
	}
}

CLONES static void q8_0(float *restrict y, const unsigned char *restrict x, size_t n)
{
	for (; n--; x += 34, y += 32) {
		float d = half(x);

		for (int j = 0; j < 32; j++)
			y[j] = (float)(int8_t)x[2 + j] * d;
	}
}

/* 16 bytes of scale (low nibble) and minimum, 64 of weights, d, dmin.  Each half of the weights
 * lies in 32 bytes, two bits at a time: bits 0-1 are its first 32 weights. */
static void q2_k(float *y, const unsigned char *x, size_t n)
{
	for (; n--; x += 84) {
		float d = half(x + 80), dmin = half(x + 82);

		for (int g = 0; g < 16; g++) { /* groups of 16 weights */
			const unsigned char *q = x + 16 + g / 8 * 32 + g % 2 * 16;
			float scale = d * (float)(x[g] & 15), min = dmin * (float)(x[g] >> 4);
			int shift = g % 8 / 2 * 2;

			for (int j = 0; j < 16; j++)
				*y++ = scale * (float)(q[j] >> shift & 3) - min;
		}
	}
}

/* 32 bytes of third bits, 64 of weights as in Q2_K, 12 of scales, d. */
static void q3_k(float *y, const unsigned char *x, size_t n)
{
	for (; n--; x += 110) {
		const unsigned char *s = x + 96;
		float d = half(x + 108);

		for (int g = 0; g < 16; g++) {
			const unsigned char *q = x + 32 + g / 8 * 32 + g % 2 * 16;
			const unsigned char *high = x + g % 2 * 16;
			int low = g < 8 ? s[g] & 15 : s[g - 8] >> 4;
			int top = s[8 + g % 4] >> g / 4 * 2 & 3;
			float scale = d * (float)((low | top << 4) - 32);
			int shift = g % 8 / 2 * 2;

			for (int j = 0; j < 16; j++)
				*y++ = scale * (float)((q[j] >> shift & 3) -
						       (high[j] >> g / 2 & 1 ? 0 : 4));
		}
	}
}

/* The j-th pair of 6-bit scale and minimum in the 12 bytes of Q4_K and Q5_K. */
static void pair(const unsigned char *s, int j, int *scale, int *min)
{
	if (j < 4) {
		*scale = s[j] & 63;
		*min = s[j + 4] & 63;
	} else {
		*scale = (s[j + 4] & 15) | s[j - 4] >> 6 << 4;
		*min = s[j + 4] >> 4 | s[j] >> 6 << 4;
	}
}

/* d, dmin, 12 bytes of scales, 128 of weights: of 64, low nibbles are the first 32.  Q5_K has 32
 * bytes of fifth bits before them, a bit for each group of 32. */
static void q45_k(float *y, const unsigned char *x, size_t n, bool five)
{
	for (; n--; x += five ? 176 : 144) {
		float d = half(x), dmin = half(x + 2);

		for (int g = 0; g < 8; g++) {
			const unsigned char *q = x + (five ? 48 : 16) + g / 2 * 32;
			int s, m;

			pair(x + 4, g, &s, &m);
			float scale = d * (float)s, min = dmin * (float)m;

			for (int j = 0; j < 32; j++) {
				int v = q[j] >> g % 2 * 4 & 15;

				if (five)
					v |= (x[16 + j] >> g & 1) << 4;
				*y++ = scale * (float)v - min;
			}
		}
	}
}

static void q4_k(float *y, const unsigned char *x, size_t n)
{
	q45_k(y, x, n, false);
}

static void q5_k(float *y, const unsigned char *x, size_t n)
{
	q45_k(y, x, n, true);
}

/* 128 bytes of low nibbles, 64 of fifth and sixth bits, 16 signed scales, d; in halves of 128
 * weights: 64 bytes give nibbles of weights 0-63, then 64-127, 32 bytes the bits above. */
static void q6_k(float *y, const unsigned char *x, size_t n)
{
	for (; n--; x += 210) {
		float d = half(x + 208);

		for (int g = 0; g < 8; g++) { /* groups of 32 weights */
			const unsigned char *low = x + g / 4 * 64 + g % 2 * 32;
			const unsigned char *high = x + 128 + g / 4 * 32;

			for (int j = 0; j < 32; j++) {
				float scale = d * (float)(int8_t)x[192 + 2 * g + j / 16];
				int v = (low[j] >> g % 4 / 2 * 4 & 15) |
					(high[j] >> g % 4 * 2 & 3) << 4;

				*y++ = scale * (float)(v - 32);
			}
		}
	}
}

/* Numbers that are not here were removed, or never given. */
static const struct ggml_type types[] = {
	[0] = { "F32", 1, 4, DT_F32, NULL },
	[1] = { "F16", 1, 2, DT_F16, NULL },
	[2] = { "Q4_0", 32, 18, DT_F32, q4_0 },
	[3] = { "Q4_1", 32, 20, DT_F32, q4_1 },
	[6] = { "Q5_0", 32, 22, DT_F32, q5_0 },
	[7] = { "Q5_1", 32, 24, DT_F32, q5_1 },
	[8] = { "Q8_0", 32, 34, DT_F32, q8_0 },
	[9] = { "Q8_1", 32, 36, DT_NONE, NULL },
	[10] = { "Q2_K", 256, 84, DT_F32, q2_k },
	[11] = { "Q3_K", 256, 110, DT_F32, q3_k },
	[12] = { "Q4_K", 256, 144, DT_F32, q4_k },
	[13] = { "Q5_K", 256, 176, DT_F32, q5_k },
	[14] = { "Q6_K", 256, 210, DT_F32, q6_k },
	[15] = { "Q8_K", 256, 292, DT_NONE, NULL },
	[16] = { "IQ2_XXS", 256, 66, DT_NONE, NULL },
	[17] = { "IQ2_XS", 256, 74, DT_NONE, NULL },
	[18] = { "IQ3_XXS", 256, 98, DT_NONE, NULL },
	[19] = { "IQ1_S", 256, 50, DT_NONE, NULL },
	[20] = { "IQ4_NL", 32, 18, DT_NONE, NULL },
	[21] = { "IQ3_S", 256, 110, DT_NONE, NULL },
	[22] = { "IQ2_S", 256, 82, DT_NONE, NULL },
	[23] = { "IQ4_XS", 256, 136, DT_NONE, NULL },
	[24] = { "I8", 1, 1, DT_NONE, NULL },
	[25] = { "I16", 1, 2, DT_NONE, NULL },
	[26] = { "I32", 1, 4, DT_NONE, NULL },
	[27] = { "I64", 1, 8, DT_NONE, NULL },
	[28] = { "F64", 1, 8, DT_NONE, NULL },
	[29] = { "IQ1_M", 256, 56, DT_NONE, NULL },
	[30] = { "BF16", 1, 2, DT_BF16, NULL },
	[34] = { "TQ1_0", 256, 54, DT_NONE, NULL },
	[35] = { "TQ2_0", 256, 66, DT_NONE, NULL },
	[39] = { "MXFP4", 32, 17, DT_NONE, NULL },
	[40] = { "NVFP4", 64, 36, DT_NONE, NULL },
	[41] = { "Q1_0", 128, 18, DT_NONE, NULL },
};

const struct ggml_type *ggml_type(uint32_t number)
{
	return number < sizeof(types) / sizeof(types[0]) && types[number].name ?
	       &types[number] : NULL;
}
