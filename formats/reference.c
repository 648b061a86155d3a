/* SPDX-License-Identifier: Apache-2.0 */
/*
 * reference.c - a model held against another, or against a base
 */
#include "formats/reference.h"

#include <string.h>

#include "formats/source.h"
#include "lib/model/ppl.h"

static struct kl_model side(const struct carry *c, struct head *head)
{
	return (struct kl_model){ head, &c->run.hidden, (size_t)c->run.model.cfg.vocab };
}

struct reading {
	const struct carry *model;
	const struct ppl_set *s;
};

/* The reference reads the same windows. */
static int ready(void *ctx, struct carry *c, struct err *e)
{
	const struct reading *r = ctx;

	c->ids = r->s->ids;
	c->tokens = r->s->windows * r->s->seqlen;
	c->seqlen = r->s->seqlen;
	if (c->tok == NULL || strcmp(tokenizer_fingerprint(c->tok),
				     tokenizer_fingerprint(r->model->tok)) == 0)
		return 0;
	return err_set(e, ERR_DATA, "--kl", "the reference has another tokenizer");
}

static int compare_model(struct kl_result *r, const char *path, const struct carry *model,
			 const struct kl_model *q, const struct ppl_set *s, struct err *e)
{
	struct reading reading = { model, s };
	struct carry c = { .ready = ready, .ctx = &reading };
	struct head *head = NULL;
	int ret;

	c.run.be = model->run.be;
	c.run.spill = model->run.spill;
	c.run.done = model->run.done;
	c.run.arg = model->run.arg;
	ret = carry_open(&c, path, e);
	if (ret >= 0 && c.run.model.cfg.vocab != model->run.model.cfg.vocab)
		ret = err_set(e, ERR_DATA, "--kl", "a vocabulary of %ld, the model's has %ld",
			      c.run.model.cfg.vocab, model->run.model.cfg.vocab);
	if (ret >= 0)
		ret = carry_through(&c, &head, e);
	if (ret >= 0) {
		const struct kl_model p = side(&c, head);

		ret = kl_between(r, s, q, &p, model->run.be->pool, e);
	}
	head_free(head);
	carry_close(&c);
	return ret < 0 ? -1 : 0;
}

int reference_compare(struct kl_result *r, const char *path, const struct carry *model,
		      struct head *head, const struct ppl_set *s, struct err *e)
{
	const struct kl_model q = side(model, head);
	struct record first = { .rank = -1 };
	struct stream_in *in;
	int ret;

	if (source_open(&in, path, e) < 0)
		return -1;
	ret = stream_next(in, &first, e);
	if (ret > 0 && kl_base_is(&first)) {
		ret = kl_against_base(r, s, &q, in, &first, model->run.be->pool, e);
		stream_close_in(in);
	} else {
		stream_close_in(in);
		ret = ret < 0 ? -1 : compare_model(r, path, model, &q, s, e);
	}
	record_clear(&first);
	return ret;
}

int reference_save(struct kl_saved *what, struct stream_out *out, const struct provenance *prov,
		   const struct carry *model, struct head *head, const struct ppl_set *s,
		   size_t top, struct err *e)
{
	const struct kl_model p = side(model, head);
	struct record first = { .rank = -1 };
	int ret;

	top = top < p.vocab ? top : p.vocab;
	record_init(&first, REC_STREAM, "");
	ret = kl_base_head(&first, top, p.vocab, tokenizer_fingerprint(model->tok), e);
	if (ret == 0)
		ret = stream_write_head(out, &first, prov, e);
	if (ret == 0)
		ret = kl_base_save(what, out, s, &p, top, model->run.be->pool, e);
	if (ret == 0)
		ret = stream_commit(out, e);
	record_clear(&first);
	return ret;
}
