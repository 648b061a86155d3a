/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tokenizer_config.h - what stands beside a tokenizer.model or a vocab.json
 *
 * tokenizer_config.json, special_tokens_map.json and added_tokens.json, each of which may be
 * absent: the class of the tokenizer, its flags, and the tokens that are cut out of a text
 * before anything else.  A named token ("bos_token") is looked for in the first, then in the
 * second file.
 */
#ifndef QP_TOKENIZER_CONFIG_H
#define QP_TOKENIZER_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "formats/tokenizer_files.h"
#include "formats/tokenizer_parts.h"

struct tokenizer;

struct tokenizer_config {
	struct json_doc *doc[TOKF_COUNT]; /* NULL: the file is not there */
	struct part top[TOKF_COUNT];      /* of those that are there */
	const char *cls;                  /* tokenizer_class, or "" */
	const char *model_type;           /* of config.json, or "" */
};

/* dir: as for tokenizer_files_build.  ERR_DATA, naming file and key, also for a setting that
 * changes a text's tokens and is not supported. */
int tokenizer_config_read(struct tokenizer_config *c, const struct tokenizer_files *f,
			  const char *dir, struct err *e) MUST_USE;
void tokenizer_config_release(struct tokenizer_config *c);

/* A boolean of tokenizer_config.json. */
int tokenizer_config_flag(const struct tokenizer_config *c, const char *key, bool otherwise,
			  bool *value, struct err *e) MUST_USE;
/* True if a file has something to say about the key, be it null. */
bool tokenizer_config_has(const struct tokenizer_config *c, const char *key);
/* The text of a named token, NULL if there is none. */
int tokenizer_config_token(const struct tokenizer_config *c, const char *key, const char **text,
			   struct err *e) MUST_USE;

/*
 * Add to t, whose model is complete: added_tokens_decoder, added_tokens.json, then the named
 * tokens (special; one that has no id yet gets the next free one, as in transformers).  They
 * are looked for in the text as it is, before the normalizer.
 */
int tokenizer_config_add(const struct tokenizer_config *c, struct tokenizer *t,
			 struct err *e) MUST_USE;

/* Read stages of a tokenizer.json ("normalizer", "pre_tokenizer", "decoder") into t. */
int tokenizer_config_stages(struct tokenizer *t, const char *json, const char *where,
			    struct err *e) MUST_USE;

/* "DIR/NAME", or NAME: where errors of a file are. */
void tokenizer_file_place(char *where, size_t cap, const char *dir, enum tokenizer_file which);

#endif
