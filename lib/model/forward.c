/* SPDX-License-Identifier: Apache-2.0 */
/*
 * forward.c - one block forward, slice by slice of whole sequences
 *
 * A slice's activations lie in one arena on the device.  A token has, side by side:
 *
 *     x [hidden] | a [hidden or q] | q, k, v, then over them gate, up
 *
 * a holds the normed input of attention, then attention's output (q, k, v are what it reads),
 * then the normed input of the MLP.
 */
#include "lib/model/forward.h"

#include <math.h>
#include <stdlib.h>

#include "lib/model/device.h"
#include "lib/model/rope.h"

#define SLICE_TOKENS 2048 /* a GEMM needs 512; threads meet less often in longer slices */

struct forward {
	const struct model *m;
	struct backend *be;
	size_t max_seq;
	size_t hidden, q_dim, kv_dim, ffn;
	float *cos_, *sin_;             /* [max_seq, head_dim/2], or NULL */
	struct packed *mat[SLOT_BLOCK_COUNT];
	float *vec[SLOT_BLOCK_COUNT];   /* norms and biases; NULL: none */
	float *wide;                    /* host: a linear dequantized, on its way */
	size_t wide_bytes;
	float *arena;
	size_t arena_tokens;
	float *x, *a, *q, *k, *v, *gate, *up;
};

struct hook {
	edge_hook fn;
	void *ctx;
};

static int call(const struct hook *h, enum edge g, const float *x, size_t t, struct err *e)
{
	return h->fn == NULL ? 0 : h->fn(h->ctx, g, x, t, e);
}

static size_t larger(size_t a, size_t b)
{
	return a > b ? a : b;
}

static int make_rope(struct forward *f, struct err *e)
{
	const size_t nbytes = f->max_seq * (size_t)(f->m->cfg.head_dim / 2) * sizeof(float);
	float *host;
	int ret;

	if (f->m->cfg.rope == ROPE_NONE)
		return 0;
	host = malloc(2 * nbytes);
	if (host == NULL)
		return err_nomem(e, "rotary tables", 2 * nbytes);
	f->cos_ = f->be->ops->alloc(f->be, nbytes, e);
	f->sin_ = f->cos_ != NULL ? f->be->ops->alloc(f->be, nbytes, e) : NULL;
	ret = f->sin_ == NULL ? -1 : rope_tables(&f->m->cfg, f->max_seq, host,
						 host + nbytes / sizeof(*host), e);
	if (ret == 0)
		ret = f->be->ops->upload(f->be, f->cos_, host, nbytes, e);
	if (ret == 0)
		ret = f->be->ops->upload(f->be, f->sin_, host + nbytes / sizeof(*host), nbytes, e);
	free(host);
	return ret;
}

struct forward *forward_new(const struct model *m, struct backend *be, long max_tokens,
			    struct err *e)
{
	struct forward *f = calloc(1, sizeof(*f));

	if (f == NULL) {
		err_nomem(e, "forward", sizeof(*f));
		return NULL;
	}
	f->m = m;
	f->be = be;
	f->max_seq = max_tokens > 0 ? (size_t)max_tokens : 1;
	f->hidden = (size_t)model_dim(m, DIM_HIDDEN);
	f->q_dim = (size_t)model_dim(m, DIM_Q);
	f->kv_dim = (size_t)model_dim(m, DIM_KV);
	f->ffn = (size_t)model_dim(m, DIM_FFN);
	if (make_rope(f, e) < 0) {
		forward_free(f);
		return NULL;
	}
	return f;
}

void forward_free(struct forward *f)
{
	if (f == NULL)
		return;
	for (int s = 0; s < SLOT_BLOCK_COUNT; s++) {
		if (f->mat[s] != NULL)
			f->be->ops->pack_free(f->be, f->mat[s]);
		if (f->vec[s] != NULL)
			f->be->ops->free(f->be, f->vec[s]);
	}
	if (f->cos_ != NULL)
		f->be->ops->free(f->be, f->cos_);
	if (f->sin_ != NULL)
		f->be->ops->free(f->be, f->sin_);
	if (f->arena != NULL)
		f->be->ops->free(f->be, f->arena);
	free(f->wide);
	free(f);
}

/* ---- weights -------------------------------------------------------------------- */

static int load_codes(struct forward *f, struct block *b, enum slot s, struct err *e)
{
	int64_t shape[2];
	size_t nbytes;

	model_shape(f->m, s, shape);
	nbytes = (size_t)(shape[0] * shape[1]) * sizeof(*f->wide);
	if (nbytes > f->wide_bytes) {
		free(f->wide);
		f->wide_bytes = 0;
		f->wide = malloc(nbytes);
		if (f->wide == NULL)
			return err_nomem(e, "forward", nbytes);
		f->wide_bytes = nbytes;
	}
	if (block_dequantize(b, s, f->wide, e) < 0)
		return -1;
	return f->be->ops->pack(f->be, &f->mat[s], f->wide, DT_F32, (size_t)shape[0],
				(size_t)shape[1], e);
}

static int load_slot(struct forward *f, struct block *b, enum slot s, struct err *e)
{
	const struct item *it;

	if (model_row(f->m, s)->cols == DIM_NONE) {
		it = block_find(b, s, ROLE_WEIGHT);
		if (it == NULL)
			return err_set(e, ERR_BUG, "forward", "a vector of block %ld is missing",
				       b->layer);
		return device_vector(f->be, &f->vec[s], it,
				     (size_t)model_dim(f->m, model_row(f->m, s)->rows), e);
	}
	it = block_find(b, s, ROLE_WEIGHT);
	return it != NULL ? device_matrix(f->be, &f->mat[s], it, e) : load_codes(f, b, s, e);
}

/* What the run time must do beside the weights is not done here: not to be passed over. */
static int check_plain(const struct block *b, struct err *e)
{
	for (size_t i = 0; i < b->n; i++) {
		const struct item *it = &b->items[i];

		if (it->rec.type == REC_RUN || it->rec.role == ROLE_COMP ||
		    it->rec.role == ROLE_PERM)
			return err_set(e, ERR_VERSION, it->rec.name,
				       "%s record: this version cannot run it",
				       it->rec.type == REC_RUN ? "run" : role_name(it->rec.role));
		if (it->rec.type == REC_TENSOR && it->slot == SLOT_NONE &&
		    (it->rec.role == ROLE_WEIGHT || it->rec.role == ROLE_BIAS))
			return err_set(e, ERR_DATA, it->rec.name,
				       "this model's configuration has no such tensor");
	}
	return 0;
}

int forward_load(struct forward *f, struct block *b, struct err *e)
{
	if (check_plain(b, e) < 0)
		return -1;
	for (int s = 0; s < SLOT_BLOCK_COUNT; s++)
		if (model_has(f->m, s) && load_slot(f, b, s, e) < 0)
			return -1;
	return 0;
}

int forward_reload(struct forward *f, struct block *b, enum slot weight, struct err *e)
{
	return load_slot(f, b, weight, e);
}

/* ---- slices --------------------------------------------------------------------- */

/* Sequences in a slice: as many as fit SLICE_TOKENS, at least one. */
static size_t slice_sequences(size_t nseq, size_t seqlen)
{
	const size_t n = seqlen < SLICE_TOKENS ? SLICE_TOKENS / seqlen : 1;

	return n < nseq ? n : nseq;
}

static int reserve(struct forward *f, size_t tokens, struct err *e)
{
	const size_t a = larger(f->hidden, f->q_dim);
	const size_t mid = f->m->family->gated ? 2 * f->ffn : f->ffn;
	const size_t width = f->hidden + a + larger(f->q_dim + 2 * f->kv_dim, mid);

	if (tokens > f->arena_tokens) {
		if (f->arena != NULL)
			f->be->ops->free(f->be, f->arena);
		f->arena_tokens = 0;
		f->arena = f->be->ops->alloc(f->be, tokens * width * sizeof(float), e);
		if (f->arena == NULL)
			return -1;
		f->arena_tokens = tokens;
	}
	f->x = f->arena;
	f->a = f->x + f->arena_tokens * f->hidden;
	f->q = f->a + f->arena_tokens * a;
	f->k = f->q + f->arena_tokens * f->q_dim;
	f->v = f->k + f->arena_tokens * f->kv_dim;
	f->up = f->q;
	f->gate = f->up + f->arena_tokens * f->ffn;
	return 0;
}

static int norm(struct forward *f, enum slot w, enum slot bias, size_t t, struct err *e)
{
	const float eps = (float)f->m->cfg.norm_eps;

	if (f->m->family->norm == NORM_RMS)
		return f->be->ops->rmsnorm(f->be, f->a, f->x, f->vec[w], t, f->hidden, eps, e);
	return f->be->ops->layernorm(f->be, f->a, f->x, f->vec[w], f->vec[bias], t, f->hidden, eps,
				     e);
}

static int linear(struct forward *f, float *y, size_t n, const float *x, size_t k, size_t t,
		  enum slot w, enum slot bias, int add, struct err *e)
{
	return f->be->ops->linear(f->be, y, n, x, k, t, f->mat[w], f->vec[bias], add, e);
}

static int rope(struct forward *f, float *x, size_t ld, size_t t, size_t seqlen, long heads,
		struct err *e)
{
	return f->be->ops->rope(f->be, x, ld, t, seqlen, (int)heads, (int)f->m->cfg.head_dim,
				f->cos_, f->sin_, e);
}

/* a = attention(norm1(x)), before o. */
static int slice_attention(struct forward *f, size_t nseq, size_t seqlen, const struct hook *h,
			   struct err *e)
{
	const struct model_config *c = &f->m->cfg;
	const size_t t = nseq * seqlen;
	struct attention_shape s = {
		.nseq = nseq, .seqlen = seqlen, .heads = (int)c->heads,
		.kv_heads = (int)c->kv_heads, .head_dim = (int)c->head_dim,
		.ldq = f->q_dim, .ldkv = f->kv_dim, .ldo = f->q_dim,
		.scale = (float)(1 / sqrt((double)c->head_dim)), .causal = 1,
	};

	if (norm(f, SLOT_NORM1, SLOT_NORM1_B, t, e) < 0 || call(h, EDGE_ATTN_IN, f->a, t, e) < 0 ||
	    linear(f, f->q, f->q_dim, f->a, f->hidden, t, SLOT_Q, SLOT_Q_B, 0, e) < 0 ||
	    linear(f, f->k, f->kv_dim, f->a, f->hidden, t, SLOT_K, SLOT_K_B, 0, e) < 0 ||
	    linear(f, f->v, f->kv_dim, f->a, f->hidden, t, SLOT_V, SLOT_V_B, 0, e) < 0)
		return -1;
	if (f->cos_ != NULL && (rope(f, f->q, f->q_dim, t, seqlen, c->heads, e) < 0 ||
				rope(f, f->k, f->kv_dim, t, seqlen, c->kv_heads, e) < 0))
		return -1;
	if (f->be->ops->attention(f->be, f->a, f->q, f->k, f->v, &s, e) < 0)
		return -1;
	return call(h, EDGE_ATTN_MID, f->a, t, e);
}

/* x += o(a) */
static int slice_out(struct forward *f, size_t t, struct err *e)
{
	return linear(f, f->x, f->hidden, f->a, f->q_dim, t, SLOT_O, SLOT_O_B, 1, e);
}

/* x += down(act(gate) up) of norm2(x), or only as far as the last hook. */
static int slice_mlp(struct forward *f, size_t t, bool add, const struct hook *h, struct err *e)
{
	static const enum act_fn fn[] = {
		[ACT_SILU] = ACT_FN_SILU, [ACT_RELU] = ACT_FN_RELU,
		[ACT_GELU] = ACT_FN_GELU, [ACT_GELU_TANH] = ACT_FN_GELU_TANH,
	};
	const struct family *fam = f->m->family;

	if (norm(f, SLOT_NORM2, SLOT_NORM2_B, t, e) < 0 || call(h, EDGE_MLP_IN, f->a, t, e) < 0 ||
	    linear(f, f->up, f->ffn, f->a, f->hidden, t, SLOT_UP, SLOT_UP_B, 0, e) < 0 ||
	    (fam->gated &&
	     linear(f, f->gate, f->ffn, f->a, f->hidden, t, SLOT_GATE, SLOT_GATE_B, 0, e) < 0) ||
	    f->be->ops->gate(f->be, f->up, fam->gated ? f->gate : NULL, f->up, t * f->ffn,
			     fn[fam->act], e) < 0 ||
	    call(h, EDGE_MLP_MID, f->up, t, e) < 0)
		return -1;
	return add ? linear(f, f->x, f->hidden, f->up, f->ffn, t, SLOT_DOWN, SLOT_DOWN_B, 1, e) : 0;
}

static int up(struct forward *f, float *dst, const float *src, size_t n, struct err *e)
{
	return f->be->ops->upload(f->be, dst, src, n * sizeof(*src), e);
}

static int down(struct forward *f, float *dst, const float *src, size_t n, struct err *e)
{
	return f->be->ops->download(f->be, dst, src, n * sizeof(*src), e);
}

static int check_length(const struct forward *f, size_t seqlen, struct err *e)
{
	if (seqlen == 0 || seqlen > f->max_seq)
		return err_set(e, ERR_BUG, "forward", "sequence of %zu tokens, prepared for %zu",
			       seqlen, f->max_seq);
	return 0;
}

int forward_block(struct forward *f, float *x, size_t nseq, size_t seqlen, edge_hook hook,
		  void *ctx, struct err *e)
{
	const struct hook h = { hook, ctx };
	size_t step;

	if (check_length(f, seqlen, e) < 0)
		return -1;
	step = slice_sequences(nseq, seqlen);
	if (reserve(f, step * seqlen, e) < 0)
		return -1;
	for (size_t i = 0; i < nseq; i += step) {
		const size_t n = step < nseq - i ? step : nseq - i, t = n * seqlen;
		float *xs = x + i * seqlen * f->hidden;

		if (up(f, f->x, xs, t * f->hidden, e) < 0 ||
		    slice_attention(f, n, seqlen, &h, e) < 0 || slice_out(f, t, e) < 0 ||
		    slice_mlp(f, t, true, &h, e) < 0 || down(f, xs, f->x, t * f->hidden, e) < 0)
			return -1;
	}
	return 0;
}

int forward_all(struct forward *f, struct hidden *h, size_t seqlen, edge_hook hook, void *ctx,
		void (*done)(void *arg, size_t tokens), void *arg, struct err *e)
{
	const size_t nseq = h->tokens / seqlen, step = slice_sequences(nseq, seqlen);

	for (size_t i = 0; i < nseq; i += step) {
		const size_t n = step < nseq - i ? step : nseq - i;

		if (forward_block(f, h->x + i * seqlen * h->width, n, seqlen, hook, ctx, e) < 0)
			return -1;
		hidden_drop(h, i * seqlen, n * seqlen);
		if (done != NULL)
			done(arg, n * seqlen);
	}
	return 0;
}

int forward_attention(struct forward *f, const float *x, float *ctx_out, size_t nseq,
		      size_t seqlen, edge_hook hook, void *ctx, struct err *e)
{
	const struct hook h = { hook, ctx };
	size_t step;

	if (check_length(f, seqlen, e) < 0)
		return -1;
	step = slice_sequences(nseq, seqlen);
	if (reserve(f, step * seqlen, e) < 0)
		return -1;
	for (size_t i = 0; i < nseq; i += step) {
		const size_t n = step < nseq - i ? step : nseq - i, t = n * seqlen;

		if (up(f, f->x, x + i * seqlen * f->hidden, t * f->hidden, e) < 0 ||
		    slice_attention(f, n, seqlen, &h, e) < 0 ||
		    down(f, ctx_out + i * seqlen * f->q_dim, f->a, t * f->q_dim, e) < 0)
			return -1;
	}
	return 0;
}

int forward_attention_out(struct forward *f, float *x, const float *ctx_in, size_t tokens,
			  struct err *e)
{
	const size_t step = tokens < SLICE_TOKENS ? tokens : SLICE_TOKENS;

	if (reserve(f, step, e) < 0)
		return -1;
	for (size_t i = 0; i < tokens; i += step) {
		const size_t t = step < tokens - i ? step : tokens - i;
		float *xs = x + i * f->hidden;

		if (up(f, f->x, xs, t * f->hidden, e) < 0 ||
		    up(f, f->a, ctx_in + i * f->q_dim, t * f->q_dim, e) < 0 ||
		    slice_out(f, t, e) < 0 || down(f, xs, f->x, t * f->hidden, e) < 0)
			return -1;
	}
	return 0;
}

int forward_mlp(struct forward *f, float *x, size_t tokens, bool add, edge_hook hook, void *ctx,
		struct err *e)
{
	const struct hook h = { hook, ctx };
	const size_t step = tokens < SLICE_TOKENS ? tokens : SLICE_TOKENS;

	if (reserve(f, step, e) < 0)
		return -1;
	for (size_t i = 0; i < tokens; i += step) {
		const size_t t = step < tokens - i ? step : tokens - i;
		float *xs = x + i * f->hidden;

		if (up(f, f->x, xs, t * f->hidden, e) < 0 || slice_mlp(f, t, add, &h, e) < 0 ||
		    (add && down(f, xs, f->x, t * f->hidden, e) < 0))
			return -1;
	}
	return 0;
}

int forward_check_ids(const struct model *m, const int32_t *ids, size_t t, struct err *e)
{
	for (size_t i = 0; i < t; i++)
		if (ids[i] < 0 || ids[i] >= m->cfg.vocab)
			return err_set(e, ERR_DATA, "token ids",
				       "id %ld at position %zu is outside the vocabulary of %ld",
				       (long)ids[i], i, m->cfg.vocab);
	return 0;
}

int forward_embed(const struct model *m, const struct item *embed, const int32_t *ids, size_t t,
		  float *x, struct err *e)
{
	const size_t d = (size_t)m->cfg.hidden;
	const size_t row = d * (size_t)dtype_bits(embed->rec.dtype) / 8;

	if (embed->rec.role != ROLE_WEIGHT)
		return err_set(e, ERR_DATA, embed->rec.name, "%s where a weight was expected",
			       role_name(embed->rec.role));
	if (forward_check_ids(m, ids, t, e) < 0)
		return -1;
	for (size_t i = 0; i < t; i++)
		if (dtype_to_f32(x + i * d, (const char *)embed->data + (size_t)ids[i] * row,
				 embed->rec.dtype, d) < 0)
			return err_set(e, ERR_DATA, embed->rec.name,
				       "%s is not a floating-point type of weights",
				       dtype_name(embed->rec.dtype));
	return 0;
}
