/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gptq_refine.c - after the columns: descent on codes, least squares for scales (gptq.h)
 *
 * With D = W - Q in h->w, transposed, [K][N], and Hd the damped Hessian, both lower
 *
 *     f = tr D Hd D'
 *
 * in place of the greedy solver's one pass.  Columns come in panels: G = Hd D of a panel is one
 * matrix product, within it each tile of rows goes on alone, as in gptq_solve.c.
 *
 * Sweep: gptq_descend.c.
 * Refit: for each group the best scale while all codes and the other groups stay.  With c = codes
 * - zero, and u = 1, over the group's columns
 *
 *     s' = (c G + s c Hd c') / (c Hd c')
 *
 * and likewise with c + u and c - u, a zero one lower or higher, if the grid has zeros.  What is
 * stored is s' rounded, taken if f falls with it.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/clones.h"
#include "lib/base/pool.h"
#include "lib/method/gptq_solve.h"
#include "lib/model/block.h"

/* Sums over a group's columns, a row each: what the parabola over s needs. */
struct parabola {
	double qg, ug;   /* Q G, u G, with Q = s c */
	double qhq, uhq; /* Q Hd Q', u Hd Q' */
};

struct refine {
	struct solve *s;
	struct parabola *sum; /* [np] */
	size_t g, g0, g1;     /* a group and its columns */
	double uhu;
};

static void expand_row(void *ctx, size_t i, int thread)
{
	struct gptq_hessian *h = ctx;
	const size_t k = h->k;
	float *row = gptq_full_at(h, i, 0);

	(void)thread;
	for (size_t j = 0; j < i; j++)
		row[j] = h->tri[tri_index(j, i, k)];
	memcpy(row + i, h->tri + tri_index(i, i, k), (k - i) * sizeof(*row));
	row[i] = (float)((h->dead[i] ? 1 : row[i] * (1 + h->shrink)) + h->damp * h->mean);
}

/* R' of a panel's diagonal block: the inverse of U' there, row by row. */
CLONES static void invert_rows(double *r, const float *u, size_t ld, const double *diag, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		double *row = r + i * n;

		memset(row, 0, n * sizeof(*row));
		for (size_t j = 0; j < i; j++) {
			const double by = u[i * ld + j];

			for (size_t c = 0; c <= j; c++)
				row[c] -= by * r[j * n + c];
		}
		row[i] = 1;
		for (size_t c = 0; c <= i; c++)
			row[c] /= diag[i];
	}
}

static void invert_panel(void *ctx, size_t task, int thread)
{
	struct gptq_hessian *h = ctx;
	const size_t k = h->k, c0 = task * h->panel, left = k - c0;
	const size_t n = left < h->panel ? left : h->panel;
	double *r = (double *)h->g + (size_t)thread * h->panel * h->panel;

	invert_rows(r, (const float *)h->factor + c0 * 2 * k + c0, 2 * k, h->diag + c0, n);
	for (size_t i = 0; i < n; i++)
		for (size_t j = 0; j < n; j++)
			h->inner[(c0 + i) * h->panel + j] = (float)r[i * n + j];
}

static int invert_panels(struct gptq_hessian *h, const char *where, struct err *e)
{
	struct pool *pool = h->be->pool;
	const size_t scratch = (size_t)pool_threads(pool) * h->panel * h->panel * 2;

	if (gptq_reserve_floats(&h->inner, &h->cap_inner, h->k * h->panel, where, e) < 0 ||
	    gptq_reserve_floats(&h->g, &h->cap_g, scratch, where, e) < 0)
		return -1;
	pool_run(pool, (h->k + h->panel - 1) / h->panel, invert_panel, h);
	return 0;
}

/* Rows of h->w from the order of processing to that of columns, along the cycles of perm. */
static int natural_order(const struct solve *s, const char *where, struct err *e)
{
	const struct gptq_hessian *h = s->h;
	const size_t bytes = s->np * sizeof(*h->w);
	float *held = malloc(bytes);
	bool *done = calloc(h->k, sizeof(*done));

	if (!held || !done) {
		free(held);
		free(done);
		return err_nomem(e, where, bytes);
	}
	for (size_t from = 0; from < h->k; from++) {
		size_t j = from;

		if (done[from])
			continue;
		memcpy(held, h->w + from * s->np, bytes);
		/* held belongs at perm[j]: it changes places with what is there. */
		do {
			float *at = h->w + h->perm[j] * s->np;

			for (size_t r = 0; r < s->np; r++) {
				float t = at[r];

				at[r] = held[r];
				held[r] = t;
			}
			j = h->perm[j];
			done[j] = true;
		} while (j != from);
	}
	free(held);
	free(done);
	return 0;
}

/* h->sum = rows [c0, c1) of Hd times d, which are the rows [from, from + n) of d's matrix. */
static int product(const struct solve *s, size_t c0, size_t c1, const float *d, size_t from,
		   size_t n, struct err *e)
{
	const struct gptq_hessian *h = s->h;

	return h->be->ops->gemm(h->be, 0, c1 - c0, s->np, n, 1, gptq_full_at(h, c0, from), 2 * h->k,
				d, s->np, 0, h->sum, s->np, e);
}

/* What the group's codes stand for, into h->part. */
static void part_tile(void *ctx, size_t tile, int thread)
{
	const struct refine *f = ctx;
	const struct solve *s = f->s;
	const size_t row = tile * ROWS, n = f->g1 - f->g0;
	const float *scale = s->scale + f->g * s->np + row, *zero = s->zero + f->g * s->np + row;

	(void)thread;
	for (size_t c = 0; c < n; c++)
		for (size_t r = 0; r < ROWS; r++) {
			float *to = s->h->part + c * s->np + row + r;

			*to = row + r < s->z->rows ? scale[r] *
			      ((float)s->z->codes[(row + r) * s->h->k + f->g0 + c] - zero[r]) : 0;
		}
}

/* h->sum holds G, or Hd Q, of the panel's columns. */
static void add_gradient(void *ctx, size_t tile, int thread)
{
	const struct refine *f = ctx;
	const struct solve *s = f->s;

	(void)thread;
	for (size_t c = 0; c < s->c1 - s->c0; c++) {
		const float *x = s->h->sum + c * s->np + tile * ROWS;
		const float *q = s->h->part + (s->c0 + c - f->g0) * s->np + tile * ROWS;

		for (size_t r = 0; r < ROWS; r++) {
			f->sum[tile * ROWS + r].qg += (double)q[r] * x[r];
			f->sum[tile * ROWS + r].ug += x[r];
		}
	}
}

static void add_curvature(void *ctx, size_t tile, int thread)
{
	const struct refine *f = ctx;
	const struct solve *s = f->s;

	(void)thread;
	for (size_t c = 0; c < s->c1 - s->c0; c++) {
		const float *x = s->h->sum + c * s->np + tile * ROWS;
		const float *q = s->h->part + (s->c0 + c - f->g0) * s->np + tile * ROWS;

		for (size_t r = 0; r < ROWS; r++) {
			f->sum[tile * ROWS + r].qhq += (double)q[r] * x[r];
			f->sum[tile * ROWS + r].uhq += x[r];
		}
	}
}

/* The best scale, stored, and zero of these sums; f falls or *scale and *zero stay. */
static void best_params(const struct solve *s, const struct parabola *p, double uhu, float *scale,
			float *zero)
{
	const double was = *scale, hcc = p->qhq / (was * was), hcu = p->uhq / was;
	const double gc = p->qg / was, top = (1 << s->z->bits) - 1;
	const float z = *zero;
	double least = was * was * hcc - 2 * was * (gc + was * hcc);

	least -= fabs(least) * 1e-7; /* less would be rounding */
	for (int k = s->z->sym ? 0 : -1; k <= (s->z->sym ? 0 : 1); k++) {
		/* c + k u: the zero is k lower */
		const double a = hcc + 2 * k * hcu + k * k * uhu;
		const double b = gc + k * p->ug + was * (hcc + k * hcu);
		double to;

		if (!(a > 0) || !(b > 0) || (double)z - k < 0 || (double)z - k > top)
			continue;
		to = quantizer_round_scale(b / a, s->q.scale_dtype);
		if (to * to * a - 2 * to * b < least) {
			least = to * to * a - 2 * to * b;
			*scale = (float)to;
			*zero = z - (float)k;
		}
	}
}

/* New parameters of the group; D follows. */
static void refit_tile(void *ctx, size_t tile, int thread)
{
	const struct refine *f = ctx;
	const struct solve *s = f->s;
	const size_t row = tile * ROWS, n = f->g1 - f->g0, left = s->z->rows - row;
	float *scale = s->scale + f->g * s->np + row, *zero = s->zero + f->g * s->np + row;

	(void)thread;
	for (size_t r = 0; r < (left < ROWS ? left : ROWS); r++)
		best_params(s, &f->sum[s->z->per_tensor ? 0 : row + r], f->uhu, &scale[r],
			    &zero[r]);
	for (size_t c = 0; c < n; c++)
		for (size_t r = 0; r < (left < ROWS ? left : ROWS); r++) {
			const size_t at = c * s->np + row + r;
			const uint8_t code = s->z->codes[(row + r) * s->h->k + f->g0 + c];

			s->h->w[f->g0 * s->np + at] -= scale[r] * ((float)code - zero[r]) -
						       s->h->part[at];
		}
}

static int refit_group(struct refine *f, const char *where, struct err *e)
{
	struct solve *s = f->s;
	struct gptq_hessian *h = s->h;
	const size_t n = f->g1 - f->g0, tiles = s->np / ROWS;

	if (gptq_reserve_floats(&h->part, &h->cap_part, n * s->np, where, e) < 0)
		return -1;
	memset(f->sum, 0, s->np * sizeof(*f->sum));
	f->uhu = 0;
	for (size_t i = f->g0; i < f->g1 && !s->z->sym; i++)
		for (size_t j = f->g0; j < f->g1; j++)
			f->uhu += *gptq_full_at(h, i, j);
	pool_run(h->be->pool, tiles, part_tile, f);
	for (s->c0 = f->g0; s->c0 < f->g1; s->c0 = s->c1) {
		s->c1 = s->c0 + h->panel < f->g1 ? s->c0 + h->panel : f->g1;
		if (product(s, s->c0, s->c1, h->w, 0, h->k, e) < 0)
			return -1;
		pool_run(h->be->pool, tiles, add_gradient, f);
		if (product(s, s->c0, s->c1, h->part, f->g0, n, e) < 0)
			return -1;
		pool_run(h->be->pool, tiles, add_curvature, f);
	}
	for (size_t r = 1; s->z->per_tensor && r < s->z->rows; r++) {
		f->sum[0].qg += f->sum[r].qg;
		f->sum[0].ug += f->sum[r].ug;
		f->sum[0].qhq += f->sum[r].qhq;
		f->sum[0].uhq += f->sum[r].uhq;
	}
	if (s->z->per_tensor)
		f->uhu *= (double)s->z->rows;
	pool_run(h->be->pool, tiles, refit_tile, f);
	return 0;
}

static void energy_tile(void *ctx, size_t tile, int thread)
{
	const struct refine *f = ctx;
	const struct solve *s = f->s;
	double *loss = s->loss + tile * ROWS;

	(void)thread;
	for (size_t c = 0; c < s->c1 - s->c0; c++) {
		const float *g = s->h->sum + c * s->np + tile * ROWS;
		const float *d = s->h->w + (s->c0 + c) * s->np + tile * ROWS;

		for (size_t r = 0; r < ROWS; r++)
			loss[r] += (double)g[r] * d[r];
	}
}

/* f of each row into s->loss. */
static int energy(struct refine *f, struct err *e)
{
	struct solve *s = f->s;
	struct gptq_hessian *h = s->h;

	memset(s->loss, 0, s->np * sizeof(*s->loss));
	for (s->c0 = 0; s->c0 < h->k; s->c0 = s->c1) {
		s->c1 = s->c0 + h->panel < h->k ? s->c0 + h->panel : h->k;
		if (product(s, s->c0, s->c1, h->w, 0, h->k, e) < 0)
			return -1;
		pool_run(h->be->pool, s->np / ROWS, energy_tile, f);
	}
	return 0;
}

/* A refit before each sweep. */
static int refit(struct refine *f, const struct gptq_options *opt, const char *where,
		 struct err *e)
{
	const struct quantized *z = f->s->z;
	long i = 0;

	do {
		for (f->g = 0; f->g < z->groups; f->g++) {
			f->g0 = f->g * z->group;
			f->g1 = f->g0 + z->group;
			if (refit_group(f, where, e) < 0)
				return -1;
		}
		if (i < opt->sweeps && gptq_descend(f->s, 1, true, where, e) < 0)
			return -1;
	} while (++i < opt->sweeps);
	/* A sweep knows by how much f fell, a refit does not. */
	return energy(f, e);
}

int gptq_refine(struct solve *s, const struct gptq_options *opt, const char *where, struct err *e)
{
	struct gptq_hessian *h = s->h;
	struct refine f = { .s = s };
	int r;

	if (!h->have_full) {
		if (invert_panels(h, where, e) < 0)
			return -1;
		pool_run(h->be->pool, h->k, expand_row, h);
		h->have_full = true;
	}
	if (!opt->refit)
		return gptq_descend(s, opt->sweeps, false, where, e);
	if (!h->natural && natural_order(s, where, e) < 0)
		return -1;
	if (!(f.sum = malloc(s->np * sizeof(*f.sum))))
		return err_nomem(e, where, s->np * sizeof(*f.sum));
	r = refit(&f, opt, where, e);
	free(f.sum);
	return r;
}
