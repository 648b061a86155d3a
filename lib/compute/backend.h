/* SPDX-License-Identifier: Apache-2.0 */
/*
 * backend.h - the work worth moving to another device, one table of functions a device
 *
 * The CPU column (backend_cpu.c) is the reference and complete; an entry that another column
 * leaves NULL is taken from it by backend_open.  Memory that alloc returns belongs to the
 * device: address arithmetic is allowed on it, reading it on the host is not (download).  On
 * the CPU the two are the same memory.
 *
 * All matrices are row-major f32 unless said otherwise; ld* are leading dimensions in
 * elements.  Sums are f32 within a tile (linear, attention: everywhere) and f64 across (hessian,
 * nll); the partition of every sum depends on shapes only, so results do not change with the
 * number of threads.
 * Functions return 0, or -1 with *e set.
 */
#ifndef QP_BACKEND_H
#define QP_BACKEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"
#include "lib/data/dtype.h"

struct pool;
struct backend;
struct quant;       /* lib/compute/quant.h */
struct quant_codes;
struct packed;  /* a weight matrix in the form the device's GEMM wants */
struct packed_i8;
struct hadamard;
struct hessian; /* an accumulator for X'X */

/* In what linears multiply, with BF16 attention too where there are kernels for it (but for
 * branches of a past: f32): scaled queries, keys, probabilities and values; sums are f32 always. */
enum compute {
	COMPUTE_F32,
	COMPUTE_BF16,   /* weights and inputs rounded to bf16, half to even */
	COMPUTE_BF16X3, /* both as sums of two bf16, three of the four products: each is right
			 * within 3 x 2^-16 of itself */
};

enum act_fn { ACT_FN_SILU, ACT_FN_RELU, ACT_FN_GELU, ACT_FN_GELU_TANH };

/*
 * What a quantized KV cache asks of attention.  A query reads the `recent` keys and values up to
 * its own from k and v (and past_k, past_v) here, which lie as those that attention is given, and
 * the earlier ones from those.  probs: a row of probabilities is quantized before it weighs values.
 */
struct attention_extra {
	const struct quant *probs;   /* or NULL */
	size_t recent;               /* 0: none; k ... are not read */
	const float *k, *v, *past_k, *past_v;
};

struct attention_shape {
	size_t nseq, seqlen;     /* tokens = nseq * seqlen */
	int heads, kv_heads, head_dim;
	size_t ldq, ldkv, ldo;
	float scale;             /* on q.k, usually 1 / sqrt(head_dim) */
	int causal;
	size_t window;           /* keys i-window < j <= i only; 0: no limit */
	/*
	 * Branches: the rows of one sequence (nseq 1, causal) are continuations, side by side, of
	 * the same `past` tokens, whose keys and values are at past_k, past_v [past, ldkv].  Row i
	 * sees all of those and the rows begin[i] .. i (host memory, [seqlen], not decreasing);
	 * windows count from row to row, then on into the past.  begin NULL: plain sequences.
	 */
	size_t past;
	const float *past_k, *past_v;
	const size_t *begin;
	const struct attention_extra *extra; /* or NULL */
};

/* One call at a time: all share the pool and its scratch memory. */
struct backend_ops {
	/* memory */
	void *(*alloc)(struct backend *b, size_t nbytes, struct err *e); /* 64-byte aligned */
	void (*free)(struct backend *b, void *p);
	int (*upload)(struct backend *b, void *dst, const void *src, size_t nbytes, struct err *e);
	int (*download)(struct backend *b, void *dst, const void *src, size_t nbytes,
			struct err *e);

	/* w [n, k] of type F32, F16 or BF16 in host memory -> *p, reused if it has that shape */
	int (*pack)(struct backend *b, struct packed **p, const void *w, enum dtype t, size_t n,
		    size_t k, struct err *e);
	void (*pack_free)(struct backend *b, struct packed *p);
	/* y [t, n] = x [t, k] w' (+ bias [n] unless NULL); += if add */
	int (*linear)(struct backend *b, float *y, size_t ldy, const float *x, size_t ldx, size_t t,
		      const struct packed *w, const float *bias, int add, struct err *e);

	/* The same of int8 into int32, exact: w [n, k], k < 2^17; y [t, n] = x [t, k] w' */
	int (*pack_i8)(struct backend *b, struct packed_i8 **p, const int8_t *w, size_t n, size_t k,
		       struct err *e);
	void (*pack_i8_free)(struct backend *b, struct packed_i8 *p);
	int (*linear_i8)(struct backend *b, int32_t *y, size_t ldy, const int8_t *x, size_t ldx,
			 size_t t, const struct packed_i8 *w, struct err *e);

	/* y = x / sqrt(mean x^2 + eps) * w; y may be x, here and in layernorm */
	int (*rmsnorm)(struct backend *b, float *y, const float *x, const float *w, size_t t,
		       size_t d, float eps, struct err *e);
	int (*layernorm)(struct backend *b, float *y, const float *x, const float *w,
			 const float *bias, size_t t, size_t d, float eps, struct err *e);
	/* Rotate heads of x [t, heads * head_dim] in place, halves i and i + head_dim/2 (as HF);
	 * token r has position r mod seqlen; cos, sin [seqlen, head_dim/2] */
	int (*rope)(struct backend *b, float *x, size_t ldx, size_t t, size_t seqlen, int heads,
		    int head_dim, const float *cos_, const float *sin_, struct err *e);
	/* o = softmax(scale q k' + mask) v, a head and sequence at a time, tiles of queries; no
	 * seqlen x seqlen matrix is ever held.  Query head h reads KV head h / (heads/kv_heads) */
	int (*attention)(struct backend *b, float *o, const float *q, const float *k,
			 const float *v, const struct attention_shape *s, struct err *e);
	/* y = act(gate) * up, or act(up) if gate is NULL; [n]; y may be gate or up */
	int (*gate)(struct backend *b, float *y, const float *gate, const float *up, size_t n,
		    enum act_fn act, struct err *e);
	/* Rows: y [n, d] = rows index[i] of x; rows index[i] of y += weight[i] * row i of x, no row
	 * of y twice.  index, weight: host memory; index NULL: i */
	int (*gather)(struct backend *b, float *y, const float *x, const uint32_t *index, size_t n,
		      size_t d, struct err *e);
	int (*scatter_add)(struct backend *b, float *y, const float *x, const uint32_t *index,
			   const float *weight, size_t n, size_t d, struct err *e);
	/* y [t, d] += w x + bias, w and bias [d] */
	int (*affine)(struct backend *b, float *y, const float *x, const float *w,
		      const float *bias, size_t t, size_t d, struct err *e);
	/* y [t, k] = x quantized and back; y may be x.  A grid for all values, dynamic: one for
	 * every seqlen rows, else seqlen is not looked at.  codes: the integers, too, or NULL.
	 * ERR_DATA when a value is not finite */
	int (*quantize)(struct backend *b, float *y, const float *x, size_t t, size_t k,
			size_t seqlen, const struct quant *q, const struct quant_codes *codes,
			struct err *e);
	/* every `order` values of x [n], a row vector, become x H / sqrt(order); order divides n */
	int (*hadamard)(struct backend *b, float *x, size_t n, const struct hadamard *h,
			struct err *e);
	/* nll[i] = logsumexp(logits_i) - logits_i[target_i], f64; target < 0: 0.
	 * logits [n, vocab].  ERR_DATA for a target outside the vocabulary */
	int (*nll)(struct backend *b, double *nll, const float *logits, size_t n, size_t vocab,
		   const int32_t *target, struct err *e);

	/* column statistics of x [t, k]; each of absmax, min, max (f32) and abssum (f64) may be
	 * NULL and is updated, not set.  A NaN makes its column's statistics NaN */
	int (*colstats)(struct backend *b, const float *x, size_t t, size_t k, float *absmax,
			double *abssum, float *min, float *max, struct err *e);

	/* H += x' x; f32 products summed over at most 2048 tokens, f64 beyond (with
	 * COMPUTE_BF16: of x rounded, as linears see it); upper tiles only:
	 * 4 n (n + 1) T^2 bytes for n = ceil(k / T) tiles of edge T <= 384 in a row */
	int (*hessian_new)(struct backend *b, struct hessian **h, size_t k, struct err *e);
	void (*hessian_free)(struct backend *b, struct hessian *h);
	int (*hessian_zero)(struct backend *b, struct hessian *h, struct err *e);
	int (*hessian_add)(struct backend *b, struct hessian *h, const float *x, size_t t,
			   struct err *e);
	/* packed upper triangle (tri_index), rounded once to f32, host memory */
	int (*hessian_get)(struct backend *b, const struct hessian *h, float *tri, struct err *e);

	/*
	 * In place in h, f64 [k, k], of which the upper triangle is read: h = R R', R upper
	 * triangular (Cholesky run from the last row up, k^3 / 3 operations), cut in panels of so
	 * many columns, the last may have fewer.  Above the diagonal block of a panel: R.  In
	 * its upper triangle: the inverse of R's block, which is the same block of U = R^-1,
	 * h^-1 = U' U; with panel >= k that is all of U.  The strict lower triangle is left
	 * undefined.  1 if h is not positive definite to working precision, that is when a pivot
	 * is at most k 2^-52 times its diagonal: *pivot is the smallest pivot met and *at its
	 * index; h is then undefined.
	 */
	int (*panel_factor)(struct backend *b, double *h, size_t k, size_t panel, double *pivot,
			    size_t *at, struct err *e);

	/* c [m, n] (+)= alpha a [m, k] b ([k, n] or, if tb, [n, k]); f32, for solvers */
	int (*gemm)(struct backend *b, int tb, size_t m, size_t n, size_t k, float alpha,
		    const float *a, size_t lda, const float *bm, size_t ldb, float beta, float *c,
		    size_t ldc, struct err *e);
	/* the same in f64 */
	int (*gemm64)(struct backend *b, int tb, size_t m, size_t n, size_t k, double alpha,
		      const double *a, size_t lda, const double *bm, size_t ldb, double beta,
		      double *c, size_t ldc, struct err *e);
	/* a [n, n], symmetric, of which the lower triangle is read: its rows become eigenvectors,
	 * of length 1 and orthogonal, of values [n], ascending.  ERR_DATA: no convergence */
	int (*eigen64)(struct backend *b, double *a, size_t n, double *values, struct err *e);
};

struct backend {
	const struct backend_ops *ops;
	char name[96];     /* "cpu avx512bf16 f32, openblas 0.3.21 Cooperlake": provenance */
	const char *warning; /* what the user should know about the device, or NULL */
	struct err alone;  /* why the processors are not shared that should be; or no error */
	enum compute compute;
	bool integers;     /* where weight and input have codes, they are multiplied */
	struct pool *pool; /* host threads */
	void *priv;
};

/* device: "cpu", "cuda", "cuda:N".  ERR_UNAVAIL when it is not built in or not there: never a
 * silent fallback.  threads 0: as many as there are processors, shared with the process group
 * (pool_share). */
int backend_open(struct backend *b, const char *device, int threads, struct err *e) MUST_USE;
void backend_close(struct backend *b);

/* In what linears multiply from now on: "f32" (as it is opened), "bf16", "bf16x3"; before anything
 * is packed.  ERR_USAGE for another word. */
int backend_compute(struct backend *b, const char *compute, struct err *e) MUST_USE;

/* [n]: the sum of each row of w, for what zero points add to a product; host memory. */
const int32_t *packed_i8_sums(const struct packed_i8 *p);

#endif
