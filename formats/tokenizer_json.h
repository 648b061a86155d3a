/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tokenizer_json.h - build a tokenizer from a tokenizer.json
 */
#ifndef QP_TOKENIZER_JSON_H
#define QP_TOKENIZER_JSON_H

#include <stddef.h>

#include "lib/base/err.h"

struct tokenizer;

/* Every part is understood or refused by name (ERR_DATA: "normalizer: type 'Foo' is not
 * supported"); nothing is ignored. */
int tokenizer_from_json(struct tokenizer **t, const char *json, size_t n, const char *where,
			struct err *e) MUST_USE;

#endif
