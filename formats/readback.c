/* SPDX-License-Identifier: Apache-2.0 */
/*
 * readback.c - hashes of what was to be written, and of what a reader makes of it
 */
#include "formats/readback.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/source.h"
#include "lib/base/hash.h"

struct noted {
	char *name;
	enum role role;
	enum dtype dtype;
	int rank;
	int64_t shape[STREAM_MAX_RANK];
	uint64_t sum;
	bool seen;
};

struct readback {
	struct noted *v;
	size_t n, cap;
	struct hash *sum; /* of the last one */
};

int readback_new(struct readback **out, struct err *e)
{
	struct readback *b = calloc(1, sizeof(*b));

	if (b)
		b->sum = hash_new(64);
	if (!b || !b->sum) {
		free(b);
		return err_nomem(e, "", sizeof(*b));
	}
	*out = b;
	return 0;
}

void readback_free(struct readback *b)
{
	if (!b)
		return;
	for (size_t i = 0; i < b->n; i++)
		free(b->v[i].name);
	free(b->v);
	hash_free(b->sum);
	free(b);
}

static void finish_last(struct readback *b)
{
	if (b->n)
		b->v[b->n - 1].sum = hash_get64(b->sum);
}

int readback_begin(struct readback *b, const char *name, enum role role, enum dtype dtype,
		   int rank, const int64_t *shape, struct err *e)
{
	struct noted *t;

	finish_last(b);
	if (b->n == b->cap) {
		const size_t cap = b->cap ? 2 * b->cap : 256;

		t = realloc(b->v, cap * sizeof(*t));
		if (!t)
			return err_nomem(e, name, cap * sizeof(*t));
		b->v = t;
		b->cap = cap;
	}
	t = &b->v[b->n];
	*t = (struct noted){ .name = strdup(name), .role = role, .dtype = dtype, .rank = rank };
	if (!t->name)
		return err_nomem(e, name, strlen(name));
	if (rank)
		memcpy(t->shape, shape, (size_t)rank * sizeof(*shape));
	b->n++;
	hash_reset(b->sum);
	return 0;
}

void readback_bytes(struct readback *b, const void *p, size_t n)
{
	hash_add(b->sum, p, n);
}

int readback_note(struct readback *b, const char *name, enum role role, enum dtype dtype,
		  int rank, const int64_t *shape, const void *data, struct err *e)
{
	uint64_t nbytes;

	if (dtype_nbytes(dtype, rank, shape, &nbytes))
		return err_set(e, ERR_BUG, name, "BUG: too large");
	if (readback_begin(b, name, role, dtype, rank, shape, e))
		return -1;
	readback_bytes(b, data, (size_t)nbytes);
	return 0;
}

static int by_name(const void *a, const void *b)
{
	const struct noted *x = a, *y = b;
	int i = strcmp(x->name, y->name);

	return i ? i : (int)x->role - (int)y->role;
}

static int differs(const struct noted *t, const char *how, struct err *e)
{
	return err_set(e, ERR_IO, t->name, "%s: read back, its %s", role_name(t->role), how);
}

static int check_tensor(struct readback *b, const struct record *r, const void *data,
			struct err *e)
{
	const struct noted key = { .name = (char *)(uintptr_t)r->name, .role = r->role };
	struct noted *t = b->n ? bsearch(&key, b->v, b->n, sizeof(*b->v), by_name) : NULL;

	if (!t)
		return err_set(e, ERR_IO, r->name, "%s: read back, but not written",
			       role_name(r->role));
	if (t->seen)
		return differs(t, "record comes twice", e);
	t->seen = true;
	if (t->dtype != r->dtype)
		return differs(t, "type is another", e);
	if (t->rank != r->rank || memcmp(t->shape, r->shape, (size_t)t->rank * sizeof(*t->shape)))
		return differs(t, "shape is another", e);
	return t->sum == hash64(data, (size_t)r->nbytes) ? 0 :
	       differs(t, "values are not what was written", e);
}

static int check_stream(struct readback *b, struct stream_in *in, struct err *e)
{
	struct record r = { .rank = -1 };
	void *data = NULL;
	size_t cap = 0;
	int got, ret = 0;

	while (!ret && (got = stream_next(in, &r, e)) != 0) {
		if (got < 0) {
			ret = -1;
			break;
		}
		if (r.type == REC_RUN) {
			r.role = ROLE_NONE;
			r.rank = r.rank < 0 ? 0 : r.rank;
		} else if (r.type != REC_TENSOR) {
			continue;
		}
		if (r.nbytes > cap) {
			free(data);
			cap = (size_t)r.nbytes;
			data = malloc(cap);
			if (!data) {
				ret = err_nomem(e, r.name, r.nbytes);
				break;
			}
		}
		ret = r.nbytes && stream_payload(in, data, e) < 0 ? -1 :
		      check_tensor(b, &r, r.nbytes ? data : "", e);
	}
	free(data);
	record_clear(&r);
	return ret;
}

int readback_check(struct readback *b, const char *path, struct err *e)
{
	struct stream_in *in;
	char where[sizeof(e->where)];
	int ret;

	finish_last(b);
	if (b->n)
		qsort(b->v, b->n, sizeof(*b->v), by_name);
	ret = source_open(&in, path, e);
	if (!ret) {
		ret = check_stream(b, in, e);
		stream_close_in(in);
	}
	for (size_t i = 0; !ret && i < b->n; i++)
		if (!b->v[i].seen)
			ret = differs(&b->v[i], "record is missing", e);
	if (ret && e->cls != ERR_IO && e->cls != ERR_NOMEM) {
		/* What the reader says of a file of ours is our fault, not the input's. */
		snprintf(where, sizeof(where), "%s", e->where);
		snprintf(e->where, sizeof(e->where), "read back: %.300s", where);
		e->cls = ERR_IO;
	}
	return ret;
}
