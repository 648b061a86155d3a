/* SPDX-License-Identifier: Apache-2.0 */
/*
 * family_gated.c - the tensors of Llama and its relatives: RMS norms, rotary positions, grouped KV
 * heads, a gated MLP or experts with gated MLPs
 *
 * The router and the switch of the shared expert stay in float: they decide, and are small.
 */
#include "lib/model/families.h"

const struct tensor_row gated_tensors[] = {
	{ SLOT_NORM1, "input_layernorm.weight", COND_ALWAYS, { DIM_HIDDEN } },
	{ SLOT_Q, "self_attn.q_proj.weight", COND_ALWAYS, { DIM_Q, DIM_HIDDEN } },
	{ SLOT_Q_B, "self_attn.q_proj.bias", COND_QKV_BIAS, { DIM_Q } },
	{ SLOT_K, "self_attn.k_proj.weight", COND_ALWAYS, { DIM_KV, DIM_HIDDEN } },
	{ SLOT_K_B, "self_attn.k_proj.bias", COND_QKV_BIAS, { DIM_KV } },
	{ SLOT_V, "self_attn.v_proj.weight", COND_ALWAYS, { DIM_KV, DIM_HIDDEN } },
	{ SLOT_V_B, "self_attn.v_proj.bias", COND_QKV_BIAS, { DIM_KV } },
	{ SLOT_Q_NORM, "self_attn.q_norm.weight", COND_QK_NORM, { DIM_HEAD } },
	{ SLOT_K_NORM, "self_attn.k_norm.weight", COND_QK_NORM, { DIM_HEAD } },
	{ SLOT_O, "self_attn.o_proj.weight", COND_ALWAYS, { DIM_HIDDEN, DIM_Q } },
	{ SLOT_O_B, "self_attn.o_proj.bias", COND_O_BIAS, { DIM_HIDDEN } },
	{ SLOT_NORM2, "post_attention_layernorm.weight", COND_ALWAYS, { DIM_HIDDEN } },
	{ SLOT_GATE, "mlp.gate_proj.weight", COND_DENSE, { DIM_FFN, DIM_HIDDEN } },
	{ SLOT_GATE_B, "mlp.gate_proj.bias", COND_MLP_BIAS, { DIM_FFN } },
	{ SLOT_UP, "mlp.up_proj.weight", COND_DENSE, { DIM_FFN, DIM_HIDDEN } },
	{ SLOT_UP_B, "mlp.up_proj.bias", COND_MLP_BIAS, { DIM_FFN } },
	{ SLOT_DOWN, "mlp.down_proj.weight", COND_DENSE, { DIM_HIDDEN, DIM_FFN } },
	{ SLOT_DOWN_B, "mlp.down_proj.bias", COND_MLP_BIAS, { DIM_HIDDEN } },
	{ SLOT_ROUTER, "mlp.gate.weight", COND_SPARSE, { DIM_EXPERTS, DIM_HIDDEN } },
	{ SLOT_X_GATE, "mlp.experts.%ld.gate_proj.weight", COND_SPARSE,
	  { DIM_EXPERT_FFN, DIM_HIDDEN } },
	{ SLOT_X_UP, "mlp.experts.%ld.up_proj.weight", COND_SPARSE,
	  { DIM_EXPERT_FFN, DIM_HIDDEN } },
	{ SLOT_X_DOWN, "mlp.experts.%ld.down_proj.weight", COND_SPARSE,
	  { DIM_HIDDEN, DIM_EXPERT_FFN } },
	{ SLOT_SHARED_GATE, "mlp.shared_expert.gate_proj.weight", COND_SPARSE,
	  { DIM_SHARED_FFN, DIM_HIDDEN } },
	{ SLOT_SHARED_UP, "mlp.shared_expert.up_proj.weight", COND_SPARSE,
	  { DIM_SHARED_FFN, DIM_HIDDEN } },
	{ SLOT_SHARED_DOWN, "mlp.shared_expert.down_proj.weight", COND_SPARSE,
	  { DIM_HIDDEN, DIM_SHARED_FFN } },
	{ SLOT_SHARED_SWITCH, "mlp.shared_expert_gate.weight", COND_SPARSE,
	  { DIM_ONE, DIM_HIDDEN } },
	{ SLOT_EMBED, "model.embed_tokens.weight", COND_ALWAYS, { DIM_VOCAB, DIM_HIDDEN } },
	{ SLOT_NORM_F, "model.norm.weight", COND_ALWAYS, { DIM_HIDDEN } },
	{ SLOT_HEAD, "lm_head.weight", COND_UNTIED, { DIM_VOCAB, DIM_HIDDEN } },
	{ SLOT_NONE, NULL, COND_ALWAYS, { DIM_NONE } },
};

const struct linear_row gated_linears[] = {
	{ SLOT_Q, SLOT_Q_B, EDGE_ATTN_IN, false },
	{ SLOT_K, SLOT_K_B, EDGE_ATTN_IN, false },
	{ SLOT_V, SLOT_V_B, EDGE_ATTN_IN, false },
	{ SLOT_O, SLOT_O_B, EDGE_ATTN_MID, false },
	{ SLOT_GATE, SLOT_GATE_B, EDGE_MLP_IN, false },
	{ SLOT_UP, SLOT_UP_B, EDGE_MLP_IN, false },
	{ SLOT_DOWN, SLOT_DOWN_B, EDGE_MLP_MID, false },
	{ SLOT_ROUTER, SLOT_NONE, EDGE_MLP_IN, true },
	{ SLOT_X_GATE, SLOT_NONE, EDGE_X_IN, false },
	{ SLOT_X_UP, SLOT_NONE, EDGE_X_IN, false },
	{ SLOT_X_DOWN, SLOT_NONE, EDGE_X_MID, false },
	{ SLOT_SHARED_GATE, SLOT_NONE, EDGE_MLP_IN, false },
	{ SLOT_SHARED_UP, SLOT_NONE, EDGE_MLP_IN, false },
	{ SLOT_SHARED_DOWN, SLOT_NONE, EDGE_SHARED_MID, false },
	{ SLOT_SHARED_SWITCH, SLOT_NONE, EDGE_MLP_IN, true },
	{ SLOT_NONE, SLOT_NONE, EDGE_COUNT, false },
};

const struct edge_row gated_edges[EDGE_COUNT] = {
	[EDGE_ATTN_IN] = {
		.of = EDGE_ATTN_IN, .name = "attn.in", .width = DIM_HIDDEN, .norm = true,
		.producer = SLOT_NORM1, .producer_bias = SLOT_NONE,
	},
	[EDGE_ATTN_MID] = {
		.of = EDGE_ATTN_MID, .name = "attn.mid", .width = DIM_Q, .kv_grouped = true,
		.producer = SLOT_V, .producer_bias = SLOT_V_B,
	},
	[EDGE_MLP_IN] = {
		.of = EDGE_MLP_IN, .name = "mlp.in", .width = DIM_HIDDEN, .norm = true,
		.producer = SLOT_NORM2, .producer_bias = SLOT_NONE,
	},
	[EDGE_MLP_MID] = {
		.of = EDGE_MLP_MID, .name = "mlp.mid", .width = DIM_FFN,
		.producer = SLOT_UP, .producer_bias = SLOT_UP_B,
	},
	[EDGE_SHARED_MID] = {
		.of = EDGE_SHARED_MID, .name = "mlp.shared.mid", .width = DIM_SHARED_FFN,
		.producer = SLOT_SHARED_UP, .producer_bias = SLOT_NONE,
	},
	[EDGE_X_IN] = {
		.of = EDGE_MLP_IN, .name = "mlp.experts.%ld.in", .width = DIM_HIDDEN,
		.producer = SLOT_NONE, .producer_bias = SLOT_NONE,
	},
	[EDGE_X_MID] = {
		.of = EDGE_X_MID, .name = "mlp.experts.%ld.mid", .width = DIM_EXPERT_FFN,
		.producer = SLOT_X_UP, .producer_bias = SLOT_NONE,
	},
};

/* Buffers that old converters saved; they follow from the configuration. */
const char *const gated_ignored[] = { ".rotary_emb.inv_freq", NULL };
