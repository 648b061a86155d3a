/* SPDX-License-Identifier: Apache-2.0 */
/* hadamard.c - H H' = n I of every order that models need; the fast product against the matrix */
#include <stdlib.h>

#include "lib/compute/backend.h"
#include "lib/compute/hadamard.h"
#include "lib/data/rng.h"
#include "tests/unit/tap.h"

static bool orthogonal(const struct hadamard *h, size_t n)
{
	signed char *m = malloc(n * n);
	bool good = m != NULL;

	for (size_t i = 0; good && i < n * n; i++)
		m[i] = (signed char)hadamard_entry(h, i / n, i % n);
	for (size_t i = 0; good && i < n; i++)
		for (size_t j = i; good && j < n; j++) {
			long dot = 0;

			for (size_t c = 0; c < n; c++)
				dot += m[i * n + c] * m[j * n + c];
			good = dot == (i == j ? (long)n : 0);
		}
	free(m);
	return good;
}

static double deviation(struct backend *b, const struct hadamard *h, size_t n, bool transposed)
{
	double *x = malloc(4 * n * sizeof(*x)), *y = x + n, *work = y + n, worst = 0;
	float *f = malloc(n * sizeof(*f));
	struct rng r;
	struct err e;

	rng_init(&r, n);
	for (size_t i = 0; i < n; i++)
		f[i] = (float)(x[i] = y[i] = (double)rng_below(&r, 2001) / 1000 - 1);
	hadamard_f64(h, y, transposed, work);
	if (!transposed && b->ops->hadamard(b, f, n, h, &e) < 0)
		worst = INFINITY;
	for (size_t j = 0; j < n; j++) {
		double want = 0;

		for (size_t i = 0; i < n; i++)
			want += x[i] * (transposed ? hadamard_entry(h, j, i) :
						     hadamard_entry(h, i, j));
		want /= sqrt((double)n);
		worst = fmax(worst, fabs(y[j] - want));
		if (!transposed) /* 1e-4 of F32 is 1e-12 here */
			worst = fmax(worst, fabs(f[j] - want) * 1e-8);
	}
	free(f);
	free(x);
	return worst;
}

int main(void)
{
	static const size_t orders[] = { 1, 2, 4, 8, 12, 16, 20, 24, 28, 36, 40, 44, 48, 52, 56, 60,
		64, 68, 72, 76, 80, 84, 88, 92, 96, 100, 104, 108, 112, 116, 120, 128, 140, 148,
		152, 156, 172, 244, 344, 576, 768, 896, 1408, 1536, 4864, 5632 };
	static const size_t unknown[] = { 0, 3, 6, 7, 33, 66, 188, 1u << 20 };
	struct hadamard *h;
	struct backend b;
	struct err e;

	if (!ok(backend_open(&b, "cpu", 2, &e) == 0, "a backend"))
		return done();
	for (size_t i = 0; i < sizeof(orders) / sizeof(orders[0]); i++) {
		const size_t n = orders[i];
		bool ones = true;

		if (!ok(hadamard_known(n) && hadamard_new(&h, n, &e) == 0, "order %zu is known", n))
			continue;
		for (size_t c = 0; c < n; c++)
			ones &= hadamard_entry(h, 0, c) == 1;
		ok(ones, "the first row of order %zu (%s) is all ones", n, hadamard_name(h));
		if (n <= 600)
			ok(orthogonal(h, n), "H H' = %zu I", n);
		ok_near(deviation(&b, h, n, false), 0, 1e-12, "x H of order %zu", n);
		ok_near(deviation(&b, h, n, true), 0, 1e-12, "x H' of order %zu", n);
		hadamard_free(h);
	}
	backend_close(&b);
	for (size_t i = 0; i < sizeof(unknown) / sizeof(unknown[0]); i++)
		ok(!hadamard_known(unknown[i]) && hadamard_new(&h, unknown[i], &e) < 0 &&
		   e.cls == ERR_DATA, "order %zu is refused: %s", unknown[i], e.what);
	return done();
}
