/* SPDX-License-Identifier: Apache-2.0 */
/*
 * compare.c - how far two tensors are apart
 */
#include "lib/model/compare.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/data/bits.h"

#define TILE 4096

void tensor_error_add(struct tensor_error *s, const double *a, const double *b, size_t n)
{
	s->n += n;
	for (size_t i = 0; i < n; i++) {
		double d = a[i] - b[i];

		if (!isfinite(a[i]) || !isfinite(b[i])) {
			if (a[i] != b[i] && !(isnan(a[i]) && isnan(b[i]))) {
				s->unequal++;
				s->infinite = true;
				s->max_abs = HUGE_VAL;
			}
			continue;
		}
		s->unequal += d != 0;
		s->max_abs = fabs(d) > s->max_abs ? fabs(d) : s->max_abs;
		s->d2 += d * d;
		s->a2 += a[i] * a[i];
		s->b2 += b[i] * b[i];
		s->ab += a[i] * b[i];
	}
}

double tensor_error_rel(const struct tensor_error *s)
{
	if (s->unequal == 0)
		return 0;
	return s->infinite || s->a2 == 0 ? HUGE_VAL : sqrt(s->d2 / s->a2);
}

double tensor_error_snr(const struct tensor_error *s)
{
	double rel = tensor_error_rel(s);

	return rel == 0 ? HUGE_VAL : isinf(rel) ? -HUGE_VAL : -20 * log10(rel);
}

double tensor_error_cosine(const struct tensor_error *s)
{
	if (s->unequal == 0)
		return 1;
	return s->infinite || s->a2 == 0 || s->b2 == 0 ? 0 : s->ab / sqrt(s->a2 * s->b2);
}

/* ---- values ---------------------------------------------------------------------- */

void tensor_value_release(struct tensor_value *v)
{
	record_clear(&v->rec);
	record_clear(&v->scale);
	record_clear(&v->zero);
	free(v->data);
	free(v->scale_data);
	free(v->zero_data);
	memset(v, 0, sizeof(*v));
}

static const char *role_label(const struct tensor_value *v)
{
	return v->rec.type == REC_ALIAS ? "alias" : v->rec.role == ROLE_CODES ?
	       role_name(ROLE_WEIGHT) : v->rec.role_name;
}

void tensor_value_label(const struct tensor_value *v, char *label, size_t cap)
{
	char kind[32];

	if (v->rec.role != ROLE_STAT || !record_get_str(&v->rec, "stat", kind, sizeof(kind)))
		snprintf(kind, sizeof(kind), "%s", role_label(v));
	snprintf(label, cap, "%s%s%s", v->rec.name, kind[0] ? " " : "", kind);
}

bool tensor_value_same_name(const struct tensor_value *a, const struct tensor_value *b)
{
	char la[STREAM_MAX_NAME + 40], lb[STREAM_MAX_NAME + 40];

	/* An alias may stand where the other has the tensor itself: that is one thing. */
	if ((a->rec.type == REC_ALIAS) != (b->rec.type == REC_ALIAS))
		return strcmp(a->rec.name, b->rec.name) == 0 &&
		       (a->rec.type == REC_ALIAS ? b : a)->rec.role != ROLE_STAT;
	tensor_value_label(a, la, sizeof(la));
	tensor_value_label(b, lb, sizeof(lb));
	return strcmp(la, lb) == 0;
}

/* An element of a type that dtype_to_f32 does not take, or F64. */
static double element(enum dtype t, const unsigned char *p)
{
	int bytes = dtype_bits(t) / 8;
	uint64_t u = 0;
	double d;

	for (int i = bytes - 1; i >= 0; i--)
		u = u << 8 | p[i];
	switch (t) {
	case DT_F64:
		memcpy(&d, &u, sizeof(d));
		return d;
	case DT_I64: case DT_I32: case DT_I16: case DT_I8:
		if (bytes < 8 && u >> (8 * bytes - 1))
			u |= ~UINT64_C(0) << (8 * bytes);
		return (double)(int64_t)u;
	default:
		return (double)u;
	}
}

/* Elements at .. at + n of a plain tensor. */
static void plain_tile(double *out, const struct tensor_value *v, size_t at, size_t n)
{
	enum dtype t = v->rec.dtype;
	size_t bytes = (size_t)dtype_bits(t) / 8;
	const unsigned char *p = (const unsigned char *)v->data + at * bytes;
	float f[TILE];

	if (t != DT_F64 && dtype_to_f32(f, p, t, n) == 0) {
		for (size_t i = 0; i < n; i++)
			out[i] = f[i];
		return;
	}
	for (size_t i = 0; i < n; i++)
		out[i] = element(t, p + i * bytes);
}

/* Rows of a tensor as f64, whatever it is made of. */
struct rows {
	const struct tensor_value *v;
	struct codes codes;
	bool coded;
	float *row;   /* [cols] of a quantized weight */
	uint8_t *buf;
	size_t have;  /* the row that lies in row, plus 1 */
};

static int rows_init(struct rows *r, const struct tensor_value *v, struct err *e)
{
	memset(r, 0, sizeof(*r));
	r->v = v;
	r->coded = v->rec.role == ROLE_CODES;
	if (!r->coded)
		return 0;
	if (codes_init(&r->codes, &v->rec, e) < 0 ||
	    codes_fit(&r->codes, v->scale.name[0] ? &v->scale : NULL,
		      v->zero.name[0] ? &v->zero : NULL, e) < 0)
		return -1;
	r->row = malloc(r->codes.cols * sizeof(*r->row));
	r->buf = malloc(r->codes.cols);
	return r->row && r->buf ? 0 : err_nomem(e, v->rec.name, r->codes.cols * 5);
}

static void rows_release(struct rows *r)
{
	free(r->row);
	free(r->buf);
}

static int rows_tile(struct rows *r, double *out, size_t at, size_t n, struct err *e)
{
	const struct tensor_value *v = r->v;

	if (!r->coded) {
		plain_tile(out, v, at, n);
		return 0;
	}
	for (size_t i = 0; i < n; i++) {
		size_t row = (at + i) / r->codes.cols;

		if (r->have != row + 1 &&
		    codes_row(&r->codes, r->row, row, v->data, v->scale_data, v->zero_data, r->buf,
			      e) < 0)
			return -1;
		r->have = row + 1;
		out[i] = r->row[(at + i) % r->codes.cols];
	}
	return 0;
}

/* Types with a number in every element. */
static bool has_values(const struct tensor_value *v)
{
	enum dtype t = v->rec.dtype;

	return v->rec.role == ROLE_CODES ||
	       (t != DT_NONE && dtype_bits(t) >= 8 && t != DT_F8_E4M3 && t != DT_F8_E5M2);
}

static bool same_shape(const struct record *a, const struct record *b)
{
	return a->rank == b->rank &&
	       (a->rank < 1 ||
		memcmp(a->shape, b->shape, (size_t)a->rank * sizeof(a->shape[0])) == 0);
}

static int not_comparable(const struct tensor_value *a, const struct tensor_value *b, char *why,
			  size_t cap)
{
	char of_a[STREAM_MAX_NAME + 1] = "", of_b[STREAM_MAX_NAME + 1] = "";

	if ((a->rec.type == REC_ALIAS) != (b->rec.type == REC_ALIAS)) {
		snprintf(why, cap, "an alias on one side only");
		return 1;
	}
	if (a->rec.type == REC_ALIAS) {
		record_get_str(&a->rec, "of", of_a, sizeof(of_a));
		record_get_str(&b->rec, "of", of_b, sizeof(of_b));
		if (strcmp(of_a, of_b) != 0) {
			snprintf(why, cap, "aliases of different tensors");
			return 1;
		}
	} else if (!same_shape(&a->rec, &b->rec)) {
		snprintf(why, cap, "shapes differ");
		return 1;
	}
	return 0;
}

/* Integers of 64 bits do not fit f64: same type, same bytes, or a difference. */
static void count_bytes(struct tensor_error *s, const struct tensor_value *a,
			const struct tensor_value *b)
{
	size_t bytes = (size_t)dtype_bits(a->rec.dtype) / 8;
	const char *pa = a->data, *pb = b->data;

	s->unequal = 0;
	for (size_t i = 0; i < s->n; i++)
		s->unequal += memcmp(pa + i * bytes, pb + i * bytes, bytes) != 0;
}

static int compare_values(struct tensor_error *s, const struct tensor_value *a,
			  const struct tensor_value *b, struct err *e)
{
	struct rows ra = { 0 }, rb = { 0 };
	double ta[TILE], tb[TILE];
	uint64_t count = 1;
	int r = 0;

	for (int i = 0; i < a->rec.rank; i++)
		count *= (uint64_t)a->rec.shape[i];
	if (rows_init(&ra, a, e) < 0 || rows_init(&rb, b, e) < 0)
		r = -1;
	for (size_t at = 0, n; r == 0 && at < count; at += n) {
		n = count - at < TILE ? (size_t)(count - at) : TILE;
		r = rows_tile(&ra, ta, at, n, e);
		if (r == 0)
			r = rows_tile(&rb, tb, at, n, e);
		if (r == 0)
			tensor_error_add(s, ta, tb, n);
	}
	rows_release(&ra);
	rows_release(&rb);
	if (r == 0 && a->rec.dtype == b->rec.dtype && a->rec.dtype >= DT_I64 &&
	    a->rec.dtype <= DT_BOOL && a->rec.role != ROLE_CODES)
		count_bytes(s, a, b);
	return r;
}

int tensor_value_compare(struct tensor_error *s, const struct tensor_value *a,
			 const struct tensor_value *b, char *why, size_t cap, struct err *e)
{
	memset(s, 0, sizeof(*s));
	if (not_comparable(a, b, why, cap))
		return 0;
	if (a->rec.type == REC_ALIAS)
		return 1;
	if (has_values(a) && has_values(b))
		return compare_values(s, a, b, e) < 0 ? -1 : 1;
	if (a->rec.dtype != b->rec.dtype || a->rec.nbytes != b->rec.nbytes) {
		snprintf(why, cap, "dtypes differ, and not both have values");
		return 0;
	}
	s->n = a->rec.nbytes;
	if (s->n > 0 && memcmp(a->data, b->data, (size_t)a->rec.nbytes) != 0) {
		s->unequal = 1;
		s->infinite = true;
		s->max_abs = HUGE_VAL;
	}
	return 1;
}
