/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vec_f64.h - products of f64 tiles and the smallest factor of all; included by vec_kernels.h
 *
 * As vec_product.h: B is a panel of F64_PANEL columns, A is read where it lies, a number at a time
 * for all lanes, and ROWS x F64_PANEL sums stay in registers (AVX-512: 24 of 32).  Sums run over k
 * upwards whatever the vector length, so AVX2 and AVX-512 give the same bits; the baseline has no
 * fused multiply-add and differs by it.  The factor is not contracted: there all agree.
 */
#define F64_ROWS  6
#define F64_LANES (VEC_FLOATS / 2)

typedef double vd __attribute__((vector_size(VEC_FLOATS * 4)));
typedef double vdu __attribute__((vector_size(VEC_FLOATS * 4), aligned(8), may_alias));

/* Rows i < mr of C, mr constant where this is inlined. */
static inline __attribute__((always_inline)) void f64_rows(const int mr, size_t k, const double *a,
							   size_t lda, const double *b, size_t ldb,
							   double *c, size_t ldc, int sub)
{
	for (int g = 0; g < F64_PANEL; g += F64_LANES * VEC_WIDE) {
		vd acc[F64_ROWS][VEC_WIDE];
		const double *ap = a, *bp = b + g;

		for (int i = 0; i < mr; i++)
			for (int j = 0; j < VEC_WIDE; j++)
				acc[i][j] = (vd){ 0 };
		for (size_t l = 0; l < k; l++, ap++, bp += ldb)
			for (int i = 0; i < mr; i++) {
				vd x = ap[(size_t)i * lda] - (vd){ 0 };

				for (int j = 0; j < VEC_WIDE; j++)
					acc[i][j] = VEC_FMAD(x, ((const vdu *)bp)[j], acc[i][j]);
			}
		for (int i = 0; i < mr; i++)
			for (int j = 0; j < VEC_WIDE; j++) {
				vdu *y = (vdu *)(c + (size_t)i * ldc + g) + j;

				*y = sub ? (vd)*y - acc[i][j] : acc[i][j];
			}
	}
}

/* All F64_PANEL columns of C. */
static void f64_panel(double *c, size_t ldc, const double *a, size_t lda, size_t m, const double *b,
		      size_t ldb, size_t k, int sub)
{
	for (; m >= F64_ROWS; m -= F64_ROWS, a += F64_ROWS * lda, c += F64_ROWS * ldc)
		f64_rows(F64_ROWS, k, a, lda, b, ldb, c, ldc, sub);
	switch (m) {
	case 5:
		f64_rows(5, k, a, lda, b, ldb, c, ldc, sub);
		break;
	case 4:
		f64_rows(4, k, a, lda, b, ldb, c, ldc, sub);
		break;
	case 3:
		f64_rows(3, k, a, lda, b, ldb, c, ldc, sub);
		break;
	case 2:
		f64_rows(2, k, a, lda, b, ldb, c, ldc, sub);
		break;
	case 1:
		f64_rows(1, k, a, lda, b, ldb, c, ldc, sub);
		break;
	}
}

static void product64(double *c, size_t ldc, const double *a, size_t lda, size_t m, const double *b,
		      size_t ldb, size_t n, size_t k, int sub)
{
	double t[F64_ROWS * F64_PANEL];

	if (n == F64_PANEL) {
		f64_panel(c, ldc, a, lda, m, b, ldb, k, sub);
		return;
	}
	for (size_t i = 0; i < m; i += F64_ROWS) {
		size_t rows = m - i < F64_ROWS ? m - i : F64_ROWS;

		f64_panel(t, F64_PANEL, a + i * lda, lda, rows, b, ldb, k, 0);
		for (size_t r = 0; r < rows; r++)
			for (size_t j = 0; j < n; j++) {
				double *v = c + (i + r) * ldc + j, x = t[r * F64_PANEL + j];

				*v = sub ? *v - x : x;
			}
	}
}

static void turn64(double *y, const double *x, size_t ldx, size_t n, size_t k)
{
	typedef double v4 __attribute__((vector_size(32), aligned(8), may_alias));
	size_t i = 0, l;

	for (; i + 4 <= n; i += 4, x += 4 * ldx, y += 4) {
		for (l = 0; l + 4 <= k; l += 4) {
			v4 a = *(const v4 *)(x + l), b = *(const v4 *)(x + ldx + l);
			v4 c = *(const v4 *)(x + 2 * ldx + l), d = *(const v4 *)(x + 3 * ldx + l);
			v4 ab = __builtin_shufflevector(a, b, 0, 4, 2, 6);
			v4 ba = __builtin_shufflevector(a, b, 1, 5, 3, 7);
			v4 cd = __builtin_shufflevector(c, d, 0, 4, 2, 6);
			v4 dc = __builtin_shufflevector(c, d, 1, 5, 3, 7);

			*(v4 *)(y + l * F64_PANEL) = __builtin_shufflevector(ab, cd, 0, 1, 4, 5);
			*(v4 *)(y + (l + 1) * F64_PANEL) =
				__builtin_shufflevector(ba, dc, 0, 1, 4, 5);
			*(v4 *)(y + (l + 2) * F64_PANEL) =
				__builtin_shufflevector(ab, cd, 2, 3, 6, 7);
			*(v4 *)(y + (l + 3) * F64_PANEL) =
				__builtin_shufflevector(ba, dc, 2, 3, 6, 7);
		}
		for (; l < k; l++)
			for (size_t r = 0; r < 4; r++)
				y[l * F64_PANEL + r] = x[r * ldx + l];
	}
	for (; i < n; i++, x += ldx, y++)
		for (l = 0; l < k; l++)
			y[l * F64_PANEL] = x[l];
	for (; i < F64_PANEL; i++, y++)
		for (l = 0; l < k; l++)
			y[l * F64_PANEL] = 0.0;
}

/* Rows of n <= F64_PANEL values, all of the same length, so that the loops over them unroll; what
 * lies below the diagonal is computed too, and is not looked at. */
static int factor64(double *h, size_t ld, size_t n, const double *was, double slack)
{
	double r[F64_PANEL][F64_PANEL] = { { 0 } }, u[F64_PANEL][F64_PANEL] = { { 0 } };
	double v[F64_PANEL], d[F64_PANEL];

	for (size_t i = 0; i < n; i++)
		memcpy(r[i] + i, h + i * ld + i, (n - i) * sizeof(double));
	for (size_t c = n; c-- > 0;) {
		double p = r[c][c];

		if (!(p > slack * was[c]) || !(p > 0.0) || !(p < INFINITY))
			return -1;
		d[c] = sqrt(p);
		for (size_t l = 0; l < F64_PANEL; l++)
			v[l] = l < c ? r[l][c] / d[c] : 0.0;
		for (size_t i = 0; i < c; i++) {
			double x = v[i];

			for (size_t l = 0; l < F64_PANEL; l++)
				r[i][l] -= x * v[l];
			r[i][c] = x;
		}
	}
	for (size_t i = n; i-- > 0;) {
		u[i][i] = 1.0;
		for (size_t l = i + 1; l < n; l++) {
			double x = r[i][l];

			for (size_t j = 0; j < F64_PANEL; j++)
				u[i][j] -= x * u[l][j];
		}
		for (size_t j = 0; j < F64_PANEL; j++)
			u[i][j] /= d[i];
	}
	for (size_t i = 0; i < n; i++)
		for (size_t l = 0; l < n; l++)
			h[i * ld + l] = u[l][i];
	return 0;
}
