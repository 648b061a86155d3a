/* SPDX-License-Identifier: Apache-2.0 */
/*
 * quantizer.h - uniform quantizers of weights: grids, ranges, codes
 *
 * A group of weights shares a scale s > 0 and a zero z (an integer code).  Codes are unsigned:
 *     q = clamp(round(w / s + z), 0, 2^b - 1)       w~ = s (q - z)
 * round is half to even.  w / s + z is one f32 sum with z counted from 2^(b-1), so that ties,
 * frequent where the weights are bf16, fall as in compressed-tensors.
 * Symmetric: z = 2^(b-1) and s = absmax / ((2^b - 1) / 2), the rule of compressed-tensors and of
 * GPTQ's code: the grid reaches from -absmax - s/2 to absmax - s/2.
 * Asymmetric: m = min(w, 0), M = max(w, 0), s = (M - m) / (2^b - 1), z = clamp(round(-m / s)).
 * A group of zeros gets s = 1.  s is computed in f64 and rounded to the type it will be stored
 * in (F16 unless asked otherwise) before z or any code is computed: what is stored is what was
 * used.  A scale below that type's smallest number is that number; one above its largest is
 * infinite, and the quantizers refuse it (ERR_DATA).
 *
 * RANGE_MSE: the range is shrunk by p = 1 - i / 100, i = 0 .. 79, to the p with the least
 * sum |w - w~|^2.4 (Frantar et al., GPTQ, quant.py: norm 2.4, grid 100, maxshrink 0.8).
 * RANGE_HMSE: the same grid, to the p with the least sum h_j (w_j - w~_j)^2, where h_j is the
 * energy of the input that weight j multiplies: H_jj.
 */
#ifndef QP_QUANTIZER_H
#define QP_QUANTIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"
#include "lib/base/round.h"
#include "lib/data/dtype.h"
#include "lib/model/kgrid.h"

struct pool;

/* How a group's range is found: the full one, or shrunk to the least error. */
enum quantizer_range { RANGE_MINMAX, RANGE_MSE, RANGE_HMSE };

struct quantizer {
	int bits;            /* 2 .. 8 */
	bool sym;
	long group;          /* columns a group; -1: the row; 0: the whole tensor */
	enum quantizer_range range;
	enum dtype scale_dtype; /* F16, BF16 or F32 */
	enum codes_grid grid; /* of super-blocks (kquant.h), which then says bits, sym and group */
	const float *energy; /* RANGE_HMSE: h of a row's weights; the caller's */
	const struct range_kernels *kernels; /* quantizer_choose; NULL: plain C */
};

/* Codes and parameters of one linear [rows, cols]; groups = cols / group, 1 for -1 and 0. */
struct quantized {
	size_t rows, cols, groups, group; /* group: columns in each */
	int bits;
	bool sym;
	bool per_tensor;     /* all rows share one scale and zero: stored as [1, 1] */
	enum codes_grid grid;
	uint8_t *codes;      /* [rows, cols] */
	float *scale;        /* [rows, groups], already rounded to scale_dtype */
	uint8_t *zero;       /* [rows, groups]; sym: all 2^(b-1) */
	float *min;          /* [rows, groups] of a grid with minima: w~ = s q - min; or NULL */
	uint8_t *head;       /* of a grid: [rows, cols / KGRID_BLOCK, bytes], which say the rest */
	size_t cap, cap_groups;
	float *min_room;
	size_t cap_min, cap_head;
};

/* ERR_DATA when group does not divide cols: says which sizes work ("1, 2, 4, ... 64, 128"). */
int quantizer_groups(const struct quantizer *q, size_t cols, const char *where, size_t *groups,
		     size_t *group, struct err *e) MUST_USE;
/* The group sizes that divide n columns, "1, 2, 4, 8", into buf; cut with dots where it is full. */
void quantizer_sizes(size_t n, char *buf, size_t cap);

/* Allocate (or reuse) the arrays for [rows, cols]; zero-initialise z before the first. */
int quantized_init(struct quantized *z, const struct quantizer *q, size_t rows, size_t cols,
		   const char *where, struct err *e) MUST_USE;
void quantized_release(struct quantized *z);

/* What this machine looks for ranges with: to ask the processor for every group takes longer than
 * the group does. */
void quantizer_choose(struct quantizer *q);

/* Scale and zero of n adjacent weights, by their full range. */
void quantizer_fit(const struct quantizer *q, const float *w, size_t n, float *scale,
		   uint8_t *zero);
/* Scale and zero of every group of w [rows, cols], into z (quantized_init first), by the range that
 * q asks for.  Rows run in parallel; per tensor one range serves all.  ERR_DATA when a weight is
 * not finite (named by row and column) or a scale does not fit its type. */
int quantizer_fit_all(struct quantized *z, const struct quantizer *q, const float *w,
		      struct pool *pool, const char *where, struct err *e) MUST_USE;
/* ERR_DATA naming the first value of w that is not finite. */
int quantizer_check_finite(const float *w, size_t rows, size_t cols, const char *where,
			   struct err *e) MUST_USE;
/* ERR_DATA naming the first row and group whose scale does not fit q->scale_dtype. */
int quantized_check_scales(const struct quantized *z, const struct quantizer *q,
			   const char *where, struct err *e) MUST_USE;

static inline float dequantize(int code, int zero, float scale)
{
	return scale * (float)(code - zero);
}

/* The zero of group i as quantize_run wants it, also where there is a minimum instead. */
static inline float quantized_zero(const struct quantized *z, size_t i)
{
	return z->min ? z->min[i] / z->scale[i] : (float)z->zero[i];
}

/* What is to be subtracted from dequantize in group i. */
static inline float quantized_min(const struct quantized *z, size_t i)
{
	return z->min ? z->min[i] : 0;
}

/* s in the type it will be stored in: positive, or infinite when it is too large. */
float quantizer_round_scale(double s, enum dtype t);

/* The code of w; half to even, and no overflow for any finite w. */
int quantize(float w, float scale, int zero, int bits);
/* The codes of n weights that share a scale and a zero. */
void quantize_run(uint8_t *code, const float *w, size_t n, float scale, float zero, int bits);

/* w~ of all codes, [rows, cols]. */
void quantized_dequantize(const struct quantized *z, float *w);

#endif
