/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kgrid.h - grids of super-blocks: ggml's Q4_K and Q6_K
 *
 * Of each 256 adjacent columns of a row, a super-block, every 32 (Q4_K) or 16 (Q6_K) have a scale,
 * and in Q4_K a minimum, that are small integers times numbers of F16 which the super-block shares:
 *
 *     Q4_K   w = (d s) q - dmin m     q 0 .. 15; s, m 0 .. 63
 *     Q6_K   w = (d s) (q - 32)       q 0 .. 63; s -128 .. 127
 *
 * in f32, each product and the difference rounded.  What a super-block has beside its codes is
 * its head, stored as ggml's blocks store it, little-endian:
 *
 *     Q4_K   16 bytes: d, dmin, s and m of 6 bits in 12 bytes
 *     Q6_K   18 bytes: s, d
 *
 * The 12 bytes b: for j < 4 s_j = b_j & 63 and m_j = b_(j+4) & 63; for j > 3 s_j = b_(j+4) & 15,
 * m_j = b_(j+4) >> 4, and bits 4 and 5 of them are bits 6 and 7 of b_(j-4) and b_j.
 */
#ifndef QP_KGRID_H
#define QP_KGRID_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum codes_grid { GRID_UNIFORM, GRID_Q4_K, GRID_Q6_K };

#define KGRID_BLOCK 256
#define KGRID_MAX_GROUPS 16
#define KGRID_MAX_HEAD 18

struct kgrid {
	const char *name; /* "q4_K" */
	int bits;
	size_t group;     /* columns that share a scale */
	size_t head;      /* bytes */
	bool sym;         /* no minimum */
};

/* NULL: GRID_UNIFORM, which has no super-blocks. */
const struct kgrid *kgrid(enum codes_grid g);
/* GRID_UNIFORM: there is none of that name. */
enum codes_grid kgrid_from_name(const char *name);
/* The grid of so many bits, GRID_UNIFORM if none has. */
enum codes_grid kgrid_of_bits(int bits);

/* d s and, of a grid that has it, dmin m, of all groups of a super-block. */
void kgrid_params(enum codes_grid g, const uint8_t *head, float *scale, float *min);
/* What codes of the whole super-block stand for. */
void kgrid_row(enum codes_grid g, float *w, const uint8_t *code, const uint8_t *head);

/* The head of so many integers: s and m [groups], in their ranges; d, dmin bits of F16. */
void kgrid_head(enum codes_grid g, uint8_t *head, uint16_t d, uint16_t dmin, const int *s,
		const int *m);

#endif
