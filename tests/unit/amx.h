/* SPDX-License-Identifier: Apache-2.0 */
/*
 * amx.h - lib/compute/vec_amx.c with AMX's instructions written out in C, after the operation
 * sections of Intel's manual: i8_emulated, bf16_emulated
 *
 * It shows that tiles are configured, loaded, combined and stored where they belong.  What it
 * cannot show is that the processor does what the manual says.
 */
#ifndef QP_AMX_H
#define QP_AMX_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct amx_tile {
	uint8_t b[16][64];
};

static struct {
	struct amx_tile tile[8];
	uint16_t colsb[16];
	uint8_t rows[16];
	int configured;
} amx;

static void amx_config(const void *c)
{
	const uint8_t *b = c;

	memset(&amx, 0, sizeof(amx));
	memcpy(amx.colsb, b + 16, sizeof(amx.colsb));
	memcpy(amx.rows, b + 48, sizeof(amx.rows));
	amx.configured = b[0] == 1 && b[1] == 0;
	for (int i = 8; i < 16; i++)
		if (amx.colsb[i] || amx.rows[i])
			abort(); /* #GP */
}

static void amx_load(int t, const void *from, size_t stride)
{
	if (!amx.configured)
		abort();
	memset(&amx.tile[t], 0, sizeof(amx.tile[t]));
	for (size_t r = 0; r < amx.rows[t]; r++)
		memcpy(amx.tile[t].b[r], (const char *)from + r * stride, amx.colsb[t]);
}

static void amx_store(int t, void *to, size_t stride)
{
	for (size_t r = 0; r < amx.rows[t]; r++)
		memcpy((char *)to + r * stride, amx.tile[t].b[r], amx.colsb[t]);
}

/* Sum tile c, tiles a and b: c[m][n] += the four products of a[m][k] and b[k][n]. */
static void amx_bytes(int c, int a, int b)
{
	for (int m = 0; m < amx.rows[c]; m++)
		for (int k = 0; k < amx.colsb[a] / 4; k++)
			for (int n = 0; n < amx.colsb[c] / 4; n++) {
				int32_t s;

				memcpy(&s, amx.tile[c].b[m] + 4 * n, 4);
				for (int i = 0; i < 4; i++)
					s += (int8_t)amx.tile[a].b[m][4 * k + i] *
					     (int8_t)amx.tile[b].b[k][4 * n + i];
				memcpy(amx.tile[c].b[m] + 4 * n, &s, 4);
			}
}

static float amx_bf16(const uint8_t *b)
{
	uint32_t u = (uint32_t)b[1] << 24 | (uint32_t)b[0] << 16;
	float f;

	memcpy(&f, &u, 4);
	return f;
}

static void amx_pairs(int c, int a, int b)
{
	for (int m = 0; m < amx.rows[c]; m++)
		for (int k = 0; k < amx.colsb[a] / 4; k++)
			for (int n = 0; n < amx.colsb[c] / 4; n++) {
				const uint8_t *x = amx.tile[a].b[m] + 4 * k;
				const uint8_t *y = amx.tile[b].b[k] + 4 * n;
				float s;

				memcpy(&s, amx.tile[c].b[m] + 4 * n, 4);
				s += amx_bf16(x + 2) * amx_bf16(y + 2);
				s += amx_bf16(x) * amx_bf16(y);
				memcpy(amx.tile[c].b[m] + 4 * n, &s, 4);
			}
}

static void amx_zero(int t)
{
	memset(&amx.tile[t], 0, sizeof(amx.tile[t]));
}

/* f32 to bf16 in C as well: the machine may have neither. */
static void bf16_units(uint32_t *u, const void *from, size_t k)
{
	uint16_t *to = (uint16_t *)u;

	for (size_t i = 0; i < k; i++)
		to[i] = f32_to_bf16(((const float *)from)[i]);
	if (k % 2)
		to[k] = 0;
}

#include <immintrin.h>
#undef _tile_loadconfig
#undef _tile_loadd
#undef _tile_stored
#undef _tile_zero
#undef _tile_release
#undef _tile_dpbssd
#undef _tile_dpbf16ps
#define _tile_loadconfig(c)	amx_config(c)
#define _tile_loadd(t, p, s)	amx_load(t, p, s)
#define _tile_stored(t, p, s)	amx_store(t, p, s)
#define _tile_zero(t)		amx_zero(t)
#define _tile_release()		(amx.configured = 0)
#define _tile_dpbssd(c, a, b)	amx_bytes(c, a, b)
#define _tile_dpbf16ps(c, a, b) amx_pairs(c, a, b)

#define VEC_AMX_EMULATED
#define VEC_AMX_I8   i8_emulated
#define VEC_AMX_BF16 bf16_emulated
extern const struct vec_tiles i8_emulated, bf16_emulated;
#include "lib/compute/vec_amx.c"

#endif
