/* SPDX-License-Identifier: Apache-2.0 */
/*
 * subspace.c - the first eigenvectors of a large symmetric matrix (subspace.h)
 */
#include "lib/method/subspace.h"

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "lib/compute/backend.h"
#include "lib/data/rng.h"
#include "lib/method/pivots.h"

#define BLOCKS	  7     /* in a basis, beside what a restart keeps */
#define UNIT	  32    /* rows of a block are a multiple of this: what products are fast for */
#define RESTARTS  20    /* at most */
#define TOLERANCE 1e-4  /* of the sum of values; 4 times the square of the next is about that */
#define INVARIANT 5e-3  /* what M leaves of vectors, of what it makes of them */
#define DEPENDS	  1e-10 /* what other rows leave of one, its square */

struct subspace {
	struct backend *be;
	const double *a, *b;
	size_t d, r;
	size_t l, keep, cap;   /* rows of a block, at a restart, of the basis at most */
	size_t n;              /* rows of the basis */
	double *v, *mv;        /* [cap, d]: the basis, and M times it */
	double *x, *t;         /* [keep, d]: a block, and room */
	double *h, *values;    /* [cap, cap], [cap] */
	double *s;             /* [keep, cap] */
	double *g, *rest;      /* [l, l]: products of a block's rows; [l] */
	double *size;          /* [l] */
	size_t *perm;          /* [l] */
	double largest;        /* length of a row of mv */
};

/* c [m, n] = by a [m, k] b (or b' if turned) + add c */
static int product(const struct subspace *p, double *c, size_t ldc, size_t m, size_t n, size_t k,
		   double by, const double *a, size_t lda, int turned, const double *b, double add,
		   struct err *e)
{
	return p->be->ops->gemm64(p->be, turned, m, n, k, by, a, lda, b, turned ? k : n, add, c,
				  ldc, e);
}

static int subspace_init(struct subspace *p, struct err *e)
{
	const size_t n = 2 * p->cap * p->d + 2 * p->keep * p->d + p->cap * p->cap +
			 p->cap + p->keep * p->cap + p->l * p->l + 2 * p->l;

	p->v = p->be->ops->alloc(p->be, n * sizeof(*p->v), e);
	p->perm = malloc(p->l * sizeof(*p->perm));
	if (p->v == NULL || p->perm == NULL)
		return err_nomem(e, "eigenvectors", n * sizeof(*p->v));
	p->mv = p->v + p->cap * p->d;
	p->x = p->mv + p->cap * p->d;
	p->t = p->x + p->keep * p->d;
	p->h = p->t + p->keep * p->d;
	p->values = p->h + p->cap * p->cap;
	p->s = p->values + p->cap;
	p->g = p->s + p->keep * p->cap;
	p->rest = p->g + p->l * p->l;
	p->size = p->rest + p->l;
	return 0;
}

/* Random rows; where they are as many as the space has dimensions, its axes. */
static void start(struct subspace *p)
{
	struct rng rng;

	rng_init(&rng, 1);
	for (size_t i = 0; i < p->l * p->d; i++)
		p->x[i] = p->l == p->d ? i % (p->d + 1) == 0 :
			  (double)(int64_t)rng_next(&rng) / 9223372036854775808.0;
}

/* s [rank, m]: the inverse of L in g, by which rows of length 1, in the order of perm, become
 * orthonormal, times what gives rows that length. */
static void unmixing(struct subspace *p, size_t rank, size_t m)
{
	memset(p->s, 0, rank * m * sizeof(*p->s));
	for (size_t i = 0; i < rank; i++) {
		double *row = p->s + i * m;
		const double *l = p->g + i * m;

		row[p->perm[i]] = p->size[p->perm[i]];
		for (size_t k = 0; k < i; k++)
			for (size_t j = 0; j <= k; j++)
				row[p->perm[j]] -= l[k] * p->s[k * m + p->perm[j]];
		for (size_t j = 0; j <= i; j++)
			row[p->perm[j]] /= l[i];
	}
}

/* x [*m, d]: rows that are not longer than `least` or depend on others go; the rest, *m of them,
 * become orthonormal. */
static int orthonormal(struct subspace *p, size_t *m, double least, struct err *e)
{
	const size_t n = *m;
	double *x = p->x;

	if (product(p, p->g, n, n, n, p->d, 1, x, p->d, 1, x, 0, e) < 0)
		return -1;
	for (size_t i = 0; i < n; i++)
		p->size[i] = p->g[i * n + i] > least * least ? 1 / sqrt(p->g[i * n + i]) : 0;
	for (size_t i = 0; i < n; i++)
		for (size_t j = 0; j < n; j++)
			p->g[i * n + j] *= p->size[i] * p->size[j];
	*m = pivoted_cholesky(p->g, n, DEPENDS, p->perm, p->rest);
	unmixing(p, *m, n);
	p->x = p->t;
	p->t = x;
	return product(p, p->x, p->d, *m, p->d, n, 1, p->s, n, 0, x, 0, e);
}

/* From x, m rows, what the basis holds of them. */
static int deflate(struct subspace *p, size_t m, struct err *e)
{
	const size_t n = p->n, d = p->d;

	return n == 0 || m == 0 ? 0 :
	       product(p, p->s, n, m, n, d, 1, p->x, d, 1, p->v, 0, e) < 0 ||
	       product(p, p->x, d, m, d, n, -1, p->s, n, 0, p->v, 1, e) < 0 ? -1 : 0;
}

/* Block x, *m rows, behind the basis; *m of them are new. */
static int extend(struct subspace *p, size_t *m, struct err *e)
{
	const size_t d = p->d;
	const double least = (double)d * DBL_EPSILON * p->largest;
	double *v = p->v + p->n * d, *mv = p->mv + p->n * d;

	if (*m > p->cap - p->n)
		*m = p->cap - p->n;
	for (int again = 0; again < 2 && *m > 0; again++)
		if (deflate(p, *m, e) < 0 || orthonormal(p, m, again ? 0 : least, e) < 0)
			return -1;
	memcpy(v, p->x, *m * d * sizeof(*v));
	/* the large factors first: mv = (A (B v'))' */
	if (product(p, p->t, *m, d, *m, d, 1, p->b, d, 1, v, 0, e) < 0 ||
	    product(p, p->x, *m, d, *m, d, 1, p->a, d, 0, p->t, 0, e) < 0)
		return -1;
	p->n += *m;
	for (size_t i = 0; i < *m; i++) {
		double sum = 0;

		for (size_t j = 0; j < d; j++) {
			mv[i * d + j] = p->x[j * *m + i];
			sum += mv[i * d + j] * mv[i * d + j];
		}
		p->largest = fmax(p->largest, sqrt(sum));
	}
	memcpy(p->x, mv, *m * d * sizeof(*mv));
	return 0;
}

/* The basis becomes the eigenvectors with the largest values of M on it. */
static int project(struct subspace *p, struct err *e)
{
	const size_t n = p->n, keep = n < p->keep ? n : p->keep, d = p->d;
	double *const parts[] = { p->v, p->mv };

	if (product(p, p->h, n, n, n, d, 1, p->v, d, 1, p->mv, 0, e) < 0)
		return -1;
	for (size_t i = 0; i < n; i++)
		for (size_t j = 0; j < i; j++)
			p->h[i * n + j] = (p->h[i * n + j] + p->h[j * n + i]) / 2;
	if (p->be->ops->eigen64(p->be, p->h, n, p->values, e) < 0)
		return -1;
	for (size_t i = 0; i < keep; i++)
		memcpy(p->s + i * n, p->h + (n - 1 - i) * n, n * sizeof(*p->s));
	for (size_t i = 0; i < keep; i++)
		p->h[i] = p->values[n - 1 - i];
	memcpy(p->values, p->h, keep * sizeof(*p->values));
	for (size_t i = 0; i < 2; i++) {
		if (product(p, p->t, d, keep, d, n, 1, p->s, n, 0, parts[i], 0, e) < 0)
			return -1;
		memcpy(parts[i], p->t, keep * d * sizeof(*p->t));
	}
	p->n = keep;
	return 0;
}

/* What M leaves of the first r rows of the basis, eigenvectors but for that, is next to nothing. */
static bool invariant(const struct subspace *p)
{
	double left = 0, all = 0;

	for (size_t i = 0; i < p->r && i < p->n; i++) {
		const double *v = p->v + i * p->d, *mv = p->mv + i * p->d;

		for (size_t j = 0; j < p->d; j++) {
			const double x = mv[j] - p->values[i] * v[j];

			left += x * x;
		}
		all += p->values[i] * p->values[i];
	}
	return !(left > INVARIANT * INVARIANT * all);
}

/* gain: what the sum of values has grown by at the last restarts, the last one first. */
static bool converged(double sum, const double gain[2], int round)
{
	if (round < 1)
		return false;
	return gain[0] <= TOLERANCE / 10 * sum ||
	       (round > 1 && gain[0] < gain[1] &&
		gain[0] * gain[0] <= TOLERANCE * sum * (gain[1] - gain[0]));
}

static int iterate(struct subspace *p, struct err *e)
{
	double sum = 0, gain[2] = { 0 };
	size_t m = p->l;

	start(p);
	for (int round = 0; round < RESTARTS; round++) {
		double now = 0;

		/* whole blocks: what M makes of the last one must continue all */
		while (m > 0 && (p->n + m <= p->cap || (p->cap == p->d && p->n < p->d)))
			if (extend(p, &m, e) < 0)
				return -1;
		if (deflate(p, m, e) < 0 || project(p, e) < 0)
			return -1;
		for (size_t i = 0; i < p->r && i < p->n; i++)
			now += p->values[i];
		gain[1] = gain[0];
		gain[0] = now - sum;
		sum = now;
		if (m == 0 || p->cap == p->d || invariant(p) || converged(sum, gain, round))
			break;
	}
	return 0;
}

int subspace_top(struct backend *b, const double *a, const double *bm, size_t d, size_t r,
		 double *u, struct err *e)
{
	struct subspace p = { .be = b, .a = a, .b = bm, .d = d, .r = r };
	int ret;

	p.l = (r + UNIT - 1) / UNIT * UNIT;
	p.keep = p.l + UNIT;
	if (p.keep > d / 2)
		p.l = p.keep = d;
	p.cap = p.keep + BLOCKS * p.l < d ? p.keep + BLOCKS * p.l : d;
	ret = subspace_init(&p, e) < 0 ? -1 : iterate(&p, e);
	if (ret == 0) {
		memset(u, 0, r * d * sizeof(*u));
		memcpy(u, p.v, (r < p.n ? r : p.n) * d * sizeof(*u));
	}
	b->ops->free(b, p.v);
	free(p.perm);
	return ret;
}
