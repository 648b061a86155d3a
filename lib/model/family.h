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

/* What a tensor is for, within a block or, from SLOT_EMBED on, outside the blocks: those below
 * SLOT_NORM_F stand before the blocks in a stream, the others after them. */
enum slot {
	SLOT_NONE = -1,
	SLOT_NORM1, SLOT_NORM1_B, /* before attention */
	SLOT_Q, SLOT_Q_B, SLOT_K, SLOT_K_B, SLOT_V, SLOT_V_B, SLOT_O, SLOT_O_B,
	SLOT_NORM2, SLOT_NORM2_B, /* before the MLP */
	SLOT_GATE, SLOT_GATE_B, SLOT_UP, SLOT_UP_B, SLOT_DOWN, SLOT_DOWN_B,
	SLOT_BLOCK_COUNT,
	SLOT_EMBED = SLOT_BLOCK_COUNT, SLOT_NORM_F, SLOT_NORM_F_B, SLOT_HEAD,
	SLOT_COUNT
};

/* Places in a block where producers write a vector that consumers read. */
enum edge {
	EDGE_ATTN_IN,  /* norm1 -> q, k, v          "attn.in",  hidden wide */
	EDGE_ATTN_MID, /* v -> o, per KV head       "attn.mid", heads * head_dim wide */
	EDGE_MLP_IN,   /* norm2 -> gate, up         "mlp.in",   hidden wide */
	EDGE_MLP_MID,  /* up -> down                "mlp.mid",  ffn wide */
	EDGE_COUNT
};

enum rope_kind { ROPE_NONE, ROPE_PLAIN, ROPE_LINEAR, ROPE_LLAMA3 };

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
};

enum norm_kind { NORM_RMS, NORM_LAYER };
enum act_kind { ACT_SILU, ACT_RELU, ACT_GELU, ACT_GELU_TANH };

/* A dimension of a tensor, by meaning. */
enum dim { DIM_NONE, DIM_HIDDEN, DIM_Q, DIM_KV, DIM_FFN, DIM_VOCAB };
/* When a tensor is there. */
enum cond { COND_ALWAYS, COND_QKV_BIAS, COND_O_BIAS, COND_MLP_BIAS, COND_UNTIED };

struct tensor_row {
	enum slot slot;
	const char *name; /* in a block: after the block's prefix */
	enum dim rows, cols;
	enum cond cond;
};

/* A linear: y = x W' + b.  Its input is an edge. */
struct linear_row {
	enum slot weight, bias;
	enum edge in;
};

/*
 * An edge and what a diagonal map on it touches: x / s for consumers' columns * s.
 * norm: the producer is a norm (gain and bias are divided); else a linear whose rows
 * (and bias) are divided.  kv_grouped: the producer has one row for each KV head's
 * channel, read by heads / kv_heads groups of columns (v -> o under GQA).
 */
struct edge_row {
	enum edge edge;
	const char *name;
	enum dim width;
	bool norm, kv_grouped;
	enum slot producer, producer_bias;
	enum slot consumers[4]; /* SLOT_NONE ends the list */
};

/*
 * How a field is read from config.json: a reader in formats/ walks these rows, so that a family
 * is one file.  A key that is absent, or null, takes what `otherwise` says.
 */
enum config_kind {
	CONFIG_COUNT, /* an integer from 1 up, into a long */
	CONFIG_REAL,  /* a finite number above 0, into a double */
	CONFIG_BOOL,
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
	enum act_kind act;
	bool rotary;                 /* q and k are rotated by position: config.json's rope keys */
	bool gated;                  /* mid = act(gate) * up, else act(up) */
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
long model_edge_width(const struct model *m, enum edge e);
bool model_has(const struct model *m, enum slot s);
/* Row of the table for a slot. */
const struct tensor_row *model_row(const struct model *m, enum slot s);
/* "model.layers.3.self_attn.q_proj.weight"; layer is ignored outside blocks.  buf[256]. */
void model_tensor_name(const struct model *m, enum slot s, long layer, char *buf);
/* The reverse: slot and *layer (-1 outside blocks); SLOT_NONE for what this model, with this
 * configuration, does not have. */
enum slot model_slot(const struct model *m, const char *name, long *layer);
/* rank (1 or 2) and shape of a slot. */
int model_shape(const struct model *m, enum slot s, int64_t shape[2]);
/* "layers.3.mlp.in"; buf[256]. */
void model_edge_name(const struct model *m, enum edge e, long layer, char *buf);
/* The reverse: edge and *layer, or -1. */
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

#endif
