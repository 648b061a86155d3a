/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hadamard.h - Hadamard matrices made from their constructions, and the fast product
 *
 * H of order n has entries +-1 and H H' = n I.  An order is taken apart as n = 2^m k with m as
 * large as a construction of k is known for, H = K (x) S, S Sylvester's of order 2^m:
 *
 *     k = 1
 *     Paley I       k = q + 1,     q = 3 mod 4 a prime power
 *     Paley II      k = 2 (q + 1), q = 1 mod 4 a prime power
 *     Williamson    k = 4 w, from four symmetric circulant matrices of order w = 23, 29, 39, 43
 *
 * (R. Paley, J. Math. Phys. 12, 1933; J. Williamson, Duke Math. J. 11, 1944; order 92 Baumert,
 * Golomb and Hall, 1962.  The sequences behind Williamson's were searched for anew.)  What is made
 * is multiplied by its transpose before it is handed out.
 *
 * Columns are normalized so that the first row of H is all ones: the fixed direction of
 * rotations that must leave the mean alone (lib/method/rotation.h).
 */
#ifndef QP_HADAMARD_H
#define QP_HADAMARD_H

#include <stdbool.h>
#include <stddef.h>

#include "lib/base/err.h"

#define HADAMARD_MAX ((size_t)1 << 17) /* orders beyond are refused */

struct hadamard;

/* Is a construction known?  1 and 2 have theirs. */
bool hadamard_known(size_t order);
/* ERR_DATA naming the order for which no construction is known. */
int hadamard_new(struct hadamard **h, size_t order, struct err *e) MUST_USE;
void hadamard_free(struct hadamard *h);
size_t hadamard_order(const struct hadamard *h);
/* "Paley I, q = 43; 2^3": of the order 352 */
const char *hadamard_name(const struct hadamard *h);
/* +1 or -1 */
int hadamard_entry(const struct hadamard *h, size_t row, size_t col);
/* The order 2^m of Sylvester's factor. */
size_t hadamard_pow2(const struct hadamard *h);

/*
 * x [n] = x H / sqrt(n), a row vector times the matrix, or, transposed, x H' / sqrt(n), in place:
 * n (m + k) additions.  work [n].
 * The f32 product is the backend's.
 */
void hadamard_f64(const struct hadamard *h, double *x, bool transposed, double *work);

#endif
