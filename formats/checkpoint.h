/* SPDX-License-Identifier: Apache-2.0 */
/*
 * checkpoint.h - what a reader of a foreign format offers, and that as a stream
 *
 * A reader has compared the file with the family's table before it hands it out: every tensor of
 * the model is there, in the family's shape and order of rows, as F32, F16 or BF16.
 */
#ifndef QP_CHECKPOINT_H
#define QP_CHECKPOINT_H

#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"
#include "lib/data/stream.h"

struct hf_codes;
struct hf_run;
struct model;
struct stream_in;

struct checkpoint_tensor {
	enum dtype dtype;
	int rank;
	int64_t shape[8];
	uint64_t nbytes;
};

struct checkpoint_ops {
	const struct model *(*model)(const void *self);
	/* By the family's name.  0, or -1: the model has none such. */
	int (*tensor)(const void *self, const char *name, struct checkpoint_tensor *t);
	/* The bytes, dst[nbytes], all values finite. */
	int (*read)(void *self, const char *name, void *dst, struct err *e);
	/* Ask the kernel to read a block's tensors ahead; may be NULL. */
	void (*readahead)(const void *self, long layer);
	/* The i-th file that travels with the model: its name, or NULL; its bytes, malloc'ed. */
	const char *(*file)(const void *self, int i);
	int (*file_read)(const void *self, int i, char **text, size_t *n, struct err *e);
	void (*close)(void *self);
	/* How a linear that is in codes is (hf_quant.h), or NULL; and the payloads of its records.
	 * Both may be NULL. */
	const struct hf_codes *(*codes)(const void *self, const char *name);
	int (*codes_read)(void *self, const char *name, enum role role, void *dst,
			  struct err *e);
	/* n bytes of a tensor from its byte `from` on, as read but not looked at: 0; 1: this one
	 * cannot be had in pieces; -1.  May be NULL. */
	int (*read_piece)(void *self, const char *name, uint64_t from, void *dst, size_t n,
			  struct err *e);
	/* The i-th of what a layer does at run time beside its linears (hf_quant.h): 1, 0: there
	 * are no more, or -1.  May be NULL. */
	int (*run)(const void *self, long layer, size_t i, struct hf_run *r, struct err *e);
};

/* All values are finite, else ERR_DATA with row and column. */
int checkpoint_check_finite(const struct checkpoint_tensor *t, const void *data, const char *name,
			    struct err *e) MUST_USE;

/* Present it as a stream: stream, file ..., embedding, blocks, final norm, head (an alias when
 * tied).  Takes over self, also when it fails. */
int checkpoint_stream(struct stream_in **in, const struct checkpoint_ops *ops, void *self,
		      struct err *e) MUST_USE;

#endif
