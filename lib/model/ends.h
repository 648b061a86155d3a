/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ends.h - what lies outside the blocks: embedding, positions, projection in front; final norm,
 * projection, head behind
 */
#ifndef QP_ENDS_H
#define QP_ENDS_H

#include "lib/model/block.h"

struct ends {
	struct item item[SLOT_COUNT - SLOT_BLOCK_COUNT];
	struct block front;  /* codes of those in front (block_take_front) */
};

struct item *ends_item(struct ends *n, enum slot s);
/* The slot of a tensor's record that stands outside the blocks, or SLOT_NONE; and whether it stands
 * before them. */
enum slot ends_slot(const struct model *m, const struct record *rec);
bool ends_in_front(enum slot s);

/*
 * The record at hand, read between blocks: 1 if it is an end of the model and has been taken
 * (into the item of its slot), 0 if it is none of ours and has not been touched.  An alias
 * of the embedding is taken as the head; codes of a linear in front wait until ends_need_front.
 * ERR_DATA for one that comes twice or does not fit.
 */
int ends_take(struct ends *n, const struct model *m, struct stream_in *in,
	      const struct record *rec, struct err *e) MUST_USE;

/* ERR_DATA naming the tensor if one in front of the blocks, or behind them, has not come. */
int ends_need_front(struct ends *n, const struct model *m, struct err *e) MUST_USE;
int ends_need_back(struct ends *n, const struct model *m, struct err *e) MUST_USE;

/* The payloads of those in front are needed no more, but for the embedding if keep_embed (a tied
 * head); that they were seen stays known. */
void ends_drop_front(struct ends *n, bool keep_embed);
void ends_release(struct ends *n);

#endif
