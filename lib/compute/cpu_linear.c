/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cpu_linear.c - matrix products in f32, a tile of the result a task
 *
 * Linears use our own kernel (vec_product.h) on weights packed once; the solvers' products,
 * whose factors change all the time, are OpenBLAS's with one thread a tile.
 */
#include <stdlib.h>
#include <string.h>

#include "lib/compute/cpu.h"

#define PACK_COLUMNS 256

struct packed {
	size_t n, k;
	float *w; /* ceil(n / VEC_PANEL) panels [k][VEC_PANEL], zeros behind the last row */
};

struct pack_job {
	struct packed *p;
	const unsigned char *src;
	enum dtype t;
	struct cpu *cpu;
};

/* A panel; rows are converted by pieces that stay in the cache. */
static void pack_task(void *ctx, size_t task, int thread)
{
	const struct pack_job *j = ctx;
	size_t k = j->p->k, row = task * VEC_PANEL, esize = (size_t)dtype_bits(j->t) / 8;
	size_t rows = j->p->n - row < VEC_PANEL ? j->p->n - row : VEC_PANEL;
	float *panel = j->p->w + row * k, *piece = j->cpu->scratch[thread];

	for (size_t c = 0; c < k; c += PACK_COLUMNS) {
		size_t n = k - c < PACK_COLUMNS ? k - c : PACK_COLUMNS;

		for (size_t r = 0; r < rows; r++)
			dtype_to_f32(piece + r * n, j->src + ((row + r) * k + c) * esize, j->t, n);
		memset(piece + rows * n, 0, (VEC_PANEL - rows) * n * sizeof(*piece));
		j->cpu->vec->transpose(panel + c * VEC_PANEL, VEC_PANEL, piece, n, VEC_PANEL, n);
	}
}

int cpu_pack(struct backend *b, struct packed **p, const void *w, enum dtype t, size_t n, size_t k,
	     struct err *e)
{
	struct pack_job j = { .src = w, .t = t, .cpu = cpu_of(b) };
	size_t panels = n / VEC_PANEL + (n % VEC_PANEL != 0);

	if (t != DT_F32 && t != DT_F16 && t != DT_BF16)
		return err_set(e, ERR_BUG, "", "a weight of type %s cannot be packed",
			       dtype_name(t));
	if (k && panels > SIZE_MAX / sizeof(float) / VEC_PANEL / k)
		return err_nomem(e, "", SIZE_MAX);
	if (cpu_scratch(b, VEC_PANEL * PACK_COLUMNS * sizeof(float), e) < 0)
		return -1;
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
		(*p)->w = cpu_malloc(panels * VEC_PANEL * k * sizeof(float));
		if (!(*p)->w) {
			free(*p);
			*p = NULL;
			return err_nomem(e, "", panels * VEC_PANEL * k * sizeof(float));
		}
	}
	j.p = *p;
	pool_run(b->pool, panels, pack_task, &j);
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

struct linear_job {
	const struct vec_ops *vec;
	const struct packed *w;
	const float *x, *bias;
	float *y;
	size_t ldx, ldy, t, rows, columns, across;
	int add;
};

static void add_bias(const struct linear_job *j, float *y, size_t t, size_t n, const float *bias)
{
	for (size_t i = 0; i < t; i++) {
		float *row = y + i * j->ldy;

		if (!j->add)
			j->vec->fill(row, bias, n);
		else
			for (size_t l = 0; l < n; l++)
				row[l] += bias[l];
	}
}

static void linear_task(void *ctx, size_t task, int thread)
{
	const struct linear_job *j = ctx;
	size_t i = task / j->across * j->rows, l = task % j->across * j->columns;
	size_t t = j->t - i < j->rows ? j->t - i : j->rows;
	size_t n = j->w->n - l < j->columns ? j->w->n - l : j->columns;
	float *y = j->y + i * j->ldy + l;

	(void)thread;
	if (j->bias)
		add_bias(j, y, t, n, j->bias + l);
	j->vec->linear(y, j->ldy, j->x + i * j->ldx, j->ldx, t, j->w->w + l * j->w->k, n, j->w->k,
		       j->add || j->bias);
}

/* Nothing is packed here, so that small tiles are as fast as large ones: rows by 126 (21 times the
 * rows of the kernel), and columns cut where there are few rows. */
int cpu_linear(struct backend *b, float *y, size_t ldy, const float *x, size_t ldx, size_t t,
	       const struct packed *w, const float *bias, int add, struct err *e)
{
	struct linear_job j = {
		.vec = cpu_of(b)->vec, .w = w, .x = x, .bias = bias, .y = y, .ldx = ldx,
		.ldy = ldy, .t = t, .add = add,
	};
	size_t down = cpu_parts(t, 126, 6, &j.rows);

	(void)e;
	j.across = cpu_parts(w->n, t < 1024 ? 256 : 2048, VEC_PANEL, &j.columns);
	if (t && w->n)
		pool_run(b->pool, down * j.across, linear_task, &j);
	return 0;
}

/* One product, c [m, n] = alpha a b(') + beta c, cut into tiles. */
struct gemm_job {
	const struct blas *blas;
	int tb;
	size_t m, n, k, lda, ldb, ldc, tile_m, tile_n, across;
	float alpha, beta;
	const float *a, *b;
	float *c;
};

static void gemm_task(void *ctx, size_t task, int thread)
{
	const struct gemm_job *j = ctx;
	size_t i = task / j->across * j->tile_m, l = task % j->across * j->tile_n;
	size_t m = j->m - i < j->tile_m ? j->m - i : j->tile_m;
	size_t n = j->n - l < j->tile_n ? j->n - l : j->tile_n;
	float *c = j->c + i * j->ldc + l;

	(void)thread;
	j->blas->sgemm(CblasRowMajor, CblasNoTrans, j->tb ? CblasTrans : CblasNoTrans, (blasint)m,
		       (blasint)n, (blasint)j->k, j->alpha, j->a + i * j->lda,
		       (blasint)j->lda, j->tb ? j->b + l * j->ldb : j->b + l,
		       (blasint)j->ldb, j->beta, c, (blasint)j->ldc);
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

int cpu_gemm(struct backend *b, int tb, size_t m, size_t n, size_t k, float alpha, const float *a,
	     size_t lda, const float *bm, size_t ldb, float beta, float *c, size_t ldc,
	     struct err *e)
{
	struct gemm_job j = {
		.blas = &cpu_of(b)->blas, .tb = tb, .m = m, .n = n, .k = k, .lda = lda, .ldb = ldb,
		.ldc = ldc, .alpha = alpha, .beta = beta, .a = a, .b = bm, .c = c,
	};

	if (m > INT32_MAX || n > INT32_MAX || k > INT32_MAX || lda > INT32_MAX ||
	    ldb > INT32_MAX || ldc > INT32_MAX)
		return err_set(e, ERR_BUG, "", "a matrix product of %zu x %zu x %zu is too large",
			       m, n, k);
	if (m && n)
		pool_run(b->pool, cut(&j), gemm_task, &j);
	return 0;
}
