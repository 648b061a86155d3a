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

#include "lib/method/range.h"

#define ROWS RANGE_ROWS /* of a tile */
#define EIGHT 8
#define DESCENT 256 /* columns of a descent at most */

/* The eight (or fewer) columns that come next, what they share their grids with, and L = U'. */
struct eight {
	size_t n;
	const float *scale[EIGHT], *zero[EIGHT]; /* of the tile's rows */
	float diag[EIGHT], inv[EIGHT];           /* U_jj, 1 / U_jj */
	float mid;                               /* 2^(b-1) */
	const float *l;                          /* of the first row and column, rows ld apart */
	size_t ld;
	float *w;                                /* weights; columns np apart */
	size_t np;
};

/* Adjacent columns of one row. */
struct descent {
	size_t n;                /* at most DESCENT */
	float *g;                /* D H */
	const float *inv;        /* 1 / H_jj */
	const float *h;          /* H's block on the diagonal, rows ld apart */
	size_t ld;
	float top;               /* the largest code */
	float code[DESCENT], scale[DESCENT], zero[DESCENT];

	/* out: the moves, and by how much tr D H D' fell */
	uint16_t *at;
	float *by;               /* of what the code stands for */
	size_t moves;
	double gain;
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
	/* Each code in turn becomes the best one while all others stay, g goes with it. */
	void (*descend)(struct descent *d);
	/* g[0 .. n) -= sum over i < moves of by[i] times row at[i] of h. */
	void (*spread)(float *g, size_t n, const uint16_t *at, const float *by, size_t moves,
		       const float *h, size_t ld);
};

/* The i-th that this machine has, each faster than the one before; NULL behind the last. */
const struct kernels *kernel_set(size_t i);
/* update for any number of columns: l is row c of L at the panel's first column. */
void kernels_update(const struct kernels *k, float *t, size_t c, size_t n, size_t j0, size_t j1,
		    const float *l, size_t ld);

#endif
