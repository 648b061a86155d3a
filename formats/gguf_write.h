/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gguf_write.h - write a GGUF file (version 3) in one pass, tensors in any order
 *
 * The keys and the number and names of the tensors must be known before the first tensor, their
 * types need not be: the head of the file has its size from the start and is written last.  Room
 * is given to tensors in the order of gguf_writer_tensor, which is also their order in the list
 * (readers check that); a tensor may be written in pieces, and others between them.
 *
 * It shares no code with the reader (gguf.h), which so can be asked whether a file is right.
 */
#ifndef QP_GGUF_WRITE_H
#define QP_GGUF_WRITE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/buf.h"
#include "lib/data/output.h"

struct gguf_written {
	char name[64];
	int rank;
	int64_t ne[4];  /* fastest first */
	uint32_t type;  /* of ggml */
	uint64_t offset, nbytes, have; /* in the data section; have: bytes written */
};

/* Zero-initialise, set out: a regular file, open and empty. */
struct gguf_writer {
	struct output *out;
	struct buf kv;
	uint64_t n_kv;
	struct gguf_written *t;
	size_t n, cap;       /* so far; in all */
	uint64_t data, end;  /* where the data section begins in the file; its bytes so far */
	uint64_t info, room; /* bytes of the list so far, and those kept free for it */
	struct behind *behind;
};

void gguf_writer_release(struct gguf_writer *w);

/* Keys, before gguf_writer_begin.  An array is its head, then its elements. */
void gguf_put_u32(struct gguf_writer *w, const char *key, uint32_t v);
void gguf_put_f32(struct gguf_writer *w, const char *key, float v);
void gguf_put_bool(struct gguf_writer *w, const char *key, bool v);
void gguf_put_str(struct gguf_writer *w, const char *key, const char *s, size_t n);
enum gguf_elem { GGUF_ELEM_I32 = 5, GGUF_ELEM_F32 = 6, GGUF_ELEM_STR = 8 };
void gguf_put_array(struct gguf_writer *w, const char *key, enum gguf_elem type, uint64_t n);
void gguf_put_elem(struct gguf_writer *w, const void *four_bytes);
void gguf_put_elem_str(struct gguf_writer *w, const char *s, size_t n);
/* Changes a value of gguf_put_u32, also when the file has been begun. */
void gguf_change_u32(struct gguf_writer *w, const char *key, uint32_t v);

/* Bytes that a tensor takes in the list. */
uint64_t gguf_writer_listed(const char *name, int rank);
/* No more keys.  n tensors will come, which take `listed` bytes in the list. */
int gguf_writer_begin(struct gguf_writer *w, size_t n, uint64_t listed, struct err *e) MUST_USE;
/* Room for a tensor: its number, or -1.  ERR_DATA for a name that the format cannot hold. */
long gguf_writer_tensor(struct gguf_writer *w, const char *name, uint32_t type, int rank,
			const int64_t *ne, struct err *e) MUST_USE;
/* n bytes of tensor i from its byte `from` on; each byte once. */
int gguf_writer_put(struct gguf_writer *w, long i, uint64_t from, const void *p, size_t n,
		    struct err *e) MUST_USE;
/* What was put so far is in the file. */
int gguf_writer_sync(struct gguf_writer *w, struct err *e) MUST_USE;
/* All tensors are there: the head of the file.  ERR_BUG if something is missing. */
int gguf_writer_end(struct gguf_writer *w, struct err *e) MUST_USE;

#endif
