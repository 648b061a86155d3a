/* SPDX-License-Identifier: Apache-2.0 */
/*
 * range.h - ranges of weights: full ones, and the shrunk ones of RANGE_MSE and RANGE_HMSE
 *
 * The search goes over many groups side by side.  A tile is one group of each of RANGE_ROWS rows,
 * turned: weight j of row r is t[j * RANGE_ROWS + r].  No sum runs across rows, so that all of them
 * go through the same instructions.  All lanes of a tile must be there; zeros fill those of rows
 * that nobody has.
 */
#ifndef QP_RANGE_H
#define QP_RANGE_H

#include "lib/method/quantizer.h"

#define RANGE_ROWS  32
#define RANGE_STEPS 80 /* shrinkages: maxshrink 0.8 of a grid of 100 */

/* Minimum, at most 0, and maximum, at least 0, of n adjacent weights. */
void range_of(const struct quantizer *q, const float *w, size_t n, float *lo, float *hi);
/* Scale and zero of a range, lo <= 0 <= hi, as quantizer.h has them. */
void range_params(const struct quantizer *q, double lo, double hi, float *scale, uint8_t *zero);

/* Scale and zero of each row's n weights, by the range that q asks for (any of the three), with
 * energy [n] for RANGE_HMSE; quantizer_choose(q) first.  Sums are f32 over 512 weights at most, f64
 * across. */
void range_fit(const struct quantizer *q, const float *t, size_t n, const float *energy,
	       float scale[RANGE_ROWS], float zero[RANGE_ROWS]);

/* For a range that many tiles share: adds to loss what all rows lose by one scale and zero, for
 * RANGE_MSE in units of `unit`. */
void range_loss(const struct quantizer *q, const float *t, size_t n, const float *energy,
		float scale, float zero, float unit, double *loss);

#endif
