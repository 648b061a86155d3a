/* SPDX-License-Identifier: Apache-2.0 */
/*
 * compare_read.c - the tensors of a stream with all that makes their values, part by part
 *
 * Parts alternate, outside and block, and an outside part may be empty: so the parts of two
 * streams of one model always face each other.
 */
#include <stdlib.h>
#include <string.h>

#include "lib/model/compare.h"

struct tensor_reader {
	struct stream_in *in;
	unsigned roles;
	struct record rec; /* the next header, if have; its payload is not taken yet */
	bool have, end;
	bool block;        /* the part at hand is a block */
	bool begun, over;  /* the first part was begun; the part at hand is over */
	char last[STREAM_MAX_NAME + 1]; /* the last weight given: codes of it are passed over */
};

struct tensor_reader *tensor_reader_new(struct stream_in *in, unsigned roles, struct err *e)
{
	struct tensor_reader *t = calloc(1, sizeof(*t));

	if (!t) {
		err_nomem(e, "", sizeof(*t));
		return NULL;
	}
	t->in = in;
	t->roles = roles;
	record_init(&t->rec, REC_OTHER, "");
	return t;
}

void tensor_reader_free(struct tensor_reader *t)
{
	if (!t)
		return;
	record_clear(&t->rec);
	free(t);
}

/* Have a header, or be at the end: 1, 0, -1. */
static int peek(struct tensor_reader *t, struct err *e)
{
	int got;

	if (t->have || t->end)
		return t->have;
	got = stream_next(t->in, &t->rec, e);
	if (got < 0)
		return -1;
	t->have = got > 0;
	t->end = got == 0;
	return got;
}

int tensor_reader_part(struct tensor_reader *t, struct err *e)
{
	int got;

	if (!t->begun) {
		t->begun = true;
		return 1;
	}
	got = peek(t, e);
	if (got < 0)
		return -1;
	t->over = false;
	t->last[0] = '\0';
	if (t->block) {
		t->block = false;
		return 1;
	}
	if (got == 0)
		return 0;
	/* The part outside was over because a block begins. */
	t->have = false;
	t->block = true;
	return 1;
}

/* 1: the header at hand is of the part at hand; 0: the part is over; -1. */
static int in_part(struct tensor_reader *t, struct err *e)
{
	int got = t->over ? 0 : peek(t, e);

	if (got <= 0) {
		if (got == 0 && t->block && !t->over)
			return err_set(e, ERR_DATA, "block", "is not closed");
		t->over = true;
		return got;
	}
	if (t->rec.type == REC_BLOCK) {
		if (t->block)
			return err_set(e, ERR_DATA, "block", "begins inside another");
		t->over = true;
		return 0;
	}
	if (t->rec.type == REC_BLOCK_END) {
		if (!t->block)
			return err_set(e, ERR_DATA, "block-end", "does not close a block");
		t->have = false;
		t->over = true;
		return 0;
	}
	return 1;
}

/* The header and payload at hand move to *r and *data. */
static int take(struct tensor_reader *t, struct record *r, void **data, struct err *e)
{
	free(*data);
	*data = NULL;
	if (t->rec.nbytes > SIZE_MAX / 2)
		return err_nomem(e, t->rec.name, t->rec.nbytes);
	if (t->rec.nbytes > 0) {
		*data = malloc((size_t)t->rec.nbytes);
		if (!*data)
			return err_nomem(e, t->rec.name, t->rec.nbytes);
		if (stream_payload(t->in, *data, e) < 0)
			return -1;
	}
	t->have = false;
	return record_dup(r, &t->rec, e);
}

static bool wanted(const struct tensor_reader *t)
{
	const struct record *r = &t->rec;
	enum role role = r->role;

	if (r->type == REC_ALIAS)
		return t->roles & 1u << ROLE_WEIGHT;
	if (r->type != REC_TENSOR)
		return false;
	if (role == ROLE_CODES || role == ROLE_SCALE || role == ROLE_ZERO)
		return t->roles & 1u << ROLE_WEIGHT && strcmp(r->name, t->last) != 0;
	return t->roles & 1u << role;
}

/* What follows codes of the same name: scale, zero, and perhaps the weight itself. */
static int take_parts(struct tensor_reader *t, struct tensor_value *v, struct err *e)
{
	int got;

	while ((got = in_part(t, e)) > 0 && t->rec.type == REC_TENSOR &&
	       strcmp(t->rec.name, v->rec.name) == 0) {
		int r = 0;

		if (t->rec.role == ROLE_SCALE)
			r = take(t, &v->scale, &v->scale_data, e);
		else if (t->rec.role == ROLE_ZERO)
			r = take(t, &v->zero, &v->zero_data, e);
		else if (t->rec.role == ROLE_WEIGHT)
			return take(t, &v->rec, &v->data, e);
		else
			return 0;
		if (r < 0)
			return -1;
	}
	return got < 0 ? -1 : 0;
}

int tensor_reader_next(struct tensor_reader *t, struct tensor_value *v, struct err *e)
{
	int got;

	memset(v, 0, sizeof(*v));
	while ((got = in_part(t, e)) > 0 && !wanted(t))
		t->have = false;
	if (got <= 0)
		return got;
	if (t->rec.type == REC_TENSOR && (t->rec.role == ROLE_SCALE || t->rec.role == ROLE_ZERO))
		return err_set(e, ERR_DATA, t->rec.name, "%s without its codes before it",
			       t->rec.role_name);
	if (take(t, &v->rec, &v->data, e) < 0 ||
	    (v->rec.role == ROLE_CODES && take_parts(t, v, e) < 0)) {
		tensor_value_release(v);
		return -1;
	}
	if (v->rec.role == ROLE_WEIGHT)
		memcpy(t->last, v->rec.name, sizeof(t->last));
	return 1;
}

/* ---- two streams ----------------------------------------------------------------- */

/* A part of stream a; those that found their partner are released, and their name is empty. */
struct part {
	struct tensor_value *v;
	size_t n, cap;
};

static void part_clear(struct part *p)
{
	for (size_t i = 0; i < p->n; i++)
		tensor_value_release(&p->v[i]);
	p->n = 0;
}

static int part_load(struct part *p, struct tensor_reader *a, struct err *e)
{
	struct tensor_value v, *more;
	int got;

	while ((got = tensor_reader_next(a, &v, e)) > 0) {
		if (p->n == p->cap) {
			more = realloc(p->v, (2 * p->cap + 32) * sizeof(*p->v));
			if (!more) {
				tensor_value_release(&v);
				return err_nomem(e, v.rec.name, 2 * p->cap * sizeof(*p->v));
			}
			p->v = more;
			p->cap = 2 * p->cap + 32;
		}
		p->v[p->n++] = v;
	}
	return got;
}

static struct tensor_value *part_find(struct part *p, const struct tensor_value *b)
{
	for (size_t i = 0; i < p->n; i++)
		if (p->v[i].rec.name[0] && tensor_value_same_name(&p->v[i], b))
			return &p->v[i];
	return NULL;
}

/* The tensors of the part of b that faces p. */
static int pair_part(struct part *p, struct tensor_reader *b,
		     int (*pair)(void *ctx, const struct tensor_value *a,
				 const struct tensor_value *b, struct err *e),
		     void *ctx, struct err *e)
{
	struct tensor_value v, *partner;
	int got, r = 0;

	while (r == 0 && (got = tensor_reader_next(b, &v, e)) != 0) {
		if (got < 0)
			return -1;
		partner = part_find(p, &v);
		r = pair(ctx, partner, &v, e);
		if (partner)
			tensor_value_release(partner);
		tensor_value_release(&v);
	}
	return r;
}

int compare_streams(struct tensor_reader *a, struct tensor_reader *b,
		    int (*pair)(void *ctx, const struct tensor_value *a,
				const struct tensor_value *b, struct err *e),
		    void *ctx, struct err *e)
{
	struct part part = { 0 };
	int more_a = 1, more_b = 1, r = 0;

	while (r == 0) {
		more_a = more_a ? tensor_reader_part(a, e) : 0;
		more_b = more_a >= 0 && more_b ? tensor_reader_part(b, e) : 0;
		if (more_a < 0 || more_b < 0)
			r = -1;
		if (r < 0 || (!more_a && !more_b))
			break;
		if (more_a)
			r = part_load(&part, a, e);
		if (r == 0 && more_b)
			r = pair_part(&part, b, pair, ctx, e);
		for (size_t i = 0; r == 0 && i < part.n; i++)
			if (part.v[i].rec.name[0])
				r = pair(ctx, &part.v[i], NULL, e);
		part_clear(&part);
	}
	part_clear(&part);
	free(part.v);
	return r;
}
