/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pivots.c - Cholesky with pivots (pivots.h)
 */
#include "lib/method/pivots.h"

#include <math.h>

static void swap(double *a, double *b)
{
	const double v = *a;

	*a = *b;
	*b = v;
}

/* In four sums, for speed. */
static double dot(const double *a, const double *b, size_t n)
{
	double s[4] = { 0 };
	size_t i = 0;

	for (; i + 4 <= n; i += 4)
		for (size_t j = 0; j < 4; j++)
			s[j] += a[i + j] * b[i + j];
	for (; i < n; i++)
		s[0] += a[i] * b[i];
	return s[0] + s[1] + (s[2] + s[3]);
}

/* Left-looking by rows, so that inner loops run along memory. */
size_t pivoted_cholesky(double *a, size_t d, double least, size_t *perm, double *rest)
{
	for (size_t i = 0; i < d; i++) {
		perm[i] = i;
		rest[i] = a[i * d + i];
	}
	for (size_t k = 0; k < d; k++) {
		size_t best = k;

		for (size_t i = k + 1; i < d; i++)
			if (rest[i] > rest[best])
				best = i;
		if (!(rest[best] > least))
			return k;
		if (best != k) {
			const size_t p = perm[k];

			for (size_t j = 0; j < d; j++)
				swap(&a[k * d + j], &a[best * d + j]);
			for (size_t j = 0; j < d; j++)
				swap(&a[j * d + k], &a[j * d + best]);
			perm[k] = perm[best];
			perm[best] = p;
			swap(&rest[k], &rest[best]);
		}
		a[k * d + k] = sqrt(rest[k]);
		for (size_t i = k + 1; i < d; i++) {
			const double v = a[i * d + k] - dot(a + i * d, a + k * d, k);

			a[i * d + k] = v / a[k * d + k];
			rest[i] -= a[i * d + k] * a[i * d + k];
		}
	}
	return d;
}
