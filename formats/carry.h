/* SPDX-License-Identifier: Apache-2.0 */
/*
 * carry.h - token sequences, or images, carried through a model, from operand to packed head
 *
 * The loop that programs share which score a model: open anything that is one (source.h), ask
 * for the sequences once the tokenizer is known, then block after block; one is in memory.
 */
#ifndef QP_CARRY_H
#define QP_CARRY_H

#include "formats/imageset.h"
#include "formats/tokenizer_files.h"
#include "lib/data/tokenizer.h"
#include "lib/model/runner.h"

struct carry {
	/* set by the caller; in run: be, spill, done, arg */
	struct runner run;
	bool images; /* images will be given, else text: refused if the model takes the other */
	/* Before the first tensor, run.model and tok (NULL: the model carries none) being known:
	 * sets ids [tokens], which stay its own, seqlen, the longest sequence, and perhaps
	 * position.  Of images: image_model being known, set, which stays its own, and the
	 * tokens of its first images. */
	int (*ready)(void *ctx, struct carry *c, struct err *e);
	/* All hidden states through a block whose weights are loaded; NULL: as sequences of
	 * seqlen. */
	int (*pass)(void *ctx, struct carry *c, struct err *e);
	void *ctx;
	const int32_t *ids;
	const int32_t *position; /* [tokens], or NULL: sequences of seqlen, each from 0 */
	size_t tokens, seqlen;
	struct imageset *set;
	/* kept here */
	bool started;
	struct image_model image_model;
	struct tokenizer_files files;
	struct tokenizer *tok;
	struct stream_in *in;
};

/* Opens path and binds its model.  ERR_DATA when it carries none. */
int carry_open(struct carry *c, const char *path, struct err *e) MUST_USE;
/* Reads it to its end.  The hidden states behind the last block are in run.hidden, the final norm
 * and the head in *head (head_free). */
int carry_through(struct carry *c, struct head **head, struct err *e) MUST_USE;
void carry_close(struct carry *c);

#endif
