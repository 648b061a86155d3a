/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sentencepiece.h - build a tokenizer from SentencePiece's tokenizer.model
 *
 * A protobuf message ModelProto (sentencepiece_model.proto): pieces with scores and types, how
 * they were trained, how text is normalized.  Models BPE and UNIGRAM, with byte fallback,
 * user-defined symbols, add_dummy_prefix, remove_extra_whitespaces and the normalization rules
 * that a precompiled_charsmap holds (nmt_nfkc, nfkc, ...); segmentation is exactly
 * SentencePiece's.  As transformers has it, control symbols and <unk> are special tokens that a
 * text may name, and each stretch between them is normalized by itself.
 *
 * Refused by name: models WORD and CHAR, treat_whitespace_as_suffix, escape_whitespaces = false,
 * a denormalizer, UNUSED pieces of a BPE that merging makes, fields of the parts that matter
 * which are not known.
 */
#ifndef QP_SENTENCEPIECE_H
#define QP_SENTENCEPIECE_H

#include <stddef.h>

#include "lib/base/err.h"

struct tokenizer;
struct tokenizer_config;

/*
 * c (never NULL, may hold nothing) decides what is put around a text: bos_token in front if
 * add_bos_token (true unless given), eos_token behind if add_eos_token (false); without those
 * names they are the model's own bos_id and eos_id.  legacy = false there: only the beginning
 * of the whole text gets a dummy prefix.
 */
int tokenizer_from_sentencepiece(struct tokenizer **t, const char *model, size_t n,
				 const struct tokenizer_config *c, const char *where,
				 struct err *e) MUST_USE;

/* A piece as the model lists it; type is SentencePiece's number, which is also that of GGUF's
 * token types. */
struct sentencepiece_piece {
	const char *s; /* in the model's text, not NUL-terminated */
	size_t n;
	float score;
	int type;
};
/* All of them, *pieces malloc'ed. */
int sentencepiece_pieces(struct sentencepiece_piece **pieces, size_t *count, const char *model,
			 size_t n, const char *where, struct err *e) MUST_USE;

#endif
