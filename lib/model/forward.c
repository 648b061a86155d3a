/* SPDX-License-Identifier: Apache-2.0 */
/*
 * forward.c - one block forward, slice by slice of whole sequences
 */
#include "lib/model/forward_impl.h"

#include <math.h>
#include <stdlib.h>

#include "lib/model/device.h"
#include "lib/model/rope.h"

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

static int make_tables(struct forward *f, struct err *e)
{
	const size_t slots = (size_t)model_slots(f->m);

	f->mat = calloc(slots, sizeof(*f->mat));
	f->vec = calloc(slots, sizeof(*f->vec));
	f->preloaded = malloc(slots * sizeof(*f->preloaded));
	f->ints = calloc(slots, sizeof(*f->ints));
	if (f->ints == NULL || f->mat == NULL || f->vec == NULL || f->preloaded == NULL)
		return err_nomem(e, "forward", slots * sizeof(*f->mat));
	for (size_t s = 0; s < slots; s++)
		f->preloaded[s] = -1;
	if (f->m->cfg.norm_plain && device_constants(f->be, &f->ones, &f->zeros, f->hidden, e) < 0)
		return -1;
	if (f->m->cfg.experts > 0 && route_new(&f->route, f->m, e) < 0)
		return -1;
	return make_rope(f, e);
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
	if (m->cfg.experts > 0)
		f->ffn = larger(f->ffn, (size_t)larger((size_t)m->cfg.expert_ffn,
						       (size_t)m->cfg.shared_ffn));
	if (make_tables(f, e) < 0) {
		forward_free(f);
		return NULL;
	}
	return f;
}

static void drop(struct forward *f, float *p)
{
	if (p != NULL)
		f->be->ops->free(f->be, p);
}

void forward_free(struct forward *f)
{
	if (f == NULL)
		return;
	for (int s = 0; s < model_slots(f->m); s++) {
		if (f->mat != NULL && f->mat[s] != NULL)
			f->be->ops->pack_free(f->be, f->mat[s]);
		if (f->vec != NULL)
			drop(f, f->vec[s]);
		if (f->ints != NULL)
			int_linear_free(f, f->ints[s]);
	}
	drop(f, f->cos_);
	drop(f, f->sin_);
	drop(f, f->ones);
	drop(f, f->zeros);
	drop(f, f->arena);
	forward_run_release(f);
	route_free(f->route);
	free(f->mat);
	free(f->vec);
	free(f->ints);
	int_input_release(&f->in);
	free(f->preloaded);
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

	int64_t shape[2];

	if (model_shape(f->m, s, shape) == 1) {
		it = block_find(b, s, ROLE_WEIGHT);
		if (it == NULL)
			return err_set(e, ERR_BUG, "forward", "a vector of block %ld is missing",
				       b->layer);
		return device_vector(f->be, &f->vec[s], it, (size_t)shape[0], e);
	}
	if (f->integers && int_linear_load(f, &f->ints[s], b, s, e) < 0)
		return -1;
	it = block_find(b, s, ROLE_WEIGHT);
	return it != NULL ? device_matrix(f->be, &f->mat[s], it, e) : load_codes(f, b, s, e);
}

static bool of_an_op(const struct forward *f, const struct item *it)
{
	for (size_t i = 0; i < f->run.n; i++)
		for (int k = 0; k < PART_COUNT; k++)
			if (f->run.op[i].part[k] == it)
				return true;
	return false;
}

/* What the run time must do beside the weights, and nobody here does, is not to be passed over. */
static int check_plain(const struct forward *f, const struct block *b, struct err *e)
{
	for (size_t i = 0; i < b->n; i++) {
		const struct item *it = &b->items[i];

		if (it->drop)
			continue;
		if (it->rec.role == ROLE_PERM ||
		    (it->rec.role == ROLE_COMP && !of_an_op(f, it)))
			return err_set(e, ERR_VERSION, it->rec.name,
				       "%s record: this version cannot run it",
				       role_name(it->rec.role));
		if (it->rec.type == REC_TENSOR && it->slot == SLOT_NONE &&
		    (it->rec.role == ROLE_WEIGHT || it->rec.role == ROLE_BIAS))
			return err_set(e, ERR_DATA, it->rec.name,
				       "this model's configuration has no such tensor");
	}
	return 0;
}

int forward_load(struct forward *f, struct block *b, struct err *e)
{
	if (forward_run_load(f, b, e) < 0 || check_plain(f, b, e) < 0)
		return -1;
	f->layer = b->layer;
	if (f->route != NULL)
		route_reset(f->route);
	for (int s = 0; s < model_slots(f->m); s++)
		if (slot_in_block(s) && model_has(f->m, s, b->layer) &&
		    f->preloaded[s] != b->layer && load_slot(f, b, s, e) < 0)
			return -1;
	f->had_integers |= forward_integer_linears(f) > 0;
	if (f->integers && !f->had_integers && b->layer == f->m->cfg.layers - 1)
		return err_set(e, ERR_DATA, "--compute", "int: there is no linear of which weight "
			       "and input are integers; rtn or gptq, and quant-acts, make them");
	return 0;
}

void forward_rest(struct forward *f)
{
	drop(f, f->arena);
	f->arena = NULL;
	f->arena_tokens = 0;
}

int forward_preload(struct forward *f, struct block *b, enum slot s, struct err *e)
{
	if (load_slot(f, b, s, e) < 0)
		return -1;
	f->preloaded[s] = b->layer;
	return 0;
}

int forward_reload(struct forward *f, struct block *b, enum slot weight, struct err *e)
{
	return load_slot(f, b, weight, e);
}

void forward_integers(struct forward *f, bool on)
{
	f->integers = on;
}

size_t forward_integer_linears(const struct forward *f)
{
	size_t n = 0;

	for (int s = 0; s < model_slots(f->m); s++)
		n += f->ints[s] != NULL;
	return n;
}

void forward_all_experts(struct forward *f, bool on)
{
	f->all_experts = on;
}

/* ---- slices --------------------------------------------------------------------- */

/* Sequences in a slice: as many as fit FORWARD_SLICE, at least one. */
static size_t slice_sequences(size_t nseq, size_t seqlen)
{
	const size_t n = seqlen < FORWARD_SLICE ? FORWARD_SLICE / seqlen : 1;

	return n < nseq ? n : nseq;
}

int forward_reserve(struct forward *f, size_t tokens, struct err *e)
{
	const size_t a = larger(f->hidden, f->q_dim);
	const size_t mid = f->m->family->gated ? 2 * f->ffn : f->ffn;
	const size_t rows = larger(f->q_dim + 2 * f->kv_dim, mid);
	const size_t experts = (size_t)f->m->cfg.experts;
	const size_t width = f->hidden + a + rows + (experts > 0 ? 2 * f->hidden + experts : 0);

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
	f->picked = f->q + f->arena_tokens * rows;
	f->made = f->picked + f->arena_tokens * f->hidden;
	f->scores = f->made + f->arena_tokens * f->hidden;
	return 0;
}

static int norm(struct forward *f, float *y, enum slot w, enum slot bias, size_t t, struct err *e)
{
	const float eps = (float)f->m->cfg.norm_eps;

	if (f->m->family->norm == NORM_RMS)
		return f->be->ops->rmsnorm(f->be, y, f->x, f->vec[w], t, f->hidden, eps, e);
	return f->be->ops->layernorm(f->be, y, f->x, f->ones != NULL ? f->ones : f->vec[w],
				     f->zeros != NULL ? f->zeros : f->vec[bias], t, f->hidden, eps,
				     e);
}

/* What attention or the MLP reads: a, the normed x, or x itself if norms stand behind. */
static const float *input(struct forward *f, enum slot w, enum slot bias, size_t t, struct err *e)
{
	if (f->m->cfg.post_norm)
		return f->x;
	return norm(f, f->a, w, bias, t, e) < 0 ? NULL : f->a;
}

int forward_rope(struct forward *f, size_t row, size_t position, size_t t, size_t seqlen,
		 struct err *e)
{
	const struct model_config *c = &f->m->cfg;
	const size_t at = position * (size_t)(c->head_dim / 2);
	const struct backend_ops *ops = f->be->ops;

	if (f->cos_ == NULL)
		return 0;
	if (ops->rope(f->be, f->q + row * f->q_dim, f->q_dim, t, seqlen, (int)c->heads,
		      (int)c->head_dim, f->cos_ + at, f->sin_ + at, e) < 0 ||
	    (f->extra.recent > 0 &&
	     ops->rope(f->be, f->kept + row * f->kv_dim, f->kv_dim, t, seqlen, (int)c->kv_heads,
		       (int)c->head_dim, f->cos_ + at, f->sin_ + at, e) < 0))
		return -1;
	return ops->rope(f->be, f->k + row * f->kv_dim, f->kv_dim, t, seqlen, (int)c->kv_heads,
			 (int)c->head_dim, f->cos_ + at, f->sin_ + at, e);
}

/* Norms of the heads of q and k, if the family has them. */
static int norm_heads(struct forward *f, size_t t, struct err *e)
{
	const struct model_config *c = &f->m->cfg;
	const size_t d = (size_t)c->head_dim;
	const float eps = (float)c->norm_eps;

	if (!c->qk_norm)
		return 0;
	if (f->be->ops->rmsnorm(f->be, f->q, f->q, f->vec[SLOT_Q_NORM], t * (size_t)c->heads, d,
				eps, e) < 0)
		return -1;
	return f->be->ops->rmsnorm(f->be, f->k, f->k, f->vec[SLOT_K_NORM],
				   t * (size_t)c->kv_heads, d, eps, e);
}

int forward_qkv(struct forward *f, size_t t, const struct hook *h, struct err *e)
{
	const float *x = input(f, SLOT_NORM1, SLOT_NORM1_B, t, e);

	if (x != NULL)
		x = forward_input(f, EDGE_ATTN_IN, f->a, x, t, h, e);
	if (x == NULL ||
	    forward_linear(f, f->q, f->q_dim, x, f->hidden, t, SLOT_Q, SLOT_Q_B, 0, e) < 0 ||
	    forward_linear(f, f->k, f->kv_dim, x, f->hidden, t, SLOT_K, SLOT_K_B, 0, e) < 0 ||
	    forward_linear(f, f->v, f->kv_dim, x, f->hidden, t, SLOT_V, SLOT_V_B, 0, e) < 0)
		return -1;
	return norm_heads(f, t, e) < 0 ? -1 : forward_keep(f, t, e);
}

struct attention_shape forward_shape(const struct forward *f)
{
	const struct model_config *c = &f->m->cfg;

	return (struct attention_shape){
		.nseq = 1, .heads = (int)c->heads, .kv_heads = (int)c->kv_heads,
		.head_dim = (int)c->head_dim, .ldq = f->q_dim, .ldkv = f->kv_dim, .ldo = f->q_dim,
		.scale = (float)(1 / sqrt((double)c->head_dim)), .causal = !f->m->family->images,
		.window = (size_t)model_window(f->m, f->layer),
		.extra = forward_extra(f),
	};
}

/* a = attention(norm1(x)), before o. */
static int slice_attention(struct forward *f, size_t nseq, size_t seqlen, const struct hook *h,
			   struct err *e)
{
	struct attention_shape s = forward_shape(f);
	const size_t t = nseq * seqlen;

	s.nseq = nseq;
	s.seqlen = seqlen;
	if (forward_qkv(f, t, h, e) < 0 || forward_rope(f, 0, 0, t, seqlen, e) < 0 ||
	    forward_cache(f, t, e) < 0 ||
	    f->be->ops->attention(f->be, f->a, f->q, f->k, f->v, &s, e) < 0)
		return -1;
	return forward_input(f, EDGE_ATTN_MID, f->a, f->a, t, h, e) != NULL ? 0 : -1;
}

int forward_slice_out(struct forward *f, size_t t, struct err *e)
{
	if (forward_sum_begin(f, PLACE_ATTN_RESID, t, e) < 0 ||
	    forward_linear(f, f->x, f->hidden, f->a, f->q_dim, t, SLOT_O, SLOT_O_B, 1, e) < 0 ||
	    (f->m->cfg.post_norm && norm(f, f->x, SLOT_NORM1, SLOT_NORM1_B, t, e) < 0))
		return -1;
	return forward_sum_end(f, PLACE_ATTN_RESID, t, e);
}

int forward_mid(struct forward *f, const float *x, size_t t, size_t n, enum slot gate,
		enum slot up, enum edge mid, const struct hook *h, struct err *e)
{
	static const enum act_fn fn[] = {
		[ACT_SILU] = ACT_FN_SILU, [ACT_RELU] = ACT_FN_RELU,
		[ACT_GELU] = ACT_FN_GELU, [ACT_GELU_TANH] = ACT_FN_GELU_TANH,
	};
	const bool gated = f->m->family->gated, dense = up == SLOT_UP;

	if (forward_linear(f, f->up, n, x, f->hidden, t, up, dense ? SLOT_UP_B : SLOT_NONE, 0,
			   e) < 0 ||
	    (gated && forward_linear(f, f->gate, n, x, f->hidden, t, gate,
				     dense ? SLOT_GATE_B : SLOT_NONE, 0, e) < 0) ||
	    f->be->ops->gate(f->be, f->up, gated ? f->gate : NULL, f->up, t * n,
			     fn[f->m->cfg.act], e) < 0)
		return -1;
	return forward_input(f, mid, f->up, f->up, t, h, e) != NULL ? 0 : -1;
}

static int dense_mlp(struct forward *f, const float *x, size_t t, bool add, const struct hook *h,
		     struct err *e)
{
	const size_t n = (size_t)f->m->cfg.ffn;

	x = forward_input(f, EDGE_MLP_IN, f->a, x, t, h, e);
	if (x == NULL || forward_mid(f, x, t, n, SLOT_GATE, SLOT_UP, EDGE_MLP_MID, h, e) < 0)
		return -1;
	return !add ? 0 :
	       forward_linear(f, f->x, f->hidden, f->up, n, t, SLOT_DOWN, SLOT_DOWN_B, 1, e);
}

int forward_slice_mlp(struct forward *f, size_t t, bool add, const struct hook *h,
		      struct err *e)
{
	const float *x = input(f, SLOT_NORM2, SLOT_NORM2_B, t, e);

	if (x == NULL || (add && forward_sum_begin(f, PLACE_MLP_RESID, t, e) < 0) ||
	    (model_is_sparse(f->m, f->layer) ? forward_experts(f, t, add, h, e) :
	     dense_mlp(f, x, t, add, h, e)) < 0)
		return -1;
	if (!add)
		return 0;
	if (f->m->cfg.post_norm && norm(f, f->x, SLOT_NORM2, SLOT_NORM2_B, t, e) < 0)
		return -1;
	return forward_sum_end(f, PLACE_MLP_RESID, t, e);
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
	f->seqlen = seqlen;
	step = slice_sequences(nseq, seqlen);
	if (forward_reserve(f, step * seqlen, e) < 0)
		return -1;
	for (size_t i = 0; i < nseq; i += step) {
		const size_t n = step < nseq - i ? step : nseq - i, t = n * seqlen;
		float *xs = x + i * seqlen * f->hidden;

		if (up(f, f->x, xs, t * f->hidden, e) < 0 ||
		    forward_sum_begin(f, PLACE_OUT, t, e) < 0 ||
		    slice_attention(f, n, seqlen, &h, e) < 0 || forward_slice_out(f, t, e) < 0 ||
		    forward_slice_mlp(f, t, true, &h, e) < 0 ||
		    forward_sum_end(f, PLACE_OUT, t, e) < 0 ||
		    down(f, xs, f->x, t * f->hidden, e) < 0)
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
	if (f->affine[PLACE_OUT - PLACE_ATTN_RESID] != NULL)
		return err_set(e, ERR_DATA, "compensation", "layer %ld: it reads a whole block's "
			       "input, its linears are quantized one by one: put the quantizer "
			       "before qwt-fit", f->layer);
	f->seqlen = seqlen;
	step = slice_sequences(nseq, seqlen);
	if (forward_reserve(f, step * seqlen, e) < 0)
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

/* Tokens of a slice where sequences are as long as in the last forward_attention. */
static size_t whole_sequences(const struct forward *f)
{
	return f->seqlen == 0 ? FORWARD_SLICE : f->seqlen > FORWARD_SLICE ? f->seqlen :
	       FORWARD_SLICE / f->seqlen * f->seqlen;
}

int forward_attention_out(struct forward *f, float *x, const float *ctx_in, size_t tokens,
			  struct err *e)
{
	const size_t step = tokens < FORWARD_SLICE ? tokens : whole_sequences(f);

	if (forward_reserve(f, step, e) < 0)
		return -1;
	for (size_t i = 0; i < tokens; i += step) {
		const size_t t = step < tokens - i ? step : tokens - i;
		float *xs = x + i * f->hidden;

		if (up(f, f->x, xs, t * f->hidden, e) < 0 ||
		    up(f, f->a, ctx_in + i * f->q_dim, t * f->q_dim, e) < 0 ||
		    forward_slice_out(f, t, e) < 0 || down(f, xs, f->x, t * f->hidden, e) < 0)
			return -1;
	}
	return 0;
}

int forward_mlp(struct forward *f, float *x, size_t tokens, bool add, edge_hook hook, void *ctx,
		struct err *e)
{
	const struct hook h = { hook, ctx };
	const size_t step = tokens < FORWARD_SLICE ? tokens : whole_sequences(f);

	if (forward_reserve(f, step, e) < 0)
		return -1;
	for (size_t i = 0; i < tokens; i += step) {
		const size_t t = step < tokens - i ? step : tokens - i;
		float *xs = x + i * f->hidden;

		if (up(f, f->x, xs, t * f->hidden, e) < 0 ||
		    forward_slice_mlp(f, t, add, &h, e) < 0 ||
		    (add && down(f, xs, f->x, t * f->hidden, e) < 0))
			return -1;
	}
	return 0;
}
