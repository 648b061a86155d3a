/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vec_pairs.h - products of int8 as pairs of int16, for instruction sets whose product of bytes is
 * not exact; included by vec_*.c behind their PAIRS_TABLE and TILE_* but TILE and TILE_SUM
 */
static void pairs_of(uint32_t *u, const void *from, size_t k)
{
	const int8_t *x = from;
	int16_t *to = (int16_t *)u;

	for (size_t i = 0; i < k; i++)
		to[i] = x[i];
	if (k % 2)
		to[k] = 0;
}

enum { PAIRS_ROWS = TILE_ROWS };
#define TILE(name) pairs_##name
#define TILE_SUM   int32_t
#include "lib/compute/vec_tile.h"

const struct vec_tiles PAIRS_TABLE = {
	.rows = PAIRS_ROWS,
	.per_unit = 2,
	.multiple = 1,
	.x_units = pairs_of,
	.w_units = pairs_of,
	.run = pairs_run,
};
