/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ends.h - what lies outside the blocks: embedding in front, final norm and head behind
 */
#ifndef QP_ENDS_H
#define QP_ENDS_H

#include "lib/model/block.h"
#include "lib/model/forward.h"

struct ends {
	struct item embed, norm_f, norm_f_bias, head;
};

/*
 * The record at hand, read between blocks: 1 if it is an end of the model and has been taken
 * (into the item whose slot it has), 0 if it is none of ours and has not been touched.  An alias
 * of the embedding is taken as the head.  ERR_DATA for one that comes twice or does not fit.
 */
int ends_take(struct ends *n, const struct model *m, struct stream_in *in,
	      const struct record *rec, struct err *e) MUST_USE;

/* ERR_DATA naming the tensor if the stream had no embedding; no final norm or no head. */
int ends_need_embed(const struct ends *n, const struct model *m, struct err *e) MUST_USE;
int ends_load_head(struct ends *n, const struct model *m, struct backend *be, struct head **h,
		   struct err *e) MUST_USE;

/* The embedding's payload is needed no more (an untied head, or none); that it was seen stays
 * known. */
void ends_drop_embed(struct ends *n);
void ends_release(struct ends *n);

#endif
