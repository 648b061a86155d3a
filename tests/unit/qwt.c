/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qwt.c - least squares: what must hold of it
 */
#include <math.h>

#include "lib/base/pool.h"
#include "lib/compute/backend.h"
#include "lib/method/qwt_solve.h"
#include "tests/unit/tap.h"
#include "tests/unit/tiny.h"

enum { N = 500, D = 24 };

static struct err e;
static float x[N * D], y[N * D], z[N * D];
static double w[D * D], bias[D], want[D * D], off[D], up[D * D], down[D * D];

static void sums(struct qwt_sums *s, struct pool *pool)
{
	qwt_sums_zero(s);
	qwt_sums_add(s, pool, x, y, z, 333, false);
	qwt_sums_add(s, pool, x + 333 * D, y + 333 * D, z + 333 * D, N - 333, false);
}

/* Channels of very different size, e = W x + b (+ noise). */
static void make(double noise)
{
	for (size_t i = 0; i < D * D; i++)
		want[i] = (double)tiny_random();
	for (size_t i = 0; i < D; i++)
		off[i] = (double)tiny_random();
	tiny_fill(x, N * D, 0.5f, 1);
	tiny_fill(z, N * D, 0, 1);
	for (size_t i = 0; i < N; i++)
		x[i * D + 3] *= 1000;
	for (size_t i = 0; i < N * D; i++) {
		double v = off[i % D];

		for (size_t j = 0; j < D; j++)
			v += want[i % D * D + j] * (double)x[i / D * D + j] / (j == 3 ? 1000 : 1);
		y[i] = z[i] + (float)(v + noise * (double)tiny_random());
	}
	for (size_t i = 0; i < D; i++)
		want[i * D + 3] /= 1000;
}

static double apart(const double *a, const double *b, size_t n)
{
	double d = 0;

	for (size_t i = 0; i < n; i++)
		d = fmax(d, fabs(a[i] - b[i]));
	return d;
}

/* The largest cosine of the residual with a column of x or with 1. */
static double slant(void)
{
	double worst = 0;

	for (size_t c = 0; c < D; c++)
		for (size_t j = 0; j <= D; j++) {
			double dot = 0, rr = 0, xx = 0;

			for (size_t i = 0; i < N; i++) {
				const double v = j < D ? (double)x[i * D + j] : 1;
				double r = (double)y[i * D + c] - (double)z[i * D + c] - bias[c];

				for (size_t k = 0; k < D; k++)
					r -= w[c * D + k] * (double)x[i * D + k];
				dot += r * v;
				rr += r * r;
				xx += v * v;
			}
			worst = fmax(worst, fabs(dot) / sqrt(rr * xx));
		}
	return worst;
}

/* The sum of squares that is left of y - z, row by row. */
static double left(void)
{
	double sum = 0;

	for (size_t i = 0; i < N * D; i++) {
		double r = (double)y[i] - (double)z[i] - bias[i % D];

		for (size_t k = 0; k < D; k++)
			r -= w[i % D * D + k] * (double)x[i / D * D + k];
		sum += r * r;
	}
	return sum;
}

static double misfit(struct backend *be, const struct qwt_sums *s)
{
	double sum;

	return qwt_misfit(be, s, w, bias, &sum, &e) < 0 ? NAN : sum;
}

static void test_merge(struct pool *pool)
{
	struct qwt_sums all, a, b;
	double most = 0;

	if (qwt_sums_init(&all, D, &e) < 0 || qwt_sums_init(&a, D, &e) < 0 ||
	    qwt_sums_init(&b, D, &e) < 0)
		exit(1);
	qwt_sums_add(&all, pool, x, y, z, N, false);
	qwt_sums_add(&a, pool, x, y, z, N / 3, false);
	qwt_sums_add(&b, pool, x + N / 3 * D, y + N / 3 * D, z + N / 3 * D, N - N / 3, false);
	qwt_sums_merge(&a, &b);
	for (size_t i = 0; i < 2 * D * D + 2 * D; i++)
		most = fmax(most, fabs(a.g[i] - all.g[i]) / (1 + fabs(all.g[i])));
	ok(most < 1e-12 && a.n == N && fabs(a.ee / all.ee - 1) < 1e-12,
	   "sums of two parts are those of all");
	qwt_sums_release(&all);
	qwt_sums_release(&a);
	qwt_sums_release(&b);
}

int main(void)
{
	struct backend be;
	struct pool *pool;
	struct qwt_sums s;
	double norm = 0;

	if (backend_open(&be, "cpu", 2, &e) < 0 || qwt_sums_init(&s, D, &e) < 0)
		return 1;
	pool = be.pool;
	make(0);
	sums(&s, pool);
	ok(qwt_solve(pool, &s, 0, w, bias, &e) == 0, "solves");
	ok_near(apart(w, want, D * D), 0, 1e-5, "what is affine is found");
	ok_near(apart(bias, off, D), 0, 1e-4, "and its bias");
	ok(qwt_low_rank(&be, &s, w, D, up, down, bias, &e) == 0, "of full rank");
	for (size_t i = 0; i < D * D; i++) {
		double v = 0;

		for (size_t k = 0; k < D; k++)
			v += up[i / D * D + k] * down[k * D + i % D];
		norm = fmax(norm, fabs(v - w[i]));
	}
	ok_near(norm, 0, 1e-9, "a map of full rank is the map");
	make(1);
	sums(&s, pool);
	ok(qwt_solve(pool, &s, 0, w, bias, &e) == 0, "with noise");
	ok_near(slant(), 0, 1e-9, "the residual is orthogonal to x and to 1");
	ok_near(misfit(&be, &s) / left(), 1, 1e-9, "what is left of the rows, from sums");
	test_merge(pool);
	for (size_t i = 0; i < D; i++)
		bias[i] += 0.25 * (double)i;
	ok_near(misfit(&be, &s) / left(), 1, 1e-9, "of another map too");
	for (size_t i = 0; i < N; i++)
		x[i * D + 7] = x[i * D + 5] * 2 - 1;
	sums(&s, pool);
	ok(qwt_solve(pool, &s, 0, w, bias, &e) == 0, "channels that depend on each other");
	ok_near(slant(), 0, 1e-7, "are no trouble");
	memcpy(y, z, sizeof(y));
	sums(&s, pool);
	ok(qwt_solve(pool, &s, 0, w, bias, &e) == 0, "no residual");
	for (size_t i = 0; i < D * D; i++)
		norm = fmax(norm, fabs(w[i]));
	memset(want, 0, sizeof(want));
	ok(apart(w, want, D * D) == 0 && apart(bias, want, D) == 0, "W and b are 0");
	qwt_sums_release(&s);
	backend_close(&be);
	return done();
}
