/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gguf_export_keys.c - names and keys of a GGUF file, from a model of ours
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/gguf_export.h"
#include "formats/gguf_write.h"
#include "lib/model/rope.h"

static const struct {
	enum slot weight, bias;
	const char *name;
} names[] = {
	{ SLOT_NORM1, SLOT_NONE, "attn_norm" },
	{ SLOT_Q, SLOT_Q_B, "attn_q" },
	{ SLOT_K, SLOT_K_B, "attn_k" },
	{ SLOT_V, SLOT_V_B, "attn_v" },
	{ SLOT_Q_NORM, SLOT_NONE, "attn_q_norm" },
	{ SLOT_K_NORM, SLOT_NONE, "attn_k_norm" },
	{ SLOT_O, SLOT_O_B, "attn_output" },
	{ SLOT_NORM2, SLOT_NONE, "ffn_norm" },
	{ SLOT_GATE, SLOT_GATE_B, "ffn_gate" },
	{ SLOT_UP, SLOT_UP_B, "ffn_up" },
	{ SLOT_DOWN, SLOT_DOWN_B, "ffn_down" },
	{ SLOT_ROUTER, SLOT_NONE, "ffn_gate_inp" },
	{ SLOT_X_GATE, SLOT_NONE, "ffn_gate_exps" },
	{ SLOT_X_UP, SLOT_NONE, "ffn_up_exps" },
	{ SLOT_X_DOWN, SLOT_NONE, "ffn_down_exps" },
	{ SLOT_SHARED_SWITCH, SLOT_NONE, "ffn_gate_inp_shexp" },
	{ SLOT_SHARED_GATE, SLOT_NONE, "ffn_gate_shexp" },
	{ SLOT_SHARED_UP, SLOT_NONE, "ffn_up_shexp" },
	{ SLOT_SHARED_DOWN, SLOT_NONE, "ffn_down_shexp" },
	{ SLOT_EMBED, SLOT_NONE, "token_embd" },
	{ SLOT_NORM_F, SLOT_NONE, "output_norm" },
	{ SLOT_HEAD, SLOT_NONE, "output" },
};
enum { N_NAMES = sizeof(names) / sizeof(names[0]) };

void gguf_export_name(char *name, enum slot s, long layer)
{
	const enum slot k = slot_kind(s);
	char block[24] = "";

	name[0] = '\0';
	if (slot_in_block(s))
		snprintf(block, sizeof(block), "blk.%ld.", layer);
	for (int i = 0; i < N_NAMES; i++)
		if (names[i].weight == k || names[i].bias == k)
			snprintf(name, 64, "%s%s.%s", block, names[i].name,
				 names[i].weight == k ? "weight" : "bias");
}

/* ---- is there such an architecture? ----------------------------------------------------- */

static const struct {
	const char *family, *arch;
} archs[] = {
	{ "llama", "llama" },
	/* Without a window it is the same arithmetic. */
	{ "mistral", "llama" },
	{ "qwen2", "qwen2" },
	{ "qwen2_moe", "qwen2moe" },
	{ "qwen3", "qwen3" },
};

static int check_experts(const struct model *m, struct err *e)
{
	const struct model_config *c = &m->cfg;

	if (c->experts && (c->norm_topk || c->n_dense || c->sparse_step != 1))
		return err_set(e, ERR_DATA, "config", "qwen2moe of GGUF has experts in every "
			       "layer, and their weights as they come: %s is something else",
			       c->norm_topk ? "norm_topk_prob" : c->n_dense ? "mlp_only_layers" :
			       "decoder_sparse_step");
	return 0;
}

int gguf_export_arch(const char **arch, const struct model *m, struct err *e)
{
	*arch = NULL;
	for (size_t i = 0; i < sizeof(archs) / sizeof(archs[0]); i++)
		if (strcmp(archs[i].family, m->family->model_type) == 0)
			*arch = archs[i].arch;
	if (!*arch)
		return err_set(e, ERR_DATA, "config", "llama.cpp has no architecture for family "
			       "%s: no GGUF file can hold it", m->family->model_type);
	for (long i = 0; i < m->cfg.layers; i++)
		if (model_window(m, i))
			return err_set(e, ERR_DATA, "config", "layer %ld looks back %ld tokens "
				       "only: %s of GGUF has no sliding window", i,
				       model_window(m, i), *arch);
	if (strcmp(*arch, "qwen3") == 0 && m->cfg.qkv_bias)
		return err_set(e, ERR_DATA, "config", "qwen3 of GGUF has no biases");
	return check_experts(m, e);
}

/* ---- keys ------------------------------------------------------------------------------- */

struct keys {
	struct gguf_writer *w;
	const char *arch;
};

static const char *key_of(const struct keys *k, const char *name, char *buf, size_t cap)
{
	snprintf(buf, cap, "%s.%s", k->arch, name);
	return buf;
}

static void count(const struct keys *k, const char *name, long v)
{
	char key[96];

	gguf_put_u32(k->w, key_of(k, name, key, sizeof(key)), (uint32_t)v);
}

static void real(const struct keys *k, const char *name, double v)
{
	char key[96];

	gguf_put_f32(k->w, key_of(k, name, key, sizeof(key)), (float)v);
}

static void text(struct gguf_writer *w, const char *key, const char *v)
{
	gguf_put_str(w, key, v, strlen(v));
}

void gguf_export_keys(struct gguf_writer *w, const struct model *m, const char *arch,
		      const char *name)
{
	const struct model_config *c = &m->cfg;
	const struct keys k = { w, arch };
	char key[96];

	text(w, "general.architecture", arch);
	text(w, "general.type", "model");
	if (name)
		text(w, "general.name", name);
	count(&k, "block_count", c->layers);
	count(&k, "context_length", c->max_positions);
	count(&k, "embedding_length", c->hidden);
	count(&k, "feed_forward_length", c->ffn);
	count(&k, "attention.head_count", c->heads);
	count(&k, "attention.head_count_kv", c->kv_heads);
	real(&k, "attention.layer_norm_rms_epsilon", c->norm_eps);
	count(&k, "attention.key_length", c->head_dim);
	count(&k, "attention.value_length", c->head_dim);
	real(&k, "rope.freq_base", c->rope_theta);
	count(&k, "rope.dimension_count", c->head_dim);
	if (c->rope == ROPE_LINEAR) {
		text(w, key_of(&k, "rope.scaling.type", key, sizeof(key)), "linear");
		real(&k, "rope.scaling.factor", c->rope_factor);
	}
	if (c->experts) {
		count(&k, "expert_count", c->experts);
		count(&k, "expert_used_count", c->experts_per_token);
		count(&k, "expert_feed_forward_length", c->expert_ffn);
		count(&k, "expert_shared_feed_forward_length", c->shared_ffn);
	}
	count(&k, "vocab_size", c->vocab);
	gguf_put_u32(w, "general.file_type", 0);
	gguf_put_u32(w, "general.quantization_version", 2);
}

int gguf_export_factors(const struct model *m, float *factor, struct err *e)
{
	const long n = m->cfg.head_dim / 2;
	struct model_config plain = m->cfg;
	double *f;

	if (m->cfg.rope != ROPE_LLAMA3)
		return 0;
	f = malloc(2 * (size_t)n * sizeof(*f));
	if (!f)
		return err_nomem(e, "rope", 2 * (size_t)n * sizeof(*f));
	plain.rope = ROPE_PLAIN;
	rope_frequencies(&plain, f);
	rope_frequencies(&m->cfg, f + n);
	for (long i = 0; i < n; i++)
		factor[i] = (float)(f[i] / f[i + n]);
	free(f);
	return 1;
}
