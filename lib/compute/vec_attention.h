/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vec_attention.h - one tile of queries of one head; included by vec_kernels.h
 *
 * Scores are kept transposed, a row a key and a lane a query.  Then both products have the
 * form of vec_product.h with K and V read where they lie, and the softmax needs no sum or maximum
 * across lanes.  Keys come in blocks of KEYS;
 * the running maximum and sum of each query make it one softmax in the end (Milakov and
 * Gimelshein, arXiv:1805.02867).
 */
#define QUERIES VEC_QUERIES
#define KEYS    VEC_KEYS

#include "lib/compute/vec_mask.h"

/* Branches: of the past keys k0 ... those out of a query's window become -infinity; it stands as
 * far behind the past as it stands behind its branch's begin. */
static void mask_past(const struct attend *t, float *s, size_t k0, size_t n)
{
	for (size_t key = k0; key < k0 + n; key++, s += QUERIES)
		for (size_t q = 0; q < t->nq; q++)
			if (t->past - key + (t->q0 + q - t->begin[q]) >= t->window)
				s[q] = -INFINITY;
}

/* Branches: keys of another branch become -infinity. */
static void mask_others(const struct attend *t, float *s, size_t k0, size_t n)
{
	for (size_t key = k0; key < k0 + n; key++, s += QUERIES)
		for (size_t q = 0; q < t->nq; q++)
			if (key < t->begin[q])
				s[q] = -INFINITY;
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

static void attend(const struct attend *t, float *work)
{
	size_t d = t->d;
	float *restrict qt = work, *restrict o = qt + d * QUERIES, *restrict s = o + d * QUERIES;
	float max[QUERIES], sum[QUERIES];
	size_t k0 = t->window && t->q0 >= t->window ? t->q0 - t->window + 1 : 0;
	size_t k1 = t->causal || t->window ? t->q0 + t->nq : t->seqlen;
	size_t p0 = t->window && t->past >= t->window ? t->past - t->window + 1 : 0;

	if (t->begin && t->begin[0] > k0)
		k0 = t->begin[0];
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
	for (size_t k = p0; k < t->past; k += KEYS) {
		size_t n = t->past - k < KEYS ? t->past - k : KEYS;

		product(n, d, t->past_k + k * t->ldkv, t->ldkv, 1, qt, s, QUERIES, 0);
		if (t->window)
			mask_past(t, s, k, n);
		soften(s, n, max, sum, o, d);
		product(d, n, t->past_v + k * t->ldkv, 1, t->ldkv, s, o, QUERIES, 1);
	}
	for (size_t k = k0; k < k1; k += KEYS) {
		size_t n = k1 - k < KEYS ? k1 - k : KEYS;

		product(n, d, t->k + k * t->ldkv, t->ldkv, 1, qt, s, QUERIES, 0);
		mask(t, s, k, n);
		if (t->begin)
			mask_others(t, s, k, n);
		soften(s, n, max, sum, o, d);
		product(d, n, t->v + k * t->ldkv, 1, t->ldkv, s, o, QUERIES, 1);
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
