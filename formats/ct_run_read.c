/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ct_run_read.c - key-value caches and transforms of compressed-tensors (ct_run.h)
 */
#include "formats/ct_run.h"

#include <math.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/json.h"

#define WHERE "config.json: quantization_config"

enum where { AT_INPUT, AT_QUERY, AT_KEY, AT_WEIGHT };

/* An entry of "apply": a Hadamard matrix at some modules. */
struct turn {
	enum where where;
	size_t order;       /* 0: as wide as what it turns */
	char **target, **ignore;
	char suffix[96];    /* of its matrix: ".R4_input.weight" */
	bool used;
};

enum { K_SCALE, V_SCALE, K_ZERO, V_ZERO, CACHE_PARTS };
static const char *const cache_parts[CACHE_PARTS] = { ".k_scale", ".v_scale", ".k_zero_point",
						      ".v_zero_point" };

struct ct_run {
	struct hf_act cache;  /* kind none: as they are */
	bool heads;
	struct hf_place *at;  /* [layers][CACHE_PARTS], or NULL: none has come */
	struct turn *turn;
	size_t n;
	bool checked;
};

void ct_attention_name(const struct model *m, long layer, char *buf)
{
	model_tensor_name(m, SLOT_K, layer, buf);
	for (int i = 0; i < 2 && strrchr(buf, '.'); i++)
		*strrchr(buf, '.') = '\0'; /* ".weight", ".k_proj" */
}

int ct_target(const char *target, const char *module)
{
	regex_t r;
	regmatch_t m;
	int got = 0;

	if (strcmp(target, module) == 0)
		return 3;
	if (strncmp(target, "re:", 3))
		return strcmp(target, "Linear") == 0;
	if (regcomp(&r, target + 3, REG_EXTENDED) == 0) {
		got = regexec(&r, module, 1, &m, 0) == 0 && m.rm_so == 0 ? 2 : 0;
		regfree(&r);
	}
	return got;
}

/* ---- configuration ----------------------------------------------------------------- */

static int bad(struct err *e, const char *key, const char *what)
{
	return err_set(e, ERR_DATA, WHERE, "%s: %s", key, what);
}

static int take_cache(struct ct_run *r, const struct json *v, struct err *e)
{
	static const char key[] = "kv_cache_scheme";
	const char *type = json_str(json_get(v, "type"), NULL);
	const char *by = json_str(json_get(v, "strategy"), NULL);
	const int64_t bits = json_int(json_get(v, "num_bits"), 0);
	struct hf_act *a = &r->cache;

	if (json_type_of(v) != JSON_OBJECT || json_len(v) == 0)
		return 0;
	if (!type || (strcmp(type, "int") && strcmp(type, "float")) || !by)
		return bad(e, key, "a type (int or float) and a strategy are needed");
	a->kind = strcmp(type, "float") == 0 ? HF_ACT_E4M3 : HF_ACT_INT;
	a->asym = !json_bool(json_get(v, "symmetric"), true);
	a->fixed = !json_bool(json_get(v, "dynamic"), false);
	a->bits = (int)bits;
	if (a->kind == HF_ACT_E4M3 ? bits != 8 || a->asym : bits < 2 || bits > 8)
		return bad(e, key, "only int of 2 to 8 bits and symmetric float of 8 are read");
	r->heads = strcmp(by, "attn_head") == 0;
	if (a->fixed ? !r->heads && strcmp(by, "tensor") : strcmp(by, "group"))
		return bad(e, key, a->fixed ? "only strategies tensor and attn_head are read for "
			   "static ranges" : "only strategy group is read for dynamic ranges");
	a->group = a->fixed ? 0 : json_int(json_get(v, "group_size"), 0);
	return a->fixed || a->group > 0 ? 0 : bad(e, key, "group_size is missing");
}

static char **strings(const struct json *v)
{
	const size_t n = json_type_of(v) == JSON_STR ? 1 : json_len(v);
	char **list = calloc(n + 1, sizeof(*list));

	for (size_t i = 0; list && i < n; i++) {
		const char *s = json_str(json_type_of(v) == JSON_STR ? v : json_at(v, i), NULL);

		list[i] = strdup(s ? s : "");
		if (!list[i])
			return list; /* shorter */
	}
	return list;
}

static int take_apply(struct ct_run *r, const char *name, const struct json *scheme,
		      const struct json *v, struct err *e)
{
	static const char *const places[] = { "input", "q_attn", "k_cache" };
	const char *at = json_str(json_get(v, "location"), NULL);
	const int64_t order = json_int(json_get(scheme, "head_dim"), 0);
	struct turn *t = &r->turn[r->n];

	for (int i = 0; at && i < 3; i++)
		if (strcmp(at, places[i]) == 0) {
			t->where = (enum where)i;
			t->order = order > 0 ? (size_t)order : 0;
			if (i != AT_INPUT && order < 1)
				return bad(e, "transform_config", "queries and keys are turned, "
					   "but head_dim is missing");
			t->target = strings(json_get(v, "targets"));
			t->ignore = strings(json_get(v, "ignore"));
			snprintf(t->suffix, sizeof(t->suffix), ".%.48s_%s.weight", name, at);
			r->n++;
			return t->target && t->ignore ? 0 : err_nomem(e, WHERE, 64);
		}
	/* Those are in the weights. */
	if (at && (!strcmp(at, "weight_input") || !strcmp(at, "weight_output")))
		return 0;
	return err_set(e, ERR_DATA, WHERE, "transform_config: location '%.32s' is not read (input, "
		       "q_attn and k_cache are)", at ? at : "?");
}

static int take_scheme(struct ct_run *r, const char *name, const struct json *v, struct err *e)
{
	const char *type = json_str(json_get(v, "type"), NULL);
	const struct json *apply = json_get(v, "apply");
	const size_t n = json_len(apply), had = r->n;
	struct turn *more;

	if (n == 0)
		return 0;
	more = realloc(r->turn, (r->n + n) * sizeof(*more));
	if (!more)
		return err_nomem(e, WHERE, n * sizeof(*more));
	r->turn = more;
	memset(more + r->n, 0, n * sizeof(*more));
	for (size_t i = 0; i < n; i++)
		if (take_apply(r, name, v, json_at(apply, i), e))
			return -1;
	if (r->n > had && (!type || strcmp(type, "hadamard") ||
			   json_bool(json_get(v, "randomize"), false)))
		return err_set(e, ERR_DATA, WHERE, "transform_config: %.48s: type '%.32s'%s is not "
			       "read at run time (hadamard is)", name, type ? type : "?",
			       type && !strcmp(type, "hadamard") ? ", randomized," : "");
	return 0;
}

int ct_run_open(struct ct_run **out, const struct json *config, struct err *e)
{
	const struct json *groups = json_get(json_get(config, "transform_config"),
					     "config_groups"), *v;
	struct ct_run *r = calloc(1, sizeof(*r));
	const char *name;
	int ret = r ? take_cache(r, json_get(config, "kv_cache_scheme"), e) :
		  err_nomem(e, WHERE, sizeof(*r));

	for (void *it = NULL; !ret && (it = json_iter(groups, it, &name, &v));)
		ret = take_scheme(r, name, v, e);
	if (ret)
		ct_run_free(r);
	else
		*out = r;
	return ret;
}

static void free_list(char **s)
{
	for (char **p = s; p && *p; p++)
		free(*p);
	free(s);
}

void ct_run_free(struct ct_run *r)
{
	for (size_t i = 0; r && i < r->n; i++) {
		free_list(r->turn[i].target);
		free_list(r->turn[i].ignore);
	}
	if (r) {
		free(r->turn);
		free(r->at);
	}
	free(r);
}

/* ---- tensors --------------------------------------------------------------------- */

static bool ends_in(const char *s, const char *end)
{
	const size_t n = strlen(s), k = strlen(end);

	return n > k && strcmp(s + n - k, end) == 0;
}

bool ct_run_take(struct ct_run *r, const struct model *m, const struct hf_place *p)
{
	const char *name = p->t->name;
	char module[256];
	size_t n;

	/* Matrices say nothing that their order does not. */
	for (size_t i = 0; i < r->n; i++)
		if (ends_in(name, r->turn[i].suffix))
			return true;
	for (int i = 0; r->cache.fixed && i < CACHE_PARTS; i++) {
		if (!ends_in(name, cache_parts[i]))
			continue;
		n = strlen(name) - strlen(cache_parts[i]);
		for (long layer = 0; layer < m->cfg.layers; layer++) {
			ct_attention_name(m, layer, module);
			if (strlen(module) != n || strncmp(module, name, n))
				continue;
			if (!r->at)
				r->at = calloc((size_t)m->cfg.layers, CACHE_PARTS * sizeof(*r->at));
			if (r->at)
				r->at[layer * CACHE_PARTS + i] = *p;
			return r->at != NULL;
		}
	}
	return false;
}

/* n values of a part as floats; a zero point is a code. */
static int read_part(const struct ct_run *r, const struct model *m, long layer, int part, size_t n,
		     float *v, struct err *e)
{
	const struct hf_place *p = r->at ? &r->at[layer * CACHE_PARTS + part] : NULL;
	const bool zero = part >= K_ZERO;
	char module[256];
	uint64_t bytes;
	int8_t *raw;
	int ret;

	ct_attention_name(m, layer, module);
	if (!p || !p->t)
		return err_set(e, ERR_DATA, module, "has no %s, though kv_cache_scheme says that "
			       "its range is known", cache_parts[part] + 1);
	bytes = (uint64_t)n * (uint64_t)dtype_bits(p->t->dtype) / 8;
	if (p->t->nbytes != bytes || (zero ? p->t->dtype != DT_I8 : p->t->dtype != DT_F32 &&
				      p->t->dtype != DT_F16 && p->t->dtype != DT_BF16))
		return err_set(e, ERR_DATA, p->t->name, "expected %zu of %s", n,
			       zero ? "I8" : "F32, F16 or BF16");
	raw = malloc((size_t)bytes);
	if (!raw)
		return err_nomem(e, p->t->name, bytes);
	ret = hf_part_read(p, raw, e);
	for (size_t i = 0; !ret && zero && i < n; i++)
		v[i] = (float)(raw[i] + (1 << (r->cache.bits - 1)));
	for (size_t i = 0; !ret && !zero && i < n; i++)
		if (dtype_to_f32(&v[i], raw + i * bytes / n, p->t->dtype, 1) ||
		    !(isfinite(v[i]) && v[i] > 0))
			ret = err_set(e, ERR_DATA, p->t->name, "%g is no scale", (double)v[i]);
	free(raw);
	return ret;
}

static int cache_run(const struct ct_run *r, const struct model *m, long layer, bool values,
		     struct hf_run *run, struct err *e)
{
	const size_t n = r->heads ? (size_t)m->cfg.kv_heads : 1;
	float *v;

	*run = (struct hf_run){ .place = values ? PLACE_V : PLACE_K, .act = r->cache };
	if (r->cache.group && m->cfg.head_dim % r->cache.group)
		return err_set(e, ERR_DATA, WHERE, "kv_cache_scheme: groups of %lld do not divide "
			       "heads of %ld", (long long)r->cache.group, m->cfg.head_dim);
	if (!r->cache.fixed)
		return 1;
	if (r->heads)
		run->act.group = m->cfg.head_dim;
	v = calloc(4 * n, sizeof(*v));
	if (!v)
		return err_nomem(e, WHERE, 4 * n * sizeof(*v));
	run->grid = v;
	run->grids = n;
	if (read_part(r, m, layer, values ? V_SCALE : K_SCALE, n, v + 2 * n, e) ||
	    (r->cache.asym &&
	     read_part(r, m, layer, values ? V_ZERO : K_ZERO, n, v + 3 * n, e))) {
		free(v);
		run->grid = NULL;
		return -1;
	}
	for (size_t i = 0; i < n; i++) {
		v[2 * i] = v[2 * n + i];
		v[2 * i + 1] = v[3 * n + i];
	}
	return 1;
}

/* ---- transforms ------------------------------------------------------------------ */

static bool listed(char *const *list, const char *module)
{
	for (; *list; list++)
		if (ct_target(*list, module))
			return true;
	return false;
}

/* The order that a module's input, queries or keys are turned by, 0: not; -1: twice. */
static long order_at(struct ct_run *r, enum where where, const char *module, size_t width)
{
	long order = 0;

	for (size_t i = 0; i < r->n; i++) {
		struct turn *t = &r->turn[i];

		if (t->where != where || !listed(t->target, module) || listed(t->ignore, module))
			continue;
		t->used = true;
		if (order)
			return -1;
		order = (long)(t->order ? t->order : width);
	}
	return order;
}

static int check_order(long order, size_t width, const char *place, struct err *e)
{
	if (order < 0)
		return err_set(e, ERR_DATA, place, "is turned twice by transform_config: this is "
			       "not read");
	if (order > 0 && ((order & (order - 1)) || width % (size_t)order))
		return err_set(e, ERR_DATA, place, "is turned by a Hadamard matrix of order %ld, "
			       "and has %zu channels: this is not read", order, width);
	return 0;
}

/* 0: the place is not turned. */
static int turn_at(struct ct_run *r, const struct model *m, long layer, int place, size_t *order,
		   struct err *e)
{
	const enum where where = place == PLACE_Q ? AT_QUERY : place == PLACE_K ? AT_KEY : AT_INPUT;
	size_t width = (size_t)m->cfg.head_dim;
	long got = 0, one, n = 0;
	struct linear_row row;
	char name[256], module[256];

	if (place < PLACE_EDGES) {
		ct_attention_name(m, layer, module);
		got = order_at(r, where, module, width);
	}
	for (size_t i = 0; model_linear(m, layer, i, &row); i++) {
		if (place < PLACE_EDGES || row.in != (enum edge)(place - PLACE_EDGES))
			continue;
		model_tensor_name(m, row.weight, layer, module);
		*strrchr(module, '.') = '\0';
		width = run_place_width(m, place);
		one = order_at(r, where, module, width);
		if (n++ && one != got)
			return err_set(e, ERR_DATA, module, "is turned by transform_config "
				       "otherwise than other linears of the same input: this is "
				       "not read");
		got = one;
	}
	*order = (size_t)got;
	if (got == 0)
		return 0; /* it may be a place that this model has not */
	run_place_name(m, place, layer, name);
	return check_order(got, width, name, e);
}

/* The i-th place that may be turned: -1: no more. */
static int turn_place(const struct model *m, size_t i)
{
	return i == 0 ? PLACE_Q : i == 1 ? PLACE_K : i - 2 < (size_t)model_edges(m) ?
	       PLACE_EDGES + (int)(i - 2) : -1;
}

/* Every entry turns something. */
static int check_used(struct ct_run *r, const struct model *m, struct err *e)
{
	size_t order;
	int place;

	r->checked = true;
	for (long layer = 0; layer < m->cfg.layers; layer++)
		for (size_t i = 0; (place = turn_place(m, i)) >= 0; i++)
			if (turn_at(r, m, layer, place, &order, e))
				return -1;
	for (size_t i = 0; i < r->n; i++)
		if (!r->turn[i].used)
			return err_set(e, ERR_DATA, WHERE, "transform_config: no module of the "
				       "model is a target of '%.64s'", r->turn[i].target[0] ?
				       r->turn[i].target[0] : "");
	return 0;
}

int ct_run_nth(struct ct_run *r, const struct model *m, long layer, size_t i, struct hf_run *run,
	       struct err *e)
{
	size_t order, n = 0;
	int place;

	if (r->n && !r->checked && check_used(r, m, e))
		return -1;
	for (size_t k = 0; r->n && (place = turn_place(m, k)) >= 0; k++) {
		if (turn_at(r, m, layer, place, &order, e))
			return -1;
		if (order && n++ == i) {
			*run = (struct hf_run){ .place = place, .order = order };
			return 1;
		}
	}
	if (r->cache.kind == HF_ACT_NONE || i - n > 1)
		return 0;
	return cache_run(r, m, layer, i - n == 1, run, e);
}
