/* SPDX-License-Identifier: Apache-2.0 */
/*
 * through.h - text through a tokenizer that a fuzz target has built
 *
 * What is refused must say why; ids that come out must have tokens, so that they can be decoded,
 * and to UTF-8.
 */
#ifndef QP_TEST_THROUGH_H
#define QP_TEST_THROUGH_H

#include <stdlib.h>
#include <string.h>

#include "lib/data/tokenizer_impl.h"

static inline void must(int condition)
{
	if (!condition)
		abort();
}

static inline void refused(const struct err *e)
{
	must((e->cls == ERR_DATA || e->cls == ERR_NOMEM) && e->where[0] && e->what[0]);
}

static inline void through(const struct tokenizer *t, const char *text, size_t n)
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

#define THROUGH_TEXT " The  e\xcc\x81nd<s> 12  \xe6\x97\xa5\n\n'LL_\xf0\x9f\x98\x80" \
	"[ud]\xef\xac\x81x\xe2\x96\x81 aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\xc2\xa0"

#endif
