/* SPDX-License-Identifier: Apache-2.0 */
/*
 * run.c - run records: read, checked, written (run.h)
 */
#include "lib/model/run.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/compute/hadamard.h"
#include "lib/data/mpwalk.h"

static const char *const formats[] = { "int", "e4m3", NULL };
static const char *const pers[] = { "tensor", "token", "group", NULL };
static const char *const ranges[] = { "dynamic", "static", NULL };
static const char *const clamps_by[] = { "range", "bits", NULL };
static const char *const clamp_mids[] = { "ceil", "floor", NULL };
static const char *const forms[] = { "full", "low-rank", "diagonal", NULL };
static const char *const parts[PART_COUNT] = { "weight", "up", "down", "bias" };

const char *run_form_name(enum run_form f)
{
	return forms[f];
}

/* ---- places ---------------------------------------------------------------------- */

static const char *const places[PLACE_EDGES] = {
	"attn.q", "attn.k.raw", "attn.k", "attn.v", "attn.p", "attn.resid", "mlp.resid", "out",
};

int run_place_find(const struct model *m, const char *name, long *layer)
{
	const int edge = model_edge(m, name, layer);
	char buf[256];

	if (edge >= 0)
		return PLACE_EDGES + edge;
	if (sscanf(name, "layers.%ld.", layer) != 1 || *layer < 0 || *layer >= m->cfg.layers)
		return -1;
	for (int i = 0; i < PLACE_EDGES; i++) {
		run_place_name(m, i, *layer, buf);
		if (strcmp(name, buf) == 0)
			return i;
	}
	return -1;
}

void run_place_name(const struct model *m, int place, long layer, char *buf)
{
	if (place >= PLACE_EDGES)
		model_edge_name(m, (enum edge)(place - PLACE_EDGES), layer, buf);
	else
		snprintf(buf, 256, "layers.%ld.%s", layer, places[place]);
}

void run_place_label(const struct model *m, int place, char *buf)
{
	const char *dot;

	run_place_name(m, place, 0, buf);
	dot = strchr(buf + strlen("layers."), '.');
	memmove(buf, dot + 1, strlen(dot));
}

size_t run_place_width(const struct model *m, int place)
{
	if (place >= PLACE_EDGES)
		return (size_t)model_edge_width(m, (enum edge)(place - PLACE_EDGES));
	switch (place) {
	case PLACE_P:
		return 0;
	case PLACE_Q:
		return (size_t)model_dim(m, DIM_Q);
	case PLACE_K_RAW:
	case PLACE_K:
	case PLACE_V:
		return (size_t)model_dim(m, DIM_KV);
	default:
		return (size_t)m->cfg.hidden;
	}
}

void run_part_name(const struct model *m, int place, enum run_part part, long layer, char *buf)
{
	size_t n;

	run_place_name(m, place, layer, buf);
	n = strlen(buf);
	snprintf(buf + n, 256 - n, ".%s", parts[part]);
}

static bool is_sum(int place)
{
	return place == PLACE_ATTN_RESID || place == PLACE_MLP_RESID || place == PLACE_OUT;
}

static bool is_cache(int place)
{
	return place == PLACE_K_RAW || place == PLACE_K || place == PLACE_V;
}

/* ---- keys ------------------------------------------------------------------------ */

/* Every key of the record that is not among the NULL-terminated ones is one too many. */
static int only_keys(const struct record *r, const char *const *known, struct err *e)
{
	size_t at = 0;

	for (unsigned i = 0; i < r->n_extra; i++) {
		struct token key;
		uint64_t size;
		int k = 0;

		if (token_read(&key, r->extra + at, r->extra_len - at) != 1 ||
		    token_extent(r->extra + at + key.size, r->extra_len - at - key.size,
				 &size) != 1)
			return err_set(e, ERR_DATA, r->name, "run record: damaged");
		while (known[k] != NULL && (strlen(known[k]) != key.n ||
					    memcmp(known[k], key.body, key.n) != 0))
			k++;
		if (known[k] == NULL)
			return err_set(e, ERR_VERSION, r->name, "run record: key '%.*s', which "
				       "this version does not know", (int)key.n, key.body);
		at += key.size + (size_t)size;
	}
	return 0;
}

/* A word of a list into *v, -1 where the key may be absent; else it is ERR_VERSION. */
static int word(const struct record *r, const char *key, const char *const *list, int *v,
		struct err *e)
{
	char s[32];

	if (record_get_str(r, key, s, sizeof(s)) != 1)
		return *v >= 0 ? 0 : err_set(e, ERR_DATA, r->name, "run record without %s", key);
	for (int i = 0; list[i] != NULL; i++)
		if (strcmp(list[i], s) == 0) {
			*v = i;
			return 0;
		}
	return err_set(e, ERR_VERSION, r->name, "run record: %s '%s', which this version does not "
		       "know", key, s);
}

static int integer(const struct record *r, const char *key, int64_t min, int64_t max, int64_t *v,
		   struct err *e)
{
	if (record_get_int(r, key, v) == 1 && *v >= min && *v <= max)
		return 0;
	return err_set(e, ERR_DATA, r->name, "run record: %s is not between %lld and %lld", key,
		       (long long)min, (long long)max);
}

static bool given(const struct record *r, const char *key)
{
	const void *p;
	size_t n;

	return record_get_raw(r, key, &p, &n) == 1;
}

/* Keys of NULL-terminated ones that a record of this sort has nothing to do with. */
static int without(const struct record *r, const char *const *keys, const char *what,
		   struct err *e)
{
	for (; *keys != NULL; keys++)
		if (given(r, *keys))
			return err_set(e, ERR_DATA, r->name, "run record: %s has no %s", what,
				       *keys);
	return 0;
}

/* ---- act-quant ------------------------------------------------------------------- */

/* What shares a grid must have whole groups of the clamp. */
static int check_clamp(const char *name, int place, const struct quant *q, size_t width,
		       struct err *e)
{
	const struct clamp *c = &q->clamp;
	const size_t n = q->per == QUANT_GROUP ? q->group : width;
	char sizes[80] = "";

	if (q->format != QUANT_INT || q->bits != 8 || place < PLACE_EDGES)
		return err_set(e, ERR_DATA, name, "what is clamped is inputs of linears in "
			       "integers of 8 bits");
	if (c->by == CLAMP_BY_BITS && (q->sym || c->compat))
		return err_set(e, ERR_DATA, name, "a clamp by bits is of asymmetric grids, and has "
			       "no midpoint");
	if (c->group % 2 == 0 && c->group <= CLAMP_MAX && n % c->group == 0)
		return 0;
	for (size_t i = CLAMP_MAX; i >= 2 && strlen(sizes) < sizeof(sizes) - 8; i -= 2)
		if (n % i == 0)
			snprintf(sizes + strlen(sizes), sizeof(sizes) - strlen(sizes), "%s%zu",
				 sizes[0] != '\0' ? ", " : "; these do: ", i);
	return err_set(e, ERR_DATA, name, "a clamp in groups of %zu does not divide %zu%s",
		       c->group, n, sizes);
}

/* Does the quantizer make sense at the place? */
static int check_quant(const struct model *m, const char *name, int place, const struct quant *q,
		       size_t recent, bool fixed, struct err *e)
{
	const size_t width = run_place_width(m, place);

	if (place == PLACE_Q || place == PLACE_OUT)
		return err_set(e, ERR_DATA, name, "no quantizer can stand here");
	if (q->per == QUANT_GROUP && (width == 0 || width % q->group != 0))
		return err_set(e, ERR_DATA, name, "groups of %zu do not divide %zu", q->group,
			       width);
	if (q->per == QUANT_TOKEN && fixed)
		return err_set(e, ERR_DATA, name, "a grid a token cannot be static");
	if (place == PLACE_P && q->per == QUANT_TENSOR && !fixed)
		return err_set(e, ERR_DATA, name, "a grid for all probabilities is static");
	if (place >= PLACE_EDGES && q->per == QUANT_TENSOR && !fixed &&
	    edge_expert((enum edge)(place - PLACE_EDGES)) >= 0)
		return err_set(e, ERR_DATA, name, "an expert's tokens are no sequence: not dynamic "
			       "per tensor");
	if (recent > 0 && !is_cache(place))
		return err_set(e, ERR_DATA, name, "recent tokens are those of keys and values");
	return q->clamp.group > 0 ? check_clamp(name, place, q, width, e) : 0;
}

static int read_grids(struct run_op *op, const struct item *it, size_t width, struct err *e)
{
	const struct record *r = &it->rec;
	const size_t n = op->quant.per == QUANT_GROUP ? width / op->quant.group : 1;
	const float *p = it->data;

	if (r->dtype != DT_F32 || r->rank != 2 || (size_t)r->shape[0] != n || r->shape[1] != 2)
		return err_set(e, ERR_DATA, r->name, "static ranges: expected F32 [%zu, 2]", n);
	op->grids = malloc(n * sizeof(*op->grids));
	if (op->grids == NULL)
		return err_nomem(e, r->name, n * sizeof(*op->grids));
	for (size_t i = 0; i < n; i++, p += 2) {
		if (!(isfinite(p[0]) && p[0] > 0 && isfinite(p[1]) && rintf(p[1]) == p[1]))
			return err_set(e, ERR_DATA, r->name, "scale %g and zero %g of group %zu "
				       "are no grid", (double)p[0], (double)p[1], i);
		quant_grid_of(&op->quant, p[0], p[1], &op->grids[i]);
	}
	op->quant.fixed = op->grids;
	return 0;
}

/* What an integer grid has beside: bits, sym, rule. */
static int read_int_grid(struct quant *q, const struct record *r, struct err *e)
{
	char name[32];
	int64_t v;
	int rule;

	if (integer(r, "bits", 2, 8, &v, e) < 0)
		return -1;
	q->bits = (int)v;
	if (record_get_bool(r, "sym", &q->sym) != 1)
		return err_set(e, ERR_DATA, r->name, "run record without sym");
	if (record_get_str(r, "rule", name, sizeof(name)) != 1)
		return err_set(e, ERR_DATA, r->name, "run record without rule");
	rule = quant_rule_find(name);
	if (rule < 0)
		return err_set(e, ERR_VERSION, r->name, "run record: rule '%s', which this version "
			       "does not know", name);
	q->rule = (enum quant_rule)rule;
	return quant_rule_has(q->rule, q->sym) ? 0 :
	       err_set(e, ERR_DATA, r->name, "rule %s has no %s form", name,
		       q->sym ? "symmetric" : "asymmetric");
}

/* The keys clamp, clamp_by and clamp_mid, if there are any. */
static int read_clamp(struct clamp *c, const struct record *r, struct err *e)
{
	static const char *const keys[] = { "clamp", "clamp_by", "clamp_mid" };
	int by = -1, mid = -1, there = 0;
	int64_t v;

	for (int i = 0; i < 3; i++)
		there += given(r, keys[i]);
	if (there == 0)
		return 0;
	if (integer(r, "clamp", 2, CLAMP_MAX, &v, e) < 0 ||
	    word(r, "clamp_by", clamps_by, &by, e) < 0 ||
	    word(r, "clamp_mid", clamp_mids, &mid, e) < 0)
		return -1;
	*c = (struct clamp){ (size_t)v, (enum clamp_by)by, mid == 1 };
	return 0;
}

/* The keys that only some quantizers have, where they make no sense. */
static int check_keys(const struct record *r, enum quant_format format, enum quant_per per,
		      bool fixed, struct err *e)
{
	static const char *const of_int[] = { "bits", "sym", "rule", NULL };
	static const char *const of_group[] = { "group", NULL };
	static const char *const of_dynamic[] = { "clip", NULL };

	if (format != QUANT_INT && without(r, of_int, formats[format], e) < 0)
		return -1;
	if (per != QUANT_GROUP && without(r, of_group, "a grid not per group", e) < 0)
		return -1;
	return fixed ? without(r, of_dynamic, "a static range", e) : 0;
}

static int read_quant(struct run_op *op, struct block *b, const struct item *it, struct err *e)
{
	static const char *const keys[] = { "kind", "format", "bits", "sym", "rule", "per",
					    "group", "range", "clip", "recent", "clamp",
					    "clamp_by", "clamp_mid", NULL };
	const struct record *r = &it->rec;
	const size_t width = run_place_width(b->model, op->place);
	int format = -1, per = -1, range = -1;
	double clip = 1;
	int64_t v;

	if (only_keys(r, keys, e) < 0 || word(r, "format", formats, &format, e) < 0 ||
	    word(r, "per", pers, &per, e) < 0 || word(r, "range", ranges, &range, e) < 0)
		return -1;
	op->quant = (struct quant){ .format = (enum quant_format)format, .bits = 8, .sym = true,
				    .per = (enum quant_per)per };
	if (check_keys(r, op->quant.format, op->quant.per, range == 1, e) < 0)
		return -1;
	if (given(r, "clip") &&
	    (record_get_double(r, "clip", &clip) != 1 || !(clip > 0 && clip <= 1)))
		return err_set(e, ERR_DATA, r->name, "run record: clip is not above 0 and at "
			       "most 1");
	op->quant.clip = clip;
	if (format == QUANT_INT && read_int_grid(&op->quant, r, e) < 0)
		return -1;
	if (per == QUANT_GROUP) {
		if (integer(r, "group", 1, INT32_MAX, &v, e) < 0)
			return -1;
		op->quant.group = (size_t)v;
	}
	if (given(r, "recent")) {
		if (integer(r, "recent", 1, INT32_MAX, &v, e) < 0)
			return -1;
		op->recent = (size_t)v;
	}
	if (read_clamp(&op->quant.clamp, r, e) < 0)
		return -1;
	if (check_quant(b->model, r->name, op->place, &op->quant, op->recent, range == 1, e) < 0)
		return -1;
	if (range == 1)
		return read_grids(op, it, width, e);
	return r->nbytes == 0 ? 0 :
	       err_set(e, ERR_DATA, r->name, "dynamic ranges, and a payload");
}

/* ---- affine ---------------------------------------------------------------------- */

static const struct item *find_comp(struct block *b, const char *name)
{
	for (size_t i = 0; i < b->n; i++)
		if (b->items[i].rec.type == REC_TENSOR && b->items[i].rec.role == ROLE_COMP &&
		    strcmp(b->items[i].rec.name, name) == 0)
			return &b->items[i];
	return NULL;
}

/* A part of the shape rows x cols, cols 0: a vector; rows 0: any number, which is given back. */
static int take_part(struct run_op *op, struct block *b, enum run_part part, size_t *rows,
		     size_t *cols, struct err *e)
{
	const struct item *it;
	const struct record *r;
	char name[256];
	bool fits;

	run_part_name(b->model, op->place, part, b->layer, name);
	it = find_comp(b, name);
	if (it == NULL)
		return err_set(e, ERR_DATA, name, "missing: an affine run record needs it");
	r = &it->rec;
	fits = r->rank == (cols != NULL ? 2 : 1) &&
	       (*rows == 0 || (size_t)r->shape[0] == *rows) &&
	       (cols == NULL || *cols == 0 || (size_t)r->shape[1] == *cols) &&
	       (r->dtype == DT_F32 || r->dtype == DT_F16 || r->dtype == DT_BF16) && r->nbytes > 0;
	if (!fits)
		return err_set(e, ERR_DATA, name, "not the shape or type that affine "
			       "compensation has");
	if (dtype_first_nonfinite(it->data, r->dtype, (size_t)r->nbytes * 8 /
				  (size_t)dtype_bits(r->dtype)) >= 0)
		return err_set(e, ERR_DATA, name, "a value is not finite");
	*rows = (size_t)r->shape[0];
	if (cols != NULL)
		*cols = (size_t)r->shape[1];
	op->part[part] = it;
	return 0;
}

static int read_affine(struct run_op *op, struct block *b, const struct item *it, struct err *e)
{
	static const char *const keys[] = { "kind", "form", NULL };
	size_t hidden = (size_t)b->model->cfg.hidden, rank = 0, again = hidden;
	int form = -1;

	if (only_keys(&it->rec, keys, e) < 0 || word(&it->rec, "form", forms, &form, e) < 0)
		return -1;
	if (!is_sum(op->place))
		return err_set(e, ERR_DATA, it->rec.name, "no compensation can stand here");
	op->form = (enum run_form)form;
	if (take_part(op, b, PART_BIAS, &hidden, NULL, e) < 0)
		return -1;
	switch (op->form) {
	case FORM_FULL:
		return take_part(op, b, PART_WEIGHT, &hidden, &again, e);
	case FORM_DIAGONAL:
		return take_part(op, b, PART_WEIGHT, &hidden, NULL, e);
	default:
		if (take_part(op, b, PART_UP, &hidden, &rank, e) < 0 ||
		    take_part(op, b, PART_DOWN, &rank, &again, e) < 0)
			return -1;
		return rank <= hidden ? 0 : err_set(e, ERR_DATA, it->rec.name, "compensation of "
						    "rank %zu in %zu dimensions", rank, hidden);
	}
}

/* ---- hadamard -------------------------------------------------------------------- */

static int read_hadamard(struct run_op *op, struct block *b, const struct item *it, struct err *e)
{
	static const char *const keys[] = { "kind", "order", NULL };
	const struct record *r = &it->rec;
	const size_t width = run_place_width(b->model, op->place);
	int64_t v;

	if (only_keys(r, keys, e) < 0 || integer(r, "order", 1, HADAMARD_MAX, &v, e) < 0)
		return -1;
	op->order = (size_t)v;
	if (width == 0 || width % op->order != 0 || is_sum(op->place))
		return err_set(e, ERR_DATA, r->name, "no Hadamard matrix of order %zu can stand "
			       "here", op->order);
	if (!hadamard_known(op->order))
		return err_set(e, ERR_VERSION, r->name, "no Hadamard matrix of order %zu is known "
			       "to this version", op->order);
	return r->nbytes == 0 ? 0 : err_set(e, ERR_DATA, r->name, "hadamard, and a payload");
}

/* ---- all of a block -------------------------------------------------------------- */

static const struct {
	const char *name;
	int (*read)(struct run_op *op, struct block *b, const struct item *it, struct err *e);
} kinds[RUN_KINDS] = {
	[RUN_QUANT] = { "act-quant", read_quant },
	[RUN_AFFINE] = { "affine", read_affine },
	[RUN_HADAMARD] = { "hadamard", read_hadamard },
};

static void clear(struct run_list *l)
{
	for (size_t i = 0; i < l->n; i++)
		free(l->op[i].grids);
	l->n = 0;
}

void run_release(struct run_list *l)
{
	clear(l);
	free(l->op);
	memset(l, 0, sizeof(*l));
}

static struct run_op *append(struct run_list *l, struct err *e)
{
	if (l->n == l->cap) {
		const size_t cap = l->cap == 0 ? 16 : 2 * l->cap;
		struct run_op *p = realloc(l->op, cap * sizeof(*p));

		if (p == NULL) {
			err_nomem(e, "run", cap * sizeof(*p));
			return NULL;
		}
		l->op = p;
		l->cap = cap;
	}
	memset(&l->op[l->n], 0, sizeof(*l->op));
	return &l->op[l->n++];
}

static int read_one(struct run_list *l, struct block *b, const struct item *it, struct err *e)
{
	const char *names[RUN_KINDS + 1] = { NULL };
	struct run_op *op = append(l, e);
	int kind = -1;
	long layer;

	if (op == NULL)
		return -1;
	for (int i = 0; i < RUN_KINDS; i++)
		names[i] = kinds[i].name;
	if (word(&it->rec, "kind", names, &kind, e) < 0)
		return -1;
	op->kind = (enum run_kind)kind;
	op->place = run_place_find(b->model, it->rec.name, &layer);
	if (op->place < 0)
		return err_set(e, ERR_VERSION, it->rec.name, "run record at a place that this "
			       "version does not know");
	if (layer != b->layer)
		return err_set(e, ERR_DATA, it->rec.name, "run record in block %ld", b->layer);
	if (op->place >= PLACE_EDGES &&
	    !model_has_edge(b->model, (enum edge)(op->place - PLACE_EDGES), layer))
		return err_set(e, ERR_DATA, it->rec.name, "this layer has no such place");
	return kinds[kind].read(op, b, it, e);
}

int run_read(struct run_list *l, struct block *b, struct err *e)
{
	clear(l);
	for (size_t i = 0; i < b->n; i++) {
		const struct item *it = &b->items[i];

		if (it->rec.type != REC_RUN || it->drop)
			continue;
		if (read_one(l, b, it, e) < 0)
			return -1;
		for (size_t j = 0; j + 1 < l->n; j++)
			if (l->op[j].place == l->op[l->n - 1].place &&
			    l->op[j].kind == l->op[l->n - 1].kind)
				return err_set(e, ERR_DATA, it->rec.name, "two %s records",
					       kinds[l->op[j].kind].name);
	}
	return 0;
}

const struct run_op *run_at(const struct run_list *l, int place, size_t *i)
{
	while (*i < l->n)
		if (l->op[(*i)++].place == place)
			return &l->op[*i - 1];
	return NULL;
}

/* ---- writing --------------------------------------------------------------------- */

static bool has(struct block *b, const char *name, const char *kind)
{
	char s[32];

	for (size_t i = 0; i < b->n; i++) {
		const struct record *r = &b->items[i].rec;

		if (r->type == REC_RUN && strcmp(r->name, name) == 0 &&
		    record_get_str(r, "kind", s, sizeof(s)) == 1 && strcmp(s, kind) == 0)
			return true;
	}
	return false;
}

static int quant_keys(struct record *r, const struct quant *q, size_t recent)
{
	if (record_set_str(r, "kind", kinds[RUN_QUANT].name) < 0 ||
	    record_set_str(r, "format", formats[q->format]) < 0)
		return -1;
	if (q->format == QUANT_INT &&
	    (record_set_int(r, "bits", q->bits) < 0 || record_set_bool(r, "sym", q->sym) < 0 ||
	     record_set_str(r, "rule", quant_rule_name(q->rule)) < 0))
		return -1;
	if (record_set_str(r, "per", pers[q->per]) < 0 ||
	    (q->per == QUANT_GROUP && record_set_int(r, "group", (int64_t)q->group) < 0) ||
	    record_set_str(r, "range", ranges[q->fixed != NULL]) < 0)
		return -1;
	if (q->fixed == NULL && q->clip < 1 && record_set_double(r, "clip", q->clip) < 0)
		return -1;
	if (q->clamp.group > 0 &&
	    (record_set_int(r, "clamp", (int64_t)q->clamp.group) < 0 ||
	     record_set_str(r, "clamp_by", clamps_by[q->clamp.by]) < 0 ||
	     record_set_str(r, "clamp_mid", clamp_mids[q->clamp.compat]) < 0))
		return -1;
	return recent > 0 ? record_set_int(r, "recent", (int64_t)recent) : 0;
}

int run_add_quant(struct block *b, int place, const struct quant *q, size_t recent, struct err *e)
{
	const size_t width = run_place_width(b->model, place);
	const size_t n = q->per == QUANT_GROUP ? width / q->group : 1;
	struct record r = { .rank = -1 };
	struct item *it = NULL;
	char name[256];

	run_place_name(b->model, place, b->layer, name);
	if (has(b, name, kinds[RUN_QUANT].name))
		return err_set(e, ERR_DATA, name, "has a quantizer already");
	if (check_quant(b->model, name, place, q, recent, q->fixed != NULL, e) < 0)
		return -1;
	record_init(&r, REC_RUN, name);
	r.must = true;
	if (q->fixed != NULL) {
		r.dtype = DT_F32;
		r.rank = 2;
		r.shape[0] = (int64_t)n;
		r.shape[1] = 2;
	}
	if (quant_keys(&r, q, recent) < 0)
		err_nomem(e, name, 256);
	else
		it = block_add(b, &r, e);
	record_clear(&r);
	for (size_t i = 0; it != NULL && q->fixed != NULL && i < n; i++) {
		((float *)it->data)[2 * i] = q->fixed[i].scale;
		((float *)it->data)[2 * i + 1] = q->fixed[i].zero;
	}
	return it != NULL ? 0 : -1;
}

int run_add_affine(struct block *b, int place, enum run_form form, struct err *e)
{
	struct record r = { .rank = -1 };
	struct item *it = NULL;
	char name[256];

	run_place_name(b->model, place, b->layer, name);
	if (has(b, name, kinds[RUN_AFFINE].name))
		return err_set(e, ERR_DATA, name, "has a compensation already");
	record_init(&r, REC_RUN, name);
	r.must = true;
	if (record_set_str(&r, "kind", kinds[RUN_AFFINE].name) < 0 ||
	    record_set_str(&r, "form", forms[form]) < 0)
		err_nomem(e, name, 64);
	else
		it = block_add(b, &r, e);
	record_clear(&r);
	return it != NULL ? 0 : -1;
}

int run_add_hadamard(struct block *b, int place, size_t order, struct err *e)
{
	struct record r = { .rank = -1 };
	struct item *it = NULL;
	char name[256];

	run_place_name(b->model, place, b->layer, name);
	if (has(b, name, kinds[RUN_HADAMARD].name))
		return err_set(e, ERR_DATA, name, "is turned at run time already");
	if (has(b, name, kinds[RUN_QUANT].name))
		return err_set(e, ERR_DATA, name, "has a quantizer already; put rotate before "
			       "quant-acts");
	record_init(&r, REC_RUN, name);
	r.must = true;
	if (record_set_str(&r, "kind", kinds[RUN_HADAMARD].name) < 0 ||
	    record_set_int(&r, "order", (int64_t)order) < 0)
		err_nomem(e, name, 64);
	else
		it = block_add(b, &r, e);
	record_clear(&r);
	return it != NULL ? 0 : -1;
}

int run_refuse_turned(struct block *b, enum edge g, struct err *e)
{
	char name[256];

	run_place_name(b->model, PLACE_EDGES + (int)g, b->layer, name);
	return !has(b, name, kinds[RUN_HADAMARD].name) ? 0 :
	       err_set(e, ERR_DATA, name, "is turned at run time (R4), so that its channels are "
		       "not the producer's; without it in --edges");
}

int run_refuse_fitted(struct block *b, const char *who, struct err *e)
{
	struct run_list known = { 0 };
	char s[32];
	int ret;

	for (size_t i = 0; i < b->n; i++) {
		const struct record *r = &b->items[i].rec;

		if (r->type != REC_RUN)
			continue;
		if (record_get_str(r, "range", s, sizeof(s)) == 1 && strcmp(s, "static") == 0)
			return err_set(e, ERR_DATA, r->name, "its quantizer's range is fixed "
				       "already; put %s before quant-acts", who);
		if (record_get_str(r, "kind", s, sizeof(s)) == 1 &&
		    strcmp(s, kinds[RUN_AFFINE].name) == 0)
			return err_set(e, ERR_DATA, r->name, "the block is compensated already; "
				       "put %s before qwt-fit", who);
	}
	ret = run_read(&known, b, e);
	run_release(&known);
	return ret;
}
