/* SPDX-License-Identifier: Apache-2.0 */
/*
 * subspace.h - the first eigenvectors of a large symmetric matrix
 *
 * By a block Krylov space, restarted: from a random block X of l >= r rows the rows of X, X M,
 * X M^2, ... are made orthonormal until there are 8 l; the eigenvectors of M projected on them
 * (Rayleigh, Ritz) give the l + 32 with the largest values, and what M makes of the last block is
 * the next one.  In exact arithmetic that is block Lanczos (Golub, Underwood 1977) with thick
 * restart (Wu, Simon 2000); every block is made orthogonal to all others twice, and by Cholesky
 * with pivots within itself, twice too; rows that depend on others are left out.  As a block has
 * r rows at least, r equal values are found.  Nearly all of the work is in products of matrices.
 *
 * It ends when the r vectors are invariant but for 1/200 of what M makes of them, on which values
 * depend in the square, or what their sum still gains, judged by what it gained last, is below 1e-4
 * of it.  Vectors of values that are nearly as large as the r-th may then stand for each other;
 * where values fall the sum is right to many more digits.
 */
#ifndef QP_SUBSPACE_H
#define QP_SUBSPACE_H

#include <stddef.h>

#include "lib/base/err.h"

struct backend;

/* u [r, d], r <= d: orthonormal rows that are the first eigenvectors, from the largest value down,
 * of M = A B, which must be symmetric, and positive semidefinite but for rounding; a and b [d, d].
 * Takes memory for 20 r d numbers or so. */
int subspace_top(struct backend *b, const double *a, const double *bm, size_t d, size_t r,
		 double *u, struct err *e) MUST_USE;

#endif
