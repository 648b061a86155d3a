/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lint_ct.c - rules about compressed-tensors: what config_groups say, and what tensors there are
 */
#include <regex.h>
#include <stdio.h>
#include <string.h>

#include "formats/lint_impl.h"

static bool is_ct(const struct lint *l)
{
	return strcmp(l->method, "compressed-tensors") == 0;
}

static bool among(const char *word, const char *const *list)
{
	while (*list && strcmp(word, *list))
		list++;
	return *list != NULL;
}

static const char *text_of(const struct json *obj, const char *key)
{
	const char *s = json_str(json_get(obj, key), NULL);

	return s ? s : "";
}

/* ---- which group a module is of ------------------------------------------------------------ */

/* A class, an exact name, or "re:" and an expression from the beginning on (extended POSIX ones are
 * near enough to Python's; one that is no such thing hits everything: nothing is then said). */
static bool hits(const char *word, const char *name)
{
	char pattern[600];
	regex_t re;
	bool hit;

	if (strcmp(word, "Linear") == 0)
		return true;
	if (strncmp(word, "re:", 3))
		return strcmp(word, name) == 0;
	snprintf(pattern, sizeof(pattern), "^(%s)", word + 3);
	if (regcomp(&re, pattern, REG_EXTENDED | REG_NOSUB))
		return true;
	hit = regexec(&re, name, 0, NULL, 0) == 0;
	regfree(&re);
	return hit;
}

static bool any_hits(const struct json *list, const char *name)
{
	for (size_t i = 0; i < json_len(list); i++) {
		const char *word = json_str(json_at(list, i), NULL);

		if (word && hits(word, name))
			return true;
	}
	return false;
}

/* The group whose targets hit it; NULL: none. */
static const struct json *group_of(const struct lint *l, const char *name)
{
	const struct json *groups = json_get(l->quant, "config_groups"), *g;
	const char *key;

	for (void *it = NULL; (it = json_iter(groups, it, &key, &g));)
		if (any_hits(json_get(g, "targets"), name))
			return g;
	return NULL;
}

bool lint_ct_same(const struct lint *l, const char *a, const char *b)
{
	static const char *const keys[] = { "weights", "input_activations", "format" };
	const struct json *x = group_of(l, a), *y = group_of(l, b);
	bool same = true;

	for (size_t i = 0; x != y && i < sizeof(keys) / sizeof(keys[0]); i++)
		same = same && json_same(json_get(x, keys[i]), json_get(y, keys[i]));
	return same;
}

/* Is the module no linear but the matrix of a transform, "<linear>.<transform>_<location>"? */
static bool is_transform(const struct lint *l, const char *name)
{
	const struct json *groups = json_get(json_get(l->quant, "transform_config"),
					     "config_groups");
	const struct json *g;
	const char *dot = strrchr(name, '.'), *key;

	for (void *it = NULL; dot && (it = json_iter(groups, it, &key, &g));) {
		const size_t n = strlen(key);
		const struct json *apply = json_get(g, "apply");

		if (strncmp(dot + 1, key, n) || dot[1 + n] != '_')
			continue;
		for (size_t i = 0; i < json_len(apply); i++)
			if (strcmp(dot + 2 + n, text_of(json_at(apply, i), "location")) == 0)
				return true;
	}
	return false;
}

/* vLLM turns what goes into a linear or comes out of it, not queries and keys on their way. */
void lint_ct_places(struct lint *l)
{
	static const char *const known[] = { "input", "output", "weight_input", "weight_output",
					     NULL };
	const struct json *groups = json_get(json_get(l->quant, "transform_config"),
					     "config_groups"), *g;
	const char *key;

	for (void *it = NULL; (it = json_iter(groups, it, &key, &g));) {
		const struct json *apply = json_get(g, "apply");

		for (size_t i = 0; i < json_len(apply); i++) {
			const char *at = text_of(json_at(apply, i), "location");

			if (!among(at, known))
				lint_say(l, key, "turns at %s, which is not obeyed", at);
		}
	}
}

static bool ignored(const struct lint *l, const char *name)
{
	return any_hits(json_get(l->quant, "ignore"), name);
}

/* ---- the configuration ---------------------------------------------------------------------- */

static void check_args(struct lint *l, const char *group, const char *what, const struct json *a)
{
	static const char *const keys[] = {
		"num_bits", "type", "symmetric", "group_size", "strategy", "block_structure",
		"dynamic", "actorder", "scale_dtype", "zp_dtype", "observer", "observer_kwargs",
		NULL,
	};
	static const char *const types[] = { "int", "float", NULL };
	static const char *const strategies[] = { "tensor", "channel", "group", "block", "token",
						  "tensor_group", "attn_head", NULL };
	const struct json *v;
	const char *key, *type = text_of(a, "type"), *strategy = text_of(a, "strategy");

	for (void *it = NULL; (it = json_iter(a, it, &key, &v));)
		if (!among(key, keys))
			lint_say(l, group, "%s has a key '%s', which no loader knows: all of it is "
				 "refused", what, key);
	if (json_type_of(json_get(a, "num_bits")) != JSON_INT)
		lint_say(l, group, "%s has no num_bits", what);
	if (*type && !among(type, types))
		lint_say(l, group, "%s: type '%s' is neither int nor float", what, type);
	if (*strategy && !among(strategy, strategies))
		lint_say(l, group, "%s: strategy '%s' is not known", what, strategy);
	if (strcmp(strategy, "group") == 0 && json_int(json_get(a, "group_size"), 0) < 1)
		lint_say(l, group, "%s: strategy group without a group_size", what);
}

void lint_ct_keys(struct lint *l)
{
	static const char *const formats[] = {
		"pack-quantized", "int-quantized", "float-quantized", "naive-quantized", "dense",
		"mixed-precision", "nvfp4-pack-quantized", "mxfp4-pack-quantized",
		"mxfp8-quantized", "marlin-24", NULL,
	};
	static const char *const args[] = { "weights", "input_activations", "output_activations" };
	const struct json *groups = json_get(l->quant, "config_groups"), *g;
	const char *key, *format = text_of(l->quant, "format");

	if (!is_ct(l))
		return;
	if (*format && !among(format, formats))
		lint_say(l, "config.json", "format '%s' is not known", format);
	if (json_len(groups) == 0)
		lint_say(l, "config.json", "quantization_config has no config_groups");
	for (void *it = NULL; (it = json_iter(groups, it, &key, &g));) {
		format = text_of(g, "format");
		if (*format && !among(format, formats))
			lint_say(l, key, "format '%s' is not known", format);
		if (json_len(json_get(g, "targets")) == 0)
			lint_say(l, key, "has no targets");
		for (int i = 0; i < 3; i++)
			if (json_type_of(json_get(g, args[i])) == JSON_OBJECT)
				check_args(l, key, args[i], json_get(g, args[i]));
	}
}

/* Packed integers: which widths and strategies have kernels. */
static void check_packed(struct lint *l, const char *group, const struct json *w)
{
	const int64_t bits = json_int(json_get(w, "num_bits"), 0);
	const bool sym = json_bool(json_get(w, "symmetric"), true);
	const char *strategy = text_of(w, "strategy");

	if (l->rule->loaders == LINT_SGLANG) {
		if (bits != 4 && bits != 8)
			lint_say(l, group, "packed codes of %lld bits: only 4 and 8 are read",
				 (long long)bits);
		return;
	}
	if (bits < 2 || bits > 8 || (!sym && bits != 4 && bits != 8))
		lint_say(l, group, "packed codes of %lld bits, %s: symmetric ones of 2 to 8 and "
			 "asymmetric ones of 4 and 8 are read", (long long)bits,
			 sym ? "symmetric" : "asymmetric");
	if (*strategy && strcmp(strategy, "group") && strcmp(strategy, "channel"))
		lint_say(l, group, "packed codes by strategy %s: only group and channel are read",
			 strategy);
}

/* Activations in integers: a scale for each token found at run time, or one for all kept. */
static void check_acts(struct lint *l, const char *group, const struct json *a)
{
	const bool dynamic = json_bool(json_get(a, "dynamic"), false);
	const char *strategy = text_of(a, "strategy");
	const char *want = dynamic ? "token" : "tensor";

	if (json_type_of(a) != JSON_OBJECT || strcmp(text_of(a, "type"), "int"))
		return;
	if (*strategy && strcmp(strategy, want))
		lint_say(l, group, "%s input_activations by %s: only by %s is read",
			 dynamic ? "dynamic" : "static", strategy, want);
}

void lint_ct_scheme(struct lint *l)
{
	const struct json *groups = json_get(l->quant, "config_groups"), *g;
	const char *key;

	if (!is_ct(l))
		return;
	for (void *it = NULL; (it = json_iter(groups, it, &key, &g));) {
		const char *format = text_of(g, "format");
		const struct json *w = json_get(g, "weights");

		if (!*format)
			format = text_of(l->quant, "format");
		if (strcmp(format, "pack-quantized") == 0)
			check_packed(l, key, w);
		if (strcmp(format, "int-quantized") == 0 &&
		    !json_bool(json_get(w, "symmetric"), true))
			lint_say(l, key, "int-quantized weights that are asymmetric are not read");
		check_acts(l, key, json_get(g, "input_activations"));
	}
}

/* vLLM reads caches of floats with a scale that is kept, and nothing else. */
void lint_ct_cache(struct lint *l)
{
	const struct json *kv = json_get(l->quant, "kv_cache_scheme");
	const int64_t layers = json_int(json_get(l->config, "num_hidden_layers"), 0);
	const char *strategy = text_of(kv, "strategy");

	if (!is_ct(l) || json_type_of(kv) != JSON_OBJECT)
		return;
	if (json_int(json_get(kv, "num_bits"), 0) != 8 || strcmp(text_of(kv, "type"), "float") ||
	    !json_bool(json_get(kv, "symmetric"), true) ||
	    json_bool(json_get(kv, "dynamic"), false) ||
	    (strcmp(strategy, "tensor") && strcmp(strategy, "attn_head")))
		lint_say(l, "config.json", "kv_cache_scheme: only 8-bit floats, symmetric, static, "
			 "by tensor or attn_head are read");
	for (int64_t i = 0; i < layers && i < 10000; i++)
		for (int k = 0; k < 2; k++) {
			char name[128];

			snprintf(name, sizeof(name), "model.layers.%lld.self_attn.%c_scale",
				 (long long)i, k ? 'v' : 'k');
			if (!lint_tensor(l, name))
				lint_say(l, name, "is missing: kv_cache_scheme takes it for 1");
		}
}

/* ---- modules ------------------------------------------------------------------------------- */

static void want_type(struct lint *l, const struct lint_module *m, enum lint_part p,
		      const char *what, const char *type)
{
	if (m->part[p] && strcmp(lint_dtype(m->part[p]), type))
		lint_say(l, m->name, "%s of type %s, not %s", what, lint_dtype(m->part[p]), type);
}

/* Words of n codes: a stream of bits, or (before May 2026) as many as fit each. */
static bool words_of(int64_t words, int64_t n, int64_t bits)
{
	return words == (n * bits + 31) / 32 || words == (n + 32 / bits - 1) / (32 / bits);
}

static void packed(struct lint *l, const struct lint_module *m, const struct json *w)
{
	const int64_t bits = json_int(json_get(w, "num_bits"), 0);
	const int64_t group = json_int(json_get(w, "group_size"), 0);
	const int64_t rows = lint_dim(m->part[LINT_PACKED], 0);
	const int64_t groups = lint_dim(m->part[LINT_SCALE], 1);
	const struct json *z = m->part[LINT_ZERO];

	want_type(l, m, LINT_PACKED, "weight_packed", "I32");
	if (bits < 1 || bits > 8)
		return;
	if (strcmp(text_of(w, "strategy"), "group") == 0 && group > 0 &&
	    !words_of(lint_dim(m->part[LINT_PACKED], 1), groups * group, bits))
		lint_say(l, m->name, "weight_packed has %lld words a row, %lld groups of %lld "
			 "codes of %lld bits are others",
			 (long long)lint_dim(m->part[LINT_PACKED], 1), (long long)groups,
			 (long long)group, (long long)bits);
	if (lint_dim(m->part[LINT_SCALE], 0) != rows && m->part[LINT_SCALE] &&
	    strcmp(text_of(w, "strategy"), "tensor"))
		lint_say(l, m->name, "weight_scale has %lld rows, not %lld",
			 (long long)lint_dim(m->part[LINT_SCALE], 0), (long long)rows);
	if (strcmp(text_of(w, "actorder"), "group") == 0 && !m->part[LINT_CT_G_IDX])
		lint_say(l, m->name, "has no weight_g_idx, which actorder group needs");
	if (json_bool(json_get(w, "symmetric"), true) ||
	    strcmp(text_of(w, "strategy"), "tensor") == 0)
		return;
	if (!z)
		lint_say(l, m->name, "has no weight_zero_point, and is asymmetric");
	else if (!words_of(lint_dim(z, 0), rows, bits) || lint_dim(z, 1) != groups ||
		 strcmp(lint_dtype(z), "I32"))
		lint_say(l, m->name, "weight_zero_point is not I32 [%lld, %lld]: zeros are packed "
			 "down the rows", (long long)((rows * bits + 31) / 32), (long long)groups);
}

static void unpacked(struct lint *l, const struct lint_module *m, const struct json *w)
{
	const char *strategy = text_of(w, "strategy");
	const struct json *block = json_get(w, "block_structure"), *s = m->part[LINT_SCALE];
	const int64_t rows = lint_dim(m->part[LINT_WEIGHT], 0);
	const int64_t cols = lint_dim(m->part[LINT_WEIGHT], 1);
	const int64_t tall = json_int(json_at(block, 0), 0), wide = json_int(json_at(block, 1), 0);

	want_type(l, m, LINT_WEIGHT, "weight",
		  strcmp(text_of(w, "type"), "float") ? "I8" : "F8_E4M3");
	if (strcmp(strategy, "channel") == 0 && (lint_dim(s, 0) != rows || lint_dim(s, 1) != 1))
		lint_say(l, m->name, "weight_scale is not [%lld, 1]", (long long)rows);
	if (strcmp(strategy, "block") == 0 && tall > 0 && wide > 0 &&
	    (lint_dim(s, 0) != (rows + tall - 1) / tall ||
	     lint_dim(s, 1) != (cols + wide - 1) / wide))
		lint_say(l, m->name, "weight_scale is not [%lld, %lld], a scale a block",
			 (long long)((rows + tall - 1) / tall),
			 (long long)((cols + wide - 1) / wide));
}

void lint_ct_blocks(struct lint *l, const struct lint_module *m, bool by_cols, long tp)
{
	const struct json *w = is_ct(l) ? json_get(group_of(l, m->name), "weights") : NULL;
	const int64_t side = json_int(json_at(json_get(w, "block_structure"), by_cols ? 1 : 0), 0);
	const int64_t n = lint_dim(m->part[LINT_WEIGHT], by_cols ? 1 : 0);

	if (lint_quantized(m) && side > 0 && n > 0 && (n % tp || n / tp % side))
		lint_say(l, m->name, "%lld %s on %ld ranks are no whole blocks of %lld",
			 (long long)n, by_cols ? "columns" : "rows", tp, (long long)side);
}

void lint_ct_parts(struct lint *l)
{
	for (size_t i = 0; is_ct(l) && i < l->n_m; i++) {
		const struct lint_module *m = &l->m[i];
		const struct json *g = group_of(l, m->name), *w = json_get(g, "weights");
		const struct json *a = json_get(g, "input_activations");

		if (!g || !lint_quantized(m))
			continue;
		if (m->part[LINT_PACKED])
			packed(l, m, w);
		else if (m->part[LINT_WEIGHT])
			unpacked(l, m, w);
		if (json_type_of(a) != JSON_OBJECT || json_bool(json_get(a, "dynamic"), false) ||
		    json_type_of(json_get(a, "dynamic")) == JSON_STR)
			continue;
		if (!m->part[LINT_INPUT_SCALE])
			lint_say(l, m->name, "has no input_scale, and its activations are static");
		if (!json_bool(json_get(a, "symmetric"), true) && !m->part[LINT_INPUT_ZERO])
			lint_say(l, m->name, "has no input_zero_point, and its activations are "
				 "static and asymmetric");
	}
}

/* A linear is in codes if, and only if, a group targets it and ignore does not name it: loaders
 * make what the configuration says, and do not miss tensors. */
void lint_ct_cover(struct lint *l)
{
	for (size_t i = 0; is_ct(l) && i < l->n_m; i++) {
		const struct lint_module *m = &l->m[i];
		const bool meant = group_of(l, m->name) && !ignored(l, m->name);

		if (lint_quantized(m) && !meant)
			lint_say(l, m->name, "is in codes, but %s", ignored(l, m->name) ?
				 "ignore names it" : "no config group targets it");
		/* Of matrices what is no linear: embeddings. */
		if (!lint_quantized(m) && meant && !strstr(m->name, "embed") &&
		    !is_transform(l, m->name) &&
		    json_len(json_get(m->part[LINT_WEIGHT], "shape")) == 2)
			lint_say(l, m->name, "is a weight, but a config group targets it, and "
				 "ignore does not name it");
	}
}
