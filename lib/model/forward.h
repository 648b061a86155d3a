/* SPDX-License-Identifier: Apache-2.0 */
/*
 * forward.h - one block forward over many tokens, with a hook at every edge
 *
 * Serves record-acts (statistics), gptq --sequential, eval-ppl, eval-tasks and qp-forward.  Works
 * on hidden states x [T, hidden] f32 in place, in slices of FORWARD_SLICE tokens: where attention
 * is concerned as many whole sequences as fit, at least one.
 *
 *     a = norm1(x)                        hook EDGE_ATTN_IN
 *     c = attention(rope(q a), rope(k a), v a)   hook EDGE_ATTN_MID
 *     x += o c
 *     b = norm2(x)                        hook EDGE_MLP_IN
 *     m = act(gate b) * (up b)            hook EDGE_MLP_MID
 *     x += down m
 *
 * Where norms stand behind (OPT-350m): a = x, x = norm1(x + o c), b = x, x = norm2(x + down m).
 * Where a layer has experts (Qwen2-MoE), the last two lines are, p being the k largest of
 * softmax(router b):
 *
 *     b_e = b of the tokens routed to e              hook of edge EDGE_X_IN of expert e
 *     m_e = act(gate_e b_e) * (up_e b_e)             hook of edge EDGE_X_MID of expert e
 *     m_s = act(gate_s b) * (up_s b)                 hook EDGE_SHARED_MID
 *     x += sum_e p_e down_e m_e + sigmoid(switch b) down_s m_s
 *
 * An expert that a slice sends no tokens is not hooked there.
 */
#ifndef QP_FORWARD_H
#define QP_FORWARD_H

#include "lib/compute/backend.h"
#include "lib/model/block.h"
#include "lib/model/hidden.h"

/* Tokens of a slice: a GEMM needs 512; threads meet less often in longer ones. */
#define FORWARD_SLICE ((size_t)2048)

struct forward; /* scratch, rotary tables, packed weights of the block at hand */

/* max_tokens: the longest sequence that will come. */
struct forward *forward_new(const struct model *m, struct backend *be, long max_tokens,
			    struct err *e);
void forward_free(struct forward *f);

/* Pack the weights of b for this backend (all, or one linear that has changed). */
int forward_load(struct forward *f, struct block *b, struct err *e) MUST_USE;
int forward_reload(struct forward *f, struct block *b, enum slot weight, struct err *e) MUST_USE;
/* Give the memory of a slice back until the next one: for a program that wants it in between. */
void forward_rest(struct forward *f);
/* Pack one tensor of a block that is still coming: forward_load passes over it, its payload may be
 * gone by then. */
int forward_preload(struct forward *f, struct block *b, enum slot s, struct err *e) MUST_USE;

/* Linears of which weight and input are both quantized to integers multiply integers, from the next
 * forward_load on; ERR_DATA from that of the last block where no block has had one.  Off at first:
 * what is dequantized is multiplied, the same to f32 rounding. */
void forward_integers(struct forward *f, bool on);
/* Linears of the block loaded that do. */
size_t forward_integer_linears(const struct forward *f);

/* Keys and values [t, kv heads * head_dim] as the cache gets them, after their run records, of
 * every slice from now on; NULL: to nobody. */
typedef int (*cache_hook)(void *ctx, bool values, const float *x, size_t t, struct err *err);
void forward_watch_cache(struct forward *f, cache_hook hook, void *ctx);

/* All tokens through all experts, for statistics: hooks of experts see every token; what comes out
 * of the block does not change.  Off at first. */
void forward_all_experts(struct forward *f, bool on);
/* Tokens that the router has sent to each expert since forward_load [experts]; NULL: no experts. */
const uint64_t *forward_routed(const struct forward *f);

/* x [t, width] is a slice at an edge: device memory, to be read during the call only. */
typedef int (*edge_hook)(void *ctx, enum edge e, const float *x, size_t t, struct err *err);

/* x [nseq * seqlen, hidden] is replaced by the block's output.  hook may be NULL. */
int forward_block(struct forward *f, float *x, size_t nseq, size_t seqlen, edge_hook hook,
		  void *ctx, struct err *e) MUST_USE;

/* forward_block over all of h, slice by slice; after each, done(arg, tokens of the slice). */
int forward_all(struct forward *f, struct hidden *h, size_t seqlen, edge_hook hook, void *ctx,
		void (*done)(void *arg, size_t tokens), void *arg, struct err *e) MUST_USE;

/*
 * Sequences that share what they begin with: `stem` tokens, then n branches of len[i] tokens, each
 * of which goes on where the stem ends.  Rows lie in this order.  A stem's keys and values are
 * computed once; the branches attend to them.
 */
struct forward_tree {
	size_t stem, n;
	const size_t *len;
};

/* x [rows of all, hidden] is replaced by the block's output: forward_block of every stem with every
 * branch, to f32 rounding.  All in one slice: memory is that of so many tokens. */
int forward_trees(struct forward *f, float *x, const struct forward_tree *trees, size_t n,
		  struct err *e) MUST_USE;

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

#endif
