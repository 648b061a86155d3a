/* SPDX-License-Identifier: Apache-2.0 */
/*
 * alloc.c - errors of all linears at all widths, and the plan that follows (alloc.h)
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/method/alloc.h"
#include "lib/method/rtn.h"

struct linear {
	char name[256];
	char where[256];
	long layer;
	size_t rows, cols, groups;
	long bundle;
	enum slot slot;
	double energy;
	double base;    /* what errors are relative to: energy, or of all experts of the layer */
	double error[ALLOC_WIDTHS];
};

struct alloc {
	struct backend *be;
	const struct alloc_options *o;
	struct gptq_hessian *h;
	struct quantized z;
	float *w;
	size_t cap_w;
	struct linear *lin;
	size_t n, cap;
};

int alloc_parse_widths(const char *list, unsigned *widths, struct err *e)
{
	*widths = 0;
	for (const char *p = list;; p += 2) {
		if (*p < '2' || *p > '8' || (p[1] && p[1] != ','))
			return err_set(e, ERR_USAGE, "--widths", "expected some of 2 to 8, comma "
				       "between, got '%s'", list);
		*widths |= 1u << (*p - '0');
		if (!p[1])
			return 0;
	}
}

struct alloc *alloc_new(struct backend *be, const struct alloc_options *o, struct err *e)
{
	struct alloc *a = calloc(1, sizeof(*a));

	if (!a) {
		err_nomem(e, "", sizeof(*a));
		return NULL;
	}
	a->be = be;
	a->o = o;
	return a;
}

void alloc_free(struct alloc *a)
{
	if (!a)
		return;
	gptq_hessian_free(a->h);
	quantized_release(&a->z);
	free(a->w);
	free(a->lin);
	free(a);
}

/* Linears with one number get one width. */
static long bundle_of(const struct alloc *a, const struct linear_row *row, long layer)
{
	if (a->o->fuse == FUSE_NONE)
		return (long)a->n;
	if (slot_expert(row->weight) >= 0)
		return (layer + 1) * -8;
	switch (row->weight) {
	case SLOT_SHARED_GATE: case SLOT_SHARED_UP: return (layer + 1) * -8 - 5;
	default: return (layer + 1) * -8 - 1 - (long)row->in;
	}
}

static int reserve(struct alloc *a, size_t floats, const char *where, struct err *e)
{
	if (a->n == a->cap) {
		size_t cap = a->cap ? 2 * a->cap : 128;
		struct linear *l = realloc(a->lin, cap * sizeof(*l));

		if (!l)
			return err_nomem(e, where, cap * sizeof(*l));
		a->lin = l;
		a->cap = cap;
	}
	if (floats > a->cap_w) {
		free(a->w);
		a->cap_w = 0;
		if (!(a->w = malloc(floats * sizeof(*a->w))))
			return err_nomem(e, where, floats * sizeof(*a->w));
		a->cap_w = floats;
	}
	return 0;
}

/* E_b by the trial quantizer; a->h is the edge's. */
static int trial(struct alloc *a, const struct layer *l, const float *tri, int bits, double *error,
		 struct err *e)
{
	const size_t n = l->rows * l->cols;
	struct gptq_options opt = a->o->gptq;
	struct gptq_result res = { 0 };

	opt.q = l->q;
	opt.q.bits = bits;
	if (!a->o->rtn) {
		memcpy(a->w, l->w, n * sizeof(*a->w));
		if (gptq_quantize(&a->z, &res, a->h, a->w, l->rows, &opt, l->where, e) < 0)
			return -1;
		*error = res.shrunk > 0 ? res.shrunk : 0;
		return 0;
	}
	if (rtn_quantize(&a->z, &opt.q, l->w, l->rows, l->cols, a->be->pool, l->where, e) < 0)
		return -1;
	quantized_dequantize(&a->z, a->w);
	for (size_t i = 0; i < n; i++)
		a->w[i] -= l->w[i];
	return output_energy(a->be, a->w, l->rows, l->cols, tri, error, e);
}

static int add_linear(struct alloc *a, struct block *b, struct layer *l, const float *tri,
		      struct err *e)
{
	struct linear *x;
	size_t group;

	if (reserve(a, l->rows * l->cols, l->where, e) < 0 || layer_weigh(l, a->be, tri, e) < 0)
		return -1;
	x = &a->lin[a->n];
	memset(x, 0, sizeof(*x));
	memcpy(x->name, l->name, sizeof(x->name));
	memcpy(x->where, l->where, sizeof(x->where));
	x->layer = b->layer;
	x->rows = l->rows;
	x->cols = l->cols;
	x->bundle = bundle_of(a, &l->row, b->layer);
	x->slot = l->row.weight;
	x->energy = l->energy;
	if (quantizer_groups(&l->q, l->cols, l->where, &x->groups, &group, e) < 0)
		return -1;
	for (int bits = 2; bits <= 8; bits++)
		if (a->o->widths >> bits & 1 &&
		    trial(a, l, tri, bits, &x->error[bits - 2], e) < 0)
			return -1;
	a->n++;
	return 0;
}

static bool wanted(const struct alloc *a, const struct block *b, enum edge edge)
{
	struct linear_row row;

	for (size_t n = 0; model_linear(b->model, b->layer, n, &row); n++)
		if (row.in == edge && !layer_skipped(&a->o->layers, b->model, &row, b->layer))
			return true;
	return false;
}

/* An expert's edge without tokens has no factor: its linears cost nothing at any width. */
static int alloc_edge(struct alloc *a, struct block *b, enum edge edge, struct err *e)
{
	const struct item *it = block_stat(b, edge, STAT_HESSIAN);
	struct gptq_options opt = a->o->gptq;
	struct linear_row row;
	char where[256];
	int64_t tokens;

	model_edge_name(b->model, edge, b->layer, where);
	if (layer_refuse_quantized(&a->o->layers, b, edge, e) < 0)
		return -1;
	if (!it)
		return err_set(e, ERR_DATA, where, "no hessian; put \"record-acts - "
			       "--stats=hessian\" before qp-alloc");
	if (record_get_int(&it->rec, "tokens", &tokens) != 1)
		return err_set(e, ERR_DATA, where, "hessian without the number of tokens");
	opt.q = a->o->layers.q;
	if (!a->o->rtn && tokens > 0 &&
	    gptq_hessian_new(&a->h, a->be, it->data, (size_t)model_edge_width(b->model, edge),
			     &opt, where, e) < 0)
		return -1;
	for (size_t n = 0; model_linear(b->model, b->layer, n, &row); n++) {
		struct layer l;
		int got = 0;

		if (row.in == edge && !layer_skipped(&a->o->layers, b->model, &row, b->layer))
			got = layer_take(&l, b, &row, &a->o->layers, e);
		if (got > 0 && tokens == 0)
			return err_set(e, ERR_DATA, where, "no calibration token came this way; "
				       "record more, or record-acts --moe-all");
		if (got < 0 || (got > 0 &&
				add_linear(a, b, &l, layer_hessian(b, edge), e) < 0))
			return -1;
	}
	return 0;
}

int alloc_block(struct alloc *a, struct block *b, struct err *e)
{
	for (int g = 0; g < model_edges(b->model); g++)
		if (model_has_edge(b->model, g, b->layer) && wanted(a, b, (enum edge)g) &&
		    alloc_edge(a, b, (enum edge)g, e) < 0)
			return -1;
	return 0;
}

/* ---- costs ----------------------------------------------------------------------- */

static uint64_t size_of(const struct alloc *a, const struct linear *l, int bits)
{
	const struct quantizer *q = &a->o->layers.q;
	uint64_t each = q->scale_dtype == DT_F32 ? 32 : 16;
	uint64_t scales = (uint64_t)l->groups * (q->group == 0 ? 1 : l->rows);

	each += q->sym ? 0 : 8;
	return (uint64_t)l->rows * ((l->cols * (size_t)bits + 7) / 8) * 8 + scales * each;
}

double alloc_weight(enum slot weight)
{
	switch (slot_kind(weight)) {
	case SLOT_K: case SLOT_DOWN: case SLOT_X_DOWN: case SLOT_SHARED_DOWN: return 1.5;
	case SLOT_Q: case SLOT_O: return 0.75;
	case SLOT_V: return 0.5;
	default: return 1;
	}
}

static double cost_of(const struct alloc *a, const struct linear *l, int bits)
{
	const double c = a->o->alike ? 1 : alloc_weight(l->slot);

	return l->base > 0 ? c * l->error[bits - 2] / l->base : 0;
}

/* A layer's linears stand together. */
static void find_bases(struct alloc *a)
{
	for (size_t i = 0; i < a->n; i++) {
		struct linear *l = &a->lin[i];
		size_t j = i;

		if (slot_expert(l->slot) < 0) {
			l->base = l->energy;
			continue;
		}
		while (j > 0 && a->lin[j - 1].layer == l->layer)
			j--;
		for (l->base = 0; j < a->n && a->lin[j].layer == l->layer; j++)
			if (slot_kind(a->lin[j].slot) == slot_kind(l->slot))
				l->base += a->lin[j].energy;
	}
}

/* ---- the plan -------------------------------------------------------------------- */

/* Items of bundles, in the order of their first linears; of[i]: the item of linear i. */
static size_t make_items(const struct alloc *a, struct alloc_item *items, size_t *of)
{
	size_t n = 0;

	for (size_t i = 0; i < a->n; i++) {
		const struct linear *l = &a->lin[i];
		struct alloc_choice *c;
		size_t j = i;

		while (j > 0 && a->lin[j - 1].bundle != l->bundle)
			j--;
		of[i] = j > 0 ? of[j - 1] : n;
		if (of[i] == n)
			memset(&items[n++], 0, sizeof(*items));
		items[of[i]].n = 0;
		for (int bits = 2; bits <= 8; bits++)
			if (a->o->widths >> bits & 1) {
				c = &items[of[i]].choice[items[of[i]].n++];
				c->size += size_of(a, l, bits);
				c->cost += cost_of(a, l, bits);
			}
	}
	return n;
}

static int width(const struct alloc *a, size_t pick)
{
	int bits = 2;

	for (;; bits++)
		if (a->o->widths >> bits & 1 && pick-- == 0)
			return bits;
}

static void put_plan(const struct alloc *a, const struct model *m, const uint8_t *pick,
		     const size_t *of, struct buf *out)
{
	plan_put_head(out, m);
	for (size_t i = 0; i < a->n; i++) {
		struct plan_row row = {
			.bits = width(a, pick[of[i]]), .has_group = true,
			.group = a->o->layers.q.group,
		};

		memcpy(row.name, a->lin[i].name, sizeof(row.name));
		plan_put_row(out, &row);
	}
}

static void sum_up(const struct alloc *a, const struct alloc_item *items, size_t n,
		   const uint8_t *pick, uint64_t budget, double weights, struct alloc_sum *s)
{
	uint64_t size = 0;

	memset(s, 0, sizeof(*s));
	for (size_t i = 0; i < n; i++) {
		size += items[i].choice[pick[i]].size;
		s->cost += items[i].choice[pick[i]].cost;
	}
	s->bits = (double)size / weights;
	for (size_t c = 0; n > 0 && c < items[0].n; c++) {
		double cost = 0;

		size = 0;
		for (size_t i = 0; i < n; i++) {
			size += items[i].choice[c].size;
			cost += items[i].choice[c].cost;
		}
		if (size > budget)
			break;
		s->uniform = width(a, c);
		s->uniform_cost = cost;
	}
}

int alloc_plan(struct alloc *a, const struct model *m, struct buf *out, struct alloc_sum *sum,
	       struct err *e)
{
	struct alloc_item *items = calloc(a->n + 1, sizeof(*items));
	size_t *of = calloc(a->n + 1, sizeof(*of)), n;
	uint8_t *pick = calloc(a->n + 1, 1);
	uint64_t budget = a->o->bytes * 8, least = 0;
	double weights = 0;
	int r = -1;

	if (!items || !of || !pick) {
		err_nomem(e, "", (a->n + 1) * sizeof(*items));
		goto out;
	}
	if (a->n == 0) {
		err_set(e, ERR_DATA, "", "no linear to give bits to");
		goto out;
	}
	for (size_t i = 0; i < a->n; i++)
		weights += (double)a->lin[i].rows * (double)a->lin[i].cols;
	if (a->o->bits > 0)
		budget = (uint64_t)(a->o->bits * weights);
	find_bases(a);
	n = make_items(a, items, of);
	r = alloc_solve(items, n, budget, pick, &least, e);
	if (r < 0 && e->cls == ERR_DATA)
		err_set(e, ERR_DATA, "", "the budget cannot be met: %.4f bits a weight, scales "
			"counted, or %llu bytes is the least with these widths and groups",
			ceil((double)least / weights * 1e4) / 1e4,
			(unsigned long long)((least + 7) / 8));
	if (r < 0)
		goto out;
	put_plan(a, m, pick, of, out);
	sum_up(a, items, n, pick, budget, weights, sum);
	r = buf_failed(out, "", e);
out:
	free(items);
	free(of);
	free(pick);
	return r;
}

void alloc_table(const struct alloc *a, struct buf *out)
{
	buf_puts(out, "linear\trows\tcols\tenergy");
	for (int bits = 2; bits <= 8; bits++)
		if (a->o->widths >> bits & 1)
			buf_printf(out, "\t%d", bits);
	buf_byte(out, '\n');
	for (size_t i = 0; i < a->n; i++) {
		const struct linear *l = &a->lin[i];

		buf_printf(out, "%s\t%zu\t%zu\t%.6e", l->where, l->rows, l->cols, l->energy);
		for (int bits = 2; bits <= 8; bits++)
			if (a->o->widths >> bits & 1)
				buf_printf(out, "\t%.6e", l->error[bits - 2]);
		buf_byte(out, '\n');
	}
}
