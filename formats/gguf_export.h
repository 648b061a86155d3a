/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gguf_export.h - a model's stream as a GGUF file, and the proof that it is the same model
 *
 * Families llama, mistral (without a window), qwen2, qwen2_moe and qwen3, as architectures llama,
 * qwen2, qwen2moe and qwen3.  Tensors are written as they come, one in memory at a time; experts
 * are put side by side in their stacks, rows of q and k are permuted for llama.  Codes are held
 * by the smallest type of blocks that holds them exactly (gguf_pack.h), or the tensor is refused.
 */
#ifndef QP_GGUF_EXPORT_H
#define QP_GGUF_EXPORT_H

#include "formats/export.h"
#include "lib/data/output.h"

struct pool;

struct gguf_export_options {
	enum dtype dtype;   /* of what has no codes, but for norms and biases (F32); DT_NONE: as
			     * it comes */
	uint32_t type;      /* of what has codes: of ggml, or GGUF_PACK_AUTO */
	bool requantize;    /* what no type holds exactly is rounded, and said */
	bool no_vocab;      /* without a tokenizer */
	const char *pre;    /* the pre-tokenizer's name, not tried; NULL: found */
	const char *name;   /* general.name, or NULL */
	struct pool *pool;
};

/*
 * The stream that export_open has opened into out: open, empty, a regular file with out->temp,
 * which the caller commits.  When it returns the file has been written and opened through the
 * reader (gguf_model.h), which shares no code with this writer: every tensor is bit for bit
 * what the stream has, the configuration is the same, and the tokenizer gives the same ids.
 * ERR_DATA naming what a GGUF file cannot hold; ERR_BUG if what was written is not what it
 * should be.
 */
int gguf_export(struct output *out, struct stream_in *in, struct export *x,
		const struct gguf_export_options *o, struct err *e) MUST_USE;

/* ---- parts, for gguf_export*.c ---------------------------------------------------------- */

struct gguf_tokens_model;
struct gguf_writer;
struct tokenizer;

/* The name of an architecture for a model; ERR_DATA: there is none that computes it. */
int gguf_export_arch(const char **arch, const struct model *m, struct err *e) MUST_USE;
/* The keys general.* and ARCH.*; general.file_type is a placeholder. */
void gguf_export_keys(struct gguf_writer *w, const struct model *m, const char *arch,
		      const char *name);
/* Llama 3's factors [head_dim / 2], by which frequencies are divided: 1 if there are any. */
int gguf_export_factors(const struct model *m, float *factor, struct err *e) MUST_USE;
/* "blk.3.attn_q.weight"; name[64]. */
void gguf_export_name(char *name, enum slot s, long layer);

/* What the file must give back: by name, sorted by gguf_export_check. */
struct gguf_expected {
	char name[128];
	size_t rows, cols;
	uint64_t hash[2];
	bool seen;
};
/* Open path and compare, by so many threads. t: the tokenizer, or NULL. */
int gguf_export_check(const char *path, const struct model *m, struct gguf_expected *v, size_t n,
		      const struct tokenizer *t, int threads, struct err *e) MUST_USE;

#endif
