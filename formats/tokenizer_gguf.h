/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tokenizer_gguf.h - the tokenizer that a GGUF file embeds (keys tokenizer.ggml.*)
 *
 * It is turned into the files that the model was converted from, as far as they matter: model
 * "llama" (SentencePiece BPE by scores) into tokenizer.model and tokenizer_config.json, model
 * "gpt2" (byte-level BPE by merges) into tokenizer.json.  So there is one reader of each, and a
 * stream made of a GGUF file carries its tokenizer as `file` records like any other.
 */
#ifndef QP_TOKENIZER_GGUF_H
#define QP_TOKENIZER_GGUF_H

#include <stddef.h>
#include <stdint.h>

#include "formats/tokenizer_files.h"
#include "lib/base/err.h"

struct tokenizer;

/* tokenizer.ggml.token_type */
enum gguf_token { GGUF_TOKEN_UNDEFINED, GGUF_TOKEN_NORMAL, GGUF_TOKEN_UNKNOWN, GGUF_TOKEN_CONTROL,
		  GGUF_TOKEN_USER, GGUF_TOKEN_UNUSED, GGUF_TOKEN_BYTE };

/* A string of the file: not NUL-terminated; it stays the caller's. */
struct gguf_text {
	const char *s;
	size_t n;
};

/* What the keys say.  A flag is 0 or 1, or -1 if the key is absent; an id -1 then. */
struct tokenizer_gguf {
	const char *model;              /* .model: "llama" or "gpt2"; others are refused */
	const char *pre;                /* .pre; NULL: absent, which is "default" */
	const struct gguf_text *tokens; /* .tokens [n] */
	const float *scores;            /* .scores [n]; NULL: absent ("llama" needs them) */
	const int32_t *types;           /* .token_type [n]; NULL: absent, all are normal */
	size_t n;
	const struct gguf_text *merges; /* .merges [n_merges], "a b" ("gpt2" needs them) */
	size_t n_merges;
	int64_t bos, eos, unk;          /* .bos_token_id, .eos_token_id, .unknown_token_id; absent
					 * is 1, 2 and 0 for "llama", as llama.cpp has it */
	int add_bos, add_eos;           /* .add_bos_token: absent is true for "llama", false for
					 * "gpt2" but for its pre-tokenizer "llama-bpe";
					 * .add_eos_token: absent is false */
	int add_space_prefix;           /* .add_space_prefix: absent is true for "llama" */
	int remove_extra_whitespaces;   /* .remove_extra_whitespaces: absent is false */
};

/*
 * Put the files into f (zero-initialised).  ERR_DATA, at where ("tokenizer.ggml.pre", ...): a
 * model, a pre-tokenizer or a token type that is not known, an array that is missing, a text
 * that is not UTF-8, an id out of range; ERR_NOMEM.
 */
int tokenizer_gguf_files(struct tokenizer_files *f, const struct tokenizer_gguf *g,
			 struct err *e) MUST_USE;

/* The same, and tokenizer_files_build of it. */
int tokenizer_from_gguf(struct tokenizer **t, const struct tokenizer_gguf *g,
			struct err *e) MUST_USE;

#endif
