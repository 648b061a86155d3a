/* SPDX-License-Identifier: Apache-2.0 */
/*
 * safetensors_write.h - tensors into the safetensors files of a directory, as they come
 *
 * Nothing is held back: a tensor's bytes go to disk when they come.  The header, which stands in
 * front of them, is written when a file is complete, into room that was left for it, padded with
 * blanks as the format has it.  Tensors stand in the order in which they came, but those whose
 * bytes are not a multiple of 8 stand behind the others, by falling element size, so that every
 * one is aligned to its elements; until then they are in a file of their own.
 *
 * One file is model.safetensors; more, when one would hold more than max_shard bytes of tensors,
 * are model-00001-of-0000N.safetensors and model.safetensors.index.json.
 */
#ifndef QP_SAFETENSORS_WRITE_H
#define QP_SAFETENSORS_WRITE_H

#include "lib/data/dtype.h"
#include "lib/data/outdir.h"

#include <stdint.h>

struct st_writer;

/* dir is open and stays so.  header: bytes that the headers of all tensors need at most, the sum
 * of st_header_room of their names. */
int st_writer_new(struct st_writer **w, struct outdir *dir, uint64_t max_shard, uint64_t header,
		  struct err *e) MUST_USE;
void st_writer_free(struct st_writer *w);
size_t st_header_room(const char *name);

/* A tensor: then its bytes, in pieces of any length, as many as dtype and shape make.  A tensor
 * larger than max_shard has a file to itself.  ERR_BUG for one that comes twice or has too few or
 * too many bytes (the former is told by the next one, or by st_writer_finish). */
int st_writer_begin(struct st_writer *w, const char *name, enum dtype dtype, int rank,
		    const int64_t *shape, struct err *e) MUST_USE;
int st_writer_bytes(struct st_writer *w, const void *p, size_t n, struct err *e) MUST_USE;
/* Both at once. */
int st_writer_put(struct st_writer *w, const char *name, enum dtype dtype, int rank,
		  const int64_t *shape, const void *p, struct err *e) MUST_USE;

/* Headers, final names and the index; every file is on disk. */
int st_writer_finish(struct st_writer *w, struct err *e) MUST_USE;
/* Bytes of tensors so far. */
uint64_t st_writer_total(const struct st_writer *w);

#endif
