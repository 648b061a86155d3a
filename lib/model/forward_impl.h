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
	float *ones, *zeros;            /* [hidden], for norms without gain and bias, or NULL */
	float *wide;                    /* host: a linear dequantized, on its way */
	size_t wide_bytes;
	float *arena;
	size_t arena_tokens;
	float *x, *a, *q, *k, *v, *gate, *up;
	float *scores, *picked, *made;  /* [t, experts], [t, hidden], [t, hidden] */
	bool all_experts;
	struct route *route;
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

static inline int forward_linear(struct forward *f, float *y, size_t n, const float *x, size_t k,
				 size_t t, enum slot w, enum slot bias, int add, struct err *e)
{
	return f->be->ops->linear(f->be, y, n, x, k, t, f->mat[w],
				  bias == SLOT_NONE ? NULL : f->vec[bias], add, e);
}

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
