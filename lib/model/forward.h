/* SPDX-License-Identifier: Apache-2.0 */
/*
 * forward.h - one block forward over many tokens, with a hook at every edge
 *
 * Serves record-acts (statistics), gptq --sequential, eval-ppl and qp-forward.  Works on
 * hidden states x [T, hidden] f32 in place, sequence after sequence, in slices of as many whole
 * sequences as fit 2048 tokens, at least one.
 *
 *     a = norm1(x)                        hook EDGE_ATTN_IN
 *     c = attention(rope(q a), rope(k a), v a)   hook EDGE_ATTN_MID
 *     x += o c
 *     b = norm2(x)                        hook EDGE_MLP_IN
 *     m = act(gate b) * (up b)            hook EDGE_MLP_MID
 *     x += down m
 */
#ifndef QP_FORWARD_H
#define QP_FORWARD_H

#include "lib/compute/backend.h"
#include "lib/model/block.h"
#include "lib/model/hidden.h"

struct forward; /* scratch, rotary tables, packed weights of the block at hand */

/* max_tokens: the longest sequence that will come. */
struct forward *forward_new(const struct model *m, struct backend *be, long max_tokens,
			    struct err *e);
void forward_free(struct forward *f);

/* Pack the weights of b for this backend (all, or one linear that has changed). */
int forward_load(struct forward *f, struct block *b, struct err *e) MUST_USE;
int forward_reload(struct forward *f, struct block *b, enum slot weight, struct err *e) MUST_USE;

/* x [t, width] is a slice at an edge: device memory, to be read during the call only. */
typedef int (*edge_hook)(void *ctx, enum edge e, const float *x, size_t t, struct err *err);

/* x [nseq * seqlen, hidden] is replaced by the block's output.  hook may be NULL. */
int forward_block(struct forward *f, float *x, size_t nseq, size_t seqlen, edge_hook hook,
		  void *ctx, struct err *e) MUST_USE;

/* forward_block over all of h, slice by slice; after each, done(arg, tokens of the slice). */
int forward_all(struct forward *f, struct hidden *h, size_t seqlen, edge_hook hook, void *ctx,
		void (*done)(void *arg, size_t tokens), void *arg, struct err *e) MUST_USE;

/*
 * The three thirds of forward_block, for true-sequential quantization:
 * ctx_out [T, q dim] = attention's output before o (hooks ATTN_IN, ATTN_MID);
 * x += o(ctx);  MLP: hooks MLP_IN, MLP_MID; x is changed only if add.
 */
int forward_attention(struct forward *f, const float *x, float *ctx_out, size_t nseq,
		      size_t seqlen, edge_hook hook, void *ctx, struct err *e) MUST_USE;
int forward_attention_out(struct forward *f, float *x, const float *ctx_in, size_t tokens,
			  struct err *e) MUST_USE;
int forward_mlp(struct forward *f, float *x, size_t tokens, bool add, edge_hook hook, void *ctx,
		struct err *e) MUST_USE;

/* ERR_DATA for an id outside [0, vocab), with its position in ids [t]. */
int forward_check_ids(const struct model *m, const int32_t *ids, size_t t,
		      struct err *e) MUST_USE;
/* Embedding rows of ids [T] into x [T, hidden]; ERR_DATA for an id outside [0, vocab). */
int forward_embed(const struct model *m, const struct item *embed, const int32_t *ids,
		  size_t t, float *x, struct err *e) MUST_USE;

/*
 * Final norm and head.  head: packed by head_load (norm_f_bias NULL: none; head may be the
 * embedding).  nll[i] = -log softmax(logits(x_i))[target_i], natural log, f32 logits, f64 sum,
 * for n rows of x [n, hidden]; target < 0: 0, and no logits are made for the row.  Logits are
 * made in slices of rows.  head_norm: y [n, hidden] = final norm of x.
 */
struct head;
int head_load(struct head **h, const struct model *m, struct backend *be, struct item *norm_f,
	      struct item *norm_f_bias, struct item *head, struct err *e) MUST_USE;
void head_free(struct head *h);
int head_nll(struct head *h, const float *x, size_t n, const int32_t *target, double *nll,
	     struct err *e) MUST_USE;
int head_logits(struct head *h, const float *x, size_t n, float *logits, struct err *e) MUST_USE;
int head_norm(struct head *h, const float *x, size_t n, float *y, struct err *e) MUST_USE;
/* top[i]: target_i, a token of the vocabulary, is the most likely one (the first of equals). */
int head_top(struct head *h, const float *x, size_t n, const int32_t *target, bool *top,
	     struct err *e) MUST_USE;

#endif
