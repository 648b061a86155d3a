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

/* The hash that a tensor has whose values are data [rows, cols], each row row_bytes. */
int gguf_rows_hash(uint64_t hash[2], const void *data, size_t rows, size_t row_bytes,
		   struct pool *pool, struct err *e) MUST_USE;

#endif
