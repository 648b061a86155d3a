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

static int check_vocab(const struct model *ref, const struct carry *model, struct err *e)
{
	if (ref->cfg.vocab == model->run.model.cfg.vocab)
		return 0;
	return err_set(e, ERR_DATA, "--kl", "a vocabulary of %ld, the model's has %ld",
		       ref->cfg.vocab, model->run.model.cfg.vocab);
}

/* A reference without a tokenizer reads the model's tokens. */
static int check_tokenizer(const struct tokenizer *tok, const struct carry *model, struct err *e)
{
	if (tok == NULL || strcmp(tokenizer_fingerprint(tok),
				  tokenizer_fingerprint(model->tok)) == 0)
		return 0;
	return err_set(e, ERR_DATA, "--kl", "the reference has another tokenizer");
}

/* ---- before anything is computed ----------------------------------------------------- */

/* Of a model: its header, and the files behind it. */
static int look_at(struct stream_in *in, const struct record *head, const struct carry *model,
		   struct err *e)
{
	struct record rec = { .rank = -1 };
	struct tokenizer_files files = { 0 };
	struct tokenizer *tok = NULL;
	struct model ref;
	int got;

	if (model_from_head(&ref, head, e) < 0 || check_vocab(&ref, model, e) < 0)
		return -1;
	if (ref.family->images)
		return err_set(e, ERR_DATA, "--kl", "the reference takes images, not text");
	while ((got = stream_next(in, &rec, e)) > 0 && rec.type != REC_TENSOR &&
	       rec.type != REC_BLOCK)
		if (rec.type == REC_FILE && source_take_file(&files, in, &rec, NULL, e) < 0) {
			got = -1;
			break;
		}
	if (got >= 0 && tokenizer_files_any(&files))
		got = tokenizer_files_build(&tok, &files, NULL, e);
	if (got >= 0)
		got = check_tokenizer(tok, model, e);
	tokenizer_free(tok);
	tokenizer_files_release(&files);
	record_clear(&rec);
	return got < 0 ? -1 : 0;
}

int reference_open(struct reference *ref, const char *path, const struct carry *model,
		   const struct ppl_set *s, struct err *e)
{
	const size_t vocab = (size_t)model->run.model.cfg.vocab;
	struct record head = { .rank = -1 };
	struct stream_in *in;
	int ret;

	*ref = (struct reference){ .path = path };
	if (source_open(&in, path, e) < 0)
		return -1;
	ret = stream_next(in, &head, e);
	if (ret == 0)
		ret = err_set(e, ERR_DATA, "--kl", "the reference is empty");
	if (ret > 0 && kl_base_is(&head)) {
		ref->base = in;
		ret = kl_base_open(in, &head, s, vocab, &ref->keep, e);
	} else {
		if (ret > 0)
			ret = look_at(in, &head, model, e);
		stream_close_in(in);
	}
	record_clear(&head);
	return ret < 0 ? -1 : 0;
}

void reference_close(struct reference *ref)
{
	if (ref->base != NULL)
		stream_close_in(ref->base);
	ref->base = NULL;
}

/* ---- behind the model ---------------------------------------------------------------- */

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
	return check_tokenizer(c->tok, r->model, e);
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
	if (ret >= 0)
		ret = check_vocab(&c.run.model, model, e);
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

int reference_compare(struct kl_result *r, struct reference *ref, const struct carry *model,
		      struct head *head, const struct ppl_set *s, struct err *e)
{
	const struct kl_model q = side(model, head);

	if (ref->base == NULL)
		return compare_model(r, ref->path, model, &q, s, e);
	return kl_against_base(r, s, &q, ref->base, ref->keep, model->run.be->pool, e);
}

int reference_save(struct kl_saved *what, struct stream_out *out, const struct provenance *prov,
		   const struct carry *model, struct head *head, const struct ppl_set *s,
		   struct kl_keep keep, struct err *e)
{
	const struct kl_model p = side(model, head);
	struct record first = { .rank = -1 };
	int ret;

	if (keep.top >= p.vocab)
		keep = (struct kl_keep){ p.vocab, 0 };
	record_init(&first, REC_STREAM, "");
	ret = kl_base_head(&first, keep, p.vocab, tokenizer_fingerprint(model->tok), e);
	if (ret == 0)
		ret = stream_write_head(out, &first, prov, e);
	if (ret == 0)
		ret = kl_base_save(what, out, s, &p, keep, model->run.be->pool, e);
	if (ret == 0)
		ret = stream_commit(out, e);
	record_clear(&first);
	return ret;
}
