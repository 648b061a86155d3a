/* SPDX-License-Identifier: Apache-2.0 */
/*
 * runner.c - hidden states carried through a model, block by block
 */
#include "lib/model/runner.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/usage.h"
#include "lib/model/stats.h"

#define EMBED_TOKENS 1024
#define HEAD_TOKENS 4096

int runner_input(struct runner *r, const struct runner_input *input, struct err *e)
{
	const struct model *m = &r->model;

	if (m->family->images != (input->pixels != NULL || input->image != NULL))
		return err_set(e, ERR_DATA, "model", m->family->images ?
			       "takes images, not token ids" : "takes token ids, not images");
	if ((long)input->seqlen > m->cfg.max_positions)
		return err_set(e, ERR_DATA, "model", "%ld positions, but a sequence has %zu tokens",
			       m->cfg.max_positions, input->seqlen);
	if ((input->ids != NULL && embed_check_ids(m, input->ids, input->tokens, e) < 0) ||
	    hidden_open(&r->hidden, input->tokens, (size_t)m->cfg.hidden, r->spill, e) < 0)
		return -1;
	r->input = *input;
	r->seqlen = input->seqlen;
	return 0;
}

/* A set of another model is what such ids mean. */
static int check_calib_ids(const struct calib *c, const struct model *m, struct err *e)
{
	for (size_t i = 0; c->ids != NULL && i < c->nsamples * c->seqlen; i++)
		if (c->ids[i] < 0 || c->ids[i] >= m->cfg.vocab)
			return err_set(e, ERR_DATA, "token ids", "id %ld at position %zu is "
				       "outside the vocabulary of %ld: the calibration set is not "
				       "for this model; calib-pack -m MODEL makes one that is",
				       (long)c->ids[i], i, m->cfg.vocab);
	return 0;
}

int runner_calib(struct runner *r, const struct calib *c, struct err *e)
{
	const struct model_config *cfg = &r->model.cfg;
	const bool images = r->model.family->images;
	const size_t seqlen = images ? (size_t)cfg->max_positions : c->seqlen;
	const struct runner_input input = {
		.ids = c->ids, .pixels = c->pixels, .tokens = c->nsamples * seqlen,
		.seqlen = seqlen,
	};
	const size_t size = images ? (size_t)cfg->image_size : 0;

	if (calib_suits(c, images ? (size_t)cfg->channels : 0, size, size, e) < 0 ||
	    check_calib_ids(c, &r->model, e) < 0)
		return -1;
	snprintf(r->calib, sizeof(r->calib), "%s", c->fingerprint);
	return runner_input(r, &input, e);
}

int runner_embed(struct runner *r, struct stream_in *in, const struct record *rec, struct err *e)
{
	const enum slot s = ends_slot(&r->model, rec);

	if (s == SLOT_NONE || !ends_in_front(s))
		return 0;
	if (ends_take(&r->ends, &r->model, in, rec, e) < 0)
		return -1;
	r->front = rec->role == ROLE_WEIGHT || rec->role == ROLE_BIAS ?
		   ends_item(&r->ends, s) : &r->ends.front.items[r->ends.front.n - 1];
	return 1;
}

/* Tokens [from, from + n), sequences of seqlen of which the first begins at from. */
static int embed_some(struct runner *r, struct embed *em, size_t from, size_t n, size_t seqlen,
		      struct err *e)
{
	for (size_t i = 0; i < n; i += EMBED_TOKENS) {
		const size_t t = n - i < EMBED_TOKENS ? n - i : EMBED_TOKENS;

		if (embed_tokens(em, r->input.ids + from + i, r->input.position == NULL ? NULL :
				 r->input.position + from + i, i, seqlen, t,
				 r->hidden.x + (from + i) * r->hidden.width, e) < 0)
			return -1;
		hidden_drop(&r->hidden, from + i, t);
	}
	return 0;
}

/* do_image(ctx, i, its pixels) for each, in order. */
static int each_image(struct runner *r, int (*do_image)(void *ctx, size_t i, const float *pixels,
							 struct err *e),
		      void *ctx, struct err *e)
{
	const struct model_config *c = &r->model.cfg;
	const size_t one = (size_t)(c->channels * c->image_size * c->image_size);
	float *own = r->input.pixels == NULL ? malloc(one * sizeof(*own)) : NULL;
	int ret = 0;

	if (r->input.pixels == NULL && own == NULL)
		return err_nomem(e, "images", one * sizeof(*own));
	for (size_t i = 0; i < r->hidden.tokens / r->seqlen && ret == 0; i++) {
		if (own != NULL)
			ret = r->input.image(r->input.image_ctx, i, own, e);
		if (ret == 0)
			ret = do_image(ctx, i, own != NULL ? own : r->input.pixels + i * one, e);
	}
	free(own);
	return ret;
}

struct pixels_job {
	struct runner *r;
	struct embed *em;
	float *patches, *on_device; /* [positions, pixels of a patch] */
	size_t n;                   /* values of patches */
	edge_hook hook;
	void *ctx;
};

static int embed_one(void *ctx, size_t i, const float *pixels, struct err *e)
{
	const struct pixels_job *j = ctx;
	struct runner *r = j->r;

	if (embed_images(j->em, pixels, 1, r->hidden.x + i * r->seqlen * r->hidden.width, e) < 0)
		return -1;
	hidden_drop(&r->hidden, i * r->seqlen, r->seqlen);
	return 0;
}

static int patches_one(void *ctx, size_t i, const float *pixels, struct err *e)
{
	const struct pixels_job *j = ctx;
	struct backend *be = j->r->be;

	(void)i;
	embed_patches(&j->r->model, pixels, j->patches);
	if (be->ops->upload(be, j->on_device, j->patches, j->n * sizeof(float), e) < 0)
		return -1;
	return j->hook(j->ctx, EDGE_PATCH_IN, j->on_device,
		       j->n / (size_t)model_dim(&j->r->model, DIM_PIXELS), e);
}

int runner_patches(struct runner *r, edge_hook hook, void *ctx, struct err *e)
{
	const struct model_config *c = &r->model.cfg;
	struct pixels_job j = { .r = r, .hook = hook, .ctx = ctx };
	int ret = -1;

	j.n = (size_t)(c->channels * c->image_size * c->image_size);
	j.patches = malloc(j.n * sizeof(*j.patches));
	j.on_device = r->be->ops->alloc(r->be, j.n * sizeof(*j.patches), e);
	if (j.patches == NULL)
		err_nomem(e, "patches", j.n * sizeof(*j.patches));
	else if (j.on_device != NULL)
		ret = each_image(r, patches_one, &j, e);
	if (j.on_device != NULL)
		r->be->ops->free(r->be, j.on_device);
	free(j.patches);
	return ret;
}

static int embed_all(struct runner *r, struct err *e)
{
	struct embed *em;
	size_t from = 0;
	int ret = 0;

	if (r->hidden.x == NULL)
		return err_set(e, ERR_BUG, "model", "no input");
	if (embed_new(&em, &r->model, r->be, &r->ends, e) < 0)
		return -1;
	if (r->model.family->images)
		ret = each_image(r, embed_one, &(struct pixels_job){ .r = r, .em = em }, e);
	else if (r->input.len == NULL)
		ret = embed_some(r, em, 0, r->hidden.tokens, r->seqlen, e);
	else
		for (size_t i = 0; i < r->input.n && ret == 0; from += r->input.len[i++])
			ret = embed_some(r, em, from, r->input.len[i], r->input.len[i], e);
	embed_free(em);
	ends_drop_front(&r->ends, r->model.cfg.tied && !r->headless);
	r->embedded = true;
	return ret;
}

/* Hidden states and the forward pass are there. */
static int prepare(struct runner *r, struct err *e)
{
	if (!r->embedded &&
	    (ends_need_front(&r->ends, &r->model, e) < 0 || embed_all(r, e) < 0))
		return -1;
	if (r->f == NULL) {
		r->f = forward_new(&r->model, r->be, (long)r->seqlen, e);
		if (r->f == NULL)
			return -1;
		forward_all_experts(r->f, r->all_experts);
		forward_integers(r->f, r->be->integers);
	}
	return 0;
}

bool runner_stat(const struct runner *r, const struct record *rec)
{
	long at;

	return rec->type == REC_TENSOR && rec->role == ROLE_STAT &&
	       model_edge(&r->model, rec->name, &at) >= 0;
}

int runner_record_front(struct runner *r, const struct record *rec, unsigned which, long samples,
			struct stream_out *out, struct err *e)
{
	const size_t images = r->hidden.tokens / r->seqlen;
	struct block front;
	struct stats *s;
	int ret = -1;

	if (runner_stat(r, rec))
		return 1;
	if (r->recorded || ends_slot(&r->model, rec) != SLOT_PATCH)
		return 0;
	r->recorded = true;
	block_init(&front, &r->model);
	s = stats_new(&r->model, r->be, which, samples, r->hidden.tokens - images, r->calib, true,
		      e);
	if (s != NULL && runner_patches(r, stats_hook, s, e) == 0 &&
	    stats_store(s, &front, e) == 0)
		ret = block_write_front(&front, out, e);
	stats_free(s);
	block_release(&front);
	return ret;
}

int runner_load(struct runner *r, struct block *b, struct err *e)
{
	const double start = usage_seconds();
	const int ret = prepare(r, e) < 0 ? -1 : forward_load(r->f, b, e);

	r->seconds += usage_seconds() - start;
	return ret;
}

int runner_preload(struct runner *r, struct block *b, enum slot s, struct err *e)
{
	const double start = usage_seconds();
	const int ret = prepare(r, e) < 0 ? -1 : forward_preload(r->f, b, s, e);

	r->seconds += usage_seconds() - start;
	return ret;
}

/* Sequences of different lengths, one after the other. */
static int forward_each(struct runner *r, edge_hook hook, void *ctx, struct err *e)
{
	size_t from = 0;

	for (size_t i = 0; i < r->input.n; from += r->input.len[i++]) {
		if (forward_block(r->f, r->hidden.x + from * r->hidden.width, 1, r->input.len[i],
				  hook, ctx, e) < 0)
			return -1;
		hidden_drop(&r->hidden, from, r->input.len[i]);
		if (r->done != NULL)
			r->done(r->arg, r->input.len[i]);
	}
	return 0;
}

int runner_block(struct runner *r, struct block *b, edge_hook hook, void *ctx, struct err *e)
{
	double start;
	int ret;

	if (runner_load(r, b, e) < 0)
		return -1;
	start = usage_seconds();
	forward_watch_cache(r->f, r->cache, r->cache_ctx);
	if (r->input.len == NULL)
		ret = forward_all(r->f, &r->hidden, r->seqlen, hook, ctx, r->done, r->arg, e);
	else
		ret = forward_each(r, hook, ctx, e);
	r->seconds += usage_seconds() - start;
	return ret;
}

int runner_head(struct runner *r, struct head **h, struct err *e)
{
	forward_free(r->f);
	r->f = NULL;
	if (ends_need_front(&r->ends, &r->model, e) < 0 ||
	    ends_need_back(&r->ends, &r->model, e) < 0 ||
	    head_load(h, &r->model, r->be, &r->ends, e) < 0)
		return -1;
	ends_release(&r->ends);
	return 0;
}

int runner_nll(struct runner *r, struct head *h, const int32_t *target, double *nll,
	       struct err *e)
{
	const double start = usage_seconds();
	const size_t tokens = r->hidden.tokens;

	for (size_t i = 0; i < tokens; i += HEAD_TOKENS) {
		const size_t n = tokens - i < HEAD_TOKENS ? tokens - i : HEAD_TOKENS;

		if (head_nll(h, r->hidden.x + i * r->hidden.width, n, target + i, nll + i, e) < 0)
			return -1;
		hidden_drop(&r->hidden, i, n);
	}
	r->seconds += usage_seconds() - start;
	return 0;
}

int runner_refuse(const struct record *rec, struct err *e)
{
	if (rec->type != REC_RUN)
		return 0;
	return err_set(e, ERR_VERSION, rec->name, "run record: this version cannot run it");
}

void runner_release(struct runner *r)
{
	forward_free(r->f);
	hidden_close(&r->hidden);
	ends_release(&r->ends);
	memset(r, 0, sizeof(*r));
}
