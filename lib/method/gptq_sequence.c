/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gptq_sequence.c - GPTQ with the calibration set carried through quantized blocks (gptq.h)
 */
#include <stdlib.h>
#include <string.h>

#include "lib/data/calib.h"
#include "lib/method/gptq.h"
#include "lib/model/forward.h"
#include "lib/model/hidden.h"

#define SLICE 2048 /* tokens a call of the forward, whole sequences */

struct gptq_sequence {
	struct gptq *g;
	const struct model *m;
	struct backend *be;
	const char *spill;
	struct calib calib;
	struct item embed;
	struct forward *f;
	struct hidden x, mid;         /* [tokens, hidden]; [tokens, attn.mid's width] */
	struct hessian *sum[EDGE_COUNT]; /* edges of one width share one */
	float *tri;
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
	s->m = m;
	s->be = be;
	s->spill = spill;
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
	forward_free(s->f);
	hidden_close(&s->x);
	hidden_close(&s->mid);
	item_release(&s->embed);
	calib_release(&s->calib);
	free(s->tri);
	free(s);
}

int gptq_sequence_other(struct gptq_sequence *s, struct stream_in *in, struct record *rec,
			struct stream_out *out, struct err *e)
{
	long layer;

	if (rec->type == REC_CALIB && !s->calib.ids) {
		if (calib_read(&s->calib, in, rec, e) < 0)
			return -1;
		return stream_write(out, rec, s->calib.ids, e);
	}
	if (rec->type == REC_TENSOR && !s->ready && rec->role == ROLE_WEIGHT &&
	    model_slot(s->m, rec->name, &layer) == SLOT_EMBED) {
		if (item_read(&s->embed, s->m, in, rec, e) < 0)
			return -1;
		return stream_write(out, rec, s->embed.data, e);
	}
	return stream_copy(out, in, rec, e);
}

/* Embed the calibration set; scratch of everything. */
static int start(struct gptq_sequence *s, struct err *e)
{
	size_t tokens = s->calib.nsamples * s->calib.seqlen, hidden = (size_t)s->m->cfg.hidden;
	size_t most = 0;

	if (!s->calib.ids)
		return err_set(e, ERR_DATA, "calib", "no calibration set before the first block; "
			       "--sequential needs the one that record-acts writes");
	if (!s->embed.data)
		return err_set(e, ERR_DATA, "embedding", "not before the first block");
	if (hidden_open(&s->x, tokens, hidden, s->spill, e) < 0 ||
	    hidden_open(&s->mid, tokens, (size_t)model_edge_width(s->m, EDGE_ATTN_MID), s->spill,
			e) < 0)
		return -1;
	for (size_t i = 0; i < s->calib.nsamples; i++) {
		size_t at = i * s->calib.seqlen;

		if (forward_embed(s->m, &s->embed, s->calib.ids + at, s->calib.seqlen,
				  s->x.x + at * hidden, e) < 0)
			return -1;
		hidden_drop(&s->x, at, s->calib.seqlen);
	}
	item_release(&s->embed);
	if (!(s->f = forward_new(s->m, s->be, (long)s->calib.seqlen, e)))
		return -1;
	for (int i = 0; i < EDGE_COUNT; i++) {
		size_t k = (size_t)model_edge_width(s->m, (enum edge)i);

		for (int j = 0; j < i; j++)
			if ((size_t)model_edge_width(s->m, (enum edge)j) == k)
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
		float *x = s->x.x + i * len * s->x.width, *mid = s->mid.x + i * len * s->mid.width;
		int r;

		if (pass == PASS_ATTENTION)
			r = forward_attention(s->f, x, mid, n, len, hook, s, e);
		else if (pass == PASS_OUT)
			r = forward_attention_out(s->f, x, mid, n * len, e);
		else
			r = forward_mlp(s->f, x, n * len, pass == PASS_MLP_ADD, hook, s, e);
		if (r < 0)
			return -1;
		hidden_drop(&s->x, i * len, n * len);
		hidden_drop(&s->mid, i * len, n * len);
	}
	return 0;
}

/* Inputs of an edge by a pass, then its linears, then the changed weights for what follows. */
static int quantize_edge(struct gptq_sequence *s, struct block *b, enum edge edge, enum pass pass,
			 struct err *e)
{
	const struct linear_row *row = s->m->family->linears;

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
		if (row->in == edge && model_has(s->m, row->weight) &&
		    forward_reload(s->f, b, row->weight, e) < 0)
			return -1;
	return 0;
}

int gptq_sequence_block(struct gptq_sequence *s, struct block *b, struct err *e)
{
	if (!s->ready && start(s, e) < 0)
		return -1;
	for (int i = 0; i < EDGE_COUNT; i++)
		layer_drop_hessian(b, (enum edge)i);
	if (forward_load(s->f, b, e) < 0 ||
	    quantize_edge(s, b, EDGE_ATTN_IN, PASS_ATTENTION, e) < 0 ||
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
	return b->layer + 1 < s->m->cfg.layers ? run_pass(s, PASS_MLP_ADD, NULL, e) : 0;
}
