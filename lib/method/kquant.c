/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kquant.c - super-blocks of quantized weights (kquant.h)
 */
#include "lib/method/kquant.h"

#include "lib/model/kgrid_fit.h"

void kquant_fit(struct quantized *z, const struct quantizer *q, const float *w, size_t stride,
		const float *energy, size_t row, size_t block)
{
	const struct kgrid *grid = kgrid(z->grid);
	const size_t groups = KGRID_BLOCK / grid->group, at = row * z->groups + block * groups;
	uint8_t *head = z->head + (row * (z->cols / KGRID_BLOCK) + block) * grid->head;

	kgrid_fit(z->grid, head, w, stride, q->range == RANGE_HMSE ? energy : NULL,
		  q->range != RANGE_MINMAX);
	kgrid_params(z->grid, head, z->scale + at, z->min ? z->min + at : NULL);
	for (size_t j = 0; j < groups; j++)
		z->zero[at + j] = grid->sym ? 32 : 0;
}

void kquant_set(struct quantizer *q, enum codes_grid grid)
{
	const struct kgrid *k = kgrid(grid);

	q->grid = grid;
	if (k) {
		q->bits = k->bits;
		q->sym = k->sym;
		q->group = KGRID_BLOCK;
	}
}
