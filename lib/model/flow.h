/* SPDX-License-Identifier: Apache-2.0 */
/*
 * flow.h - blocks on their way through a model, a tensor at a time
 *
 * Where weights are run and not changed, a block need not stand in memory as it is stored: each
 * tensor is made ready for the forward pass as it comes (runner_preload), written if there is
 * somewhere to write, and its memory given back.  So one tensor as stored stands beside the block
 * in the form that is computed with; codes wait until scale, zero and perhaps a weight have come.
 *
 * Statistics, and notes of experts' coverage where the model is run, are not read; references
 * neither, if nothing is written.
 */
#ifndef QP_FLOW_H
#define QP_FLOW_H

#include "lib/model/runner.h"

struct flow {
	struct block_hook hook;
	struct runner *run;      /* or NULL: nothing is run */
	struct stream_out *out;  /* or NULL: nothing is written */
	/* of the block at hand */
	long layer;
	bool begun;              /* its "block" has been written */
	bool keep;               /* a part of a linear stands by itself: all stays in memory */
	enum slot held, last;    /* whose codes wait; whose weight came last */
};

/* From now on blocks that are read into b, which was initialised, flow. */
void flow_init(struct flow *f, struct block *b, struct runner *run, struct stream_out *out);
/* After each block, when what was added to it is there: the rest of it and "block-end" are
 * written.  Statistics that were added with the hook (stats_store) have been before. */
int flow_end(struct flow *f, struct block *b, struct err *e) MUST_USE;

#endif
