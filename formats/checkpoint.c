/* SPDX-License-Identifier: Apache-2.0 */
/*
 * checkpoint.c - a model in a foreign format, as the stream that record-acts would write of it
 */
#include "formats/checkpoint.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/data/stream.h"
#include "lib/model/family.h"

/* What the next record is. */
enum step { STEP_HEAD, STEP_FILES, STEP_TENSORS, STEP_ALIAS, STEP_END };

struct source {
	const struct checkpoint_ops *ops;
	void *self;
	enum step step;
	int file;       /* next file; those before it are out */
	size_t tensor;  /* next of the plan */
	long layer;     /* of the block that is open, -1: none */

	char *text;     /* the current file's payload, or NULL */
	size_t text_len;
	char name[256]; /* the current tensor, or "" */
};

int checkpoint_check_finite(const struct checkpoint_tensor *t, const void *data, const char *name,
			    struct err *e)
{
	size_t n = (size_t)(t->nbytes * 8 / (uint64_t)dtype_bits(t->dtype));
	int64_t i = dtype_first_nonfinite(data, t->dtype, n);
	int64_t cols = t->shape[t->rank - 1];
	float v;

	if (i < 0)
		return 0;
	dtype_to_f32(&v, (const char *)data + i * (dtype_bits(t->dtype) / 8), t->dtype, 1);
	if (t->rank == 1)
		return err_set(e, ERR_DATA, name, "value %lld is %f: not finite", (long long)i,
			       (double)v);
	return err_set(e, ERR_DATA, name, "value at row %lld column %lld is %f: not finite",
		       (long long)(i / cols), (long long)(i % cols), (double)v);
}

static const struct model *model(const struct source *d)
{
	return d->ops->model(d->self);
}

static enum dtype plan_dtype(void *ctx, enum slot s, long layer)
{
	const struct source *d = ctx;
	struct checkpoint_tensor t = { .dtype = DT_NONE };
	char name[256];

	model_tensor_name(model(d), s, layer, name);
	return d->ops->tensor(d->self, name, &t) ? DT_NONE : t.dtype;
}

static bool ends_in(const char *name, const char *suffix)
{
	size_t n = strlen(name), k = strlen(suffix);

	return n >= k && strcmp(name + n - k, suffix) == 0;
}

static int next_head(struct source *d, struct record *r, struct err *e)
{
	record_init(r, REC_STREAM, NULL);
	if (model_to_head(model(d), plan_dtype, d, r, e))
		return -1;
	d->step = STEP_FILES;
	return 1;
}

static int next_file(struct source *d, struct record *r, struct err *e)
{
	if (d->ops->file_read(d->self, d->file, &d->text, &d->text_len, e))
		return -1;
	record_init(r, REC_FILE, d->ops->file(d->self, d->file++));
	r->nbytes = d->text_len;
	return 1;
}

static int block_edge(struct record *r, enum rec_type type, long layer, struct err *e)
{
	record_init(r, type, NULL);
	return record_set_int(r, "index", layer) ? err_nomem(e, "block", sizeof(layer)) : 1;
}

static int next_tensor(struct source *d, struct record *r, struct err *e)
{
	const struct model *m = model(d);
	struct checkpoint_tensor t;
	enum slot s;
	long layer;

	if (!model_nth(m, d->tensor, &s, &layer))
		layer = -1, s = SLOT_NONE;
	if (d->layer >= 0 && layer != d->layer) {
		layer = d->layer;
		d->layer = -1;
		return block_edge(r, REC_BLOCK_END, layer, e);
	}
	if (s == SLOT_NONE) {
		d->step = m->cfg.tied ? STEP_ALIAS : STEP_END;
		return 0;
	}
	if (layer != d->layer) {
		d->layer = layer;
		if (d->ops->readahead)
			d->ops->readahead(d->self, layer);
		return block_edge(r, REC_BLOCK, layer, e);
	}
	model_tensor_name(m, s, layer, d->name);
	if (d->ops->tensor(d->self, d->name, &t))
		return err_set(e, ERR_BUG, d->name, "BUG: in the plan but not in the model");
	record_init(r, REC_TENSOR, d->name);
	r->role = ends_in(d->name, ".bias") ? ROLE_BIAS : ROLE_WEIGHT;
	snprintf(r->role_name, sizeof(r->role_name), "%s", role_name(r->role));
	r->dtype = t.dtype;
	r->rank = t.rank;
	memcpy(r->shape, t.shape, sizeof(t.shape));
	r->nbytes = t.nbytes;
	d->tensor++;
	return 1;
}

static int next_alias(struct source *d, struct record *r, struct err *e)
{
	const struct tensor_row *head = model_row(model(d), SLOT_HEAD);
	const struct tensor_row *embed = model_row(model(d), SLOT_EMBED);

	record_init(r, REC_ALIAS, head->name);
	if (record_set_str(r, "of", embed->name))
		return err_nomem(e, head->name, strlen(embed->name));
	d->step = STEP_END;
	return 1;
}

static int source_next(void *self, struct record *r, struct err *e)
{
	struct source *d = self;
	int got;

	free(d->text);
	d->text = NULL;
	d->name[0] = '\0';
	switch (d->step) {
	case STEP_HEAD:
		return next_head(d, r, e);
	case STEP_FILES:
		if (d->ops->file(d->self, d->file))
			return next_file(d, r, e);
		d->step = STEP_TENSORS;
		/* fall through */
	case STEP_TENSORS:
		got = next_tensor(d, r, e);
		if (got || d->step == STEP_END)
			return got;
		/* fall through */
	case STEP_ALIAS:
		return next_alias(d, r, e);
	case STEP_END:
		break;
	}
	return 0;
}

static int source_payload(void *self, void *dst, struct err *e)
{
	struct source *d = self;

	if (d->text) {
		memcpy(dst, d->text, d->text_len);
		return 0;
	}
	if (d->name[0])
		return d->ops->read(d->self, d->name, dst, e);
	return 0;
}

static void source_close(void *self)
{
	struct source *d = self;

	d->ops->close(d->self);
	free(d->text);
	free(d);
}

int checkpoint_stream(struct stream_in **in, const struct checkpoint_ops *ops, void *self,
		      struct err *e)
{
	static const struct stream_in_ops stream = { source_next, source_payload, source_close };
	struct source *d = calloc(1, sizeof(*d));

	if (!d) {
		ops->close(self);
		return err_nomem(e, "model", sizeof(*d));
	}
	d->ops = ops;
	d->self = self;
	d->layer = -1;
	if (stream_in_from(in, &stream, d, e)) {
		source_close(d);
		return -1;
	}
	return 0;
}
