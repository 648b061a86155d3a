/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hadamard_product.h - x H for one type REAL; hadamard.c includes it for double and float
 *
 * x is k vectors of 2^m: butterflies within each, then sums and differences of whole vectors by the
 * rows of the kernel.
 */

/* Butterflies of distance `half`, in place. */
static void NAME(butterflies)(REAL *x, size_t n, size_t half)
{
	for (size_t i = 0; i < n; i += 2 * half)
		for (size_t j = i; j < i + half; j++) {
			const REAL a = x[j], b = x[j + half];

			x[j] = a + b;
			x[j + half] = a - b;
		}
}

void NAME(hadamard)(const struct hadamard *h, REAL *x, bool transposed, REAL *work)
{
	const size_t k = h->k, m = h->pow2;
	const REAL scale = (REAL)(1 / sqrt((double)h->n));

	for (size_t half = 1; half < m; half *= 2)
		NAME(butterflies)(x, h->n, half);
	if (k == 1) {
		for (size_t i = 0; i < m; i++)
			x[i] *= scale;
		return;
	}
	for (size_t to = 0; to < k; to++) {
		REAL *y = work + to * m;

		memset(y, 0, m * sizeof(*y));
		for (size_t from = 0; from < k; from++) {
			const size_t at = transposed ? to * k + from : from * k + to;
			const REAL sign = h->kernel[at];
			const REAL *v = x + from * m;

			for (size_t i = 0; i < m; i++)
				y[i] += sign * v[i];
		}
	}
	for (size_t i = 0; i < h->n; i++)
		x[i] = scale * work[i];
}
