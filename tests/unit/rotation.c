/* SPDX-License-Identifier: Apache-2.0 */
/* rotation.c - orthogonality of every kind, the mean that is kept, products against the matrix */
#include <stdlib.h>

#include "lib/base/pool.h"
#include "lib/data/rng.h"
#include "lib/method/rotation.h"
#include "tests/unit/tap.h"

static double uniform(struct rng *g)
{
	return (double)rng_below(g, 2000001) / 1e6 - 1;
}

/* The matrix itself: what becomes of the unit vectors. */
static double *matrix_of(const struct rotation *r, struct pool *pool)
{
	const size_t n = rotation_order(r);
	double *m = calloc(n * n, sizeof(*m));
	struct err e;

	for (size_t i = 0; i < n; i++)
		m[i * n + i] = 1;
	ok(rotation_rows(r, m, n, n, pool, &e) == 0, "rows of the unit matrix of order %zu", n);
	return m;
}

static double off_orthogonal(const double *m, size_t n)
{
	double worst = 0;

	for (size_t i = 0; i < n; i++)
		for (size_t j = 0; j < n; j++) {
			double d = -(double)(i == j);

			for (size_t c = 0; c < n; c++)
				d += m[i * n + c] * m[j * n + c];
			worst = fmax(worst, fabs(d));
		}
	return worst;
}

static double off_mean(const double *m, size_t n)
{
	double worst = 0;

	for (size_t j = 0; j < n; j++) {
		double sum = -1;

		for (size_t i = 0; i < n; i++)
			sum += m[i * n + j];
		worst = fmax(worst, fabs(sum));
	}
	return worst;
}

/* Rows times I (x) m and (I (x) m)' times columns, against plain sums. */
static void products(const struct rotation *r, const double *m, struct pool *pool)
{
	const size_t n = rotation_order(r), wide = 3 * n, other = 37;
	double *x = malloc(3 * wide * other * sizeof(*x)), *y = x + wide * other;
	double *t = y + wide * other, worst_rows = 0, worst_cols = 0;
	struct rng g;
	struct err e;

	rng_init(&g, n);
	for (size_t i = 0; i < wide * other; i++)
		x[i] = y[i] = uniform(&g);
	for (size_t i = 0; i < wide; i++)
		for (size_t c = 0; c < other; c++)
			t[i * other + c] = x[c * wide + i];
	ok(rotation_rows(r, y, other, wide, pool, &e) == 0 &&
	   rotation_columns(r, t, wide, other, pool, &e) == 0, "products of order %zu", n);
	for (size_t c = 0; c < other; c++)
		for (size_t j = 0; j < wide; j++) {
			const double *block = x + c * wide + j / n * n;
			double want = 0;

			for (size_t i = 0; i < n; i++)
				want += block[i] * m[i * n + j % n];
			worst_rows = fmax(worst_rows, fabs(y[c * wide + j] - want));
			worst_cols = fmax(worst_cols, fabs(t[j * other + c] - want));
		}
	ok_near(worst_rows, 0, 1e-12, "rows times R, order %zu", n);
	ok_near(worst_cols, 0, 1e-12, "R' times columns, order %zu", n);
	free(x);
}

static void one(enum rotation_kind kind, size_t n, bool keep_mean, struct pool *pool)
{
	struct rotation *r, *again, *third, *given;
	double *m, *m2, *m3;
	struct err e;

	if (!ok(rotation_new(&r, kind, n, keep_mean, 5, "x", &e) == 0 &&
		rotation_new(&again, kind, n, keep_mean, 5, "x", &e) == 0 &&
		rotation_new(&third, kind, n, keep_mean, 6, "x", &e) == 0,
		"kind %d of order %zu%s", (int)kind, n, keep_mean ? ", keeping the mean" : ""))
		return;
	m = matrix_of(r, pool);
	m2 = matrix_of(again, pool);
	m3 = matrix_of(third, pool);
	ok_near(off_orthogonal(m, n), 0, 1e-12, "it is orthogonal");
	if (keep_mean)
		ok_near(off_mean(m, n), 0, 1e-11, "ones stay ones");
	ok(memcmp(m, m2, n * n * sizeof(*m)) == 0, "the same seed gives the same matrix");
	ok((memcmp(m, m3, n * n * sizeof(*m)) != 0) == (kind != ROTATION_HADAMARD || keep_mean),
	   "another seed another one, if there is anything random");
	products(r, m, pool);
	ok(rotation_given(&given, m, n, keep_mean, "R1", &e) == 0, "it can be given");
	products(given, m, pool);
	m[1] += 0.01;
	rotation_free(given);
	ok(rotation_given(&given, m, n, keep_mean, "R1", &e) < 0 && e.cls == ERR_DATA &&
	   strstr(e.what, "not orthogonal"), "one that is not orthogonal is refused: %s", e.what);
	rotation_free(r);
	rotation_free(again);
	rotation_free(third);
	free(m);
	free(m2);
	free(m3);
}

int main(void)
{
	static const size_t orders[] = { 4, 12, 64, 76, 96 };
	struct rotation *r;
	double swap[4] = { 0, -1, 1, 0 };
	struct pool *pool;
	struct err e;

	pool = pool_new(2, &e);
	for (int kind = ROTATION_HADAMARD; kind <= ROTATION_ORTHOGONAL; kind++)
		for (size_t i = 0; i < sizeof(orders) / sizeof(orders[0]); i++)
			for (int mean = 0; mean < 2; mean++)
				one((enum rotation_kind)kind, orders[i], mean, pool);
	ok(rotation_new(&r, ROTATION_HADAMARD, 33, false, 0, "head", &e) < 0 &&
	   e.cls == ERR_DATA, "no Hadamard matrix of order 33: %s", e.what);
	ok(rotation_new(&r, ROTATION_ORTHOGONAL, 33, true, 0, "head", &e) == 0,
	   "but an orthogonal one");
	rotation_free(r);
	ok(rotation_given(&r, swap, 2, true, "R1", &e) < 0 && strstr(e.what, "sums to"),
	   "a matrix that moves the mean is refused where it must stay: %s", e.what);
	pool_free(pool);
	return done();
}
