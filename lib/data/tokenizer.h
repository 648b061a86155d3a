/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tokenizer.h - text to token ids and back, as a tokenizer.json describes it
 *
 * The stages of Hugging Face's tokenizers, each a list of small steps: added tokens are cut
 * out, the rest is normalized (utf8proc), pre-tokenized (PCRE2), segmented by the model (BPE;
 * O(n log n) in the length of a piece), and the post-processor adds special tokens.  Built by
 * a reader in formats/ (tokenizer_json.h); immutable afterwards and safe to share by threads.
 */
#ifndef QP_TOKENIZER_H
#define QP_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"

struct tokenizer;

struct ids {
	int32_t *id;
	size_t n, cap;
};

void ids_release(struct ids *v);
int ids_push(struct ids *v, int32_t id, struct err *e);

void tokenizer_free(struct tokenizer *t);

/* Appends to out.  special: add what the post-processor adds (BOS).  ERR_DATA for text that is
 * not UTF-8, with the offset of the first bad byte, and for a character that has no token where
 * there is no unknown token either (tokenizers would drop it). */
int tokenizer_encode(const struct tokenizer *t, const char *text, size_t n, bool special,
		     struct ids *out, struct err *e) MUST_USE;

/* *text is malloc'ed, *n bytes, NUL after them.  ERR_DATA for an id outside the vocabulary. */
int tokenizer_decode(const struct tokenizer *t, const int32_t *ids, size_t n, bool skip_special,
		     char **text, size_t *len, struct err *e) MUST_USE;

/* One more than the largest id; whether there is a token of that id; the id of a token's text, or
 * -1; the id that the post-processor puts in front of a text, or -1. */
size_t tokenizer_vocab(const struct tokenizer *t);
bool tokenizer_has(const struct tokenizer *t, int32_t id);
int32_t tokenizer_id(const struct tokenizer *t, const char *token);
int32_t tokenizer_prefix_id(const struct tokenizer *t);
/* ERR_DATA if there are ids that a model of so many tokens has no row for. */
int tokenizer_fits(const struct tokenizer *t, long vocab, struct err *e) MUST_USE;
/* "xxh128:" and 32 hex digits of the file that describes it. */
const char *tokenizer_fingerprint(const struct tokenizer *t);

#endif
