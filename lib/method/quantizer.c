/* SPDX-License-Identifier: Apache-2.0 */
/*
 * quantizer.c - ranges, codes, and what they stand for (quantizer.h)
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/pool.h"
#include "lib/method/kquant.h"
#include "lib/method/quantizer.h"
#include "lib/method/range.h"

void quantizer_sizes(size_t n, char *buf, size_t cap)
{
	size_t len = 0;

	buf[0] = '\0';
	for (size_t d = 1; d <= n; d++) {
		int w;

		if (n % d)
			continue;
		w = snprintf(buf + len, cap - len, "%s%zu", len ? ", " : "", d);
		if (w < 0 || len + (size_t)w + 6 > cap) {
			snprintf(buf + len, cap - len, ", ...");
			return;
		}
		len += (size_t)w;
	}
}

int quantizer_groups(const struct quantizer *q, size_t cols, const char *where, size_t *groups,
		     size_t *group, struct err *e)
{
	size_t g = q->group > 0 ? (size_t)q->group : cols;
	char sizes[320];

	if (!cols || cols % g) {
		quantizer_sizes(cols, sizes, sizeof(sizes));
		return err_set(e, ERR_DATA, where, "groups of %zu do not divide %zu columns; "
			       "sizes that do: %s, -1 (a row), 0 (the tensor)", g, cols, sizes);
	}
	*group = g;
	*groups = cols / g;
	return 0;
}

/* What a grid of super-blocks has beside scales. */
static int init_grid(struct quantized *z, const char *where, struct err *e)
{
	const struct kgrid *k = kgrid(z->grid);
	const size_t heads = z->rows * (z->cols / KGRID_BLOCK) * k->head;
	const size_t mins = k->sym ? 0 : z->rows * z->groups;

	if (heads > z->cap_head) {
		free(z->head);
		z->cap_head = 0;
		if (!(z->head = malloc(heads)))
			return err_nomem(e, where, heads);
		z->cap_head = heads;
	}
	if (mins > z->cap_min) {
		free(z->min_room);
		z->cap_min = 0;
		if (!(z->min_room = malloc(mins * sizeof(*z->min))))
			return err_nomem(e, where, mins * sizeof(*z->min));
		z->cap_min = mins;
	}
	z->min = k->sym ? NULL : z->min_room;
	return 0;
}

int quantized_init(struct quantized *z, const struct quantizer *q, size_t rows, size_t cols,
		   const char *where, struct err *e)
{
	size_t groups, group, n = rows * cols;

	if (quantizer_groups(q, cols, where, &groups, &group, e) < 0)
		return -1;
	if (q->grid) {
		group = kgrid(q->grid)->group;
		groups = cols / group;
	}
	if (n > z->cap) {
		free(z->codes);
		z->cap = 0;
		if (!(z->codes = malloc(n)))
			return err_nomem(e, where, n);
		z->cap = n;
	}
	n = rows * groups;
	if (n > z->cap_groups) {
		free(z->scale);
		free(z->zero);
		z->cap_groups = 0;
		z->scale = malloc(n * sizeof(*z->scale));
		z->zero = malloc(n);
		if (!z->scale || !z->zero)
			return err_nomem(e, where, n * (sizeof(*z->scale) + 1));
		z->cap_groups = n;
	}
	z->rows = rows;
	z->cols = cols;
	z->groups = groups;
	z->group = group;
	z->bits = q->bits;
	z->sym = q->sym;
	z->per_tensor = q->group == 0;
	z->grid = q->grid;
	z->min = NULL;
	return z->grid ? init_grid(z, where, e) : 0;
}

void quantized_release(struct quantized *z)
{
	free(z->codes);
	free(z->scale);
	free(z->zero);
	free(z->head);
	free(z->min_room);
	memset(z, 0, sizeof(*z));
}

float quantizer_round_scale(double s, enum dtype t)
{
	float f = (float)s;

	switch (t) {
	case DT_F16:
		if (f >= 0x1p-14f && f < 65504) { /* a normal number: 13 bits go, half to even */
			uint32_t bits;

			memcpy(&bits, &f, sizeof(bits));
			bits = (bits + 0xfff + (bits >> 13 & 1)) & ~(uint32_t)0x1fff;
			memcpy(&f, &bits, sizeof(f));
			return f;
		}
		f = f16_to_f32(f32_to_f16(f));
		return f > 0 ? f : 0x1p-24f;
	case DT_BF16:
		f = bf16_to_f32(f32_to_bf16(f));
		return f > 0 ? f : 0x1p-133f;
	default:
		return f > 0 ? f : 0x1p-149f;
	}
}

void quantizer_fit(const struct quantizer *q, const float *w, size_t n, float *scale,
		   uint8_t *zero)
{
	float lo, hi;

	range_of(q, w, n, &lo, &hi);
	range_params(q, (double)lo, (double)hi, scale, zero);
}

struct fit_ctx {
	struct quantized *z;
	const struct quantizer *q;
	const float *w;
	float *tile; /* [threads][group][RANGE_ROWS] */
};

/* Full ranges, or super-blocks. */
static void fit_row(void *ctx, size_t row, int thread)
{
	const struct fit_ctx *f = ctx;
	const struct quantizer *q = f->q;
	struct quantized *z = f->z;

	(void)thread;
	for (size_t b = 0; z->grid && b < z->cols / KGRID_BLOCK; b++)
		kquant_fit(z, q, f->w + row * z->cols + b * KGRID_BLOCK, 1,
			   q->range == RANGE_HMSE ? q->energy + b * KGRID_BLOCK : NULL, row, b);
	for (size_t g = 0; !z->grid && g < z->groups; g++)
		quantizer_fit(q, f->w + row * z->cols + g * z->group, z->group,
			      &z->scale[row * z->groups + g], &z->zero[row * z->groups + g]);
}

/* A group of adjacent rows, turned. */
static void take_tile(const struct fit_ctx *f, float *t, size_t row, size_t rows, size_t g)
{
	const size_t n = f->z->group;

	for (size_t j = 0; rows < RANGE_ROWS && j < n; j++)
		memset(t + j * RANGE_ROWS + rows, 0, (RANGE_ROWS - rows) * sizeof(*t));
	for (size_t r = 0; r < rows; r++) {
		const float *w = f->w + (row + r) * f->z->cols + g * n;

		for (size_t j = 0; j < n; j++)
			t[j * RANGE_ROWS + r] = w[j];
	}
}

static size_t rows_at(const struct quantized *z, size_t row)
{
	return z->rows - row < RANGE_ROWS ? z->rows - row : RANGE_ROWS;
}

/* Shrunk ranges of RANGE_ROWS rows. */
static void fit_tile(void *ctx, size_t task, int thread)
{
	const struct fit_ctx *f = ctx;
	struct quantized *z = f->z;
	const size_t row = task * RANGE_ROWS, rows = rows_at(z, row);
	float *t = f->tile + (size_t)thread * z->group * RANGE_ROWS;
	float scale[RANGE_ROWS], zero[RANGE_ROWS];

	for (size_t g = 0; g < z->groups; g++) {
		take_tile(f, t, row, rows, g);
		range_fit(f->q, t, z->group, f->q->energy ? f->q->energy + g * z->group : NULL,
			  scale, zero);
		for (size_t r = 0; r < rows; r++) {
			z->scale[(row + r) * z->groups + g] = scale[r];
			z->zero[(row + r) * z->groups + g] = (uint8_t)zero[r];
		}
	}
}

/* The shrunk range that all rows share. */
static void fit_tensor(const struct fit_ctx *f, float *scale, uint8_t *zero)
{
	const struct quantized *z = f->z;
	double loss[RANGE_STEPS] = { 0 };
	float s[RANGE_STEPS], lo, hi;
	uint8_t zeros[RANGE_STEPS];
	int best = 0;

	range_of(f->q, f->w, z->rows * z->cols, &lo, &hi);
	for (int i = 0; i < RANGE_STEPS; i++) {
		const double p = 1 - i / 100.0;

		range_params(f->q, p * (double)lo, p * (double)hi, &s[i], &zeros[i]);
	}
	for (size_t row = 0; isfinite(s[0]) && row < z->rows; row += RANGE_ROWS) {
		take_tile(f, f->tile, row, rows_at(z, row), 0);
		for (int i = 0; i < RANGE_STEPS; i++)
			range_loss(f->q, f->tile, z->group, f->q->energy, s[i], (float)zeros[i],
				   s[0], &loss[i]);
	}
	for (int i = 1; i < RANGE_STEPS; i++)
		if (loss[i] < loss[best])
			best = i;
	*scale = s[best];
	*zero = zeros[best];
}

int quantized_check_scales(const struct quantized *z, const struct quantizer *q,
			   const char *where, struct err *e)
{
	int64_t bad = f32_first_nonfinite(z->scale, z->rows * z->groups);

	if (bad < 0 && z->min)
		bad = f32_first_nonfinite(z->min, z->rows * z->groups);
	if (bad < 0)
		return 0;
	return err_set(e, ERR_DATA, where, "the scale of row %zu, group %zu does not fit %s%s",
		       (size_t)bad / z->groups, (size_t)bad % z->groups,
		       dtype_name(q->scale_dtype),
		       q->scale_dtype == DT_F16 && !z->grid ? "; try --scale-dtype=f32" : "");
}

int quantizer_check_finite(const float *w, size_t rows, size_t cols, const char *where,
			   struct err *e)
{
	int64_t bad = f32_first_nonfinite(w, rows * cols);

	if (bad < 0)
		return 0;
	return err_set(e, ERR_DATA, where, "value at row %zu column %zu is not finite",
		       (size_t)bad / cols, (size_t)bad % cols);
}

int quantizer_fit_all(struct quantized *z, const struct quantizer *q, const float *w,
		      struct pool *pool, const char *where, struct err *e)
{
	struct quantizer with = *q;
	struct fit_ctx f = { .z = z, .q = &with, .w = w };
	const bool search = q->range != RANGE_MINMAX && !z->grid;
	const size_t tile = z->group * RANGE_ROWS * sizeof(*f.tile);
	const size_t tiles = z->per_tensor ? 1 : (size_t)pool_threads(pool);

	if (quantizer_check_finite(w, z->rows, z->cols, where, e) < 0)
		return -1;
	if (search && !(f.tile = aligned_alloc(64, tiles * tile)))
		return err_nomem(e, where, tiles * tile);
	quantizer_choose(&with);
	if (z->per_tensor) {
		if (search)
			fit_tensor(&f, &z->scale[0], &z->zero[0]);
		else
			quantizer_fit(&with, w, z->rows * z->cols, &z->scale[0], &z->zero[0]);
		for (size_t r = 1; r < z->rows; r++) {
			z->scale[r] = z->scale[0];
			z->zero[r] = z->zero[0];
		}
	} else if (search) {
		pool_run(pool, (z->rows + RANGE_ROWS - 1) / RANGE_ROWS, fit_tile, &f);
	} else {
		pool_run(pool, z->rows, fit_row, &f);
	}
	free(f.tile);
	return quantized_check_scales(z, q, where, e);
}

int quantize(float w, float scale, int zero, int bits)
{
	uint8_t code;

	quantize_run(&code, &w, 1, scale, (float)zero, bits);
	return code;
}

void quantize_run(uint8_t *code, const float *w, size_t n, float scale, float zero, int bits)
{
	float mid = (float)(1 << (bits - 1)), shift = zero - mid;

	/* Clamped before it is rounded: the bounds are integers, so that the code is the same,
	 * and nothing is too large for round_even. */
	for (size_t i = 0; i < n; i++) {
		float t = w[i] / scale + shift;

		t = t < -mid ? -mid : t;
		t = t > mid - 1 ? mid - 1 : t;
		code[i] = (uint8_t)(int)(round_even(t) + mid);
	}
}

void quantized_dequantize(const struct quantized *z, float *w)
{
	const uint8_t *code = z->codes;

	for (size_t r = 0; r < z->rows; r++)
		for (size_t g = 0; g < z->groups; g++) {
			float s = z->scale[r * z->groups + g];
			float min = quantized_min(z, r * z->groups + g);
			int zero = z->zero[r * z->groups + g];

			for (size_t j = 0; j < z->group; j++)
				*w++ = dequantize(*code++, zero, s) - min;
		}
}
