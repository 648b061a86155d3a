/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tokenizer.c - fuzz target: tokenizer.json files, and text through those that are accepted
 *
 * The input is a file, then, perhaps, a NUL and a text.
 */
#include <stdint.h>

#include "formats/tokenizer_json.h"
#include "tests/fuzz/through.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	const uint8_t *nul = memchr(data, 0, n);
	const size_t json = nul ? (size_t)(nul - data) : n;
	struct tokenizer *t;
	struct err e;

	if (tokenizer_from_json(&t, (const char *)data, json, "tokenizer.json", &e)) {
		refused(&e);
		return 0;
	}
	through(t, THROUGH_TEXT, strlen(THROUGH_TEXT));
	if (nul)
		through(t, (const char *)nul + 1, n - json - 1);
	tokenizer_free(t);
	return 0;
}
