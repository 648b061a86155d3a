/* SPDX-License-Identifier: Apache-2.0 */
/*
 * corpus.h - what calibration sets are made of: text files, JSON Lines, lines of token ids
 */
#ifndef QP_CORPUS_H
#define QP_CORPUS_H

#include <stdbool.h>
#include <stddef.h>

#include "lib/base/err.h"
#include "lib/data/tokenizer.h"

struct calib;
struct source_room;

struct corpus {
	struct ids ids; /* all documents, one after the other */
	size_t *docs;   /* [ndocs] tokens of each */
	size_t ndocs, cap;
};

void corpus_release(struct corpus *c);

struct corpus_options {
	const char *field;  /* a document is this string of a JSON line; NULL: a file */
	bool separate;      /* tokenize each document by itself, with its special tokens */
};

/*
 * The documents of the n files (none: standard input).  Not separate: their texts are joined
 * with an empty line between ("\n\n", as WikiText-2 is for perplexity) and tokenized once, so
 * that a BOS stands at the very start only, and count as one document.  ERR_DATA, where "FILE" or
 * "FILE: line N": no JSON object, no such field, not UTF-8; and when there is no text at all.
 */
int corpus_read(struct corpus *c, const struct tokenizer *t, const char *const *files, size_t n,
		const struct corpus_options *opt, struct err *e) MUST_USE;

/* A window for each line of ids in path (NULL or "-": standard input).  ERR_DATA with the line's
 * number if lines differ in length, if an id is not in the model's vocabulary (where room
 * knows none, that of t, unless NULL), or if there are more than it has positions. */
int corpus_windows(struct calib *c, const struct tokenizer *t, const struct source_room *room,
		   const char *path, struct err *e) MUST_USE;

#endif
