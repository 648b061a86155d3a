/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vec_amx.c - products of int8 and of bf16 by the tiles of AMX
 *
 * A tile is 16 rows of 64 bytes.  Four of them are sums, 32 x 32; two hold 32 rows of X as
 * they lie, 16 units each; two hold W as its panels have it, 16 units of 16 rows.  Written after
 * Intel's Architecture Instruction Set Extensions Programming Reference, chapter 3.  The tests run
 * this file with the four instructions replaced by C (VEC_AMX_EMULATED, tests/unit/products.c)
 * and, where there is AMX, as it is; on a processor with AMX it has not been run yet.
 */
#include "lib/compute/vec.h"

#ifdef VEC_X86
#include <immintrin.h>
#include <string.h>

#ifndef VEC_AMX_EMULATED
#pragma GCC target("arch=x86-64-v4,avx512bf16,amx-tile,amx-bf16,amx-int8")
#include "lib/compute/vec_bf16_units.h"
#define VEC_AMX_I8   i8_amx
#define VEC_AMX_BF16 bf16_amx
#endif

enum { ROWS = 32, UNITS = 16, TILES = 8 };

/* Tiles 0-3: sums; 4, 5: X; 6, 7: W. */
static void configure(void)
{
	struct {
		uint8_t palette, start_row, reserved[14];
		uint16_t colsb[16]; /* bytes of a row */
		uint8_t rows[16];
	} c = { .palette = 1 };

	for (int i = 0; i < TILES; i++) {
		c.colsb[i] = 64;
		c.rows[i] = 16;
	}
	_tile_loadconfig(&c);
}

/* A tile's worth of sums of which y has only so many rows and columns comes through here. */
struct corner {
	uint32_t sum[ROWS * VEC_TILE];
};

/* sums = what is in y [rows, columns] (if add) + start, whose numbers are int32 or f32 */
static void begin(const struct vec_product *p, uint32_t *sum, size_t ld, const uint32_t *y,
		  size_t rows, size_t columns, const uint32_t *start, int is_float)
{
	for (size_t i = 0; i < rows; i++)
		for (size_t j = 0; j < columns; j++) {
			uint32_t a = p->add ? y[i * p->ldy + j] : 0, b = start ? start[j] : 0;
			float f, g;

			if (is_float) {
				memcpy(&f, &a, 4);
				memcpy(&g, &b, 4);
				f += g;
				memcpy(&a, &f, 4);
			} else {
				a += b;
			}
			sum[i * ld + j] = a;
		}
}

/* The sums of 32 x 32, at `sum`, += x w. */
#define STEPS(name, dot)                                                                          \
	static void name(uint32_t *sum, size_t ld, const uint32_t *x, size_t ldx,                 \
			 const uint32_t *w, size_t units, int zero)                               \
	{                                                                                         \
		const size_t line = ldx * 4, s = ld * 4;                                          \
                                                                                                  \
		if (zero) {                                                                       \
			_tile_zero(0);                                                            \
			_tile_zero(1);                                                            \
			_tile_zero(2);                                                            \
			_tile_zero(3);                                                            \
		} else {                                                                          \
			_tile_loadd(0, sum, s);                                                   \
			_tile_loadd(1, sum + 16, s);                                              \
			_tile_loadd(2, sum + 16 * ld, s);                                         \
			_tile_loadd(3, sum + 16 * ld + 16, s);                                    \
		}                                                                                 \
		for (size_t l = 0; l < units; l += UNITS) {                                       \
			_tile_loadd(4, x + l, line);                                              \
			_tile_loadd(6, w + l * VEC_TILE, VEC_TILE * 4);                           \
			dot(0, 4, 6);                                                             \
			_tile_loadd(7, w + l * VEC_TILE + 16, VEC_TILE * 4);                      \
			dot(1, 4, 7);                                                             \
			_tile_loadd(5, x + 16 * ldx + l, line);                                   \
			dot(2, 5, 6);                                                             \
			dot(3, 5, 7);                                                             \
		}                                                                                 \
		_tile_stored(0, sum, s);                                                          \
		_tile_stored(1, sum + 16, s);                                                     \
		_tile_stored(2, sum + 16 * ld, s);                                                \
		_tile_stored(3, sum + 16 * ld + 16, s);                                           \
	}

STEPS(steps_i8, _tile_dpbssd)
STEPS(steps_bf16, _tile_dpbf16ps)

static void run(const struct vec_product *p, int is_float)
{
	struct corner c;

	configure();
	for (size_t j = 0; j < p->n; j += VEC_TILE) {
		const uint32_t *w = p->w + j / VEC_TILE * p->ldw;
		const uint32_t *start = p->start ? (const uint32_t *)p->start + j : NULL;
		size_t columns = p->n - j < VEC_TILE ? p->n - j : VEC_TILE;

		for (size_t i = 0; i < p->t; i += ROWS) {
			size_t rows = p->t - i < ROWS ? p->t - i : ROWS;
			uint32_t *y = (uint32_t *)p->y + i * p->ldy + j;
			int whole = rows == ROWS && columns == VEC_TILE;
			uint32_t *sum = whole ? y : c.sum;
			size_t ld = whole ? p->ldy : VEC_TILE;

			if (start || (p->add && !whole)) {
				memset(c.sum, 0, sizeof(c.sum));
				begin(p, sum, ld, y, rows, columns, start, is_float);
			}
			(is_float ? steps_bf16 : steps_i8)(sum, ld, p->x + i * p->ldx, p->ldx, w,
							   p->units, !start && !p->add);
			for (size_t r = 0; !whole && r < rows; r++)
				memcpy(y + r * p->ldy, sum + r * ld, columns * sizeof(*y));
		}
	}
	_tile_release();
}

static void run_i8(const struct vec_product *p)
{
	run(p, 0);
}

static void run_bf16(const struct vec_product *p)
{
	run(p, 1);
}

static void i8_units(uint32_t *u, const void *from, size_t k)
{
	memcpy(u, from, k);
	memset((char *)u + k, 0, -k % 4);
}

const struct vec_tiles VEC_AMX_I8 = {
	.rows = ROWS,
	.per_unit = 4,
	.multiple = UNITS,
	.x_units = i8_units,
	.w_units = i8_units,
	.run = run_i8,
};

const struct vec_tiles VEC_AMX_BF16 = {
	.rows = ROWS,
	.per_unit = 2,
	.multiple = UNITS,
	.x_units = bf16_units,
	.w_units = bf16_units,
	.run = run_bf16,
};
#else
typedef int vec_amx_is_empty;
#endif
