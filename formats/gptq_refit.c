/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gptq_refit.c - codes of another form, group by group
 */
#include "formats/gptq_refit.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "lib/data/bits.h"

static bool is_half(float x)
{
	return f16_to_f32(f32_to_f16(x)) == x;
}

static float scale_at(const struct codes *c, const void *scale, size_t i)
{
	const size_t width = (size_t)dtype_bits(c->scale->dtype) / 8;
	float s = 0;

	(void)dtype_to_f32(&s, (const char *)scale + i * width, c->scale->dtype, 1);
	return s;
}

bool gptq_conforms(const struct export_codes *q, const struct gptq_form *f)
{
	const size_t n = (q->c.one_row ? 1 : q->c.rows) * q->c.groups;

	if (q->c.grid || q->c.f8 || q->c.bits != f->bits || q->c.sym != f->sym ||
	    q->c.group != f->group)
		return false;
	for (size_t i = 0; i < n; i++)
		if ((q->c.scale->dtype != DT_F16 && !is_half(scale_at(&q->c, q->scale, i))) ||
		    (f->above_0 && q->zero && ((const uint8_t *)q->zero)[i] == 0))
			return false;
	return true;
}

/* One group at work: w as it was, codes as they were or NULL, and where the new ones go. */
struct group {
	const struct gptq_form *f;
	const float *w;
	const uint8_t *was;
	uint8_t *code;
	float s;
	int z;
};

/* The codes moved to a zero that the form has; false: some do not fit. */
static bool keep(struct group *g, float scale, int zero)
{
	const int top = (1 << g->f->bits) - 1, mid = 1 << (g->f->bits - 1);
	const int to = g->f->sym ? mid : g->f->above_0 && zero == 0 ? 1 : zero;

	g->s = f16_to_f32(f32_to_f16(scale));
	g->z = to;
	if (!g->was || to > top || !isfinite(g->s) || g->s == 0)
		return false;
	for (size_t k = 0; k < g->f->group; k++) {
		const int c = g->was[k] + to - zero;

		if (c < 0 || c > top)
			return false;
		g->code[k] = (uint8_t)c;
	}
	return true;
}

static void anew(struct group *g)
{
	const int top = (1 << g->f->bits) - 1, least = g->f->above_0;
	float lo = 0, hi = 0, s;

	for (size_t k = 0; k < g->f->group; k++) {
		lo = fminf(lo, g->w[k]);
		hi = fmaxf(hi, g->w[k]);
	}
	s = (g->f->sym ? 2 * fmaxf(-lo, hi) : hi - lo) / (float)top;
	g->s = f16_to_f32(f32_to_f16(s));
	if (g->s == 0)
		g->s = s > 0 ? 0x1p-24f : 1;
	g->z = g->f->sym ? 1 << (g->f->bits - 1) : (int)fminf(rintf(-lo / g->s), (float)top);
	g->z = g->z < least ? least : g->z;
	for (size_t k = 0; k < g->f->group; k++) {
		const float c = rintf(g->w[k] / g->s) + (float)g->z;

		g->code[k] = (uint8_t)(c < 0 ? 0 : c > (float)top ? (float)top : c);
	}
}

static void add_error(struct gptq_refit *r, const struct group *g)
{
	for (size_t k = 0; k < g->f->group; k++) {
		const double d = (double)(g->s * (float)(g->code[k] - g->z)) - (double)g->w[k];

		r->error += d * d;
		r->norm += (double)g->w[k] * (double)g->w[k];
	}
}

/* Row n.  w, room: scratch of a row. */
static int refit_row(struct gptq_refit *r, const struct export_codes *q,
		     const struct gptq_form *f, size_t n, float *w, uint8_t *room, struct err *e)
{
	const size_t cols = q->c.cols, groups = cols / f->group;
	const bool whole = !q->c.grid && !q->c.f8 && q->c.group % f->group == 0;
	const uint8_t *was = (const uint8_t *)q->codes + n * cols;

	if (codes_row(&q->c, w, n, q->codes, q->scale, q->zero, room, e))
		return -1;
	was = q->c.codes->dtype == DT_U8 ? was : room;
	for (size_t j = 0; j < groups; j++) {
		const size_t at = j * f->group;
		const size_t i = (q->c.one_row ? 0 : n * q->c.groups) + at / q->c.group;
		struct group g = { f, w + at, whole ? was + at : NULL,
				   (uint8_t *)(uintptr_t)r->q.codes + n * cols + at, 0, 0 };
		const uint16_t *half;

		if (!whole || !keep(&g, scale_at(&q->c, q->scale, i), q->zero ?
				    ((const uint8_t *)q->zero)[i] : 1 << (q->c.bits - 1)))
			anew(&g);
		if (!isfinite(g.s))
			return err_set(e, ERR_DATA, q->name, "row %zu group %zu: weights are too "
				       "large for a scale in F16", n, j);
		add_error(r, &g);
		half = (const uint16_t *)r->q.scale + n * groups + j;
		*(uint16_t *)(uintptr_t)half = f32_to_f16(g.s);
		if (r->q.zero)
			((uint8_t *)(uintptr_t)r->q.zero)[n * groups + j] = (uint8_t)g.z;
	}
	return 0;
}

static void part(struct record *rec, const char *name, enum role role, enum dtype t, size_t rows,
		 size_t cols)
{
	record_init(rec, REC_TENSOR, name);
	rec->role = role;
	rec->dtype = t;
	rec->rank = 2;
	rec->shape[0] = (int64_t)rows;
	rec->shape[1] = (int64_t)cols;
	rec->nbytes = (uint64_t)rows * cols * (t == DT_F16 ? 2 : 1);
}

int gptq_refit(struct gptq_refit *r, const struct export_codes *q, const struct gptq_form *f,
	       struct err *e)
{
	const size_t rows = q->c.rows, cols = q->c.cols, groups = cols / f->group;
	float *w = malloc(cols * sizeof(*w));
	uint8_t *room = malloc(cols);
	int ret = 0;

	memset(r, 0, sizeof(*r));
	r->q = *q;
	part(&r->codes, q->name, ROLE_CODES, DT_U8, rows, cols);
	part(&r->scale, q->name, ROLE_SCALE, DT_F16, rows, groups);
	part(&r->zero, q->name, ROLE_ZERO, DT_U8, rows, groups);
	r->q.c = (struct codes){ .rows = rows, .cols = cols, .groups = groups, .group = f->group,
				 .bits = f->bits, .tall = 1, .sym = f->sym, .codes = &r->codes,
				 .scale = &r->scale, .zero = f->sym ? NULL : &r->zero };
	r->q.codes = malloc(rows * cols);
	r->q.scale = malloc(rows * groups * 2);
	r->q.zero = f->sym ? NULL : malloc(rows * groups);
	if (!w || !room || !r->q.codes || !r->q.scale || (!f->sym && !r->q.zero))
		ret = err_nomem(e, q->name, rows * (cols + 3 * groups));
	for (size_t n = 0; !ret && n < rows; n++)
		ret = refit_row(r, q, f, n, w, room, e);
	free(w);
	free(room);
	return ret;
}

void gptq_refit_release(struct gptq_refit *r)
{
	free((void *)(uintptr_t)r->q.codes);
	free((void *)(uintptr_t)r->q.scale);
	free((void *)(uintptr_t)r->q.zero);
	record_clear(&r->codes);
	record_clear(&r->scale);
	record_clear(&r->zero);
	memset(r, 0, sizeof(*r));
}
