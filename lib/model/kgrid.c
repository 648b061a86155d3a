/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kgrid.c - the heads of super-blocks, and what codes stand for with them
 */
#include "lib/model/kgrid.h"

#include <string.h>

#include "lib/data/dtype.h"

static const struct kgrid grids[] = {
	[GRID_Q4_K] = { "q4_K", 4, 32, 16, false },
	[GRID_Q6_K] = { "q6_K", 6, 16, 18, true },
};
enum { N_GRIDS = sizeof(grids) / sizeof(grids[0]) };

const struct kgrid *kgrid(enum codes_grid g)
{
	return g == GRID_UNIFORM ? NULL : &grids[g];
}

enum codes_grid kgrid_from_name(const char *name)
{
	for (int i = GRID_UNIFORM + 1; i < N_GRIDS; i++)
		if (strcmp(grids[i].name, name) == 0)
			return (enum codes_grid)i;
	return GRID_UNIFORM;
}

enum codes_grid kgrid_of_bits(int bits)
{
	for (int i = GRID_UNIFORM + 1; i < N_GRIDS; i++)
		if (grids[i].bits == bits)
			return (enum codes_grid)i;
	return GRID_UNIFORM;
}

static float half_at(const uint8_t *p)
{
	return f16_to_f32((uint16_t)(p[0] | p[1] << 8));
}

void kgrid_params(enum codes_grid g, const uint8_t *head, float *scale, float *min)
{
	if (g == GRID_Q6_K) {
		const float d = half_at(head + 16);

		for (int j = 0; j < 16; j++)
			scale[j] = d * (float)(int8_t)head[j];
		return;
	}
	const float d = half_at(head), dmin = half_at(head + 2);
	const uint8_t *b = head + 4;

	for (int j = 0; j < 4; j++) {
		scale[j] = d * (float)(b[j] & 63);
		min[j] = dmin * (float)(b[j + 4] & 63);
		scale[j + 4] = d * (float)((b[j + 8] & 15) | b[j] >> 6 << 4);
		min[j + 4] = dmin * (float)(b[j + 8] >> 4 | b[j + 4] >> 6 << 4);
	}
}

void kgrid_row(enum codes_grid g, float *w, const uint8_t *code, const uint8_t *head)
{
	float scale[KGRID_MAX_GROUPS], min[KGRID_MAX_GROUPS];

	kgrid_params(g, head, scale, min);
	for (size_t j = 0; j < KGRID_BLOCK / grids[g].group; j++) {
		const size_t n = grids[g].group, at = j * n;

		for (size_t i = 0; i < n && grids[g].sym; i++)
			w[at + i] = scale[j] * (float)(code[at + i] - 32);
		for (size_t i = 0; i < n && !grids[g].sym; i++)
			w[at + i] = scale[j] * (float)code[at + i] - min[j];
	}
}

static void put_half(uint8_t *p, uint16_t h)
{
	p[0] = (uint8_t)(h & 0xff);
	p[1] = (uint8_t)(h >> 8);
}

void kgrid_head(enum codes_grid g, uint8_t *head, uint16_t d, uint16_t dmin, const int *s,
		const int *m)
{
	uint8_t *b = head + 4;

	if (g == GRID_Q6_K) {
		for (int j = 0; j < 16; j++)
			head[j] = (uint8_t)s[j];
		put_half(head + 16, d);
		return;
	}
	put_half(head, d);
	put_half(head + 2, dmin);
	for (int j = 0; j < 4; j++) {
		b[j] = (uint8_t)(s[j] | s[j + 4] >> 4 << 6);
		b[j + 4] = (uint8_t)(m[j] | m[j + 4] >> 4 << 6);
		b[j + 8] = (uint8_t)((s[j + 4] & 15) | (m[j + 4] & 15) << 4);
	}
}
