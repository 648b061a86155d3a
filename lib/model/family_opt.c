/* SPDX-License-Identifier: Apache-2.0 */
/*
 * family_opt.c - OPT: layer norms, learned positions, biases, ReLU, embeddings that may be
 * narrower than the hidden states
 *
 * Follows transformers' OPTConfig and OPTForCausalLM.  Row 2 of the table of positions is position
 * 0.  With do_layer_norm_before false (OPT-350m) the norms stand behind attention and MLP and there
 * is no final one.  enable_bias stands for the biases of all linears; norms keep theirs.
 */
#include "lib/model/families.h"

#define F(name) offsetof(struct model_config, name)

static const struct config_row config[] = {
	{ "hidden_size", CONFIG_COUNT, F(hidden), CONFIG_NEEDED, NULL },
	{ "num_hidden_layers", CONFIG_COUNT, F(layers), CONFIG_NEEDED, NULL },
	{ "num_attention_heads", CONFIG_COUNT, F(heads), CONFIG_NEEDED, NULL },
	{ "ffn_dim", CONFIG_COUNT, F(ffn), CONFIG_NEEDED, NULL },
	{ "vocab_size", CONFIG_COUNT, F(vocab), CONFIG_NEEDED, NULL },
	{ "max_position_embeddings", CONFIG_COUNT, F(max_positions), 2048, NULL },
	{ "word_embed_proj_dim", CONFIG_COUNT, F(embed_dim), 0, NULL },
	{ "do_layer_norm_before", CONFIG_NOT, F(post_norm), true, NULL },
	{ "_remove_final_layer_norm", CONFIG_BOOL, F(no_final_norm), false, NULL },
	{ "layer_norm_elementwise_affine", CONFIG_NOT, F(norm_plain), true, NULL },
	{ "", CONFIG_FIXED, F(norm_eps), 1e-5, NULL },
	{ "enable_bias", CONFIG_BOOL, F(qkv_bias), true, NULL },
	{ "enable_bias", CONFIG_BOOL, F(o_bias), true, NULL },
	{ "enable_bias", CONFIG_BOOL, F(mlp_bias), true, NULL },
	{ "tie_word_embeddings", CONFIG_BOOL, F(tied), true, NULL },
	{ "activation_function", CONFIG_ACT, F(act), ACT_RELU, "relu|gelu|gelu_new" },
	{ "bos_token_id", CONFIG_TOKEN, F(bos), 2, NULL },
	{ "eos_token_id", CONFIG_TOKEN, F(eos), 2, NULL },
	{ NULL, 0, 0, 0, NULL },
};

static const struct tensor_row tensors[] = {
	{ SLOT_NORM1, "self_attn_layer_norm.weight", COND_NORM, { DIM_HIDDEN } },
	{ SLOT_NORM1_B, "self_attn_layer_norm.bias", COND_NORM, { DIM_HIDDEN } },
	{ SLOT_Q, "self_attn.q_proj.weight", COND_ALWAYS, { DIM_Q, DIM_HIDDEN } },
	{ SLOT_Q_B, "self_attn.q_proj.bias", COND_QKV_BIAS, { DIM_Q } },
	{ SLOT_K, "self_attn.k_proj.weight", COND_ALWAYS, { DIM_KV, DIM_HIDDEN } },
	{ SLOT_K_B, "self_attn.k_proj.bias", COND_QKV_BIAS, { DIM_KV } },
	{ SLOT_V, "self_attn.v_proj.weight", COND_ALWAYS, { DIM_KV, DIM_HIDDEN } },
	{ SLOT_V_B, "self_attn.v_proj.bias", COND_QKV_BIAS, { DIM_KV } },
	{ SLOT_O, "self_attn.out_proj.weight", COND_ALWAYS, { DIM_HIDDEN, DIM_Q } },
	{ SLOT_O_B, "self_attn.out_proj.bias", COND_O_BIAS, { DIM_HIDDEN } },
	{ SLOT_NORM2, "final_layer_norm.weight", COND_NORM, { DIM_HIDDEN } },
	{ SLOT_NORM2_B, "final_layer_norm.bias", COND_NORM, { DIM_HIDDEN } },
	{ SLOT_UP, "fc1.weight", COND_ALWAYS, { DIM_FFN, DIM_HIDDEN } },
	{ SLOT_UP_B, "fc1.bias", COND_MLP_BIAS, { DIM_FFN } },
	{ SLOT_DOWN, "fc2.weight", COND_ALWAYS, { DIM_HIDDEN, DIM_FFN } },
	{ SLOT_DOWN_B, "fc2.bias", COND_MLP_BIAS, { DIM_HIDDEN } },
	{ SLOT_EMBED, "model.decoder.embed_tokens.weight", COND_ALWAYS, { DIM_VOCAB, DIM_EMBED } },
	{ SLOT_POSITIONS, "model.decoder.embed_positions.weight", COND_ALWAYS,
	  { DIM_POSITIONS, DIM_HIDDEN } },
	{ SLOT_PROJECT_IN, "model.decoder.project_in.weight", COND_PROJECT,
	  { DIM_HIDDEN, DIM_EMBED } },
	{ SLOT_NORM_F, "model.decoder.final_layer_norm.weight", COND_FINAL_NORM, { DIM_HIDDEN } },
	{ SLOT_NORM_F_B, "model.decoder.final_layer_norm.bias", COND_FINAL_NORM, { DIM_HIDDEN } },
	{ SLOT_PROJECT_OUT, "model.decoder.project_out.weight", COND_PROJECT,
	  { DIM_EMBED, DIM_HIDDEN } },
	{ SLOT_HEAD, "lm_head.weight", COND_UNTIED, { DIM_VOCAB, DIM_EMBED } },
	{ SLOT_NONE, NULL, COND_ALWAYS, { DIM_NONE } },
};

static const char *const ignored[] = { NULL };

const struct family family_opt = {
	.model_type = "opt",
	.config = config,
	.block_prefix = "model.decoder.layers.%ld.",
	.tensors = tensors,
	.linears = plain_linears,
	.edges = plain_edges,
	.norm = NORM_LAYER,
	.position_offset = 2,
	.ignored = ignored,
};
