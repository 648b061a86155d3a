/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tokenizer_files.h - the files that describe a model's tokenizer, and the choice among them
 *
 * A model has one of three: tokenizer.json; SentencePiece's tokenizer.model; vocab.json with
 * merges.txt.  Beside the latter two stand tokenizer_config.json, special_tokens_map.json and
 * added_tokens.json, and config.json's model_type where tokenizer_config.json names no class.
 * They are collected from a directory, from the `file` records of a stream, or made of what a
 * GGUF file embeds, and then built from, by the same rule: tokenizer.json, else tokenizer.model,
 * else vocab.json and merges.txt, as transformers chooses.
 */
#ifndef QP_TOKENIZER_FILES_H
#define QP_TOKENIZER_FILES_H

#include <stdbool.h>
#include <stddef.h>

#include "lib/base/err.h"

struct tokenizer;

enum tokenizer_file { TOKF_JSON, TOKF_MODEL, TOKF_VOCAB, TOKF_MERGES, TOKF_CONFIG, TOKF_SPECIAL,
		      TOKF_ADDED, TOKF_MODEL_CONFIG, TOKF_COUNT };

/* Zero-initialised: none. */
struct tokenizer_files {
	struct {
		char *text; /* malloc'ed; NULL: not there */
		size_t n;
	} file[TOKF_COUNT];
};

/* "tokenizer.json" and so on; the kind of a name, or TOKF_COUNT if it is none of them. */
const char *tokenizer_file_name(enum tokenizer_file which);
enum tokenizer_file tokenizer_file_kind(const char *name);

/* Takes over text (malloc'ed), also when it fails: ERR_DATA if the file is there already. */
int tokenizer_files_put(struct tokenizer_files *f, enum tokenizer_file which, char *text, size_t n,
			struct err *e) MUST_USE;
/* True if there is something to build a tokenizer from. */
bool tokenizer_files_any(const struct tokenizer_files *f);
/* Frees the texts; f is as if zero-initialised. */
void tokenizer_files_release(struct tokenizer_files *f);

/*
 * Build from what was collected.  dir is put before the file's name in errors ("models/x", or
 * NULL: the name alone).  The fingerprint is that of tokenizer.json where that is used, else of
 * all others but config.json.  ERR_DATA: none of the three is there, vocab.json without
 * merges.txt or the reverse, or as the reader of the file says.
 */
int tokenizer_files_build(struct tokenizer **t, const struct tokenizer_files *f, const char *dir,
			  struct err *e) MUST_USE;
/* The same of a tokenizer.json or a tokenizer.model that is called otherwise: where errors are. */
int tokenizer_files_build_as(struct tokenizer **t, const struct tokenizer_files *f,
			     const char *where, struct err *e) MUST_USE;

#endif
