/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rotation.h - an orthogonal matrix, in the form in which it is quickest to multiply with
 *
 * R is block-diagonal: one orthogonal matrix of order `order`, repeated along vectors whose length
 * is a multiple of it.  All products in f64.
 *
 *     hadamard         H / sqrt(n)
 *     random-hadamard  diag(s) H / sqrt(n), s random signs
 *     orthogonal       Q of Gauss = Q T, T triangular with a positive diagonal: uniform (Haar)
 *     given            a matrix from elsewhere
 *
 * With keep_mean R 1 = 1, so that it commutes with taking the mean out (layer norms):
 *
 *     both hadamards   H' diag(1, s) H / n, s random signs: H's first row is all ones
 *     orthogonal       P diag(1, Q) P, P the reflection that takes the first axis to 1 / sqrt(n)
 */
#ifndef QP_ROTATION_H
#define QP_ROTATION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"

struct pool;
struct rotation;

enum rotation_kind { ROTATION_HADAMARD, ROTATION_RANDOM_HADAMARD, ROTATION_ORTHOGONAL };

/* ERR_DATA if no Hadamard matrix of the order is known; where says what it is for.
 * An orthogonal one takes 2 order^3 operations and 16 order^2 bytes. */
int rotation_new(struct rotation **r, enum rotation_kind kind, size_t order, bool keep_mean,
		 uint64_t seed, const char *where, struct err *e) MUST_USE;
/* m [order, order], copied.  ERR_DATA with its deviation max |m m' - I| if that exceeds 1e-4, or,
 * with keep_mean, if 1 does not stay 1 to that. */
int rotation_given(struct rotation **r, const double *m, size_t order, bool keep_mean,
		   const char *where, struct err *e) MUST_USE;
void rotation_free(struct rotation *r);
size_t rotation_order(const struct rotation *r);
/* "Paley I, q = 43; 2^3", "random orthogonal": for notes */
const char *rotation_name(const struct rotation *r);

/* Every row of x [rows, n] becomes row R; order divides n.  The rows are shared out in pool. */
int rotation_rows(const struct rotation *r, double *x, size_t rows, size_t n, struct pool *pool,
		  struct err *e) MUST_USE;
/* x [n, cols] becomes R' x. */
int rotation_columns(const struct rotation *r, double *x, size_t n, size_t cols,
		     struct pool *pool, struct err *e) MUST_USE;

#endif
