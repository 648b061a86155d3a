/* SPDX-License-Identifier: Apache-2.0 */
/*
 * family_llama.c - Llama 1 to 3: RMS norms, rotary positions, grouped KV heads, gated SiLU
 *
 * Follows transformers' LlamaConfig and LlamaForCausalLM.  attention_bias stands for the biases
 * of q, k, v and o alike, mlp_bias for those of gate, up and down.  pretraining_tp changes how
 * transformers slices its products, not what they are, and is not looked at.
 */
#include "lib/model/family.h"
#include "lib/model/families.h"

#define F(name) offsetof(struct model_config, name)

static const struct config_row config[] = {
	{ "hidden_size", CONFIG_COUNT, F(hidden), CONFIG_NEEDED, NULL },
	{ "num_hidden_layers", CONFIG_COUNT, F(layers), CONFIG_NEEDED, NULL },
	{ "num_attention_heads", CONFIG_COUNT, F(heads), CONFIG_NEEDED, NULL },
	{ "num_key_value_heads", CONFIG_COUNT, F(kv_heads), 0, NULL },
	{ "head_dim", CONFIG_COUNT, F(head_dim), 0, NULL },
	{ "intermediate_size", CONFIG_COUNT, F(ffn), CONFIG_NEEDED, NULL },
	{ "vocab_size", CONFIG_COUNT, F(vocab), CONFIG_NEEDED, NULL },
	{ "max_position_embeddings", CONFIG_COUNT, F(max_positions), 2048, NULL },
	{ "rms_norm_eps", CONFIG_REAL, F(norm_eps), 1e-6, NULL },
	{ "tie_word_embeddings", CONFIG_BOOL, F(tied), false, NULL },
	{ "attention_bias", CONFIG_BOOL, F(qkv_bias), false, NULL },
	{ "attention_bias", CONFIG_BOOL, F(o_bias), false, NULL },
	{ "mlp_bias", CONFIG_BOOL, F(mlp_bias), false, NULL },
	{ "bos_token_id", CONFIG_TOKEN, F(bos), 1, NULL },
	{ "eos_token_id", CONFIG_TOKEN, F(eos), 2, NULL },
	{ "hidden_act", CONFIG_ONLY, 0, 0, "silu|swish" },
	{ "sliding_window", CONFIG_ONLY, 0, 0, "null" },
	{ "layer_types", CONFIG_ONLY, 0, 0, "null|full_attention" },
	{ NULL, 0, 0, 0, NULL },
};

static const struct tensor_row tensors[] = {
	{ SLOT_NORM1, "input_layernorm.weight", DIM_HIDDEN, DIM_NONE, COND_ALWAYS },
	{ SLOT_Q, "self_attn.q_proj.weight", DIM_Q, DIM_HIDDEN, COND_ALWAYS },
	{ SLOT_Q_B, "self_attn.q_proj.bias", DIM_Q, DIM_NONE, COND_QKV_BIAS },
	{ SLOT_K, "self_attn.k_proj.weight", DIM_KV, DIM_HIDDEN, COND_ALWAYS },
	{ SLOT_K_B, "self_attn.k_proj.bias", DIM_KV, DIM_NONE, COND_QKV_BIAS },
	{ SLOT_V, "self_attn.v_proj.weight", DIM_KV, DIM_HIDDEN, COND_ALWAYS },
	{ SLOT_V_B, "self_attn.v_proj.bias", DIM_KV, DIM_NONE, COND_QKV_BIAS },
	{ SLOT_O, "self_attn.o_proj.weight", DIM_HIDDEN, DIM_Q, COND_ALWAYS },
	{ SLOT_O_B, "self_attn.o_proj.bias", DIM_HIDDEN, DIM_NONE, COND_O_BIAS },
	{ SLOT_NORM2, "post_attention_layernorm.weight", DIM_HIDDEN, DIM_NONE, COND_ALWAYS },
	{ SLOT_GATE, "mlp.gate_proj.weight", DIM_FFN, DIM_HIDDEN, COND_ALWAYS },
	{ SLOT_GATE_B, "mlp.gate_proj.bias", DIM_FFN, DIM_NONE, COND_MLP_BIAS },
	{ SLOT_UP, "mlp.up_proj.weight", DIM_FFN, DIM_HIDDEN, COND_ALWAYS },
	{ SLOT_UP_B, "mlp.up_proj.bias", DIM_FFN, DIM_NONE, COND_MLP_BIAS },
	{ SLOT_DOWN, "mlp.down_proj.weight", DIM_HIDDEN, DIM_FFN, COND_ALWAYS },
	{ SLOT_DOWN_B, "mlp.down_proj.bias", DIM_HIDDEN, DIM_NONE, COND_MLP_BIAS },
	{ SLOT_EMBED, "model.embed_tokens.weight", DIM_VOCAB, DIM_HIDDEN, COND_ALWAYS },
	{ SLOT_NORM_F, "model.norm.weight", DIM_HIDDEN, DIM_NONE, COND_ALWAYS },
	{ SLOT_HEAD, "lm_head.weight", DIM_VOCAB, DIM_HIDDEN, COND_UNTIED },
	{ SLOT_NONE, NULL, DIM_NONE, DIM_NONE, COND_ALWAYS },
};

static const struct linear_row linears[] = {
	{ SLOT_Q, SLOT_Q_B, EDGE_ATTN_IN },
	{ SLOT_K, SLOT_K_B, EDGE_ATTN_IN },
	{ SLOT_V, SLOT_V_B, EDGE_ATTN_IN },
	{ SLOT_O, SLOT_O_B, EDGE_ATTN_MID },
	{ SLOT_GATE, SLOT_GATE_B, EDGE_MLP_IN },
	{ SLOT_UP, SLOT_UP_B, EDGE_MLP_IN },
	{ SLOT_DOWN, SLOT_DOWN_B, EDGE_MLP_MID },
	{ SLOT_NONE, SLOT_NONE, EDGE_COUNT },
};

static const struct edge_row edges[EDGE_COUNT] = {
	[EDGE_ATTN_IN] = {
		.edge = EDGE_ATTN_IN, .name = "attn.in", .width = DIM_HIDDEN,
		.norm = true, .producer = SLOT_NORM1, .producer_bias = SLOT_NONE,
		.consumers = { SLOT_Q, SLOT_K, SLOT_V, SLOT_NONE },
	},
	[EDGE_ATTN_MID] = {
		.edge = EDGE_ATTN_MID, .name = "attn.mid", .width = DIM_Q,
		.kv_grouped = true, .producer = SLOT_V, .producer_bias = SLOT_V_B,
		.consumers = { SLOT_O, SLOT_NONE, SLOT_NONE, SLOT_NONE },
	},
	[EDGE_MLP_IN] = {
		.edge = EDGE_MLP_IN, .name = "mlp.in", .width = DIM_HIDDEN,
		.norm = true, .producer = SLOT_NORM2, .producer_bias = SLOT_NONE,
		.consumers = { SLOT_GATE, SLOT_UP, SLOT_NONE, SLOT_NONE },
	},
	[EDGE_MLP_MID] = {
		.edge = EDGE_MLP_MID, .name = "mlp.mid", .width = DIM_FFN,
		.producer = SLOT_UP, .producer_bias = SLOT_UP_B,
		.consumers = { SLOT_DOWN, SLOT_NONE, SLOT_NONE, SLOT_NONE },
	},
};

/* Buffers that old converters saved; they follow from the configuration. */
static const char *const ignored[] = { ".rotary_emb.inv_freq", NULL };

const struct family family_llama = {
	.model_type = "llama",
	.config = config,
	.block_prefix = "model.layers.%ld.",
	.tensors = tensors,
	.linears = linears,
	.edges = edges,
	.norm = NORM_RMS,
	.act = ACT_SILU,
	.rotary = true,
	.gated = true,
	.ignored = ignored,
};
