/* SPDX-License-Identifier: Apache-2.0 */
/*
 * runner.h - hidden states carried through a model, block by block, as it streams by
 *
 * What record-acts, gptq --sequential, qp-forward and the programs of formats/carry.h share: what
 * stands in front of the blocks sets the states up, each block moves all of them on, the head is
 * left to the caller.  One block is in memory at a time.
 */
#ifndef QP_RUNNER_H
#define QP_RUNNER_H

#include "lib/compute/backend.h"
#include "lib/data/calib.h"
#include "lib/model/embed.h"
#include "lib/model/ends.h"
#include "lib/model/forward.h"
#include "lib/model/head.h"
#include "lib/model/hidden.h"

/* What goes into the model.  ids [tokens] or, of a model of images, pixels [images, channels, size,
 * size] and tokens = images * max_positions; instead of pixels image(image_ctx, i, to) may give
 * image i, in order, so that they need not all be in memory.  All are kept by reference. */
struct runner_input {
	const int32_t *ids;
	const int32_t *position; /* [tokens], or NULL: each sequence's from 0 */
	const float *pixels;
	int (*image)(void *ctx, size_t i, float *to, struct err *e);
	void *image_ctx;
	size_t tokens, seqlen;   /* seqlen: of the longest sequence */
	const size_t *len;       /* [n] tokens of each sequence; NULL: all have seqlen */
	size_t n;
};

struct runner {
	/* set by the caller */
	struct backend *be;
	const char *spill;     /* directory, or NULL: hidden states in memory */
	bool headless;         /* the head is not asked for: an embedding need not be kept for it */
	bool all_experts;      /* forward_all_experts */
	cache_hook cache;      /* forward_watch_cache's, or NULL */
	void *cache_ctx;
	void (*done)(void *arg, size_t tokens); /* after each slice of a block, or NULL */
	void *arg;
	/* kept here */
	struct model model;
	struct ends ends;
	struct item *front;    /* what runner_embed took last */
	struct hidden hidden;  /* x NULL until the input is known; states from runner_load on */
	struct runner_input input;
	bool embedded, recorded;
	size_t seqlen;         /* longest sequence */
	char calib[40];        /* fingerprint of the set that it came from, or "" */
	struct forward *f;
	double seconds;        /* in forward passes and what hooks do */
};

/* Before the first tensor.  ERR_DATA if seqlen exceeds the model's positions, for an id outside the
 * vocabulary, or if the model takes the other kind of input. */
int runner_input(struct runner *r, const struct runner_input *input, struct err *e) MUST_USE;

/* The same of a calibration set: ERR_DATA if it is not for this model; the message says what makes
 * one that is. */
int runner_calib(struct runner *r, const struct calib *c, struct err *e) MUST_USE;

/* The record at hand, if it is a tensor that stands in front of the blocks: 1, and it is
 * *r->front; 0: it is another record. */
int runner_embed(struct runner *r, struct stream_in *in, const struct record *rec,
		 struct err *e) MUST_USE;

/* Of a model of images whose input is there: the patches of each, one call of the hook an image, at
 * EDGE_PATCH_IN. */
int runner_patches(struct runner *r, edge_hook hook, void *ctx, struct err *e) MUST_USE;

/* Is the record, outside the blocks, a statistic of what flows there? */
bool runner_stat(const struct runner *r, const struct record *rec);
/* Before the first record of the patch embedding: the statistics of what it reads (stats_new),
 * written to out.  1: rec is such a statistic already, to be left out; 0: it is another record. */
int runner_record_front(struct runner *r, const struct record *rec, unsigned which, long samples,
			struct stream_out *out, struct err *e) MUST_USE;

/* Get b's weights ready.  Before the first block the hidden states are set up: ERR_DATA if anything
 * in front of the blocks is missing. */
int runner_load(struct runner *r, struct block *b, struct err *e) MUST_USE;
/* The same for one tensor of a block that is still coming: runner_load passes over it. */
int runner_preload(struct runner *r, struct block *b, enum slot s, struct err *e) MUST_USE;
/* runner_load, then all states, sequence by sequence, through it. */
int runner_block(struct runner *r, struct block *b, edge_hook hook, void *ctx,
		 struct err *e) MUST_USE;

/*
 * All blocks have gone by: the final norm and the head, packed (head_free).  What the blocks took
 * and the tensors themselves are freed.  ERR_DATA if any of them was missing.
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
