/* SPDX-License-Identifier: Apache-2.0 */
/*
 * merges.c - fuzz target: vocab.json, merges.txt and tokenizer_config.json, in this order with a
 * NUL between, and text through what they make
 */
#include <stdint.h>

#include "formats/tokenizer_files.h"
#include "tests/fuzz/through.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static const enum tokenizer_file kinds[] = { TOKF_VOCAB, TOKF_MERGES, TOKF_CONFIG };
	struct tokenizer_files f = { 0 };
	struct tokenizer *t;
	struct err e;

	for (int k = 0; k < 3 && n; k++) {
		const uint8_t *nul = k < 2 ? memchr(data, 0, n) : NULL;
		const size_t len = nul ? (size_t)(nul - data) : n;
		char *text = malloc(len + 1);

		must(text != NULL);
		memcpy(text, data, len);
		must(!tokenizer_files_put(&f, kinds[k], text, len, &e));
		data += nul ? len + 1 : len;
		n -= nul ? len + 1 : len;
	}
	if (tokenizer_files_build(&t, &f, NULL, &e)) {
		refused(&e);
	} else {
		through(t, THROUGH_TEXT, strlen(THROUGH_TEXT));
		tokenizer_free(t);
	}
	tokenizer_files_release(&f);
	return 0;
}
