/* SPDX-License-Identifier: Apache-2.0 */
/*
 * family_qwen3.c - Qwen 3: Llama with a norm on every head of q and k
 *
 * Follows transformers' Qwen3Config and Qwen3ForCausalLM; attention_bias stands for the biases of
 * q, k, v and o.
 */
#include "lib/model/families.h"

#define F(name) offsetof(struct model_config, name)

static const struct config_row config[] = {
	{ "hidden_size", CONFIG_COUNT, F(hidden), CONFIG_NEEDED, NULL },
	{ "num_hidden_layers", CONFIG_COUNT, F(layers), CONFIG_NEEDED, NULL },
	{ "num_attention_heads", CONFIG_COUNT, F(heads), CONFIG_NEEDED, NULL },
	{ "num_key_value_heads", CONFIG_COUNT, F(kv_heads), 32, NULL },
	{ "head_dim", CONFIG_COUNT, F(head_dim), 128, NULL },
	{ "intermediate_size", CONFIG_COUNT, F(ffn), CONFIG_NEEDED, NULL },
	{ "vocab_size", CONFIG_COUNT, F(vocab), CONFIG_NEEDED, NULL },
	{ "max_position_embeddings", CONFIG_COUNT, F(max_positions), 32768, NULL },
	{ "rms_norm_eps", CONFIG_REAL, F(norm_eps), 1e-6, NULL },
	{ "tie_word_embeddings", CONFIG_BOOL, F(tied), false, NULL },
	{ "attention_bias", CONFIG_BOOL, F(qkv_bias), false, NULL },
	{ "attention_bias", CONFIG_BOOL, F(o_bias), false, NULL },
	{ "", CONFIG_TRUE, F(qk_norm), 0, NULL },
	{ "bos_token_id", CONFIG_TOKEN, F(bos), -1, NULL },
	{ "eos_token_id", CONFIG_TOKEN, F(eos), -1, NULL },
	{ "hidden_act", CONFIG_ACT, F(act), ACT_SILU, "silu|swish" },
	{ NULL, 0, 0, 0, NULL },
};

const struct family family_qwen3 = {
	.model_type = "qwen3",
	.config = config,
	.block_prefix = "model.layers.%ld.",
	.tensors = gated_tensors,
	.linears = gated_linears,
	.edges = gated_edges,
	.norm = NORM_RMS,
	.rotary = true,
	.gated = true,
	.window = WINDOW_ABOVE,
	.ignored = gated_ignored,
};
