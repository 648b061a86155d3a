/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kgrid_fit.h - scales and minima of super-blocks (kgrid.h) for given weights
 *
 * For each group first its own real scale s and minimum m, from the weights x and their energies
 * h: codes by trial scales that shrink the range step by step, then s and m by least squares for
 * those codes, the pair with the least sum h (x - w)^2.  Without a search: the full range.  Then
 * d = max s / 63 and dmin = max m / 63 (Q6_K: the scale furthest from 0 becomes -128 d), rounded
 * to F16, and the integers of each group: of the nearest and (with a search) their neighbours
 * those with the least error.  No scale is 0.
 */
#ifndef QP_KGRID_FIT_H
#define QP_KGRID_FIT_H

#include "lib/model/kgrid.h"

/* The head for w[KGRID_BLOCK] at this stride.  energy: of these columns, NULL: all weigh the same.
 * A scale beyond F16 becomes infinite. */
void kgrid_fit(enum codes_grid g, uint8_t *head, const float *w, size_t stride,
	       const float *energy, bool search);

/* The nearest codes for w[KGRID_BLOCK] with this head, half to even. */
void kgrid_codes(enum codes_grid g, uint8_t *code, const float *w, const uint8_t *head);

#endif
