/* SPDX-License-Identifier: Apache-2.0 */
/*
 * source.h - anything that is a model, as a stream of records
 *
 * A stream file, "-" (standard input), or a model directory: a directory presents itself as the
 * stream that record-acts --stats=none would write of it, read tensor by tensor, so that
 * programs have one loop for all.  Order: stream, file ..., embedding, blocks, final norm, head
 * (an alias when tied).
 */
#ifndef QP_SOURCE_H
#define QP_SOURCE_H

#include "lib/data/stream.h"

struct tokenizer;
struct record;

int source_open(struct stream_in **in, const char *path, struct err *e) MUST_USE;

/*
 * The tokenizer among the `file` records of a stream: call for each REC_FILE record at hand;
 * takes the payload of "tokenizer.json" and builds *t, or copies the record through to out (may
 * be NULL) if it is another.  With out the tokenizer's own record is written to it as well.
 */
int source_take_file(struct tokenizer **t, struct stream_in *in, struct record *rec,
		     struct stream_out *out, struct err *e) MUST_USE;

/* -m: a model directory, a tokenizer.json, or a stream. */
int source_tokenizer(struct tokenizer **t, const char *path, struct err *e) MUST_USE;

#endif
