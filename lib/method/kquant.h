/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kquant.h - scales and minima of super-blocks (lib/model/kgrid.h) for given weights
 *
 * For each group first its own real scale s and minimum m, from the weights x and their energies
 * h (RANGE_HMSE; else 1): codes by trial scales that shrink the range step by step, then s and m
 * by least squares for those codes, the pair with the least sum h (x - w)^2.  RANGE_MINMAX: the
 * full range.  Then d = max s / 63 and dmin = max m / 63 (Q6_K: the scale furthest from 0 becomes
 * -128 d), rounded to F16, and the integers of each group: of the nearest and their neighbours
 * those with the least error.  No scale is 0.
 */
#ifndef QP_KQUANT_H
#define QP_KQUANT_H

#include "lib/method/quantizer.h"

/* Of super-block `block` of row `row` of z, for w[KGRID_BLOCK] at this stride: head, scale and min.
 * energy: of these columns (RANGE_HMSE).  A scale beyond F16 becomes infinite. */
void kquant_fit(struct quantized *z, const struct quantizer *q, const float *w, size_t stride,
		const float *energy, size_t row, size_t block);

/* A quantizer whose bits, group (a super-block's columns) and sym are those of its grid. */
void kquant_set(struct quantizer *q, enum codes_grid grid);

#endif
