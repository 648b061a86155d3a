/* SPDX-License-Identifier: Apache-2.0 */
/*
 * readback.h - is what was written what it should be?
 *
 * An exporter notes every tensor as its reader (formats/source.h) has to give it back: name, role,
 * type, shape and bytes, of which a hash is kept.  When all is written, the result is read as any
 * program reads a model, by code that has nothing in common with the writer, and compared.
 */
#ifndef QP_READBACK_H
#define QP_READBACK_H

#include "lib/data/stream.h"

struct readback;

int readback_new(struct readback **b, struct err *e) MUST_USE;
void readback_free(struct readback *b);

/* A run record is noted as its payload, role none; one without: type none, rank 0; one of kind
 * hadamard, which may share its place with a quantizer, as "PLACE hadamard".
 * A tensor in one piece; or begun, given in pieces, and ended by the next or by the check. */
int readback_note(struct readback *b, const char *name, enum role role, enum dtype dtype,
		  int rank, const int64_t *shape, const void *data, struct err *e) MUST_USE;
int readback_begin(struct readback *b, const char *name, enum role role, enum dtype dtype,
		   int rank, const int64_t *shape, struct err *e) MUST_USE;
void readback_bytes(struct readback *b, const void *p, size_t n);

struct codes;
/* Codes as the stream has them; the reader will hand them out as type `there`, with this key bits.
 * Where the two types differ both are unpacked, by nobody else's code, and compared as bytes. */
int readback_codes(struct readback *b, const char *name, const struct codes *c, const void *codes,
		   enum dtype there, int bits, struct err *e) MUST_USE;

/* Open path as a model and compare it: all that were noted are there, bit for bit, and no other.
 * ERR_IO naming the first that is not. */
int readback_check(struct readback *b, const char *path, struct err *e) MUST_USE;

#endif
