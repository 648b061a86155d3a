/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hf_write.c - weights as they are, or as their codes stand for, into safetensors
 */
#include "formats/hf_write.h"

#include <stdlib.h>

struct hf_writer {
	const struct hf_write_options *o;
	struct export *x;
	struct st_writer *w;
	struct readback *b;
	float *row;           /* a piece of a weight */
	uint8_t *scratch;
	size_t cols;          /* that row and scratch have room for */
};

#define TOO_LARGE ": --dtype=bf16 or f32"

/* Without a plan the stream's own. */
static enum dtype target(const struct hf_writer *h, const char *name, enum dtype here)
{
	enum dtype t = h->o->dtype ? h->o->dtype : export_plan_dtype(&h->x->plan, name);

	return t == DT_F32 || t == DT_F16 || t == DT_BF16 ? t : here;
}

static int take_weight(void *ctx, const struct record *rec, const void *data, struct err *e)
{
	struct hf_writer *h = ctx;

	return export_weight(h->w, h->b, rec, data, target(h, rec->name, rec->dtype), TOO_LARGE,
			     e);
}

static int take_pass(void *ctx, const struct record *rec, struct stream_in *in, struct err *e)
{
	struct hf_writer *h = ctx;

	if (target(h, rec->name, rec->dtype) != rec->dtype)
		return 0;
	return export_pass(h->w, h->b, rec, in, e) ? -1 : 1;
}

static int reserve(struct hf_writer *h, size_t cols, struct err *e)
{
	if (cols <= h->cols)
		return 0;
	free(h->row);
	free(h->scratch);
	h->row = malloc(cols * sizeof(*h->row));
	h->scratch = malloc(cols * sizeof(*h->row));
	h->cols = h->row && h->scratch ? cols : 0;
	return h->cols ? 0 : err_nomem(e, "row", cols * sizeof(*h->row));
}

/* A row of f32 in the type it is to have, in scratch. */
static int put_row(struct hf_writer *h, const struct export_codes *q, size_t n, enum dtype t,
		   struct err *e)
{
	const size_t cols = q->c.cols, bytes = cols * (size_t)dtype_bits(t) / 8;
	int64_t bad;

	if (codes_row(&q->c, h->row, n, q->codes, q->scale, q->zero, h->scratch, e))
		return -1;
	if (dtype_from_f32(h->scratch, t, h->row, cols))
		return err_set(e, ERR_BUG, q->name, "BUG: cannot be converted");
	bad = dtype_first_nonfinite(h->scratch, t, cols);
	if (bad >= 0)
		return err_set(e, ERR_DATA, q->name, "value %g is too large for %s" TOO_LARGE,
			       (double)h->row[bad], dtype_name(t));
	readback_bytes(h->b, h->scratch, bytes);
	return st_writer_bytes(h->w, h->scratch, bytes, e);
}

static int take_codes(void *ctx, const struct export_codes *q, struct err *e)
{
	struct hf_writer *h = ctx;
	const int64_t shape[2] = { (int64_t)q->c.rows, (int64_t)q->c.cols };
	const enum dtype t = target(h, q->name, DT_F32);

	if (!h->o->dequantize)
		return err_set(e, ERR_DATA, q->name, "is in codes of %d bits: --dequantize writes "
			       "what they stand for, to-ct the codes", q->c.bits);
	if (reserve(h, q->c.cols, e) ||
	    readback_begin(h->b, q->name, ROLE_WEIGHT, t, 2, shape, e) ||
	    st_writer_begin(h->w, q->name, t, 2, shape, e))
		return -1;
	for (size_t n = 0; n < q->c.rows; n++)
		if (put_row(h, q, n, t, e))
			return -1;
	return 0;
}

static int take_run(void *ctx, const struct record *rec, struct err *e)
{
	char kind[32] = "?";

	(void)ctx;
	(void)record_get_str(rec, "kind", kind, sizeof(kind));
	return err_set(e, ERR_DATA, rec->name, "wants '%s' at run time, which a directory of plain "
		       "weights cannot say", kind);
}

/* The type in config.json: the one asked for, else as it was. */
static int write_all(struct hf_writer *h, struct outdir *dir, struct stream_in *in, struct err *e)
{
	if (export_read(h->x, in, e) || st_writer_finish(h->w, e) ||
	    export_config(h->x, h->o->dtype, NULL, e))
		return -1;
	return readback_check(h->b, dir->temp, e);
}

int hf_write(struct outdir *dir, struct stream_in *in, struct export *x,
	     const struct hf_write_options *o, struct err *e)
{
	static const struct export_ops ops = { NULL, take_codes, take_weight, take_pass, take_run,
					       NULL };
	struct hf_writer h = { .o = o, .x = x };
	int ret;

	x->ops = &ops;
	x->ctx = &h;
	x->dir = dir;
	x->progress = o->progress;
	ret = st_writer_new(&h.w, dir, o->max_shard, export_header_room(&x->model, 1), e);
	if (!ret)
		ret = readback_new(&h.b, e);
	if (!ret)
		ret = write_all(&h, dir, in, e);
	st_writer_free(h.w);
	readback_free(h.b);
	free(h.row);
	free(h.scratch);
	return ret;
}
