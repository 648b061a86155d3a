/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gptq_sequence.c - GPTQ with the calibration set carried through quantized blocks (gptq.h)
 */
#include <stdlib.h>
#include <string.h>

#include "lib/data/calib.h"
#include "lib/method/gptq.h"
#include "lib/model/runner.h"

#define SLICE 2048 /* tokens a call of the forward: one of its slices, whole sequences */

struct gptq_sequence {
	struct gptq *g;
	struct backend *be;
	struct runner run;            /* the embedding, hidden states, the block's weights */
	struct calib calib;
	struct hidden mid;            /* [tokens, attn.mid's width]: attention's output */
	struct hessian *sum[EDGE_COUNT]; /* edges of one width share one */
	float *tri;                   /* the widest of them, as a triangle */
	enum edge edge;               /* whose inputs are summed up now */
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
	s->run.spill = spill;
	return s;
}

void gptq_sequence_free(struct gptq_sequence *s)
{
	if (!s)
		return;
	for (int i = 0; i < EDGE_COUNT; i++) {
		bool shared = false;

		for (int j = 0; j < i; j++)
			shared |= s->sum[j] == s->sum[i];
		if (s->sum[i] && !shared)
			s->be->ops->hessian_free(s->be, s->sum[i]);
	}
	runner_release(&s->run);
	hidden_close(&s->mid);
	calib_release(&s->calib);
	free(s->tri);
	free(s);
}

/* The embedding makes hidden states of the calibration set, and goes on. */
static int take_embedding(struct gptq_sequence *s, struct stream_in *in, struct record *rec,
			  struct stream_out *out, struct err *e)
{
	const struct item *embed = &s->run.ends.embed;

	if (!calib_there(&s->calib))
		return err_set(e, ERR_DATA, "calib", "no calibration set in the stream; "
			       "--sequential needs the one that record-acts writes");
	if (calib_suits(&s->calib, 0, 0, 0, e) < 0 ||
	    runner_embed(&s->run, in, rec, s->calib.ids, s->calib.nsamples * s->calib.seqlen,
			 s->calib.seqlen, e) < 0 ||
	    stream_write(out, &embed->rec, embed->data, e) < 0)
		return -1;
	ends_drop_embed(&s->run.ends);
	return 0;
}

int gptq_sequence_other(struct gptq_sequence *s, struct stream_in *in, struct record *rec,
			struct stream_out *out, struct err *e)
{
	long layer;

	if (runner_refuse(rec, e) < 0)
		return -1;
	if (rec->type == REC_CALIB && !calib_there(&s->calib)) {
		if (calib_read(&s->calib, in, rec, e) < 0)
			return -1;
		return stream_write(out, rec, calib_payload(&s->calib), e);
	}
	if (rec->type == REC_TENSOR && model_slot(&s->run.model, rec->name, &layer) == SLOT_EMBED)
		return take_embedding(s, in, rec, out, e);
	return stream_copy(out, in, rec, e);
}

/* Room for attention's output and for Hessians. */
static int start(struct gptq_sequence *s, struct err *e)
{
	const struct model *m = &s->run.model;
	size_t most = 0;

	if (hidden_open(&s->mid, s->run.hidden.tokens, (size_t)model_edge_width(m, EDGE_ATTN_MID),
			s->run.spill, e) < 0)
		return -1;
	for (int i = 0; i < EDGE_COUNT; i++) {
		size_t k = (size_t)model_edge_width(m, (enum edge)i);

		for (int j = 0; j < i; j++)
			if ((size_t)model_edge_width(m, (enum edge)j) == k)
				s->sum[i] = s->sum[j];
		if (!s->sum[i] && s->be->ops->hessian_new(s->be, &s->sum[i], k, e) < 0)
			return -1;
		most = k > most ? k : most;
	}
	if (!(s->tri = malloc(most * (most + 1) / 2 * sizeof(*s->tri))))
		return err_nomem(e, "hessian", most * (most + 1) / 2 * sizeof(*s->tri));
	s->ready = true;
	return 0;
}

static int add_inputs(void *ctx, enum edge edge, const float *x, size_t t, struct err *e)
{
	struct gptq_sequence *s = ctx;

	return edge == s->edge ? s->be->ops->hessian_add(s->be, s->sum[edge], x, t, e) : 0;
}

/* What a pass over all tokens does with a slice of n sequences from token at on. */
enum pass { PASS_ATTENTION, PASS_OUT, PASS_MLP, PASS_MLP_ADD };

static int run_pass(struct gptq_sequence *s, enum pass pass, edge_hook hook, struct err *e)
{
	size_t len = s->calib.seqlen, step = len < SLICE ? SLICE / len : 1;

	for (size_t i = 0; i < s->calib.nsamples; i += step) {
		size_t n = s->calib.nsamples - i < step ? s->calib.nsamples - i : step;
		float *x = s->run.hidden.x + i * len * s->run.hidden.width;
		float *mid = s->mid.x + i * len * s->mid.width;
		int r;

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

/* Inputs of an edge by a pass, then its linears, then the changed weights for what follows. */
static int quantize_edge(struct gptq_sequence *s, struct block *b, enum edge edge, enum pass pass,
			 struct err *e)
{
	const struct linear_row *row = s->run.model.family->linears;

	if (gptq_wants(s->g, b, edge)) {
		s->edge = edge;
		if (s->be->ops->hessian_zero(s->be, s->sum[edge], e) < 0 ||
		    run_pass(s, pass, add_inputs, e) < 0 ||
		    s->be->ops->hessian_get(s->be, s->sum[edge], s->tri, e) < 0)
			return -1;
	}
	if (gptq_edge(s->g, b, edge, s->tri, e) < 0)
		return -1;
	for (; row->weight != SLOT_NONE; row++)
		if (row->in == edge && model_has(&s->run.model, row->weight) &&
		    forward_reload(s->run.f, b, row->weight, e) < 0)
			return -1;
	return 0;
}

int gptq_sequence_block(struct gptq_sequence *s, struct block *b, struct err *e)
{
	if (runner_load(&s->run, b, e) < 0 || (!s->ready && start(s, e) < 0))
		return -1;
	for (int i = 0; i < EDGE_COUNT; i++)
		layer_drop_hessian(b, (enum edge)i);
	if (quantize_edge(s, b, EDGE_ATTN_IN, PASS_ATTENTION, e) < 0 ||
	    quantize_edge(s, b, EDGE_ATTN_MID, PASS_ATTENTION, e) < 0)
		return -1;
	/* The pass for attn.mid has left attention's output behind, unless o is passed over. */
	if ((!gptq_wants(s->g, b, EDGE_ATTN_MID) && run_pass(s, PASS_ATTENTION, NULL, e) < 0) ||
	    run_pass(s, PASS_OUT, NULL, e) < 0)
		return -1;
	if (quantize_edge(s, b, EDGE_MLP_IN, PASS_MLP, e) < 0 ||
	    quantize_edge(s, b, EDGE_MLP_MID, PASS_MLP, e) < 0)
		return -1;
	/* What the last block makes nobody reads. */
	return b->layer + 1 < s->run.model.cfg.layers ? run_pass(s, PASS_MLP_ADD, NULL, e) : 0;
}
