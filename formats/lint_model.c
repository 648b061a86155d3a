/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lint_model.c - rules about the model itself: its architecture, and whether all of it is there
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/file.h"
#include "formats/hf.h"
#include "formats/lint_impl.h"
#include "lib/model/family.h"

/* Classes that a loader has; of those that are not here none is known to be without. */
static const struct {
	const char *name;
	unsigned loaders;
} classes[] = {
	{ "LlamaForCausalLM", LINT_ALL }, { "MistralForCausalLM", LINT_ALL },
	{ "MixtralForCausalLM", LINT_ALL }, { "Qwen2ForCausalLM", LINT_ALL },
	{ "Qwen2MoeForCausalLM", LINT_ALL }, { "Qwen3ForCausalLM", LINT_ALL },
	{ "Qwen3MoeForCausalLM", LINT_ALL }, { "GemmaForCausalLM", LINT_ALL },
	{ "Gemma2ForCausalLM", LINT_ALL }, { "Gemma3ForCausalLM", LINT_ALL },
	{ "PhiForCausalLM", LINT_ALL }, { "Phi3ForCausalLM", LINT_ALL },
	{ "GPT2LMHeadModel", LINT_ALL }, { "GPTNeoXForCausalLM", LINT_ALL },
	{ "FalconForCausalLM", LINT_ALL }, { "StableLmForCausalLM", LINT_ALL },
	{ "Starcoder2ForCausalLM", LINT_ALL }, { "OlmoForCausalLM", LINT_ALL },
	{ "Olmo2ForCausalLM", LINT_ALL }, { "CohereForCausalLM", LINT_ALL },
	{ "GraniteForCausalLM", LINT_ALL }, { "DeepseekV2ForCausalLM", LINT_ALL },
	{ "DeepseekV3ForCausalLM", LINT_ALL }, { "BloomForCausalLM", LINT_ALL & ~LINT_SGLANG },
	{ "OPTForCausalLM", LINT_ALL & ~LINT_LLAMA_CPP },
	{ "ViTForImageClassification", LINT_TRANSFORMERS },
};
enum { N_CLASSES = sizeof(classes) / sizeof(classes[0]) };

void lint_architecture(struct lint *l)
{
	const struct json *list = json_get(l->config, "architectures");
	const char *name = json_str(json_at(list, 0), NULL);
	int i = 0;

	if (!l->config)
		return;
	if (!name) {
		lint_say(l, "config.json", "has no architectures: the class is not known");
		return;
	}
	while (i < N_CLASSES && strcmp(classes[i].name, name))
		i++;
	if (i == N_CLASSES) {
		lint_say(l, "config.json", "architecture %s is not in the table of known ones",
			 name);
	} else if (l->o->loaders & ~classes[i].loaders) {
		l->only = LINT_ALL & ~classes[i].loaders;
		lint_say(l, "config.json", "architecture %s is not read", name);
		l->only = 0;
	}
}

/* The model that config.json makes; false: of a family that is not known here. */
static bool model_of(const struct lint *l, struct model *m)
{
	struct model_config c;
	char path[4096], *text;
	struct err ignored;
	size_t n;
	bool ok;

	snprintf(path, sizeof(path), "%s/config.json", l->dir);
	if (file_read(path, path, FILE_MAX_WHOLE, &text, &n, &ignored))
		return false;
	ok = hf_config_parse(&c, text, n, &ignored) == 0 && model_init(m, &c, &ignored) == 0;
	free(text);
	return ok;
}

/* A linear in codes has no weight of its own. */
static bool there(const struct lint *l, const char *name)
{
	const size_t n = strlen(name), k = strlen(".weight");
	const struct lint_module *m = NULL;
	char module[256];

	if (lint_tensor(l, name))
		return true;
	if (n > k && n < sizeof(module) && strcmp(name + n - k, ".weight") == 0) {
		memcpy(module, name, n - k);
		module[n - k] = '\0';
		m = lint_module(l, module);
	}
	return m && lint_quantized(m);
}

/* Every tensor that the family's table has.  Nothing is said of a model that has none of them: its
 * names are others'. */
void lint_names(struct lint *l)
{
	struct model m;
	char name[256];
	enum slot s;
	long layer;
	bool any = false;

	if (!l->config || !model_of(l, &m))
		return;
	for (size_t i = 0; !any && model_nth(&m, i, &s, &layer); i++) {
		model_tensor_name(&m, s, layer, name);
		any = there(l, name);
	}
	for (size_t i = 0; any && model_nth(&m, i, &s, &layer); i++) {
		model_tensor_name(&m, s, layer, name);
		/* A tied matrix may have either name. */
		if (!there(l, name) && !(m.cfg.tied && (s == SLOT_HEAD || s == SLOT_EMBED) &&
					 (lint_module(l, "lm_head") || s == SLOT_HEAD)))
			lint_say(l, name, "is missing");
	}
}
