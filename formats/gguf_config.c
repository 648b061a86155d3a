/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gguf_config.c - what a GGUF file says of its model, as the config.json it was converted from
 */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/gguf_model.h"
#include "lib/base/buf.h"
#include "lib/data/value.h"
#include "lib/model/family.h"

enum { LLAMA = 1, QWEN2 = 2, QWEN2MOE = 4, QWEN3 = 8, ALL = 15 };

static const struct gguf_arch archs[] = {
	{ "llama", "llama", "LlamaForCausalLM", true, LLAMA, "" },
	{ "qwen2", "qwen2", "Qwen2ForCausalLM", false, QWEN2, "" },
	/* What llama.cpp computes for this architecture, whatever the file says. */
	{ "qwen2moe", "qwen2_moe", "Qwen2MoeForCausalLM", false, QWEN2MOE,
	  " \"decoder_sparse_step\": 1,\n \"mlp_only_layers\": [],\n"
	  " \"norm_topk_prob\": false,\n" },
	{ "qwen3", "qwen3", "Qwen3ForCausalLM", false, QWEN3, " \"attention_bias\": false,\n" },
};
enum { N_ARCHS = sizeof(archs) / sizeof(archs[0]) };

/* How a key "ARCH.name" is read. */
enum kind {
	COUNT,  /* an integer, into config.json under `json` */
	REAL,   /* a number, the same */
	ROPE,   /* part of the rotary scaling: see take_scaling */
	SAME,   /* must agree with another, or with a tensor: see check_same */
	ZERO,   /* 0, false or "none" if it is there: anything else is not supported */
	TRUE,   /* the reverse */
	PASSED, /* does not change what is computed */
};

static const struct row {
	const char *name;
	enum kind kind;
	unsigned archs;
	bool needed;
	const char *json;
} rows[] = {
	{ "embedding_length", COUNT, ALL, true, "hidden_size" },
	{ "block_count", COUNT, ALL, true, "num_hidden_layers" },
	{ "attention.head_count", COUNT, ALL, true, "num_attention_heads" },
	{ "attention.head_count_kv", COUNT, ALL, false, "num_key_value_heads" },
	{ "attention.key_length", COUNT, ALL, false, "head_dim" },
	{ "feed_forward_length", COUNT, ALL, true, "intermediate_size" },
	{ "context_length", COUNT, ALL, true, "max_position_embeddings" },
	{ "attention.layer_norm_rms_epsilon", REAL, ALL, true, "rms_norm_eps" },
	{ "rope.freq_base", REAL, ALL, false, "rope_theta" },
	{ "expert_count", COUNT, QWEN2MOE, true, "num_experts" },
	{ "expert_used_count", COUNT, QWEN2MOE, true, "num_experts_per_tok" },
	{ "expert_feed_forward_length", COUNT, QWEN2MOE, true, "moe_intermediate_size" },
	{ "expert_shared_feed_forward_length", COUNT, QWEN2MOE, true,
	  "shared_expert_intermediate_size" },
	{ "rope.scaling.type", ROPE, ALL, false, NULL },
	{ "rope.scaling.factor", ROPE, ALL, false, NULL },
	{ "rope.scale_linear", ROPE, ALL, false, NULL },
	{ "rope.dimension_count", SAME, ALL, false, NULL },
	{ "attention.value_length", SAME, ALL, false, NULL },
	{ "vocab_size", SAME, ALL, false, NULL },
	{ "rope.scaling.attn_factor", ROPE, ALL, false, NULL },
	{ "rope.scaling.original_context_length", PASSED, ALL, false, NULL },
	{ "rope.scaling.finetuned", PASSED, ALL, false, NULL },
	{ "attention.causal", TRUE, ALL, false, NULL },
	{ "expert_count", ZERO, ALL, false, NULL },
	{ "expert_used_count", ZERO, ALL, false, NULL },
	{ "expert_weights_norm", ZERO, ALL, false, NULL },
	{ "attention.sliding_window", ZERO, ALL, false, NULL },
	{ "pooling_type", ZERO, ALL, false, NULL },
	{ NULL, 0, 0, false, NULL },
};

int gguf_arch(const struct gguf_arch **a, const struct gguf *g, struct err *e)
{
	const struct gguf_kv *kv = gguf_find(g, "general.architecture");
	char known[256] = "";
	const char *s;
	uint64_t at = 0;
	size_t n;

	if (!kv || kv->type != GGUF_STRING || !gguf_str(g, kv, &at, &s, &n))
		return err_set(e, ERR_DATA, g->path, "has no general.architecture");
	for (int i = 0; i < N_ARCHS; i++) {
		if (strlen(archs[i].name) == n && memcmp(archs[i].name, s, n) == 0) {
			*a = &archs[i];
			return 0;
		}
		snprintf(known + strlen(known), sizeof(known) - strlen(known), "%s%s",
			 i ? ", " : "", archs[i].name);
	}
	if (n > 64 || strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789-_.") < n)
		return err_set(e, ERR_DATA, g->path, "general.architecture is none of %s", known);
	return err_set(e, ERR_DATA, g->path, "general.architecture '%.*s' is not supported "
		       "(known: %s)", (int)n, s, known);
}

/* ---- values ---------------------------------------------------------------------------- */

/* The file, its architecture and the text that is made. */
struct config {
	const struct gguf *g;
	const struct gguf_arch *arch;
	struct buf out;
	struct err *e;
};

static void arch_key(const struct config *c, const char *name, char *key, size_t cap)
{
	snprintf(key, cap, "%s.%s", c->arch->name, name);
}

static const struct gguf_kv *arch_find(const struct config *c, const char *name)
{
	char key[128];

	arch_key(c, name, key, sizeof(key));
	return gguf_find(c->g, key);
}

static int refuse(const struct config *c, const char *key, const char *fmt, ...)
	QP_PRINTF(3, 4);

static int refuse(const struct config *c, const char *key, const char *fmt, ...)
{
	char where[320], what[256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	snprintf(where, sizeof(where), "%s: %.128s", c->g->path, key);
	return err_set(c->e, ERR_DATA, where, "%s", what);
}

/* A number of either kind.  F32 is taken for the shortest decimal that it can be: 1e-05, not
 * 9.99999974737875e-06, as config.json had it. */
static bool real_value(const struct gguf *g, const struct gguf_kv *kv, double *v)
{
	char text[40];
	int64_t i;

	if (kv->type == GGUF_ARRAY)
		return false;
	if (gguf_int(g, kv, 0, &i)) {
		*v = (double)i;
		return true;
	}
	if (!gguf_real(g, kv, 0, v) || !isfinite(*v))
		return false;
	for (int digits = 1; kv->type == GGUF_F32 && digits <= 9; digits++) {
		snprintf(text, sizeof(text), "%.*g", digits, *v);
		if (strtof(text, NULL) == (float)*v) {
			*v = strtod(text, NULL);
			break;
		}
	}
	return true;
}

static void put_count(struct config *c, const char *json, int64_t v)
{
	buf_printf(&c->out, " \"%s\": %lld,\n", json, (long long)v);
}

static void put_real(struct config *c, const char *json, double v, const char *after)
{
	buf_printf(&c->out, "\"%s\": ", json);
	value_double(&c->out, v);
	buf_puts(&c->out, after);
}

/* ---- keys --------------------------------------------------------------------------------- */

static int check_off(const struct config *c, const struct gguf_kv *kv, const char *key, bool on)
{
	bool b;
	double v;

	if (gguf_bool(c->g, kv, &b) ? b == on : real_value(c->g, kv, &v) && (v != 0) == on)
		return 0;
	return refuse(c, key, "only %s is supported", on ? "true" : "0 or false");
}

static int take_key(struct config *c, const struct row *r)
{
	const struct gguf_kv *kv = arch_find(c, r->name);
	int64_t i;
	double v;
	char key[128];

	arch_key(c, r->name, key, sizeof(key));
	if (!kv)
		return r->needed ? refuse(c, key, "is missing") : 0;
	switch (r->kind) {
	case COUNT:
		if (kv->type == GGUF_ARRAY)
			return refuse(c, key, "a value for each block is not supported");
		if (!gguf_int(c->g, kv, 0, &i) || i < 1)
			return refuse(c, key, "expected an integer from 1 up (it is of type %s)",
				      gguf_type_name(kv->type));
		put_count(c, r->json, i);
		return 0;
	case REAL:
		if (!real_value(c->g, kv, &v) || !(v > 0))
			return refuse(c, key, "expected a number above 0 (it is of type %s)",
				      gguf_type_name(kv->type));
		buf_byte(&c->out, ' ');
		put_real(c, r->json, v, ",\n");
		return 0;
	case ZERO:
		return check_off(c, kv, key, false);
	case TRUE:
		return check_off(c, kv, key, true);
	case ROPE:
	case SAME:
	case PASSED:
		break;
	}
	return 0;
}

/* The first row of this name that the architecture has decides. */
static const struct row *find_row(const struct config *c, const char *name)
{
	for (const struct row *r = rows; r->name; r++)
		if ((r->archs & c->arch->bit) && strcmp(r->name, name) == 0)
			return r;
	return NULL;
}

static int check_known(const struct config *c)
{
	size_t n = strlen(c->arch->name);

	for (size_t i = 0; i < c->g->n_kv; i++) {
		const char *key = c->g->kv[i].key;

		if (strncmp(key, c->arch->name, n) == 0 && key[n] == '.' &&
		    !find_row(c, key + n + 1))
			return refuse(c, key, "is not known for this architecture: it may change "
				      "what is computed");
	}
	return 0;
}

static int take_keys(struct config *c)
{
	for (const struct row *r = rows; r->name; r++)
		if (find_row(c, r->name) == r && take_key(c, r))
			return -1;
	return 0;
}

/* ---- what several keys, or a tensor, say together -------------------------------------- */

static int64_t count_of(const struct config *c, const char *name, int64_t otherwise)
{
	const struct gguf_kv *kv = arch_find(c, name);
	int64_t v;

	return kv && kv->type != GGUF_ARRAY && gguf_int(c->g, kv, 0, &v) ? v : otherwise;
}

static int check_same(const struct config *c, const char *name, int64_t want, const char *what)
{
	char key[128];

	if (!arch_find(c, name) || count_of(c, name, -1) == want)
		return 0;
	arch_key(c, name, key, sizeof(key));
	return refuse(c, key, "is %lld, but %s makes it %lld", (long long)count_of(c, name, -1),
		      what, (long long)want);
}

/* The linear scaling's factor, or 1; -1 when refused. */
static int take_scaling(struct config *c, double *factor)
{
	const struct gguf_kv *type = arch_find(c, "rope.scaling.type");
	const struct gguf_kv *f = arch_find(c, "rope.scaling.factor");
	const struct gguf_kv *attn = arch_find(c, "rope.scaling.attn_factor");
	const char *s = "linear"; /* llama.cpp's default */
	char key[128], text[40];
	uint64_t at = 0;
	size_t n = 6;
	double v;

	*factor = 1;
	arch_key(c, "rope.scaling.attn_factor", key, sizeof(key));
	if (attn && (!real_value(c->g, attn, &v) || v != 1))
		return refuse(c, key, "only 1 is supported");
	arch_key(c, "rope.scaling.type", key, sizeof(key));
	if (type && !gguf_str(c->g, type, &at, &s, &n))
		return refuse(c, key, "expected a string");
	snprintf(text, sizeof(text), "%.*s", n > 32 ? 32 : (int)n, s);
	if (strcmp(text, "none") == 0)
		return 0;
	if (strcmp(text, "linear") != 0)
		return refuse(c, key, "'%s' is not supported (only none and linear)",
			      strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789_-") <
			      strlen(text) ? "?" : text);
	if (!f)
		f = arch_find(c, "rope.scale_linear");
	arch_key(c, "rope.scaling.factor", key, sizeof(key));
	if (f && (!real_value(c->g, f, factor) || *factor < 0))
		return refuse(c, key, "expected a number above 0 (it is of type %s)",
			      gguf_type_name(f->type));
	if (*factor == 0)
		*factor = 1; /* so llama.cpp */
	return 0;
}

/* rope_freqs.weight, F32 [head_dim / 2]: 1 and *m is filled, 0: there is none, or all are 1. */
static int take_freqs(struct config *c, const struct gguf_tensor *t, struct model_config *m)
{
	const long n = m->head_dim / 2;
	bool plain = true;
	float *f;
	int ret;

	if (!t)
		return 0;
	if (t->rank != 1 || t->ne[0] != n || t->type->dtype != DT_F32 || t->type->dequantize)
		return refuse(c, t->name, "expected F32, a factor for each pair of a head");
	f = malloc((size_t)t->nbytes + 1);
	if (!f)
		return err_nomem(c->e, t->name, t->nbytes);
	ret = gguf_read(c->g, t, 0, f, t->nbytes, c->e);
	for (long i = 0; !ret && i < n; i++) {
		plain = plain && f[i] == 1;
		if (!(f[i] > 0 && isfinite(f[i])))
			ret = refuse(c, t->name, "a factor is not above 0");
	}
	if (!ret && !plain) {
		ret = 1;
		if (gguf_rope_llama3(m, f))
			ret = refuse(c, t->name, "its factors are not those of Llama 3's scaling");
	}
	free(f);
	return ret;
}

static int take_rope(struct config *c, int64_t head_dim)
{
	const struct gguf_kv *base = arch_find(c, "rope.freq_base");
	struct model_config m = { .rope_theta = 10000, .head_dim = (long)head_dim };
	double factor;
	int ret;

	if (!base)
		put_real(c, "rope_theta", m.rope_theta, ",\n");
	else if (!real_value(c->g, base, &m.rope_theta))
		return -1; /* take_key has refused it */
	if (take_scaling(c, &factor))
		return -1;
	ret = take_freqs(c, gguf_tensor(c->g, "rope_freqs.weight"), &m);
	if (ret < 0)
		return -1;
	if (ret && factor != 1)
		return refuse(c, "rope_freqs.weight", "beside a linear scaling is not supported");
	if (ret) {
		buf_puts(&c->out, " \"rope_scaling\": {\"rope_type\": \"llama3\", ");
		put_real(c, "factor", m.rope_factor, ", ");
		put_real(c, "low_freq_factor", m.rope_low_freq, ", ");
		put_real(c, "high_freq_factor", m.rope_high_freq, ", ");
		buf_printf(&c->out, "\"original_max_position_embeddings\": %ld},\n",
			   m.rope_original_positions);
	} else if (factor != 1) {
		buf_puts(&c->out, " \"rope_scaling\": {\"rope_type\": \"linear\", ");
		put_real(c, "factor", factor, "},\n");
	}
	return 0;
}

static int put_token(struct config *c, const char *json, const char *key)
{
	const struct gguf_kv *kv = gguf_find(c->g, key);
	int64_t id;

	if (!kv) {
		buf_printf(&c->out, " \"%s\": null,\n", json);
		return 0;
	}
	if (kv->type == GGUF_ARRAY || !gguf_int(c->g, kv, 0, &id) || id < 0 || id > INT32_MAX)
		return refuse(c, key, "expected a token id (it is of type %s)",
			      gguf_type_name(kv->type));
	put_count(c, json, id);
	return 0;
}

/* Is there such a tensor in the first block? */
static const char *has(const struct config *c, const char *name)
{
	return gguf_tensor(c->g, name) ? "true" : "false";
}

static int take_all(struct config *c)
{
	const struct gguf_tensor *embed = gguf_tensor(c->g, "token_embd.weight");
	int64_t heads, head_dim;

	if (!embed || embed->rank != 2)
		return refuse(c, "token_embd.weight", "%s", embed ?
			      "expected two dimensions" : "is missing");
	if (check_known(c) || take_keys(c))
		return -1;
	heads = count_of(c, "attention.head_count", 1);
	head_dim = count_of(c, "attention.key_length",
			    count_of(c, "embedding_length", heads) / heads);
	if (head_dim > 1 << 24)
		return refuse(c, "attention.key_length", "is too large");
	if (check_same(c, "attention.value_length", head_dim, "attention.key_length") ||
	    check_same(c, "rope.dimension_count", head_dim, "the width of a head") ||
	    check_same(c, "vocab_size", embed->ne[1], "token_embd.weight"))
		return -1;
	put_count(c, "vocab_size", embed->ne[1]);
	if (take_rope(c, head_dim) ||
	    put_token(c, "bos_token_id", "tokenizer.ggml.bos_token_id") ||
	    put_token(c, "eos_token_id", "tokenizer.ggml.eos_token_id"))
		return -1;
	if (c->arch->bit == LLAMA)
		buf_printf(&c->out, " \"attention_bias\": %s,\n \"mlp_bias\": %s,\n",
			   has(c, "blk.0.attn_output.bias"), has(c, "blk.0.ffn_down.bias"));
	buf_printf(&c->out, "%s \"tie_word_embeddings\": %s,\n \"hidden_act\": \"silu\"\n}\n",
		   c->arch->fixed, gguf_tensor(c->g, "output.weight") ? "false" : "true");
	return 0;
}

int gguf_config(const struct gguf *g, const struct gguf_arch *a, char **json, size_t *n,
		struct err *e)
{
	struct config c = { .g = g, .arch = a, .e = e };

	buf_printf(&c.out, "{\n \"architectures\": [\"%s\"],\n \"model_type\": \"%s\",\n",
		   a->class_name, a->model_type);
	if (take_all(&c) || buf_failed(&c.out, "config.json", e)) {
		buf_release(&c.out);
		return -1;
	}
	*json = c.out.p;
	*n = c.out.n;
	return 0;
}
