/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vec_hadamard.h - n values in vectors of m = 2^l times Sylvester's matrix, and products with other
 * matrices of +-1; included by vec_kernels.h
 *
 * Distances below a register's length in one pass over memory, then two distances a pass.  Every
 * sum is of the same two numbers whatever the vector length, so all sets give the same bits.
 */

typedef int32_t vl __attribute__((vector_size(VEC_FLOATS * 4)));

/* Lanes i and i ^ half change places.  Named a lane at a time, gcc 12 moves them one by one. */
static inline __attribute__((always_inline)) vf exchange(vf x, vl lanes, const int half)
{
#ifdef __clang__
	vf y;

	(void)lanes;
	for (int i = 0; i < VEC_FLOATS; i++)
		y[i] = x[i ^ half];
	return y;
#else
	return __builtin_shuffle(x, lanes ^ half);
#endif
}

/* A lane and its partner: their sum, in the upper one what the lower has more than it. */
static inline __attribute__((always_inline)) vf butterfly(vf x, vl lanes, const int half)
{
	const vl upper = (lanes & half) != 0;

	return exchange(x, lanes, half) + (vf)((vl)x ^ (upper & INT32_MIN));
}

/* x times scale, then butterflies of distances 1 ... VEC_FLOATS / 2. */
static void short_butterflies(float *x, size_t n, float scale)
{
	const int32_t number[16] = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 };
	vl lanes;

	memcpy(&lanes, number, sizeof(lanes));
	for (size_t i = 0; i < n; i += VEC_FLOATS) {
		vf v = *(const vu *)(x + i) * splat(scale);

		v = butterfly(v, lanes, 1);
		v = butterfly(v, lanes, 2);
		if (VEC_FLOATS > 4)
			v = butterfly(v, lanes, 4);
		if (VEC_FLOATS > 8)
			v = butterfly(v, lanes, 8);
		*(vu *)(x + i) = v;
	}
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
		short_butterflies(x, n, scale);
		for (half = VEC_FLOATS; 4 * half <= m; half *= 4)
			butterflies4(x, n, half);
	}
	for (; half < m; half *= 2)
		butterflies2(x, n, half);
}

/*
 * Products with K of +-1: of four rows all 16 sums with signs are made once, and each column of K
 * adds one of them.  That is a quarter of the additions, as the "four Russians" have it
 * (Arlazarov, Dinic, Kronrod, Faradzev, Soviet Math. Doklady 11, 1970).
 */
#define SUMS   16 /* of a group of four rows */
#define GROUPS 8  /* whose sums stay in the first cache: 8 KiB */

static inline __attribute__((always_inline)) void signed_sums(vf *t, vf a, vf b,
								  vf c, vf d)
{
	const vf sum = a + b, less = a - b;
	const vf low[4] = { sum, -less, less, -sum };
	const vf more = c + d, fewer = c - d;
	const vf high[4] = { more, -fewer, fewer, -more };

	for (int i = 0; i < SUMS; i++)
		t[i] = low[i & 3] + high[i >> 2];
}

static inline __attribute__((always_inline)) void add_sums(vf *y, const vf *t,
							   const uint8_t *signs, size_t k,
							   const size_t groups)
{
	for (size_t j = 0; j < k; j++) {
		vf sum = y[j];

		for (size_t g = 0; g < groups; g++)
			sum += t[g * SUMS + signs[g * k + j]];
		y[j] = sum;
	}
}

/* n values, a register's at most. */
static inline __attribute__((always_inline)) vf take(const float *x, size_t n)
{
	vf v = { 0 };

	if (n == VEC_FLOATS)
		return *(const vu *)x;
	memcpy(&v, x, n * sizeof(*x));
	return v;
}

static inline __attribute__((always_inline)) void put(float *x, vf v, size_t n)
{
	if (n == VEC_FLOATS)
		*(vu *)x = v;
	else
		memcpy(x, &v, n * sizeof(*x));
}

static void signs(float *x, size_t m, const uint8_t *sign, size_t k, float *work)
{
	vf *t = (vf *)(void *)work, *y = t + GROUPS * SUMS;

	for (size_t c = 0; c < m; c += VEC_FLOATS) {
		const size_t n = m - c < VEC_FLOATS ? m - c : VEC_FLOATS;

		memset(y, 0, k * sizeof(*y));
		for (size_t g = 0; g < k / 4; g += GROUPS) {
			const size_t groups = k / 4 - g < GROUPS ? k / 4 - g : GROUPS;

			for (size_t i = 0; i < groups; i++) {
				const float *from = x + 4 * (g + i) * m + c;

				signed_sums(t + i * SUMS, take(from, n), take(from + m, n),
					    take(from + 2 * m, n), take(from + 3 * m, n));
			}
			if (groups == GROUPS)
				add_sums(y, t, sign + g * k, k, GROUPS);
			else
				add_sums(y, t, sign + g * k, k, groups);
		}
		for (size_t j = 0; j < k; j++)
			put(x + j * m + c, y[j], n);
	}
}
