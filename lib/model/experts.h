/* SPDX-License-Identifier: Apache-2.0 */
/*
 * experts.h - how many tokens each expert of a block has seen, as a note
 */
#ifndef QP_EXPERTS_H
#define QP_EXPERTS_H

#include "lib/base/buf.h"
#include "lib/model/forward.h"

/*
 * A note of kind "coverage", named "layers.3.mlp.experts", with key "tokens": an array of the
 * tokens that the router has sent to each expert since forward_load; one that was there is
 * replaced.  Nothing for a block without experts.
 */
int experts_note(struct block *b, const struct forward *f, struct err *e) MUST_USE;

/* Is the record such a note? */
bool experts_is_note(const struct record *r);

/* Head of the table that such notes make, and a note's line: experts, tokens sent to all, to the
 * one with fewest and to the one with most, then to each.  1: r is such a note; 0: it is not; -1:
 * ERR_DATA. */
void experts_head(struct buf *out);
int experts_row(struct buf *out, const struct record *r, struct err *e) MUST_USE;

#endif
