/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tokenizer.c - fuzz target: tokenizer.json files, and text through those that are accepted
 *
 * The input is a file, then, perhaps, a NUL and a text.  What is refused must say why; ids that
 * come out must have tokens, so that they can be decoded, and to UTF-8.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "formats/tokenizer_json.h"
#include "lib/data/tokenizer_impl.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void must(int condition)
{
	if (!condition)
		abort();
}

static void refused(const struct err *e)
{
	must((e->cls == ERR_DATA || e->cls == ERR_NOMEM) && e->where[0] && e->what[0]);
}

static void run(const struct tokenizer *t, const char *text, size_t n)
{
	struct ids ids = { 0 };
	struct err e;
	size_t len;
	char *back;

	if (tokenizer_encode(t, text, n, true, &ids, &e)) {
		refused(&e);
	} else if (tokenizer_decode(t, ids.id, ids.n, false, &back, &len, &e)) {
		refused(&e);
	} else {
		must(tok_utf8_check(back, len) == len);
		free(back);
	}
	ids_release(&ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static const char text[] = " The e\xcc\x81nd<s> 12  \xe6\x97\xa5\n\n'LL_\xf0\x9f\x98\x80x";
	const uint8_t *nul = memchr(data, 0, n);
	const size_t json = nul ? (size_t)(nul - data) : n;
	struct tokenizer *t;
	struct err e;

	if (tokenizer_from_json(&t, (const char *)data, json, "tokenizer.json", &e)) {
		refused(&e);
		return 0;
	}
	run(t, text, strlen(text));
	if (nul)
		run(t, (const char *)nul + 1, n - json - 1);
	tokenizer_free(t);
	return 0;
}
