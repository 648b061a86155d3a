/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qwt_solve.h - the affine map that least squares puts between two sets of rows
 *
 * E ~ X W' + 1 b', X and E [rows, d], row t of weight v_t.  Sums are f64, means weighted:
 *     G = sum v (x - mx)(x - mx)'    C = sum v (e - me)(x - mx)'
 *     W = C (G + ridge diag G)^-1               b = me - W mx
 * by a Cholesky factorization of G, scaled to a unit diagonal, with pivots: directions below
 * d 2^-52 of the largest get no weight.
 */
#ifndef QP_QWT_SOLVE_H
#define QP_QWT_SOLVE_H

#include <stdbool.h>
#include <stddef.h>

#include "lib/base/err.h"

struct backend;
struct pool;

struct qwt_sums {
	size_t d;
	double n;            /* sum of the rows' weights */
	double *g, *c;       /* [d, d], upper triangle and diagonal; [d (of e), d (of x)] */
	double *mx, *me;     /* [d]: sums of x and of e */
	double *chunk;
	double ee;           /* sum of e^2 */
};

int qwt_sums_init(struct qwt_sums *s, size_t d, struct err *e) MUST_USE;
void qwt_sums_zero(struct qwt_sums *s);
void qwt_sums_release(struct qwt_sums *s);
/* 1 / mean(a^2) of a row [d], 0 if it is all zeros: what an error there counts behind the norms. */
double qwt_weight(const float *a, size_t d);
/* Rows of X and of E = a - b, of weight 1 or, weigh, qwt_weight of a's row. */
void qwt_sums_add(struct qwt_sums *s, struct pool *pool, const float *x, const float *a,
		  const float *b, size_t n, bool weigh);

/* As if the rows of `more` had been added to s too. */
void qwt_sums_merge(struct qwt_sums *s, const struct qwt_sums *more);

/* W [d, d] and b [d] from the sums.  -1: no memory. */
int qwt_solve(struct pool *pool, const struct qwt_sums *s, double ridge, double *w, double *bias,
	      struct err *e) MUST_USE;
/* Sum of v |e - W x - b|^2 over the rows that made the sums, which need not be those of W and b. */
int qwt_misfit(struct backend *b, const struct qwt_sums *s, const double *w, const double *bias,
	       double *misfit, struct err *e) MUST_USE;
/* As published: inverse of [X 1]'[X 1] in f32, no ridge. */
int qwt_solve_compat(struct qwt_sums *s, double *w, double *bias, struct err *e) MUST_USE;
/* Of each channel by itself: W is diag(w), w [d]. */
void qwt_solve_diagonal(struct qwt_sums *s, double ridge, double *w, double *bias);
/* The best W of rank r, for the rows that made the sums, from the best of full rank: up [d, r],
 * orthonormal columns, times down [r, d], bias anew (subspace.h).  Before: qwt_solve. */
int qwt_low_rank(struct backend *b, const struct qwt_sums *s, const double *w, size_t r, double *up,
		 double *down, double *bias, struct err *e) MUST_USE;

#endif
