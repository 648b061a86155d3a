/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rotation.c - the kinds of orthogonal matrices, and products with rows and columns (rotation.h)
 */
#include "lib/method/rotation.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/pool.h"
#include "lib/compute/hadamard.h"
#include "lib/data/rng.h"

#define TOLERANCE 1e-4 /* of a matrix that is given: one stored in F32 has 1e-6 */
#define PI	  3.14159265358979323846

struct rotation {
	size_t order;
	struct hadamard *h; /* or */
	double *dense;	    /* [order, order] */
	double *sign;	    /* [order], before H; NULL: none */
	bool keep_mean;	    /* H' comes before the signs */
};

static double gauss(struct rng *g)
{
	const double u = ((double)(rng_next(g) >> 11) + 1) * 0x1p-53;
	const double v = (double)(rng_next(g) >> 11) * 0x1p-53;

	return sqrt(-2 * log(u)) * cos(2 * PI * v);
}

static double dot(const double *a, const double *b, size_t n)
{
	double lane[8] = { 0 }, sum = 0;
	size_t i = 0;

	for (; i + 8 <= n; i += 8)
		for (int l = 0; l < 8; l++)
			lane[l] += a[i + l] * b[i + l];
	for (; i < n; i++)
		sum += a[i] * b[i];
	for (int l = 0; l < 8; l++)
		sum += lane[l];
	return sum;
}

/* Rows of m [n, n], Gaussian, become orthonormal one after the other; twice, for the second pass
 * removes what rounding has left in the first. */
static void fill_orthogonal(double *m, size_t n, size_t ld, uint64_t seed)
{
	struct rng g;

	rng_init(&g, seed);
	for (size_t i = 0; i < n; i++) {
		double *row = m + i * ld;

		for (size_t j = 0; j < n; j++)
			row[j] = gauss(&g);
		for (int pass = 0; pass < 2; pass++) {
			double norm;

			for (size_t k = 0; k < i; k++) {
				const double c = dot(row, m + k * ld, n);

				for (size_t j = 0; j < n; j++)
					row[j] -= c * m[k * ld + j];
			}
			norm = 1 / sqrt(dot(row, row, n));
			for (size_t j = 0; j < n; j++)
				row[j] *= norm;
		}
	}
}

/* m = P m P for the reflection P = I - 2 v v' that takes the first axis to 1 / sqrt(n). */
static void reflect(double *m, size_t n, double *v)
{
	double norm = 0;

	for (size_t i = 0; i < n; i++) {
		v[i] = (i == 0) - 1 / sqrt((double)n);
		norm += v[i] * v[i];
	}
	if (norm == 0)
		return;
	for (size_t i = 0; i < n; i++)
		v[i] /= sqrt(norm);
	for (size_t i = 0; i < n; i++) { /* m P */
		const double c = 2 * dot(m + i * n, v, n);

		for (size_t j = 0; j < n; j++)
			m[i * n + j] -= c * v[j];
	}
	for (size_t j = 0; j < n; j++) { /* P m */
		double c = 0;

		for (size_t i = 0; i < n; i++)
			c += 2 * v[i] * m[i * n + j];
		for (size_t i = 0; i < n; i++)
			m[i * n + j] -= c * v[i];
	}
}

static int make_orthogonal(struct rotation *r, uint64_t seed, const char *where, struct err *e)
{
	const size_t n = r->order, skip = r->keep_mean;
	double *v = malloc(n * sizeof(*v));

	r->dense = calloc(n * n, sizeof(*r->dense));
	if (v == NULL || r->dense == NULL) {
		free(v);
		return err_nomem(e, where, (unsigned long long)n * n * sizeof(*v));
	}
	r->dense[0] = 1;
	fill_orthogonal(r->dense + skip * (n + 1), n - skip, n, seed);
	if (r->keep_mean)
		reflect(r->dense, n, v);
	free(v);
	return 0;
}

static int make_signs(struct rotation *r, uint64_t seed, const char *where, struct err *e)
{
	struct rng g;

	r->sign = malloc(r->order * sizeof(*r->sign));
	if (r->sign == NULL)
		return err_nomem(e, where, r->order * sizeof(*r->sign));
	rng_init(&g, seed);
	for (size_t i = 0; i < r->order; i++)
		r->sign[i] = rng_below(&g, 2) ? 1 : -1;
	if (r->keep_mean)
		r->sign[0] = 1;
	return 0;
}

static int make(struct rotation *r, enum rotation_kind kind, uint64_t seed, const char *where,
		struct err *e)
{
	if (kind == ROTATION_ORTHOGONAL)
		return make_orthogonal(r, seed, where, e);
	if (!hadamard_known(r->order))
		return err_set(e, ERR_DATA, where, "no Hadamard matrix of order %zu is known here; "
			       "--matrix=orthogonal, or --block=%zu", r->order,
			       r->order & -r->order);
	if (hadamard_new(&r->h, r->order, e) < 0)
		return -1;
	return kind == ROTATION_HADAMARD && !r->keep_mean ? 0 : make_signs(r, seed, where, e);
}

int rotation_new(struct rotation **out, enum rotation_kind kind, size_t order, bool keep_mean,
		 uint64_t seed, const char *where, struct err *e)
{
	struct rotation *r = calloc(1, sizeof(*r));

	*out = NULL;
	if (r == NULL)
		return err_nomem(e, where, sizeof(*r));
	r->order = order;
	r->keep_mean = keep_mean;
	if (make(r, kind, seed, where, e) < 0) {
		rotation_free(r);
		return -1;
	}
	*out = r;
	return 0;
}

static double deviation(const double *m, size_t n)
{
	double worst = 0;

	for (size_t i = 0; i < n; i++)
		for (size_t j = i; j < n; j++) {
			const double d = fabs(dot(m + i * n, m + j * n, n) - (i == j));

			worst = d > worst || isnan(d) ? d : worst;
		}
	return worst;
}

int rotation_given(struct rotation **out, const double *m, size_t n, bool keep_mean,
		   const char *where, struct err *e)
{
	const double off = deviation(m, n);
	struct rotation *r;

	*out = NULL;
	if (!(off <= TOLERANCE))
		return err_set(e, ERR_DATA, where, "is not orthogonal: the largest element of "
			       "R R' - I is %.3g", off);
	for (size_t j = 0; keep_mean && j < n; j++) {
		double sum = 0;

		for (size_t i = 0; i < n; i++)
			sum += m[i * n + j];
		if (!(fabs(sum - 1) <= TOLERANCE * sqrt((double)n)))
			return err_set(e, ERR_DATA, where, "column %zu sums to %.6g, not 1: layer "
				       "norms take the mean out, so it must stay what it is", j,
				       sum);
	}
	r = calloc(1, sizeof(*r));
	if (r == NULL || (r->dense = malloc(n * n * sizeof(*m))) == NULL) {
		free(r);
		return err_nomem(e, where, (unsigned long long)n * n * sizeof(*m));
	}
	memcpy(r->dense, m, n * n * sizeof(*m));
	r->order = n;
	*out = r;
	return 0;
}

void rotation_free(struct rotation *r)
{
	if (r == NULL)
		return;
	hadamard_free(r->h);
	free(r->dense);
	free(r->sign);
	free(r);
}

size_t rotation_order(const struct rotation *r)
{
	return r->order;
}

const char *rotation_name(const struct rotation *r)
{
	return r->h != NULL ? hadamard_name(r->h) : "orthogonal";
}

/* ---- products --------------------------------------------------------------------- */

/* x [count, order] times the matrix, vector by vector; work as long. */
static void multiply(const struct rotation *r, double *x, size_t count, double *work)
{
	const size_t n = r->order;

	if (r->dense != NULL) {
		memset(work, 0, count * n * sizeof(*work));
		for (size_t i = 0; i < n; i++)
			for (size_t c = 0; c < count; c++) {
				const double a = x[c * n + i], *m = r->dense + i * n;
				double *y = work + c * n;

				for (size_t j = 0; j < n; j++)
					y[j] += a * m[j];
			}
		memcpy(x, work, count * n * sizeof(*x));
		return;
	}
	for (size_t c = 0; c < count; c++, x += n) {
		if (r->keep_mean)
			hadamard_f64(r->h, x, true, work);
		for (size_t i = 0; r->sign != NULL && i < n; i++)
			x[i] *= r->sign[i];
		hadamard_f64(r->h, x, false, work);
	}
}

struct job {
	const struct rotation *r;
	double *x;
	size_t count; /* vectors that lie one behind the other, or */
	size_t cols;  /* columns */
	size_t strip; /* vectors of a task */
	double *work; /* [threads, 2, strip, order] */
};

static void rows_task(void *ctx, size_t task, int thread)
{
	const struct job *j = ctx;
	const size_t n = j->r->order, from = task * j->strip, left = j->count - from;

	multiply(j->r, j->x + from * n, left < j->strip ? left : j->strip,
		 j->work + (size_t)thread * 2 * j->strip * n);
}

/* A strip of columns of one block of rows. */
static void columns_task(void *ctx, size_t task, int thread)
{
	const struct job *j = ctx;
	const size_t n = j->r->order, strips = (j->cols + j->strip - 1) / j->strip;
	const size_t col = task % strips * j->strip;
	const size_t width = j->cols - col < j->strip ? j->cols - col : j->strip;
	double *x = j->x + task / strips * n * j->cols + col;
	double *v = j->work + (size_t)thread * 2 * j->strip * n;

	for (size_t i = 0; i < n; i++)
		for (size_t c = 0; c < width; c++)
			v[c * n + i] = x[i * j->cols + c];
	multiply(j->r, v, width, v + j->strip * n);
	for (size_t i = 0; i < n; i++)
		for (size_t c = 0; c < width; c++)
			x[i * j->cols + c] = v[c * n + i];
}

/* Room for a task's vectors: enough of short ones that waking a thread pays. */
static int begin(struct job *j, const struct pool *pool, struct err *e)
{
	const size_t n = j->r->order;
	size_t need;

	j->strip = n < 4096 ? 65536 / n : 16;
	need = (size_t)pool_threads(pool) * 2 * j->strip * n;
	j->work = malloc(need * sizeof(*j->work));
	return j->work != NULL ? 0 : err_nomem(e, "rotation", need * sizeof(*j->work));
}

int rotation_rows(const struct rotation *r, double *x, size_t rows, size_t n, struct pool *pool,
		  struct err *e)
{
	struct job j = { .r = r, .x = x, .count = rows * (n / r->order) };

	if (n % r->order)
		return err_set(e, ERR_BUG, "rotation", "%zu values by order %zu", n, r->order);
	if (begin(&j, pool, e) < 0)
		return -1;
	pool_run(pool, (j.count + j.strip - 1) / j.strip, rows_task, &j);
	free(j.work);
	return 0;
}

int rotation_columns(const struct rotation *r, double *x, size_t n, size_t cols,
		     struct pool *pool, struct err *e)
{
	struct job j = { .r = r, .x = x, .cols = cols };

	if (n % r->order)
		return err_set(e, ERR_BUG, "rotation", "%zu values by order %zu", n, r->order);
	if (begin(&j, pool, e) < 0)
		return -1;
	pool_run(pool, n / r->order * ((cols + j.strip - 1) / j.strip), columns_task, &j);
	free(j.work);
	return 0;
}
