/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lint_rules.c - what loaders want of a directory, as their sources of the dates given have it
 */
#include <stdio.h>
#include <string.h>

#include "formats/lint_impl.h"

static bool is(const struct lint *l, const char *method)
{
	return strcmp(l->method, method) == 0;
}

static bool ends_in(const char *s, const char *end)
{
	const size_t n = strlen(s), k = strlen(end);

	return n >= k && strcmp(s + n - k, end) == 0;
}

/* ---- files -------------------------------------------------------------------------------- */

static void has_config(struct lint *l)
{
	if (!l->config)
		lint_say(l, "config.json", "is missing or cannot be read");
	else if (!json_str(json_get(l->config, "model_type"), NULL))
		lint_say(l, "config.json", "has no model_type");
	if (l->n_heads == 0)
		lint_say(l, l->dir, "has no safetensors files");
}

static bool has_file(const struct lint *l, const char *name)
{
	for (size_t i = 0; i < l->n_heads; i++)
		if (strcmp(l->files[i], name) == 0)
			return true;
	return false;
}

/* By those who read what the index names, or model.safetensors alone. */
static bool is_read(const struct lint *l, const char *file)
{
	const struct json *map = json_get(l->index, "weight_map"), *v;
	const char *name;

	if (!l->index)
		return strcmp(file, "model.safetensors") == 0 ||
		       !has_file(l, "model.safetensors");
	for (void *it = NULL; (it = json_iter(map, it, &name, &v));)
		if (json_str(v, NULL) && strcmp(json_str(v, NULL), file) == 0)
			return true;
	return false;
}

static void format_pt(struct lint *l)
{
	for (size_t i = 0; i < l->n_heads; i++) {
		if (!is_read(l, l->files[i]))
			continue;

		const struct json *m = json_get(json_root(l->heads[i]), "__metadata__");
		const char *s = json_str(json_get(m, "format"), NULL);

		if (!s || strcmp(s, "pt"))
			lint_say(l, l->files[i], "its __metadata__ does not say format pt");
	}
}

static void index_whole(struct lint *l)
{
	const struct json *map = json_get(l->index, "weight_map"), *v;
	const char *name;

	if (!l->index) {
		if (l->n_heads > 1 && !has_file(l, "model.safetensors"))
			lint_say(l, "model.safetensors.index.json", "is missing, but there are "
				 "%zu files", l->n_heads);
		return;
	}
	for (size_t i = 0; i < l->n_t; i++) {
		const char *file = json_str(json_get(map, l->t[i].name), NULL);

		if (!is_read(l, l->t[i].file))
			continue;
		if (!file)
			lint_say(l, l->t[i].name, "is in %s, but not in the index", l->t[i].file);
		else if (strcmp(file, l->t[i].file))
			lint_say(l, l->t[i].name, "is in %s, the index says %s", l->t[i].file,
				 file);
	}
	for (void *it = NULL; (it = json_iter(map, it, &name, &v));) {
		bool there = false;

		for (size_t i = 0; i < l->n_t && !there; i++)
			there = strcmp(l->t[i].name, name) == 0;
		if (!there)
			lint_say(l, name, "is in the index, but in no file");
	}
}

/* Without an index every file of the directory is read. */
static void stray(struct lint *l)
{
	for (size_t i = 0; !l->index && i < l->n_heads; i++)
		if (!is_read(l, l->files[i]))
			lint_say(l, l->files[i], "is read too, beside model.safetensors: no index "
				 "says otherwise");
}

static void tied_head(struct lint *l)
{
	const bool tied = json_bool(json_get(l->config, "tie_word_embeddings"), false);

	if (!tied && lint_module(l, "model.embed_tokens") && !lint_module(l, "lm_head"))
		lint_say(l, "lm_head", "is missing, and config.json does not say "
			 "tie_word_embeddings");
}

/* Each layer that config.json counts has tensors; of other families' names nothing is known. */
static void all_layers(struct lint *l)
{
	const int64_t n = json_int(json_get(l->config, "num_hidden_layers"), 0);
	bool any = false;

	for (size_t i = 0; i < l->n_t && !any; i++)
		any = strstr(l->t[i].name, ".layers.") != NULL;
	for (int64_t k = 0; any && k < n && k < 10000; k++) {
		char part[64];
		bool there = false;

		snprintf(part, sizeof(part), ".layers.%lld.", (long long)k);
		for (size_t i = 0; i < l->n_t && !there; i++)
			there = strstr(l->t[i].name, part) != NULL;
		if (!there)
			lint_say(l, part + 1, "has no tensors; config.json says %lld layers",
				 (long long)n);
	}
}

static void embedding(struct lint *l)
{
	const struct json *width = json_get(l->config, "word_embed_proj_dim");
	const int64_t vocab = json_int(json_get(l->config, "vocab_size"), 0);
	const int64_t hidden = json_int(width ? width : json_get(l->config, "hidden_size"), 0);

	for (size_t i = 0; l->config && i < l->n_t; i++) {
		const struct lint_tensor *t = &l->t[i];

		if (ends_in(t->name, "embed_tokens.weight") &&
		    (lint_dim(t->info, 0) != vocab || lint_dim(t->info, 1) != hidden))
			lint_say(l, t->name, "is %lld x %lld, config.json says %lld x %lld",
				 (long long)lint_dim(t->info, 0), (long long)lint_dim(t->info, 1),
				 (long long)vocab, (long long)hidden);
	}
}

/* ---- parts --------------------------------------------------------------------------------- */

static void need(struct lint *l, const struct lint_module *m, enum lint_part p, const char *name)
{
	if (!m->part[p])
		lint_say(l, m->name, "has no %s", name);
}

static void parts(struct lint *l)
{
	for (size_t i = 0; i < l->n_m; i++) {
		const struct lint_module *m = &l->m[i];

		if (!lint_quantized(m) && !m->part[LINT_QZEROS] && !m->part[LINT_SCALES])
			continue;
		if (m->part[LINT_PACKED]) {
			need(l, m, LINT_SCALE, "weight_scale");
			need(l, m, LINT_SHAPE, "weight_shape");
		} else if (!m->part[LINT_SCALE]) {
			need(l, m, LINT_QWEIGHT, "qweight");
			need(l, m, LINT_QZEROS, "qzeros");
			need(l, m, LINT_SCALES, "scales");
		}
		if (m->part[LINT_QWEIGHT] && m->part[LINT_WEIGHT])
			lint_say(l, m->name, "has a weight beside its codes");
	}
}

static void g_idx(struct lint *l)
{
	for (size_t i = 0; is(l, "gptq") && i < l->n_m; i++)
		if (l->m[i].part[LINT_QWEIGHT])
			need(l, &l->m[i], LINT_G_IDX, "g_idx");
}

static void has_method(struct lint *l)
{
	bool any = false;

	for (size_t i = 0; i < l->n_m; i++)
		any = any || lint_quantized(&l->m[i]);
	if (any && !*l->method)
		lint_say(l, "config.json", "has no quantization_config, but linears are in codes");
}

static void scale_type(struct lint *l)
{
	for (size_t i = 0; i < l->n_m; i++) {
		const char *t = lint_dtype(l->m[i].part[LINT_SCALES]);

		if (*t && strcmp(t, "F16") && strcmp(t, "BF16"))
			lint_say(l, l->m[i].name, "scales of type %s; F16 is read", t);
	}
}

/* ---- formats -------------------------------------------------------------------------------- */

static void v2_zeros(struct lint *l)
{
	const char *s = json_str(json_get(l->quant, "checkpoint_format"), NULL);

	if (!s)
		s = json_str(json_get(l->quant, "format"), NULL);
	if (is(l, "gptq") && s && strcmp(s, "gptq_v2") == 0)
		lint_say(l, "config.json", "checkpoint_format gptq_v2 is read as v1: every zero is "
			 "off by one; to-gptq without --v2");
}

static void vllm_gptq(struct lint *l)
{
	static const char *const keys[] = { "bits", "group_size", "desc_act", "sym" };
	const int64_t bits = json_int(json_get(l->quant, "bits"), 0);
	const int64_t group = json_int(json_get(l->quant, "group_size"), 0);

	if (!is(l, "gptq"))
		return;
	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
		if (!json_get(l->quant, keys[i]))
			lint_say(l, "config.json", "quantization_config has no %s", keys[i]);
	if (bits != 4 && bits != 8)
		lint_say(l, "config.json", "GPTQ of %lld bits: only 4 and 8 are read",
			 (long long)bits);
	if (!json_bool(json_get(l->quant, "sym"), true))
		lint_say(l, "config.json", "asymmetric GPTQ is not read: to-awq holds codes of 4 "
			 "bits as they are");
	if (group != -1 && group != 32 && group != 64 && group != 128)
		lint_say(l, "config.json", "group_size %lld: only -1, 32, 64 and 128 are read",
			 (long long)group);
}

static void vllm_awq(struct lint *l)
{
	const char *version = json_str(json_get(l->quant, "version"), NULL);

	if (is(l, "awq") && !json_get(l->quant, "zero_point"))
		lint_say(l, "config.json", "quantization_config has no zero_point");
	if (is(l, "awq") && version && strcmp(version, "gemm"))
		lint_say(l, "config.json", "AWQ of version %s is not read, only gemm", version);
	if (is(l, "awq") && json_int(json_get(l->quant, "bits"), 4) != 4)
		lint_say(l, "config.json", "AWQ of other than 4 bits is not read");
}

/* Linears in words go by the table of packed tensors: groups of columns, in their order. */
static void converter_packed(struct lint *l)
{
	const struct json *groups = json_get(l->quant, "config_groups"), *g, *w;
	const char *key, *strategy;

	for (void *it = NULL; (it = json_iter(groups, it, &key, &g));) {
		w = json_get(g, "weights");
		strategy = json_str(json_get(w, "strategy"), NULL);
		if (!json_str(json_get(g, "format"), NULL) ||
		    strcmp(json_str(json_get(g, "format"), NULL), "pack-quantized"))
			continue;
		if (strategy && strcmp(strategy, "group"))
			lint_say(l, key, "packed codes by %s are not converted, only groups: "
				 "to-gguf makes the file", strategy);
	}
	for (size_t i = 0; i < l->n_m; i++)
		if (l->m[i].part[LINT_CT_G_IDX])
			lint_say(l, l->m[i].name, "weight_g_idx is not obeyed");
}

static void converter(struct lint *l)
{
	if (is(l, "awq"))
		lint_say(l, "config.json", "AWQ is not converted: to-gguf makes the file");
	if (is(l, "gptq") && json_int(json_get(l->quant, "bits"), 0) == 3)
		lint_say(l, "config.json", "GPTQ of 3 bits is not converted: to-gguf makes the "
			 "file");
	if (is(l, "compressed-tensors") && json_len(json_get(l->quant, "config_groups")) > 1)
		lint_say(l, "config.json", "several config_groups are not converted: "
			 "to-gguf makes the file");
	if (is(l, "compressed-tensors"))
		converter_packed(l);
}

static void transforms(struct lint *l)
{
	const bool any = json_len(json_get(json_get(l->quant, "transform_config"),
					   "config_groups")) > 0;

	if (any && l->rule->loaders == LINT_SGLANG)
		lint_say(l, "config.json", "transform_config is not obeyed");
	else if (any && l->o->tp > 1 && l->rule->loaders == LINT_VLLM)
		lint_say(l, "config.json", "transform_config works on one rank only, not %ld",
			 l->o->tp);
	if (l->rule->loaders == LINT_VLLM)
		lint_ct_places(l);
}

/* Widths that the packing of compressed-tensors changed for. */
static void ct_bits(struct lint *l)
{
	const struct json *groups = json_get(l->quant, "config_groups"), *g;
	const char *key;

	if (!is(l, "compressed-tensors"))
		return;
	for (void *it = NULL; (it = json_iter(groups, it, &key, &g));) {
		const int64_t b = json_int(json_get(json_get(g, "weights"), "num_bits"), 4);

		if (b == 3 || b == 5 || b == 6 || b == 7)
			lint_say(l, key, "codes of %lld bits are packed otherwise since May 2026: "
				 "old and new loaders disagree", (long long)b);
	}
}

/* ---- modules together ----------------------------------------------------------------------- */

/* Of two linears in codes: other columns, bits or groups, or what else config_groups say. */
static bool other_scheme(const struct lint *l, const struct lint_module *m,
			 const struct lint_module *x)
{
	int64_t a[4], b[4];

	lint_sizes(l, m, &a[0], &a[1], &a[2], &a[3]);
	lint_sizes(l, x, &b[0], &b[1], &b[2], &b[3]);
	return a[1] != b[1] || a[2] != b[2] || a[3] != b[3] || !lint_ct_same(l, m->name, x->name);
}

/* q, k, v and gate, up become one linear: they share codes or weights, and a scheme. */
static void fused_pair(struct lint *l, const struct lint_module *m, const char *from,
		       const char *to)
{
	const size_t n = strlen(m->name) - strlen(from);
	char name[300];
	const struct lint_module *x;

	snprintf(name, sizeof(name), "%.*s%s", (int)n, m->name, to);
	x = lint_module(l, name);
	if (!x)
		return;
	if (lint_quantized(x) != lint_quantized(m)) {
		lint_say(l, m->name, "is %s, %s is %s, but both are one linear there",
			 lint_quantized(m) ? "in codes" : "a weight", to,
			 lint_quantized(x) ? "in codes" : "a weight");
		return;
	}
	if (other_scheme(l, m, x))
		lint_say(l, m->name, "has another scheme than %s, but both are one linear there",
			 to);
}

static void fused(struct lint *l)
{
	for (size_t i = 0; i < l->n_m; i++) {
		if (ends_in(l->m[i].name, ".q_proj")) {
			fused_pair(l, &l->m[i], "q_proj", "k_proj");
			fused_pair(l, &l->m[i], "q_proj", "v_proj");
		} else if (ends_in(l->m[i].name, ".gate_proj")) {
			fused_pair(l, &l->m[i], "gate_proj", "up_proj");
		}
	}
}

/* All experts of a layer share one scheme. */
static void experts(struct lint *l)
{
	for (size_t i = 0; i < l->n_m; i++) {
		const char *at = strstr(l->m[i].name, ".experts.");
		const char *end = at ? strchr(at + strlen(".experts."), '.') : NULL;
		char name[300];
		const struct lint_module *first;

		if (!end)
			continue;
		snprintf(name, sizeof(name), "%.*s.experts.0%s", (int)(at - l->m[i].name),
			 l->m[i].name, end);
		first = lint_module(l, name);
		if (first && lint_quantized(first) != lint_quantized(&l->m[i]))
			lint_say(l, l->m[i].name, "is %s, expert 0 is not: experts of a layer are "
				 "one tensor there",
				 lint_quantized(&l->m[i]) ? "in codes" : "a weight");
		else if (first && lint_quantized(first) && other_scheme(l, &l->m[i], first))
			lint_say(l, l->m[i].name, "has another scheme than expert 0: experts of a "
				 "layer are one tensor there");
	}
}

static void routers(struct lint *l)
{
	for (size_t i = 0; i < l->n_m; i++)
		if (lint_quantized(&l->m[i]) && (ends_in(l->m[i].name, ".mlp.gate") ||
						 ends_in(l->m[i].name, ".shared_expert_gate")))
			lint_say(l, l->m[i].name, "is in codes; routers are always weights there");
}

static void tensor_parallel(struct lint *l)
{
	const long tp = l->o->tp;
	const int64_t heads = json_int(json_get(l->config, "num_attention_heads"), tp);

	const int64_t kv = json_int(json_get(l->config, "num_key_value_heads"), heads);

	if (tp > 1 && heads % tp)
		lint_say(l, "config.json", "%lld heads are not shared out over %ld ranks",
			 (long long)heads, tp);
	if (tp > 1 && kv > 0 && kv % tp && tp % kv)
		lint_say(l, "config.json", "%lld heads of keys and values are neither shared out "
			 "over %ld ranks nor repeated on them", (long long)kv, tp);
	for (size_t i = 0; tp > 1 && i < l->n_m; i++) {
		const struct lint_module *m = &l->m[i];
		const bool by_cols = ends_in(m->name, ".o_proj") || ends_in(m->name, ".down_proj");
		int64_t n, k, g, b;

		if (m->part[LINT_PACKED] && by_cols && lint_dim(m->part[LINT_SCALE], 1) > 1 &&
		    lint_dim(m->part[LINT_SCALE], 1) % tp)
			lint_say(l, m->name, "%lld groups are not shared out over %ld ranks",
				 (long long)lint_dim(m->part[LINT_SCALE], 1), tp);
		lint_ct_blocks(l, m, by_cols, tp);
		if (!m->part[LINT_QWEIGHT])
			continue;
		lint_sizes(l, m, &n, &k, &g, &b);
		if (by_cols && g && g < k && (k % tp || k / tp % g))
			lint_say(l, m->name, "%lld columns on %ld ranks are no whole groups of "
				 "%lld", (long long)k, tp, (long long)g);
		if (!by_cols && n % (tp * 8))
			lint_say(l, m->name, "%lld rows on %ld ranks do not fill words",
				 (long long)n, tp);
	}
}

/* ---- lists of what is not quantized ---------------------------------------------------- */

static bool hits(const struct lint *l, const char *word)
{
	/* Expressions are not tried: a list of names is what goes stale. */
	if (strncmp(word, "re:", 3) == 0)
		return true;
	for (size_t i = 0; i < l->n_m; i++)
		if (strstr(l->m[i].name, word))
			return true;
	return strcmp(word, "lm_head") == 0; /* named by custom, even where it is tied */
}

static void ignored(struct lint *l)
{
	static const char *const keys[] = { "ignore", "modules_to_not_convert" };

	for (size_t k = 0; k < sizeof(keys) / sizeof(keys[0]); k++) {
		const struct json *list = json_get(l->quant, keys[k]);

		for (size_t i = 0; i < json_len(list); i++) {
			const char *word = json_str(json_at(list, i), NULL);

			if (word && !hits(l, word))
				lint_say(l, "config.json", "%s: '%s' matches no module", keys[k],
					 word);
		}
	}
}

#define AUG "2026-08"

const struct lint_rule lint_rules[] = {
	{ "config", LINT_ALL, AUG, "transformers AutoConfig", "config.json and weights are there",
	  has_config, false },
	{ "format-pt", LINT_TRANSFORMERS, AUG, "transformers modeling_utils.load_state_dict",
	  "each safetensors file says format pt", format_pt, false },
	{ "index", LINT_ALL, AUG, "vLLM weight_utils.filter_duplicate_safetensors_files",
	  "the index names every tensor of every file, and nothing else", index_whole, false },
	{ "stray", LINT_VLLM | LINT_SGLANG, AUG, "vLLM default_loader: glob of *.safetensors",
	  "no files of weights beside model.safetensors", stray, false },
	{ "layers", LINT_ALL, AUG, "transformers load_state_dict: missing keys are made at random",
	  "every layer has tensors", all_layers, false },
	{ "embedding", LINT_ALL, AUG, "transformers load_state_dict: size mismatch",
	  "the embedding has the size of config.json", embedding, false },
	{ "names", LINT_ALL, AUG,
	  "vLLM compressed_tensors, gptq.py: a name that is absent is not told",
	  "every tensor of the model is there", lint_names, false },
	{ "architecture", LINT_ALL, AUG,
	  "vLLM models/registry.py, SGLang models, convert_hf_to_gguf.py",
	  "the loader has the model's class", lint_architecture, false },
	{ "tied", LINT_ALL, AUG, "transformers tie_weights", "a head is there or tied",
	  tied_head, false },
	{ "method", LINT_VLLM | LINT_SGLANG | LINT_TRANSFORMERS, AUG,
	  "transformers quantizers/auto.py", "codes have a quantization_config",
	  has_method, false },
	{ "parts", LINT_ALL, AUG, "vLLM gptq.py, awq.py: missing tensors are not told",
	  "a linear in codes has all of its tensors", parts, false },
	{ "g-idx", LINT_VLLM | LINT_LLAMA_CPP, AUG, "vLLM gptq.py, convert_hf_to_gguf.py",
	  "GPTQ has a g_idx for each linear", g_idx, false },
	{ "scale-dtype", LINT_VLLM | LINT_SGLANG | LINT_LLAMA_CPP, AUG, "vLLM gptq_marlin",
	  "scales of GPTQ and AWQ are F16 or BF16", scale_type, false },
	{ "shapes", LINT_ALL, AUG, "vLLM gptq.py create_weights, AutoAWQ WQLinear_GEMM",
	  "scales, zeros and g_idx of GPTQ and AWQ have the shapes that group_size makes",
	  lint_shapes, false },
	{ "gptq-zero", LINT_VLLM | LINT_SGLANG | LINT_LLAMA_CPP, AUG,
	  "GPTQModel convert_gptq_v2_to_v1, vLLM exllama q_gemm.cu",
	  "no zero of GPTQ v1 has wrapped", lint_gptq_zero, false },
	{ "act-order", LINT_VLLM, AUG, "vLLM marlin_utils check_marlin_supports_shape",
	  "GPTQ with desc_act has rows of 64s and columns of 128s", lint_act_order, false },
	{ "gptq-f16", LINT_SGLANG, AUG, "SGLang gptq.py: exllama kernels are torch.half",
	  "GPTQ that is not symmetric of 4 or 8 bits is in a float16 model", lint_gptq_f16, false },
	{ "damp", LINT_TRANSFORMERS, AUG, "transformers GPTQConfig.post_init",
	  "damp_percent is between 0 and 1", lint_damp, false },
	{ "gptq-v2", LINT_SGLANG, AUG, "SGLang gptq kernels", "GPTQ is v1", v2_zeros, false },
	{ "gptq", LINT_VLLM, AUG, "vLLM auto_gptq", "GPTQ is symmetric, 4 or 8 bits, usual groups",
	  vllm_gptq, false },
	{ "awq", LINT_VLLM, AUG, "vLLM awq.py", "AWQ has 4 bits and zero_point", vllm_awq, false },
	{ "convert", LINT_LLAMA_CPP, AUG, "convert_hf_to_gguf.py dequant_model",
	  "the format is one that the converter dequantizes", converter, false },
	{ "transform", LINT_VLLM, AUG, "vLLM compressed_tensors/transform",
	  "rotations at run time want one rank, and are of inputs and outputs", transforms, false },
	{ "transform", LINT_SGLANG, AUG, "SGLang compressed_tensors",
	  "no rotations at run time", transforms, false },
	{ "ct-bits", LINT_ALL, "2026-05", "compressed-tensors #715",
	  "no widths whose packing has changed", ct_bits, false },
	{ "ct-keys", LINT_VLLM | LINT_SGLANG | LINT_TRANSFORMERS, AUG,
	  "compressed-tensors quant_args.py: extra=forbid", "schemes are made of known words",
	  lint_ct_keys, false },
	{ "ct-scheme", LINT_VLLM, AUG, "vLLM compressed_tensors.py _get_scheme_from_parts",
	  "widths, strategies and activations have kernels", lint_ct_scheme, false },
	{ "ct-scheme", LINT_SGLANG, AUG, "SGLang compressed_tensors_wNa16.py",
	  "packed codes have 4 or 8 bits", lint_ct_scheme, false },
	{ "ct-cache", LINT_VLLM, AUG, "vLLM compressed_tensors.py CompressedTensorsKVCacheMethod",
	  "kv_cache_scheme is static FP8, and its scales are there", lint_ct_cache, false },
	{ "ct-parts", LINT_VLLM | LINT_SGLANG | LINT_TRANSFORMERS, AUG,
	  "compressed-tensors compressors: pack_quantized, naive_quantized",
	  "tensors of compressed-tensors have the types and shapes of their scheme",
	  lint_ct_parts, false },
	{ "ct-cover", LINT_VLLM | LINT_SGLANG | LINT_TRANSFORMERS, AUG,
	  "vLLM should_ignore_layer, compressed-tensors apply_quantization_config",
	  "linears are in codes where targets and ignore say so, and nowhere else",
	  lint_ct_cover, false },
	{ "fused", LINT_VLLM | LINT_SGLANG, AUG, "vLLM QKVParallelLinear, MergedColumnParallel...",
	  "q, k, v and gate, up have one scheme", fused, false },
	{ "experts", LINT_VLLM | LINT_SGLANG, AUG, "vLLM FusedMoE",
	  "experts of a layer have one scheme", experts, false },
	{ "routers", LINT_VLLM | LINT_SGLANG, AUG, "vLLM qwen2_moe.py: quant_config=None",
	  "routers are weights", routers, false },
	{ "tp", LINT_VLLM | LINT_SGLANG, AUG, "vLLM RowParallelLinear, ColumnParallelLinear",
	  "heads, groups and words are whole on each rank", tensor_parallel, false },
	{ "ignore", LINT_ALL, AUG, "vLLM should_ignore_layer",
	  "names that are not to be quantized exist", ignored, false },
	{ "gguf", LINT_LLAMA_CPP, AUG, "llama.cpp ggml/src/gguf.cpp gguf_init_from_file_impl",
	  "header, keys, offsets, names and shapes are as they must be", lint_gguf_layout, true },
	{ "gguf-version", LINT_LLAMA_CPP, AUG, "llama.cpp src/llama-model-loader.cpp",
	  "blocks are of quantization version 2", lint_gguf_version, true },
	{ "gguf-vocab", LINT_LLAMA_CPP, AUG, "llama.cpp src/llama-vocab.cpp",
	  "the vocabulary is as long as the embedding", lint_gguf_vocab, true },
	{ "gguf-f32", LINT_LLAMA_CPP, AUG, "convert_hf_to_gguf.py prepare_tensors",
	  "vectors and routers are F32", lint_gguf_f32, true },
	{ NULL, 0, NULL, NULL, NULL, NULL, false },
};
