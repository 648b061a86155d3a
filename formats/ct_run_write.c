/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ct_run_write.c - run records as key-value caches and transforms of compressed-tensors (ct_run.h)
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/ct_acts.h"
#include "formats/ct_run.h"
#include "formats/readback.h"
#include "lib/base/buf.h"

static int refuse(struct err *e, const char *place, const char *what, const char *fits)
{
	return err_set(e, ERR_DATA, place, "%s: this format has none such; %s", what, fits);
}

/* ---- keys and values ------------------------------------------------------------- */

/* What the format's words for the place are. */
static int take_cache(struct hf_act *a, bool *heads, const struct model *m,
		      const struct run_op *op, const char *place, struct err *e)
{
	const struct quant *q = &op->quant;
	const size_t head = (size_t)m->cfg.head_dim;

	*a = (struct hf_act){ .kind = q->format == QUANT_E4M3 ? HF_ACT_E4M3 : HF_ACT_INT,
			      .asym = !q->sym, .fixed = q->fixed != NULL, .bits = q->bits };
	*heads = a->fixed && q->per == QUANT_GROUP;
	if (m->family->images)
		return refuse(e, place, "keys and values that no cache holds, rounded",
			      "quant-acts without --kv before it");
	if (op->recent > 0)
		return refuse(e, place, "keys and values of which the last are as they are",
			      "quant-acts without --kv-window before it");
	if (q->per == QUANT_TOKEN || (q->per == QUANT_TENSOR && !a->fixed) ||
	    (q->per == QUANT_GROUP && (a->fixed ? q->group != head : head % q->group != 0)))
		return refuse(e, place, "a range for more or less than a head",
			      "quant-acts --kv before it");
	if (a->fixed)
		return 0;
	a->group = (int64_t)q->group;
	if (q->clip < 1)
		return refuse(e, place, "ranges that are narrowed at run time",
			      "quant-acts --kv-clip=1 before it");
	if (q->format == QUANT_INT && q->rule != QUANT_CT && (q->rule != QUANT_GPTQ || q->sym))
		return refuse(e, place, "ranges by this rule", "quant-acts --kv before it");
	return 0;
}

static int put_grids(const struct hf_act *a, const char *module, char kv, const struct run_op *op,
		     size_t n, const char *place, struct st_writer *w, struct err *e)
{
	const int64_t shape[3] = { (int64_t)n, 1, 1 };
	const int rank = n > 1 ? 3 : 1;
	const float most = (float)((1 << a->bits) - 1);
	float *scale = malloc(n * (sizeof(*scale) + 1));
	int8_t *zero = (int8_t *)(scale + n);
	char name[300];
	int ret = 0;

	if (!scale)
		return err_nomem(e, place, n * (sizeof(*scale) + 1));
	for (size_t i = 0; i < n && !ret; i++) {
		const struct quant_grid *g = &op->grids[i];

		scale[i] = g->scale;
		zero[i] = (int8_t)((int)g->zero - (1 << (a->bits - 1)));
		if (a->asym && !(g->zero >= 0 && g->zero <= most))
			ret = refuse(e, place, "a grid whose zero is none of its codes",
				     "a static range that holds 0");
	}
	snprintf(name, sizeof(name), "%s.%c_scale", module, kv);
	if (!ret)
		ret = st_writer_put(w, name, DT_F32, rank, shape, scale, e);
	snprintf(name, sizeof(name), "%s.%c_zero_point", module, kv);
	if (!ret && a->asym)
		ret = st_writer_put(w, name, DT_I8, rank, shape, zero, e);
	free(scale);
	return ret;
}

static int note_cache(const struct hf_act *a, const struct run_op *op, size_t n,
		      const char *place, struct readback *b, struct err *e)
{
	if (readback_begin(b, place, ROLE_NONE, a->fixed ? DT_F32 : DT_NONE, a->fixed ? 2 : 0,
			   (const int64_t[]){ (int64_t)n, 2 }, e))
		return -1;
	for (size_t i = 0; a->fixed && i < n; i++)
		readback_bytes(b, (const float[]){ op->grids[i].scale,
						   a->asym ? op->grids[i].zero : 0 },
			       2 * sizeof(float));
	return 0;
}

static int add_cache(struct ct_runs *r, const struct model *m, const struct run_op *op,
		     long layer, struct st_writer *w, struct readback *b, struct err *e)
{
	char place[256], module[256];
	struct hf_act a;
	bool heads;
	size_t n;

	run_place_name(m, op->place, layer, place);
	if (take_cache(&a, &heads, m, op, place, e))
		return -1;
	if (!r->any_cache && layer > 0)
		return err_set(e, ERR_DATA, place, "is rounded, but in layers before it is not: "
			       "this format has one kind for keys and values of all layers");
	if (!r->any_cache) {
		r->any_cache = true;
		r->cache = a;
		r->heads = heads;
		snprintf(r->first, sizeof(r->first), "%s", place);
	}
	if (!hf_act_same(&a, &r->cache) || heads != r->heads)
		return err_set(e, ERR_DATA, place, "is rounded otherwise than %s: this format has "
			       "one kind for keys and values of all layers", r->first);
	n = heads ? (size_t)m->cfg.kv_heads : 1;
	if (note_cache(&a, op, n, place, b, e))
		return -1;
	if (!a.fixed)
		return 0;
	ct_attention_name(m, layer, module);
	return put_grids(&a, module, op->place == PLACE_K ? 'k' : 'v', op, n, place, w, e);
}

/* Keys and values, of all layers. */
static int check_all(const struct ct_runs *r, const struct model *m, const struct run_list *ops,
		     long layer, struct err *e)
{
	static const int places[2] = { PLACE_K, PLACE_V };
	char place[256];

	for (int i = 0; i < 2; i++) {
		bool there = false;

		for (size_t k = 0; k < ops->n; k++)
			there = there || (ops->op[k].kind == RUN_QUANT &&
					  ops->op[k].place == places[i]);
		if (!there && r->any_cache) {
			run_place_name(m, places[i], layer, place);
			return err_set(e, ERR_DATA, place, "is not rounded, but %s is: this format "
				       "has one kind for keys and values of all layers", r->first);
		}
	}
	return 0;
}

/* ---- transforms ------------------------------------------------------------------ */

static const char *group_of(int place)
{
	return place < PLACE_EDGES ? "R3" : "R4";
}

static const char *location_of(int place)
{
	return place == PLACE_Q ? "q_attn" : place == PLACE_K ? "k_cache" : "input";
}

/* Sylvester's matrix, +-1: entry (i, j) is negative where i and j share an odd number of bits. */
static int put_matrix(const char *module, int place, size_t order, struct st_writer *w,
		      struct err *e)
{
	const int64_t shape[2] = { (int64_t)order, (int64_t)order };
	uint16_t *row = malloc(order * sizeof(*row));
	char name[320];
	int ret;

	if (!row)
		return err_nomem(e, module, order * sizeof(*row));
	snprintf(name, sizeof(name), "%s.%s_%zu_%s.weight", module, group_of(place), order,
		 location_of(place));
	ret = st_writer_begin(w, name, DT_BF16, 2, shape, e);
	for (size_t i = 0; i < order && !ret; i++) {
		for (size_t j = 0; j < order; j++)
			row[j] = __builtin_parityll(i & j) ? 0xbf80 : 0x3f80;
		ret = st_writer_bytes(w, row, order * sizeof(*row), e);
	}
	free(row);
	return ret;
}

static size_t power_in(size_t n)
{
	return n & -n;
}

/* The modules that a place's values go into: the i-th's name. */
static bool module_at(const struct model *m, int place, long layer, size_t i, char *name)
{
	struct linear_row row;
	size_t n = 0;

	if (place < PLACE_EDGES) {
		ct_attention_name(m, layer, name);
		return i == 0;
	}
	for (size_t k = 0; model_linear(m, layer, k, &row); k++)
		if (row.in == (enum edge)(place - PLACE_EDGES) && n++ == i) {
			model_tensor_name(m, row.weight, layer, name);
			*strrchr(name, '.') = '\0';
			return true;
		}
	return false;
}

static int check_turn(const struct model *m, const struct run_op *op, const char *place,
		      struct err *e)
{
	const size_t width = op->place < PLACE_EDGES ? (size_t)m->cfg.head_dim :
			     run_place_width(m, op->place);

	if (op->place != PLACE_Q && op->place != PLACE_K && op->place < PLACE_EDGES)
		return refuse(e, place, "turned at run time", "only inputs of linears, queries and "
			      "keys are");
	if (power_in(op->order) != op->order && op->place < PLACE_EDGES)
		return err_set(e, ERR_DATA, place, "is turned by a Hadamard matrix of order %zu, "
			       "but this format has powers of 2: rotate without r3", op->order);
	if (power_in(op->order) != op->order)
		return err_set(e, ERR_DATA, place, "is turned by a Hadamard matrix of order %zu, "
			       "but this format has powers of 2: rotate --block=%zu", op->order,
			       power_in(width));
	if (width % op->order)
		return refuse(e, place, "heads turned together", "rotate -r r3");
	return 0;
}

static int add_turn(struct ct_runs *r, const struct model *m, const struct run_op *op,
		    long layer, struct st_writer *w, struct readback *b, struct err *e)
{
	char place[256], note[300], module[256];

	run_place_name(m, op->place, layer, place);
	if (check_turn(m, op, place, e))
		return -1;
	if (r->n == r->cap) {
		const size_t cap = r->cap ? 2 * r->cap : 64;
		struct ct_turn *p = realloc(r->turn, cap * sizeof(*p));

		if (!p)
			return err_nomem(e, place, cap * sizeof(*p));
		r->turn = p;
		r->cap = cap;
	}
	r->turn[r->n++] = (struct ct_turn){ op->place, layer, op->order };
	for (size_t i = 0; module_at(m, op->place, layer, i, module); i++)
		if (put_matrix(module, op->place, op->order, w, e))
			return -1;
	snprintf(note, sizeof(note), "%s hadamard", place);
	return readback_begin(b, note, ROLE_NONE, DT_NONE, 0, NULL, e);
}

/* ---- all --------------------------------------------------------------------------- */

int ct_runs_add(struct ct_runs *r, const struct model *m, const struct run_list *ops, long layer,
		struct st_writer *w, struct readback *b, struct err *e)
{
	for (size_t i = 0; i < ops->n; i++) {
		const struct run_op *op = &ops->op[i];
		int ret = 0;

		if (op->kind == RUN_HADAMARD)
			ret = add_turn(r, m, op, layer, w, b, e);
		else if (op->kind == RUN_QUANT && op->place < PLACE_EDGES)
			ret = add_cache(r, m, op, layer, w, b, e);
		if (ret)
			return -1;
	}
	return check_all(r, m, ops, layer, e);
}

static bool same_location(const struct ct_turn *a, const struct ct_turn *b)
{
	return strcmp(location_of(a->place), location_of(b->place)) == 0;
}

static bool same_group(const struct ct_turn *a, const struct ct_turn *b)
{
	return a->order == b->order && (a->place < PLACE_EDGES) == (b->place < PLACE_EDGES);
}

/* The i-th turn is the first of its group (and, of them, of its location). */
static bool is_first(const struct ct_runs *r, size_t i, bool location)
{
	for (size_t k = 0; k < i; k++)
		if (same_group(&r->turn[k], &r->turn[i]) &&
		    (!location || same_location(&r->turn[k], &r->turn[i])))
			return false;
	return true;
}

static void print_targets(const struct ct_runs *r, const struct model *m, size_t at,
			  struct buf *out)
{
	const char *comma = "";
	char module[256];

	for (size_t i = at; i < r->n; i++) {
		const struct ct_turn *t = &r->turn[i];

		if (!same_group(t, &r->turn[at]) || !same_location(t, &r->turn[at]))
			continue;
		for (size_t k = 0; module_at(m, t->place, t->layer, k, module); k++) {
			buf_printf(out, "%s\"%s\"", comma, module);
			comma = ",";
		}
	}
}

static void print_group(const struct ct_runs *r, const struct model *m, size_t at, struct buf *out)
{
	const struct ct_turn *t = &r->turn[at];
	const char *comma = "";

	buf_printf(out, "\"%s_%zu\":{\"type\":\"hadamard\",\"apply\":[", group_of(t->place),
		   t->order);
	for (size_t i = at; i < r->n; i++) {
		if (!same_group(&r->turn[i], t) || !is_first(r, i, true))
			continue;
		buf_printf(out, "%s{\"targets\":[", comma);
		print_targets(r, m, i, out);
		buf_printf(out, "],\"location\":\"%s\",\"inverse\":false,\"ignore\":[]}",
			   location_of(r->turn[i].place));
		comma = ",";
	}
	buf_printf(out, "],\"randomize\":false,\"requires_grad\":false,\"head_dim\":%zu,"
		   "\"precision\":\"torch.float32\"}", t->order);
}

void ct_runs_print(const struct ct_runs *r, const struct model *m, struct buf *out)
{
	const char *comma = "";

	buf_puts(out, "\"kv_cache_scheme\":");
	if (r->any_cache)
		ct_acts_print(out, &r->cache, !r->cache.fixed ? "group" :
			      r->heads ? "attn_head" : "tensor");
	else
		buf_puts(out, "null");
	buf_puts(out, ",\"transform_config\":{");
	if (r->n)
		buf_puts(out, "\"config_groups\":{");
	for (size_t i = 0; i < r->n; i++)
		if (is_first(r, i, false)) {
			buf_puts(out, comma);
			print_group(r, m, i, out);
			comma = ",";
		}
	buf_puts(out, r->n ? "}}" : "}");
}

void ct_runs_release(struct ct_runs *r)
{
	free(r->turn);
	memset(r, 0, sizeof(*r));
}
