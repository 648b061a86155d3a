/* SPDX-License-Identifier: Apache-2.0 */
/*
 * listing.h - what is in a stream, from its headers alone
 *
 * Add every record, then take one of the texts.  Nothing is printed before the whole stream was
 * seen, so that a damaged one gives an error and no half of a table.
 */
#ifndef QP_LISTING_H
#define QP_LISTING_H

#include "lib/base/buf.h"

struct record;
struct listing;

enum listing_kind {
	LISTING_TABLE,      /* a line a record, then the sums; for people */
	LISTING_JSON,       /* one object, RFC 8259 */
	LISTING_ERRORS,     /* the notes of kind layer-error as a table, and their mean */
	LISTING_ERRORS_TSV, /* the same for programs: a line a note, fields between tabs */
	LISTING_EXPERTS,    /* the notes of kind coverage: tokens sent to each expert (experts.h) */
	LISTING_CLAMP,      /* the notes of kind clamp (clamp_note.h), and their means */
	LISTING_PROVENANCE, /* the pipeline, one line (pipeline.h) */
};

struct listing *listing_new(enum listing_kind kind, struct err *e); /* NULL: ERR_NOMEM */
void listing_free(struct listing *l);
int listing_add(struct listing *l, const struct record *r, struct err *e) MUST_USE;
/* The text, with its line end(s), appended to out.  ERR_DATA when there is nothing to tell: a
 * stream without provenance, without layer errors, experts, or
 * clamps. */
int listing_text(struct listing *l, struct buf *out, struct err *e) MUST_USE;

#endif
