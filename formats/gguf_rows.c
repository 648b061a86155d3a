/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gguf_rows.c - rows of a tensor, made in parallel
 */
#include "formats/gguf_rows.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "formats/ggml.h"
#include "lib/base/hash.h"
#include "lib/base/pool.h"
#include "lib/data/stream.h"

#define PIECE ((size_t)1 << 20) /* bytes that are written at once */
#define TASK ((size_t)64 << 10) /* weights of a task, about */

/* What each thread has for itself. */
struct hand {
	struct gguf_pack_scratch s;
	float *back;      /* [cols]: a row read back */
	size_t bad;       /* the first row that failed, SIZE_MAX: none */
	struct err err;
};

struct job {
	struct gguf_rows *r;
	struct hand *hands;
	size_t row_bytes; /* in the file */
	size_t first, n;  /* rows of the piece, as the file counts them */
	size_t each;      /* rows of a task */
	unsigned char *piece;
	uint64_t *hash;   /* [rows], as the stream counts them */
	double *sums;     /* [rows, 2]: error and norm; NULL: nothing is rounded */
};

/* The row of the stream that row i of the file is: pairs (j, j + head/2) stand side by side. */
static size_t source_row(const struct gguf_rows *r, size_t i)
{
	const size_t d = r->head, in = d ? i % d : 0;

	return d ? i - in + in % 2 * (d / 2) + in / 2 : i;
}

static void add_error(double sums[2], const float *was, const float *is, size_t n)
{
	for (size_t k = 0; k < n; k++) {
		const double d = (double)is[k] - (double)was[k];

		sums[0] += d * d;
		sums[1] += (double)was[k] * (double)was[k];
	}
}

static int code_row(const struct job *j, struct hand *h, size_t src, unsigned char *dst,
		    struct err *e)
{
	const struct gguf_rows *r = j->r;
	const struct ggml_type *t = ggml_type(r->packing.type);

	if (gguf_pack_row(dst, &r->packing, r->codes, src, &h->s, e))
		return -1;
	if (r->packing.how == GGUF_PACK_EXACT) {
		j->hash[src] = hash64(h->s.w, r->cols * sizeof(float));
		return 0;
	}
	if (t->dequantize) {
		t->dequantize(h->back, dst, r->cols / t->block);
		j->hash[src] = hash64(h->back, r->cols * sizeof(float));
	} else {
		if (dtype_to_f32(h->back, dst, t->dtype, r->cols))
			return err_set(e, ERR_BUG, r->name, "BUG: type cannot be converted");
		j->hash[src] = hash64(dst, j->row_bytes);
	}
	add_error(&j->sums[2 * src], h->s.w, h->back, r->cols);
	return 0;
}

static int float_row(const struct job *j, struct hand *h, size_t src, unsigned char *dst,
		     struct err *e)
{
	const struct gguf_rows *r = j->r;
	const size_t width = (size_t)dtype_bits(r->from) / 8;
	const char *from = (const char *)r->data + src * r->cols * width;

	if (r->from == r->to) {
		memcpy(dst, from, j->row_bytes);
	} else {
		if (dtype_to_f32(h->s.w, from, r->from, r->cols) ||
		    dtype_from_f32(dst, r->to, h->s.w, r->cols) ||
		    dtype_to_f32(h->back, dst, r->to, r->cols))
			return err_set(e, ERR_BUG, r->name, "BUG: type cannot be converted");
		if (dtype_first_nonfinite(dst, r->to, r->cols) >= 0)
			return err_set(e, ERR_DATA, r->name, "row %zu has a value too large for "
				       "%s: --dtype=bf16 or f32", src, dtype_name(r->to));
		add_error(&j->sums[2 * src], h->s.w, h->back, r->cols);
	}
	j->hash[src] = hash64(dst, j->row_bytes);
	return 0;
}

static void task(void *ctx, size_t t, int thread)
{
	const struct job *j = ctx;
	struct hand *h = &j->hands[thread];
	struct err e;

	for (size_t i = t * j->each; i < (t + 1) * j->each && i < j->n; i++) {
		const size_t src = source_row(j->r, j->first + i);
		unsigned char *dst = j->piece + i * j->row_bytes;

		if ((j->r->codes ? code_row(j, h, src, dst, &e) : float_row(j, h, src, dst, &e)) &&
		    src < h->bad) {
			h->bad = src;
			h->err = e;
		}
	}
}

/* The error of the lowest row: the same whatever ran when. */
static int worst(const struct job *j, struct err *e)
{
	const struct hand *first = &j->hands[0];

	for (int i = 1; i < pool_threads(j->r->pool); i++)
		if (j->hands[i].bad < first->bad)
			first = &j->hands[i];
	if (first->bad == SIZE_MAX)
		return 0;
	*e = first->err;
	return -1;
}

static int hands_new(struct job *j, struct err *e)
{
	const int n = pool_threads(j->r->pool);

	j->hands = calloc((size_t)n, sizeof(*j->hands));
	if (!j->hands)
		return err_nomem(e, j->r->name, (unsigned long long)n * sizeof(*j->hands));
	for (int i = 0; i < n; i++) {
		j->hands[i].bad = SIZE_MAX;
		j->hands[i].back = malloc(j->r->cols * sizeof(float));
		if (!j->hands[i].back)
			return err_nomem(e, j->r->name, j->r->cols * sizeof(float));
		if (gguf_pack_scratch_new(&j->hands[i].s, j->r->cols, e))
			return -1;
	}
	return 0;
}

static void job_release(struct job *j)
{
	for (int i = 0; j->hands && i < pool_threads(j->r->pool); i++) {
		gguf_pack_scratch_free(&j->hands[i].s);
		free(j->hands[i].back);
	}
	free(j->hands);
	free(j->piece);
	free(j->hash);
	free(j->sums);
}

static int job_init(struct job *j, struct err *e)
{
	const struct gguf_rows *r = j->r;
	const struct ggml_type *t = r->codes ? ggml_type(r->packing.type) : NULL;
	const bool rounds = r->codes ? r->packing.how != GGUF_PACK_EXACT : r->from != r->to;

	j->row_bytes = t ? r->cols / t->block * t->bytes :
		       r->cols * (size_t)dtype_bits(r->to) / 8;
	j->first = 0;
	j->n = PIECE / j->row_bytes ? PIECE / j->row_bytes : 1;
	j->n = j->n < r->rows ? j->n : r->rows;
	j->each = TASK / r->cols ? TASK / r->cols : 1;
	j->piece = malloc(j->n * j->row_bytes);
	j->hash = malloc(r->rows * sizeof(*j->hash));
	j->sums = rounds ? calloc(r->rows, 2 * sizeof(*j->sums)) : NULL;
	if (!j->piece || !j->hash || (rounds && !j->sums))
		return err_nomem(e, r->name, j->n * j->row_bytes + r->rows * 24);
	return hands_new(j, e);
}

static int write_all(struct job *j, struct gguf_writer *w, long index, uint64_t at, struct err *e)
{
	const size_t rows = j->r->rows, per = j->n;

	for (j->first = 0; j->first < rows; j->first += per) {
		j->n = rows - j->first < per ? rows - j->first : per;
		pool_run(j->r->pool, (j->n + j->each - 1) / j->each, task, j);
		if (worst(j, e) ||
		    gguf_writer_put(w, index, at + j->first * j->row_bytes, j->piece,
				    j->n * j->row_bytes, e))
			return -1;
	}
	return 0;
}

int gguf_rows_write(struct gguf_rows *r, struct gguf_writer *w, long index, uint64_t at,
		    struct err *e)
{
	struct job j = { .r = r };
	int ret = job_init(&j, e);

	r->error = r->norm = 0;
	if (!ret)
		ret = write_all(&j, w, index, at, e);
	if (!ret) {
		hash128(j.hash, r->rows * sizeof(*j.hash), &r->hash[0], &r->hash[1]);
		for (size_t i = 0; j.sums && i < r->rows; i++) {
			r->error += j.sums[2 * i];
			r->norm += j.sums[2 * i + 1];
		}
	}
	r->rounded = r->error > 0;
	job_release(&j);
	return ret;
}

/* ---- in pieces ------------------------------------------------------------------------- */

int gguf_rows_sum_begin(struct gguf_rows_sum *s, const char *name, size_t rows, size_t row_bytes,
			struct err *e)
{
	if (!s->row)
		s->row = hash_new(64);
	if (rows > s->rows) {
		free(s->hash);
		s->hash = malloc(rows * sizeof(*s->hash));
		s->rows = s->hash ? rows : 0;
	}
	if (!s->row || !s->hash)
		return err_nomem(e, name, rows * sizeof(*s->hash));
	s->n = s->have = 0;
	s->row_bytes = row_bytes;
	hash_reset(s->row);
	return 0;
}

void gguf_rows_sum_add(struct gguf_rows_sum *s, const void *data, size_t n)
{
	const char *p = data;

	while (n > 0) {
		const size_t left = s->row_bytes - s->have, some = n < left ? n : left;

		if (some == s->row_bytes) {
			s->hash[s->n++] = hash64(p, some);
		} else {
			hash_add(s->row, p, some);
			s->have += some;
			if (s->have == s->row_bytes) {
				s->hash[s->n++] = hash_get64(s->row);
				hash_reset(s->row);
				s->have = 0;
			}
		}
		p += some;
		n -= some;
	}
}

void gguf_rows_sum_end(const struct gguf_rows_sum *s, uint64_t hash[2])
{
	hash128(s->hash, s->n * sizeof(*s->hash), &hash[0], &hash[1]);
}

void gguf_rows_sum_release(struct gguf_rows_sum *s)
{
	hash_free(s->row);
	free(s->hash);
	memset(s, 0, sizeof(*s));
}

struct passing {
	const struct gguf_rows *r;
	struct gguf_writer *w;
	long index;
	uint64_t at;
	struct gguf_rows_sum sum;
};

static int pass_piece(void *ctx, const void *p, size_t n, struct err *e)
{
	struct passing *t = ctx;
	const size_t width = (size_t)dtype_bits(t->r->from) / 8;
	const int64_t bad = dtype_first_nonfinite(p, t->r->from, n / width);

	if (bad >= 0)
		return err_set(e, ERR_DATA, t->r->name, "value at row %zu column %zu is not finite",
			       (size_t)(t->at / width + (uint64_t)bad) / t->r->cols,
			       (size_t)(t->at / width + (uint64_t)bad) % t->r->cols);
	gguf_rows_sum_add(&t->sum, p, n);
	if (gguf_writer_put(t->w, t->index, t->at, p, n, e))
		return -1;
	t->at += n;
	return 0;
}

int gguf_rows_pass(struct gguf_rows *r, struct gguf_writer *w, long index, struct stream_in *in,
		   struct err *e)
{
	struct passing t = { .r = r, .w = w, .index = index };
	const size_t row_bytes = r->cols * (size_t)dtype_bits(r->from) / 8;
	int ret = gguf_rows_sum_begin(&t.sum, r->name, r->rows, row_bytes, e);

	if (!ret)
		ret = stream_pieces(in, r->rows * row_bytes, pass_piece, &t, e);
	if (!ret)
		gguf_rows_sum_end(&t.sum, r->hash);
	gguf_rows_sum_release(&t.sum);
	return ret;
}
