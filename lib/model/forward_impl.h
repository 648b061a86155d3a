/* SPDX-License-Identifier: Apache-2.0 */
/*
 * forward_impl.h - what the files that make up forward.h share: lib/model/forward*.c only
 *
 * A slice's activations lie in one arena on the device.  A token has, side by side:
 *
 *     x [hidden] | a [hidden or q] | q, k, v, then over them gate, up | experts' part
 *
 * a holds the normed input of attention, then attention's output (q, k, v are what it reads),
 * then the normed input of the MLP.  The experts' part: the router's logits, the tokens of one
 * expert gathered, what the expert makes of them.
 */
#ifndef QP_FORWARD_IMPL_H
#define QP_FORWARD_IMPL_H

#include "lib/model/forward.h"
#include "lib/model/run.h"

struct affine; /* a compensation ready for the device (forward_run.c) */
enum { FORWARD_SUMS = PLACE_OUT - PLACE_ATTN_RESID + 1 };

/* The integers that the last input with a quantizer became, for linears that have integers too. */
struct int_linear;
struct int_input {
	struct quant_codes codes;
	const float *x;        /* where the input lies; NULL: none */
	size_t k, groups, cap;
	int32_t *product;
	size_t product_cap;
};

struct route; /* which tokens of a slice go to which expert (forward_experts.c) */

struct forward {
	const struct model *m;
	struct backend *be;
	long layer;                     /* of the weights loaded */
	size_t max_seq;
	size_t hidden, q_dim, kv_dim, ffn; /* ffn: the widest MLP */
	float *cos_, *sin_;             /* [max_seq, head_dim/2], or NULL */
	struct packed **mat;            /* [slots], matrices */
	float **vec;                    /* [slots], norms and biases; NULL: none */
	long *preloaded;                /* [slots] the layer that forward_preload packed, or -1 */
	float *ones, *zeros;            /* [hidden], for norms without gain and bias, or NULL */
	float *wide;                    /* host: a linear dequantized, on its way */
	size_t wide_bytes;
	float *arena;
	size_t arena_tokens;
	float *x, *a, *q, *k, *v, *gate, *up;
	float *scores, *picked, *made;  /* [t, experts], [t, hidden], [t, hidden] */
	bool all_experts;
	bool integers;                  /* --compute=int */
	bool had_integers;          /* some block so far had linears that multiply them */
	struct int_linear **ints;       /* [slots]; NULL: in f32 */
	struct int_input in;
	struct route *route;
	/* what run records ask for */
	struct run_list run;            /* of the block loaded */
	struct hadamard **turns;        /* [n_turns], the orders met so far */
	size_t n_turns;
	size_t seqlen;                  /* tokens of each sequence at hand, 0: they differ */
	struct attention_extra extra;
	struct affine *affine[FORWARD_SUMS]; /* by place; NULL: none */
	float *kept;                    /* keys and values before they were quantized, or NULL */
	float *before;                  /* inputs of the block and of a third, or NULL */
	size_t kept_tokens, before_tokens;
	cache_hook watch;               /* or NULL */
	void *watch_ctx;
};

struct hook {
	edge_hook fn;
	void *ctx;
};

/* Room for so many tokens in the arena; f->x and the others point into it. */
int forward_reserve(struct forward *f, size_t tokens, struct err *e) MUST_USE;

/* Thirds of a slice of t tokens in f->x.  forward_qkv: q, k, v of norm1(x), heads normed, not yet
 * rotated; forward_rope: rows of q and k from `row` on, positions from `position` on in sequences
 * of seqlen; forward_shape: what attention is to be called with, for one sequence. */
int forward_qkv(struct forward *f, size_t t, const struct hook *h, struct err *e) MUST_USE;
int forward_rope(struct forward *f, size_t row, size_t position, size_t t, size_t seqlen,
		 struct err *e) MUST_USE;
struct attention_shape forward_shape(const struct forward *f);
/* x += o(a) */
int forward_slice_out(struct forward *f, size_t t, struct err *e) MUST_USE;
/* x += the MLP of norm2(x), or only as far as the last hook. */
int forward_slice_mlp(struct forward *f, size_t t, bool add, const struct hook *h,
		      struct err *e) MUST_USE;

static inline int hook_call(const struct hook *h, enum edge g, const float *x, size_t t,
			    struct err *e)
{
	return h->fn == NULL ? 0 : h->fn(h->ctx, g, x, t, e);
}

/* forward_int.c */
int int_linear_load(struct forward *f, struct int_linear **dst, struct block *b, enum slot s,
		    struct err *e) MUST_USE;
void int_linear_free(struct forward *f, struct int_linear *l);
int int_linear_run(struct forward *f, const struct int_linear *l, float *y, size_t t,
		   const float *bias, int add, struct err *e) MUST_USE;
int int_input_reserve(struct int_input *in, size_t t, size_t k, size_t groups,
		      struct err *e) MUST_USE;
void int_input_release(struct int_input *in);

static inline int forward_linear(struct forward *f, float *y, size_t n, const float *x, size_t k,
				 size_t t, enum slot w, enum slot bias, int add, struct err *e)
{
	const float *shift = bias == SLOT_NONE ? NULL : f->vec[bias];

	if (f->ints[w] != NULL && f->in.x == x && x != NULL)
		return int_linear_run(f, f->ints[w], y, t, shift, add, e);
	return f->be->ops->linear(f->be, y, n, x, k, t, f->mat[w], shift, add, e);
}

/*
 * forward_run.c.  forward_run: y = x after the ops of a place; y may be x, and stays as it is where
 * the place has none (forward_run_has).  forward_input: what the linears that read an edge read,
 * and its hook: x, or own where ops have changed it; NULL: *e.
 */
int forward_run_load(struct forward *f, struct block *b, struct err *e) MUST_USE;
void forward_run_release(struct forward *f);
bool forward_run_has(const struct forward *f, int place);
int forward_run(struct forward *f, int place, float *y, const float *x, size_t t,
		struct err *e) MUST_USE;
const float *forward_input(struct forward *f, enum edge g, float *own, const float *x, size_t t,
			   const struct hook *h, struct err *e) MUST_USE;
/* Keys and values of t tokens on their way to attention: after forward_qkv those that queries are
 * to read as they are are put aside, and the ops of keys before RoPE done; after forward_rope
 * those of queries, keys and values.  Then what attention is to be told of it, or NULL. */
int forward_keep(struct forward *f, size_t t, struct err *e) MUST_USE;
int forward_cache(struct forward *f, size_t t, struct err *e) MUST_USE;
const struct attention_extra *forward_extra(const struct forward *f);
/* x is the input of what ends at a PLACE_..._RESID or PLACE_OUT: kept if something there wants it;
 * and x is its output: ops of the place. */
int forward_sum_begin(struct forward *f, int place, size_t t, struct err *e) MUST_USE;
int forward_sum_end(struct forward *f, int place, size_t t, struct err *e) MUST_USE;

/* up = act(gate x) * (up x), or act(up x) where there is no gate; n wide.  Then the hook of mid. */
int forward_mid(struct forward *f, const float *x, size_t t, size_t n, enum slot gate,
		enum slot up, enum edge mid, const struct hook *h, struct err *e) MUST_USE;

/* forward_experts.c: x += the experts of a, or only as far as the last hook. */
int forward_experts(struct forward *f, size_t t, bool add, const struct hook *h,
		    struct err *e) MUST_USE;
int route_new(struct route **r, const struct model *m, struct err *e) MUST_USE;
void route_free(struct route *r);
void route_reset(struct route *r);

#endif
