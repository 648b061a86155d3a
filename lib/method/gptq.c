/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gptq.c - the Hessian: order, damping, factor; the energy of an error (gptq.h)
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "lib/base/pool.h"
#include "lib/method/gptq_solve.h"
#include "lib/model/block.h"

#define TILE 16      /* side of a tile of the transposition */
#define HUGE        ((size_t)2 << 20)
#define ENERGY_ROWS 512
#define ENERGY_COLS 128

struct fill {
	const struct gptq_hessian *h;
	double add; /* to the diagonal */
};

/* Row i of the permuted, damped H into its upper triangle. */
static void fill_row(void *ctx, size_t i, int thread)
{
	const struct fill *f = ctx;
	const struct gptq_hessian *h = f->h;
	size_t k = h->k, p = h->perm[i];
	double *row = h->factor + i * k;
	const float *tri = h->tri + tri_index(p, p, k);

	(void)thread;
	for (size_t j = i; h->natural && j < k; j++)
		row[j] = tri[j - i];
	for (size_t j = i; !h->natural && j < k; j++) {
		size_t q = h->perm[j];

		row[j] = h->tri[p < q ? tri_index(p, q, k) : tri_index(q, p, k)];
	}
	row[i] = (h->dead[p] ? 1 : row[i] * (1 + h->shrink)) + f->add;
}

/*
 * Column strip of the factor, rounded to f32 and turned, into h->factor's lower triangle: row j
 * holds its j floats where the j unused doubles of row j are, so that no second K x K array is
 * needed.
 */
static void transpose_strip(void *ctx, size_t strip, int thread)
{
	const struct gptq_hessian *h = ctx;
	size_t k = h->k, j0 = strip * TILE, n = k - j0 < TILE ? k - j0 : TILE;
	float t[TILE][TILE];

	(void)thread;
	for (size_t i0 = 0; i0 < j0; i0 += TILE) {
		/* By rows into t: rows are often 4 KiB and its multiples apart. */
		for (size_t i = 0; i < TILE; i++)
			for (size_t j = 0; j < n; j++)
				t[j][i] = (float)h->factor[(i0 + i) * k + j0 + j];
		for (size_t j = 0; j < n; j++)
			memcpy((float *)h->factor + (j0 + j) * 2 * k + i0, t[j], sizeof(t[j]));
	}
	for (size_t j = j0; j < j0 + n; j++) {
		float *dst = (float *)h->factor + j * 2 * k;

		for (size_t i = j0; i < j; i++)
			dst[i] = (float)h->factor[i * k + j];
		h->diag[j] = h->factor[j * k + j];
	}
}

struct order {
	float diag;
	size_t column;
};

static int by_falling_diag(const void *a, const void *b)
{
	const struct order *x = a, *y = b;

	if (x->diag != y->diag)
		return x->diag > y->diag ? -1 : 1;
	return x->column < y->column ? -1 : 1;
}

static int make_order(struct gptq_hessian *h, bool act_order, const char *where, struct err *e)
{
	struct order *o;

	h->natural = !act_order;
	for (size_t j = 0; j < h->k; j++)
		h->perm[j] = j;
	if (!act_order)
		return 0;
	if (!(o = malloc(h->k * sizeof(*o))))
		return err_nomem(e, where, h->k * sizeof(*o));
	for (size_t j = 0; j < h->k; j++)
		o[j] = (struct order){ h->tri[tri_index(j, j, h->k)], j };
	qsort(o, h->k, sizeof(*o), by_falling_diag);
	for (size_t j = 0; j < h->k; j++)
		h->perm[j] = o[j].column;
	free(o);
	return 0;
}

/* Mean of the live diagonal, dead columns; refuses what no solver could use. */
static int look_at_diagonal(struct gptq_hessian *h, const char *where, struct err *e)
{
	double sum = 0;
	int64_t bad = f32_first_nonfinite(h->tri, h->k * (h->k + 1) / 2);

	if (bad >= 0)
		return err_set(e, ERR_DATA, where, "hessian: value %lld of the triangle is not "
			       "finite", (long long)bad);
	h->n_dead = 0;
	for (size_t j = 0; j < h->k; j++) {
		double d = h->tri[tri_index(j, j, h->k)];

		if (d < 0)
			return err_set(e, ERR_DATA, where, "hessian: diagonal %zu is %g: not a sum "
				       "of squares", j, d);
		h->dead[j] = d == 0;
		h->energy[j] = (float)d;
		h->n_dead += d == 0;
		sum += d;
	}
	if (h->n_dead == h->k)
		return err_set(e, ERR_DATA, where, "hessian is zero: no calibration token came "
			       "this way");
	h->mean = sum / (double)(h->k - h->n_dead);
	return 0;
}

/* In huge pages where there are any: the rows of a tile of the factor are pages apart. */
static double *host_matrix(size_t nbytes)
{
	void *p;

	if (posix_memalign(&p, nbytes < HUGE ? 64 : HUGE, nbytes) != 0)
		return NULL;
	if (nbytes >= HUGE)
		madvise(p, nbytes, MADV_HUGEPAGE); /* a wish: failing costs speed only */
	return p;
}

static int reserve(struct gptq_hessian *h, size_t k, const char *where, struct err *e)
{
	h->k = k;
	if (k <= h->cap)
		return 0;
	free(h->factor);
	free(h->diag);
	free(h->perm);
	free(h->dead);
	free(h->energy);
	h->cap = 0;
	/* The last row of L ends before the last row of U does, but row 0 needs one double. */
	h->factor = host_matrix(k * k * sizeof(double));
	h->diag = malloc(k * sizeof(*h->diag));
	h->perm = malloc(k * sizeof(*h->perm));
	h->dead = malloc(k * sizeof(*h->dead));
	h->energy = malloc(k * sizeof(*h->energy));
	if (!h->factor || !h->diag || !h->perm || !h->dead || !h->energy)
		return err_nomem(e, where, k * k * sizeof(double));
	h->cap = k;
	return 0;
}

/* Factorize with rising damping until it works or may not rise any more. */
static int factorize(struct gptq_hessian *h, struct backend *be, const struct gptq_options *opt,
		     const char *where, struct err *e)
{
	struct fill f = { .h = h };
	double pivot;
	size_t at;

	h->damp = opt->damp;
	h->shrink = opt->shrink;
	for (h->damp_raised = 0;; h->damp_raised++) {
		int r;

		f.add = h->damp * h->mean;
		pool_run(be->pool, h->k, fill_row, &f);
		r = be->ops->panel_factor(be, h->factor, h->k, h->panel, &pivot, &at, e);
		if (r <= 0)
			return r;
		if (!opt->damp_auto || h->damp >= 1)
			break;
		h->damp = h->damp > 0 ? h->damp * 10 : 1e-4;
		if (h->damp > 1)
			h->damp = 1;
	}
	at = h->perm[at];
	if (opt->damp_auto)
		return err_set(e, ERR_DATA, where, "H is not positive definite even with damp %g "
			       "(smallest pivot %.3g at %zu)", h->damp, pivot, at);
	return err_set(e, ERR_DATA, where,
		       "H is not positive definite with damp %g (smallest pivot "
		       "%.3g at %zu); try --damp=%g", h->damp, pivot, at,
		       h->damp > 0 ? h->damp * 5 : 0.01);
}

/* Wide panels make wide products, narrow ones keep all threads busy.  A group that is fitted on
 * the way must not lie across two. */
static size_t panel_width(const struct gptq_options *o, size_t k)
{
	size_t panel = o->block > 0 ? (size_t)o->block : k < 2048 ? 128 : 256;
	size_t group = (size_t)o->q.group;

	if (o->q.group > 0 && group < k && !o->act_order && !o->static_groups)
		panel = group > panel ? group : panel - panel % group;
	return panel < k ? panel : k;
}

int gptq_hessian_new(struct gptq_hessian **hp, struct backend *be, const float *tri, size_t k,
		     const struct gptq_options *opt, const char *where, struct err *e)
{
	struct gptq_hessian *h = *hp;

	if (!h && !(h = *hp = calloc(1, sizeof(*h))))
		return err_nomem(e, where, sizeof(*h));
	h->be = be;
	h->tri = tri;
	h->panel = panel_width(opt, k);
	h->have_full = false;
	if (reserve(h, k, where, e) < 0 || look_at_diagonal(h, where, e) < 0 ||
	    make_order(h, opt->act_order, where, e) < 0 || factorize(h, be, opt, where, e) < 0)
		return -1;
	pool_run(be->pool, (k + TILE - 1) / TILE, transpose_strip, h);
	return 0;
}

void gptq_hessian_free(struct gptq_hessian *h)
{
	if (!h)
		return;
	free(h->factor);
	free(h->diag);
	free(h->perm);
	free(h->dead);
	free(h->w);
	free(h->sum);
	free(h->params);
	free(h->energy);
	free(h->part);
	free(h->errors);
	free(h->inner);
	free(h->g);
	free(h);
}

/* Columns [j0, j0 + m) of H. */
struct strip {
	const float *tri;
	float *h; /* [j0 + m, m] */
	size_t j0, m, k;
};

/* Row i of the strip, so that d' H d is one sum over i <= j: off-diagonal elements count twice,
 * those below the diagonal are zero. */
static void strip_row(void *ctx, size_t i, int thread)
{
	const struct strip *x = ctx;
	const size_t from = i < x->j0 ? 0 : i - x->j0;
	const float *src = x->tri + tri_index(i, x->j0 + from, x->k);
	float *dst = x->h + i * x->m;

	(void)thread;
	memset(dst, 0, from * sizeof(*dst));
	for (size_t j = from; j < x->m; j++)
		dst[j] = 2 * src[j - from];
	if (i >= x->j0)
		dst[from] = src[0];
}

struct dot {
	const float *d, *t; /* [rows, k] from the strip's columns on; [rows, m] */
	size_t k, m;
	double sum[ENERGY_ROWS];
};

static void dot_row(void *ctx, size_t r, int thread)
{
	struct dot *c = ctx;
	const float *d = c->d + r * c->k, *t = c->t + r * c->m;
	double lane[8] = { 0 };
	size_t j = 0;

	(void)thread;
	for (; j + 8 <= c->m; j += 8)
		for (size_t l = 0; l < 8; l++)
			lane[l] += (double)d[j + l] * t[j + l];
	for (; j < c->m; j++)
		lane[0] += (double)d[j] * t[j];
	for (size_t l = 1; l < 8; l++)
		lane[0] += lane[l];
	c->sum[r] += lane[0];
}

int output_energy(struct backend *be, const float *d, size_t rows, size_t k, const float *tri,
		  double *energy, struct err *e)
{
	size_t most = rows < ENERGY_ROWS ? rows : ENERGY_ROWS;
	size_t wide = k < ENERGY_COLS ? k : ENERGY_COLS;
	float *h = malloc(wide * k * sizeof(*h)), *t = malloc(most * wide * sizeof(*t));
	struct dot *dot = calloc(1, sizeof(*dot));
	int r = -1;

	*energy = 0;
	if (!h || !t || !dot) {
		err_nomem(e, "", (most + k) * wide * sizeof(*h));
		goto out;
	}
	for (size_t j0 = 0; j0 < k; j0 += wide) {
		const size_t m = k - j0 < wide ? k - j0 : wide;
		struct strip x = { .tri = tri, .h = h, .j0 = j0, .m = m, .k = k };

		pool_run(be->pool, j0 + m, strip_row, &x);
		for (size_t r0 = 0; r0 < rows; r0 += most) {
			const size_t n = rows - r0 < most ? rows - r0 : most;

			if (be->ops->gemm(be, 0, n, m, j0 + m, 1, d + r0 * k, k, h, m, 0, t, m,
					  e) < 0)
				goto out;
			memset(dot->sum, 0, n * sizeof(dot->sum[0]));
			dot->d = d + r0 * k + j0;
			dot->t = t;
			dot->k = k;
			dot->m = m;
			pool_run(be->pool, n, dot_row, dot);
			for (size_t i = 0; i < n; i++)
				*energy += dot->sum[i];
		}
	}
	r = 0;
out:
	free(h);
	free(t);
	free(dot);
	return r;
}
