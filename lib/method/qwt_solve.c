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
#include "lib/compute/backend.h"
#include "lib/method/pivots.h"
#include "lib/method/subspace.h"

#define CHUNK 64      /* rows widened to f64 at a time */
#define BAND  16      /* rows of a sum in a task */
#define SIDES 16      /* right sides of a system at a time */
#define WIDE  256     /* rows of a product at a time */

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

double qwt_weight(const float *a, size_t d)
{
	double sum = 0;

	for (size_t i = 0; i < d; i++)
		sum += (double)a[i] * (double)a[i];
	return sum > 0 ? (double)d / sum : 0;
}

/* Row i of a chunk, times the root of its weight, and what its sums have of it. */
static void take_row(struct qwt_sums *s, size_t i, const float *x, const float *a, const float *b,
		     double weight)
{
	const size_t d = s->d;
	const double root = sqrt(weight);

	for (size_t j = 0; j < d; j++) {
		const double xv = root * (double)x[j], ev = root * ((double)a[j] - (double)b[j]);

		s->chunk[i * d + j] = xv;
		s->chunk[(CHUNK + i) * d + j] = ev;
		s->mx[j] += root * xv;
		s->me[j] += root * ev;
		s->ee += ev * ev;
	}
	s->n += weight;
}

void qwt_sums_add(struct qwt_sums *s, struct pool *pool, const float *x, const float *a,
		  const float *b, size_t n, bool weigh)
{
	const size_t d = s->d;

	for (size_t from = 0; from < n; from += CHUNK) {
		const size_t rows = n - from < CHUNK ? n - from : CHUNK;
		struct band_job j = { s, s->chunk, s->chunk + CHUNK * d, rows };

		for (size_t i = 0; i < rows; i++) {
			const float *row = a + (from + i) * d;

			take_row(s, i, x + (from + i) * d, row, b + (from + i) * d,
				 weigh ? qwt_weight(row, d) : 1);
		}
		pool_run(pool, (d + BAND - 1) / BAND, band_task, &j);
	}
}

void qwt_sums_merge(struct qwt_sums *s, const struct qwt_sums *more)
{
	for (size_t i = 0; i < 2 * s->d * s->d + 2 * s->d; i++) /* g, c, mx, me */
		s->g[i] += more->g[i];
	s->n += more->n;
	s->ee += more->ee;
}

/* ---- solving --------------------------------------------------------------------- */

/* Centred element of G, i <= j, and of C. */
static double g_at(const struct qwt_sums *s, size_t i, size_t j)
{
	return s->g[i * s->d + j] - s->mx[i] * s->mx[j] / s->n;
}

static double c_at(const struct qwt_sums *s, size_t i, size_t j)
{
	return s->c[i * s->d + j] - s->me[i] * s->mx[j] / s->n;
}

struct solve_job {
	const struct qwt_sums *s;
	const double *l, *scale; /* of G; scale [d] */
	const size_t *perm;
	size_t rank;
	double *w, *room;        /* room [threads][d, SIDES] */
};

/* x [d, SIDES], permuted and scaled right sides, become solutions within the first `rank`. */
static void substitute(const double *l, size_t d, size_t rank, double *x)
{
	for (size_t i = 0; i < rank; i++) {
		double sum[SIDES];

		memcpy(sum, x + i * SIDES, sizeof(sum));
		for (size_t j = 0; j < i; j++)
			for (size_t k = 0; k < SIDES; k++)
				sum[k] -= l[i * d + j] * x[j * SIDES + k];
		for (size_t k = 0; k < SIDES; k++)
			x[i * SIDES + k] = sum[k] / l[i * d + i];
	}
	for (size_t i = rank; i-- > 0;) {
		double own[SIDES];

		for (size_t k = 0; k < SIDES; k++)
			x[i * SIDES + k] = own[k] = x[i * SIDES + k] / l[i * d + i];
		for (size_t j = 0; j < i; j++)
			for (size_t k = 0; k < SIDES; k++)
				x[j * SIDES + k] -= l[i * d + j] * own[k];
	}
	memset(x + rank * SIDES, 0, (d - rank) * SIDES * sizeof(*x));
}

/* SIDES rows of W */
static void solve_task(void *ctx, size_t task, int thread)
{
	const struct solve_job *j = ctx;
	const size_t d = j->s->d, from = task * SIDES;
	const size_t n = d - from < SIDES ? d - from : SIDES;
	double *x = j->room + (size_t)thread * d * SIDES;

	for (size_t i = 0; i < d; i++)
		for (size_t k = 0; k < SIDES; k++)
			x[i * SIDES + k] = k < n ? c_at(j->s, from + k, j->perm[i]) *
						   j->scale[j->perm[i]] : 0;
	substitute(j->l, d, j->rank, x);
	for (size_t i = 0; i < d; i++)
		for (size_t k = 0; k < n; k++)
			j->w[(from + k) * d + j->perm[i]] =
				x[i * SIDES + k] * j->scale[j->perm[i]];
}

static void set_bias(const struct qwt_sums *s, const double *w, double *bias)
{
	for (size_t i = 0; i < s->d; i++) {
		double sum = s->me[i];

		for (size_t j = 0; j < s->d; j++)
			sum -= w[i * s->d + j] * s->mx[j];
		bias[i] = sum / s->n;
	}
}

int qwt_solve(struct pool *pool, const struct qwt_sums *s, double ridge, double *w, double *bias,
	      struct err *e)
{
	const size_t d = s->d, n = d * d + 2 * d + (size_t)pool_threads(pool) * d * SIDES;
	double *a = malloc(n * sizeof(*a)), *scale = a != NULL ? a + d * d : NULL;
	size_t *perm = malloc(d * sizeof(*perm));
	struct solve_job j = { s, a, scale, perm, 0, w, NULL };

	if (a == NULL || perm == NULL) {
		free(a);
		free(perm);
		return err_nomem(e, "solution", n * sizeof(*a));
	}
	j.room = scale + 2 * d;
	for (size_t i = 0; i < d; i++) {
		const double v = g_at(s, i, i) * (1 + ridge);

		scale[i] = v > 0 ? 1 / sqrt(v) : 0;
	}
	for (size_t i = 0; i < d; i++)
		for (size_t k = i; k < d; k++)
			a[i * d + k] = a[k * d + i] = scale[i] * scale[k] * g_at(s, i, k) *
						      (i == k ? 1 + ridge : 1);
	j.rank = pivoted_cholesky(a, d, (double)d * DBL_EPSILON, perm, scale + d);
	pool_run(pool, (d + SIDES - 1) / SIDES, solve_task, &j);
	set_bias(s, w, bias);
	free(a);
	free(perm);
	return 0;
}

/* Of |e - W x - b|^2 what W adds, tr (W G - 2 C) W', and b; bands of rows of W at a time. */
int qwt_misfit(struct backend *b, const struct qwt_sums *s, const double *w, const double *bias,
	       double *misfit, struct err *e)
{
	const size_t d = s->d, n = d * d + (d < WIDE ? d : WIDE) * d;
	double *g = malloc(n * sizeof(*g)), *p = g != NULL ? g + d * d : NULL, sum = s->ee;
	int ret = 0;

	if (g == NULL)
		return err_nomem(e, "misfit", n * sizeof(*g));
	for (size_t i = 0; i < d; i++)
		for (size_t j = i; j < d; j++)
			g[i * d + j] = g[j * d + i] = s->g[i * d + j];
	for (size_t from = 0; from < d && ret == 0; from += WIDE) {
		const size_t rows = d - from < WIDE ? d - from : WIDE;

		ret = b->ops->gemm64(b, 0, rows, d, d, 1, w + from * d, d, g, d, 0, p, d, e);
		for (size_t i = from; ret == 0 && i < from + rows; i++) {
			double x = 0, ww = 0;

			for (size_t j = 0; j < d; j++) {
				ww += w[i * d + j] * (p[(i - from) * d + j] - 2 * s->c[i * d + j]);
				x += w[i * d + j] * s->mx[j];
			}
			sum += ww + bias[i] * (2 * x - 2 * s->me[i] + s->n * bias[i]);
		}
	}
	free(g);
	*misfit = sum;
	return ret;
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
	for (size_t i = 0; i < s->d; i++) {
		const double g = g_at(s, i, i) * (1 + ridge);

		w[i] = g > 0 ? c_at(s, i, i) / g : 0;
		bias[i] = (s->me[i] - w[i] * s->mx[i]) / s->n;
	}
}

struct factors {
	const struct qwt_sums *s;
	const double *w;
	double *c, *turned;
};

/* BAND rows of C, centred, and as many columns of W turned. */
static void factors_task(void *ctx, size_t task, int thread)
{
	const struct factors *f = ctx;
	const struct qwt_sums *s = f->s;
	const size_t d = s->d, from = task * BAND, end = from + BAND < d ? from + BAND : d;

	(void)thread;
	for (size_t i = from; i < end; i++) {
		const double mean = s->me[i] / s->n;

		for (size_t j = 0; j < d; j++)
			f->c[i * d + j] = s->c[i * d + j] - mean * s->mx[j];
	}
	for (size_t j = 0; j < d; j++)
		for (size_t i = from; i < end; i++)
			f->turned[j * d + i] = f->w[i * d + j];
}

/*
 * What of E the full W explains has the second moments M = W G W' = C W' (ridge aside).  The first
 * r eigenvectors U of it give the best W of rank r, U U' W (reduced-rank regression).
 */
int qwt_low_rank(struct backend *b, const struct qwt_sums *s, const double *w, size_t r, double *up,
		 double *down, double *bias, struct err *e)
{
	const size_t d = s->d;
	const size_t n = 2 * d * d + r * d + r;
	double *c = b->ops->alloc(b, n * sizeof(*c), e), *turned, *u;
	int ret;

	if (c == NULL)
		return err_nomem(e, "low rank", n * sizeof(*c));
	turned = c + d * d;
	u = turned + d * d;
	pool_run(b->pool, (d + BAND - 1) / BAND, factors_task,
		 &(struct factors){ s, w, c, turned });
	ret = subspace_top(b, c, turned, d, r, u, e);
	if (ret == 0)
		ret = b->ops->gemm64(b, 0, r, d, d, 1, u, d, w, d, 0, down, d, e);
	for (size_t j = 0; ret == 0 && j < r; j++) {
		double mean = 0;

		for (size_t k = 0; k < d; k++)
			mean += down[j * d + k] * s->mx[k];
		u[r * d + j] = mean / s->n;
	}
	for (size_t i = 0; ret == 0 && i < d; i++) {
		bias[i] = s->me[i] / s->n;
		for (size_t j = 0; j < r; j++) {
			up[i * r + j] = u[j * d + i];
			bias[i] -= up[i * r + j] * u[r * d + j];
		}
	}
	b->ops->free(b, c);
	return ret;
}
