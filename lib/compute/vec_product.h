/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vec_product.h - C [m, 64] (+)= A [m, k] B [k, 64]; included by vec_kernels.h
 *
 * B is a panel: its rows of PANEL values lie one after another.  A is read where it lies, a
 * number at a time for all lanes, so it needs no packing; ROWS x PANEL sums stay in
 * registers (AVX-512: 24 of 32).  On a Zen 4 this runs at the speed of the registers, where
 * OpenBLAS reaches 85-90 % of it.  Sums run over k upwards whatever the vector length, so AVX2
 * and AVX-512 give the same bits; the baseline has no fused multiply-add and differs by it.
 */
#define PANEL VEC_PANEL
#define ROWS  6
#define DEPTH 512 /* at most, of a part of B: 128 KiB, which stay in the second level cache */

typedef float vf __attribute__((vector_size(VEC_FLOATS * 4)));
typedef float vu __attribute__((vector_size(VEC_FLOATS * 4), aligned(4), may_alias)); /* anywhere */

static inline vf splat(float x)
{
	return x - (vf){ 0 };
}

/* Rows i < mr of C, mr constant where this is inlined. */
static inline __attribute__((always_inline)) void product_rows(const int mr, size_t k,
							       const float *a, size_t rs, size_t cs,
							       const float *b, float *c, size_t ldc,
							       int add)
{
	for (int g = 0; g < PANEL; g += VEC_FLOATS * VEC_WIDE) {
		vf acc[ROWS][VEC_WIDE];
		const float *ap = a, *bp = b + g;

		for (int i = 0; i < mr; i++)
			for (int j = 0; j < VEC_WIDE; j++)
				acc[i][j] = splat(0);
		for (size_t l = 0; l < k; l++, ap += cs, bp += PANEL)
			for (int i = 0; i < mr; i++) {
				vf x = splat(ap[(size_t)i * rs]);

				for (int j = 0; j < VEC_WIDE; j++)
					acc[i][j] = VEC_FMA(x, ((const vu *)bp)[j], acc[i][j]);
			}
		for (int i = 0; i < mr; i++)
			for (int j = 0; j < VEC_WIDE; j++) {
				vu *y = (vu *)(c + (size_t)i * ldc + g) + j;

				*y = add ? (vf)*y + acc[i][j] : acc[i][j];
			}
	}
}

/* Element (i, l) of A is a[i * rs + l * cs]. */
static void product(size_t m, size_t k, const float *a, size_t rs, size_t cs, const float *b,
		    float *c, size_t ldc, int add)
{
	for (; m >= ROWS; m -= ROWS, a += ROWS * rs, c += ROWS * ldc) {
		for (size_t i = 0; i < ROWS; i++) /* what is written at the end, and may be far */
			for (size_t j = 0; j < PANEL; j += 16)
				__builtin_prefetch(c + i * ldc + j, 1);
		product_rows(ROWS, k, a, rs, cs, b, c, ldc, add);
	}
	switch (m) {
	case 5:
		product_rows(5, k, a, rs, cs, b, c, ldc, add);
		break;
	case 4:
		product_rows(4, k, a, rs, cs, b, c, ldc, add);
		break;
	case 3:
		product_rows(3, k, a, rs, cs, b, c, ldc, add);
		break;
	case 2:
		product_rows(2, k, a, rs, cs, b, c, ldc, add);
		break;
	case 1:
		product_rows(1, k, a, rs, cs, b, c, ldc, add);
		break;
	}
}

/* The last panel of w has columns that y has not. */
static void product_tail(size_t t, size_t k, const float *x, size_t ldx, const float *w, float *y,
			 size_t ldy, size_t n, int add)
{
	float c[ROWS * PANEL];

	for (size_t i = 0; i < t; i += ROWS) {
		size_t rows = t - i < ROWS ? t - i : ROWS;

		product(rows, k, x + i * ldx, ldx, 1, w, c, PANEL, 0);
		for (size_t r = 0; r < rows; r++)
			for (size_t j = 0; j < n; j++) {
				float *v = y + (i + r) * ldy + j;

				*v = add ? *v + c[r * PANEL + j] : c[r * PANEL + j];
			}
	}
}

static void linear(float *y, size_t ldy, const float *x, size_t ldx, size_t t, const float *w,
		   size_t n, size_t k, int add)
{
	size_t parts = k ? (k + DEPTH - 1) / DEPTH : 1, depth = (k + parts - 1) / parts;

	for (size_t l = 0; parts > 0; l += depth, parts--, add = 1) {
		size_t part = k - l < depth ? k - l : depth;

		for (size_t j = 0; j < n; j += PANEL) {
			const float *b = w + j * k + l * PANEL;

			if (n - j >= PANEL)
				product(t, part, x + l, ldx, 1, b, y + j, ldy, add);
			else
				product_tail(t, part, x + l, ldx, b, y + j, ldy, n - j, add);
		}
	}
}

static void inner(float *y, size_t ldy, const float *a, size_t rows, const float *w, size_t n,
		  size_t k)
{
	size_t parts = k ? (k + DEPTH - 1) / DEPTH : 1, depth = (k + parts - 1) / parts;
	int add = 0;

	for (size_t l = 0; parts > 0; l += depth, parts--, add = 1) {
		size_t part = k - l < depth ? k - l : depth;

		for (size_t j = 0; j < n; j += PANEL)
			product(rows, part, a + l * PANEL, 1, PANEL, w + j * k + l * PANEL, y + j,
				ldy, add);
	}
}

/* y[j * ldy + i] = x[i * ldx + j], i < m, j < n */
static void transpose(float *restrict y, size_t ldy, const float *restrict x, size_t ldx, size_t m,
		      size_t n)
{
	typedef float v4 __attribute__((vector_size(16), aligned(4), may_alias));
	size_t i = 0, j;

	for (; i + 4 <= m; i += 4, x += 4 * ldx, y += 4) {
		for (j = 0; j + 4 <= n; j += 4) {
			v4 a = *(const v4 *)(x + j), b = *(const v4 *)(x + ldx + j);
			v4 c = *(const v4 *)(x + 2 * ldx + j), d = *(const v4 *)(x + 3 * ldx + j);
			v4 ac = __builtin_shufflevector(a, c, 0, 4, 1, 5);
			v4 bd = __builtin_shufflevector(b, d, 0, 4, 1, 5);
			v4 ca = __builtin_shufflevector(a, c, 2, 6, 3, 7);
			v4 db = __builtin_shufflevector(b, d, 2, 6, 3, 7);

			*(v4 *)(y + j * ldy) = __builtin_shufflevector(ac, bd, 0, 4, 1, 5);
			*(v4 *)(y + (j + 1) * ldy) = __builtin_shufflevector(ac, bd, 2, 6, 3, 7);
			*(v4 *)(y + (j + 2) * ldy) = __builtin_shufflevector(ca, db, 0, 4, 1, 5);
			*(v4 *)(y + (j + 3) * ldy) = __builtin_shufflevector(ca, db, 2, 6, 3, 7);
		}
		for (; j < n; j++)
			for (int l = 0; l < 4; l++)
				y[j * ldy + (size_t)l] = x[(size_t)l * ldx + j];
	}
	for (; i < m; i++, x += ldx, y++)
		for (j = 0; j < n; j++)
			y[j * ldy] = x[j];
}

#undef ROWS
#undef DEPTH
