/* SPDX-License-Identifier: Apache-2.0 */
/* vec_mask.h - what a query of an attention tile must not see; included where QUERIES is defined */
#ifndef QP_VEC_MASK_H
#define QP_VEC_MASK_H

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

#endif
