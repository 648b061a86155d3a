/* SPDX-License-Identifier: Apache-2.0 */
/*
 * family_head.c - a model in the header of a stream: keys "family", "config" and "plan"
 */
#include <string.h>

#include "lib/data/mp.h"
#include "lib/data/stream.h"
#include "lib/model/family.h"

enum kind { LONG, DOUBLE, BOOL, ROPE, ACT, LAYERS };

/* LAYERS: the number of layers, and directly behind it in the struct their list. */
/* The map under "config": every field of struct model_config but model_type, in this order. */
static const struct field {
	const char *key;
	enum kind kind;
	size_t at;
} fields[] = {
#define F(key, kind, name) { key, kind, offsetof(struct model_config, name) }
	F("hidden_size", LONG, hidden),
	F("num_hidden_layers", LONG, layers),
	F("num_attention_heads", LONG, heads),
	F("num_key_value_heads", LONG, kv_heads),
	F("head_dim", LONG, head_dim),
	F("intermediate_size", LONG, ffn),
	F("vocab_size", LONG, vocab),
	F("max_position_embeddings", LONG, max_positions),
	F("norm_eps", DOUBLE, norm_eps),
	F("rope_type", ROPE, rope),
	F("rope_theta", DOUBLE, rope_theta),
	F("rope_factor", DOUBLE, rope_factor),
	F("rope_low_freq_factor", DOUBLE, rope_low_freq),
	F("rope_high_freq_factor", DOUBLE, rope_high_freq),
	F("rope_original_positions", LONG, rope_original_positions),
	F("tie_word_embeddings", BOOL, tied),
	F("qkv_bias", BOOL, qkv_bias),
	F("o_bias", BOOL, o_bias),
	F("mlp_bias", BOOL, mlp_bias),
	F("bos_token_id", LONG, bos),
	F("eos_token_id", LONG, eos),
	F("hidden_act", ACT, act),
	F("word_embed_proj_dim", LONG, embed_dim),
	F("post_norm", BOOL, post_norm),
	F("norm_plain", BOOL, norm_plain),
	F("qk_norm", BOOL, qk_norm),
	F("no_final_norm", BOOL, no_final_norm),
	F("sliding_window", LONG, window),
	F("window_layers", LAYERS, n_windowed),
	F("num_experts", LONG, experts),
	F("num_experts_per_tok", LONG, experts_per_token),
	F("moe_intermediate_size", LONG, expert_ffn),
	F("shared_expert_intermediate_size", LONG, shared_ffn),
	F("decoder_sparse_step", LONG, sparse_step),
	F("norm_topk_prob", BOOL, norm_topk),
	F("mlp_only_layers", LAYERS, n_dense),
	F("image_size", LONG, image_size),
	F("patch_size", LONG, patch),
	F("num_channels", LONG, channels),
#undef F
};
enum { N_FIELDS = sizeof(fields) / sizeof(fields[0]), FIRST_OPTIONAL = 21 };

static const char *const rope_names[] = {
	[ROPE_NONE] = "none", [ROPE_PLAIN] = "default", [ROPE_LINEAR] = "linear",
	[ROPE_LLAMA3] = "llama3",
};
enum { N_ROPES = sizeof(rope_names) / sizeof(rope_names[0]) };

static const char *const act_names[] = {
	[ACT_SILU] = "silu", [ACT_RELU] = "relu", [ACT_GELU] = "gelu",
	[ACT_GELU_TANH] = "gelu_tanh",
};
enum { N_ACTS = sizeof(act_names) / sizeof(act_names[0]) };

static const struct model_config defaults = { .sparse_step = 1 };

/*
 * A key of this version that says nothing, because its value is what a stream without the key
 * means, is left out: so streams of simple models are read by every version.
 */
static bool says_nothing(const struct field *f, const struct model_config *c)
{
	const size_t n = f->kind == LONG || f->kind == LAYERS ? sizeof(long) :
			 f->kind == BOOL ? sizeof(bool) : sizeof(int);

	if (f < fields + FIRST_OPTIONAL)
		return false;
	if (f->at == offsetof(struct model_config, embed_dim))
		return c->embed_dim == c->hidden;
	return memcmp((const char *)c + f->at, (const char *)&defaults + f->at, n) == 0;
}

static void put_config(struct buf *b, const struct model_config *c)
{
	size_t n = 0;

	for (size_t i = 0; i < N_FIELDS; i++)
		n += !says_nothing(&fields[i], c);
	mp_put_map(b, n);
	for (size_t i = 0; i < N_FIELDS; i++) {
		const void *at = (const char *)c + fields[i].at;

		if (says_nothing(&fields[i], c))
			continue;
		mp_put_str(b, fields[i].key);
		switch (fields[i].kind) {
		case LONG:
			mp_put_int(b, *(const long *)at);
			break;
		case DOUBLE:
			mp_put_double(b, *(const double *)at);
			break;
		case BOOL:
			mp_put_bool(b, *(const bool *)at);
			break;
		case ROPE:
			mp_put_str(b, rope_names[*(const enum rope_kind *)at]);
			break;
		case ACT:
			mp_put_str(b, act_names[*(const enum act_kind *)at]);
			break;
		case LAYERS:
			mp_put_array(b, (size_t)*(const long *)at);
			for (long k = 0; k < *(const long *)at; k++)
				mp_put_int(b, ((const long *)at)[1 + k]);
			break;
		}
	}
}

static void put_plan(struct buf *b, const struct model *m,
		     enum dtype (*dtype)(void *ctx, enum slot s, long layer), void *ctx)
{
	char name[256];
	int64_t shape[MODEL_MAX_RANK];
	size_t n = 0;
	enum slot s;
	long layer;

	while (model_nth(m, n, &s, &layer))
		n++;
	mp_put_array(b, n);
	for (size_t i = 0; model_nth(m, i, &s, &layer); i++) {
		int rank = model_dims(m, s, shape);

		model_tensor_name(m, s, layer, name);
		mp_put_array(b, 3);
		mp_put_str(b, name);
		mp_put_str(b, dtype_name(dtype(ctx, s, layer)));
		mp_put_array(b, (size_t)rank);
		for (int k = 0; k < rank; k++)
			mp_put_int(b, shape[k]);
	}
}

int model_to_head(const struct model *m, enum dtype (*dtype)(void *ctx, enum slot s, long layer),
		  void *ctx, struct record *head, struct err *e)
{
	struct buf config = { 0 }, plan = { 0 };
	int ret = -1;

	put_config(&config, &m->cfg);
	put_plan(&plan, m, dtype, ctx);
	if (buf_failed(&config, "config", e) || buf_failed(&plan, "plan", e))
		goto out;
	if (plan.n + config.n > STREAM_MAX_HEADER / 2) {
		/* The rest is for the provenance. */
		err_set(e, ERR_DATA, "plan", "%zu bytes do not fit a header of at most %u", plan.n,
			STREAM_MAX_HEADER);
		goto out;
	}
	if (record_set_str(head, "family", m->family->model_type) ||
	    record_set_raw(head, "config", config.p, config.n) ||
	    record_set_raw(head, "plan", plan.p, plan.n))
		err_nomem(e, "stream", plan.n);
	else
		ret = 0;
out:
	buf_release(&config);
	buf_release(&plan);
	return ret;
}

static bool is_str(const struct mp *v, const char *want)
{
	const char *s;
	size_t n;

	return mp_str(v, &s, &n) && n == strlen(want) && memcmp(s, want, n) == 0;
}

static bool take_layers(long *list, const struct mp *v)
{
	int64_t i;

	if (mp_type_of(v) != MP_ARRAY || mp_len(v) > MODEL_MAX_LISTED)
		return false;
	for (list[0] = 0; list[0] < (long)mp_len(v); list[0]++) {
		if (!mp_int(mp_at(v, (size_t)list[0]), &i))
			return false;
		list[1 + list[0]] = (long)i;
	}
	return true;
}

static bool take_field(const struct field *f, struct model_config *c, const struct mp *v)
{
	void *at = (char *)c + f->at;
	int64_t i;

	switch (f->kind) {
	case LONG:
		if (!mp_int(v, &i))
			return false;
		*(long *)at = (long)i;
		return true;
	case DOUBLE:
		return mp_double(v, at);
	case BOOL:
		return mp_bool(v, at);
	case ROPE:
		for (int k = 0; k < N_ROPES; k++)
			if (is_str(v, rope_names[k])) {
				*(enum rope_kind *)at = (enum rope_kind)k;
				return true;
			}
		return false;
	case ACT:
		for (int k = 0; k < N_ACTS; k++)
			if (is_str(v, act_names[k])) {
				*(enum act_kind *)at = (enum act_kind)k;
				return true;
			}
		return false;
	case LAYERS:
		return take_layers(at, v);
	}
	return false;
}

/* A key that is missing is 0, which model_init refuses where it matters; a key that is too
 * much is something the arithmetic of this version does not do. */
static int take_config(struct model_config *c, const struct mp *map, struct err *e)
{
	bool seen[N_FIELDS] = { false };
	const char *s;
	size_t n, k;

	if (mp_type_of(map) != MP_MAP)
		return err_set(e, ERR_DATA, "stream: config", "expected a map");
	c->bos = c->eos = -1;
	for (size_t i = 0; i < mp_len(map); i++) {
		if (!mp_str(mp_key(map, i), &s, &n))
			return err_set(e, ERR_DATA, "stream: config", "a key is not a string");
		for (k = 0; k < N_FIELDS && !is_str(mp_key(map, i), fields[k].key); k++)
			;
		if (k == N_FIELDS)
			return err_set(e, ERR_VERSION, "stream: config",
				       "'%.*s' is not known to this version", n > 64 ? 64 : (int)n,
				       s);
		if (seen[k])
			return err_set(e, ERR_DATA, "stream: config", "%s is there twice",
				       fields[k].key);
		seen[k] = true;
		if (!take_field(&fields[k], c, mp_at(map, i)))
			return err_set(e, ERR_DATA, "stream: config", "%s has an unusable value",
				       fields[k].key);
	}
	return 0;
}

int model_from_head(struct model *m, const struct record *head, struct err *e)
{
	struct model_config c;
	struct mp_doc *doc;
	const void *p;
	size_t n;
	int ret;

	memset(&c, 0, sizeof(c));
	if (record_get_str(head, "family", c.model_type, sizeof(c.model_type)) != 1)
		return err_set(e, ERR_DATA, "stream", "carries no model (no key 'family')");
	if (record_get_raw(head, "config", &p, &n) != 1)
		return err_set(e, ERR_DATA, "stream", "carries no model (no key 'config')");
	if (mp_parse(&doc, p, n, "stream: config", e))
		return -1;
	ret = take_config(&c, mp_root(doc), e);
	mp_free(doc);
	return ret ? ret : model_init(m, &c, e);
}

/* The plan as it came, in order, but for the new head. */
struct replan {
	const struct model *m;
	const struct mp *plan;
	size_t at;
};

static enum dtype planned(const struct mp *entry)
{
	char name[16] = "";
	const char *s;
	size_t n;

	if (!mp_str(mp_at(entry, 1), &s, &n) || n >= sizeof(name))
		return DT_NONE;
	memcpy(name, s, n);
	return dtype_from_name(name);
}

static enum dtype replanned(void *ctx, enum slot s, long layer)
{
	struct replan *r = ctx;
	char name[256];

	model_tensor_name(r->m, s == SLOT_HEAD ? SLOT_EMBED : s, layer, name);
	if (s == SLOT_HEAD) {
		for (size_t i = 0; i < mp_len(r->plan); i++)
			if (is_str(mp_at(mp_at(r->plan, i), 0), name))
				return planned(mp_at(r->plan, i));
		return DT_F32;
	}
	while (r->at < mp_len(r->plan) && !is_str(mp_at(mp_at(r->plan, r->at), 0), name))
		r->at++;
	return r->at < mp_len(r->plan) ? planned(mp_at(r->plan, r->at++)) : DT_NONE;
}

int model_untie_head(struct model *m, struct record *head, struct err *e)
{
	struct replan r = { .m = m };
	struct mp_doc *doc;
	const void *p;
	size_t n;
	int ret;

	if (record_get_raw(head, "plan", &p, &n) != 1)
		return err_set(e, ERR_DATA, "stream", "carries no plan");
	if (mp_parse(&doc, p, n, "stream: plan", e) < 0)
		return -1;
	r.plan = mp_root(doc);
	m->cfg.tied = false;
	ret = model_to_head(m, replanned, &r, head, e);
	mp_free(doc);
	return ret;
}
