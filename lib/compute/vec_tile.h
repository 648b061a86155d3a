/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vec_tile.h - Y [t, n] (+)= X W' of short numbers; included by vec_*.c, once a type of number
 *
 * The includer defines TILE(name); TILE_SUM, the type of a sum; TILE_ROWS x TILE_WIDE vectors
 * of TILE_LANES sums, which stay in registers; TILE_V, such a vector; TILE_DOT(acc, w, x): to each
 * lane the products of a unit of w and one of x.  Units are those of struct vec_tiles: x is
 * read a unit at a time for all lanes, where it lies, from rows VEC_PITCH apart, or BF16_PITCH
 * where TILE_FEW is defined, which divides TILE_ROWS and makes less work of rows that are left;
 * w is a vector of units.
 */
typedef TILE_SUM TILE(sum_v) __attribute__((vector_size(TILE_LANES * 4)));
typedef TILE_SUM TILE(sums) __attribute__((vector_size(TILE_LANES * 4), aligned(4), may_alias));
typedef uint32_t TILE(units) __attribute__((vector_size(TILE_LANES * 4), aligned(4), may_alias));
typedef uint32_t TILE(unit_v) __attribute__((vector_size(TILE_LANES * 4)));

/* Columns VEC_TILE; rows and pitch are constants where this is inlined. */
static inline __attribute__((always_inline)) void
TILE(make)(const size_t rows, const size_t pitch, TILE_SUM *y, size_t ldy, const uint32_t *x,
	   const uint32_t *w, size_t units, const TILE_SUM *start, int add)
{
	for (int g = 0; g < VEC_TILE; g += TILE_LANES * TILE_WIDE) {
		TILE_V acc[TILE_ROWS][TILE_WIDE];
		const uint32_t *wp = w + g;

		for (size_t i = 0; i < rows; i++)
			for (int j = 0; j < TILE_WIDE; j++)
				acc[i][j] = start ? (TILE_V)((const TILE(sums) *)(start + g))[j] :
						    (TILE_V){ 0 };
		for (size_t l = 0; l < units; l++, wp += VEC_TILE) {
			TILE(unit_v) wv[TILE_WIDE];

			for (int j = 0; j < TILE_WIDE; j++)
				wv[j] = ((const TILE(units) *)wp)[j];
			for (size_t i = 0; i < rows; i++) {
				TILE(unit_v) xv = x[i * pitch + l] - (TILE(unit_v)){ 0 };

				for (int j = 0; j < TILE_WIDE; j++)
					acc[i][j] = TILE_DOT(acc[i][j], wv[j], xv);
			}
		}
		for (size_t i = 0; i < rows; i++)
			for (int j = 0; j < TILE_WIDE; j++) {
				TILE(sums) *to = (TILE(sums) *)(y + i * ldy + g) + j;

				*to = (add ? (TILE(sum_v))*to : (TILE(sum_v)){ 0 }) +
				      (TILE(sum_v))acc[i][j];
			}
	}
}

#define TILE_MAKES(name, rows, pitch)                                                            \
	static void TILE(name)(TILE_SUM *y, size_t ldy, const uint32_t *x, const uint32_t *w,    \
			       size_t units, const TILE_SUM *start, int add)                     \
	{                                                                                        \
		TILE(make)(rows, pitch, y, ldy, x, w, units, start, add);                        \
	}

typedef void TILE(maker)(TILE_SUM *y, size_t ldy, const uint32_t *x, const uint32_t *w,
			 size_t units, const TILE_SUM *start, int add);

TILE_MAKES(tile, TILE_ROWS, VEC_PITCH)
#ifdef TILE_FEW /* a part of TILE_ROWS; and rows BF16_PITCH apart */
TILE_MAKES(few, TILE_FEW, VEC_PITCH)
TILE_MAKES(near_tile, TILE_ROWS, BF16_PITCH)
TILE_MAKES(near_few, TILE_FEW, BF16_PITCH)

static TILE(maker) *TILE(choose)(int few, size_t ldx)
{
	if (ldx == BF16_PITCH)
		return few ? TILE(near_few) : TILE(near_tile);
	return few ? TILE(few) : TILE(tile);
}
#else
#define TILE_FEW TILE_ROWS

static TILE(maker) *TILE(choose)(int few, size_t ldx)
{
	(void)few;
	(void)ldx;
	return TILE(tile);
}
#endif
#undef TILE_MAKES

/* A tile of which y has only so many rows and columns. */
static void TILE(edge)(TILE(maker) *make, TILE_SUM *y, size_t ldy, size_t rows, size_t columns,
		       const uint32_t *x, const uint32_t *w, size_t units, const TILE_SUM *start,
		       int add)
{
	TILE_SUM c[TILE_ROWS * VEC_TILE];

	make(c, VEC_TILE, x, w, units, start, 0);
	for (size_t i = 0; i < rows; i++)
		for (size_t j = 0; j < columns; j++) {
			TILE_SUM *to = y + i * ldy + j;

			*to = add ? *to + c[i * VEC_TILE + j] : c[i * VEC_TILE + j];
		}
}

/* Where sums will go to and a piece of the next panel of W on their way to the cache while a tile
 * is made: without it a result larger than the cache costs a seventh of the time. */
static inline void TILE(fetch)(const struct vec_product *p, const TILE_SUM *y, size_t rows,
			       const uint32_t *w, size_t from, size_t to)
{
	for (size_t i = 0; i < rows; i++)
		for (size_t j = 0; j < VEC_TILE; j += 16)
			__builtin_prefetch(y + i * p->ldy + j, 1);
	for (; from < to; from += 16)
		__builtin_prefetch(w + from, 0, 2);
}

static void TILE(run)(const struct vec_product *p)
{
	size_t tiles = (p->t + TILE_ROWS - 1) / TILE_ROWS;
	size_t piece = tiles ? (p->units * VEC_TILE / 16 + tiles - 1) / tiles * 16 : 0;

	for (size_t j = 0; j < p->n; j += VEC_TILE) {
		const uint32_t *w = p->w + j / VEC_TILE * p->ldw;
		const TILE_SUM *start = p->start ? (const TILE_SUM *)p->start + j : NULL;
		size_t columns = p->n - j < VEC_TILE ? p->n - j : VEC_TILE;
		size_t at = 0, end = p->n - j > VEC_TILE ? p->units * VEC_TILE : 0;

		for (size_t i = 0, made; i < p->t; i += made) {
			int few = p->t - i < TILE_ROWS;
			TILE(maker) *make = TILE(choose)(few, p->ldx);
			TILE_SUM *y = (TILE_SUM *)p->y + i * p->ldy + j;
			const uint32_t *x = p->x + i * p->ldx;
			size_t to = at + piece < end ? at + piece : end, rows;

			made = few ? TILE_FEW : TILE_ROWS;
			rows = p->t - i < made ? p->t - i : made;
			TILE(fetch)(p, y, rows, w + p->ldw, at, to);
			at = to;
			if (rows == made && columns == VEC_TILE)
				make(y, p->ldy, x, w, p->units, start, p->add);
			else
				TILE(edge)(make, y, p->ldy, rows, columns, x, w, p->units, start,
					   p->add);
		}
	}
}

#undef TILE
#undef TILE_SUM
#undef TILE_ROWS
#undef TILE_FEW
#undef TILE_WIDE
#undef TILE_LANES
#undef TILE_V
#undef TILE_DOT
