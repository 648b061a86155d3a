/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gptq_block.c - GPTQ of the linears of a block, by the Hessians that came with it (gptq.h)
 */
#include <stdlib.h>
#include <string.h>

#include "lib/base/usage.h"
#include "lib/method/gptq.h"
#include "lib/method/gptq_guard.h"
#include "lib/method/gptq_solve.h"
#include "lib/method/gptq_target.h"
#include "lib/method/rtn.h"

struct gptq {
	struct backend *be;
	const struct gptq_options *opt;
	const struct layer_options *layers;
	struct gptq_hessian *h;
	struct quantized z;
	struct gptq_target *target; /* ready for the edge at hand, or NULL */
	struct gptq_guard guard;
	int64_t aside;              /* tokens of the others, at the edge at hand */
	double factor, solve;
	long shorts;
};

struct gptq *gptq_new(struct backend *be, const struct gptq_options *opt,
		      const struct layer_options *layers, struct err *e)
{
	struct gptq *g = calloc(1, sizeof(*g));

	if (!g) {
		err_nomem(e, "", sizeof(*g));
		return NULL;
	}
	g->be = be;
	g->opt = opt;
	g->layers = layers;
	return g;
}

void gptq_free(struct gptq *g)
{
	if (!g)
		return;
	gptq_hessian_free(g->h);
	gptq_guard_release(&g->guard);
	quantized_release(&g->z);
	free(g);
}

void gptq_seconds(const struct gptq *g, double *factor, double *solve)
{
	*factor = g->factor;
	*solve = g->solve;
}

bool gptq_wants_target(const struct gptq *g)
{
	return g->opt->target;
}

/* The first linear of the edge that is not passed over, and how it is cut. */
static bool first_wanted(const struct gptq *g, const struct block *b, enum edge edge,
			 struct quantizer *q)
{
	struct linear_row row;
	char name[256];

	for (size_t n = 0; model_linear(b->model, b->layer, n, &row); n++)
		if (row.in == edge && !layer_skipped(g->layers, b->model, &row, b->layer)) {
			model_tensor_name(b->model, row.weight, b->layer, name);
			*q = layer_quantizer(g->layers, name);
			return true;
		}
	return false;
}

bool gptq_wants(const struct gptq *g, const struct block *b, enum edge edge)
{
	struct quantizer q;

	return first_wanted(g, b, edge, &q);
}

long gptq_short(const struct gptq *g)
{
	return g->shorts;
}

/* The weight as the full stream wants it; *was: as it came, the caller's to free. */
static int move_weight(struct gptq *g, const struct layer *l, float **was, struct gptq_result *res,
		       struct err *e)
{
	const size_t n = l->rows * l->cols;

	if (!(*was = malloc(n * sizeof(**was))))
		return err_nomem(e, l->where, n * sizeof(**was));
	memcpy(*was, l->w, n * sizeof(**was));
	res->moved = true;
	return gptq_target_move(g->target, l->w, l->rows, &res->step, e);
}

/* The energy of w - was into *energy; frees was. */
static int moved_energy(struct gptq *g, const struct layer *l, float *was, const float *tri,
			double *energy, struct err *e)
{
	int r;

	for (size_t i = 0; i < l->rows * l->cols; i++)
		was[i] -= l->w[i];
	r = output_energy(g->be, was, l->rows, l->cols, tri, energy, e);
	free(was);
	return r;
}

/* tokens: in tri, or 0 where nobody counted. */
static int quantize_layer(struct gptq *g, struct block *b, struct layer *l, const float *tri,
			  int64_t tokens, struct err *e)
{
	struct gptq_options opt = *g->opt;
	struct gptq_result res = { 0 };
	float *was = NULL;

	if (tokens > 0 && tokens < (int64_t)l->cols) {
		res.tokens_short = tokens;
		g->shorts++;
	}

	opt.q = l->q;
	res.tokens_aside = g->aside;
	if (layer_weigh(l, g->be, tri, e) < 0 ||
	    (g->target && move_weight(g, l, &was, &res, e) < 0) ||
	    gptq_guard_quantize(&g->guard, &g->z, &res, g->h, l->w, was, l->rows, &opt, l->where,
				e) < 0 ||
	    (was && moved_energy(g, l, was, tri, &res.energy, e) < 0) ||
	    layer_store(l, b, &g->z, g->layers, e) < 0)
		return -1;
	g->solve += res.seconds;
	return layer_note(l, b, g->layers, res.energy, true, &res, res.seconds, e);
}

/* 1: enough tokens; 0: *as says what to do without; -1: refused. */
static int enough(const struct gptq *g, const struct block *b, enum edge edge,
		  const struct gptq_input *in, const char **as, struct err *e)
{
	char where[256];

	if (edge_expert(edge) < 0 || in->tokens >= g->opt->min_tokens)
		return 1;
	*as = g->opt->starved == STARVED_BORROW && in->whole ? "borrow" : "rtn";
	if (g->opt->starved != STARVED_STOP)
		return 0;
	model_edge_name(b->model, edge, b->layer, where);
	return err_set(e, ERR_DATA, where, "%lld tokens came here, fewer than "
		       "--min-tokens=%ld; record more, or record-acts --moe-all, or "
		       "--starved=rtn|borrow", (long long)in->tokens, g->opt->min_tokens);
}

/* What there is to judge by. */
static int guard_edge(struct gptq *g, struct block *b, enum edge edge, const struct gptq_input *in,
		      const float *tri, const struct gptq_options *opt, struct err *e)
{
	const float *aside = g->target ? gptq_target_aside(g->target) : in->aside;
	char where[256];

	g->guard.target = g->target;
	g->guard.judge = NULL;
	g->aside = 0;
	if (!gptq_wants(g, b, edge) || tri != in->tri)
		return 0;
	model_edge_name(b->model, edge, b->layer, where);
	if (gptq_guard_edge(&g->guard, g->be, tri, aside,
			    (size_t)model_edge_width(b->model, edge), opt, where, e) < 0)
		return -1;
	g->aside = g->guard.judge ? in->tokens_aside : 0;
	return 0;
}

bool gptq_guarded(const struct gptq *g)
{
	return gptq_guard_wanted(g->opt);
}

int gptq_edge(struct gptq *g, struct block *b, enum edge edge, const struct gptq_input *in,
	      struct err *e)
{
	struct linear_row row;
	double start = usage_seconds();
	struct gptq_options opt = *g->opt;
	const char *as = NULL;
	const float *tri = in->tri;
	char where[256];
	int plenty = 1;

	model_edge_name(b->model, edge, b->layer, where);
	/* Panels are cut by the group: one for all linears of an edge (layer_check_groups). */
	if (first_wanted(g, b, edge, &opt.q)) {
		plenty = enough(g, b, edge, in, &as, e);
		if (as && strcmp(as, "borrow") == 0)
			tri = in->whole;
		if (plenty < 0 || ((plenty || tri == in->whole) &&
		    gptq_hessian_new(&g->h, g->be, tri,
				     (size_t)model_edge_width(b->model, edge), &opt, where,
				     e) < 0))
			return -1;
	}
	g->target = gptq_wants(g, b, edge) ? in->target : NULL;
	if (g->target && gptq_target_shift(g->target, edge, tri, g->opt->damp, where, e) < 0)
		return -1;
	if (guard_edge(g, b, edge, in, tri, &opt, e) < 0)
		return -1;
	g->factor += usage_seconds() - start;
	for (size_t n = 0; model_linear(b->model, b->layer, n, &row); n++) {
		struct layer l;
		int got;

		if (row.in != edge)
			continue;
		got = layer_take(&l, b, &row, g->layers, e);
		l.starved = as;
		l.tokens = in->tokens;
		if (got > 0 && !plenty && in->tokens <= 0 && l.q.range == RANGE_HMSE)
			l.q.range = RANGE_MINMAX; /* nothing to weigh with */
		if (got > 0)
			got = plenty || tri == in->whole ?
			      quantize_layer(g, b, &l, tri, tri == in->tri ? in->tokens : 0, e) :
			      rtn_layer(&l, b, in->tokens > 0 ? tri : NULL, &g->z, g->be,
					g->layers, e);
		if (got < 0)
			return -1;
	}
	return 0;
}

static int block_edge(struct gptq *g, struct block *b, enum edge edge, struct err *e)
{
	const enum edge of = model_edge_row(b->model, edge).of;
	struct gptq_input in = { .tri = layer_hessian(b, edge) };
	const struct item *it = block_stat(b, edge, STAT_HESSIAN);
	char where[256];

	model_edge_name(b->model, edge, b->layer, where);
	if (!in.tri && gptq_wants(g, b, edge)) {
		if (layer_refuse_quantized(g->layers, b, edge, e) < 0)
			return -1;
		return err_set(e, ERR_DATA, where, "no hessian; put \"record-acts - "
			       "--stats=hessian\" before gptq, or use --sequential");
	}
	if (it && record_get_int(&it->rec, "tokens", &in.tokens) != 1)
		return err_set(e, ERR_DATA, where, "hessian without the number of tokens");
	if (of != edge)
		in.whole = layer_hessian(b, of);
	return gptq_edge(g, b, edge, &in, e);
}

int gptq_block(struct gptq *g, struct block *b, struct err *e)
{
	const int edges = model_edges(b->model);

	for (int i = 0; i < edges; i++)
		if (model_has_edge(b->model, i, b->layer) && block_edge(g, b, i, e) < 0)
			return -1;
	for (int i = 0; i < edges && !g->layers->keep_stats; i++)
		if (model_has_edge(b->model, i, b->layer) && gptq_wants(g, b, i))
			layer_drop_hessian(b, (enum edge)i);
	return 0;
}

static int do_front(void *ctx, struct block *b, struct err *e)
{
	return gptq_block(ctx, b, e);
}

int gptq_other(struct gptq *g, struct block *front, struct stream_in *in, struct record *rec,
	       struct stream_out *out, struct err *e)
{
	const int got = !g->layers->ends ? 0 :
			block_pass_front(front, in, rec, out, do_front, g, e);

	return got < 0 ? -1 : got > 0 ? 0 : stream_copy(out, in, rec, e);
}
