/* SPDX-License-Identifier: Apache-2.0 */
/*
 * export.c - a stream, tensor by tensor, for whoever writes checkpoints of another kind
 */
#include "formats/export.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/hf.h"
#include "lib/base/clones.h"

#define CONFIG "config.json"

static bool is_weight(const struct item *it)
{
	return it->slot != SLOT_NONE && it->rec.type == REC_TENSOR &&
	       (it->rec.role == ROLE_WEIGHT || it->rec.role == ROLE_BIAS);
}

/* What codes stand for, and what only quantizers want, is not read if that can be told. */
static bool wants(struct block *b, const struct item *it)
{
	return it->rec.type != REC_TENSOR ||
	       (it->rec.role != ROLE_STAT && it->rec.role != ROLE_REF &&
		!(is_weight(it) && block_find(b, it->slot, ROLE_CODES)));
}

static int codes_out(struct export *x, struct item *codes, struct err *e)
{
	struct block *b = &x->block;
	const struct item *scale = block_find(b, codes->slot, ROLE_SCALE);
	const struct item *zero = block_find(b, codes->slot, ROLE_ZERO);
	struct export_codes q = { .slot = codes->slot, .layer = b->layer };

	if (codes_init(&q.c, &codes->rec, e) ||
	    codes_fit(&q.c, scale ? &scale->rec : NULL, zero ? &zero->rec : NULL, e))
		return -1;
	q.name = codes->rec.name;
	q.codes = codes->data;
	q.scale = scale->data;
	q.zero = zero ? zero->data : NULL;
	x->n_codes++;
	return x->ops->codes(x->ctx, &q, e);
}

/* All that belongs to one tensor of the checkpoint has come, if it stands together: what was
 * written has no data any more. */
static int flush(struct export *x, struct err *e)
{
	struct block *b = &x->block;
	const enum slot s = x->pending;
	struct item *codes, *weight;
	int ret = 0;

	x->pending = SLOT_NONE;
	if (s == SLOT_NONE)
		return 0;
	for (size_t i = 0; i < b->n; i++)
		if (b->items[i].slot == s && b->items[i].passed)
			return err_set(e, ERR_DATA, b->items[i].rec.name,
				       "its records do not stand together");
	codes = block_find(b, s, ROLE_CODES);
	weight = block_find(b, s, ROLE_WEIGHT);
	if (codes)
		ret = codes_out(x, codes, e);
	else if (weight)
		ret = x->ops->weight(x->ctx, &weight->rec, weight->data, e);
	for (size_t i = 0; !ret && i < b->n; i++)
		if (b->items[i].slot == s) {
			b->items[i].passed = true;
			ret = block_give(b, &b->items[i], e);
		}
	return ret;
}

/* The next tensor begins: what came before makes room. */
static int ahead(void *ctx, struct block *b, const struct item *it, struct err *e)
{
	struct export *x = ctx;

	(void)b;
	return it->rec.type != REC_TENSOR || it->slot == SLOT_NONE || it->slot == x->pending ? 0 :
	       flush(x, e);
}

static int each(void *ctx, struct block *b, struct item *it, struct err *e)
{
	struct export *x = ctx;

	(void)b;
	if (it->rec.type == REC_RUN)
		return x->ops->run(x->ctx, &it->rec, e);
	if (it->rec.type == REC_TENSOR && it->slot != SLOT_NONE)
		x->pending = it->slot;
	return 0;
}

static bool plain_name(const char *name)
{
	return *name && *name != '.' && !strchr(name, '/');
}

/* What is written has config.json's word for what it is, so it must be that of the stream. */
static int check_config(const struct export *x, struct err *e)
{
	const struct model_config *a = &x->model.cfg;
	struct model_config c;

	if (hf_config_parse(&c, x->config, x->config_len, e) < 0)
		return -1;
	if (strcmp(a->model_type, c.model_type) != 0 || a->hidden != c.hidden ||
	    a->layers != c.layers || a->heads != c.heads || a->kv_heads != c.kv_heads ||
	    a->head_dim != c.head_dim || a->ffn != c.ffn || a->vocab != c.vocab ||
	    a->experts != c.experts)
		return err_set(e, ERR_DATA, CONFIG,
			       "is of another model than the stream that carries it");
	return 0;
}

static int take_file(struct export *x, struct stream_in *in, const struct record *rec,
		     struct err *e)
{
	char *text;
	int ret;

	if (!plain_name(rec->name))
		return err_set(e, ERR_DATA, "file", "'%.128s' is not the name of a file",
			       rec->name);
	text = malloc((size_t)rec->nbytes + 1);
	if (!text)
		return err_nomem(e, rec->name, rec->nbytes);
	ret = rec->nbytes ? stream_payload(in, text, e) : 0;
	text[rec->nbytes] = '\0';
	if (!ret && strcmp(rec->name, CONFIG) == 0) {
		free(x->config);
		x->config = text;
		x->config_len = (size_t)rec->nbytes;
		text = NULL;
		ret = check_config(x, e);
	}
	if (!ret && x->ops->file)
		ret = x->ops->file(x->ctx, rec->name, text ? text : x->config,
				   (size_t)rec->nbytes, e);
	else if (!ret && text)
		ret = outdir_put(x->dir, rec->name, text, (size_t)rec->nbytes, e);
	free(text);
	return ret;
}

/* A tensor outside the blocks. */
static int take_end(struct export *x, struct stream_in *in, const struct record *rec,
		    struct err *e)
{
	long layer;
	const enum slot s = model_slot(&x->model, rec->name, &layer);

	if (s == SLOT_NONE || rec->role == ROLE_STAT || rec->role == ROLE_REF)
		return 0;
	if (rec->role != ROLE_WEIGHT && rec->role != ROLE_BIAS)
		return err_set(e, ERR_DATA, rec->name, "%s: only weights are understood here",
			       rec->role_name);
	if (x->seen[s])
		return err_set(e, ERR_DATA, rec->name, "twice");
	x->seen[s] = true;
	if (x->ops->pass) {
		const int got = item_head(&x->item, &x->model, rec, e) < 0 ? -1 :
				x->ops->pass(x->ctx, &x->item.rec, in, e);

		if (got != 0)
			return got < 0 ? -1 : 0;
	}
	if (item_read(&x->item, &x->model, in, rec, e) ||
	    x->ops->weight(x->ctx, &x->item.rec, x->item.data, e))
		return -1;
	item_release(&x->item); /* an embedding is not to stand beside the blocks */
	return 0;
}

static int other(void *ctx, struct stream_in *in, struct record *rec, struct err *e)
{
	struct export *x = ctx;

	switch (rec->type) {
	case REC_FILE:
		return take_file(x, in, rec, e);
	case REC_TENSOR:
		return take_end(x, in, rec, e);
	case REC_RUN:
		return err_set(e, ERR_DATA, rec->name, "run record outside of its block");
	default:
		return 0;
	}
}

static int check_complete(const struct export *x, struct err *e)
{
	char name[256];

	for (int s = SLOT_BLOCK_COUNT; s < SLOT_COUNT; s++)
		if (model_has(&x->model, s, -1) && !x->seen[s]) {
			model_tensor_name(&x->model, s, -1, name);
			return err_set(e, ERR_DATA, name, "missing");
		}
	if (!x->config)
		return err_set(e, ERR_DATA, CONFIG, "is not among the files that the stream "
			       "carries: without it no checkpoint can be made");
	return 0;
}

int export_open(struct export *x, struct stream_in *in, struct err *e)
{
	struct record head = { .rank = -1 };
	int got = stream_next(in, &head, e);

	if (got > 0)
		got = model_from_head(&x->model, &head, e) < 0 ? -1 :
		      export_plan_read(&x->plan, &head, e);
	else if (got == 0)
		got = err_set(e, ERR_DATA, "stream", "empty");
	record_clear(&head);
	x->pending = SLOT_NONE;
	block_init(&x->block, &x->model);
	x->hook = (struct block_hook){ wants, ahead, each, x };
	return got;
}

int export_read(struct export *x, struct stream_in *in, struct err *e)
{
	int got;

	x->block.hook = &x->hook;
	while ((got = block_read(&x->block, in, other, x, e)) > 0) {
		if (flush(x, e) || (x->ops->end && x->ops->end(x->ctx, x->block.layer, e)))
			return -1;
		if (x->progress)
			x->progress((uint64_t)x->block.layer + 1);
	}
	if (got < 0 || check_complete(x, e))
		return -1;
	block_release(&x->block);
	return x->ops->end ? x->ops->end(x->ctx, -1, e) : 0;
}

void export_close(struct export *x)
{
	block_release(&x->block);
	item_release(&x->item);
	export_plan_release(&x->plan);
	free(x->config);
	x->config = NULL;
}

void export_lost(struct export *x, const char *name, const char *what, double error,
		 double norm)
{
	char line[200];

	if (!(error > 0))
		return;
	x->lost.n++;
	x->lost.error += error;
	x->lost.norm += norm;
	if (!x->say)
		return;
	snprintf(line, sizeof(line), "%s: relative error %.3g", what,
		 norm > 0 ? sqrt(error / norm) : 0);
	x->say(name, line);
}

void export_rounded(struct export *x, const struct record *rec, const void *data,
		    enum dtype dtype)
{
	enum { PIECE = 1024 };
	const size_t width = (size_t)dtype_bits(rec->dtype) / 8;
	const size_t n = (size_t)rec->nbytes / width;
	float was[PIECE], is[PIECE];
	uint32_t there[PIECE];
	double error = 0, norm = 0;
	char what[64];

	if (dtype == rec->dtype || dtype == DT_F32)
		return;
	for (size_t i = 0; i < n; i += PIECE) {
		const size_t k = n - i < PIECE ? n - i : PIECE;

		if (dtype_to_f32(was, (const char *)data + i * width, rec->dtype, k) ||
		    dtype_from_f32(there, dtype, was, k) || dtype_to_f32(is, there, dtype, k))
			return;
		for (size_t j = 0; j < k; j++) {
			const double d = (double)is[j] - (double)was[j];

			error += d * d;
			norm += (double)was[j] * (double)was[j];
		}
	}
	snprintf(what, sizeof(what), "rounded to %s", dtype_name(dtype));
	export_lost(x, rec->name, what, error, norm);
}

CLONES static void add_squares(double sums[2], const float *restrict was,
			       const float *restrict is, size_t n)
{
	enum { LANES = 8 };
	double error[LANES] = { 0 }, norm[LANES] = { 0 };

	for (size_t i = 0; i < n; i += LANES)
		for (size_t j = 0; j < LANES; j++) {
			const double w = (double)was[i + j], d = (double)is[i + j] - w;

			error[j] += d * d;
			norm[j] += w * w;
		}
	for (size_t j = 0; j < LANES; j++) {
		sums[0] += error[j];
		sums[1] += norm[j];
	}
}

void export_squares(double sums[2], const float *was, const void *is, enum dtype t, size_t n)
{
	enum { PIECE = 1024 };
	const size_t width = (size_t)dtype_bits(t) / 8;
	float a[PIECE], b[PIECE];

	for (size_t i = 0; i < n; i += PIECE) {
		const size_t k = n - i < PIECE ? n - i : PIECE, all = (k + 7) / 8 * 8;

		memcpy(a, was + i, k * sizeof(*a));
		if (dtype_to_f32(b, (const char *)is + i * width, t, k))
			return;
		memset(a + k, 0, (all - k) * sizeof(*a));
		memset(b + k, 0, (all - k) * sizeof(*b));
		add_squares(sums, a, b, all);
	}
}

void export_note_rounded(struct export *x, const char *name, enum dtype dtype,
			 const double sums[2])
{
	const double error = sums[1] > 0 ? sqrt(sums[0] / sums[1]) : 0;

	if (!(sums[0] > 0))
		return;
	x->rounded.n++;
	if (error <= x->rounded.error)
		return;
	x->rounded.error = error;
	x->rounded.dtype = dtype;
	snprintf(x->rounded.worst, sizeof(x->rounded.worst), "%s", name);
}

double export_error(const struct export *x)
{
	return x->lost.norm > 0 ? sqrt(x->lost.error / x->lost.norm) : 0;
}
