/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gptq_kernels.h - inner loops of the column solver and of the descent, by instruction set
 *
 * A tile is ROWS rows of the transposed weights.  Nothing is contracted, so that all sets give the
 * same bits.
 */
#ifndef QP_GPTQ_KERNELS_H
#define QP_GPTQ_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#define ROWS 32   /* of a tile */
#define EIGHT 8

/* The eight (or fewer) columns that come next, what they share their grids with, and L there: U',
 * or H for descend. */
struct eight {
	size_t n;
	const float *scale[EIGHT], *zero[EIGHT]; /* of the tile's rows */
	float diag[EIGHT], inv[EIGHT];           /* U_jj, 1 / U_jj; of descend: of H_jj */
	float mid;                               /* 2^(b-1) */
	const float *l;                          /* of the first row and column, rows ld apart */
	size_t ld;
	float *w;                                /* weights, or W - Q; columns np apart */
	size_t np;
};

struct kernels {
	const char *name;
	/* t[c .. c+7] -= sum over j in [j0, j1) of l[..][j] t[j], each of them ROWS floats.  l
	 * points at L's row c and the first column of the panel. */
	void (*update)(float *t, size_t c, size_t j0, size_t j1, const float *l, size_t ld);
	/* From -S to w + S U_pp, but for the columns of the panel before these eight, which
	 * update adds.  t points at the first. */
	void (*enter)(float *t, const struct eight *g);
	/* Each column takes the errors of those of the eight before it, gets its codes, and
	 * leaves its error in t and w - q in w.  t and code point at the first. */
	void (*solve)(float *t, uint8_t *code, const struct eight *g, float *loss);
	/* Coordinate descent: t holds H D, each column takes the steps of those of the eight
	 * before it, its code becomes the best one while all others stay, t its step, w goes with
	 * it, and by how much tr D H D' fell is added to gain[ROWS]. */
	void (*descend)(float *t, uint8_t *code, const struct eight *g, float *gain);
};

/* The i-th that this machine has, each faster than the one before; NULL behind the last. */
const struct kernels *kernel_set(size_t i);
/* update for any number of columns: l is row c of L at the panel's first column. */
void kernels_update(const struct kernels *k, float *t, size_t c, size_t n, size_t j0, size_t j1,
		    const float *l, size_t ld);

#endif
