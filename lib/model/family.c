/* SPDX-License-Identifier: Apache-2.0 */
/*
 * family.c - what the tables of the families say about a model of given sizes
 */
#include "lib/model/family.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/model/families.h"

#define X(name) &family_##name,
static const struct family *const families[] = { FAMILIES(X) NULL };
#undef X

/* Far above any model, low enough that products of two stay in 64 bits. */
enum { MAX_LAYERS = 1 << 16, MAX_WIDTH = 1 << 24 };

const struct family *family_find(const char *model_type)
{
	for (size_t i = 0; families[i]; i++)
		if (strcmp(families[i]->model_type, model_type) == 0)
			return families[i];
	return NULL;
}

static int unknown(const char *model_type, struct err *e)
{
	char known[256] = "";

	for (size_t i = 0; families[i]; i++) {
		size_t n = strlen(known);

		snprintf(known + n, sizeof(known) - n, "%s%s", i ? ", " : "",
			 families[i]->model_type);
	}
	return err_set(e, ERR_DATA, "model_type", "'%s' is not supported (known: %s)", model_type,
		       known);
}

static int check_count(const char *key, long v, long max, struct err *e)
{
	if (v >= 1 && v <= max)
		return 0;
	return err_set(e, ERR_DATA, key, "%ld is not in 1 .. %ld", v, max);
}

static int check_real(const char *key, double v, struct err *e)
{
	if (v > 0 && isfinite(v))
		return 0;
	return err_set(e, ERR_DATA, key, "%g is not a finite number above 0", v);
}

static int check_rope(const struct family *f, const struct model_config *c, struct err *e)
{
	if (!f->rotary) {
		if (c->rope == ROPE_NONE)
			return 0;
		return err_set(e, ERR_DATA, "rope_type", "%s has no rotary positions",
			       f->model_type);
	}
	if (c->rope == ROPE_NONE)
		return err_set(e, ERR_DATA, "rope_type", "%s needs rotary positions",
			       f->model_type);
	if (c->head_dim % 2)
		return err_set(e, ERR_DATA, "head_dim", "%ld is odd: rotary positions turn pairs",
			       c->head_dim);
	if (check_real("rope_theta", c->rope_theta, e))
		return -1;
	if (c->rope != ROPE_PLAIN && check_real("factor", c->rope_factor, e))
		return -1;
	if (c->rope != ROPE_LLAMA3)
		return 0;
	if (check_real("low_freq_factor", c->rope_low_freq, e) ||
	    check_real("high_freq_factor", c->rope_high_freq, e))
		return -1;
	if (c->rope_high_freq <= c->rope_low_freq)
		return err_set(e, ERR_DATA, "high_freq_factor",
			       "%g is not above low_freq_factor %g", c->rope_high_freq,
			       c->rope_low_freq);
	return check_count("original_max_position_embeddings", c->rope_original_positions,
			   INT32_MAX, e);
}

int model_init(struct model *m, const struct model_config *c, struct err *e)
{
	const struct family *f = family_find(c->model_type);

	if (!f)
		return unknown(c->model_type, e);
	if (check_count("hidden_size", c->hidden, MAX_WIDTH, e) ||
	    check_count("num_hidden_layers", c->layers, MAX_LAYERS, e) ||
	    check_count("num_attention_heads", c->heads, MAX_WIDTH, e) ||
	    check_count("num_key_value_heads", c->kv_heads, MAX_WIDTH, e) ||
	    check_count("head_dim", c->head_dim, MAX_WIDTH, e) ||
	    check_count("intermediate_size", c->ffn, MAX_WIDTH, e) ||
	    check_count("vocab_size", c->vocab, INT32_MAX, e) ||
	    check_count("max_position_embeddings", c->max_positions, INT32_MAX, e) ||
	    check_real("norm_eps", c->norm_eps, e))
		return -1;
	if (c->heads % c->kv_heads)
		return err_set(e, ERR_DATA, "num_key_value_heads",
			       "%ld does not divide num_attention_heads %ld", c->kv_heads,
			       c->heads);
	if (c->head_dim > MAX_WIDTH / c->heads)
		return err_set(e, ERR_DATA, "head_dim", "%ld times %ld heads is too wide",
			       c->head_dim, c->heads);
	if (check_rope(f, c, e))
		return -1;
	if (c->bos < -1 || c->bos > INT32_MAX)
		return err_set(e, ERR_DATA, "bos_token_id", "%ld is not a token id", c->bos);
	if (c->eos < -1 || c->eos > INT32_MAX)
		return err_set(e, ERR_DATA, "eos_token_id", "%ld is not a token id", c->eos);
	m->family = f;
	m->cfg = *c;
	return 0;
}

long model_dim(const struct model *m, enum dim d)
{
	const struct model_config *c = &m->cfg;

	switch (d) {
	case DIM_HIDDEN:
		return c->hidden;
	case DIM_Q:
		return c->heads * c->head_dim;
	case DIM_KV:
		return c->kv_heads * c->head_dim;
	case DIM_FFN:
		return c->ffn;
	case DIM_VOCAB:
		return c->vocab;
	case DIM_NONE:
		break;
	}
	return 1;
}

long model_edge_width(const struct model *m, enum edge e)
{
	return model_dim(m, m->family->edges[e].width);
}

static bool holds(const struct model_config *c, enum cond cond)
{
	switch (cond) {
	case COND_QKV_BIAS:
		return c->qkv_bias;
	case COND_O_BIAS:
		return c->o_bias;
	case COND_MLP_BIAS:
		return c->mlp_bias;
	case COND_UNTIED:
		return !c->tied;
	case COND_ALWAYS:
		break;
	}
	return true;
}

const struct tensor_row *model_row(const struct model *m, enum slot s)
{
	for (const struct tensor_row *r = m->family->tensors; r->slot != SLOT_NONE; r++)
		if (r->slot == s)
			return r;
	return NULL;
}

bool model_has(const struct model *m, enum slot s)
{
	const struct tensor_row *r = model_row(m, s);

	return r && holds(&m->cfg, r->cond);
}

int model_shape(const struct model *m, enum slot s, int64_t shape[2])
{
	const struct tensor_row *r = model_row(m, s);

	shape[0] = r ? model_dim(m, r->rows) : 0;
	shape[1] = r ? model_dim(m, r->cols) : 0;
	return r && r->cols == DIM_NONE ? 1 : 2;
}

void model_tensor_name(const struct model *m, enum slot s, long layer, char *buf)
{
	const struct tensor_row *r = model_row(m, s);
	const char *prefix = m->family->block_prefix;
	const char *number = strstr(prefix, "%ld");

	if (!r)
		snprintf(buf, 256, "slot %d", (int)s);
	else if (s >= SLOT_BLOCK_COUNT)
		snprintf(buf, 256, "%s", r->name);
	else
		snprintf(buf, 256, "%.*s%ld%s%s", (int)(number - prefix), prefix, layer,
			 number + 3, r->name);
}

/* A layer number at *p, as we write it ourselves: no sign, no leading zero, below layers. */
static bool take_layer(const struct model *m, const char **p, long *layer)
{
	const char *s = *p;
	long v = 0;

	if (*s < '0' || *s > '9' || (s[0] == '0' && s[1] >= '0' && s[1] <= '9'))
		return false;
	for (; *s >= '0' && *s <= '9'; s++) {
		v = v * 10 + (*s - '0');
		if (v >= m->cfg.layers)
			return false;
	}
	*p = s;
	*layer = v;
	return true;
}

enum slot model_slot(const struct model *m, const char *name, long *layer)
{
	const char *prefix = m->family->block_prefix;
	const char *number = strstr(prefix, "%ld");
	size_t before = (size_t)(number - prefix), after = strlen(number + 3);
	const char *rest = name + before;
	bool in_block = strncmp(name, prefix, before) == 0 && take_layer(m, &rest, layer) &&
			strncmp(rest, number + 3, after) == 0;

	if (in_block)
		rest += after;
	else
		*layer = -1;
	for (const struct tensor_row *r = m->family->tensors; r->slot != SLOT_NONE; r++)
		if ((r->slot < SLOT_BLOCK_COUNT) == in_block && holds(&m->cfg, r->cond) &&
		    strcmp(in_block ? rest : name, r->name) == 0)
			return r->slot;
	return SLOT_NONE;
}

void model_edge_name(const struct model *m, enum edge e, long layer, char *buf)
{
	snprintf(buf, 256, "layers.%ld.%s", layer, m->family->edges[e].name);
}

int model_edge(const struct model *m, const char *name, long *layer)
{
	const char *rest = name + strlen("layers.");

	if (strncmp(name, "layers.", strlen("layers.")) || !take_layer(m, &rest, layer) ||
	    *rest++ != '.')
		return -1;
	for (int e = 0; e < EDGE_COUNT; e++)
		if (strcmp(m->family->edges[e].name, rest) == 0)
			return e;
	return -1;
}

/* Where in a stream a slot stands: 0 before the blocks, 1 in one, 2 after them. */
static int part(enum slot s)
{
	return s < SLOT_BLOCK_COUNT ? 1 : s < SLOT_NORM_F ? 0 : 2;
}

bool model_nth(const struct model *m, size_t n, enum slot *s, long *layer)
{
	size_t count[3] = { 0, 0, 0 }, layers = (size_t)m->cfg.layers;
	int want;

	for (const struct tensor_row *r = m->family->tensors; r->slot != SLOT_NONE; r++)
		count[part(r->slot)] += holds(&m->cfg, r->cond);
	*layer = -1;
	if (n < count[0]) {
		want = 0;
	} else if (n - count[0] < count[1] * layers) {
		want = 1;
		*layer = (long)((n - count[0]) / count[1]);
		n = (n - count[0]) % count[1];
	} else {
		want = 2;
		n -= count[0] + count[1] * layers;
	}
	for (const struct tensor_row *r = m->family->tensors; r->slot != SLOT_NONE; r++)
		if (part(r->slot) == want && holds(&m->cfg, r->cond) && n-- == 0) {
			*s = r->slot;
			return true;
		}
	return false;
}
