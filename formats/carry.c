/* SPDX-License-Identifier: Apache-2.0 */
/*
 * carry.c - token sequences, or images, carried through a model
 */
#include "formats/carry.h"

#include <string.h>

#include "formats/source.h"
#include "lib/base/usage.h"
#include "lib/model/flow.h"

int carry_open(struct carry *c, const char *path, struct err *e)
{
	struct record head = { .rank = -1 };
	int ret;

	if (source_open(&c->in, path, e) < 0)
		return -1;
	ret = stream_next(c->in, &head, e);
	if (ret > 0)
		ret = model_from_head(&c->run.model, &head, e);
	else if (ret == 0)
		ret = err_set(e, ERR_DATA, "stream", "empty");
	record_clear(&head);
	return ret;
}

static int image(void *ctx, size_t i, float *to, struct err *e)
{
	return imageset_read(ctx, i, to, e);
}

static int start_images(struct carry *c, struct err *e)
{
	const size_t seqlen = (size_t)c->run.model.cfg.max_positions;
	struct runner_input input = { .image = image, .seqlen = seqlen };

	if (image_model_complete(&c->image_model, "model", e) < 0 ||
	    c->ready(c->ctx, c, e) < 0)
		return -1;
	input.image_ctx = c->set;
	input.tokens = c->tokens;
	return runner_input(&c->run, &input, e);
}

/* All files have gone by. */
static int start(struct carry *c, struct err *e)
{
	struct runner_input input;

	if (c->run.model.family->images != c->images)
		return err_set(e, ERR_DATA, "model", c->images ? "takes text, not images" :
			       "takes images, not text");
	c->started = true;
	if (c->images)
		return start_images(c, e);
	if (tokenizer_files_any(&c->files) &&
	    (tokenizer_files_build(&c->tok, &c->files, NULL, e) < 0 ||
	     tokenizer_fits(c->tok, c->run.model.cfg.vocab, e) < 0))
		return -1;
	tokenizer_files_release(&c->files);
	if (c->ready(c->ctx, c, e) < 0)
		return -1;
	input = (struct runner_input){ .ids = c->ids, .position = c->position,
				       .tokens = c->tokens, .seqlen = c->seqlen };
	return runner_input(&c->run, &input, e);
}

static int other(void *ctx, struct stream_in *in, struct record *rec, struct err *e)
{
	struct carry *c = ctx;

	if (rec->type == REC_FILE)
		return c->run.model.family->images ?
		       image_model_take(&c->image_model, in, rec, e) :
		       source_take_file(&c->files, in, rec, NULL, e);
	if (rec->type == REC_TENSOR && !c->started && start(c, e) < 0)
		return -1;
	if (runner_refuse(rec, e) < 0)
		return -1;
	return ends_take(&c->run.ends, &c->run.model, in, rec, e) < 0 ? -1 : 0;
}

static int one_block(struct carry *c, struct block *b, struct err *e)
{
	double start;
	int ret;

	if (c->pass == NULL)
		return runner_block(&c->run, b, NULL, NULL, e);
	if (runner_load(&c->run, b, e) < 0)
		return -1;
	start = usage_seconds();
	ret = c->pass(c->ctx, c, e);
	c->run.seconds += usage_seconds() - start;
	return ret;
}

int carry_through(struct carry *c, struct head **head, struct err *e)
{
	struct block b;
	struct flow flow;
	int got;

	block_init(&b, &c->run.model);
	flow_init(&flow, &b, &c->run, NULL);
	while ((got = block_read(&b, c->in, other, c, e)) > 0)
		if (one_block(c, &b, e) < 0) {
			got = -1;
			break;
		}
	block_release(&b);
	return got < 0 ? -1 : runner_head(&c->run, head, e);
}

void carry_close(struct carry *c)
{
	tokenizer_files_release(&c->files);
	tokenizer_free(c->tok);
	image_model_release(&c->image_model);
	runner_release(&c->run);
	if (c->in != NULL)
		stream_close_in(c->in);
	memset(c, 0, sizeof(*c));
}
