/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tokenizer_parts.h - between tokenizer_json.c and the readers of the parts of a tokenizer.json
 *
 * Keys that an old file may lack have the defaults of Hugging Face's `tokenizers`; keys that
 * are not known are refused, for they may change what the tokenizer does.
 */
#ifndef QP_TOKENIZER_PARTS_H
#define QP_TOKENIZER_PARTS_H

#include <stdbool.h>
#include <stddef.h>

#include "formats/json.h"
#include "lib/base/err.h"

struct tokenizer;

/* One component at hand: where errors place it ("tokenizer.json: pre_tokenizer: Split"). */
struct part {
	const struct json *v;
	char where[200];
	struct err *e;
};

/* ERR_DATA at p->where; -1. */
int part_bad(const struct part *p, const char *fmt, ...) QP_PRINTF(2, 3);
/* A value of p, with its name added to where. */
void part_below(struct part *to, const struct part *p, const struct json *v, const char *name);
/* p is an object and all its keys are among `keys`, names between spaces. */
int part_keys(const struct part *p, const char *keys) MUST_USE;
bool part_absent(const struct json *v); /* not there, or null */
int part_bool(const struct part *p, const char *key, bool otherwise, bool *out) MUST_USE;
int part_str(const struct part *p, const char *key, const char **s, size_t *n) MUST_USE;
/* A malloc'ed copy with a NUL after it. */
int part_dup(const struct part *p, const char *s, size_t n, char **out) MUST_USE;
/* The component's "type", which then also ends p->where. */
int part_type(struct part *p, const char **type) MUST_USE;
/* ERR_DATA: "KIND type 'Foo' is not supported", where the type ends p->where. */
int part_unsupported(struct part *p, const char *kind);

/* Texts of tokens to ids, into the vocabulary (tokenizer_json.c). */
int part_vocabulary(struct tokenizer *t, const struct part *p, const struct json *v) MUST_USE;

/* The stages (tokenizer_stages.c): append the steps of the component p to t; depth 0. */
int part_normalizer(struct tokenizer *t, const struct part *p, int depth) MUST_USE;
int part_pre_tokenizer(struct tokenizer *t, const struct part *p, int depth) MUST_USE;
int part_decoder(struct tokenizer *t, const struct part *p, int depth) MUST_USE;
int part_post_processor(struct tokenizer *t, const struct part *p, int depth) MUST_USE;

#endif
