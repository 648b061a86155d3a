/* SPDX-License-Identifier: Apache-2.0 */
/*
 * checkpoint.c - a model in a foreign format, as the stream that record-acts would write of it
 */
#include "formats/checkpoint.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/hf_quant.h"
#include "lib/model/family.h"
#include "lib/model/run.h"

/* What the next record is. */
enum step { STEP_HEAD, STEP_FILES, STEP_TENSORS, STEP_ALIAS, STEP_END };

struct source {
	const struct checkpoint_ops *ops;
	void *self;
	enum step step;
	int file;       /* next file; those before it are out */
	size_t tensor;  /* next of the plan */
	long layer;     /* of the block that is open, -1: none */
	int edge;       /* next one whose run record may come */
	size_t run;     /* next of the format's own run records */

	char *text;     /* the current file's payload, or NULL */
	size_t text_len;
	char name[256]; /* the current tensor, or "" */
	bool last;      /* its last record */
	enum role role; /* of its record; none: a plain weight */
	float *grid;    /* payload of the current run record, or NULL: scale and zero of each */
	size_t grids;
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

/* Codes, then scale, then zero, if there is one: what d->role is after the one before. */
static int next_part(struct source *d, struct record *r, const struct hf_codes *q, struct err *e)
{
	struct checkpoint_tensor t;
	bool bad = false;

	d->role = d->role == ROLE_NONE ? ROLE_CODES :
		  d->role == ROLE_CODES ? ROLE_SCALE : ROLE_ZERO;
	if (d->ops->tensor(d->self, d->name, &t))
		return err_set(e, ERR_BUG, d->name, "BUG: in the plan but not in the model");
	record_init(r, REC_TENSOR, d->name);
	r->role = d->role;
	snprintf(r->role_name, sizeof(r->role_name), "%s", role_name(r->role));
	r->rank = 2;
	memcpy(r->shape, d->role == ROLE_CODES ? t.shape : q->scale_shape,
	       2 * sizeof(r->shape[0]));
	r->dtype = d->role == ROLE_CODES ? q->codes : d->role == ROLE_SCALE ? q->scale : DT_U8;
	if (dtype_nbytes(r->dtype, 2, r->shape, &r->nbytes))
		return err_set(e, ERR_DATA, d->name, "is too large");
	if (d->role == ROLE_CODES)
		bad = record_set_int(r, "bits", q->bits) || record_set_int(r, "group", q->group) ||
		      record_set_bool(r, "sym", q->sym) ||
		      (q->tall > 1 && record_set_int(r, "tall", q->tall));
	d->last = d->role == ROLE_ZERO || (d->role == ROLE_SCALE && q->sym);
	d->tensor += d->last;
	return bad ? err_nomem(e, d->name, 64) : 1;
}

/* What an edge's linears have in common: 1, and *act is one of them; 0: none rounds what comes in;
 * -1: some do, others do not. */
static int edge_act(const struct source *d, enum edge g, const struct hf_act **act)
{
	const struct model *m = model(d);
	struct linear_row row;
	char name[256];
	long with = 0, without = 0;

	for (size_t i = 0; model_linear(m, d->layer, i, &row); i++) {
		const struct hf_codes *q;

		if (row.in != g || row.keep)
			continue;
		model_tensor_name(m, row.weight, d->layer, name);
		q = d->ops->codes(d->self, name);
		if (!q || q->act.kind == HF_ACT_NONE) {
			without++;
			continue;
		}
		if (with++ && !hf_act_same(*act, &q->act))
			return -1;
		*act = &q->act;
	}
	return with && without ? -1 : with > 0;
}

static int act_keys(struct record *r, const struct hf_act *a, size_t grids)
{
	const char *per = a->group ? "group" : a->fixed ? "tensor" : "token";

	r->must = true;
	if (record_set_str(r, "kind", "act-quant") ||
	    record_set_str(r, "format", a->kind == HF_ACT_INT ? "int" : "e4m3"))
		return -1;
	if (a->kind == HF_ACT_INT &&
	    (record_set_int(r, "bits", a->bits) || record_set_bool(r, "sym", !a->asym) ||
	     record_set_str(r, "rule", "ct")))
		return -1;
	if (a->fixed) {
		r->dtype = DT_F32;
		r->rank = 2;
		r->shape[0] = (int64_t)grids;
		r->shape[1] = 2;
		r->nbytes = grids * 2 * sizeof(float);
	}
	if (record_set_str(r, "per", per) ||
	    (a->group && record_set_int(r, "group", a->group)))
		return -1;
	return record_set_str(r, "range", a->fixed ? "static" : "dynamic");
}

/* The next of the format's own, as next_edge. */
static int next_own(struct source *d, struct record *r, struct err *e)
{
	const struct model *m = model(d);
	struct hf_run run = { 0 };
	char name[256];
	int got = d->ops->run ? d->ops->run(d->self, d->layer, d->run, &run, e) : 0;

	if (got <= 0)
		return got;
	d->run++;
	run_place_name(m, run.place, d->layer, name);
	record_init(r, REC_RUN, name);
	r->must = true;
	if (run.order ? record_set_str(r, "kind", "hadamard") ||
			record_set_int(r, "order", (int64_t)run.order) :
			act_keys(r, &run.act, run.grids))
		got = err_nomem(e, name, 64);
	d->grid = run.grid;
	d->grids = run.grids;
	return got;
}

/* The next edge, if any, that is rounded: 1, and a record says so; 0: there is no more. */
static int next_edge(struct source *d, struct record *r, struct err *e)
{
	const struct model *m = model(d);
	const struct hf_act *a = NULL;
	char name[256];
	int got = 0;

	while (got == 0 && d->edge < model_edges(m))
		got = edge_act(d, (enum edge)d->edge++, &a);
	if (got == 0)
		return 0;
	model_edge_name(m, (enum edge)(d->edge - 1), d->layer, name);
	if (got < 0)
		return err_set(e, ERR_DATA, name, "is rounded for some of the linears that read "
			       "it, and not, or differently, for others: this is not read");
	record_init(r, REC_RUN, name);
	if (act_keys(r, a, 1))
		return err_nomem(e, name, 64);
	if (!a->fixed)
		return 1;
	d->grid = malloc(2 * sizeof(float));
	if (!d->grid)
		return err_nomem(e, name, 2 * sizeof(float));
	d->grid[0] = a->scale;
	d->grid[1] = a->zero;
	d->grids = 1;
	return 1;
}

/* The next run record of the block, if any: what turns comes before what rounds. */
static int next_run(struct source *d, struct record *r, struct err *e)
{
	const int got = next_own(d, r, e);

	return got ? got : next_edge(d, r, e);
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
		d->edge = d->ops->codes ? 0 : model_edges(m);
		d->run = 0;
		if (d->ops->readahead)
			d->ops->readahead(d->self, layer);
		return block_edge(r, REC_BLOCK, layer, e);
	}
	if (layer >= 0 && d->edge < model_edges(m)) {
		const int got = next_run(d, r, e);

		if (got)
			return got;
	}
	model_tensor_name(m, s, layer, d->name);
	if (d->ops->codes && d->ops->codes(d->self, d->name))
		return next_part(d, r, d->ops->codes(d->self, d->name), e);
	d->role = ROLE_NONE;
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
	free(d->grid);
	d->grid = NULL;
	if (d->last)
		d->role = ROLE_NONE;
	d->last = false;
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
	if (d->grid) {
		memcpy(dst, d->grid, d->grids * 2 * sizeof(float));
		return 0;
	}
	if (d->name[0] && d->role != ROLE_NONE)
		return d->ops->codes_read(d->self, d->name, d->role, dst, e);
	if (d->name[0])
		return d->ops->read(d->self, d->name, dst, e);
	return 0;
}

static int source_piece(void *self, uint64_t from, void *dst, size_t n, struct err *e)
{
	struct source *d = self;

	if (d->text || d->grid || !d->name[0] || d->role != ROLE_NONE || !d->ops->read_piece)
		return 1;
	return d->ops->read_piece(d->self, d->name, from, dst, n, e);
}

static void source_close(void *self)
{
	struct source *d = self;

	d->ops->close(d->self);
	free(d->text);
	free(d->grid);
	free(d);
}

int checkpoint_stream(struct stream_in **in, const struct checkpoint_ops *ops, void *self,
		      struct err *e)
{
	static const struct stream_in_ops stream = { source_next, source_payload, source_close,
						     source_piece };
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
