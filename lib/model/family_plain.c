/* SPDX-License-Identifier: Apache-2.0 */
/*
 * family_plain.c - linears and edges of families whose MLP has no gate: layer norms with bias, two
 * linears with an activation between them
 */
#include "lib/model/families.h"

const struct linear_row plain_linears[] = {
	{ SLOT_PATCH, SLOT_PATCH_B, EDGE_PATCH_IN, false },
	{ SLOT_Q, SLOT_Q_B, EDGE_ATTN_IN, false },
	{ SLOT_K, SLOT_K_B, EDGE_ATTN_IN, false },
	{ SLOT_V, SLOT_V_B, EDGE_ATTN_IN, false },
	{ SLOT_O, SLOT_O_B, EDGE_ATTN_MID, false },
	{ SLOT_UP, SLOT_UP_B, EDGE_MLP_IN, false },
	{ SLOT_DOWN, SLOT_DOWN_B, EDGE_MLP_MID, false },
	{ SLOT_NONE, SLOT_NONE, EDGE_COUNT, false },
};

const struct edge_row plain_edges[EDGE_COUNT] = {
	[EDGE_ATTN_IN] = {
		.of = EDGE_ATTN_IN, .name = "attn.in", .width = DIM_HIDDEN, .norm = true,
		.producer = SLOT_NORM1, .producer_bias = SLOT_NORM1_B,
	},
	[EDGE_ATTN_MID] = {
		.of = EDGE_ATTN_MID, .name = "attn.mid", .width = DIM_Q, .kv_grouped = true,
		.producer = SLOT_V, .producer_bias = SLOT_V_B,
	},
	[EDGE_MLP_IN] = {
		.of = EDGE_MLP_IN, .name = "mlp.in", .width = DIM_HIDDEN, .norm = true,
		.producer = SLOT_NORM2, .producer_bias = SLOT_NORM2_B,
	},
	[EDGE_MLP_MID] = {
		.of = EDGE_MLP_MID, .name = "mlp.mid", .width = DIM_FFN, .act = true,
		.producer = SLOT_UP, .producer_bias = SLOT_UP_B,
	},
	[EDGE_PATCH_IN] = {
		.of = EDGE_PATCH_IN, .name = "embed.patch.in", .width = DIM_PIXELS,
		.producer = SLOT_NONE, .producer_bias = SLOT_NONE,
	},
};
