/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sentencepiece.c - fuzz target: SentencePiece models, and text through those that are accepted
 */
#include <stdint.h>

#include "formats/sentencepiece.h"
#include "formats/tokenizer_config.h"
#include "tests/fuzz/through.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static const struct tokenizer_config nothing = { .cls = "", .model_type = "" };
	struct tokenizer *t;
	struct err e;

	if (tokenizer_from_sentencepiece(&t, (const char *)data, n, &nothing, "tokenizer.model",
					 &e)) {
		refused(&e);
		return 0;
	}
	through(t, THROUGH_TEXT, strlen(THROUGH_TEXT));
	tokenizer_free(t);
	return 0;
}
