/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cpu.h - what the files of the CPU column share; private to lib/compute
 *
 * Every operation cuts its work into tasks by shape alone and runs them on the
 * backend's pool; BLAS is called with one thread inside tasks.  So the bytes of
 * a result do not depend on the number of threads.
 */
#ifndef QP_CPU_H
#define QP_CPU_H

#include <cblas.h>

#include "lib/base/pool.h"
#include "lib/compute/backend.h"
#include "lib/compute/vec.h"

#define CPU_ALIGN 64
#define CPU_HUGE  ((size_t)2 << 20) /* from here on memory is asked for in huge pages */

/* The functions of OpenBLAS that are used. */
struct blas {
	__typeof__(cblas_sgemm) *sgemm;
	__typeof__(cblas_ssyrk) *ssyrk;
	/* LAPACK's; the lengths of the two words are last */
	void (*dsyevd)(const char *job, const char *uplo, const blasint *n, double *a,
		       const blasint *lda, double *w, double *work, const blasint *lwork,
		       blasint *iwork, const blasint *liwork, blasint *info, size_t, size_t);
	char *(*config)(void);
	char *(*corename)(void);
	int (*parallel)(void);
	void (*set_num_threads)(int n);
	/* a buffer that a call works in: the first free one, or a new one */
	void *(*memory_alloc)(int unused);
	void (*memory_free)(void *buffer);
};

struct cpu {
	struct vec_set set;
	const struct vec_ops *vec; /* of the set */
	struct blas blas;
	int threads;
	void **scratch; /* [threads], each of scratch_bytes, kept from call to call */
	size_t scratch_bytes;
	void *shared; /* one more buffer, for what all threads read */
	size_t shared_bytes;
};

static inline struct cpu *cpu_of(const struct backend *b)
{
	return b->priv;
}

/* 64-byte aligned memory, in huge pages when it is large; free with free(). */
void *cpu_malloc(size_t nbytes);

/* Make every thread's scratch at least nbytes; contents do not survive. */
int cpu_scratch(struct backend *b, size_t nbytes, struct err *e) MUST_USE;
int cpu_shared(struct backend *b, size_t nbytes, struct err *e) MUST_USE;

/* Parts of at most max that n is cut into, all of nearly the same size and a multiple of unit
 * but for the last.  *part is the size of a part; returns their number. */
size_t cpu_parts(size_t n, size_t max, size_t unit, size_t *part);

/* cpu_blas.c: load OpenBLAS, kept to a set that QP_CPU names, with memory for calls from so many
 * threads at the same time.
 * ERR_NOMEM; ERR_UNAVAIL when it is not there or not usable. */
int blas_open(struct blas *b, const struct vec_set *set, int threads, struct err *e) MUST_USE;

/* cpu_linear.c */
int cpu_pack(struct backend *b, struct packed **p, const void *w, enum dtype t, size_t n, size_t k,
	     struct err *e);
void cpu_pack_free(struct backend *b, struct packed *p);
int cpu_linear(struct backend *b, float *y, size_t ldy, const float *x, size_t ldx, size_t t,
	       const struct packed *w, const float *bias, int add, struct err *e);
int cpu_gemm(struct backend *b, int tb, size_t m, size_t n, size_t k, float alpha, const float *a,
	     size_t lda, const float *bm, size_t ldb, float beta, float *c, size_t ldc,
	     struct err *e);

/* cpu_i8.c */
int cpu_pack_i8(struct backend *b, struct packed_i8 **p, const int8_t *w, size_t n, size_t k,
		struct err *e);
void cpu_pack_i8_free(struct backend *b, struct packed_i8 *p);
int cpu_linear_i8(struct backend *b, int32_t *y, size_t ldy, const int8_t *x, size_t ldx, size_t t,
		  const struct packed_i8 *w, struct err *e);

/* cpu_norm.c */
int cpu_rmsnorm(struct backend *b, float *y, const float *x, const float *w, size_t t, size_t d,
		float eps, struct err *e);
int cpu_layernorm(struct backend *b, float *y, const float *x, const float *w, const float *bias,
		  size_t t, size_t d, float eps, struct err *e);
int cpu_rope(struct backend *b, float *x, size_t ldx, size_t t, size_t seqlen, int heads,
	     int head_dim, const float *cos_, const float *sin_, struct err *e);

/* cpu_attention.c */
int cpu_attention(struct backend *b, float *o, const float *q, const float *k, const float *v,
		  const struct attention_shape *s, struct err *e);

/* cpu_act.c */
int cpu_gate(struct backend *b, float *y, const float *gate, const float *up, size_t n,
	     enum act_fn act, struct err *e);
int cpu_nll(struct backend *b, double *nll, const float *logits, size_t n, size_t vocab,
	    const int32_t *target, struct err *e);
int cpu_colstats(struct backend *b, const float *x, size_t t, size_t k, float *absmax,
		 double *abssum, float *min, float *max, struct err *e);

/* cpu_rows.c */
int cpu_hadamard(struct backend *b, float *x, size_t n, const struct hadamard *h, struct err *e);
int cpu_gather(struct backend *b, float *y, const float *x, const uint32_t *index, size_t n,
	       size_t d, struct err *e);
int cpu_scatter_add(struct backend *b, float *y, const float *x, const uint32_t *index,
		    const float *weight, size_t n, size_t d, struct err *e);

/* cpu_quant.c */
int cpu_affine(struct backend *b, float *y, const float *x, const float *w, const float *bias,
	       size_t t, size_t d, struct err *e);
int cpu_quantize(struct backend *b, float *y, const float *x, size_t t, size_t k, size_t seqlen,
		 const struct quant *q, const struct quant_codes *codes, struct err *e);

/* cpu_attention_plain.c: the same attention, a query at a time, as s->extra asks for */
int cpu_attention_plain(struct backend *b, float *o, const float *q, const float *k,
			const float *v, const struct attention_shape *s, struct err *e);

/* cpu_hessian.c */
int cpu_hessian_new(struct backend *b, struct hessian **h, size_t k, struct err *e);
void cpu_hessian_free(struct backend *b, struct hessian *h);
int cpu_hessian_zero(struct backend *b, struct hessian *h, struct err *e);
int cpu_hessian_add(struct backend *b, struct hessian *h, const float *x, size_t t, struct err *e);
int cpu_hessian_get(struct backend *b, const struct hessian *h, float *tri, struct err *e);

/* cpu_solve.c */
int cpu_gemm64(struct backend *b, int tb, size_t m, size_t n, size_t k, double alpha,
	       const double *a, size_t lda, const double *bm, size_t ldb, double beta, double *c,
	       size_t ldc, struct err *e);
int cpu_eigen64(struct backend *b, double *a, size_t n, double *values, struct err *e);

/* cpu_factor.c */
int cpu_panel_factor(struct backend *b, double *h, size_t k, size_t panel, double *pivot,
		     size_t *at, struct err *e);

#endif
