/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pivots.h - Cholesky with pivots, which finds what depends on what
 */
#ifndef QP_PIVOTS_H
#define QP_PIVOTS_H

#include <stddef.h>

/*
 * a [d, d], symmetric and positive semidefinite, full, with a diagonal of ones and zeros: in place,
 * below and on the diagonal, L with L L' = a, rows and columns in the order of perm [d].  The
 * largest of what is left of the diagonal comes next; when it is at most `least` the number of
 * columns so far is returned, the rank.  Room: rest [d].
 */
size_t pivoted_cholesky(double *a, size_t d, double least, size_t *perm, double *rest);

#endif
