/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gptq_sequence.c - GPTQ with the calibration set carried through quantized blocks (gptq.h)
 */
#include <stdlib.h>
#include <string.h>

#include "lib/data/calib.h"
#include "lib/method/gptq.h"
#include "lib/method/gptq_guard.h"
#include "lib/method/gptq_target.h"
#include "lib/model/runner.h"

enum { EDGES = EDGE_MLP_MID + 1 };

struct gptq_sequence {
	struct gptq *g;
	struct backend *be;
	struct runner run;            /* the embedding, hidden states, the block's weights */
	struct calib calib;
	struct hidden mid;            /* [tokens, attn.mid's width]: attention's output */
	struct hessian **sum;         /* [edges]: those of one width in different phases share */
	int64_t *tokens;              /* [edges] summed up */
	/* Of windows set aside (gptq_guard.h), of edges that all tokens come to: */
	struct hessian *aside[EDGES]; /* those of one width share; or NULL */
	int64_t tokens_aside;         /* in each */
	size_t seen[EDGES];           /* tokens this pass */
	float *tri_aside;
	float *tri, *whole;           /* a sum as a triangle; that of all tokens, for experts */
	struct gptq_target *target;   /* or NULL */
	struct hessian *front_sum;    /* of patches, while they are summed up */
	int64_t front_tokens;
	int phase;                    /* whose inputs are summed up now */
	bool ready;
};

struct gptq_sequence *gptq_sequence_new(struct gptq *g, const struct model *m, struct backend *be,
					const char *spill, struct err *e)
{
	struct gptq_sequence *s = calloc(1, sizeof(*s));

	if (!s) {
		err_nomem(e, "", sizeof(*s));
		return NULL;
	}
	s->g = g;
	s->be = be;
	s->run.be = be;
	s->run.model = *m;
	s->run.headless = true;
	s->run.spill = spill;
	if (gptq_wants_target(g) && m->cfg.experts > 0) {
		err_set(e, ERR_DATA, "model", "has experts: --target=full needs both streams to "
			"send the same tokens to the same places");
		gptq_sequence_free(s);
		return NULL;
	}
	if (gptq_wants_target(g) &&
	    !(s->target = gptq_target_new(&s->run.model, be, spill, e))) {
		gptq_sequence_free(s);
		return NULL;
	}
	return s;
}

void gptq_sequence_free(struct gptq_sequence *s)
{
	const int edges = s && s->sum ? model_edges(&s->run.model) : 0;

	if (!s)
		return;
	for (int i = 0; i < edges; i++) {
		bool shared = false;

		for (int j = 0; j < i; j++)
			shared |= s->sum[j] == s->sum[i];
		if (s->sum[i] && !shared)
			s->be->ops->hessian_free(s->be, s->sum[i]);
	}
	for (int i = 0; i < EDGES; i++) {
		bool shared = false;

		for (int j = 0; j < i; j++)
			shared |= s->aside[j] == s->aside[i];
		if (s->aside[i] && !shared)
			s->be->ops->hessian_free(s->be, s->aside[i]);
	}
	gptq_target_free(s->target);
	runner_release(&s->run);
	hidden_close(&s->mid);
	calib_release(&s->calib);
	free(s->sum);
	free(s->tokens);
	free(s->tri);
	free(s->tri_aside);
	free(s->whole);
	free(s);
}

static int add_patches(void *ctx, enum edge edge, const float *x, size_t t, struct err *e)
{
	struct gptq_sequence *s = ctx;

	(void)edge;
	s->front_tokens += (int64_t)t;
	return s->be->ops->hessian_add(s->be, s->front_sum, x, t, e);
}

/* The patch embedding that runner_embed has taken: front gets its weight, quantized by what the
 * calibration set's images send there, and the states begin with that. */
static int quantize_patch(struct gptq_sequence *s, struct block *front, struct err *e)
{
	const size_t k = (size_t)model_dim(&s->run.model, DIM_PIXELS);
	struct item *was = s->run.front, *it = block_add(front, &was->rec, e);
	struct gptq_input in = { 0 };
	float *tri = malloc(k * (k + 1) / 2 * sizeof(*tri)), *w;
	int ret = -1;

	if (it != NULL)
		memcpy(it->data, was->data, was->rec.nbytes);
	if (tri == NULL)
		err_nomem(e, "hessian", k * (k + 1) / 2 * sizeof(*tri));
	else if (it != NULL && s->be->ops->hessian_new(s->be, &s->front_sum, k, e) == 0 &&
		 runner_patches(&s->run, add_patches, s, e) == 0)
		ret = s->be->ops->hessian_get(s->be, s->front_sum, tri, e);
	in.tri = tri;
	in.tokens = s->front_tokens;
	if (ret == 0)
		ret = gptq_edge(s->g, front, EDGE_PATCH_IN, &in, e);
	w = ret == 0 ? item_f32(was, e) : NULL;
	if (w != NULL)
		memcpy(w, block_find(front, SLOT_PATCH, ROLE_WEIGHT)->data, was->rec.nbytes);
	if (s->front_sum != NULL)
		s->be->ops->hessian_free(s->be, s->front_sum);
	s->front_sum = NULL;
	free(tri);
	return w != NULL ? 0 : -1;
}

/* What stands in front of the blocks makes hidden states of the calibration set, and goes on. */
static int take_front(struct gptq_sequence *s, struct stream_in *in, struct record *rec,
		      struct stream_out *out, struct err *e)
{
	struct block front;
	int ret;

	if (!calib_there(&s->calib))
		return err_set(e, ERR_DATA, "calib", "no calibration set in the stream; "
			       "--sequential needs one: record-acts --calib=FILE, also with "
			       "--stats=none");
	if (!s->run.hidden.x && runner_calib(&s->run, &s->calib, e) < 0)
		return -1;
	if (runner_embed(&s->run, in, rec, e) < 0)
		return -1;
	block_init(&front, &s->run.model);
	if (ends_slot(&s->run.model, rec) != SLOT_PATCH || rec->role != ROLE_WEIGHT ||
	    !gptq_wants(s->g, &front, EDGE_PATCH_IN))
		return stream_write(out, &s->run.front->rec, s->run.front->data, e);
	ret = quantize_patch(s, &front, e) < 0 ? -1 : block_write_front(&front, out, e);
	block_release(&front);
	return ret;
}

int gptq_sequence_other(struct gptq_sequence *s, struct stream_in *in, struct record *rec,
			struct stream_out *out, struct err *e)
{
	if (runner_refuse(rec, e) < 0)
		return -1;
	if (rec->type == REC_CALIB && !calib_there(&s->calib)) {
		if (calib_read(&s->calib, in, rec, e) < 0)
			return -1;
		return stream_write(out, rec, calib_payload(&s->calib), e);
	}
	if (ends_in_front(ends_slot(&s->run.model, rec)))
		return take_front(s, in, rec, out, e);
	return stream_copy(out, in, rec, e);
}

/* Edges whose linears are quantized together, from inputs of one pass. */
static int phase_of(enum edge edge)
{
	switch (edge_kind(edge)) {
	case EDGE_ATTN_IN:
		return 0;
	case EDGE_ATTN_MID:
		return 1;
	case EDGE_MLP_IN:
	case EDGE_X_IN:
		return 2;
	default:
		return 3;
	}
}

/* A sum that an earlier edge of another phase has, and none of this one, or NULL. */
static struct hessian *shared(const struct gptq_sequence *s, int edge)
{
	const struct model *m = &s->run.model;

	for (int j = 0; j < edge; j++) {
		bool taken = !s->sum[j] ||
			     model_edge_width(m, j) != model_edge_width(m, edge);

		for (int k = 0; k < edge && !taken; k++)
			taken = s->sum[k] == s->sum[j] && phase_of(k) == phase_of(edge);
		if (!taken)
			return s->sum[j];
	}
	return NULL;
}

static bool in_any_layer(const struct model *m, enum edge edge)
{
	for (long i = 0; i < m->cfg.layers; i++)
		if (model_has_edge(m, edge, i))
			return true;
	return false;
}

/* Sums of the windows set aside, one for each width: an edge at a time is summed up. */
static int start_aside(struct gptq_sequence *s, size_t most, struct err *e)
{
	const struct model *m = &s->run.model;
	const size_t windows = s->run.hidden.tokens / s->run.seqlen;

	for (size_t i = 0; i < windows; i++)
		s->tokens_aside += gptq_guard_aside(i, windows) ? (int64_t)s->run.seqlen : 0;
	/* The full stream has its own. */
	if (!gptq_guarded(s->g) || s->target || !s->tokens_aside)
		return 0;
	if (!(s->tri_aside = malloc(most)))
		return err_nomem(e, "hessian", most);
	for (int i = 0; i < EDGES; i++) {
		const size_t k = (size_t)model_edge_width(m, (enum edge)i);

		for (int j = 0; j < i && !s->aside[i]; j++)
			if (model_edge_width(m, (enum edge)j) == (int64_t)k)
				s->aside[i] = s->aside[j];
		if (!s->aside[i] && in_any_layer(m, (enum edge)i) &&
		    s->be->ops->hessian_new(s->be, &s->aside[i], k, e) < 0)
			return -1;
	}
	return 0;
}

/* Room for attention's output and for Hessians. */
static int start(struct gptq_sequence *s, struct err *e)
{
	const struct model *m = &s->run.model;
	const size_t edges = (size_t)model_edges(m);
	size_t most = 0;

	s->sum = calloc(edges, sizeof(*s->sum));
	s->tokens = calloc(edges, sizeof(*s->tokens));
	if (!s->sum || !s->tokens)
		return err_nomem(e, "hessian", edges * sizeof(*s->sum));
	if (hidden_open(&s->mid, s->run.hidden.tokens, (size_t)model_edge_width(m, EDGE_ATTN_MID),
			s->run.spill, e) < 0)
		return -1;
	for (int i = 0; i < (int)edges; i++) {
		size_t k;

		if (!in_any_layer(m, i))
			continue;
		k = (size_t)model_edge_width(m, i);
		s->sum[i] = shared(s, i);
		if (!s->sum[i] && s->be->ops->hessian_new(s->be, &s->sum[i], k, e) < 0)
			return -1;
		most = k > most ? k : most;
	}
	most = most * (most + 1) / 2 * sizeof(*s->tri);
	s->tri = malloc(most);
	s->whole = m->cfg.experts > 0 ? malloc(most) : NULL;
	if (!s->tri || (m->cfg.experts > 0 && !s->whole))
		return err_nomem(e, "hessian", most);
	if (start_aside(s, most, e) < 0)
		return -1;
	s->ready = true;
	if (s->target)
		return gptq_target_start(s->target, &s->run.hidden, s->run.seqlen, e);
	return 0;
}

/* Tokens of windows set aside; they come in their order. */
static int add_aside(struct gptq_sequence *s, enum edge edge, const float *x, size_t t,
		     struct err *e)
{
	const size_t len = s->run.seqlen, k = (size_t)model_edge_width(&s->run.model, edge);
	const size_t windows = s->run.hidden.tokens / len;
	size_t some;

	for (; t > 0; t -= some, x += some * k, s->seen[edge] += some) {
		some = len - s->seen[edge] % len;
		some = some < t ? some : t;
		if (gptq_guard_aside(s->seen[edge] / len, windows) &&
		    s->be->ops->hessian_add(s->be, s->aside[edge], x, some, e) < 0)
			return -1;
	}
	return 0;
}

static int add_inputs(void *ctx, enum edge edge, const float *x, size_t t, struct err *e)
{
	struct gptq_sequence *s = ctx;

	if (phase_of(edge) != s->phase)
		return 0;
	s->tokens[edge] += (int64_t)t;
	if ((s->target && gptq_target_add(s->target, edge, x, t, e) < 0) ||
	    ((int)edge < EDGES && s->aside[edge] && add_aside(s, edge, x, t, e) < 0))
		return -1;
	return s->be->ops->hessian_add(s->be, s->sum[edge], x, t, e);
}

/* What a pass over all tokens does with a slice of n sequences from token at on. */
enum pass { PASS_ATTENTION, PASS_OUT, PASS_MLP, PASS_MLP_ADD };

static int run_pass(struct gptq_sequence *s, enum pass pass, edge_hook hook, struct err *e)
{
	const bool both = s->target && hook;
	size_t len = s->run.seqlen, step = len < FORWARD_SLICE ? FORWARD_SLICE / len : 1;
	size_t all = s->run.hidden.tokens / len;

	for (size_t i = 0; i < all; i += step) {
		size_t n = all - i < step ? all - i : step;
		float *x = s->run.hidden.x + i * len * s->run.hidden.width;
		float *mid = s->mid.x + i * len * s->mid.width;
		int r;

		if (both && gptq_target_slice(s->target, s->phase, i * len, n, e) < 0)
			return -1;
		if (pass == PASS_ATTENTION)
			r = forward_attention(s->run.f, x, mid, n, len, hook, s, e);
		else if (pass == PASS_OUT)
			r = forward_attention_out(s->run.f, x, mid, n * len, e);
		else
			r = forward_mlp(s->run.f, x, n * len, pass == PASS_MLP_ADD, hook, s, e);
		if (r < 0)
			return -1;
		hidden_drop(&s->run.hidden, i * len, n * len);
		hidden_drop(&s->mid, i * len, n * len);
	}
	return 0;
}

static bool in_phase(const struct gptq_sequence *s, const struct block *b, enum edge edge,
		     int phase)
{
	return phase_of(edge) == phase && model_has_edge(&s->run.model, edge, b->layer);
}

static bool phase_wants(const struct gptq_sequence *s, const struct block *b, int phase)
{
	for (int i = 0; i < model_edges(&s->run.model); i++)
		if (in_phase(s, b, i, phase) && gptq_wants(s->g, b, i))
			return true;
	return false;
}

/* Inputs of a phase's edges by a pass over all tokens. */
static int sum_phase(struct gptq_sequence *s, struct block *b, int phase, enum pass pass,
		     struct err *e)
{
	for (int i = 0; i < model_edges(&s->run.model); i++) {
		if (!in_phase(s, b, i, phase))
			continue;
		s->tokens[i] = 0;
		if (i < EDGES)
			s->seen[i] = 0;
		if ((i < EDGES && s->aside[i] &&
		     s->be->ops->hessian_zero(s->be, s->aside[i], e) < 0) ||
		    s->be->ops->hessian_zero(s->be, s->sum[i], e) < 0 ||
		    (s->target && gptq_target_zero(s->target, (enum edge)i, e) < 0))
			return -1;
	}
	s->phase = phase;
	return run_pass(s, pass, add_inputs, e);
}

static int quantize_edge(struct gptq_sequence *s, struct block *b, enum edge edge, struct err *e)
{
	const enum edge of = model_edge_row(&s->run.model, edge).of;
	struct gptq_input in = { .tri = s->tri, .tokens = s->tokens[edge] };
	struct linear_row row;

	if (of != edge) {
		in.whole = s->whole;
		if (s->be->ops->hessian_get(s->be, s->sum[of], s->whole, e) < 0)
			return -1;
	}
	in.target = s->target;
	in.tokens_aside = s->tokens_aside;
	if ((int)edge < EDGES && s->aside[edge]) {
		in.aside = s->tri_aside;
		if (s->be->ops->hessian_get(s->be, s->aside[edge], s->tri_aside, e) < 0)
			return -1;
	}
	if (s->be->ops->hessian_get(s->be, s->sum[edge], s->tri, e) < 0 ||
	    gptq_edge(s->g, b, edge, &in, e) < 0)
		return -1;
	for (size_t n = 0; model_linear(&s->run.model, b->layer, n, &row); n++)
		if (row.in == edge && forward_reload(s->run.f, b, row.weight, e) < 0)
			return -1;
	return 0;
}

/* The linears of a phase, then the changed weights for what follows. */
static int quantize_phase(struct gptq_sequence *s, struct block *b, int phase, enum pass pass,
			  struct err *e)
{
	const size_t len = s->run.seqlen;
	const size_t all = s->run.hidden.tokens / len;

	if (phase_wants(s, b, phase)) {
		if (sum_phase(s, b, phase, pass, e) < 0)
			return -1;
	} else {
		/* The full stream goes on all the same. */
		const size_t step = len < FORWARD_SLICE ? FORWARD_SLICE / len : 1;

		for (size_t i = 0; s->target && i < all; i += step)
			if (gptq_target_slice(s->target, phase, i * len,
					      all - i < step ? all - i : step, e) < 0)
				return -1;
	}
	for (int i = 0; i < model_edges(&s->run.model); i++)
		if (in_phase(s, b, i, phase) && quantize_edge(s, b, i, e) < 0)
			return -1;
	return 0;
}

static bool not_a_hessian(struct block *b, const struct item *it)
{
	(void)b;
	return it->edge < 0 || it->stat != STAT_HESSIAN;
}

const struct block_hook gptq_sequence_hook = { .wants = not_a_hessian };

int gptq_sequence_block(struct gptq_sequence *s, struct block *b, struct err *e)
{
	if (runner_load(&s->run, b, e) < 0 || (!s->ready && start(s, e) < 0) ||
	    (s->target && gptq_target_load(s->target, b, e) < 0))
		return -1;
	if (quantize_phase(s, b, 0, PASS_ATTENTION, e) < 0 ||
	    quantize_phase(s, b, 1, PASS_ATTENTION, e) < 0)
		return -1;
	/* The pass for attn.mid has left attention's output behind, unless o is passed over. */
	if ((!phase_wants(s, b, 1) && run_pass(s, PASS_ATTENTION, NULL, e) < 0) ||
	    run_pass(s, PASS_OUT, NULL, e) < 0)
		return -1;
	if (quantize_phase(s, b, 2, PASS_MLP, e) < 0 || quantize_phase(s, b, 3, PASS_MLP, e) < 0)
		return -1;
	/* What the last block makes nobody reads. */
	return b->layer + 1 < s->run.model.cfg.layers ? run_pass(s, PASS_MLP_ADD, NULL, e) : 0;
}
