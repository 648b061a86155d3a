/* SPDX-License-Identifier: Apache-2.0 */
/*
 * family.h - model families as data
 *
 * A family is a table: which tensors a block has, under which names and with which
 * shapes, what its norms, activation and positions are, and where its edges lie.  No
 * method and no forward pass asks for a family's name; they ask the table.
 *
 * Shapes are rows x columns of the checkpoint, [out, in] for linears.
 */
#ifndef QP_FAMILY_H
#define QP_FAMILY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"
#include "lib/data/dtype.h"

struct record;

/*
 * What a tensor is for: within a block, or, from SLOT_EMBED on, outside the blocks: those below
 * SLOT_NORM_F stand before the blocks in a stream, the others after them.  Slots from SLOT_COUNT
 * on are those of the experts (slot_of_expert); SLOT_X_* stand for them in a family's table.
 */
enum slot {
	SLOT_NONE = -1,
	SLOT_NORM1, SLOT_NORM1_B, /* of attention */
	SLOT_Q, SLOT_Q_B, SLOT_K, SLOT_K_B, SLOT_V, SLOT_V_B, SLOT_Q_NORM, SLOT_K_NORM,
	SLOT_O, SLOT_O_B,
	SLOT_NORM2, SLOT_NORM2_B, /* of the MLP */
	SLOT_GATE, SLOT_GATE_B, SLOT_UP, SLOT_UP_B, SLOT_DOWN, SLOT_DOWN_B,
	SLOT_ROUTER, SLOT_X_GATE, SLOT_X_UP, SLOT_X_DOWN,
	SLOT_SHARED_GATE, SLOT_SHARED_UP, SLOT_SHARED_DOWN,
	SLOT_SHARED_SWITCH, /* one row: sigmoid of it weights the shared expert */
	SLOT_BLOCK_COUNT,
	SLOT_EMBED = SLOT_BLOCK_COUNT, SLOT_PATCH, SLOT_PATCH_B, SLOT_CLASS, SLOT_POSITIONS,
	SLOT_PROJECT_IN,
	SLOT_NORM_F, SLOT_NORM_F_B, SLOT_PROJECT_OUT, SLOT_HEAD, SLOT_HEAD_B,
	SLOT_COUNT
};
enum { EXPERT_SLOTS = SLOT_X_DOWN - SLOT_X_GATE + 1 };

/* Places in a block where producers write a vector that consumers read.  From EDGE_COUNT on:
 * those of the experts (edge_of_expert). */
enum edge {
	EDGE_ATTN_IN,    /* norm1 -> q, k, v          "attn.in",  hidden wide */
	EDGE_ATTN_MID,   /* v -> o, per KV head       "attn.mid", heads * head_dim wide */
	EDGE_MLP_IN,     /* norm2 -> gate, up         "mlp.in",   hidden wide */
	EDGE_MLP_MID,    /* up -> down                "mlp.mid",  ffn wide */
	EDGE_SHARED_MID, /* the same, shared expert   "mlp.shared.mid" */
	EDGE_PATCH_IN,   /* pixels of a patch -> patch embedding, in front of the blocks: layer -1;
			  * "embed.patch.in", channels * patch * patch wide */
	EDGE_X_IN,       /* mlp.in's routed tokens    "mlp.experts.5.in" */
	EDGE_X_MID,      /* up -> down of the expert  "mlp.experts.5.mid" */
	EDGE_COUNT
};
enum { EXPERT_EDGES = EDGE_X_MID - EDGE_X_IN + 1 };

static inline enum slot slot_of_expert(enum slot x, long expert)
{
	return (enum slot)(SLOT_COUNT + expert * EXPERT_SLOTS + (x - SLOT_X_GATE));
}

/* The expert of a slot or an edge, -1: it is none's; and what stands for it in the table. */
static inline long slot_expert(enum slot s)
{
	return s < SLOT_COUNT ? -1 : ((long)s - SLOT_COUNT) / EXPERT_SLOTS;
}

static inline enum slot slot_kind(enum slot s)
{
	return s < SLOT_COUNT ? s : (enum slot)(SLOT_X_GATE + (s - SLOT_COUNT) % EXPERT_SLOTS);
}

static inline bool slot_in_block(enum slot s)
{
	return s >= 0 && (s < SLOT_BLOCK_COUNT || s >= SLOT_COUNT);
}

static inline enum edge edge_of_expert(enum edge x, long expert)
{
	return (enum edge)(EDGE_COUNT + expert * EXPERT_EDGES + (x - EDGE_X_IN));
}

static inline long edge_expert(enum edge g)
{
	return g < EDGE_COUNT ? -1 : ((long)g - EDGE_COUNT) / EXPERT_EDGES;
}

static inline enum edge edge_kind(enum edge g)
{
	return g < EDGE_COUNT ? g : (enum edge)(EDGE_X_IN + (g - EDGE_COUNT) % EXPERT_EDGES);
}

enum act_kind { ACT_SILU, ACT_RELU, ACT_GELU, ACT_GELU_TANH };

enum rope_kind { ROPE_NONE, ROPE_PLAIN, ROPE_LINEAR, ROPE_LLAMA3 };

#define MODEL_MAX_LISTED 256 /* layers in a list */

/*
 * The part of config.json that the arithmetic depends on, family by family normalised.  In the
 * head of a stream it is the map under key "config", by the names that transformers gives these
 * things in Llama (hidden_size, num_hidden_layers ...; see family_head.c).
 */
struct model_config {
	char model_type[32]; /* config.json's model_type: "llama" */
	long hidden, layers, heads, kv_heads, head_dim, ffn, vocab, max_positions;
	double norm_eps;
	enum rope_kind rope;
	double rope_theta, rope_factor, rope_low_freq, rope_high_freq;
	long rope_original_positions;
	bool tied;           /* head is the embedding */
	bool qkv_bias, o_bias, mlp_bias;
	long bos, eos;       /* token ids, -1: none */
	enum act_kind act;
	long embed_dim;      /* of the embedding; hidden unless there are projections */
	bool post_norm;      /* norms behind attention and MLP, on the sum; no final norm */
	bool norm_plain;     /* norms without gain and bias */
	bool qk_norm;        /* RMS norm of every head of q and k, before the rotation */
	bool no_final_norm;
	/* attention reaches back window tokens, 0: all, in the layers listed, none: in every one */
	long window, n_windowed, windowed[MODEL_MAX_LISTED];
	/* mixture of experts, experts 0: none.  Layer i has experts if it is not among dense and
	 * sparse_step divides i + 1. */
	long experts, experts_per_token, expert_ffn, shared_ffn, sparse_step;
	bool norm_topk;      /* the weights of the experts chosen sum to 1 */
	long n_dense, dense[MODEL_MAX_LISTED];
	/* images: square ones, cut into square patches; vocab counts classes */
	long image_size, patch, channels;
};

enum norm_kind { NORM_RMS, NORM_LAYER };

/* A dimension of a tensor, by meaning. */
enum dim {
	DIM_NONE, DIM_ONE, DIM_HIDDEN, DIM_Q, DIM_KV, DIM_HEAD, DIM_FFN, DIM_VOCAB, DIM_EMBED,
	DIM_POSITIONS, /* rows of a table of positions: max_positions and the family's offset */
	DIM_EXPERTS, DIM_EXPERT_FFN, DIM_SHARED_FFN, DIM_CHANNELS, DIM_PATCH,
	DIM_PIXELS /* of a patch, in all channels */
};
/* When a tensor is there. */
enum cond {
	COND_ALWAYS, COND_QKV_BIAS, COND_O_BIAS, COND_MLP_BIAS, COND_UNTIED, COND_NORM,
	COND_QK_NORM, COND_FINAL_NORM, COND_PROJECT, COND_DENSE, COND_SPARSE
};
enum { MODEL_MAX_RANK = 4 };

struct tensor_row {
	enum slot slot;
	const char *name; /* in a block: after the block's prefix; "%ld": the expert */
	enum cond cond;
	enum dim dim[MODEL_MAX_RANK]; /* DIM_NONE ends */
};

/* A linear: y = x W' + b.  Its input is an edge. */
struct linear_row {
	enum slot weight, bias;
	enum edge in;
	bool keep; /* never quantized: routers */
};

/*
 * An edge and what a diagonal map on it touches: x / s for the columns * s of all linears that
 * read it.  norm: the producer is a norm (gain and bias are divided); else a linear whose rows
 * (and bias) are divided.  kv_grouped: the producer has one row for each KV head's channel, read
 * by heads / kv_heads groups of columns (v -> o under GQA).
 */
struct edge_row {
	enum edge edge;
	enum edge of;      /* it carries some of the tokens of that edge; itself: all of its own */
	const char *name;  /* "%ld": the expert */
	enum dim width;
	bool norm, kv_grouped;
	bool act;          /* an activation lies between producer and edge: it must be ReLU */
	enum slot producer, producer_bias; /* SLOT_NONE: no map can be put here */
};

/*
 * How a field is read from config.json: a reader in formats/ walks these rows, so that a family
 * is one file.  A key that is absent, or null, takes what `otherwise` says.
 */
enum config_kind {
	CONFIG_COUNT, /* an integer from 1 up, into a long */
	CONFIG_REAL,  /* a finite number above 0, into a double */
	CONFIG_BOOL,
	CONFIG_NOT,   /* a bool, into the contrary */
	CONFIG_ACT,   /* the name of an activation among the words in `only`; `otherwise` counts */
	CONFIG_LAYERS, /* a list of layers: n_dense, dense */
	CONFIG_ENTRIES, /* how many entries an object has, into a long */
	CONFIG_FIXED, /* no key: `otherwise` is the value, a double */
	CONFIG_TRUE,  /* no key: true */
	CONFIG_NO_TOKEN, /* no key: -1 */
	CONFIG_TOKEN, /* a token id, the first of a list of them, or null: -1; into a long */
	CONFIG_ONLY,  /* no field: this build does what the words in `only` say, nothing else */
};

struct config_row {
	const char *key;
	enum config_kind kind;
	size_t field;     /* offsetof(struct model_config, ...) */
	double otherwise; /* CONFIG_NEEDED: the key must be there.  0 for kv_heads and head_dim:
			   * as many as heads, hidden / heads. */
	/* CONFIG_ONLY: values, "a|b", as text: a string itself, else null, true, false, a number.
	 * Each element of an array must be among them.  An absent key is fine. */
	const char *only;
};
#define CONFIG_NEEDED (-2.0)

struct family {
	const char *model_type;
	const struct config_row *config; /* key NULL ends */
	const char *block_prefix;    /* "model.layers.%ld." */
	const struct tensor_row *tensors; /* slot SLOT_NONE ends; a block's in its order */
	const struct linear_row *linears; /* weight SLOT_NONE ends; in order of computation */
	const struct edge_row *edges;     /* EDGE_COUNT rows */
	enum norm_kind norm;
	bool rotary;                 /* q and k are rotated by position: config.json's rope keys */
	bool gated;                  /* mid = act(gate) * up, else act(up) */
	bool images;                 /* patches of images with a class token in front; no mask */
	long position_offset;        /* row of the table of positions for position 0 */
	/* config.json's sliding_window: there is none; it holds in every layer; only with
	 * use_sliding_window, in the layers that layer_types names or, without that, from
	 * max_window_layers on, or in every other one below it */
	enum window_rule { WINDOW_NONE, WINDOW_ALWAYS, WINDOW_ABOVE, WINDOW_EVEN_BELOW } window;
	const char *const *ignored;  /* checkpoint tensors passed over, suffixes; NULL ends */
};

/* A family with a configuration. */
struct model {
	const struct family *family;
	struct model_config cfg;
};

/* The row for a model_type, or NULL. */
const struct family *family_find(const char *model_type);

/* Check that cfg makes sense (positive sizes, kv_heads divides heads, ...) and bind it.
 * ERR_DATA naming the key; an unknown model_type lists those known. */
int model_init(struct model *m, const struct model_config *cfg, struct err *e) MUST_USE;

long model_dim(const struct model *m, enum dim d);
/* Does a layer have experts? */
bool model_is_sparse(const struct model *m, long layer);
/* How far attention of a layer reaches back, 0: as far as there are tokens. */
long model_window(const struct model *m, long layer);
/* Slots and edges are below these numbers. */
int model_slots(const struct model *m);
int model_edges(const struct model *m);

/* Is the tensor there, in this layer? (layer is not looked at outside blocks) */
bool model_has(const struct model *m, enum slot s, long layer);
/* Row of the table for a slot. */
const struct tensor_row *model_row(const struct model *m, enum slot s);
/* "model.layers.3.self_attn.q_proj.weight"; layer is ignored outside blocks.  buf[256]. */
void model_tensor_name(const struct model *m, enum slot s, long layer, char *buf);
/* The reverse: slot and *layer (-1 outside blocks); SLOT_NONE for what this model, with this
 * configuration, does not have. */
enum slot model_slot(const struct model *m, const char *name, long *layer);
/* The tensor as a matrix (2) or a vector (1): its first dimension by the product of the others. */
int model_shape(const struct model *m, enum slot s, int64_t shape[2]);
/* Its shape in the checkpoint and in streams: the rank. */
int model_dims(const struct model *m, enum slot s, int64_t dims[MODEL_MAX_RANK]);

/* The n-th linear of a layer, in order of computation; false after the last.  Layer -1: of those in
 * front of the blocks that have an edge. */
bool model_linear(const struct model *m, long layer, size_t n, struct linear_row *row);
/* Does any linear of the layer read the edge? */
bool model_has_edge(const struct model *m, enum edge g, long layer);
/* What the table, and this configuration, say of an edge. */
struct edge_row model_edge_row(const struct model *m, enum edge g);
long model_edge_width(const struct model *m, enum edge g);
/* "layers.3.mlp.in", or, layer -1, the name alone; buf[256]. */
void model_edge_name(const struct model *m, enum edge g, long layer, char *buf);
/* The reverse: edge and *layer, or -1 for what this model does not have. */
int model_edge(const struct model *m, const char *name, long *layer);

/*
 * The n-th tensor of a model in the order of a stream: what stands before the blocks, the blocks'
 * in order, what stands after them (absent ones left out).  False after the last.
 */
bool model_nth(const struct model *m, size_t n, enum slot *s, long *layer);

/*
 * To the header of a stream: keys "family", "config" and "plan".  The plan lists every tensor
 * of the checkpoint in the order of the stream as [name, dtype, [shape]]; dtype(ctx, slot, layer)
 * tells its type.  It stays as it is when filters change the tensors' types.
 */
int model_to_head(const struct model *m, enum dtype (*dtype)(void *ctx, enum slot s, long layer),
		  void *ctx, struct record *head, struct err *e) MUST_USE;
/* And back.  ERR_DATA when the stream carries no model or the model makes no sense; ERR_VERSION
 * for a key in "config" that this version does not know. */
int model_from_head(struct model *m, const struct record *head, struct err *e) MUST_USE;
/* The head of m, which was the embedding, is a tensor of its own from here on, of the embedding's
 * type in the plan: m and the keys of head. */
int model_untie_head(struct model *m, struct record *head, struct err *e) MUST_USE;

#endif
