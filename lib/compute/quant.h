/* SPDX-License-Identifier: Apache-2.0 */
/*
 * quant.h - every rule by which the reference systems quantize, in one table
 *
 * A rule makes a grid from the least and the greatest of a group's values.  On an integer grid
 *     q = clamp(round(x / s) + z, lo, hi)        x~ = s (q - z)
 * in f32 as published, round half to even.  Rules differ in s, in z and in whether the range is
 * made to hold 0; with b bits, A the larger of |m| and |M|, m' = min(m, 0), M' = max(M, 0):
 *
 *     quarot       sym   s = A / (2^(b-1) - 1)               z = 0             QuaRot, SpinQuant
 *     gptq         asym  s = (M' - m') / (2^b - 1)           z = round(-m'/s)  GPTQ, QuaRot
 *                  sym   s = 2 A / (2^b - 1)                 z = 2^(b-1), as GPTQ's code: where
 *                                                            nothing is negative s = M'/(2^b - 1)
 *     awq          asym  s = max(M - m, 1e-5) / (2^b - 1)    z = clamp(-round(m/s), 0, 2^b - 1)
 *                  sym   s = max(A, 1e-5) / (2^(b-1) - 1)    z = 0
 *     smoothquant  sym   as awq
 *     omniquant    asym  s = clamp((M - m) / (2^b - 1), 1e-5, 1e4)
 *                                                            z = round(clamp(-m/s, -1e4, 1e4))
 *     ostquant     asym  s = max(max(M, 1e-6) - m', 1e-6) / (2^b - 1)   z = round(-m'/s)
 *                  sym   s = max(-m' / 2^(b-1), max(M, 1e-6) / (2^(b-1) - 1))        z = 0
 *     awrq         asym  s = (M - m) / (2^b - 1)             z = round(-m/s)
 *     fqt          sym   as quarot
 *     ct           asym  as gptq                                               compressed-tensors
 *                  sym   s = 2 A / (2^b - 1)             z = 0
 *
 * Codes are 0 ... 2^b - 1 with a z, else -2^(b-1) ... 2^(b-1) - 1 (SmoothQuant's code does not
 * clamp: within its range nothing would be).  Where the published s is 0, a group of equal values,
 * s is 1.  e4m3: s = A / 448, x~ = s e4m3(x / s), beyond 448 saturated.
 */
#ifndef QP_QUANT_H
#define QP_QUANT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"
#include "lib/compute/clamp.h"

enum quant_rule { QUANT_QUAROT, QUANT_GPTQ, QUANT_AWQ, QUANT_SMOOTHQUANT, QUANT_OMNIQUANT,
		  QUANT_OSTQUANT, QUANT_AWRQ, QUANT_FQT, QUANT_CT,
		  QUANT_RULES };
enum quant_format { QUANT_INT, QUANT_E4M3 };
enum quant_per { QUANT_TENSOR, QUANT_TOKEN, QUANT_GROUP };

struct quant_grid {
	float scale, zero; /* zero: an integer; e4m3: 0 */
	float lo, hi;      /* of q - z: what x / s is clamped to */
};

/* How the rows of a matrix are quantized. */
struct quant {
	enum quant_format format;
	int bits;               /* 2 .. 8; e4m3: 8 */
	bool sym;               /* e4m3: true */
	enum quant_rule rule;
	enum quant_per per;
	size_t group;           /* QUANT_GROUP: so many columns of a row, a divisor of the width */
	double clip;            /* the range is multiplied by it first, 0 < clip <= 1 */
	/* static: one grid, or one a group of columns; NULL: from the values at hand.  A grid of
	 * their own a token has only dynamically. */
	const struct quant_grid *fixed;
	/* integers of 8 bits, counted from 0 as q + 128 where they are symmetric; clamp.group
	 * divides what shares a grid */
	struct clamp clamp;
};

/* The integers that x became, for products of integers: code = q (sym) or q - 2^(b-1), [t, k];
 * scale and zero [t, groups], x~ = scale (code - zero). */
struct quant_codes {
	int8_t *code;
	float *scale;
	int32_t *zero;
};

const char *quant_rule_name(enum quant_rule r);
int quant_rule_find(const char *name); /* -1: none */
/* Does the rule have a symmetric, or an asymmetric form? */
bool quant_rule_has(enum quant_rule r, bool sym);

/* The grid for values from m to M (per q->rule, bits, clip).  -1: the range is not finite, or so
 * narrow and so far from 0 that its zero is no integer of f32. */
int quant_fit(const struct quant *q, float m, float M, struct quant_grid *g);
/* The grid that has this scale and zero, as they are stored. */
void quant_grid_of(const struct quant *q, float scale, float zero, struct quant_grid *g);

/* n values on a grid: y (which may be x) is x~, code, unless NULL, as in struct quant_codes. */
void quant_run(const struct quant *q, const struct quant_grid *g, float *y, const float *x,
	       size_t n, int8_t *code);
/* A row of k: its groups, or all of it.  codes' arrays are those of the row.  *at: the first value
 * that is not finite, and -1, y undefined. */
int quant_row(const struct quant *q, float *y, const float *x, size_t k,
	      const struct quant_codes *codes, size_t *at);
/* Grids in a row of k. */
static inline size_t quant_groups(const struct quant *q, size_t k)
{
	return q->per == QUANT_GROUP ? k / q->group : 1;
}

/* Are there codes?  A published clamp's may lie below what int8_t holds. */
static inline bool quant_has_codes(const struct quant *q)
{
	return q->format == QUANT_INT && !(q->clamp.group > 0 && q->clamp.compat);
}

/* x to the nearest value of float8 e4m3fn, half to even, beyond 448 saturated. */
float e4m3_round(float x);

#endif
