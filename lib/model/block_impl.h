/* SPDX-License-Identifier: Apache-2.0 */
/*
 * block_impl.h - what the files that make up block.h share: lib/model/block*.c only
 */
#ifndef QP_BLOCK_IMPL_H
#define QP_BLOCK_IMPL_H

#include "lib/model/block.h"
#include "lib/model/codes.h"

/* ---- an item (block_item.c) ---- */

int stat_from_name(const char *s); /* enum stat, or -1 */
/* What it is in any block of the model, alike for the same thing; -1: nothing that we know. */
int item_key(const struct item *it);
/* Give it a buffer of at least nbytes, contents undefined; nothing if it has one. */
int item_reserve(struct item *it, size_t nbytes, struct err *e) MUST_USE;

/* ---- what it has to be (block_check.c); ERR_DATA with its name ---- */

/* Fill slot, edge and stat from the record, and hold it to the model.  layer -1: no block. */
int item_classify(struct item *it, const struct model *m, long layer, struct err *e) MUST_USE;
/* The payload. */
int item_check_finite(const struct item *it, struct err *e) MUST_USE;
/* b does not have it yet. */
int block_check_twice(const struct block *b, const struct item *it, struct err *e) MUST_USE;
/* Every tensor of the table is there, as a weight or as codes with what belongs to them. */
int block_check_complete(struct block *b, struct err *e) MUST_USE;
/* A record between blocks must not be a piece of one. */
int block_check_outside(const struct block *b, struct record *r, struct err *e) MUST_USE;

/* ---- the list of items (block.c) ---- */

/* Room for one more item at the end, without a buffer; it does not count yet. */
struct item *block_slot(struct block *b, struct err *e);
/* item_reserve, from the spare buffers first; nothing for no bytes. */
int block_reserve(struct block *b, struct item *it, size_t nbytes, struct err *e) MUST_USE;
/* Take the item apart: its buffer becomes a spare one. */
int block_retire(struct block *b, struct item *it, struct err *e) MUST_USE;

#endif
