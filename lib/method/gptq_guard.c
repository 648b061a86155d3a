/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gptq_guard.c - the options' solution and the plain one, the better kept (gptq_guard.h)
 */
#include "lib/method/gptq_guard.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/usage.h"
#include "lib/method/gptq_solve.h"
#include "lib/model/block.h"

#define PART   16  /* one row in so many is tried first */
#define UNSURE 0.1 /* part of plain's J within which that does not tell */
#define EVERY  8   /* window is set aside */
#define DEAD   1e-6

/* A linear at work. */
struct match {
	struct gptq_guard *gd;
	struct gptq_hessian *h;
	const float *w, *was; /* moved or not; as it came */
	size_t rows, k;
	const char *where;
};

void gptq_guard_release(struct gptq_guard *gd)
{
	quantized_release(&gd->z);
	gptq_hessian_free(gd->fit);
	free(gd->rest);
	free(gd->was);
	free(gd->w);
	memset(gd, 0, sizeof(*gd));
}

bool gptq_guard_wanted(const struct gptq_options *opt)
{
	return opt->q.range != RANGE_MINMAX || opt->sweeps || opt->refit || opt->target;
}

bool gptq_guard_aside(size_t window, size_t windows)
{
	return windows > 1 && (window % EVERY == EVERY - 1 ||
			       (windows < EVERY && window + 1 == windows));
}

/* h's own rounding is no input: a column that only the windows set aside have is dead. */
static void subtract(float *rest, const float *tri, const float *aside, size_t k)
{
	for (size_t i = 0; i < k * (k + 1) / 2; i++)
		rest[i] = tri[i] - aside[i];
	for (size_t j = 0; j < k; j++) {
		const size_t at = tri_index(j, j, k);

		if (rest[at] > DEAD * tri[at])
			continue;
		for (size_t i = 0; i < k; i++)
			rest[i < j ? tri_index(i, j, k) : tri_index(j, i, k)] = 0;
	}
}

int gptq_guard_edge(struct gptq_guard *gd, struct backend *be, const float *tri,
		    const float *aside, size_t k, const struct gptq_options *opt,
		    const char *where, struct err *e)
{
	struct gptq_options rising = *opt;
	bool any = false, left = false;

	gd->judge = NULL;
	if (!aside || !gptq_guard_wanted(opt))
		return 0;
	if (gptq_reserve_floats(&gd->rest, &gd->cap_rest, k * (k + 1) / 2, where, e) < 0)
		return -1;
	subtract(gd->rest, tri, aside, k);
	for (size_t j = 0; j < k; j++) {
		any |= aside[tri_index(j, j, k)] > 0;
		left |= gd->rest[tri_index(j, j, k)] > 0;
	}
	if (!any || !left)
		return 0;
	rising.damp_auto = true; /* it only compares */
	gd->judge = aside;
	return gptq_hessian_new(&gd->fit, be, gd->rest, k, &rising, where, e);
}

static struct gptq_options plain_of(const struct gptq_options *opt)
{
	struct gptq_options plain = *opt;

	plain.q.range = RANGE_MINMAX;
	plain.sweeps = 0;
	plain.refit = false;
	plain.target = false;
	return plain;
}

static void take_rows(float *to, const float *from, const struct match *m, size_t n)
{
	for (size_t i = 0; i < n; i++)
		memcpy(to + i * m->k, from + gptq_sampled(i, n, m->rows) * m->k,
		       m->k * sizeof(*to));
}

/* J, by the windows set aside, of n rows solved with these options from these weights; gd->was has
 * them as they came. */
static int judge(const struct match *m, const struct gptq_options *opt, const float *from, size_t n,
		 double *j, struct err *e)
{
	struct gptq_guard *gd = m->gd;
	struct gptq_result res = { 0 };
	double cross = 0;

	take_rows(gd->w, from, m, n);
	if (gptq_quantize(&gd->z, &res, gd->fit, gd->w, n, opt, m->where, e) < 0)
		return -1;
	for (size_t i = 0; i < n * m->k; i++)
		gd->w[i] = gd->was[i] - gd->w[i];
	if (output_energy(m->h->be, gd->w, n, m->k, gd->judge, j, e) < 0 ||
	    (gd->target && gptq_target_cross(gd->target, gd->was, gd->w, n, &cross, e) < 0))
		return -1;
	*j += 2 * cross;
	return 0;
}

static void compare(struct gptq_verdict *v, double options, double plain, double whole, size_t n)
{
	*v = (struct gptq_verdict){
		.judged = true, .keep_plain = plain < options, .rows = n,
		.unsure = fabs(plain - options) < UNSURE * fabs(plain),
		.options = options / (whole > 0 ? whole : 1),
		.plain = plain / (whole > 0 ? whole : 1),
	};
}

/* Both candidates, in n of the rows. */
static int match(const struct match *m, const struct gptq_options *opt, size_t n,
		 struct gptq_verdict *v, struct err *e)
{
	const struct gptq_options plain = plain_of(opt);
	struct gptq_guard *gd = m->gd;
	double whole, j[2];

	if (gptq_reserve_floats(&gd->was, &gd->cap_was, n * m->k, m->where, e) < 0 ||
	    gptq_reserve_floats(&gd->w, &gd->cap_w, n * m->k, m->where, e) < 0)
		return -1;
	take_rows(gd->was, m->was, m, n);
	if (output_energy(m->h->be, gd->was, n, m->k, gd->judge, &whole, e) < 0 ||
	    judge(m, opt, m->w, n, &j[0], e) < 0 || judge(m, &plain, m->was, n, &j[1], e) < 0)
		return -1;
	compare(v, j[0], j[1], whole, n);
	return 0;
}

/* n rows of plain's solution, and its J and that of no solution by the one H there is. */
static int plain_rows(const struct match *m, struct gptq_result *res,
		      const struct gptq_options *opt, size_t n, double *whole, struct err *e)
{
	const struct gptq_options plain = plain_of(opt);
	struct gptq_guard *gd = m->gd;

	if (gptq_reserve_floats(&gd->w, &gd->cap_w, n * m->k, m->where, e) < 0)
		return -1;
	take_rows(gd->w, gd->was, m, n);
	if (output_energy(m->h->be, gd->w, n, m->k, m->h->tri, whole, e) < 0)
		return -1;
	return gptq_quantize(&gd->z, res, m->h, gd->w, n, &plain, m->where, e);
}

/* By one H, the solver's own sums say what each row costs: the options' solution of all rows stays
 * if in some of them it is clearly better than plain's, else that of all rows is made too. */
static int by_one(const struct match *m, struct quantized *z, struct gptq_result *res, float *w,
		  size_t n, const struct gptq_options *opt, struct err *e)
{
	struct gptq_guard *gd = m->gd;
	struct gptq_result other = { 0 };
	struct gptq_verdict v;
	double whole;

	if (gptq_reserve_floats(&gd->was, &gd->cap_was, m->rows * m->k, m->where, e) < 0)
		return -1;
	memcpy(gd->was, w, m->rows * m->k * sizeof(*w));
	res->sample = n;
	if (plain_rows(m, &other, opt, n, &whole, e) < 0 ||
	    gptq_quantize(z, res, m->h, w, m->rows, opt, m->where, e) < 0)
		return -1;
	compare(&v, res->sample_shrunk, other.shrunk, whole, n);
	if (n < m->rows && (v.unsure || v.keep_plain)) {
		if (plain_rows(m, &other, opt, m->rows, &whole, e) < 0)
			return -1;
		compare(&v, res->shrunk, other.shrunk, whole, m->rows);
	}
	res->guard = v;
	if (v.keep_plain) {
		const struct quantized t = *z;

		*z = gd->z;
		gd->z = t;
		res->energy = other.energy;
		memcpy(w, gd->w, m->rows * m->k * sizeof(*w));
	}
	return 0;
}

static size_t part_of(size_t rows, const struct gptq_options *opt)
{
	size_t n = (rows / PART + ROWS / 2) / ROWS * ROWS;

	n = n < ROWS ? ROWS : n;
	return opt->q.group == 0 || 2 * n > rows ? rows : n;
}

static int keep_better(struct gptq_guard *gd, struct quantized *z, struct gptq_result *res,
		       struct gptq_hessian *h, float *w, const float *was, size_t rows,
		       const struct gptq_options *opt, const char *where, struct err *e)
{
	const struct match m = { gd, h, w, was ? was : w, rows, h->k, where };
	const size_t n = part_of(rows, opt);
	struct gptq_options use = *opt;
	struct gptq_verdict v;

	if (!gptq_guard_wanted(opt))
		return gptq_quantize(z, res, h, w, rows, opt, where, e);
	if (!gd->judge)
		return by_one(&m, z, res, w, n, opt, e);
	if (match(&m, opt, n, &v, e) < 0 ||
	    (v.unsure && n < rows && match(&m, opt, rows, &v, e) < 0))
		return -1;
	if (v.keep_plain) {
		use = plain_of(opt);
		if (was)
			memcpy(w, was, rows * h->k * sizeof(*w));
		res->step = 0;
	}
	res->guard = v;
	return gptq_quantize(z, res, h, w, rows, &use, where, e);
}

int gptq_guard_quantize(struct gptq_guard *gd, struct quantized *z, struct gptq_result *res,
			struct gptq_hessian *h, float *w, const float *was, size_t rows,
			const struct gptq_options *opt, const char *where, struct err *e)
{
	const double start = usage_seconds();
	const int r = keep_better(gd, z, res, h, w, was, rows, opt, where, e);

	res->seconds = usage_seconds() - start;
	return r;
}
