/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cpu_linear.c - matrix products in f32, a tile of the result a task
 *
 * Linears use our own kernel (vec_product.h) on weights packed once; the solvers' products,
 * whose factors change all the time, are OpenBLAS's with one thread a tile.
 *
 * oneDNN 2.6.3 beside these kernels: its time / ours on two cores of an AMD EPYC (Zen 4), 2048 rows
 * of X, weights packed once on both sides (tests/bench/onednn.c, 2026-11-23):
 *
 *	N x K                   576x576  1536x576  576x1536  2048x2048  4096x4096
 *	f32                        0.98      1.01      1.05       1.03       0.87
 *	int8 (cpu_short.c)         0.98      0.93      0.93       1.15       0.99
 *	bf16 (cpu_short.c)         1.25      1.13      1.39       1.02       0.91
 *	bf16, which rounds X       1.61      1.38      1.41       1.01       0.95
 *
 * Other processes disturbed the two rows of bf16.  It is not taken: no gain beyond what runs
 * differ by, but threads of its own that spin beside the pool.
 */
#include <stdlib.h>
#include <string.h>

#include "lib/compute/cpu_short.h"

#define PACK_COLUMNS 256

/* What a compute makes of the weights; where the kernels have no bf16, or no fast one, numbers
 * are rounded and stay f32. */
struct packed {
	size_t n, k;
	enum compute compute;
	/* ceil(n / VEC_PANEL) panels [k][VEC_PANEL], zeros behind the last row; of bf16x3 the
	 * second is what rounding left */
	float *w[2];
	struct short_w s[2]; /* of kernels for bf16, instead */
};

struct pack_job {
	struct packed *p;
	float *w;
	int rest;
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
	float *panel = j->w + row * k, *piece = j->cpu->scratch[thread];
	float *wide = piece + VEC_PANEL * PACK_COLUMNS;

	for (size_t c = 0; c < k; c += PACK_COLUMNS) {
		size_t n = k - c < PACK_COLUMNS ? k - c : PACK_COLUMNS;

		for (size_t r = 0; r < rows; r++) {
			const void *from = j->src + ((row + r) * k + c) * esize;

			dtype_to_f32(j->p->compute ? wide : piece + r * n, from, j->t, n);
			if (j->p->compute)
				j->cpu->vec->bf16(piece + r * n, wide, n, j->rest);
		}
		memset(piece + rows * n, 0, (VEC_PANEL - rows) * n * sizeof(*piece));
		j->cpu->vec->transpose(panel + c * VEC_PANEL, VEC_PANEL, piece, n, VEC_PANEL, n);
	}
}

static struct packed *packed_new(const struct cpu *c, enum compute compute, size_t n, size_t k,
				 struct err *e)
{
	size_t panels = n / VEC_PANEL + (n % VEC_PANEL != 0), bytes;
	int planes = compute && c->set.bf16 ? 0 : compute == COMPUTE_BF16X3 ? 2 : 1;
	struct packed *p;

	if (k && panels > SIZE_MAX / sizeof(float) / VEC_PANEL / k) {
		err_nomem(e, "", SIZE_MAX);
		return NULL;
	}
	bytes = panels * VEC_PANEL * k * sizeof(float);
	p = calloc(1, sizeof(*p));
	if (!p) {
		err_nomem(e, "", sizeof(*p));
		return NULL;
	}
	p->n = n;
	p->k = k;
	p->compute = compute;
	for (int i = 0; i < planes; i++) {
		p->w[i] = cpu_malloc(bytes);
		if (!p->w[i]) {
			err_nomem(e, "", bytes);
			cpu_pack_free(NULL, p);
			return NULL;
		}
	}
	return p;
}

static int pack_short(struct backend *b, struct packed *p, const void *w, enum dtype t,
		      struct err *e)
{
	for (int i = 0; i <= (p->compute == COMPUTE_BF16X3); i++)
		if (short_pack(b, &p->s[i], cpu_of(b)->set.bf16, w, t, i, p->n, p->k, e) < 0)
			return -1;
	return 0;
}

int cpu_pack(struct backend *b, struct packed **p, const void *w, enum dtype t, size_t n, size_t k,
	     struct err *e)
{
	struct pack_job j = { .src = w, .t = t, .cpu = cpu_of(b) };

	if (t != DT_F32 && t != DT_F16 && t != DT_BF16)
		return err_set(e, ERR_BUG, "", "a weight of type %s cannot be packed",
			       dtype_name(t));
	if (cpu_scratch(b, (VEC_PANEL + 1) * PACK_COLUMNS * sizeof(float), e) < 0)
		return -1;
	if (*p && ((*p)->n != n || (*p)->k != k || (*p)->compute != b->compute)) {
		cpu_pack_free(b, *p);
		*p = NULL;
	}
	if (!*p)
		*p = packed_new(j.cpu, b->compute, n, k, e);
	if (!*p)
		return -1;
	if (b->compute && j.cpu->set.bf16) {
		if (pack_short(b, *p, w, t, e) == 0)
			return 0;
		cpu_pack_free(b, *p);
		*p = NULL;
		return -1;
	}
	j.p = *p;
	for (; j.rest < 2 && (*p)->w[j.rest]; j.rest++) {
		j.w = (*p)->w[j.rest];
		pool_run(b->pool, n / VEC_PANEL + (n % VEC_PANEL != 0), pack_task, &j);
	}
	return 0;
}

void cpu_pack_free(struct backend *b, struct packed *p)
{
	(void)b;
	if (!p)
		return;
	for (int i = 0; i < 2; i++) {
		free(p->w[i]);
		short_release(&p->s[i]);
	}
	free(p);
}

struct linear_job {
	const struct cpu *cpu;
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

/* Rows of X are rounded on their way; of bf16x3 the smallest products come first. */
static void rounded(const struct linear_job *j, float *x, size_t i, size_t t, size_t l, size_t n,
		    float *y)
{
	size_t k = j->w->k;
	int add = j->add || j->bias;

	for (int plane = j->w->w[1] ? 2 : 0; plane >= 0; plane--) {
		const float *w = j->w->w[plane == 1] + l * k;

		if (plane != 0 || !j->w->w[1])
			for (size_t r = 0; r < t; r++)
				j->vec->bf16(x + r * k, j->x + (i + r) * j->ldx, k, plane == 2);
		j->vec->linear(y, j->ldy, x, k, t, w, n, k, add);
		add = 1;
	}
}

static void linear_task(void *ctx, size_t task, int thread)
{
	const struct linear_job *j = ctx;
	size_t i = task / j->across * j->rows, l = task % j->across * j->columns;
	size_t t = j->t - i < j->rows ? j->t - i : j->rows;
	size_t n = j->w->n - l < j->columns ? j->w->n - l : j->columns;
	float *y = j->y + i * j->ldy + l;

	if (j->bias)
		add_bias(j, y, t, n, j->bias + l);
	if (j->w->compute)
		rounded(j, j->cpu->scratch[thread], i, t, l, n, y);
	else
		j->vec->linear(y, j->ldy, j->x + i * j->ldx, j->ldx, t, j->w->w[0] + l * j->w->k, n,
			       j->w->k, j->add || j->bias);
}

/* Nothing is packed here, so that small tiles are as fast as large ones: rows by 126 (21 times the
 * rows of the kernel), and columns cut where there are few rows. */
int cpu_linear(struct backend *b, float *y, size_t ldy, const float *x, size_t ldx, size_t t,
	       const struct packed *w, const float *bias, int add, struct err *e)
{
	struct linear_job j = {
		.cpu = cpu_of(b), .vec = cpu_of(b)->vec, .w = w, .x = x, .bias = bias, .y = y,
		.ldx = ldx, .ldy = ldy, .t = t, .add = add,
	};
	const struct short_job s = {
		.w = w->s, .rest = w->s[1].w ? &w->s[1] : NULL, .x = x, .y = y, .start = bias,
		.ldx = ldx, .ldy = ldy, .t = t, .xsize = sizeof(*x), .add = add,
	};
	size_t down;

	if (w->s[0].w)
		return short_linear(b, &s, e);
	down = cpu_parts(t, 126, 6, &j.rows);
	if (w->compute && cpu_scratch(b, j.rows * w->k * sizeof(float), e) < 0)
		return -1;
	j.across = cpu_parts(w->n, t < 1024 ? 256 : 1024, VEC_PANEL, &j.columns);
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
