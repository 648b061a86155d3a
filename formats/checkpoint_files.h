/* SPDX-License-Identifier: Apache-2.0 */
/*
 * checkpoint_files.h - files of a model that its format does not have, made of what it has
 *
 * A reader of a single-file format makes config.json and the tokenizer's files, so that the
 * family's table checks the former, a stream carries both as if they came from a directory, and
 * whoever reads or writes streams knows one form only.
 */
#ifndef QP_CHECKPOINT_FILES_H
#define QP_CHECKPOINT_FILES_H

#include "formats/tokenizer_files.h"
#include "lib/model/family.h"

/* Zero-initialised: none. */
struct checkpoint_files {
	struct {
		char name[32];
		char *text;
		size_t n;
	} v[TOKF_COUNT + 2];
	int n;
};

/* Takes over text, malloc'ed. */
void checkpoint_files_put(struct checkpoint_files *f, const char *name, char *text, size_t n);
/* config.json: takes over json, and binds the model that it describes.  Errors name path and the
 * key: the user has no such file. */
int checkpoint_files_config(struct checkpoint_files *f, struct model *m, char *json, size_t n,
			    const char *path, struct err *e) MUST_USE;
/* Moves the texts of t, which is empty then. */
void checkpoint_files_tokenizer(struct checkpoint_files *f, struct tokenizer_files *t);

/* For struct checkpoint_ops. */
const char *checkpoint_files_name(const struct checkpoint_files *f, int i);
int checkpoint_files_read(const struct checkpoint_files *f, int i, char **text, size_t *n,
			  struct err *e) MUST_USE;

void checkpoint_files_release(struct checkpoint_files *f);

#endif
