/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gguf_model.h - a GGUF file as a model: architectures llama, qwen2, qwen2moe and qwen3
 *
 * Keys become the config.json that the model was converted from, as far as it matters, so that the
 * family's table checks and completes it; it travels with the model, and so do the files that the
 * embedded tokenizer is turned into (tokenizer_gguf.h) and the chat template.  Tensors take the
 * names of the family's table: rows of q and k that llama.cpp's converter has permuted for llama
 * are put back, stacks of experts are taken apart, and quantized ones are handed out as F32.
 *
 * A key of the architecture, or a tensor, that is not known here is refused by name: it may change
 * the arithmetic.
 */
#ifndef QP_GGUF_MODEL_H
#define QP_GGUF_MODEL_H

#include "formats/gguf.h"
#include "formats/tokenizer_files.h"

struct model;
struct model_config;
struct stream_in;
struct tokenizer;

/* The model of a file as a stream (checkpoint.h).  ERR_NOINPUT if it is not there; ERR_DATA. */
int gguf_model_open(struct stream_in **in, const char *path, struct err *e) MUST_USE;
/* The tokenizer of a file, which may hold nothing else. */
int gguf_model_tokenizer(struct tokenizer **t, const char *path, struct err *e) MUST_USE;

/* ---- parts, for gguf_*.c and their tests ---------------------------------------------- */

struct gguf_arch {
	const char *name, *model_type; /* general.architecture; config.json's */
	const char *class_name;        /* config.json's "architectures" */
	bool permuted;                 /* rows of q and k are in pairs (rotary positions turn
					* neighbours), not in halves */
	unsigned bit;                  /* in the rows of keys */
	const char *fixed;             /* more of config.json: what the architecture implies */
};

/* Which it is: ERR_DATA lists those known. */
int gguf_arch(const struct gguf_arch **a, const struct gguf *g, struct err *e) MUST_USE;
/* config.json, malloc'ed. */
int gguf_config(const struct gguf *g, const struct gguf_arch *a, char **json, size_t *n,
		struct err *e) MUST_USE;
/* What the keys tokenizer.ggml.* make; f stays empty if there are none. */
int gguf_tokenizer(const struct gguf *g, struct tokenizer_files *f, struct err *e) MUST_USE;

/*
 * The parameters of Llama 3's scaling that make factor[head_dim / 2], by which llama.cpp divides
 * the frequencies (rope_freqs.weight): sets rope, rope_factor, rope_low_freq, rope_high_freq and
 * rope_original_positions of c, whose rope_theta and head_dim are set.  The parameters are those
 * of the published models if these fit, else any that do (they are not unique: low, high and the
 * positions may be multiplied by one number).  -1 if none do to 1e-5.
 */
int gguf_rope_llama3(struct model_config *c, const float *factor);

#endif
