/* SPDX-License-Identifier: Apache-2.0 */
/*
 * runner.h - hidden states carried through a model, block by block, as it streams by
 *
 * What record-acts, eval-ppl and qp-forward share: the embedding sets the states up, each block
 * moves all of them on, the head is left to the caller.  One block is in memory at a time.
 */
#ifndef QP_RUNNER_H
#define QP_RUNNER_H

#include "lib/compute/backend.h"
#include "lib/model/ends.h"
#include "lib/model/forward.h"
#include "lib/model/hidden.h"

struct runner {
	/* set by the caller */
	struct backend *be;
	const char *spill;     /* directory, or NULL: hidden states in memory */
	void (*done)(void *arg, size_t tokens); /* after each slice of a block, or NULL */
	void *arg;
	/* kept here */
	struct model model;
	struct ends ends;
	struct hidden hidden;  /* x NULL until the embedding has been seen */
	size_t seqlen;         /* longest sequence */
	struct forward *f;
	double seconds;        /* in forward passes and what hooks do */
};

/*
 * The record at hand, if it is the embedding: ids [tokens], sequences of at most seqlen, become
 * hidden states.  1: it was, and is in r->ends.embed; 0: it is another record.  ERR_DATA if
 * seqlen exceeds the model's positions, or for an id outside the vocabulary.
 */
int runner_embed(struct runner *r, struct stream_in *in, const struct record *rec,
		 const int32_t *ids, size_t tokens, size_t seqlen, struct err *e) MUST_USE;

/* Get b's weights ready: before the first, ERR_DATA if no embedding has been seen. */
int runner_load(struct runner *r, struct block *b, struct err *e) MUST_USE;
/* runner_load, then all states, sequences of r->seqlen, through it. */
int runner_block(struct runner *r, struct block *b, edge_hook hook, void *ctx,
		 struct err *e) MUST_USE;

/*
 * All blocks have gone by: the final norm and the head, packed (head_free).  What the blocks took
 * and the tensors themselves are freed.  ERR_DATA if the embedding, norm or head was missing.
 */
int runner_head(struct runner *r, struct head **h, struct err *e) MUST_USE;
/* head_nll over all hidden states: nll and target [tokens]. */
int runner_nll(struct runner *r, struct head *h, const int32_t *target, double *nll,
	       struct err *e) MUST_USE;

/* A record outside the blocks that says what the run time must do beside the weights:
 * ERR_VERSION, this version cannot. */
int runner_refuse(const struct record *rec, struct err *e) MUST_USE;

void runner_release(struct runner *r);

#endif
