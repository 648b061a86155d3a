/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hf_config.c - config.json, as transformers 4 and 5 write it, into a model's configuration
 *
 * The family's rows say which keys are read; what is here is common to all: quantized
 * checkpoints are refused, and the rope keys of both generations are read
 * (4: rope_theta, rope_scaling with "type" or "rope_type"; 5: rope_parameters).
 */
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "formats/hf.h"
#include "formats/hf_quant.h"
#include "formats/json.h"

#define FILE_NAME "config.json"

static void key_place(char *where, size_t cap, const char *key)
{
	snprintf(where, cap, FILE_NAME ": %s", key);
}

/* The value of a key; absent and null are the same. */
static const struct json *given(const struct json *obj, const char *key)
{
	const struct json *v = json_get(obj, key);

	return json_type_of(v) == JSON_NULL ? NULL : v;
}

/* A short text for a value: what CONFIG_ONLY compares, and what messages show. */
static void value_text(char *buf, size_t cap, const struct json *v)
{
	const char *s = json_str(v, NULL);

	switch (json_type_of(v)) {
	case JSON_STR:
		snprintf(buf, cap, "%s", s);
		break;
	case JSON_INT:
		snprintf(buf, cap, "%lld", (long long)json_int(v, 0));
		break;
	case JSON_REAL:
		snprintf(buf, cap, "%g", json_num(v, 0));
		break;
	case JSON_BOOL:
		snprintf(buf, cap, "%s", json_bool(v, false) ? "true" : "false");
		break;
	case JSON_ARRAY:
		snprintf(buf, cap, "[...]");
		break;
	case JSON_OBJECT:
		snprintf(buf, cap, "{...}");
		break;
	default:
		snprintf(buf, cap, "null");
		break;
	}
}

/* Is text one of the words in "a|b|c"? */
static bool among(const char *words, const char *text)
{
	size_t n = strlen(text);

	for (const char *w = words; *w; w += strcspn(w, "|"), w += *w == '|')
		if (strcspn(w, "|") == n && memcmp(w, text, n) == 0)
			return true;
	return false;
}

static int take_only(const struct config_row *row, const struct json *v, const char *where,
		     struct err *e)
{
	bool list = json_type_of(v) == JSON_ARRAY && json_len(v) > 0;
	char text[64];

	for (size_t i = 0; i < (list ? json_len(v) : 1); i++) {
		value_text(text, sizeof(text), list ? json_at(v, i) : v);
		if (!among(row->only, text))
			return err_set(e, ERR_DATA, where, "'%s' is not supported (only %s)", text,
				       row->only);
	}
	return 0;
}

static int wrong(const struct json *v, const char *expected, const char *where, struct err *e)
{
	char text[64];

	value_text(text, sizeof(text), v);
	return err_set(e, ERR_DATA, where, "expected %s, got %s%s%s", expected,
		       json_str(v, NULL) ? "\"" : "", text, json_str(v, NULL) ? "\"" : "");
}

static int take_real(double *out, const struct json *v, const char *where, struct err *e)
{
	double x = json_num(v, NAN);

	if (!(x > 0 && isfinite(x)))
		return wrong(v, "a number above 0", where, e);
	*out = x;
	return 0;
}

static int take_count(long *out, const struct json *v, const char *where, struct err *e)
{
	int64_t x = json_int(v, 0);

	if (x < 1 || x > LONG_MAX)
		return wrong(v, "an integer from 1 up", where, e);
	*out = (long)x;
	return 0;
}

static int take_token(long *out, const struct json *v, const char *where, struct err *e)
{
	bool list = json_type_of(v) == JSON_ARRAY;
	int64_t x;

	if (list && json_len(v) == 0) {
		*out = -1;
		return 0;
	}
	x = json_int(list ? json_at(v, 0) : v, -2);
	if (x < -1 || x > INT32_MAX)
		return wrong(v, "a token id, a list of them, or null", where, e);
	*out = (long)x;
	return 0;
}

static int take_act(enum act_kind *act, const struct config_row *row, const struct json *v,
		    const char *where, struct err *e)
{
	static const struct {
		const char *name;
		enum act_kind act;
	} names[] = {
		{ "silu", ACT_SILU }, { "swish", ACT_SILU }, { "relu", ACT_RELU },
		{ "gelu", ACT_GELU }, { "gelu_new", ACT_GELU_TANH },
		{ "gelu_pytorch_tanh", ACT_GELU_TANH },
	};
	char text[64];

	if (json_type_of(v) == JSON_ARRAY)
		return wrong(v, "the name of an activation", where, e);
	if (take_only(row, v, where, e))
		return -1;
	value_text(text, sizeof(text), v);
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (strcmp(names[i].name, text) == 0) {
			*act = names[i].act;
			return 0;
		}
	return err_set(e, ERR_BUG, where, "'%s' has no function", text);
}

static int take_layers(struct model_config *c, const struct json *v, const char *where,
		       struct err *e)
{
	const size_t n = json_len(v);

	if (json_type_of(v) != JSON_ARRAY)
		return wrong(v, "a list of layers", where, e);
	if (n > MODEL_MAX_LISTED)
		return err_set(e, ERR_DATA, where, "%zu layers, at most %d are read", n,
			       MODEL_MAX_LISTED);
	for (size_t i = 0; i < n; i++) {
		const int64_t layer = json_int(json_at(v, i), -1);

		if (layer < 0 || layer > LONG_MAX)
			return wrong(json_at(v, i), "a layer's number", where, e);
		c->dense[i] = (long)layer;
	}
	c->n_dense = (long)n;
	return 0;
}

/* A row whose key is absent, or null. */
static int take_default(struct model_config *c, const struct config_row *row, bool is_null,
			const char *where, struct err *e)
{
	void *at = (char *)c + row->field;

	if (row->otherwise == CONFIG_NEEDED && row->kind != CONFIG_ONLY)
		return err_set(e, ERR_DATA, where, "is missing");
	switch (row->kind) {
	case CONFIG_COUNT: /* null: what the other sizes make of it, for those that can be */
		*(long *)at = is_null ? 0 : (long)row->otherwise;
		break;
	case CONFIG_ENTRIES:
		*(long *)at = (long)row->otherwise;
		break;
	case CONFIG_NO_TOKEN:
		*(long *)at = -1;
		break;
	case CONFIG_ACT:
		*(enum act_kind *)at = (enum act_kind)row->otherwise;
		break;
	case CONFIG_TOKEN:
		*(long *)at = is_null ? -1 : (long)row->otherwise;
		break;
	case CONFIG_REAL:
	case CONFIG_FIXED:
		*(double *)at = row->otherwise;
		break;
	case CONFIG_BOOL:
		*(bool *)at = row->otherwise != 0;
		break;
	case CONFIG_NOT:
		*(bool *)at = row->otherwise == 0;
		break;
	case CONFIG_TRUE:
		*(bool *)at = true;
		break;
	case CONFIG_LAYERS:
	case CONFIG_ONLY:
		break;
	}
	return 0;
}

static int take_row(struct model_config *c, const struct config_row *row,
		    const struct json *root, struct err *e)
{
	const struct json *v = json_get(root, row->key);
	void *at = (char *)c + row->field;
	char where[128];

	key_place(where, sizeof(where), row->key);
	if (row->kind == CONFIG_ONLY && v)
		return take_only(row, v, where, e);
	if (row->kind == CONFIG_ACT && v)
		return take_act(at, row, v, where, e);
	if (!given(root, row->key))
		return take_default(c, row, v != NULL, where, e);
	switch (row->kind) {
	case CONFIG_COUNT:
		return take_count(at, v, where, e);
	case CONFIG_REAL:
		return take_real(at, v, where, e);
	case CONFIG_TOKEN:
		return take_token(at, v, where, e);
	case CONFIG_BOOL:
	case CONFIG_NOT:
		if (json_type_of(v) != JSON_BOOL)
			return wrong(v, "true or false", where, e);
		*(bool *)at = json_bool(v, false) == (row->kind == CONFIG_BOOL);
		return 0;
	case CONFIG_LAYERS:
		return take_layers(c, v, where, e);
	case CONFIG_ENTRIES:
		if (json_type_of(v) != JSON_OBJECT || json_len(v) == 0)
			return wrong(v, "an object with entries", where, e);
		*(long *)at = (long)json_len(v);
		return 0;
	default:
		break;
	}
	return 0;
}

static int rope_kind_of(enum rope_kind *kind, const struct json *obj, const char *where,
			struct err *e)
{
	const struct json *v = given(obj, "rope_type");
	char text[64];

	if (!v)
		v = given(obj, "type");
	if (!v) {
		*kind = ROPE_PLAIN;
		return given(obj, "factor") ?
		       err_set(e, ERR_DATA, where, "has a factor but no rope_type") : 0;
	}
	value_text(text, sizeof(text), v);
	if (strcmp(text, "default") == 0)
		*kind = ROPE_PLAIN;
	else if (strcmp(text, "linear") == 0)
		*kind = ROPE_LINEAR;
	else if (strcmp(text, "llama3") == 0)
		*kind = ROPE_LLAMA3;
	else
		return err_set(e, ERR_DATA, where,
			       "rope_type '%s' is not supported (only default|linear|llama3)",
			       text);
	return 0;
}

/* A number that a rope type cannot do without. */
static int rope_number(double *out, const struct json *obj, const char *key, const char *where,
		       struct err *e)
{
	char at[160];

	if (!given(obj, key))
		return err_set(e, ERR_DATA, where, "%s is missing", key);
	snprintf(at, sizeof(at), "%s: %s", where, key);
	return take_real(out, given(obj, key), at, e);
}

/* One kind of positions; root has what may stand outside of it. */
static int take_rope_kind(struct model_config *c, const struct json *root, const struct json *obj,
			  const char *where, struct err *e)
{
	const struct json *v;
	char outside[128];
	const char *k;
	void *it = NULL;

	if (json_type_of(obj) != JSON_OBJECT)
		return wrong(obj, "an object", where, e);
	if (rope_kind_of(&c->rope, obj, where, e))
		return -1;
	while ((it = json_iter(obj, it, &k, &v)))
		if (!among("rope_type|type|factor|rope_theta|low_freq_factor|high_freq_factor|"
			   "original_max_position_embeddings", k) &&
		    json_type_of(v) != JSON_NULL &&
		    !(strcmp(k, "partial_rotary_factor") == 0 && json_num(v, 0) == 1))
			return err_set(e, ERR_DATA, where, "key '%.64s' is not supported", k);
	if (given(obj, "rope_theta") && rope_number(&c->rope_theta, obj, "rope_theta", where, e))
		return -1;
	if (c->rope == ROPE_PLAIN)
		return 0;
	if (rope_number(&c->rope_factor, obj, "factor", where, e))
		return -1;
	if (c->rope == ROPE_LINEAR)
		return 0;
	if (rope_number(&c->rope_low_freq, obj, "low_freq_factor", where, e) ||
	    rope_number(&c->rope_high_freq, obj, "high_freq_factor", where, e))
		return -1;
	k = "original_max_position_embeddings";
	v = given(obj, k) ? given(obj, k) : given(root, k);
	if (!v)
		return err_set(e, ERR_DATA, where, "%s is missing", k);
	key_place(outside, sizeof(outside), k);
	return take_count(&c->rope_original_positions, v, outside, e);
}

static bool same_rope(const struct model_config *a, const struct model_config *b)
{
	return a->rope == b->rope && a->rope_factor == b->rope_factor &&
	       a->rope_low_freq == b->rope_low_freq && a->rope_high_freq == b->rope_high_freq &&
	       a->rope_original_positions == b->rope_original_positions;
}

/* rope_scaling or rope_parameters, under key: one for all layers, or one for each type of layers
 * ("full_attention", "sliding_attention"), which must be the same. */
static int take_rope_object(struct model_config *c, const struct json *root, const char *key,
			    struct err *e)
{
	const struct json *obj = given(root, key), *v;
	const struct model_config before = *c;
	struct model_config one;
	char where[128], type[160];
	const char *k;
	void *it = NULL;
	int n = 0;

	key_place(where, sizeof(where), key);
	while ((it = json_iter(obj, it, &k, &v)) && json_type_of(v) == JSON_OBJECT) {
		one = before;
		snprintf(type, sizeof(type), "%.80s: %.64s", where, k);
		if (take_rope_kind(&one, root, v, type, e))
			return -1;
		if (n++ && (!same_rope(c, &one) || c->rope_theta != one.rope_theta))
			return err_set(e, ERR_DATA, type, "layers whose positions turn otherwise "
				       "than other layers' are not supported");
		*c = one;
	}
	if (n && it)
		return err_set(e, ERR_DATA, where, "key '%.64s' is not supported beside types of "
			       "layers", k);
	return n ? 0 : take_rope_kind(c, root, obj, where, e);
}

static int take_rope(struct model_config *c, const struct json *root, struct err *e)
{
	static const char *const keys[] = { "rope_scaling", "rope_parameters" };
	const struct json *theta = given(root, "rope_theta");
	const struct json *partial = given(root, "partial_rotary_factor");
	struct model_config found[2] = { *c, *c };
	double top = 0;
	int n = 0;

	if (partial && json_num(partial, 0) != 1)
		return wrong(partial, "1, all of a head to be rotated",
			     FILE_NAME ": partial_rotary_factor", e);
	if (theta && take_real(&top, theta, FILE_NAME ": rope_theta", e))
		return -1;
	for (int i = 0; i < 2; i++)
		if (given(root, keys[i]) && take_rope_object(&found[n++], root, keys[i], e))
			return -1;
	if (n == 2 && !same_rope(&found[0], &found[1]))
		return err_set(e, ERR_DATA, FILE_NAME, "rope_scaling and rope_parameters disagree");
	for (int i = 0; i < n; i++) {
		if (top && found[i].rope_theta && found[i].rope_theta != top)
			return err_set(e, ERR_DATA, FILE_NAME ": rope_theta",
				       "%g, and %g in rope_parameters", top, found[i].rope_theta);
		if (found[i].rope_theta)
			top = found[i].rope_theta;
	}
	*c = found[0];
	if (n == 0)
		c->rope = ROPE_PLAIN;
	c->rope_theta = top ? top : 10000;
	return 0;
}

/* Does layer i have the window, by the family's rule and without layer_types? */
static bool windowed(enum window_rule rule, long i, long layers)
{
	return rule == WINDOW_ALWAYS || (rule == WINDOW_ABOVE && i >= layers) ||
	       (rule == WINDOW_EVEN_BELOW && i % 2 == 0 && i < layers);
}

/* The layers with a window.  layer_types says which; where there is no choice it must agree. */
static int take_window_layers(struct model_config *c, enum window_rule rule,
			      const struct json *types, long layers, struct err *e)
{
	char text[64];

	if (types && (json_type_of(types) != JSON_ARRAY || (long)json_len(types) != c->layers))
		return wrong(types, "a list of a word a layer", FILE_NAME ": layer_types", e);
	for (long i = 0; i < c->layers; i++) {
		bool has = c->window && windowed(rule, i, layers);

		if (types) {
			const bool free = c->window && rule != WINDOW_ALWAYS;

			value_text(text, sizeof(text), json_at(types, (size_t)i));
			if (free && strcmp(text, "sliding_attention") == 0)
				has = true;
			else if (free && strcmp(text, "full_attention") == 0)
				has = false;
			else if (strcmp(text, has ? "sliding_attention" : "full_attention"))
				return err_set(e, ERR_DATA, FILE_NAME ": layer_types", "'%s' for "
					       "layer %ld, which the other keys make %s", text, i,
					       has ? "sliding_attention" : "full_attention");
		}
		if (!has || rule == WINDOW_ALWAYS)
			continue;
		if (c->n_windowed == MODEL_MAX_LISTED)
			return err_set(e, ERR_DATA, FILE_NAME ": sliding_window",
				       "in more than %d layers", MODEL_MAX_LISTED);
		c->windowed[c->n_windowed++] = i;
	}
	if (rule != WINDOW_ALWAYS && c->n_windowed == 0)
		c->window = 0;
	return 0;
}

/* sliding_window (4096 unless it is there), use_sliding_window and max_window_layers by the
 * family's rule. */
static int take_window(struct model_config *c, enum window_rule rule, const struct json *root,
		       struct err *e)
{
	const struct json *window = json_get(root, "sliding_window");
	const struct json *use = given(root, "use_sliding_window");
	const struct json *from = given(root, "max_window_layers");
	const bool switched = rule == WINDOW_ABOVE || rule == WINDOW_EVEN_BELOW;

	if (switched && use && json_type_of(use) != JSON_BOOL)
		return wrong(use, "true or false", FILE_NAME ": use_sliding_window", e);
	if (switched && from && json_int(from, -1) < 0)
		return wrong(from, "a number of layers", FILE_NAME ": max_window_layers", e);
	if (rule != WINDOW_NONE && (!switched || json_bool(use, false))) {
		if (!window)
			c->window = 4096;
		else if (given(root, "sliding_window") &&
			 take_count(&c->window, window, FILE_NAME ": sliding_window", e))
			return -1;
	}
	return take_window_layers(c, rule, given(root, "layer_types"),
				  (long)json_int(from, 28), e);
}

static int refuse_quantized(const struct json *root, struct err *e)
{
	static const char *const keys[] = { "quantization_config", "compression_config" };
	char text[64], where[64], known[128];

	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		const struct json *v = given(root, keys[i]);

		if (!v)
			continue;
		/* Its linears are in codes, which have readers of their own. */
		if (i == 0 && hf_quant_find(json_str(json_get(v, "quant_method"), NULL)))
			continue;
		value_text(text, sizeof(text), json_get(v, "quant_method"));
		key_place(where, sizeof(where), keys[i]);
		hf_quant_names(known, sizeof(known));
		return err_set(e, ERR_DATA, where, "the checkpoint is quantized already "
			       "(quant_method '%s'), not as one of: %s", text, known);
	}
	return 0;
}

static int take_config(struct model_config *c, const struct json *root, struct err *e)
{
	const char *type = json_str(json_get(root, "model_type"), NULL);
	const struct family *f;
	struct model m;

	if (json_type_of(root) != JSON_OBJECT)
		return err_set(e, ERR_DATA, FILE_NAME, "expected an object");
	if (!type)
		return err_set(e, ERR_DATA, FILE_NAME ": model_type", "is missing");
	snprintf(c->model_type, sizeof(c->model_type), "%s", type);
	f = family_find(type);
	if (!f)
		goto check; /* model_init knows what to say */
	if (refuse_quantized(root, e))
		return -1;
	for (const struct config_row *row = f->config; row->key; row++)
		if (take_row(c, row, root, e))
			return -1;
	if ((f->rotary && take_rope(c, root, e)) || take_window(c, f->window, root, e))
		return -1;
	if (f->images && c->patch > 0 && c->image_size / c->patch < 1 << 15)
		c->max_positions = (c->image_size / c->patch) * (c->image_size / c->patch) + 1;
	if (!c->kv_heads)
		c->kv_heads = c->heads;
	if (!c->head_dim && c->hidden % c->heads)
		return err_set(e, ERR_DATA, FILE_NAME ": hidden_size",
			       "%ld is not a multiple of num_attention_heads %ld", c->hidden,
			       c->heads);
	if (!c->head_dim)
		c->head_dim = c->hidden / c->heads;
check:
	if (model_init(&m, c, e)) {
		char key[sizeof(e->where)];

		snprintf(key, sizeof(key), "%s", e->where);
		snprintf(e->where, sizeof(e->where), FILE_NAME ": %.200s", key);
		return -1;
	}
	return 0;
}

int hf_config_parse(struct model_config *c, const char *json, size_t n, struct err *e)
{
	struct json_doc *doc;
	int ret;

	memset(c, 0, sizeof(*c));
	if (json_parse(&doc, json, n, FILE_NAME, e))
		return -1;
	ret = take_config(c, json_root(doc), e);
	json_free(doc);
	return ret;
}
