/* SPDX-License-Identifier: Apache-2.0 */
/*
 * experts.h - how many tokens each expert of a block has seen, as a note
 */
#ifndef QP_EXPERTS_H
#define QP_EXPERTS_H

#include "lib/model/forward.h"

/*
 * A note of kind "coverage", named "layers.3.mlp.experts", with key "tokens": an array of the
 * tokens that the router has sent to each expert since forward_load; one that was there is
 * replaced.  Nothing for a block without experts.
 */
int experts_note(struct block *b, const struct forward *f, struct err *e) MUST_USE;

#endif
