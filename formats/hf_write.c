/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hf_write.c - weights as they are, or as their codes stand for, into safetensors
 */
#include "formats/hf_write.h"

#include <stdlib.h>

#include "lib/base/pool.h"

#define PIECE ((size_t)1 << 20) /* values that are made at a time, about */

/* What each thread has for itself. */
struct hand {
	float *row;
	uint8_t *scratch;
	size_t bad;           /* the first row that failed, SIZE_MAX: none */
	struct err err;
};

struct hf_writer {
	const struct hf_write_options *o;
	struct export *x;
	struct st_writer *w;
	struct readback *b;
	struct pool *pool;
	struct hand *hand;    /* one a thread */
	size_t cols;          /* that rows have room for */
	uint8_t *piece;       /* rows as they are written */
	double *sums;         /* of each row of it, as export_squares has them */
	size_t cap, rows;     /* that they have room for: bytes, rows */
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

	return export_weight(h->x, h->w, h->b, rec, data, target(h, rec->name, rec->dtype),
			     TOO_LARGE, e);
}

static int take_pass(void *ctx, const struct record *rec, struct stream_in *in, struct err *e)
{
	struct hf_writer *h = ctx;

	if (target(h, rec->name, rec->dtype) != rec->dtype)
		return 0;
	return export_pass(h->w, h->b, rec, in, e) ? -1 : 1;
}

static int reserve(struct hf_writer *h, size_t cols, size_t rows, size_t piece, struct err *e)
{
	const int n = pool_threads(h->pool);

	if (rows > h->rows) {
		free(h->sums);
		h->sums = malloc(rows * 2 * sizeof(*h->sums));
		h->rows = h->sums ? rows : 0;
		if (!h->rows)
			return err_nomem(e, "rows", rows * 2 * sizeof(*h->sums));
	}
	if (piece > h->cap) {
		free(h->piece);
		h->piece = malloc(piece);
		h->cap = h->piece ? piece : 0;
		if (!h->cap)
			return err_nomem(e, "rows", piece);
	}
	if (cols <= h->cols)
		return 0;
	h->cols = 0;
	for (int i = 0; i < n; i++) {
		struct hand *d = &h->hand[i];

		free(d->row);
		free(d->scratch);
		d->row = malloc(cols * sizeof(*d->row));
		d->scratch = malloc(cols);
		if (!d->row || !d->scratch)
			return err_nomem(e, "row", cols * sizeof(*d->row));
	}
	h->cols = cols;
	return 0;
}

/* Rows first .. first + n - 1 of q as type t, in the piece. */
struct job {
	struct hf_writer *h;
	const struct export_codes *q;
	enum dtype t;
	size_t first, n, each; /* each: rows of a task */
};

static int make_row(const struct job *j, struct hand *d, size_t n, uint8_t *dst, double sums[2],
		    struct err *e)
{
	const struct export_codes *q = j->q;
	int64_t bad;

	if (codes_row(&q->c, d->row, n, q->codes, q->scale, q->zero, d->scratch, e))
		return -1;
	if (dtype_from_f32(dst, j->t, d->row, q->c.cols))
		return err_set(e, ERR_BUG, q->name, "BUG: cannot be converted");
	bad = dtype_first_nonfinite(dst, j->t, q->c.cols);
	if (bad >= 0)
		return err_set(e, ERR_DATA, q->name, "value %g is too large for %s" TOO_LARGE,
			       (double)d->row[bad], dtype_name(j->t));
	sums[0] = sums[1] = 0;
	if (j->t != DT_F32)
		export_squares(sums, d->row, dst, j->t, q->c.cols);
	return 0;
}

static void task(void *ctx, size_t i, int thread)
{
	const struct job *j = ctx;
	struct hand *d = &j->h->hand[thread];
	const size_t bytes = j->q->c.cols * (size_t)dtype_bits(j->t) / 8;
	struct err e;

	for (size_t n = i * j->each; n < (i + 1) * j->each && n < j->n; n++)
		if (make_row(j, d, j->first + n, j->h->piece + n * bytes, j->h->sums + 2 * n, &e) &&
		    j->first + n < d->bad) {
			d->bad = j->first + n;
			d->err = e;
		}
}

/* The error of the lowest row: the same whatever ran when. */
static int worst(const struct hf_writer *h, struct err *e)
{
	const struct hand *first = &h->hand[0];

	for (int i = 1; i < pool_threads(h->pool); i++)
		if (h->hand[i].bad < first->bad)
			first = &h->hand[i];
	if (first->bad == SIZE_MAX)
		return 0;
	*e = first->err;
	return -1;
}

static int put_rows(struct job *j, struct err *e)
{
	double sums[2] = { 0, 0 };
	const size_t rows = j->q->c.rows, per = j->n;
	const size_t bytes = j->q->c.cols * (size_t)dtype_bits(j->t) / 8;

	for (j->first = 0; j->first < rows; j->first += per) {
		j->n = rows - j->first < per ? rows - j->first : per;
		pool_run(j->h->pool, (j->n + j->each - 1) / j->each, task, j);
		if (worst(j->h, e))
			return -1;
		for (size_t i = 0; i < 2 * j->n; i++)
			sums[i % 2] += j->h->sums[i];
		readback_bytes(j->h->b, j->h->piece, j->n * bytes);
		if (st_writer_bytes(j->h->w, j->h->piece, j->n * bytes, e))
			return -1;
	}
	export_note_rounded(j->h->x, j->q->name, j->t, sums);
	return 0;
}

static int take_codes(void *ctx, const struct export_codes *q, struct err *e)
{
	struct hf_writer *h = ctx;
	const int64_t shape[2] = { (int64_t)q->c.rows, (int64_t)q->c.cols };
	struct job j = { .h = h, .q = q, .t = target(h, q->name, DT_F32) };
	const size_t cols = q->c.cols;

	if (!h->o->dequantize)
		return err_set(e, ERR_DATA, q->name, "is in codes of %d bits: --dequantize writes "
			       "what they stand for, to-ct the codes", q->c.bits);
	j.n = PIECE / cols ? PIECE / cols : 1;
	j.each = PIECE / 16 / cols ? PIECE / 16 / cols : 1;
	if (reserve(h, cols, j.n, j.n * cols * (size_t)dtype_bits(j.t) / 8, e) ||
	    readback_begin(h->b, q->name, ROLE_WEIGHT, j.t, 2, shape, e) ||
	    st_writer_begin(h->w, q->name, j.t, 2, shape, e))
		return -1;
	return put_rows(&j, e);
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

static int hands_new(struct hf_writer *h, struct err *e)
{
	struct err alone;

	h->pool = pool_new(pool_cores(), e);
	if (!h->pool)
		return -1;
	/* Where the processors cannot be shared with what feeds the pipe, it works on as well. */
	(void)!pool_share(h->pool, &alone);
	h->hand = calloc((size_t)pool_threads(h->pool), sizeof(*h->hand));
	if (!h->hand)
		return err_nomem(e, "rows", sizeof(*h->hand));
	for (int i = 0; i < pool_threads(h->pool); i++)
		h->hand[i].bad = SIZE_MAX;
	return 0;
}

static void hands_free(struct hf_writer *h)
{
	for (int i = 0; h->hand && i < pool_threads(h->pool); i++) {
		free(h->hand[i].row);
		free(h->hand[i].scratch);
	}
	free(h->hand);
	free(h->piece);
	free(h->sums);
	pool_free(h->pool);
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
	ret = hands_new(&h, e);
	if (!ret)
		ret = st_writer_new(&h.w, dir, o->max_shard, export_header_room(&x->model, 1), e);
	if (!ret)
		ret = readback_new(&h.b, e);
	if (!ret)
		ret = write_all(&h, dir, in, e);
	st_writer_free(h.w);
	readback_free(h.b);
	hands_free(&h);
	return ret;
}
