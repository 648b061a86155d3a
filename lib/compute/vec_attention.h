/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vec_attention.h - one tile of queries of one head; included by vec_kernels.h
 *
 * Scores are kept transposed, a row a key and a lane a query.  Then both products have the
 * form C[m][QUERIES] += A[m][k] B[k][QUERIES] with A read where it lies, a number at a time for all
 * lanes, and the softmax needs no sum or maximum across lanes.  Keys come in blocks of KEYS;
 * the running maximum and sum of each query make it one softmax in the end (Milakov and
 * Gimelshein, arXiv:1805.02867).  Sums run over k upwards whatever the vector length, so AVX2
 * and AVX-512 give the same bits; the baseline has no fused multiply-add and differs by it.
 */
#define QUERIES VEC_QUERIES
#define KEYS    VEC_KEYS
#define ROWS    6

typedef float vf __attribute__((vector_size(VEC_FLOATS * 4)));

static inline vf splat(float x)
{
	return x - (vf){ 0 };
}

/* Rows i < mr of C, mr constant where this is inlined. */
static inline __attribute__((always_inline)) void product_rows(const int mr, size_t k,
							       const float *a, size_t rs, size_t cs,
							       const float *b, float *c, int add)
{
	for (int g = 0; g < QUERIES; g += VEC_FLOATS * VEC_WIDE) {
		vf acc[ROWS][VEC_WIDE];
		const float *ap = a, *bp = b + g;

		for (int i = 0; i < mr; i++)
			for (int j = 0; j < VEC_WIDE; j++)
				acc[i][j] = add ? ((vf *)(c + i * QUERIES + g))[j] : splat(0);
		for (size_t l = 0; l < k; l++, ap += cs, bp += QUERIES)
			for (int i = 0; i < mr; i++) {
				vf x = splat(ap[(size_t)i * rs]);

				for (int j = 0; j < VEC_WIDE; j++)
					acc[i][j] = VEC_FMA(x, ((const vf *)bp)[j], acc[i][j]);
			}
		for (int i = 0; i < mr; i++)
			for (int j = 0; j < VEC_WIDE; j++)
				((vf *)(c + i * QUERIES + g))[j] = acc[i][j];
	}
}

/* C[m] (+)= A[m, k] B[k]; element (i, l) of A is a[i * rs + l * cs]. */
static void product(size_t m, size_t k, const float *a, size_t rs, size_t cs, const float *b,
		    float *c, int add)
{
	for (; m >= ROWS; m -= ROWS, a += ROWS * rs, c += ROWS * QUERIES)
		product_rows(ROWS, k, a, rs, cs, b, c, add);
	switch (m) {
	case 5:
		product_rows(5, k, a, rs, cs, b, c, add);
		break;
	case 4:
		product_rows(4, k, a, rs, cs, b, c, add);
		break;
	case 3:
		product_rows(3, k, a, rs, cs, b, c, add);
		break;
	case 2:
		product_rows(2, k, a, rs, cs, b, c, add);
		break;
	case 1:
		product_rows(1, k, a, rs, cs, b, c, add);
		break;
	}
}

/* Scores of keys k0 ... k0 + n - 1 that a query must not see become -infinity: of the lanes q,
 * those with q0 + q < key and those with q0 + q >= key + window. */
static void mask(const struct attend *t, float *s, size_t k0, size_t n)
{
	for (size_t key = k0; key < k0 + n; key++, s += QUERIES) {
		size_t below = (t->causal || t->window) && key > t->q0 ? key - t->q0 : 0;
		size_t end = t->window && key + t->window < t->q0 + QUERIES ?
				     key + t->window > t->q0 ? key + t->window - t->q0 : 0 :
				     QUERIES;

		for (size_t q = 0; q < below && q < QUERIES; q++)
			s[q] = -INFINITY;
		for (size_t q = end; q < QUERIES; q++)
			s[q] = -INFINITY;
	}
}

/* Scores to exp(score - maximum), the maximum and the sum carried on, o scaled to the new
 * maximum when there is one. */
static void soften(float *restrict s, size_t n, float *restrict max, float *restrict sum,
		   float *restrict o, size_t d)
{
	float m[QUERIES], by[QUERIES];
	int grown = 0;

	memcpy(m, max, sizeof(m));
	for (size_t j = 0; j < n; j++)
		for (int q = 0; q < QUERIES; q++)
			m[q] = s[j * QUERIES + q] > m[q] ? s[j * QUERIES + q] : m[q];
	for (int q = 0; q < QUERIES; q++)
		grown |= m[q] > max[q];
	if (grown) {
		for (int q = 0; q < QUERIES; q++) {
			by[q] = exp_below_88(max[q] - m[q]);
			sum[q] *= by[q];
			max[q] = m[q];
		}
		for (size_t l = 0; l < d; l++)
			for (int q = 0; q < QUERIES; q++)
				o[l * QUERIES + q] *= by[q];
	}
	for (size_t j = 0; j < n; j++)
		for (int q = 0; q < QUERIES; q++) {
			float p = exp_below_88(s[j * QUERIES + q] - m[q]);

			s[j * QUERIES + q] = p;
			sum[q] += p;
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
				y[j * ldy + l] = x[l * ldx + j];
	}
	for (; i < m; i++, x += ldx, y++)
		for (j = 0; j < n; j++)
			y[j * ldy] = x[j];
}

static void attend(const struct attend *t, float *work)
{
	size_t d = t->d;
	float *restrict qt = work, *restrict o = qt + d * QUERIES, *restrict s = o + d * QUERIES;
	float max[QUERIES], sum[QUERIES];
	size_t k0 = t->window && t->q0 >= t->window ? t->q0 - t->window + 1 : 0;
	size_t k1 = t->causal || t->window ? t->q0 + t->nq : t->seqlen;

	if (t->nq < QUERIES)
		memset(qt, 0, d * QUERIES * sizeof(float));
	transpose(qt, QUERIES, t->q, t->ldq, t->nq, d);
	for (size_t i = 0; i < d * QUERIES; i++) {
		qt[i] *= t->scale;
		o[i] = 0.0f;
	}
	for (int q = 0; q < QUERIES; q++) {
		max[q] = -1e30f; /* not infinite: a query may see nothing in its first block */
		sum[q] = 0.0f;
	}
	for (size_t k = k0; k < k1; k += KEYS) {
		size_t n = k1 - k < KEYS ? k1 - k : KEYS;

		product(n, d, t->k + k * t->ldkv, t->ldkv, 1, qt, s, 0);
		mask(t, s, k, n);
		soften(s, n, max, sum, o, d);
		product(d, n, t->v + k * t->ldkv, 1, t->ldkv, s, o, 1);
	}
	for (int q = 0; q < QUERIES; q++)
		sum[q] = 1.0f / sum[q];
	for (size_t l = 0; l < d; l++)
		for (int q = 0; q < QUERIES; q++)
			o[l * QUERIES + q] *= sum[q];
	transpose(t->o, t->ldo, o, QUERIES, d, t->nq);
}

#undef QUERIES
#undef KEYS
#undef ROWS
