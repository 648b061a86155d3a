/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stats.c - statistics at the edges of a block
 */
#include "lib/model/stats.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "lib/model/run.h"

/* What one edge gathers; the vectors are on the device, [width]. */
struct edge_stats {
	size_t width, tokens;
	float *absmax, *min, *max;
	double *abssum;
	struct hessian *h;
	float *samples;          /* host [n_samples, width] */
	size_t n_samples;
};

struct stats {
	const struct model *m;
	struct backend *be;
	unsigned which;
	const char *calib;
	size_t max_samples, stride; /* every stride-th token is a sample */
	struct edge_stats *edge; /* [n], then keys, values; width 0: no layer has it */
	int n;                   /* edges */
	void *host;              /* [largest width] doubles: vectors on their way */
};

static bool cached(const struct stats *s, int i)
{
	return i >= s->n;
}

static bool wants(const struct stats *s, int i, enum stat k)
{
	if (cached(s, i))
		return (s->which & STATS_CACHE) != 0 && (k == STAT_MIN || k == STAT_MAX);
	return (s->which >> k & 1) != 0;
}

static int alloc_edge(struct stats *s, int i, struct err *e)
{
	struct edge_stats *g = &s->edge[i];
	const struct backend_ops *ops = s->be->ops;
	const size_t f32 = g->width * sizeof(float), f64 = g->width * sizeof(double);

	if ((wants(s, i, STAT_ABSMAX) && (g->absmax = ops->alloc(s->be, f32, e)) == NULL) ||
	    (wants(s, i, STAT_MIN) && (g->min = ops->alloc(s->be, f32, e)) == NULL) ||
	    (wants(s, i, STAT_MAX) && (g->max = ops->alloc(s->be, f32, e)) == NULL) ||
	    (wants(s, i, STAT_ABSMEAN) && (g->abssum = ops->alloc(s->be, f64, e)) == NULL) ||
	    (wants(s, i, STAT_HESSIAN) && ops->hessian_new(s->be, &g->h, g->width, e) < 0))
		return -1;
	if (wants(s, i, STAT_SAMPLES)) {
		g->samples = malloc(s->max_samples * f32);
		if (g->samples == NULL)
			return err_nomem(e, "samples", s->max_samples * f32);
	}
	return 0;
}

/* Does any layer, or what stands in front of them, have it? */
static bool anywhere(const struct stats *s, int g, bool front)
{
	const struct model *m = s->m;

	if (cached(s, g))
		return !front && (s->which & STATS_CACHE) != 0;
	if (front)
		return model_has_edge(m, g, -1);
	for (long i = 0; i < m->cfg.layers; i++)
		if (model_has_edge(m, g, i))
			return true;
	return false;
}

struct stats *stats_new(const struct model *m, struct backend *be, unsigned which, long samples,
			size_t total_tokens, const char *calib, bool front, struct err *e)
{
	struct stats *s = calloc(1, sizeof(*s));
	size_t widest = 0;
	int ret = 0;

	if (s == NULL) {
		err_nomem(e, "statistics", sizeof(*s));
		return NULL;
	}
	s->m = m;
	s->be = be;
	s->which = which;
	s->calib = calib;
	s->max_samples = samples > 0 ? (size_t)samples : 128;
	if (s->max_samples > total_tokens && total_tokens > 0)
		s->max_samples = total_tokens;
	s->stride = total_tokens / s->max_samples > 0 ? total_tokens / s->max_samples : 1;
	s->n = model_edges(m);
	s->edge = calloc((size_t)s->n + 2, sizeof(*s->edge));
	if (s->edge == NULL)
		ret = err_nomem(e, "statistics", ((size_t)s->n + 2) * sizeof(*s->edge));
	for (int g = 0; g < s->n + 2 && ret == 0; g++) {
		if (!anywhere(s, g, front))
			continue;
		s->edge[g].width = cached(s, g) ? run_place_width(m, PLACE_K) :
				   (size_t)model_edge_width(m, g);
		if (s->edge[g].width > widest)
			widest = s->edge[g].width;
		ret = alloc_edge(s, g, e);
	}
	if (ret == 0 && (s->host = malloc(widest * sizeof(double))) == NULL)
		ret = err_nomem(e, "statistics", widest * sizeof(double));
	if (ret == 0 && stats_reset(s, e) == 0)
		return s;
	stats_free(s);
	return NULL;
}

void stats_free(struct stats *s)
{
	if (s == NULL)
		return;
	for (int g = 0; s->edge != NULL && g < s->n + 2; g++) {
		struct edge_stats *x = &s->edge[g];
		void *const device[] = { x->absmax, x->min, x->max, x->abssum };

		for (size_t i = 0; i < sizeof(device) / sizeof(*device); i++)
			if (device[i] != NULL)
				s->be->ops->free(s->be, device[i]);
		if (x->h != NULL)
			s->be->ops->hessian_free(s->be, x->h);
		free(x->samples);
	}
	free(s->edge);
	free(s->host);
	free(s);
}

static int fill_f32(struct stats *s, float *dst, size_t n, float value, struct err *e)
{
	float *v = s->host;

	if (dst == NULL)
		return 0;
	for (size_t i = 0; i < n; i++)
		v[i] = value;
	return s->be->ops->upload(s->be, dst, v, n * sizeof(*v), e);
}

int stats_reset(struct stats *s, struct err *e)
{
	for (int i = 0; i < s->n + 2; i++) {
		struct edge_stats *g = &s->edge[i];
		double *zero = s->host;

		g->tokens = g->n_samples = 0;
		if (fill_f32(s, g->absmax, g->width, 0, e) < 0 ||
		    fill_f32(s, g->min, g->width, INFINITY, e) < 0 ||
		    fill_f32(s, g->max, g->width, -INFINITY, e) < 0)
			return -1;
		for (size_t j = 0; j < g->width; j++)
			zero[j] = 0;
		if (g->abssum != NULL &&
		    s->be->ops->upload(s->be, g->abssum, zero, g->width * sizeof(*zero), e) < 0)
			return -1;
		if (g->h != NULL && s->be->ops->hessian_zero(s->be, g->h, e) < 0)
			return -1;
	}
	return 0;
}

/* Rows of the slice whose number in the whole is a multiple of stride. */
static int take_samples(struct stats *s, struct edge_stats *g, const float *x, size_t t,
			struct err *e)
{
	size_t i = (s->stride - g->tokens % s->stride) % s->stride;

	for (; i < t && g->n_samples < s->max_samples; i += s->stride)
		if (s->be->ops->download(s->be, g->samples + g->n_samples++ * g->width,
					 x + i * g->width, g->width * sizeof(*x), e) < 0)
			return -1;
	return 0;
}

static int add(struct stats *s, struct edge_stats *g, const float *x, size_t t, struct err *err)
{
	if ((g->absmax != NULL || g->min != NULL || g->max != NULL || g->abssum != NULL) &&
	    s->be->ops->colstats(s->be, x, t, g->width, g->absmax, g->abssum, g->min, g->max,
				 err) < 0)
		return -1;
	if (g->h != NULL && s->be->ops->hessian_add(s->be, g->h, x, t, err) < 0)
		return -1;
	if (g->samples != NULL && take_samples(s, g, x, t, err) < 0)
		return -1;
	g->tokens += t;
	return 0;
}

int stats_hook(void *ctx, enum edge e, const float *x, size_t t, struct err *err)
{
	struct stats *s = ctx;

	return add(s, &s->edge[e], x, t, err);
}

int stats_cache_hook(void *ctx, bool values, const float *x, size_t t, struct err *err)
{
	struct stats *s = ctx;

	return add(s, &s->edge[s->n + values], x, t, err);
}

/* The device's vectors, sums and rows as F32 into out. */
static int fetch(struct stats *s, const struct edge_stats *g, enum stat k, float *out,
		 struct err *e)
{
	const struct backend_ops *ops = s->be->ops;
	const size_t f32 = g->width * sizeof(float);
	double *sum = s->host;

	if (g->tokens == 0) {
		/* An expert that no token was sent to: nothing seen, in every statistic. */
		memset(out, 0, k == STAT_HESSIAN ? g->width * (g->width + 1) / 2 * sizeof(*out) :
			       k == STAT_SAMPLES ? 0 : f32);
		return 0;
	}
	switch (k) {
	case STAT_ABSMAX:
		return ops->download(s->be, out, g->absmax, f32, e);
	case STAT_MIN:
		return ops->download(s->be, out, g->min, f32, e);
	case STAT_MAX:
		return ops->download(s->be, out, g->max, f32, e);
	case STAT_ABSMEAN:
		if (ops->download(s->be, sum, g->abssum, g->width * sizeof(*sum), e) < 0)
			return -1;
		for (size_t j = 0; j < g->width; j++)
			out[j] = (float)(sum[j] / (double)g->tokens);
		return 0;
	case STAT_SAMPLES:
		memcpy(out, g->samples, g->n_samples * f32);
		return 0;
	default:
		break;
	}
	return ops->hessian_get(s->be, g->h, out, e);
}

static int new_record(const struct stats *s, int i, enum stat k, long layer, struct record *r,
		      struct err *e)
{
	const struct edge_stats *g = &s->edge[i];
	char name[256];
	int ret;

	if (cached(s, i))
		run_place_name(s->m, i == s->n ? PLACE_K : PLACE_V, layer, name);
	else
		model_edge_name(s->m, (enum edge)i, layer, name);
	record_init(r, REC_TENSOR, name);
	r->role = ROLE_STAT;
	r->dtype = DT_F32;
	r->rank = k == STAT_SAMPLES ? 2 : 1;
	r->shape[0] = (int64_t)g->width;
	if (k == STAT_HESSIAN)
		r->shape[0] = (int64_t)(g->width * (g->width + 1) / 2);
	if (k == STAT_SAMPLES) {
		r->shape[0] = (int64_t)g->n_samples;
		r->shape[1] = (int64_t)g->width;
	}
	ret = record_set_str(r, "stat", stat_name(k));
	if (ret == 0 && k == STAT_HESSIAN)
		ret = record_set_int(r, "width", (int64_t)g->width);
	if (ret == 0)
		ret = record_set_int(r, "tokens", (int64_t)g->tokens);
	if (ret == 0 && s->calib[0])
		ret = record_set_str(r, "calib", s->calib);
	return ret == 0 ? 0 : err_nomem(e, name, sizeof(*r));
}

static int store_one(struct stats *s, int i, enum stat k, struct block *b, struct err *e)
{
	const struct edge_stats *g = &s->edge[i];
	struct record r = { .rank = -1 };
	struct item *it = NULL;
	int64_t at;

	if (new_record(s, i, k, b->layer, &r, e) == 0)
		it = block_add(b, &r, e);
	record_clear(&r);
	if (it == NULL || fetch(s, g, k, it->data, e) < 0)
		return -1;
	at = f32_first_nonfinite(it->data, it->rec.nbytes / sizeof(float));
	if (at >= 0)
		return err_set(e, ERR_DATA, it->rec.name, "%s: value %ld is not finite",
			       stat_name(k), (long)at);
	return b->hook != NULL && b->hook->each != NULL ?
	       b->hook->each(b->hook->ctx, b, it, e) : 0;
}

int stats_store(struct stats *s, struct block *b, struct err *e)
{
	if (block_drop_stats(b, e) < 0)
		return -1;
	for (int i = 0; i < s->n + 2; i++)
		for (int k = 0; k < STAT_COUNT; k++)
			if (wants(s, i, k) && s->edge[i].width > 0 &&
			    (cached(s, i) || model_has_edge(s->m, (enum edge)i, b->layer)) &&
			    store_one(s, i, k, b, e) < 0)
				return -1;
	return 0;
}

int stats_parse(const char *list, unsigned *which, struct err *e)
{
	static const char *const words[] = {
		"absmax", "absmean", "minmax", "hessian", "samples", "all", "none",
	};
	static const unsigned bits[] = {
		1u << STAT_ABSMAX, 1u << STAT_ABSMEAN, 1u << STAT_MIN | 1u << STAT_MAX,
		1u << STAT_HESSIAN, 1u << STAT_SAMPLES, (1u << STAT_COUNT) - 1, 0,
	};
	const size_t n = sizeof(words) / sizeof(*words);
	bool none = false;

	*which &= STATS_CACHE;
	for (const char *p = list;; p++) {
		const size_t len = strcspn(p, ",");
		size_t i = 0;

		while (i < n && (strlen(words[i]) != len || strncmp(words[i], p, len) != 0))
			i++;
		if (i == n)
			return err_set(e, ERR_USAGE, "--stats",
				       "'%.*s' is none of absmax, absmean, minmax, hessian, "
				       "samples, all, none", (int)(len < 64 ? len : 64), p);
		*which |= bits[i];
		none |= bits[i] == 0;
		p += len;
		if (none && p != list + len)
			return err_set(e, ERR_USAGE, "--stats", "none stands alone");
		if (*p == '\0')
			return 0;
	}
}
