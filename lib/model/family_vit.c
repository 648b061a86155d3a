/* SPDX-License-Identifier: Apache-2.0 */
/*
 * family_vit.c - ViT for image classification: patches and a class token, layer norms, GELU
 *
 * Follows transformers' ViTConfig and ViTForImageClassification.  The patch embedding, a
 * convolution whose stride is its size, is a linear over the channels and pixels of a patch.  The
 * classes are read off the class token, the first.
 */
#include "lib/model/families.h"

#define F(name) offsetof(struct model_config, name)

static const struct config_row config[] = {
	{ "hidden_size", CONFIG_COUNT, F(hidden), CONFIG_NEEDED, NULL },
	{ "num_hidden_layers", CONFIG_COUNT, F(layers), CONFIG_NEEDED, NULL },
	{ "num_attention_heads", CONFIG_COUNT, F(heads), CONFIG_NEEDED, NULL },
	{ "intermediate_size", CONFIG_COUNT, F(ffn), CONFIG_NEEDED, NULL },
	{ "image_size", CONFIG_COUNT, F(image_size), 224, NULL },
	{ "patch_size", CONFIG_COUNT, F(patch), 16, NULL },
	{ "num_channels", CONFIG_COUNT, F(channels), 3, NULL },
	{ "id2label", CONFIG_ENTRIES, F(vocab), 2, NULL },
	{ "layer_norm_eps", CONFIG_REAL, F(norm_eps), 1e-12, NULL },
	{ "qkv_bias", CONFIG_BOOL, F(qkv_bias), true, NULL },
	{ "", CONFIG_TRUE, F(o_bias), 0, NULL },
	{ "", CONFIG_TRUE, F(mlp_bias), 0, NULL },
	{ "", CONFIG_NO_TOKEN, F(bos), 0, NULL },
	{ "", CONFIG_NO_TOKEN, F(eos), 0, NULL },
	{ "hidden_act", CONFIG_ACT, F(act), ACT_GELU, "gelu|gelu_new|relu" },
	{ NULL, 0, 0, 0, NULL },
};

static const struct tensor_row tensors[] = {
	{ SLOT_NORM1, "layernorm_before.weight", COND_ALWAYS, { DIM_HIDDEN } },
	{ SLOT_NORM1_B, "layernorm_before.bias", COND_ALWAYS, { DIM_HIDDEN } },
	{ SLOT_Q, "attention.attention.query.weight", COND_ALWAYS, { DIM_Q, DIM_HIDDEN } },
	{ SLOT_Q_B, "attention.attention.query.bias", COND_QKV_BIAS, { DIM_Q } },
	{ SLOT_K, "attention.attention.key.weight", COND_ALWAYS, { DIM_KV, DIM_HIDDEN } },
	{ SLOT_K_B, "attention.attention.key.bias", COND_QKV_BIAS, { DIM_KV } },
	{ SLOT_V, "attention.attention.value.weight", COND_ALWAYS, { DIM_KV, DIM_HIDDEN } },
	{ SLOT_V_B, "attention.attention.value.bias", COND_QKV_BIAS, { DIM_KV } },
	{ SLOT_O, "attention.output.dense.weight", COND_ALWAYS, { DIM_HIDDEN, DIM_Q } },
	{ SLOT_O_B, "attention.output.dense.bias", COND_O_BIAS, { DIM_HIDDEN } },
	{ SLOT_NORM2, "layernorm_after.weight", COND_ALWAYS, { DIM_HIDDEN } },
	{ SLOT_NORM2_B, "layernorm_after.bias", COND_ALWAYS, { DIM_HIDDEN } },
	{ SLOT_UP, "intermediate.dense.weight", COND_ALWAYS, { DIM_FFN, DIM_HIDDEN } },
	{ SLOT_UP_B, "intermediate.dense.bias", COND_MLP_BIAS, { DIM_FFN } },
	{ SLOT_DOWN, "output.dense.weight", COND_ALWAYS, { DIM_HIDDEN, DIM_FFN } },
	{ SLOT_DOWN_B, "output.dense.bias", COND_MLP_BIAS, { DIM_HIDDEN } },
	{ SLOT_CLASS, "vit.embeddings.cls_token", COND_ALWAYS, { DIM_ONE, DIM_ONE, DIM_HIDDEN } },
	{ SLOT_POSITIONS, "vit.embeddings.position_embeddings", COND_ALWAYS,
	  { DIM_ONE, DIM_POSITIONS, DIM_HIDDEN } },
	{ SLOT_PATCH, "vit.embeddings.patch_embeddings.projection.weight", COND_ALWAYS,
	  { DIM_HIDDEN, DIM_CHANNELS, DIM_PATCH, DIM_PATCH } },
	{ SLOT_PATCH_B, "vit.embeddings.patch_embeddings.projection.bias", COND_ALWAYS,
	  { DIM_HIDDEN } },
	{ SLOT_NORM_F, "vit.layernorm.weight", COND_ALWAYS, { DIM_HIDDEN } },
	{ SLOT_NORM_F_B, "vit.layernorm.bias", COND_ALWAYS, { DIM_HIDDEN } },
	{ SLOT_HEAD, "classifier.weight", COND_ALWAYS, { DIM_VOCAB, DIM_HIDDEN } },
	{ SLOT_HEAD_B, "classifier.bias", COND_ALWAYS, { DIM_VOCAB } },
	{ SLOT_NONE, NULL, COND_ALWAYS, { DIM_NONE } },
};

/* The pooler is not used by the classifier, and transformers drops it. */
static const char *const ignored[] = {
	"vit.pooler.dense.weight", "vit.pooler.dense.bias", NULL
};

const struct family family_vit = {
	.model_type = "vit",
	.config = config,
	.block_prefix = "vit.encoder.layer.%ld.",
	.tensors = tensors,
	.linears = plain_linears,
	.edges = plain_edges,
	.norm = NORM_LAYER,
	.images = true,
	.ignored = ignored,
};
