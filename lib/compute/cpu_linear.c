/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cpu_linear.c - matrix products in f32: OpenBLAS, one thread a tile of the result
 */
#include <cblas.h>
#include <stdlib.h>

#include "lib/compute/cpu.h"

#define PACK_VALUES 65536 /* a task */

struct packed {
	size_t n, k;
	float *w; /* [n, k] */
};

struct pack_job {
	struct packed *p;
	const unsigned char *src;
	enum dtype t;
	size_t row_bytes, rows;
};

static void pack_task(void *ctx, size_t task, int thread)
{
	struct pack_job *j = ctx;
	size_t row = task * j->rows;
	size_t rows = j->p->n - row < j->rows ? j->p->n - row : j->rows;

	(void)thread;
	dtype_to_f32(j->p->w + row * j->p->k, j->src + row * j->row_bytes, j->t, rows * j->p->k);
}

int cpu_pack(struct backend *b, struct packed **p, const void *w, enum dtype t, size_t n, size_t k,
	     struct err *e)
{
	struct pack_job j = { .src = w, .t = t };

	if (t != DT_F32 && t != DT_F16 && t != DT_BF16)
		return err_set(e, ERR_BUG, "", "a weight of type %s cannot be packed",
			       dtype_name(t));
	if (k && n > SIZE_MAX / sizeof(float) / k)
		return err_nomem(e, "", SIZE_MAX);
	if (*p && ((*p)->n != n || (*p)->k != k)) {
		cpu_pack_free(b, *p);
		*p = NULL;
	}
	if (!*p) {
		*p = calloc(1, sizeof(**p));
		if (!*p)
			return err_nomem(e, "", sizeof(**p));
		(*p)->n = n;
		(*p)->k = k;
		(*p)->w = cpu_malloc(n * k * sizeof(float));
		if (!(*p)->w) {
			free(*p);
			*p = NULL;
			return err_nomem(e, "", n * k * sizeof(float));
		}
	}
	j.p = *p;
	j.row_bytes = k * (size_t)dtype_bits(t) / 8;
	j.rows = k < PACK_VALUES ? PACK_VALUES / (k ? k : 1) : 1;
	if (n)
		pool_run(b->pool, (n + j.rows - 1) / j.rows, pack_task, &j);
	return 0;
}

void cpu_pack_free(struct backend *b, struct packed *p)
{
	(void)b;
	if (!p)
		return;
	free(p->w);
	free(p);
}

/* One product, c [m, n] = alpha a b(') + beta c, cut into tiles; bias is added to rows of c
 * before, with beta 1. */
struct gemm_job {
	int tb;
	size_t m, n, k, lda, ldb, ldc, tile_m, tile_n, across;
	float alpha, beta;
	const float *a, *b, *bias;
	float *c;
	const struct vec_ops *vec;
};

static void add_bias(const struct gemm_job *j, float *c, size_t m, size_t n, const float *bias)
{
	for (size_t i = 0; i < m; i++) {
		float *row = c + i * j->ldc;

		if (j->beta == 0.0f)
			j->vec->fill(row, bias, n);
		else
			for (size_t l = 0; l < n; l++)
				row[l] += bias[l];
	}
}

static void gemm_task(void *ctx, size_t task, int thread)
{
	const struct gemm_job *j = ctx;
	size_t i = task / j->across * j->tile_m, l = task % j->across * j->tile_n;
	size_t m = j->m - i < j->tile_m ? j->m - i : j->tile_m;
	size_t n = j->n - l < j->tile_n ? j->n - l : j->tile_n;
	float *c = j->c + i * j->ldc + l;

	(void)thread;
	if (j->bias)
		add_bias(j, c, m, n, j->bias + l);
	cblas_sgemm(CblasRowMajor, CblasNoTrans, j->tb ? CblasTrans : CblasNoTrans, (blasint)m,
		    (blasint)n, (blasint)j->k, j->alpha, j->a + i * j->lda, (blasint)j->lda,
		    j->tb ? j->b + l * j->ldb : j->b + l, (blasint)j->ldb,
		    j->bias ? 1.0f : j->beta, c, (blasint)j->ldc);
}

/*
 * Tiles are as large as leaves several of them, for each packs its part of both matrices anew:
 * whole rows of the result by slices of 256 run at 97 % of the speed of an undivided product,
 * 256 x 256 at 92 %; a large inner dimension wants larger slices.
 */
static size_t cut(struct gemm_job *j)
{
	int large = j->m > 1536 && j->n * j->k >= (size_t)4 << 20;
	size_t down = cpu_parts(j->m, large ? 1024 : 256, 16, &j->tile_m);

	j->across = cpu_parts(j->n, large ? 1024 : j->m <= 512 ? 288 : 2048, 16, &j->tile_n);
	return down * j->across;
}

static int gemm_run(struct backend *b, struct gemm_job *j, struct err *e)
{
	if (j->m > INT32_MAX || j->n > INT32_MAX || j->k > INT32_MAX || j->lda > INT32_MAX ||
	    j->ldb > INT32_MAX || j->ldc > INT32_MAX)
		return err_set(e, ERR_BUG, "", "a matrix product of %zu x %zu x %zu is too large",
			       j->m, j->n, j->k);
	if (!j->m || !j->n)
		return 0;
	j->vec = cpu_of(b)->vec;
	pool_run(b->pool, cut(j), gemm_task, j);
	return 0;
}

int cpu_linear(struct backend *b, float *y, size_t ldy, const float *x, size_t ldx, size_t t,
	       const struct packed *w, const float *bias, int add, struct err *e)
{
	struct gemm_job j = {
		.tb = 1,   .m = t,   .n = w->n, .k = w->k,       .alpha = 1.0f,
		.a = x,    .lda = ldx, .b = w->w, .ldb = w->k, .beta = add ? 1.0f : 0.0f,
		.bias = bias, .c = y, .ldc = ldy,
	};

	return gemm_run(b, &j, e);
}

int cpu_gemm(struct backend *b, int tb, size_t m, size_t n, size_t k, float alpha, const float *a,
	     size_t lda, const float *bm, size_t ldb, float beta, float *c, size_t ldc,
	     struct err *e)
{
	struct gemm_job j = {
		.tb = tb, .m = m, .n = n, .k = k, .alpha = alpha, .a = a, .lda = lda,
		.b = bm, .ldb = ldb, .beta = beta, .c = c, .ldc = ldc,
	};

	return gemm_run(b, &j, e);
}
