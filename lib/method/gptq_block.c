/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gptq_block.c - GPTQ of the linears of a block, by the Hessians that came with it (gptq.h)
 */
#include <stdlib.h>

#include "lib/base/usage.h"
#include "lib/method/gptq.h"
#include "lib/method/gptq_solve.h"

struct gptq {
	struct backend *be;
	const struct gptq_options *opt;
	const struct layer_options *layers;
	struct gptq_hessian *h;
	struct quantized z;
	double factor, solve;
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
	quantized_release(&g->z);
	free(g);
}

void gptq_seconds(const struct gptq *g, double *factor, double *solve)
{
	*factor = g->factor;
	*solve = g->solve;
}

static bool reads(const struct block *b, const struct linear_row *row, enum edge edge)
{
	return row->in == edge && model_has(b->model, row->weight);
}

bool gptq_wants(const struct gptq *g, const struct block *b, enum edge edge)
{
	const struct linear_row *row = b->model->family->linears;

	for (; row->weight != SLOT_NONE; row++)
		if (reads(b, row, edge) && !layer_skipped(g->layers, b->model, row, b->layer))
			return true;
	return false;
}

static int quantize_layer(struct gptq *g, struct block *b, struct layer *l, const float *tri,
			  struct err *e)
{
	struct gptq_result res = { 0 };

	if (layer_weigh(l, g->be, tri, e) < 0 ||
	    gptq_quantize(&g->z, &res, g->h, l->w, l->rows, g->opt, l->where, e) < 0 ||
	    layer_store(l, b, &g->z, g->layers, e) < 0)
		return -1;
	g->solve += res.seconds;
	return layer_note(l, b, g->layers, res.energy, true, &res, res.seconds, e);
}

int gptq_edge(struct gptq *g, struct block *b, enum edge edge, const float *tri, struct err *e)
{
	const struct linear_row *row = b->model->family->linears;
	double start = usage_seconds();
	char where[256];

	model_edge_name(b->model, edge, b->layer, where);
	if (gptq_wants(g, b, edge) &&
	    gptq_hessian_new(&g->h, g->be, tri, (size_t)model_edge_width(b->model, edge), g->opt,
			     where, e) < 0)
		return -1;
	g->factor += usage_seconds() - start;
	for (; row->weight != SLOT_NONE; row++) {
		struct layer l;
		int got;

		if (!reads(b, row, edge))
			continue;
		got = layer_take(&l, b, row, g->layers, e);
		if (got < 0 || (got > 0 && quantize_layer(g, b, &l, tri, e) < 0))
			return -1;
	}
	return 0;
}

int gptq_block(struct gptq *g, struct block *b, struct err *e)
{
	for (int i = 0; i < EDGE_COUNT; i++) {
		const float *tri = layer_hessian(b, (enum edge)i);
		bool wants = gptq_wants(g, b, (enum edge)i);
		char where[256];

		model_edge_name(b->model, (enum edge)i, b->layer, where);
		if (wants && !tri && layer_refuse_quantized(g->layers, b, (enum edge)i, e) < 0)
			return -1;
		if (wants && !tri)
			return err_set(e, ERR_DATA, where, "no hessian; put \"record-acts - "
				       "--stats=hessian\" before gptq, or use --sequential");
		if (gptq_edge(g, b, (enum edge)i, tri, e) < 0)
			return -1;
		if (wants && !g->layers->keep_stats)
			layer_drop_hessian(b, (enum edge)i);
	}
	return 0;
}
