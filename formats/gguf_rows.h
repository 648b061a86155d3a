/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gguf_rows.h - the rows of one tensor on their way into a GGUF file
 *
 * Rows are made in parallel, in pieces of some MiB, and written in order; each leaves a hash of its
 * values behind.  What a row is made of: codes, or floats of one type to be written as another.
 */
#ifndef QP_GGUF_ROWS_H
#define QP_GGUF_ROWS_H

#include <stdint.h>

#include "formats/gguf_pack.h"
#include "formats/gguf_write.h"
#include "lib/data/dtype.h"

struct pool;
struct stream_in;

struct gguf_rows {
	/* set by the caller */
	const char *name;
	size_t rows, cols;
	size_t head;              /* rows of a head, if permuted to rotated pairs; else 0 */
	const struct gguf_codes *codes; /* or NULL: */
	struct gguf_packing packing;
	const void *data;         /* floats [rows, cols] */
	enum dtype from, to;      /* F32, F16, BF16 */
	struct pool *pool;
	/* found */
	uint64_t hash[2];         /* of all values, as a reader of the file must see them */
	bool rounded;             /* floats: some value was not held exactly */
	double error, norm;       /* sums of squares: of the difference to the stream, of it */
};

/* Into tensor `index` of w from its byte `at` on.  ERR_DATA: a value does not fit. */
int gguf_rows_write(struct gguf_rows *r, struct gguf_writer *w, long index, uint64_t at,
		    struct err *e) MUST_USE;

/* The hash that a tensor has whose values come in pieces, rows of row_bytes in all. */
struct gguf_rows_sum {
	struct hash *row;    /* of the one at hand */
	uint64_t *hash;      /* [rows] */
	size_t n, rows, row_bytes, have; /* rows done; bytes of the one at hand */
};
/* Zero-initialised, or used before.  Release it also after an error. */
int gguf_rows_sum_begin(struct gguf_rows_sum *s, const char *name, size_t rows, size_t row_bytes,
			struct err *e) MUST_USE;
void gguf_rows_sum_add(struct gguf_rows_sum *s, const void *p, size_t n);
void gguf_rows_sum_end(const struct gguf_rows_sum *s, uint64_t hash[2]);
void gguf_rows_sum_release(struct gguf_rows_sum *s);

/* Floats that stay as they are and where they are, from the stream into tensor `index`: r->rows,
 * cols and from, found is hash.  ERR_DATA for a value that is not finite. */
int gguf_rows_pass(struct gguf_rows *r, struct gguf_writer *w, long index, struct stream_in *in,
		   struct err *e) MUST_USE;

#endif
