/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vec.h - the loops that are not matrix products, compiled once per instruction set
 *
 * vec_kernels.h is plain C that the compiler vectorizes; vec_base.c, vec_v3.c and
 * vec_v4.c compile it for the build's baseline, AVX2 and AVX-512.  Sums run in 16
 * fixed lanes and nothing is contracted, so all of them give the same bits.
 */
#ifndef QP_VEC_H
#define QP_VEC_H

#include <stddef.h>

#include "lib/compute/backend.h"

#define VEC_PANEL   64        /* columns of a product that are made at once */
#define VEC_QUERIES VEC_PANEL /* queries of an attention tile */
#define VEC_KEYS    128
#define F64_PANEL   32

/* Queries q0 ... q0 + nq - 1 <= q0 + VEC_QUERIES - 1 of one head; q and o point to the first
 * of them, k and v to key 0. */
struct attend {
	const float *q, *k, *v;
	float *o;
	size_t ldq, ldkv, ldo, d, seqlen, q0, nq, window;
	float scale;
	int causal;
	size_t past;                   /* as in struct attention_shape */
	const float *past_k, *past_v;
	const size_t *begin;           /* [nq], or NULL */
};

/* Floats of scratch that attend needs, aligned to 64 bytes. */
#define VEC_ATTEND_WORK(d) ((2 * (size_t)(d) + VEC_KEYS) * VEC_QUERIES)

/* Floats of scratch that signs needs: 8 tables of 16 sums, and a sum for each column. */
#define VEC_SIGNS_WORK(k) (2048 + 16 * (size_t)(k))

struct vec_ops {
	const char *name; /* "avx512" */
	/* y [t, n] = x [t, k] w', += if add; w is in panels of VEC_PANEL of its n rows, each
	 * [k][VEC_PANEL], the last filled up with anything */
	void (*linear)(float *y, size_t ldy, const float *x, size_t ldx, size_t t, const float *w,
		       size_t n, size_t k, int add);
	/* y [rows, n rounded up to VEC_PANEL] = a' w, rows <= VEC_PANEL, of the same panels: a is
	 * one [k][VEC_PANEL] */
	void (*inner)(float *y, size_t ldy, const float *a, size_t rows, const float *w, size_t n,
		      size_t k);
	/* y[j * ldy + i] = x[i * ldx + j], i < m, j < n */
	void (*transpose)(float *y, size_t ldy, const float *x, size_t ldx, size_t m, size_t n);
	/* one row of d; y may be x */
	void (*rmsnorm)(float *y, const float *x, const float *w, size_t d, float eps);
	void (*layernorm)(float *y, const float *x, const float *w, const float *bias, size_t d,
			  float eps);
	/* rotate one head of 2 half values */
	void (*rope)(float *x, const float *cos_, const float *sin_, size_t half);
	void (*gate)(float *y, const float *gate, const float *up, size_t n, enum act_fn act);
	void (*attend)(const struct attend *t, float *work);
	/* log(sum exp(x[i] - max x)) + max x */
	double (*logsumexp)(const float *x, size_t n);
	/* columns j < n of t rows; any result may be NULL.  A NaN makes its column's NaN */
	void (*colstats)(const float *x, size_t ld, size_t t, size_t n, float *absmax,
			 double *abssum, float *min, float *max);
	void (*addf64)(double *y, const float *x, size_t n); /* y += x */
	void (*fill)(float *y, const float *x, size_t n);    /* y = x */
	/* y = x to bf16, half to even; or what that leaves of x, to bf16 (of a number that is not
	 * finite: 0) */
	void (*bf16)(float *y, const float *x, size_t n, int rest);
	/* x [n / m, m] = scale x S in place, S Sylvester's Hadamard matrix of order m = 2^l */
	void (*sylvester)(float *x, size_t m, size_t n, float scale);
	/* x [k, m] = K' x in place, K [k, k] of +-1, 4 divides k: bit r of signs[g * k + j] is set
	 * where K[4 g + r][j] = -1.  work [VEC_SIGNS_WORK(k)], aligned to 64 bytes */
	void (*signs)(float *x, size_t m, const uint8_t *signs, size_t k, float *work);

	/* f64, for the factor of a Hessian.  A panel of B has n <= F64_PANEL columns of use */
	/* c [m, n] = a [m, k] b, or c -= a b; b [k][F64_PANEL], rows ldb apart */
	void (*product64)(double *c, size_t ldc, const double *a, size_t lda, size_t m,
			  const double *b, size_t ldb, size_t n, size_t k, int sub);
	/* y [k][F64_PANEL] = x [n, k] transposed, zeros behind column n */
	void (*turn64)(double *y, const double *x, size_t ldx, size_t n, size_t k);
	/* h [n, n], n <= F64_PANEL, of which the upper triangle is read: h = R R', R upper
	 * triangular; h = the transpose of R^-1, with its zeros.  -1, and h as it was, if a pivot
	 * is at most slack times was[its index] */
	int (*factor64)(double *h, size_t ld, size_t n, const double *was, double slack);
};

extern const struct vec_ops vec_base;
/* clang has no pragma for a file's target: there the baseline serves all */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define VEC_X86 1
extern const struct vec_ops vec_v3, vec_v4;
#endif

/*
 * Products of short numbers, X [t, k] times W [n, k]'.  Numbers stand along k in units of 32
 * bits: 4 of int8, 2 of int16 or bf16; what is left of the last unit is 0 in W.  W lies in
 * panels of VEC_TILE rows, each [units][VEC_TILE], the last one filled up with anything.
 */
#define VEC_TILE  32
#define VEC_DEPTH 320              /* units of k at a time: 40 KiB of a panel */
#define VEC_PITCH (VEC_DEPTH + 16) /* rows of X lie apart so that they fall on different sets of
				      the cache */

#define BF16_KEYS  96 /* keys of an attention block in bf16, */
#define BF16_DEPTH 64 /* units of a head at a time, */
#define BF16_PITCH (BF16_DEPTH + 16) /* and their rows */

struct vec_product {
	void *y;           /* [t, n] of int32 or f32 */
	const uint32_t *x; /* [t, ldx], readable up to a multiple of `rows` rows */
	const uint32_t *w;
	const void *start; /* [n rounded up to VEC_TILE] added to each row; NULL: 0 */
	size_t ldx;        /* VEC_PITCH or, of bf16, BF16_PITCH */
	size_t ldy, ldw;   /* ldw: units from panel to panel */
	size_t t, n, units; /* units <= VEC_DEPTH, BF16_DEPTH */
	int add;           /* y += */
};

struct vec_tiles {
	size_t rows;     /* of X that are made at once */
	size_t per_unit; /* numbers in a unit */
	size_t multiple; /* the number of units is one of this; units added are 0 in X and W */
	int offset;      /* what x_units adds to each number: sums start from it */
	/* a row of k numbers (int8; f32 for bf16) to units */
	void (*x_units)(uint32_t *u, const void *x, size_t k);
	void (*w_units)(uint32_t *u, const void *w, size_t k);
	void (*run)(const struct vec_product *p);
};

extern const struct vec_tiles i8_base;
#ifdef VEC_X86
extern const struct vec_tiles i8_v3, i8_v4, i8_vnni, i8_amx, bf16_v4, bf16_amx;

/*
 * Attention by tiles of bf16, without past or branches.  A head's keys and values lie in
 * blocks of BF16_KEYS, each BF16_BLOCK units, behind the last one BF16_SLACK; work is scratch of
 * BF16_WORK floats, aligned to 64 bytes, in both.
 */
#define BF16_UNITS(d, multiple) ((((d) + 1) / 2 + (multiple) - 1) / (multiple) * (multiple))
#define BF16_BLOCK(d, units) \
	((((units) + BF16_DEPTH - 1) / BF16_DEPTH * BF16_KEYS + (d)) * BF16_PITCH)
#define BF16_SLACK (32 * BF16_PITCH)
#define BF16_WORK(d, units) \
	(VEC_QUERIES * (2 * (units) + BF16_KEYS / 2 + (d)) + BF16_KEYS * (VEC_QUERIES + (d)))
void bf16_attend(const struct attend *t, const struct vec_tiles *tiles, const uint32_t *blocks,
		 float *work);
void bf16_block(const struct attend *t, const struct vec_tiles *tiles, size_t k0, uint32_t *block,
		float *work);
#endif

/* Each has what the ones before it have: AVX2 and FMA; AVX-512 F, BW, VL, DQ; its VNNI; its BF16;
 * AMX for int8 and bf16. */
enum vec_level { VEC_PLAIN, VEC_AVX2, VEC_AVX512, VEC_VNNI, VEC_BF16, VEC_AMX };

/* What of all this a processor gets. */
struct vec_set {
	const char *name, *refused; /* for the provenance: the level as QP_CPU names it */
	enum vec_level level;
	int capped; /* QP_CPU is set */
	const struct vec_ops *ops;
	const struct vec_tiles *i8, *bf16; /* bf16 NULL: its f32 is as fast */
};

/* The best set this processor runs, or that which the environment's QP_CPU names.  ERR_USAGE for
 * an unknown word, ERR_UNAVAIL for a set it has not.  Tiles of AMX need the system's permission;
 * refused, the next set is taken and `refused` says so. */
int vec_select(struct vec_set *s, struct err *e) MUST_USE;

/* The level alone, for loops that have their own kernels; never above QP_CPU. */
enum vec_level vec_level(void);

#endif
