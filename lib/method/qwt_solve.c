/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qwt_solve.c - sums and solutions of least squares (qwt_solve.h)
 */
#include "lib/method/qwt_solve.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/pool.h"

#define CHUNK 64      /* rows widened to f64 at a time */
#define BAND  16      /* rows of a sum in a task */
#define ROUNDS 40     /* of subspace iteration */

int qwt_sums_init(struct qwt_sums *s, size_t d, struct err *e)
{
	const size_t n = 2 * d * d + 2 * d + 2 * d * CHUNK;

	memset(s, 0, sizeof(*s));
	s->g = malloc(n * sizeof(*s->g));
	if (s->g == NULL)
		return err_nomem(e, "sums", n * sizeof(*s->g));
	s->d = d;
	s->c = s->g + d * d;
	s->mx = s->c + d * d;
	s->me = s->mx + d;
	s->chunk = s->me + d;
	qwt_sums_zero(s);
	return 0;
}

void qwt_sums_zero(struct qwt_sums *s)
{
	memset(s->g, 0, (2 * s->d * s->d + 2 * s->d) * sizeof(*s->g));
	s->n = 0;
	s->ee = 0;
}

void qwt_sums_release(struct qwt_sums *s)
{
	free(s->g);
	memset(s, 0, sizeof(*s));
}

/* ---- sums ------------------------------------------------------------------------ */

struct band_job {
	struct qwt_sums *s;
	const double *x, *e; /* [rows, d] */
	size_t rows;
};

/* y += the product of column i of a, and x from column `from` on */
static void add_row(double *restrict y, const double *a, const double *restrict x, size_t rows,
		    size_t d, size_t from)
{
	size_t t = 0;

	for (; t + 4 <= rows; t += 4) {
		const double *restrict p = x + t * d;
		const double a0 = a[t * d], a1 = a[(t + 1) * d], a2 = a[(t + 2) * d];
		const double a3 = a[(t + 3) * d];

		for (size_t j = from; j < d; j++)
			y[j] += a0 * p[j] + a1 * p[d + j] + a2 * p[2 * d + j] + a3 * p[3 * d + j];
	}
	for (; t < rows; t++)
		for (size_t j = from; j < d; j++)
			y[j] += a[t * d] * x[t * d + j];
}

static void band_task(void *ctx, size_t task, int thread)
{
	const struct band_job *j = ctx;
	const size_t d = j->s->d;

	(void)thread;
	for (size_t i = task * BAND; i < d && i < (task + 1) * BAND; i++) {
		add_row(j->s->g + i * d, j->x + i, j->x, j->rows, d, i);
		add_row(j->s->c + i * d, j->e + i, j->x, j->rows, d, 0);
	}
}

void qwt_sums_add(struct qwt_sums *s, struct pool *pool, const float *x, const float *a,
		  const float *b, size_t n)
{
	const size_t d = s->d;

	for (size_t from = 0; from < n; from += CHUNK) {
		const size_t rows = n - from < CHUNK ? n - from : CHUNK;
		struct band_job j = { s, s->chunk, s->chunk + CHUNK * d, rows };

		for (size_t i = 0; i < rows * d; i++) {
			const double xv = x[from * d + i];
			const double ev = (double)a[from * d + i] - (double)b[from * d + i];

			s->chunk[i] = xv;
			s->chunk[CHUNK * d + i] = ev;
			s->mx[i % d] += xv;
			s->me[i % d] += ev;
			s->ee += ev * ev;
		}
		pool_run(pool, (d + BAND - 1) / BAND, band_task, &j);
	}
	s->n += n;
}

/* ---- solving --------------------------------------------------------------------- */

/* Centred element of G, i <= j, and of C. */
static double g_at(const struct qwt_sums *s, size_t i, size_t j)
{
	return s->g[i * s->d + j] - s->mx[i] * s->mx[j] / (double)s->n;
}

static double c_at(const struct qwt_sums *s, size_t i, size_t j)
{
	return s->c[i * s->d + j] - s->me[i] * s->mx[j] / (double)s->n;
}

static double mean_diagonal(const struct qwt_sums *s)
{
	double sum = 0;

	for (size_t i = 0; i < s->d; i++)
		sum += g_at(s, i, i);
	return sum / (double)s->d;
}

/*
 * Lower L, rows in the order of perm, of the d x d matrix a (full, unit diagonal), in place;
 * returns the rank.  Left-looking by rows, so that inner loops run along memory.
 */
static size_t pivoted_cholesky(double *a, size_t d, size_t *perm, double *rest)
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
		if (!(rest[best] > (double)d * DBL_EPSILON))
			return k;
		if (best != k) {
			const size_t p = perm[k];
			const double r = rest[k];

			for (size_t j = 0; j < d; j++) {
				const double v = a[k * d + j];

				a[k * d + j] = a[best * d + j];
				a[best * d + j] = v;
			}
			for (size_t j = 0; j < d; j++) {
				const double v = a[j * d + k];

				a[j * d + k] = a[j * d + best];
				a[j * d + best] = v;
			}
			perm[k] = perm[best];
			perm[best] = p;
			rest[k] = rest[best];
			rest[best] = r;
		}
		a[k * d + k] = sqrt(rest[k]);
		for (size_t i = k + 1; i < d; i++) {
			double sum = a[i * d + k];

			for (size_t j = 0; j < k; j++)
				sum -= a[i * d + j] * a[k * d + j];
			a[i * d + k] = sum / a[k * d + k];
			rest[i] -= a[i * d + k] * a[i * d + k];
		}
	}
	return d;
}

/* x [d], permuted and scaled right side, becomes the solution within the first `rank`. */
static void substitute(const double *l, size_t d, size_t rank, double *x)
{
	for (size_t i = 0; i < rank; i++) {
		double sum = x[i];

		for (size_t j = 0; j < i; j++)
			sum -= l[i * d + j] * x[j];
		x[i] = sum / l[i * d + i];
	}
	for (size_t i = rank; i-- > 0;) {
		x[i] /= l[i * d + i];
		for (size_t j = 0; j < i; j++)
			x[j] -= l[i * d + j] * x[i];
	}
	for (size_t i = rank; i < d; i++)
		x[i] = 0;
}

static void set_bias(const struct qwt_sums *s, const double *w, double *bias)
{
	for (size_t i = 0; i < s->d; i++) {
		double sum = s->me[i];

		for (size_t j = 0; j < s->d; j++)
			sum -= w[i * s->d + j] * s->mx[j];
		bias[i] = sum / (double)s->n;
	}
}

int qwt_solve(struct qwt_sums *s, double ridge, double *w, double *bias, struct err *e)
{
	const size_t d = s->d;
	const double add = ridge * mean_diagonal(s);
	double *a = malloc((d * d + 3 * d) * sizeof(*a)), *scale = a != NULL ? a + d * d : NULL;
	size_t *perm = malloc(d * sizeof(*perm)), rank;

	if (a == NULL || perm == NULL) {
		free(a);
		free(perm);
		return err_nomem(e, "solution", d * d * sizeof(*a));
	}
	for (size_t i = 0; i < d; i++) {
		const double v = g_at(s, i, i) + add;

		scale[i] = v > 0 ? 1 / sqrt(v) : 0;
	}
	for (size_t i = 0; i < d; i++)
		for (size_t j = i; j < d; j++)
			a[i * d + j] = a[j * d + i] = scale[i] * scale[j] *
						      (g_at(s, i, j) + (i == j ? add : 0));
	rank = pivoted_cholesky(a, d, perm, scale + d);
	for (size_t i = 0; i < d; i++) {
		double *x = scale + 2 * d;

		for (size_t j = 0; j < d; j++)
			x[j] = c_at(s, i, perm[j]) * scale[perm[j]];
		substitute(a, d, rank, x);
		for (size_t j = 0; j < d; j++)
			w[i * d + perm[j]] = x[j] * scale[perm[j]];
	}
	set_bias(s, w, bias);
	free(a);
	free(perm);
	return 0;
}

double qwt_misfit(const struct qwt_sums *s, const double *w, const double *bias)
{
	const size_t d = s->d;
	double sum = s->ee;

	for (size_t i = 0; i < d; i++, w += d) {
		double xe = 0, x = 0, xx = 0;

		for (size_t j = 0; j < d; j++) {
			const double *g = s->g + j * d;
			double rest = 0;

			for (size_t k = j + 1; k < d; k++)
				rest += g[k] * w[k];
			xx += w[j] * (g[j] * w[j] + 2 * rest);
			xe += w[j] * s->c[i * d + j];
			x += w[j] * s->mx[j];
		}
		sum += xx - 2 * xe + bias[i] * (2 * x - 2 * s->me[i] + (double)s->n * bias[i]);
	}
	return sum;
}

/* Gauss-Jordan with row pivots, f32, [n, 2n]: the inverse is in the right half. */
static int invert(float *a, size_t n)
{
	const size_t ld = 2 * n;

	for (size_t k = 0; k < n; k++) {
		size_t best = k;

		for (size_t i = k + 1; i < n; i++)
			if (fabsf(a[i * ld + k]) > fabsf(a[best * ld + k]))
				best = i;
		if (a[best * ld + k] == 0)
			return -1;
		for (size_t j = 0; best != k && j < ld; j++) {
			const float v = a[k * ld + j];

			a[k * ld + j] = a[best * ld + j];
			a[best * ld + j] = v;
		}
		for (size_t j = ld; j-- > k;)
			a[k * ld + j] /= a[k * ld + k];
		for (size_t i = 0; i < n; i++) {
			const float by = a[i * ld + k];

			for (size_t j = k; i != k && by != 0 && j < ld; j++)
				a[i * ld + j] -= by * a[k * ld + j];
		}
	}
	return 0;
}

int qwt_solve_compat(struct qwt_sums *s, double *w, double *bias, struct err *e)
{
	const size_t d = s->d, n = d + 1;
	float *a = calloc(2 * n * n, sizeof(*a));

	if (a == NULL)
		return err_nomem(e, "inverse", 2 * n * n * sizeof(*a));
	for (size_t i = 0; i < d; i++) {
		for (size_t j = i; j < d; j++)
			a[i * 2 * n + j] = a[j * 2 * n + i] = (float)s->g[i * d + j];
		a[i * 2 * n + d] = a[d * 2 * n + i] = (float)s->mx[i];
	}
	a[d * 2 * n + d] = (float)s->n;
	for (size_t i = 0; i < n; i++)
		a[i * 2 * n + n + i] = 1;
	if (invert(a, n) < 0)
		memset(a, 0, 2 * n * n * sizeof(*a)); /* singular: nothing is fitted */
	for (size_t i = 0; i < d; i++)
		for (size_t j = 0; j < n; j++) {
			const float *row = a + j * 2 * n + n;
			float sum = row[d] * (float)s->me[i];

			for (size_t k = 0; k < d; k++)
				sum += row[k] * (float)s->c[i * d + k];
			*(j < d ? &w[i * d + j] : &bias[i]) = sum;
		}
	free(a);
	return 0;
}

void qwt_solve_diagonal(struct qwt_sums *s, double ridge, double *w, double *bias)
{
	const double add = ridge * mean_diagonal(s);

	for (size_t i = 0; i < s->d; i++) {
		const double g = g_at(s, i, i) + add;

		w[i] = g > 0 ? c_at(s, i, i) / g : 0;
		bias[i] = (s->me[i] - w[i] * s->mx[i]) / (double)s->n;
	}
}

/* Columns of u [d, r] orthonormal, one after the other, twice: a column that is none becomes 0. */
static void orthonormal(double *u, size_t d, size_t r)
{
	for (size_t k = 0; k < r; k++) {
		double norm = 0;

		for (size_t again = 0; again < 2; again++)
			for (size_t j = 0; j < k; j++) {
				double dot = 0;

				for (size_t i = 0; i < d; i++)
					dot += u[i * r + j] * u[i * r + k];
				for (size_t i = 0; i < d; i++)
					u[i * r + k] -= dot * u[i * r + j];
			}
		for (size_t i = 0; i < d; i++)
			norm += u[i * r + k] * u[i * r + k];
		norm = norm > 0 ? 1 / sqrt(norm) : 0;
		for (size_t i = 0; i < d; i++)
			u[i * r + k] *= norm;
	}
}

/*
 * What of E the full W explains has the second moments M = W G W' = C W' (ridge aside).  The first
 * r eigenvectors U of it give the best W of rank r, U U' W (reduced-rank regression).
 */
int qwt_low_rank(const struct qwt_sums *s, const double *w, size_t r, double *up, double *down,
		 double *bias, struct err *e)
{
	const size_t d = s->d;
	double *v = malloc((d * d + d * r) * sizeof(*v)), *u = v != NULL ? v + d * d : NULL;

	if (v == NULL)
		return err_nomem(e, "low rank", (d * d + d * r) * sizeof(*v));
	for (size_t i = 0; i < d; i++)
		for (size_t j = 0; j < d; j++) {
			double sum = 0;

			for (size_t k = 0; k < d; k++)
				sum += (c_at(s, i, k) * w[j * d + k] +
					w[i * d + k] * c_at(s, j, k)) / 2;
			v[i * d + j] = sum;
		}
	for (size_t i = 0; i < d * r; i++) /* any start that is not special */
		up[i] = sin(1.0 + (double)i * 0.7390851332);
	for (int round = 0; round < ROUNDS; round++) {
		orthonormal(up, d, r);
		memset(u, 0, d * r * sizeof(*u));
		for (size_t i = 0; i < d; i++)
			for (size_t k = 0; k < d; k++)
				for (size_t j = 0; j < r; j++)
					u[i * r + j] += v[i * d + k] * up[k * r + j];
		memcpy(up, u, d * r * sizeof(*u));
	}
	orthonormal(up, d, r);
	memset(down, 0, r * d * sizeof(*down));
	for (size_t i = 0; i < d; i++)
		for (size_t j = 0; j < r; j++)
			for (size_t k = 0; k < d; k++)
				down[j * d + k] += up[i * r + j] * w[i * d + k];
	memset(v, 0, d * d * sizeof(*v));
	for (size_t i = 0; i < d; i++)
		for (size_t j = 0; j < r; j++)
			for (size_t k = 0; k < d; k++)
				v[i * d + k] += up[i * r + j] * down[j * d + k];
	set_bias(s, v, bias);
	free(v);
	return 0;
}
