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
enum { MAX_LAYERS = 1 << 16, MAX_WIDTH = 1 << 24, MAX_EXPERTS = 1 << 12, MAX_IMAGE = 1 << 14 };

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

static int check_sizes(const struct model_config *c, struct err *e)
{
	if (check_count("hidden_size", c->hidden, MAX_WIDTH, e) ||
	    check_count("num_hidden_layers", c->layers, MAX_LAYERS, e) ||
	    check_count("num_attention_heads", c->heads, MAX_WIDTH, e) ||
	    check_count("num_key_value_heads", c->kv_heads, MAX_WIDTH, e) ||
	    check_count("head_dim", c->head_dim, MAX_WIDTH, e) ||
	    check_count("intermediate_size", c->ffn, MAX_WIDTH, e) ||
	    check_count("vocab_size", c->vocab, INT32_MAX, e) ||
	    check_count("max_position_embeddings", c->max_positions, INT32_MAX, e) ||
	    (c->embed_dim && check_count("word_embed_proj_dim", c->embed_dim, MAX_WIDTH, e)) ||
	    check_real("norm_eps", c->norm_eps, e))
		return -1;
	if (c->heads % c->kv_heads)
		return err_set(e, ERR_DATA, "num_key_value_heads",
			       "%ld does not divide num_attention_heads %ld", c->kv_heads,
			       c->heads);
	if (c->head_dim > MAX_WIDTH / c->heads)
		return err_set(e, ERR_DATA, "head_dim", "%ld times %ld heads is too wide",
			       c->head_dim, c->heads);
	return 0;
}

static int check_experts(const struct model_config *c, struct err *e)
{
	if (c->n_dense < 0 || c->n_dense > MODEL_MAX_LISTED)
		return err_set(e, ERR_DATA, "mlp_only_layers", "%ld layers, at most %d are read",
			       c->n_dense, MODEL_MAX_LISTED);
	if (!c->experts)
		return 0;
	if (check_count("num_experts", c->experts, MAX_EXPERTS, e) ||
	    check_count("num_experts_per_tok", c->experts_per_token, c->experts, e) ||
	    check_count("moe_intermediate_size", c->expert_ffn, MAX_WIDTH, e) ||
	    check_count("shared_expert_intermediate_size", c->shared_ffn, MAX_WIDTH, e))
		return -1;
	return c->sparse_step ?
	       check_count("decoder_sparse_step", c->sparse_step, INT32_MAX, e) : 0;
}

static int check_images(const struct model_config *c, struct err *e)
{
	long side;

	if (check_count("image_size", c->image_size, MAX_IMAGE, e) ||
	    check_count("patch_size", c->patch, c->image_size, e) ||
	    check_count("num_channels", c->channels, 1024, e))
		return -1;
	side = c->image_size / c->patch;
	if (c->image_size % c->patch)
		return err_set(e, ERR_DATA, "patch_size", "%ld does not divide image_size %ld",
			       c->patch, c->image_size);
	if (c->max_positions != side * side + 1)
		return err_set(e, ERR_DATA, "max_position_embeddings",
			       "%ld, for %ld patches and the class token", c->max_positions,
			       side * side);
	return 0;
}

int model_init(struct model *m, const struct model_config *c, struct err *e)
{
	const struct family *f = family_find(c->model_type);

	if (!f)
		return unknown(c->model_type, e);
	if (check_sizes(c, e) || check_rope(f, c, e) || check_experts(c, e) ||
	    (f->images && check_images(c, e)))
		return -1;
	if (c->act > ACT_GELU_TANH)
		return err_set(e, ERR_DATA, "hidden_act", "%d is unknown", (int)c->act);
	if (c->window < 0 || c->n_windowed < 0 || c->n_windowed > MODEL_MAX_LISTED)
		return err_set(e, ERR_DATA, "sliding_window", "%ld in %ld layers", c->window,
			       c->n_windowed);
	if (c->bos < -1 || c->bos > INT32_MAX)
		return err_set(e, ERR_DATA, "bos_token_id", "%ld is not a token id", c->bos);
	if (c->eos < -1 || c->eos > INT32_MAX)
		return err_set(e, ERR_DATA, "eos_token_id", "%ld is not a token id", c->eos);
	m->family = f;
	m->cfg = *c;
	if (!m->cfg.embed_dim)
		m->cfg.embed_dim = c->hidden;
	if (!m->cfg.sparse_step)
		m->cfg.sparse_step = 1;
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
	case DIM_HEAD:
		return c->head_dim;
	case DIM_FFN:
		return c->ffn;
	case DIM_VOCAB:
		return c->vocab;
	case DIM_EMBED:
		return c->embed_dim;
	case DIM_POSITIONS:
		return c->max_positions + m->family->position_offset;
	case DIM_EXPERTS:
		return c->experts;
	case DIM_EXPERT_FFN:
		return c->expert_ffn;
	case DIM_SHARED_FFN:
		return c->shared_ffn;
	case DIM_CHANNELS:
		return c->channels;
	case DIM_PATCH:
		return c->patch;
	case DIM_PIXELS:
		return c->channels * c->patch * c->patch;
	case DIM_NONE:
	case DIM_ONE:
		break;
	}
	return 1;
}

static bool listed(const long *list, long n, long layer)
{
	for (long i = 0; i < n; i++)
		if (list[i] == layer)
			return true;
	return false;
}

bool model_is_sparse(const struct model *m, long layer)
{
	const struct model_config *c = &m->cfg;

	return c->experts > 0 && (layer + 1) % c->sparse_step == 0 &&
	       !listed(c->dense, c->n_dense, layer);
}

long model_window(const struct model *m, long layer)
{
	const struct model_config *c = &m->cfg;

	return !c->n_windowed || listed(c->windowed, c->n_windowed, layer) ? c->window : 0;
}

int model_slots(const struct model *m)
{
	return SLOT_COUNT + (int)m->cfg.experts * EXPERT_SLOTS;
}

int model_edges(const struct model *m)
{
	return EDGE_COUNT + (int)m->cfg.experts * EXPERT_EDGES;
}

/* ---- tensors -------------------------------------------------------------------- */

static bool holds(const struct model *m, enum cond cond, long layer)
{
	const struct model_config *c = &m->cfg;

	switch (cond) {
	case COND_QKV_BIAS:
		return c->qkv_bias;
	case COND_O_BIAS:
		return c->o_bias;
	case COND_MLP_BIAS:
		return c->mlp_bias;
	case COND_UNTIED:
		return !c->tied;
	case COND_NORM:
		return !c->norm_plain;
	case COND_QK_NORM:
		return c->qk_norm;
	case COND_FINAL_NORM:
		return !c->no_final_norm && !c->post_norm && !c->norm_plain;
	case COND_PROJECT:
		return c->embed_dim != c->hidden;
	case COND_DENSE:
		return !model_is_sparse(m, layer);
	case COND_SPARSE:
		return model_is_sparse(m, layer);
	case COND_ALWAYS:
		break;
	}
	return true;
}

const struct tensor_row *model_row(const struct model *m, enum slot s)
{
	const enum slot kind = slot_kind(s);

	for (const struct tensor_row *r = m->family->tensors; r->slot != SLOT_NONE; r++)
		if (r->slot == kind)
			return r;
	return NULL;
}

static bool is_expert(enum slot s)
{
	return s >= SLOT_X_GATE && s < SLOT_X_GATE + (int)EXPERT_SLOTS;
}

bool model_has(const struct model *m, enum slot s, long layer)
{
	const struct tensor_row *r = is_expert(s) ? NULL : model_row(m, s);

	return r && slot_expert(s) < m->cfg.experts && holds(m, r->cond, layer);
}

int model_dims(const struct model *m, enum slot s, int64_t dims[MODEL_MAX_RANK])
{
	const struct tensor_row *r = model_row(m, s);
	int n = 0;

	for (; r && n < MODEL_MAX_RANK && r->dim[n] != DIM_NONE; n++)
		dims[n] = model_dim(m, r->dim[n]);
	return n;
}

int model_shape(const struct model *m, enum slot s, int64_t shape[2])
{
	int64_t dims[MODEL_MAX_RANK] = { 0 };
	const int rank = model_dims(m, s, dims);

	shape[0] = dims[0];
	shape[1] = rank > 0;
	for (int i = 1; i < rank; i++)
		shape[1] *= dims[i];
	return rank == 1 ? 1 : 2;
}

/* A name of the table with the expert's number in it. */
static void name_expert(const char *name, long expert, char *buf, size_t cap)
{
	const char *number = strstr(name, "%ld");

	if (number)
		snprintf(buf, cap, "%.*s%ld%s", (int)(number - name), name, expert, number + 3);
	else
		snprintf(buf, cap, "%s", name);
}

void model_tensor_name(const struct model *m, enum slot s, long layer, char *buf)
{
	const struct tensor_row *r = model_row(m, s);
	const char *prefix = m->family->block_prefix;
	const char *number = strstr(prefix, "%ld");
	size_t n = 0;

	if (!r) {
		snprintf(buf, 256, "slot %d", (int)s);
		return;
	}
	if (slot_in_block(s))
		n = (size_t)snprintf(buf, 256, "%.*s%ld%s", (int)(number - prefix), prefix, layer,
				     number + 3);
	name_expert(r->name, slot_expert(s), buf + n, 256 - n);
}

/* A number at *p, as we write it ourselves: no sign, no leading zero, below limit. */
static bool take_number(const char **p, long limit, long *number)
{
	const char *s = *p;
	long v = 0;

	if (*s < '0' || *s > '9' || (s[0] == '0' && s[1] >= '0' && s[1] <= '9'))
		return false;
	for (; *s >= '0' && *s <= '9'; s++) {
		v = v * 10 + (*s - '0');
		if (v >= limit)
			return false;
	}
	*p = s;
	*number = v;
	return true;
}

/* Is name the row's, and whose: *expert, -1 without a number. */
static bool same_name(const char *row, const char *name, long experts, long *expert)
{
	const char *number = strstr(row, "%ld");
	const size_t n = number ? (size_t)(number - row) : 0;

	*expert = -1;
	if (!number)
		return strcmp(row, name) == 0;
	if (strncmp(row, name, n))
		return false;
	name += n;
	return take_number(&name, experts, expert) && strcmp(name, number + 3) == 0;
}

enum slot model_slot(const struct model *m, const char *name, long *layer)
{
	const char *prefix = m->family->block_prefix;
	const char *number = strstr(prefix, "%ld");
	size_t before = (size_t)(number - prefix), after = strlen(number + 3);
	const char *rest = name + before;
	bool in_block = strncmp(name, prefix, before) == 0 &&
			take_number(&rest, m->cfg.layers, layer) &&
			strncmp(rest, number + 3, after) == 0;
	long expert;

	if (in_block)
		rest += after;
	else
		*layer = -1;
	for (const struct tensor_row *r = m->family->tensors; r->slot != SLOT_NONE; r++)
		if (slot_in_block(r->slot) == in_block && holds(m, r->cond, *layer) &&
		    same_name(r->name, in_block ? rest : name, m->cfg.experts, &expert))
			return expert < 0 ? r->slot : slot_of_expert(r->slot, expert);
	return SLOT_NONE;
}

/* Where in a stream a slot stands: 0 before the blocks, 1 in one, 2 after them. */
static int part(enum slot s)
{
	return slot_in_block(s) ? 1 : s < SLOT_NORM_F ? 0 : 2;
}

/* The n-th tensor of a part, a block's in this layer; else n less how many there are, in *n. */
static enum slot nth_of_part(const struct model *m, int want, long layer, size_t *n)
{
	for (const struct tensor_row *r = m->family->tensors; r->slot != SLOT_NONE; r++) {
		size_t first, all = (size_t)m->cfg.experts * EXPERT_SLOTS;

		if (part(r->slot) != want || !holds(m, r->cond, layer))
			continue;
		if (!is_expert(r->slot)) {
			if ((*n)-- == 0)
				return r->slot;
			continue;
		}
		/* The rows of the experts follow each other: expert by expert, all its rows. */
		if (r->slot != SLOT_X_GATE)
			continue;
		first = *n;
		if (first < all)
			return slot_of_expert(r[first % EXPERT_SLOTS].slot,
					      (long)(first / EXPERT_SLOTS));
		*n -= all;
	}
	return SLOT_NONE;
}

bool model_nth(const struct model *m, size_t n, enum slot *s, long *layer)
{
	*layer = -1;
	if ((*s = nth_of_part(m, 0, -1, &n)) != SLOT_NONE)
		return true;
	for (long i = 0; i < m->cfg.layers; i++)
		if ((*s = nth_of_part(m, 1, i, &n)) != SLOT_NONE) {
			*layer = i;
			return true;
		}
	return (*s = nth_of_part(m, 2, -1, &n)) != SLOT_NONE;
}

/* ---- linears and edges ---------------------------------------------------------- */

bool model_linear(const struct model *m, long layer, size_t n, struct linear_row *row)
{
	const size_t all = (size_t)m->cfg.experts * EXPERT_SLOTS;

	for (const struct linear_row *l = m->family->linears; l->weight != SLOT_NONE; l++) {
		if (slot_in_block(l->weight) != (layer >= 0))
			continue;
		if (is_expert(l->weight) && holds(m, COND_SPARSE, layer)) {
			const struct linear_row *of = l + n % EXPERT_SLOTS;
			const long expert = (long)(n / EXPERT_SLOTS);

			if (l->weight != SLOT_X_GATE)
				continue;
			if (n >= all) {
				n -= all;
				continue;
			}
			*row = *of;
			row->weight = slot_of_expert(of->weight, expert);
			row->in = edge_of_expert(of->in, expert);
			return true;
		}
		if (model_has(m, l->weight, layer) && n-- == 0) {
			*row = *l;
			return true;
		}
	}
	return false;
}

bool model_has_edge(const struct model *m, enum edge g, long layer)
{
	if (edge_expert(g) >= 0)
		return layer >= 0 && edge_expert(g) < m->cfg.experts && model_is_sparse(m, layer);
	for (const struct linear_row *l = m->family->linears; l->weight != SLOT_NONE; l++)
		if (l->in == g && slot_in_block(l->weight) == (layer >= 0) &&
		    model_has(m, l->weight, layer))
			return true;
	return false;
}

struct edge_row model_edge_row(const struct model *m, enum edge g)
{
	struct edge_row row = m->family->edges[edge_kind(g)];
	const long expert = edge_expert(g);

	row.edge = g;
	if (expert >= 0) {
		row.of = row.of == edge_kind(g) ? g : row.of;
		if (is_expert(row.producer))
			row.producer = slot_of_expert(row.producer, expert);
	}
	if ((row.norm && (m->cfg.post_norm || m->cfg.norm_plain)) ||
	    (row.act && m->cfg.act != ACT_RELU))
		row.producer = row.producer_bias = SLOT_NONE;
	return row;
}

long model_edge_width(const struct model *m, enum edge g)
{
	return model_dim(m, m->family->edges[edge_kind(g)].width);
}

void model_edge_name(const struct model *m, enum edge g, long layer, char *buf)
{
	int n = layer < 0 ? 0 : snprintf(buf, 256, "layers.%ld.", layer);

	name_expert(m->family->edges[edge_kind(g)].name, edge_expert(g), buf + n, 256 - (size_t)n);
}

int model_edge(const struct model *m, const char *name, long *layer)
{
	const char *rest = name + strlen("layers.");
	long expert;

	if (strncmp(name, "layers.", strlen("layers."))) {
		rest = name;
		*layer = -1;
	} else if (!take_number(&rest, m->cfg.layers, layer) || *rest++ != '.') {
		return -1;
	}
	for (int g = 0; g < EDGE_COUNT; g++) {
		const char *row = m->family->edges[g].name;

		if (row && same_name(row, rest, m->cfg.experts, &expert)) {
			const int edge = expert < 0 ? g : (int)edge_of_expert(g, expert);

			return model_has_edge(m, edge, *layer) ? edge : -1;
		}
	}
	return -1;
}
