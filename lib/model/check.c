/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check.c - what a whole stream must be beyond its END and checksums
 */
#include "lib/model/check.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "lib/data/mp.h"
#include "lib/data/stream.h"
#include "lib/model/block.h"
#include "lib/model/codes.h"
#include "lib/model/family.h"

/* A tensor of the plan. */
struct planned {
	char name[STREAM_MAX_NAME + 1];
	int rank;
	int64_t shape[STREAM_MAX_RANK];
	bool seen;
};

/* Something of the block at hand that must not come twice. */
struct seen {
	char name[STREAM_MAX_NAME + 1], role[32], stat[32];
};

struct check {
	bool head;      /* the stream's header was read */
	bool in_block;
	int64_t index;  /* of the block at hand, or the last one; -1: none yet */
	bool has_model; /* the header carries one that this version knows */
	struct model model;
	struct planned *plan; /* sorted by name */
	size_t n_plan;
	struct seen *seen;
	size_t n_seen, cap_seen;
	struct record codes, scale, zero; /* of the quantized weight at hand; name empty: none */
	void *data; /* a payload */
	size_t cap;
};

struct check *check_new(struct err *e)
{
	struct check *c = calloc(1, sizeof(*c));

	if (!c) {
		err_nomem(e, "", sizeof(*c));
		return NULL;
	}
	c->index = -1;
	record_init(&c->codes, REC_TENSOR, "");
	record_init(&c->scale, REC_TENSOR, "");
	record_init(&c->zero, REC_TENSOR, "");
	return c;
}

void check_free(struct check *c)
{
	if (!c)
		return;
	record_clear(&c->codes);
	record_clear(&c->scale);
	record_clear(&c->zero);
	free(c->plan);
	free(c->seen);
	free(c->data);
	free(c);
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct planned *)a)->name, ((const struct planned *)b)->name);
}

/* [name, dtype, [shape]] */
static int take_planned(struct planned *p, const struct mp *v, struct err *e)
{
	const struct mp *shape = mp_at(v, 2);
	const char *s;
	size_t n;

	if (mp_len(v) < 3 || !mp_str(mp_at(v, 0), &s, &n) || n == 0 || n > STREAM_MAX_NAME ||
	    mp_type_of(mp_at(v, 1)) != MP_STR || mp_type_of(shape) != MP_ARRAY ||
	    mp_len(shape) > STREAM_MAX_RANK)
		return err_set(e, ERR_DATA, "plan", "is not a list of [name, dtype, [shape]]");
	memcpy(p->name, s, n);
	p->name[n] = '\0';
	p->rank = (int)mp_len(shape);
	for (size_t i = 0; i < mp_len(shape); i++)
		if (!mp_int(mp_at(shape, i), &p->shape[i]) || p->shape[i] < 0)
			return err_set(e, ERR_DATA, "plan", "%s: bad shape", p->name);
	return 0;
}

static int take_plan(struct check *c, const struct record *head, struct err *e)
{
	const struct mp *root;
	struct mp_doc *d;
	const void *raw;
	size_t n;
	int r = 0;

	if (!record_get_raw(head, "plan", &raw, &n))
		return 0;
	if (mp_parse(&d, raw, n, "plan", e) < 0)
		return -1;
	root = mp_root(d);
	if (mp_type_of(root) != MP_ARRAY)
		r = err_set(e, ERR_DATA, "plan", "is not a list of [name, dtype, [shape]]");
	n = mp_len(root);
	if (r == 0 && n > 0) {
		c->plan = calloc(n, sizeof(*c->plan));
		if (!c->plan)
			r = err_nomem(e, "plan", n * sizeof(*c->plan));
	}
	for (size_t i = 0; i < n && r == 0; i++)
		r = take_planned(&c->plan[i], mp_at(root, i), e);
	mp_free(d);
	if (r < 0)
		return -1;
	c->n_plan = n;
	if (n > 0)
		qsort(c->plan, n, sizeof(*c->plan), by_name);
	for (size_t i = 1; i < n; i++)
		if (by_name(&c->plan[i - 1], &c->plan[i]) == 0)
			return err_set(e, ERR_DATA, "plan", "%s is there twice", c->plan[i].name);
	return 0;
}

static struct planned *find_planned(struct check *c, const char *name)
{
	struct planned key;

	if (c->n_plan == 0)
		return NULL;
	memcpy(key.name, name, strlen(name) + 1);
	return bsearch(&key, c->plan, c->n_plan, sizeof(*c->plan), by_name);
}

/* Codes are a matrix: their columns are all dimensions but the first. */
static bool same_shape(const struct planned *p, const struct record *r)
{
	int64_t cols = 1;

	if (r->role != ROLE_CODES || r->rank != 2)
		return p->rank == r->rank &&
		       memcmp(p->shape, r->shape, (size_t)r->rank * sizeof(r->shape[0])) == 0;
	for (int i = 1; i < p->rank; i++)
		cols *= p->shape[i];
	return p->rank > 1 && p->shape[0] == r->shape[0] && cols == r->shape[1];
}

/* A weight, bias, codes or alias against the plan. */
static int check_plan(struct check *c, const struct record *r, struct err *e)
{
	struct planned *p = find_planned(c, r->name);

	if (c->n_plan == 0)
		return 0;
	if (!p)
		return r->type == REC_ALIAS ? 0 :
		       err_set(e, ERR_DATA, r->name, "is not in the plan of the stream");
	if (r->type == REC_TENSOR && !same_shape(p, r))
		return err_set(e, ERR_DATA, r->name, "its shape is not the one of the plan");
	p->seen = true;
	return 0;
}

static int check_once(struct check *c, const struct record *r, struct err *e)
{
	struct seen s = { 0 };
	void *more;

	memcpy(s.name, r->name, sizeof(s.name));
	memcpy(s.role, r->role_name, sizeof(s.role));
	if (r->role == ROLE_STAT)
		record_get_str(r, "stat", s.stat, sizeof(s.stat));
	for (size_t i = 0; i < c->n_seen; i++)
		if (strcmp(c->seen[i].name, s.name) == 0 && strcmp(c->seen[i].role, s.role) == 0 &&
		    strcmp(c->seen[i].stat, s.stat) == 0)
			return err_set(e, ERR_DATA, r->name, "%s%s%s is there twice", s.role,
				       s.stat[0] ? " " : "", s.stat);
	if (c->n_seen == c->cap_seen) {
		c->cap_seen = c->cap_seen ? 2 * c->cap_seen : 64;
		more = realloc(c->seen, c->cap_seen * sizeof(*c->seen));
		if (!more)
			return err_nomem(e, r->name, c->cap_seen * sizeof(*c->seen));
		c->seen = more;
	}
	c->seen[c->n_seen++] = s;
	return 0;
}

/* The quantized weight at hand is over: did its parts fit? */
static int close_codes(struct check *c, struct err *e)
{
	struct codes q;
	int r = 0;

	if (c->codes.name[0]) {
		if (codes_init(&q, &c->codes, e) < 0)
			return -1;
		r = codes_fit(&q, c->scale.name[0] ? &c->scale : NULL,
			      c->zero.name[0] ? &c->zero : NULL, e);
	} else if (c->scale.name[0] || c->zero.name[0]) {
		r = err_set(e, ERR_DATA, c->scale.name[0] ? c->scale.name : c->zero.name,
			    "scale or zero without codes");
	}
	record_init(&c->codes, REC_TENSOR, "");
	record_init(&c->scale, REC_TENSOR, "");
	record_init(&c->zero, REC_TENSOR, "");
	return r;
}

static int check_codes(struct check *c, const struct record *r, struct err *e)
{
	struct record *part = r->role == ROLE_CODES ? &c->codes :
			      r->role == ROLE_SCALE ? &c->scale :
			      r->role == ROLE_ZERO ? &c->zero : NULL;
	const char *at = c->codes.name[0] ? c->codes.name : c->scale.name;

	if (at[0] && strcmp(at, r->name) != 0 && close_codes(c, e) < 0)
		return -1;
	return part ? record_dup(part, r, e) : 0;
}

static int check_stat(const struct record *r, struct err *e)
{
	int64_t tokens, width;
	char kind[32];

	if (!record_get_str(r, "stat", kind, sizeof(kind)))
		return err_set(e, ERR_DATA, r->name, "a statistic without its key stat");
	if (!record_get_int(r, "tokens", &tokens) || tokens < 0)
		return err_set(e, ERR_DATA, r->name, "%s without its key tokens", kind);
	if (r->dtype != DT_F32)
		return err_set(e, ERR_DATA, r->name, "%s is F32, not %s", kind,
			       dtype_name(r->dtype));
	if (strcmp(kind, stat_name(STAT_HESSIAN)) == 0) {
		if (!record_get_int(r, "width", &width) || width < 1 || width > 1 << 24 ||
		    r->rank != 1 || r->shape[0] != width * (width + 1) / 2)
			return err_set(e, ERR_DATA, r->name,
				       "hessian is not the triangle of its key width");
	} else if (strcmp(kind, stat_name(STAT_SAMPLES)) == 0 ? r->rank != 2 : r->rank != 1) {
		return err_set(e, ERR_DATA, r->name, "%s has rank %d", kind, r->rank);
	}
	return 0;
}

/* The model's tensors and statistics stand in their own block. */
static int check_place(const struct check *c, const struct record *r, struct err *e)
{
	const long layer = c->in_block ? (long)c->index : -1;
	long at = -1;

	if (!c->has_model || (r->role == ROLE_STAT ?
			      model_edge(&c->model, r->name, &at) < 0 :
			      model_slot(&c->model, r->name, &at) == SLOT_NONE) || at == layer)
		return 0;
	if (layer < 0)
		return err_set(e, ERR_DATA, r->name, "%s of block %ld outside it",
			       r->role == ROLE_STAT ? "statistic" : "tensor", at);
	return err_set(e, ERR_DATA, r->name, "%s in block %ld",
		       r->role == ROLE_STAT ? "statistic" : "tensor", layer);
}

static int check_tensor(struct check *c, const struct record *r, struct err *e)
{
	if (check_place(c, r, e) < 0 || check_once(c, r, e) < 0 || check_codes(c, r, e) < 0)
		return -1;
	switch (r->role) {
	case ROLE_WEIGHT: case ROLE_BIAS: case ROLE_CODES:
		return check_plan(c, r, e);
	case ROLE_STAT:
		return check_stat(r, e);
	default:
		return 0;
	}
}

/* ---- values ---------------------------------------------------------------------- */

/* Roles that programs compute with. */
static bool has_values(const struct record *r)
{
	switch (r->role) {
	case ROLE_WEIGHT: case ROLE_BIAS: case ROLE_REF: case ROLE_SCALE: case ROLE_STAT:
		return r->nbytes > 0 && (r->dtype == DT_F64 || r->dtype == DT_F32 ||
					 r->dtype == DT_F16 || r->dtype == DT_BF16);
	default:
		return false;
	}
}

static int64_t first_nonfinite(const void *x, enum dtype t, size_t n)
{
	const double *d = x;

	if (t != DT_F64)
		return dtype_first_nonfinite(x, t, n);
	for (size_t i = 0; i < n; i++)
		if (!isfinite(d[i]))
			return (int64_t)i;
	return -1;
}

static int check_finite(const struct check *c, const struct record *r, const char *kind,
			struct err *e)
{
	const size_t n = (size_t)(r->nbytes * 8) / (size_t)dtype_bits(r->dtype);
	const long long at = first_nonfinite(c->data, r->dtype, n);
	long long cols;

	if (at < 0)
		return 0;
	if (r->rank != 2)
		return err_set(e, ERR_DATA, r->name, "%s: value %lld is not finite", kind, at);
	cols = r->shape[1];
	return err_set(e, ERR_DATA, r->name, "%s: value at row %lld column %lld is not finite",
		       kind, at / cols, at % cols);
}

/* Magnitudes, and sums of squares: those of each channel. */
static int check_sign(const struct check *c, const struct record *r, const char *kind,
		      struct err *e)
{
	bool hessian = strcmp(kind, stat_name(STAT_HESSIAN)) == 0;
	const float *x = c->data;
	int64_t width = r->rank == 1 ? r->shape[0] : 0;

	if (!hessian && strcmp(kind, stat_name(STAT_ABSMAX)) != 0 &&
	    strcmp(kind, stat_name(STAT_ABSMEAN)) != 0)
		return 0;
	if (hessian && !record_get_int(r, "width", &width))
		return 0;
	for (size_t i = 0; i < (size_t)width; i++) {
		float v = x[hessian ? tri_index(i, i, (size_t)width) : i];

		if (v < 0)
			return err_set(e, ERR_DATA, r->name, "%s: channel %zu has %s%g, which "
				       "cannot be negative", kind, i,
				       hessian ? "the diagonal " : "", (double)v);
	}
	return 0;
}

static int check_values(struct check *c, struct stream_in *in, const struct record *r,
			struct err *e)
{
	char kind[32];

	if (!has_values(r))
		return 0;
	if (r->nbytes > c->cap) {
		free(c->data);
		c->cap = 0;
		c->data = r->nbytes > SIZE_MAX / 8 ? NULL : malloc((size_t)r->nbytes);
		if (!c->data)
			return err_nomem(e, r->name, r->nbytes);
		c->cap = (size_t)r->nbytes;
	}
	if (stream_payload(in, c->data, e) < 0)
		return -1;
	memcpy(kind, r->role_name, sizeof(kind));
	if (r->role == ROLE_STAT)
		record_get_str(r, "stat", kind, sizeof(kind));
	if (check_finite(c, r, kind, e) < 0)
		return -1;
	return r->role == ROLE_STAT ? check_sign(c, r, kind, e) : 0;
}

/* ---- records --------------------------------------------------------------------- */

/* block and block-end: also the end of what may not come twice. */
static int check_block(struct check *c, const struct record *r, struct err *e)
{
	int64_t index;

	if (close_codes(c, e) < 0)
		return -1;
	if (!record_get_int(r, "index", &index))
		return err_set(e, ERR_DATA, r->type_name, "has no index");
	if (r->type == REC_BLOCK) {
		if (c->in_block)
			return err_set(e, ERR_DATA, "block", "%lld begins inside block %lld",
				       (long long)index, (long long)c->index);
		if (index != c->index + 1)
			return err_set(e, ERR_DATA, "block", "%lld where block %lld is due",
				       (long long)index, (long long)(c->index + 1));
	} else if (!c->in_block || index != c->index) {
		return err_set(e, ERR_DATA, "block-end", "%lld does not close a block",
			       (long long)index);
	}
	c->in_block = r->type == REC_BLOCK;
	c->index = index;
	c->n_seen = 0;
	return 0;
}

int check_record(struct check *c, struct stream_in *in, const struct record *r, struct err *e)
{
	if (c->head == (r->type == REC_STREAM))
		return err_set(e, ERR_DATA, c->head ? "header" : r->type_name, c->head ?
			       "a second header inside the stream" :
			       "stands before the stream's header");
	switch (r->type) {
	case REC_STREAM: {
		struct err unknown; /* of a later version, or no model at all: fine here */

		c->head = true;
		c->has_model = model_from_head(&c->model, r, &unknown) == 0;
		return take_plan(c, r, e);
	}
	case REC_BLOCK: case REC_BLOCK_END:
		return check_block(c, r, e);
	case REC_TENSOR:
		return stat_check_calib(r, stream_calib(in), e) < 0 ||
		       check_tensor(c, r, e) < 0 ? -1 : check_values(c, in, r, e);
	case REC_ALIAS:
		if (check_once(c, r, e) < 0)
			return -1;
		return check_plan(c, r, e);
	default:
		return 0;
	}
}

int check_end(struct check *c, struct err *e)
{
	if (!c->head)
		return err_set(e, ERR_DATA, "", "the stream has no header");
	if (close_codes(c, e) < 0)
		return -1;
	if (c->in_block)
		return err_set(e, ERR_DATA, "block", "%lld is not closed", (long long)c->index);
	for (size_t i = 0; i < c->n_plan; i++)
		if (!c->plan[i].seen)
			return err_set(e, ERR_DATA, c->plan[i].name,
				       "is in the plan, but not in the stream");
	return 0;
}
