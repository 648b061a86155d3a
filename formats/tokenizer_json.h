/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tokenizer_json.h - build a tokenizer from a tokenizer.json
 */
#ifndef QP_TOKENIZER_JSON_H
#define QP_TOKENIZER_JSON_H

#include <stddef.h>

#include "lib/base/err.h"

struct tokenizer;

/*
 * Every part is understood or refused by name (ERR_DATA: "tokenizer.json: normalizer: type 'Foo'
 * is not supported"); a key that is not known is refused as well.  Models: BPE and Unigram.
 * Normalizers: NFC NFD NFKC NFKD Lowercase StripAccents Strip Prepend Replace ByteLevel Sequence.
 * Pre-tokenizers: ByteLevel Metaspace Split Digits Punctuation Whitespace WhitespaceSplit
 * Sequence.  Post-processors: TemplateProcessing (for one text) ByteLevel RobertaProcessing
 * BertProcessing Sequence.  Decoders: Replace ByteFallback Fuse Strip ByteLevel Metaspace
 * Sequence.  "truncation" and "padding" are defaults for batches of one program, not a part of
 * what a text's tokens are, and are not applied (nor does transformers).
 */
int tokenizer_from_json(struct tokenizer **t, const char *json, size_t n, const char *where,
			struct err *e) MUST_USE;

#endif
