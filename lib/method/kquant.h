/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kquant.h - super-blocks (lib/model/kgrid_fit.h) of quantized weights: with the range RANGE_HMSE
 * energies weigh what the error is, with RANGE_MINMAX nothing is searched for
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
