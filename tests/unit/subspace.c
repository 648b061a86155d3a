/* SPDX-License-Identifier: Apache-2.0 */
/*
 * subspace.c - eigenvectors of large matrices beside spectra that are known, and Jacobi's
 */
#include <math.h>
#include <stdlib.h>

#include "lib/compute/backend.h"
#include "lib/method/subspace.h"
#include "tests/unit/tap.h"
#include "tests/unit/tiny.h"

static struct err e;

/* Rows of x [d, d] times I - 2 v v', v random: what is orthogonal stays so. */
static void reflect(double *x, size_t d, int times)
{
	double *v = calloc(d, sizeof(*v));

	while (v && times-- > 0) {
		double norm = 0;

		for (size_t i = 0; i < d; i++) {
			v[i] = (double)tiny_random();
			norm += v[i] * v[i];
		}
		for (size_t i = 0; i < d; i++) {
			double dot = 0;

			for (size_t j = 0; j < d; j++)
				dot += x[i * d + j] * v[j];
			for (size_t j = 0; j < d; j++)
				x[i * d + j] -= 2 * dot / norm * v[j];
		}
	}
	free(v);
}

/* y [d, d] = x' */
static void turn(double *y, const double *x, size_t d)
{
	for (size_t i = 0; i < d; i++)
		for (size_t j = 0; j < d; j++)
			y[i * d + j] = x[j * d + i];
}

/* a b = Q diag(values) Q', a = Q diag(values) R' and b = R Q'; Q [d, d], columns are vectors. */
static void make(double *a, double *b, double *q, double *r, const double *values, size_t d)
{
	uint64_t seed;

	memset(b, 0, d * d * sizeof(*b));
	for (size_t i = 0; i < d; i++)
		b[i * d + i] = 1;
	reflect(b, d, 5);
	turn(q, b, d);
	for (size_t i = 0; i < d * d; i++)
		a[i] = q[i] * values[i % d];
	seed = tiny_state; /* the same reflections of both */
	reflect(a, d, 5);
	tiny_state = seed;
	memcpy(r, q, d * d * sizeof(*r));
	reflect(r, d, 5);
	turn(b, r, d);
}

/* The largest of |u u' - 1|. */
static double skew(const double *u, size_t r, size_t d)
{
	double worst = 0;

	for (size_t i = 0; i < r; i++)
		for (size_t j = 0; j <= i; j++) {
			double dot = i == j ? -1 : 0;

			for (size_t k = 0; k < d; k++)
				dot += u[i * d + k] * u[j * d + k];
			worst = fmax(worst, fabs(dot));
		}
	return worst;
}

/* What of the sum of values u holds: the sum over i, k of values[k] (q_k u_i)^2. */
static double held(const double *u, const double *q, const double *values, size_t r, size_t d)
{
	double sum = 0;

	for (size_t i = 0; i < r; i++)
		for (size_t k = 0; k < d; k++) {
			double dot = 0;

			for (size_t j = 0; j < d; j++)
				dot += u[i * d + j] * q[j * d + k];
			sum += values[k] * dot * dot;
		}
	return sum;
}

enum spectrum { FALLS, FLAT, CLUSTERS, STEEP, FEW, ONE, ZERO, SPECTRA };
static const char *const spectra[] = {
	"that falls slowly", "that is flat", "in clusters", "over 16 decades", "of rank 3",
	"of rank 1", "of zeros",
};

/* Descending. */
static double value(enum spectrum s, size_t i, size_t d)
{
	switch (s) {
	case FALLS:
		return 1 / (double)(i + 1);
	case FLAT:
		return 1 + 1e-3 * (double)(d - i) / (double)d;
	case CLUSTERS:
		return i < d / 4 ? 2 : i < d / 2 ? 1 : 0.001;
	case STEEP:
		return pow(10, 8 - 16 * (double)i / (double)d);
	case FEW:
		return i < 3 ? 3 - (double)i : 0;
	case ONE:
		return i < 1 ? 1e6 : 0;
	default:
		return 0;
	}
}

static void check(struct backend *be, enum spectrum s, size_t d, size_t r)
{
	double *a = calloc(4 * d * d + d + r * d, sizeof(*a)), *b = a + d * d, *q = b + d * d;
	double *values = q + 2 * d * d, *u = values + d, best = 0, got;

	if (!a)
		exit(1);
	for (size_t i = 0; i < d; i++) {
		values[i] = value(s, i, d);
		best += i < r ? values[i] : 0;
	}
	make(a, b, q, q + d * d, values, d);
	if (subspace_top(be, a, b, d, r, u, &e) < 0)
		u[0] = NAN;
	got = held(u, q, values, r, d);
	ok(fabs(best - got) <= 1e-4 * best && skew(u, r, d) < 1e-12,
	   "%zu of %zu, a spectrum %s: short by %.1e of the best, orthogonal to %.1e", r, d,
	   spectra[s], best > 0 ? 1 - got / best : got, skew(u, r, d));
	free(a);
}

/* Jacobi's rotations of m [d, d], symmetric, until nothing is left beside the diagonal. */
static void jacobi(double *m, size_t d)
{
	for (int sweep = 0; sweep < 30; sweep++)
		for (size_t p = 0; p < d; p++)
			for (size_t q = p + 1; q < d; q++) {
				const double t = (m[q * d + q] - m[p * d + p]) / 2;
				const double angle = atan2(m[p * d + q], t) / 2;
				const double c = cos(angle), s = sin(angle);

				for (size_t k = 0; k < d; k++) {
					const double x = m[k * d + p], y = m[k * d + q];

					m[k * d + p] = c * x - s * y;
					m[k * d + q] = s * x + c * y;
				}
				for (size_t k = 0; k < d; k++) {
					const double x = m[p * d + k], y = m[q * d + k];

					m[p * d + k] = c * x - s * y;
					m[q * d + k] = s * x + c * y;
				}
			}
}

static int falling(const void *a, const void *b)
{
	const double x = *(const double *)a, y = *(const double *)b;

	return x < y ? 1 : x > y ? -1 : 0;
}

/* The left singular vectors of a random matrix, those of a a'. */
static void check_random(struct backend *be, size_t d, size_t r)
{
	double *a = calloc(3 * d * d + d + r * d, sizeof(*a)), *m = a + d * d, *t = m + d * d;
	double *values = t + d * d, *u = values + d, best = 0, got = 0;

	if (!a)
		exit(1);
	for (size_t i = 0; i < d * d; i++)
		a[i] = (double)tiny_random();
	for (size_t i = 0; i < d * d; i++)
		for (size_t k = 0; k < d; k++)
			m[i] += a[i / d * d + k] * a[i % d * d + k];
	turn(t, a, d);
	if (subspace_top(be, a, t, d, r, u, &e) < 0)
		u[0] = NAN;
	for (size_t i = 0; i < r * d; i++) {
		double x = 0;

		for (size_t k = 0; k < d; k++)
			x += m[i % d * d + k] * u[i / d * d + k];
		got += x * u[i];
	}
	jacobi(m, d);
	for (size_t i = 0; i < d; i++)
		values[i] = m[i * d + i];
	qsort(values, d, sizeof(*values), falling);
	for (size_t i = 0; i < r; i++)
		best += values[i];
	ok(fabs(best - got) <= 1e-4 * best && skew(u, r, d) < 1e-12,
	   "%zu of %zu singular vectors of a random matrix, beside Jacobi's: short by %.1e", r, d,
	   1 - got / best);
	free(a);
}

/* As many threads as there may be: the same bytes. */
static void check_threads(struct backend *be)
{
	enum { D = 150, R = 9 };
	static double a[D * D], t[D * D], u[R * D], one[R * D];
	struct backend single;

	for (size_t i = 0; i < D * D; i++)
		a[i] = (double)tiny_random();
	turn(t, a, D);
	if (backend_open(&single, "cpu", 1, &e) < 0 ||
	    subspace_top(be, a, t, D, R, u, &e) < 0 ||
	    subspace_top(&single, a, t, D, R, one, &e) < 0)
		exit(1);
	ok(memcmp(u, one, sizeof(u)) == 0, "with three threads the same bytes as with one");
	backend_close(&single);
}

int main(void)
{
	static const size_t shapes[][2] = {
		{ 1, 1 }, { 2, 1 }, { 5, 4 }, { 23, 1 }, { 65, 7 }, { 65, 65 }, { 130, 64 },
		{ 130, 66 }, { 257, 16 }, { 301, 40 },
	};
	struct backend be;

	if (backend_open(&be, "cpu", 3, &e) < 0)
		return 1;
	for (int s = 0; s < SPECTRA; s++)
		for (size_t i = 0; i < sizeof(shapes) / sizeof(*shapes); i++)
			check(&be, (enum spectrum)s, shapes[i][0], shapes[i][1]);
	check_random(&be, 40, 3);
	check_random(&be, 97, 11);
	check_random(&be, 160, 20);
	check_threads(&be);
	backend_close(&be);
	return done();
}
