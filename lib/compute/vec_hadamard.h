/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vec_hadamard.h - n values in vectors of m = 2^l times Sylvester's matrix; included by
 * vec_kernels.h
 *
 * Distances below a register's length in one pass over memory, then two distances a pass.  Every
 * sum is of the same two numbers whatever the vector length, so all sets give the same bits.
 */

/* x times scale, then butterflies of distances 1 ... VEC_FLOATS / 2. */
static inline vf short_butterflies(vf x, float scale)
{
	x *= splat(scale);
#pragma GCC unroll 8
	for (int half = 1; half < VEC_FLOATS; half *= 2) {
		vf other, sign;

#pragma GCC unroll 16
		for (int i = 0; i < VEC_FLOATS; i++) {
			other[i] = x[i ^ half];
			sign[i] = i & half ? -1.0f : 1.0f;
		}
		x = other + sign * x;
	}
	return x;
}

/* Distances half and 2 half. */
static void butterflies4(float *x, size_t n, size_t half)
{
	for (size_t i = 0; i < n; i += 4 * half)
		for (size_t j = i; j < i + half; j += VEC_FLOATS) {
			vu *p = (vu *)(x + j), *q = (vu *)(x + j + half);
			vu *r = (vu *)(x + j + 2 * half), *s = (vu *)(x + j + 3 * half);
			vf a = *p + *q, b = *p - *q, c = *r + *s, d = *r - *s;

			*p = a + c;
			*q = b + d;
			*r = a - c;
			*s = b - d;
		}
}

static void butterflies2(float *x, size_t n, size_t half)
{
	for (size_t i = 0; i < n; i += 2 * half)
		for (size_t j = i; j < i + half; j++) {
			float a = x[j], b = x[j + half];

			x[j] = a + b;
			x[j + half] = a - b;
		}
}

static void sylvester(float *x, size_t m, size_t n, float scale)
{
	size_t half = 1;

	if (m < VEC_FLOATS) {
		for (size_t i = 0; i < n; i++)
			x[i] *= scale;
	} else {
		for (size_t i = 0; i < n; i += VEC_FLOATS)
			*(vu *)(x + i) = short_butterflies(*(const vu *)(x + i), scale);
		for (half = VEC_FLOATS; 4 * half <= m; half *= 4)
			butterflies4(x, n, half);
	}
	for (; half < m; half *= 2)
		butterflies2(x, n, half);
}
