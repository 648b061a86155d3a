/* SPDX-License-Identifier: Apache-2.0 */
/*
 * source.h - anything that is a model, as a stream of records
 *
 * A stream file, "-" (standard input), a model directory, a GGUF file or a .bin of llama2.c: the
 * latter three present themselves as the stream that record-acts --stats=none would write of them,
 * read tensor by tensor, so that programs have one loop for all.  Order: stream, file ...,
 * embedding, blocks, final norm, head (an alias when tied).
 */
#ifndef QP_SOURCE_H
#define QP_SOURCE_H

#include "formats/tokenizer_files.h"
#include "lib/data/stream.h"

struct tokenizer;
struct record;

/* What path names: a directory; a file, to judge by its first bytes, not by its name; and what is
 * neither one of ours nor there is taken for a stream. */
enum source_kind { SOURCE_STREAM, SOURCE_DIR, SOURCE_GGUF, SOURCE_LLAMA2C };
enum source_kind source_kind(const char *path);

int source_open(struct stream_in **in, const char *path, struct err *e) MUST_USE;

/*
 * The files of a tokenizer among the `file` records of a stream (tokenizer_files.h): call for each
 * REC_FILE record at hand; keeps the payload if it is one of them.  out, unless NULL, gets every
 * record.  When the last has gone by, tokenizer_files_build makes the tokenizer.
 */
int source_take_file(struct tokenizer_files *f, struct stream_in *in, struct record *rec,
		     struct stream_out *out, struct err *e) MUST_USE;

/* -m: anything that is a model, or one file: tokenizer.json, SentencePiece's model, a GGUF file
 * without tensors. */
int source_tokenizer(struct tokenizer **t, const char *path, struct err *e) MUST_USE;

/* What windows of token ids must fit: 0 each where path has a tokenizer but no model. */
struct source_room {
	long vocab, positions;
};

/* Both; of a directory its config.json is read, no weights.  ids: no text is to be tokenized, so
 * *t is NULL, needed only where there is no model. */
int source_room(struct source_room *room, struct tokenizer **t, const char *path, bool ids,
		struct err *e) MUST_USE;
/* *seqlen, 0 if none was asked for, becomes 2048 or the positions, if these are fewer; ERR_DATA if
 * more were asked for. */
int source_seqlen(long *seqlen, const struct source_room *room, struct err *e) MUST_USE;

#endif
