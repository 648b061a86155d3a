/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gguf_tokens.h - a tokenizer as the keys tokenizer.ggml.* of a GGUF file
 *
 * The reverse of tokenizer_gguf.h.  A byte-level BPE becomes model "gpt2" with its merges, one over
 * characters with byte tokens (SentencePiece's) model "llama" with scores: those of
 * tokenizer.model, or minus the rank of the merge that makes the token.  What tokens and merges do
 * not say (how a text is cut: key .pre, whether it gets a space in front) is found by trying: that
 * choice is taken under which the tokenizer made of the keys gives the same ids on a text of many
 * scripts and on the vocabulary's own tokens.
 */
#ifndef QP_GGUF_TOKENS_H
#define QP_GGUF_TOKENS_H

#include "formats/tokenizer_files.h"
#include "formats/tokenizer_gguf.h"

struct gguf_writer;

/* Zero-initialise. */
struct gguf_tokens {
	struct tokenizer_gguf g;
	int64_t pad;              /* .padding_token_id, -1: none */
	struct gguf_text *tokens, *merges;
	float *scores;
	int32_t *types;
	char *text, *merge_text;
};

/* What the model says: its rows of tokens, and config.json's ids (-1: none). */
struct gguf_tokens_model {
	long vocab, bos, eos;
};

/*
 * What f, from which t was built, says, for such a model.  t must live as long as
 * v.  pre: the name of a pre-tokenizer to be written without a trial, or NULL.  ERR_DATA: a
 * Unigram model, more tokens than the model has, no choice that gives the same ids.
 */
int gguf_tokens_make(struct gguf_tokens *v, const struct tokenizer_files *f,
		     const struct tokenizer *t, const struct gguf_tokens_model *c, const char *pre,
		     struct err *e) MUST_USE;
void gguf_tokens_put(const struct gguf_tokens *v, struct gguf_writer *w);
void gguf_tokens_release(struct gguf_tokens *v);

/* Both give the same ids on the text of the trial. */
int gguf_tokens_same(bool *same, const struct tokenizer *a, const struct tokenizer *b,
		     struct err *e) MUST_USE;

#endif
