/* SPDX-License-Identifier: Apache-2.0 */
/*
 * quant_acts.c - quantizers put at places, ranges from statistics (quant_acts.h)
 */
#include "lib/method/quant_acts.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/method/quantizer.h"
#include "lib/model/clamp_note.h"

#define SHRINKS 80

/* ---- options --------------------------------------------------------------------- */

int quant_acts_edges(const char *list, unsigned *edges, struct err *e)
{
	static const char *const names[] = { "attn.in", "attn.mid", "mlp.in", "mlp.mid" };
	const unsigned all = (1u << (EDGE_MLP_MID + 1)) - 1;

	*edges = strcmp(list, "all") == 0 ? all : 0;
	if (*edges != 0 || strcmp(list, "none") == 0)
		return 0;
	for (const char *p = list;; p++) {
		const size_t n = strcspn(p, ",");
		int i = 0;

		while (i <= EDGE_MLP_MID && (strlen(names[i]) != n || strncmp(names[i], p, n)))
			i++;
		if (i > EDGE_MLP_MID)
			return err_set(e, ERR_USAGE, "--edges", "expected all, none, or some of "
				       "attn.in,attn.mid,mlp.in,mlp.mid, got '%s'", list);
		*edges |= 1u << i;
		p += n;
		if (*p == '\0')
			return 0;
	}
}

int quant_acts_clip(const char *arg, struct quant_acts *a, struct err *e)
{
	char *end;
	double v;

	if (strcmp(arg, "mse") == 0) {
		a->clip = CLIP_MSE;
		a->q.clip = 1;
		return 0;
	}
	v = strtod(arg, &end);
	if (arg[0] >= '0' && arg[0] <= '9' && strcmp(end, "%") == 0 && v >= 50 && v <= 100) {
		a->clip = CLIP_PERCENTILE;
		a->percent = v;
		a->q.clip = 1;
		return 0;
	}
	if (arg[0] < '0' || arg[0] > '9' || *end != '\0' || !(v > 0 && v <= 1))
		return err_set(e, ERR_USAGE, "--clip", "expected a ratio in (0, 1], a percentage "
			       "from 50%% to 100%%, or mse, got '%s'", arg);
	a->clip = v < 1 ? CLIP_RATIO : CLIP_NONE;
	a->q.clip = v;
	return 0;
}

int quant_acts_rule(const char *name, struct quant_acts *a, struct err *e)
{
	const int rule = quant_rule_find(name);

	if (rule < 0)
		return err_set(e, ERR_USAGE, "--rule", "no rule '%s'", name);
	a->q.rule = (enum quant_rule)rule;
	return 0;
}

int quant_acts_kv(const char *arg, struct quant_acts *a, struct err *e)
{
	char *end;
	const long bits = strtol(arg, &end, 10);

	a->kv_format = strcmp(arg, "e4m3") == 0 ? QUANT_E4M3 : QUANT_INT;
	a->kv = a->kv_format == QUANT_E4M3 ? 8 : (int)bits;
	if (a->kv_format == QUANT_E4M3 ||
	    (arg[0] >= '0' && arg[0] <= '9' && *end == '\0' && bits >= 2 && bits <= 8))
		return 0;
	return err_set(e, ERR_USAGE, "--kv", "expected 2 to 8 or e4m3, got '%s'", arg);
}

int quant_acts_preset(const char *name, struct quant_acts *a, struct err *e)
{
	static const struct {
		const char *name;
		struct quant q;
		int kv;
		double kv_clip;
	} presets[] = {
		{ "w8a8", { .bits = 8, .sym = true, .rule = QUANT_SMOOTHQUANT,
			    .per = QUANT_TOKEN, .clip = 1 }, 0, 1 },
		{ "w4a8", { .bits = 8, .rule = QUANT_AWQ, .per = QUANT_TOKEN, .clip = 1 }, 0, 1 },
		{ "w4a4", { .bits = 4, .sym = true, .rule = QUANT_QUAROT, .per = QUANT_TOKEN,
			    .clip = 0.9 }, 0, 1 },
		{ "w4a4kv4", { .bits = 4, .sym = true, .rule = QUANT_QUAROT, .per = QUANT_TOKEN,
			       .clip = 0.9 }, 4, 0.95 },
		{ "fp8", { .format = QUANT_E4M3, .bits = 8, .sym = true, .per = QUANT_TOKEN,
			   .clip = 1 }, 0, 1 },
	};
	struct clamp clamp;

	for (size_t i = 0; i < sizeof(presets) / sizeof(*presets); i++)
		if (strcmp(presets[i].name, name) == 0) {
			clamp = a->q.clamp;
			a->q = presets[i].q;
			a->q.clamp = clamp;
			a->clip = a->q.clip < 1 ? CLIP_RATIO : CLIP_NONE;
			a->heads = a->fixed = false;
			a->kv = presets[i].kv;
			a->kv_format = QUANT_INT;
			a->kv_fixed = false;
			a->kv_clip = presets[i].kv_clip;
			return 0;
		}
	return err_set(e, ERR_USAGE, "--preset", "expected w8a8, w4a8, w4a4, w4a4kv4 or fp8, got "
		       "'%s'", name);
}

/* ---- where ----------------------------------------------------------------------- */

/* The n bytes at p name the place in the layer, alone, or with all of the layer. */
static bool names(const char *p, size_t n, const struct model *m, int place, long layer)
{
	char buf[256];

	run_place_name(m, place, layer, buf);
	if (strlen(buf) == n && strncmp(buf, p, n) == 0)
		return true;
	run_place_label(m, place, buf);
	if (strlen(buf) == n && strncmp(buf, p, n) == 0)
		return true;
	snprintf(buf, sizeof(buf), "layers.%ld", layer);
	return strlen(buf) == n && strncmp(buf, p, n) == 0;
}

static bool skipped(const struct quant_acts *a, const struct model *m, int place, long layer)
{
	for (const char *p = a->skip; p != NULL; p++) {
		const size_t n = strcspn(p, ",");

		if (names(p, n, m, place, layer))
			return true;
		p += n;
		if (*p == '\0')
			break;
	}
	return false;
}

/* The edge is asked for, and in this layer: those of experts go with mlp.in and mlp.mid. */
static bool wanted(const struct quant_acts *a, const struct model *m, enum edge g, long layer)
{
	static const enum edge as[EDGE_COUNT] = {
		[EDGE_ATTN_IN] = EDGE_ATTN_IN, [EDGE_ATTN_MID] = EDGE_ATTN_MID,
		[EDGE_MLP_IN] = EDGE_MLP_IN, [EDGE_MLP_MID] = EDGE_MLP_MID,
		[EDGE_SHARED_MID] = EDGE_MLP_MID, [EDGE_X_IN] = EDGE_MLP_IN,
		[EDGE_X_MID] = EDGE_MLP_MID,
	};

	return edge_kind(g) < EDGE_COUNT && a->edges >> as[edge_kind(g)] & 1 &&
	       model_has_edge(m, g, layer) && !skipped(a, m, PLACE_EDGES + (int)g, layer);
}

/* A place somewhere that is asked for and not passed over. */
static bool leaves_any(const struct quant_acts *a, const struct model *m)
{
	const bool asked[PLACE_EDGES] = {
		[PLACE_K] = a->kv > 0 && !a->kv_raw, [PLACE_K_RAW] = a->kv_raw,
		[PLACE_V] = a->kv > 0, [PLACE_P] = a->probs > 0,
		[PLACE_ATTN_RESID] = a->resid > 0, [PLACE_MLP_RESID] = a->resid > 0,
	};

	for (long i = 0; i < m->cfg.layers; i++) {
		for (int g = 0; g < model_edges(m); g++)
			if (wanted(a, m, (enum edge)g, i))
				return true;
		for (int k = 0; k < PLACE_EDGES; k++)
			if (asked[k] && !skipped(a, m, k, i))
				return true;
	}
	return false;
}

static int check_skip(const struct quant_acts *a, const struct model *m, struct err *e)
{
	for (const char *p = a->skip; p != NULL; p++) {
		const size_t n = strcspn(p, ",");
		bool found = false;

		for (long i = 0; i < m->cfg.layers && !found; i++)
			for (int k = 0; k < PLACE_EDGES + model_edges(m) && !found; k++)
				found = (k < PLACE_EDGES ||
					 model_has_edge(m, (enum edge)(k - PLACE_EDGES), i)) &&
					names(p, n, m, k, i);
		if (!found)
			return err_set(e, ERR_DATA, "--skip", "this model has no place '%.*s'",
				       (int)n, p);
		p += n;
		if (*p == '\0')
			break;
	}
	if (a->skip != NULL && !leaves_any(a, m))
		return err_set(e, ERR_USAGE, "--skip", "nothing is left to quantize");
	return 0;
}

static int check_clamp(const struct quant_acts *a, struct err *e)
{
	const struct clamp *c = &a->q.clamp;

	if (c->group == 0 && (c->by != CLAMP_BY_RANGE || c->compat))
		return err_set(e, ERR_USAGE, c->compat ? "--compat" : "--clamp-by",
			       "goes with --clamp");
	if (c->group > 0 && (a->q.format != QUANT_INT || a->q.bits != 8))
		return err_set(e, ERR_USAGE, "--clamp", "goes with integers of 8 bits");
	if (c->group > 0 && c->by == CLAMP_BY_BITS &&
	    (a->q.sym || c->compat))
		return err_set(e, ERR_USAGE, "--clamp-by", "bits goes with --asym and without "
			       "--compat: they are those of codes from 0 on, without a midpoint");
	return 0;
}

int quant_acts_check(const struct quant_acts *a, const struct model *m, struct err *e)
{
	if (a->q.format == QUANT_INT && !quant_rule_has(a->q.rule, a->q.sym))
		return err_set(e, ERR_USAGE, "--rule", "%s has no %s form",
			       quant_rule_name(a->q.rule), a->q.sym ? "symmetric" : "asymmetric");
	if (a->fixed && a->q.per == QUANT_TOKEN)
		return err_set(e, ERR_USAGE, "--static", "goes with --per=tensor, group or head: "
			       "a grid a token is dynamic");
	if (!a->fixed && (a->clip == CLIP_MSE || a->clip == CLIP_PERCENTILE))
		return err_set(e, ERR_USAGE, "--clip", "percentages and mse go with --static");
	if (a->kv_raw && m->cfg.rope == ROPE_NONE)
		return err_set(e, ERR_DATA, "--kv-raw", "this model's keys are not rotated");
	if (a->edges == 0 && a->kv == 0 && a->probs == 0 && a->resid == 0)
		return err_set(e, ERR_USAGE, "--edges", "none, and no --kv, --probs or --resid: "
			       "nothing is left to quantize");
	if (a->edges == 0 && a->told)
		return err_set(e, ERR_USAGE, "--edges", "none; what else is said of their grids "
			       "(bits, format, rule, range) is of no use: keys and values have "
			       "--kv and options of that name");
	if (a->kv == 0 && (a->kv_raw || a->kv_window > 0 || a->kv_fixed || a->kv_clip < 1))
		return err_set(e, ERR_USAGE, a->kv_raw ? "--kv-raw" : a->kv_fixed ? "--kv-static" :
			       a->kv_window > 0 ? "--kv-window" : "--kv-clip", "goes with --kv");
	if (a->kv_raw && a->kv_fixed)
		return err_set(e, ERR_USAGE, "--kv-static", "ranges are those of keys as the cache "
			       "holds them, behind their rotation: not with --kv-raw");
	return check_clamp(a, e) < 0 ? -1 : check_skip(a, m, e);
}

/* ---- static ranges --------------------------------------------------------------- */

struct ranging {
	const struct quant_acts *a;
	const float *lo, *hi, *absmax, *samples; /* statistics of an edge; NULL: not there */
	size_t width, rows;                      /* rows of samples */
	float *sorted;                           /* room for a group's samples */
};

static int missing(const char *where, const char *what, const char *stats, struct err *e)
{
	return err_set(e, ERR_DATA, where, "no %s for a static range; put \"record-acts -S %s -\" "
		       "before quant-acts", what, stats);
}

static int find_stats(struct ranging *r, struct block *b, enum edge g, const char *where,
		      struct err *e)
{
	const struct item *lo = block_stat(b, g, STAT_MIN), *hi = block_stat(b, g, STAT_MAX);
	const struct item *most = block_stat(b, g, STAT_ABSMAX);
	const struct item *samples = block_stat(b, g, STAT_SAMPLES);
	const bool want = r->a->clip == CLIP_MSE || r->a->clip == CLIP_PERCENTILE;

	r->lo = lo != NULL && hi != NULL ? lo->data : NULL;
	r->hi = lo != NULL && hi != NULL ? hi->data : NULL;
	r->absmax = most != NULL ? most->data : NULL;
	if (r->lo == NULL && !r->a->q.sym)
		return missing(where, "min and max", want ? "minmax,samples" : "minmax", e);
	if (r->lo == NULL && r->absmax == NULL)
		return missing(where, "absmax", want ? "absmax,samples" : "absmax", e);
	r->samples = samples != NULL ? samples->data : NULL;
	r->rows = samples != NULL ? (size_t)samples->rec.shape[0] : 0;
	return !want || r->rows > 0 ? 0 :
	       missing(where, "samples", "absmax,minmax,samples", e);
}

static void whole_range(const struct ranging *r, size_t from, size_t n, float *m, float *M)
{
	*m = INFINITY;
	*M = -INFINITY;
	for (size_t i = from; i < from + n; i++) {
		*m = fminf(*m, r->lo != NULL ? r->lo[i] : -r->absmax[i]);
		*M = fmaxf(*M, r->lo != NULL ? r->hi[i] : r->absmax[i]);
	}
}

static int by_value(const void *a, const void *b)
{
	const float x = *(const float *)a, y = *(const float *)b;

	return (x > y) - (x < y);
}

/* The value that so many percent do not exceed: the nearest rank. */
static float ranked(const float *sorted, size_t n, double percent)
{
	const double at = ceil(percent / 100 * (double)n);

	return sorted[at < 1 ? 0 : at > (double)n ? n - 1 : (size_t)at - 1];
}

static void percentile(const struct ranging *r, size_t from, size_t n, float *m, float *M)
{
	const double p = r->a->percent;
	size_t k = 0;

	for (size_t i = 0; i < r->rows; i++)
		for (size_t j = from; j < from + n; j++) {
			const float x = r->samples[i * r->width + j];

			r->sorted[k++] = r->a->q.sym ? fabsf(x) : x;
		}
	qsort(r->sorted, k, sizeof(*r->sorted), by_value);
	*M = ranked(r->sorted, k, r->a->q.sym ? p : 50 + p / 2);
	*m = r->a->q.sym ? -*M : ranked(r->sorted, k, 50 - p / 2);
}

static double squares(const struct ranging *r, const struct quant_grid *g, size_t from, size_t n)
{
	double sum = 0;

	for (size_t i = 0; i < r->rows; i++) {
		const float *x = r->samples + i * r->width + from;

		quant_run(&r->a->q, g, r->sorted, x, n, NULL);
		for (size_t j = 0; j < n; j++) {
			const double d = (double)x[j] - (double)r->sorted[j];

			sum += d * d;
		}
	}
	return sum;
}

static int least_squares(const struct ranging *r, size_t from, size_t n, float m, float M,
			 struct quant_grid *g)
{
	double least = INFINITY;

	for (int i = 0; i < SHRINKS; i++) {
		const float p = 1 - (float)i / 100;
		struct quant_grid try;
		double sum;

		if (quant_fit(&r->a->q, p * m, p * M, &try) < 0)
			return -1;
		sum = squares(r, &try, from, n);
		if (sum < least) {
			least = sum;
			*g = try;
		}
	}
	return 0;
}

static int make_grid(const struct ranging *r, size_t from, size_t n, const char *where,
		     struct quant_grid *g, struct err *e)
{
	float m, M;
	int ret;

	whole_range(r, from, n, &m, &M);
	if (m == 0 && M == 0)
		return err_set(e, ERR_DATA, where, "channels %zu to %zu were always 0: a range of "
			       "no width; --skip it, or quantize it dynamically", from,
			       from + n - 1);
	if (r->a->clip == CLIP_PERCENTILE)
		percentile(r, from, n, &m, &M);
	ret = r->a->clip == CLIP_MSE ? least_squares(r, from, n, m, M, g) :
	      quant_fit(&r->a->q, m, M, g);
	return ret == 0 ? 0 : err_set(e, ERR_DATA, where, "no grid holds %g ... %g", (double)m,
				      (double)M);
}

static int make_grids(struct ranging *r, struct block *b, enum edge g, size_t groups,
		      struct quant_grid *grids, struct err *e)
{
	const size_t n = r->width / groups;
	char where[256];
	int ret;

	model_edge_name(b->model, g, b->layer, where);
	if (find_stats(r, b, g, where, e) < 0)
		return -1;
	r->sorted = malloc((r->rows > 0 ? r->rows : 1) * n * sizeof(*r->sorted));
	if (r->sorted == NULL)
		return err_nomem(e, where, r->rows * n * sizeof(*r->sorted));
	ret = 0;
	for (size_t i = 0; i < groups && ret == 0; i++)
		ret = make_grid(r, i * n, n, where, &grids[i], e);
	free(r->sorted);
	return ret;
}

/* ---- records --------------------------------------------------------------------- */

static int add_quant(struct block *b, enum edge g, const struct quant *q, struct err *e)
{
	if (run_add_quant(b, PLACE_EDGES + (int)g, q, 0, e) < 0)
		return -1;
	return q->clamp.group > 0 ? clamp_note(b, g, q, e) : 0;
}

/* The groups asked for, or those of a head, do not divide the channels. */
static int no_group(const struct quant_acts *a, const char *name, size_t group, size_t width,
		    struct err *e)
{
	char sizes[128];

	quantizer_sizes(width, sizes, sizeof(sizes));
	return err_set(e, ERR_DATA, name, "%s of %zu do not divide %zu channels; sizes that do: %s",
		       a->heads ? "heads" : "groups", group, width, sizes);
}

static int add_edge(struct block *b, const struct quant_acts *a, enum edge g, struct err *e)
{
	struct ranging r = { .a = a, .width = (size_t)model_edge_width(b->model, g) };
	struct quant_grid *grids;
	struct quant q = a->q;
	size_t groups;
	char name[256];
	int ret;

	if (a->heads)
		q.group = (size_t)b->model->cfg.head_dim;
	model_edge_name(b->model, g, b->layer, name);
	if (q.per == QUANT_GROUP && r.width % q.group != 0)
		return no_group(a, name, q.group, r.width, e);
	if (!a->fixed)
		return add_quant(b, g, &q, e);
	groups = quant_groups(&q, r.width);
	grids = malloc(groups * sizeof(*grids));
	if (grids == NULL)
		return err_nomem(e, name, groups * sizeof(*grids));
	ret = make_grids(&r, b, g, groups, grids, e);
	q.fixed = grids;
	if (ret == 0)
		ret = add_quant(b, g, &q, e);
	free(grids);
	return ret;
}

/* Least and greatest of keys or values, as "record-acts --kv" has them. */
static const float *cache_stat(struct block *b, const char *name, enum stat s, size_t width,
			       struct err *e)
{
	const struct item *it = block_stat_of(b, name, s);

	if (it == NULL)
		err_set(e, ERR_DATA, name, "no %s for a static range; put \"record-acts --kv -\" "
			"before quant-acts", stat_name(s));
	else if (it->rec.dtype != DT_F32 || it->rec.rank != 1 ||
		 it->rec.shape[0] != (int64_t)width)
		err_set(e, ERR_DATA, name, "%s is not %zu numbers in F32", stat_name(s), width);
	else if (f32_first_nonfinite(it->data, width) >= 0)
		err_set(e, ERR_DATA, name, "%s is not finite", stat_name(s));
	else
		return it->data;
	return NULL;
}

static int cache_grids(struct block *b, const struct quant_acts *a, int place, struct quant *q,
		       struct quant_grid **grids, struct err *e)
{
	const size_t width = run_place_width(b->model, place), groups = quant_groups(q, width);
	struct quant_acts as = { .q = *q };
	struct ranging r = { .a = &as, .width = width };
	char name[256];
	int ret = 0;

	if (!a->kv_fixed)
		return 0;
	run_place_name(b->model, place, b->layer, name);
	if ((r.lo = cache_stat(b, name, STAT_MIN, width, e)) == NULL ||
	    (r.hi = cache_stat(b, name, STAT_MAX, width, e)) == NULL)
		return -1;
	if ((*grids = malloc(groups * sizeof(**grids))) == NULL)
		return err_nomem(e, name, groups * sizeof(**grids));
	for (size_t i = 0; i < groups && ret == 0; i++)
		ret = make_grid(&r, i * (width / groups), width / groups, name, &(*grids)[i], e);
	q->fixed = *grids;
	return ret;
}

static int add_cache(struct block *b, const struct quant_acts *a, struct err *e)
{
	const int places[2] = { a->kv_raw ? PLACE_K_RAW : PLACE_K, PLACE_V };
	const bool e4m3 = a->kv_format == QUANT_E4M3;
	int ret = 0;

	for (int i = 0; i < 2 && ret == 0; i++) {
		struct quant q = { .format = a->kv_format, .bits = a->kv, .sym = e4m3,
				   .rule = e4m3 ? QUANT_QUAROT : QUANT_GPTQ,
				   .per = e4m3 && a->kv_fixed ? QUANT_TENSOR : QUANT_GROUP,
				   .group = (size_t)b->model->cfg.head_dim, .clip = a->kv_clip };
		struct quant_grid *grids = NULL;

		if (skipped(a, b->model, places[i], b->layer))
			continue;
		ret = cache_grids(b, a, places[i], &q, &grids, e);
		if (ret == 0)
			ret = run_add_quant(b, places[i], &q, (size_t)a->kv_window, e);
		free(grids);
	}
	return ret;
}

/* Probabilities lie between 0 and 1, whatever the model does. */
static int add_probs(struct block *b, const struct quant_acts *a, struct err *e)
{
	struct quant q = { .bits = a->probs, .rule = QUANT_GPTQ, .per = QUANT_TOKEN, .clip = 1 };
	struct quant_grid g;

	if (skipped(a, b->model, PLACE_P, b->layer))
		return 0;
	if (a->fixed) {
		q.per = QUANT_TENSOR;
		if (quant_fit(&q, 0, 1, &g) < 0)
			return err_set(e, ERR_BUG, "attn.p", "no grid");
		q.fixed = &g;
	}
	return run_add_quant(b, PLACE_P, &q, 0, e);
}

static int add_resid(struct block *b, const struct quant_acts *a, struct err *e)
{
	struct quant q = { .bits = a->resid, .sym = a->q.sym, .rule = a->q.rule,
			   .per = QUANT_TOKEN, .clip = 1 };

	if (a->q.format == QUANT_E4M3)
		q.rule = QUANT_QUAROT;
	for (int i = PLACE_ATTN_RESID; i <= PLACE_MLP_RESID; i++)
		if (!skipped(a, b->model, i, b->layer) && run_add_quant(b, i, &q, 0, e) < 0)
			return -1;
	return 0;
}

int quant_acts_block(struct block *b, const struct quant_acts *a, struct err *e)
{
	for (int g = 0; g < model_edges(b->model); g++)
		if (wanted(a, b->model, (enum edge)g, b->layer) &&
		    add_edge(b, a, (enum edge)g, e) < 0)
			return -1;
	if ((a->kv > 0 && add_cache(b, a, e) < 0) || (a->probs > 0 && add_probs(b, a, e) < 0))
		return -1;
	return a->resid > 0 ? add_resid(b, a, e) : 0;
}
