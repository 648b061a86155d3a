/* SPDX-License-Identifier: Apache-2.0 */
/*
 * family_qwen2_moe.c - Qwen 2 with experts: some or all layers route their tokens
 *
 * Follows transformers' Qwen2MoeConfig and Qwen2MoeForCausalLM.  A shared expert sees all tokens,
 * weighted by a sigmoid.
 */
#include "lib/model/families.h"

#define F(name) offsetof(struct model_config, name)

static const struct config_row config[] = {
	{ "hidden_size", CONFIG_COUNT, F(hidden), CONFIG_NEEDED, NULL },
	{ "num_hidden_layers", CONFIG_COUNT, F(layers), CONFIG_NEEDED, NULL },
	{ "num_attention_heads", CONFIG_COUNT, F(heads), CONFIG_NEEDED, NULL },
	{ "num_key_value_heads", CONFIG_COUNT, F(kv_heads), 16, NULL },
	{ "head_dim", CONFIG_COUNT, F(head_dim), 0, NULL },
	{ "intermediate_size", CONFIG_COUNT, F(ffn), CONFIG_NEEDED, NULL },
	{ "vocab_size", CONFIG_COUNT, F(vocab), CONFIG_NEEDED, NULL },
	{ "max_position_embeddings", CONFIG_COUNT, F(max_positions), 32768, NULL },
	{ "rms_norm_eps", CONFIG_REAL, F(norm_eps), 1e-6, NULL },
	{ "tie_word_embeddings", CONFIG_BOOL, F(tied), false, NULL },
	{ "qkv_bias", CONFIG_BOOL, F(qkv_bias), true, NULL },
	{ "num_experts", CONFIG_COUNT, F(experts), 60, NULL },
	{ "num_experts_per_tok", CONFIG_COUNT, F(experts_per_token), 4, NULL },
	{ "moe_intermediate_size", CONFIG_COUNT, F(expert_ffn), 1408, NULL },
	{ "shared_expert_intermediate_size", CONFIG_COUNT, F(shared_ffn), 5632, NULL },
	{ "decoder_sparse_step", CONFIG_COUNT, F(sparse_step), 1, NULL },
	{ "mlp_only_layers", CONFIG_LAYERS, 0, 0, NULL },
	{ "norm_topk_prob", CONFIG_BOOL, F(norm_topk), false, NULL },
	{ "bos_token_id", CONFIG_TOKEN, F(bos), -1, NULL },
	{ "eos_token_id", CONFIG_TOKEN, F(eos), -1, NULL },
	{ "hidden_act", CONFIG_ACT, F(act), ACT_SILU, "silu|swish" },
	{ NULL, 0, 0, 0, NULL },
};

const struct family family_qwen2_moe = {
	.model_type = "qwen2_moe",
	.config = config,
	.block_prefix = "model.layers.%ld.",
	.tensors = gated_tensors,
	.linears = gated_linears,
	.edges = gated_edges,
	.norm = NORM_RMS,
	.rotary = true,
	.gated = true,
	.window = WINDOW_EVEN_BELOW,
	.ignored = gated_ignored,
};
