/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gptq_solve.c - the columns of one linear, quantized one after the other (gptq.h)
 *
 * W lies transposed, [K][N], so that a column is a vector over rows.  Columns come in panels.
 * With U = R^-1 the errors e, the weights as they came and those that have been chosen obey
 *
 *     (W - Q) R = E        (Chen et al., arXiv:2507.18553: GPTQ is Babai's nearest plane)
 *
 * so that across panels neither E nor U is needed: with S = sum over columns j before panel p of
 * (w_j - q_j) R_jp, one matrix product, the panel starts from w_p + S U_pp, which is what all
 * the errors before it would have made of w_p.  Within the panel each tile of rows goes on
 * alone, by E and U_pp, in a buffer that stays in the first-level cache.  There columns go by
 * eights: the eight take the errors of the panel's columns before them together, which is what
 * the time goes into (update_*), then one after the other.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/pool.h"
#include "lib/base/usage.h"
#include "lib/method/gptq_solve.h"
#include "lib/method/kquant.h"
#include "lib/method/range.h"

#define STRIP 16  /* columns transposed at a time */

const char *gptq_kernels(size_t i)
{
	const struct kernels *set = kernel_set(i);

	return set ? set->name : NULL;
}

/* Row j of U' from the panel's first column on. */
static const float *row_of_u(const struct solve *s, size_t j)
{
	return (const float *)s->h->factor + j * 2 * s->h->k + s->c0;
}

static void update_columns(const struct solve *s, float *t, size_t c, size_t n, size_t j0,
			   size_t j1)
{
	kernels_update(s->kernels, t, c, n, j0, j1, row_of_u(s, s->c0 + c), 2 * s->h->k);
}

/* Columns [c, c + n) of the panel, eight at most, without their grids. */
static struct eight eight_at(const struct solve *s, size_t c, size_t n, size_t row)
{
	struct eight g = { .n = n < EIGHT ? n : EIGHT, .mid = (float)(1 << (s->z->bits - 1)),
			   .l = row_of_u(s, s->c0 + c) + c, .ld = 2 * s->h->k,
			   .w = s->h->w + (s->c0 + c) * s->np + row, .np = s->np };

	for (size_t i = 0; i < g.n; i++) {
		g.diag[i] = (float)s->h->diag[s->c0 + c + i];
		g.inv[i] = (float)(1 / s->h->diag[s->c0 + c + i]);
	}
	return g;
}

/* -S to the weights that the panel starts from, in place: the last columns first. */
static void enter_panel(const struct solve *s, float *t, size_t n, size_t row)
{
	for (size_t c = (n - 1) / EIGHT * EIGHT; c < n; c -= EIGHT) {
		struct eight g = eight_at(s, c, n - c, row);

		s->kernels->enter(t + c * ROWS, &g);
		update_columns(s, t, c, g.n, 0, c);
	}
}

/* Columns [c, c + n) of the buffer, all errors before c already taken. */
static void solve_run(const struct solve *s, float *t, uint8_t *code, size_t c, size_t n,
		      size_t row, float *loss)
{
	for (size_t at = c; at < c + n; at += EIGHT) {
		struct eight g = eight_at(s, at, c + n - at, row);

		for (size_t i = 0; i < g.n; i++) {
			size_t group = s->h->perm[s->c0 + at + i] / s->z->group;

			g.scale[i] = s->scale + group * s->np + row;
			g.zero[i] = s->zero + group * s->np + row;
		}
		update_columns(s, t, at, g.n, c, at);
		s->kernels->solve(t + at * ROWS, code + at * ROWS, &g, loss);
	}
}

/* Of a row: as the inner loops have them. */
static void spread_row(const struct solve *s, size_t row, size_t g0, size_t g1)
{
	const struct quantized *z = s->z;

	for (size_t g = g0; g < g1; g++) {
		s->scale[g * s->np + row] = z->scale[row * z->groups + g];
		s->zero[g * s->np + row] = quantized_zero(z, row * z->groups + g);
	}
}

/* The same of a super-block, of which t holds all columns. */
static void fit_block(const struct solve *s, const float *t, size_t stride, size_t block,
		      size_t row, size_t rows)
{
	const size_t groups = KGRID_BLOCK / s->z->group;

	for (size_t r = row; r < row + rows; r++) {
		kquant_fit(s->z, &s->q, t + (r - row), stride, s->q.energy + block * KGRID_BLOCK,
			   r, block);
		spread_row(s, r, block * groups, (block + 1) * groups);
	}
}

/* The same of a group of the tile's rows, of which t holds the n columns. */
static void fit_group(const struct solve *s, const float *t, size_t n, size_t g, size_t row)
{
	/* groups that move are adjacent columns */
	range_fit(&s->q, t, n, s->q.energy + g * n, s->scale + g * s->np + row,
		  s->zero + g * s->np + row);
}

/* Eight rows of codes of eight columns, ROWS apart, turned: dst[r * ld + c] = src[c * ROWS + r]. */
static void turn_codes(uint8_t *dst, size_t ld, const uint8_t *src)
{
	static const uint64_t mask[3] = { 0x00000000ffffffffu, 0x0000ffff0000ffffu,
					  0x00ff00ff00ff00ffu };
	uint64_t x[8];

	for (size_t c = 0; c < 8; c++)
		memcpy(&x[c], src + c * ROWS, 8);
	/* Halves of the matrix change places, then quarters, then eighths. */
	for (int stage = 0; stage < 3; stage++) {
		size_t far = 4u >> stage;

		for (size_t c = 0; c < 8; c++)
			if (!(c & far)) {
				uint64_t t = (x[c] >> 8 * far ^ x[c + far]) & mask[stage];

				x[c + far] ^= t;
				x[c] ^= t << 8 * far;
			}
	}
	for (size_t r = 0; r < 8; r++)
		memcpy(dst + r * ld, &x[r], 8);
}

/* The panel's codes to their rows and columns. */
static void store_codes(const struct solve *s, const uint8_t *code, size_t row, size_t rows)
{
	size_t n = s->c1 - s->c0, k = s->h->k, whole = n / 8 * 8;
	const size_t *perm = s->h->perm + s->c0;
	uint8_t *dst = s->z->codes + row * k;

	if (s->h->natural && rows == ROWS)
		for (size_t r = 0; r < ROWS; r += 8)
			for (size_t c = 0; c < whole; c += 8)
				turn_codes(dst + r * k + s->c0 + c, k, code + c * ROWS + r);
	else
		whole = 0;
	for (size_t r = 0; r < rows; r++)
		for (size_t c = whole; c < n; c++)
			dst[r * k + perm[c]] = code[c * ROWS + r];
}

/* Four rows of four, turned. */
static inline void turn4(float *dst, size_t ldd, const float *src, size_t lds)
{
	typedef float vec __attribute__((vector_size(16), aligned(4), may_alias));
	const vec a = *(const vec *)src, b = *(const vec *)(src + lds);
	const vec d = *(const vec *)(src + 2 * lds), f = *(const vec *)(src + 3 * lds);
	const vec ab = __builtin_shufflevector(a, b, 0, 4, 1, 5);
	const vec df = __builtin_shufflevector(d, f, 0, 4, 1, 5);
	const vec ba = __builtin_shufflevector(a, b, 2, 6, 3, 7);
	const vec fd = __builtin_shufflevector(d, f, 2, 6, 3, 7);

	*(vec *)dst = __builtin_shufflevector(ab, df, 0, 1, 4, 5);
	*(vec *)(dst + ldd) = __builtin_shufflevector(ab, df, 2, 3, 6, 7);
	*(vec *)(dst + 2 * ldd) = __builtin_shufflevector(ba, fd, 0, 1, 4, 5);
	*(vec *)(dst + 3 * ldd) = __builtin_shufflevector(ba, fd, 2, 3, 6, 7);
}

/* The panel's errors to their rows. */
static void store_errors(const struct solve *s, const float *t, size_t row)
{
	const size_t n = s->c1 - s->c0, k = s->h->k, whole = n / 4 * 4;
	float *dst = s->errors + row * k + s->c0;

	for (size_t r = 0; r < ROWS; r += 4)
		for (size_t c = 0; c < whole; c += 4)
			turn4(dst + r * k + c, k, t + c * ROWS + r, ROWS);
	for (size_t r = 0; r < ROWS; r++)
		for (size_t c = whole; c < n; c++)
			dst[r * k + c] = t[c * ROWS + r];
}

static void solve_tile(void *ctx, size_t tile, int thread)
{
	const struct solve *s = ctx;
	size_t n = s->c1 - s->c0, row = tile * ROWS, panel = s->h->panel;
	size_t rows = s->z->rows - row < ROWS ? s->z->rows - row : ROWS;
	size_t run = !s->moving ? n : s->z->grid ? KGRID_BLOCK : s->z->group;
	const float *from = s->c0 ? s->h->sum : s->h->w;
	float *t = s->buf + (size_t)thread * panel * ROWS;
	uint8_t *code = s->code + (size_t)thread * panel * ROWS;
	float loss[ROWS] = { 0 }; /* of a panel: few terms; f64 across panels */

	for (size_t c = 0; c < n; c++)
		memcpy(t + c * ROWS, from + c * s->np + row, ROWS * sizeof(*t));
	if (s->c0)
		enter_panel(s, t, n, row);
	for (size_t c = 0; c < n; c += run) {
		update_columns(s, t, c, run, 0, c);
		if (s->moving && s->z->grid)
			fit_block(s, t + c * ROWS, ROWS, (s->c0 + c) / run, row, rows);
		else if (s->moving)
			fit_group(s, t + c * ROWS, run, (s->c0 + c) / run, row);
		solve_run(s, t, code, c, run, row, loss);
	}
	store_codes(s, code, row, rows);
	if (s->errors)
		store_errors(s, t, row);
	for (size_t r = 0; r < rows; r++)
		s->loss[row + r] += loss[r];
}

/* ROWS rows of STRIP adjacent columns, ld apart, turned. */
static void turn_strip(float strip[STRIP][ROWS], const float *src, size_t ld)
{
	for (size_t r = 0; r < ROWS; r += 4)
		for (size_t c = 0; c < STRIP; c += 4)
			turn4(&strip[c][r], ROWS, src + r * ld + c, ld);
}

/* Rows of a tile into h->w, transposed and in order of processing, by strips of columns that are
 * turned in the first-level cache. */
static void load_tile(void *ctx, size_t tile, int thread)
{
	const struct solve *s = ctx;
	const struct gptq_hessian *h = s->h;
	size_t row = tile * ROWS, left = s->z->rows - row, rows = left < ROWS ? left : ROWS;
	float strip[STRIP][ROWS] = { { 0 } };
	unsigned bad = 0;

	(void)thread;
	for (size_t j = 0; j < h->k; j += STRIP) {
		size_t n = h->k - j < STRIP ? h->k - j : STRIP;

		if (h->natural && rows == ROWS && n == STRIP)
			turn_strip(strip, s->dst + row * h->k + j, h->k);
		else
			for (size_t r = 0; r < rows; r++)
				for (size_t c = 0; c < n; c++)
					strip[c][r] = s->dst[(row + r) * h->k + h->perm[j + c]];
		for (size_t c = 0; c < n; c++) {
			for (size_t r = 0; r < ROWS; r++)
				bad |= !(strip[c][r] - strip[c][r] == 0);
			memcpy(h->w + (j + c) * s->np + row, strip[c], sizeof(strip[c]));
		}
	}
	s->dist[row] = bad;
}

/* Scales and zeros from [rows, groups] to the solver's [groups, padded rows], and back.  What is
 * not known yet, or pads, is harmless. */
static void spread_params(const struct solve *s)
{
	const struct quantized *z = s->z;

	for (size_t i = 0; i < z->groups * s->np; i++) {
		s->scale[i] = 1;
		s->zero[i] = 0;
	}
	for (size_t r = 0; !s->moving && r < z->rows; r++)
		spread_row(s, r, 0, z->groups);
}

static void gather_params(const struct solve *s)
{
	const struct quantized *z = s->z;

	/* Those of a grid are where they belong, and nothing has changed them. */
	for (size_t r = 0; !z->grid && r < z->rows; r++)
		for (size_t g = 0; g < z->groups; g++) {
			z->scale[r * z->groups + g] = s->scale[g * s->np + r];
			z->zero[r * z->groups + g] = (uint8_t)s->zero[g * s->np + r];
		}
}

/* A row dequantized, and its distance from what it was. */
static void finish_row(const struct solve *s, size_t row)
{
	const struct quantized *z = s->z;
	const float *energy = s->h->energy;
	float lane[8] = { 0 }, own[8] = { 0 };

	s->dist[row] = s->own[row] = 0;

	for (size_t g = row * z->groups; g < (row + 1) * z->groups; g++) {
		const uint8_t *code = z->codes + g * z->group;
		float *w = s->dst + g * z->group, min = quantized_min(z, g);
		const float *h = energy + g % z->groups * z->group;
		size_t j = 0;

		for (; j + 8 <= z->group; j += 8)
			for (size_t i = 0; i < 8; i++) {
				float q = dequantize(code[j + i], z->zero[g], z->scale[g]) - min;
				float d = (w[j + i] - q) * (w[j + i] - q);

				lane[i] += d;
				own[i] += h[j + i] * d;
				w[j + i] = q;
			}
		for (; j < z->group; j++) {
			float q = dequantize(code[j], z->zero[g], z->scale[g]) - min;
			float d = (w[j] - q) * (w[j] - q);

			lane[0] += d;
			own[0] += h[j] * d;
			w[j] = q;
		}
		for (int i = 0; i < 8; i++) {
			s->dist[row] += lane[i];
			s->own[row] += own[i];
			lane[i] = own[i] = 0;
		}
	}
}

static void finish_tile(void *ctx, size_t tile, int thread)
{
	const struct solve *s = ctx;
	const size_t rows = s->z->rows, from = tile * ROWS;

	(void)thread;
	for (size_t r = from; r < from + ROWS && r < rows; r++)
		finish_row(s, r);
}

int gptq_reserve_floats(float **p, size_t *cap, size_t n, const char *where, struct err *e)
{
	if (n <= *cap)
		return 0;
	free(*p);
	*cap = 0;
	if (!(*p = aligned_alloc(64, (n * sizeof(float) + 63) / 64 * 64)))
		return err_nomem(e, where, n * sizeof(float));
	*cap = n;
	return 0;
}

static int solve_columns(struct solve *s, struct err *e)
{
	struct gptq_hessian *h = s->h;

	for (s->c0 = 0; s->c0 < h->k; s->c0 = s->c1) {
		s->c1 = s->c0 + h->panel < h->k ? s->c0 + h->panel : h->k;
		/* -S */
		if (s->c0 && h->be->ops->gemm(h->be, 0, s->c1 - s->c0, s->np, s->c0, -1,
					      (float *)h->factor + s->c0 * 2 * h->k, 2 * h->k,
					      h->w, s->np, 0, h->sum, s->np, e) < 0)
			return -1;
		pool_run(h->be->pool, s->np / ROWS, solve_tile, s);
	}
	return 0;
}

/* Scratch, parameters and transposed weights. */
static int prepare(struct solve *s, float *w, size_t rows, const struct gptq_options *opt,
		   const char *where, struct err *e)
{
	struct gptq_hessian *h = s->h;
	size_t k = h->k, np = (rows + ROWS - 1) / ROWS * ROWS, tiles = np / ROWS;
	size_t threads = (size_t)pool_threads(h->be->pool);

	if (quantized_init(s->z, &opt->q, rows, k, where, e) < 0)
		return -1;
	s->np = np;
	if (gptq_reserve_floats(&h->w, &h->cap_w, k * np, where, e) < 0 ||
	    gptq_reserve_floats(&h->sum, &h->cap_sum, h->panel * np, where, e) < 0 ||
	    gptq_reserve_floats(&h->params, &h->cap_params, 2 * s->z->groups * np, where, e) < 0)
		return -1;
	if (opt->sweeps && !opt->refit) {
		if (gptq_reserve_floats(&h->errors, &h->cap_errors, np * k, where, e) < 0)
			return -1;
		s->errors = h->errors;
	}
	s->scale = h->params;
	s->zero = h->params + s->z->groups * np;
	s->loss = calloc(3 * np, sizeof(*s->loss));
	s->buf = aligned_alloc(64, threads * h->panel * ROWS * sizeof(*s->buf));
	s->code = malloc(threads * h->panel * ROWS);
	if (!s->loss || !s->buf || !s->code)
		return err_nomem(e, where, 3 * np * sizeof(*s->loss) +
				 threads * h->panel * ROWS * (sizeof(*s->buf) + 1));
	s->dist = s->loss + np;
	s->own = s->dist + np;
	for (size_t j = 0; h->n_dead && j < k; j++)
		for (size_t r = 0; h->dead[j] && r < rows; r++)
			w[r * k + j] = 0;
	s->dst = w;
	pool_run(h->be->pool, tiles, load_tile, s);
	s->moving = !opt->act_order && !opt->static_groups &&
		    (s->z->grid ? k > KGRID_BLOCK : s->z->groups > 1);
	for (size_t i = 0; i < tiles; i++)
		if (s->dist[i * ROWS] != 0)
			return quantizer_check_finite(w, rows, k, where, e);
	if (!s->moving && quantizer_fit_all(s->z, &s->q, w, h->be->pool, where, e) < 0)
		return -1;
	spread_params(s);
	return 0;
}

/* What dead columns have in a row's loss, where a grid with minima may not hold 0: their H_jj is no
 * 0 for the solver's sake only (gptq.c). */
static double dead_loss(const struct solve *s, size_t row)
{
	const struct gptq_hessian *h = s->h;
	const float *w = s->dst + row * h->k;
	double sum = 0;

	for (size_t j = 0; s->z->min && h->n_dead && j < h->k; j++)
		if (h->dead[j])
			sum += (double)w[j] * w[j];
	return sum;
}

/* The energy of n rows' errors under H without damping, and but for so much of its diagonal as it
 * was shrunk by; the rows of gptq_sampled. */
static double energy_of(const struct solve *s, size_t n, double shrink)
{
	const double extra = s->h->shrink - shrink;
	double sum = 0;

	for (size_t i = 0; i < n; i++) {
		const size_t row = gptq_sampled(i, n, s->z->rows);

		sum += s->loss[row] - s->h->damp * s->h->mean * s->dist[row] -
		       extra * s->own[row] - dead_loss(s, row);
	}
	return sum <= 0 ? 0 : sum; /* if so, nearly all of the loss was the damping's */
}

/* Dequantized weights, and what they cost. */
static int finish(struct solve *s, struct gptq_result *res, const char *where, struct err *e)
{
	struct gptq_hessian *h = s->h;

	gather_params(s);
	if (quantized_check_scales(s->z, &s->q, where, e) < 0)
		return -1;
	pool_run(h->be->pool, s->np / ROWS, finish_tile, s);
	res->damp = h->damp;
	res->damp_raised = h->damp_raised;
	res->dead = (long)h->n_dead;
	res->shrink = h->shrink;
	res->energy = energy_of(s, s->z->rows, 0);
	res->shrunk = energy_of(s, s->z->rows, h->shrink);
	res->sample_shrunk = energy_of(s, res->sample, h->shrink);
	if (!isfinite(res->energy))
		return err_set(e, ERR_DATA, where,
			       "the solve overflows: weights or H are too large");
	return 0;
}

int gptq_quantize_by(size_t kernels, struct quantized *z, struct gptq_result *res,
		     struct gptq_hessian *h, float *w, size_t rows, const struct gptq_options *opt,
		     const char *where, struct err *e)
{
	struct solve s = { .h = h, .z = z, .q = opt->q, .kernels = kernel_set(kernels) };
	double start = usage_seconds();
	int r = -1;

	s.q.energy = h->energy;
	quantizer_choose(&s.q);
	if (prepare(&s, w, rows, opt, where, e) == 0 && solve_columns(&s, e) == 0 &&
	    (!(opt->sweeps || opt->refit) || gptq_refine(&s, opt, where, e) == 0))
		r = finish(&s, res, where, e);
	free(s.loss);
	free(s.buf);
	free(s.code);
	res->seconds = usage_seconds() - start;
	return r;
}

int gptq_quantize(struct quantized *z, struct gptq_result *res, struct gptq_hessian *h, float *w,
		  size_t rows, const struct gptq_options *opt, const char *where, struct err *e)
{
	size_t best = 0;

	while (gptq_kernels(best + 1))
		best++;
	return gptq_quantize_by(best, z, res, h, w, rows, opt, where, e);
}
