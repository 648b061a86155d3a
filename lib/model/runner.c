/* SPDX-License-Identifier: Apache-2.0 */
/*
 * runner.c - hidden states carried through a model, block by block
 */
#include "lib/model/runner.h"

#include <string.h>

#include "lib/base/usage.h"

#define EMBED_TOKENS 1024
#define HEAD_TOKENS 4096

int runner_embed(struct runner *r, struct stream_in *in, const struct record *rec,
		 const int32_t *ids, size_t tokens, size_t seqlen, struct err *e)
{
	long layer;

	if (rec->type != REC_TENSOR || model_slot(&r->model, rec->name, &layer) != SLOT_EMBED)
		return 0;
	if ((long)seqlen > r->model.cfg.max_positions)
		return err_set(e, ERR_DATA, "model", "%ld positions, but a sequence has %zu tokens",
			       r->model.cfg.max_positions, seqlen);
	if (forward_check_ids(&r->model, ids, tokens, e) < 0 ||
	    ends_take(&r->ends, &r->model, in, rec, e) < 0 ||
	    hidden_open(&r->hidden, tokens, (size_t)r->model.cfg.hidden, r->spill, e) < 0)
		return -1;
	for (size_t i = 0; i < tokens; i += EMBED_TOKENS) {
		const size_t n = tokens - i < EMBED_TOKENS ? tokens - i : EMBED_TOKENS;

		if (forward_embed(&r->model, &r->ends.embed, ids + i, n,
				  r->hidden.x + i * r->hidden.width, e) < 0)
			return -1;
		hidden_drop(&r->hidden, i, n);
	}
	r->seqlen = seqlen;
	return 1;
}

int runner_load(struct runner *r, struct block *b, struct err *e)
{
	const double start = usage_seconds();
	int ret;

	if (ends_need_embed(&r->ends, &r->model, e) < 0)
		return -1;
	if (r->f == NULL)
		r->f = forward_new(&r->model, r->be, (long)r->seqlen, e);
	ret = r->f != NULL ? forward_load(r->f, b, e) : -1;
	r->seconds += usage_seconds() - start;
	return ret;
}

int runner_block(struct runner *r, struct block *b, edge_hook hook, void *ctx, struct err *e)
{
	double start;
	int ret;

	if (runner_load(r, b, e) < 0)
		return -1;
	start = usage_seconds();
	ret = forward_all(r->f, &r->hidden, r->seqlen, hook, ctx, r->done, r->arg, e);
	r->seconds += usage_seconds() - start;
	return ret;
}

int runner_head(struct runner *r, struct head **h, struct err *e)
{
	forward_free(r->f);
	r->f = NULL;
	if (ends_need_embed(&r->ends, &r->model, e) < 0 ||
	    ends_load_head(&r->ends, &r->model, r->be, h, e) < 0)
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
