/* SPDX-License-Identifier: Apache-2.0 */
/*
 * readback.c - hashes of what was to be written, and of what a reader makes of it
 */
#include "formats/readback.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/readers.h"
#include "formats/source.h"
#include "lib/base/hash.h"
#include "lib/base/pool.h"
#include "lib/model/codes.h"

struct noted {
	char *name;
	enum role role;
	enum dtype dtype;
	int rank;
	int64_t shape[STREAM_MAX_RANK];
	uint64_t sum;
	bool seen;
	bool unpack;          /* sum is of codes, a byte each */
	int bits;             /* of codes; 0: none, or nobody said */
	int64_t group;
};

struct readback {
	struct noted *v;
	size_t n, cap;
	struct hash *sum; /* of the last one */
	struct hash *back[READERS_MAX]; /* of what each thread reads */
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
	for (int i = 0; i < READERS_MAX; i++)
		hash_free(b->back[i]);
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

/* ---- codes ------------------------------------------------------------------------------ */

/* Codes of so many bits, lowest first, a byte each. */
static void spread(uint8_t *dst, const uint8_t *row, size_t n, int bits)
{
	for (size_t k = 0; bits == 4 && k < n / 2; k++) {
		dst[2 * k] = row[k] & 15;
		dst[2 * k + 1] = row[k] >> 4;
	}
	for (size_t k = bits == 4 ? n / 2 * 2 : 0; k < n; k++) {
		unsigned v = 0;

		for (int i = 0; i < bits; i++) {
			const size_t at = k * (size_t)bits + (size_t)i;

			v |= (unsigned)(row[at / 8] >> at % 8 & 1) << i;
		}
		dst[k] = (uint8_t)v;
	}
}

/* The sum of codes [rows, cols] of this type, a byte each. */
static int sum_bytes(struct hash *sum, const void *codes, enum dtype t, size_t rows, size_t cols,
		     const char *name, struct err *e)
{
	const int bits = t == DT_U8 ? 8 : dtype_bits(t);
	const size_t bytes = (cols * (size_t)bits + 7) / 8;
	uint8_t *row;

	hash_reset(sum);
	if (t == DT_U8) {
		hash_add(sum, codes, rows * cols);
		return 0;
	}
	row = malloc(cols);
	if (!row)
		return err_nomem(e, name, cols);
	for (size_t n = 0; n < rows; n++) {
		spread(row, (const uint8_t *)codes + n * bytes, cols, bits);
		hash_add(sum, row, cols);
	}
	free(row);
	return 0;
}

int readback_codes(struct readback *b, const char *name, const struct codes *c, const void *codes,
		   enum dtype there, int bits, struct err *e)
{
	const int64_t shape[2] = { (int64_t)c->rows, (int64_t)c->cols };
	const enum dtype t = c->codes->dtype;
	struct noted *x;

	if (readback_begin(b, name, ROLE_CODES, there, 2, shape, e))
		return -1;
	x = &b->v[b->n - 1];
	x->unpack = t != there;
	x->bits = bits;
	x->group = (int64_t)c->group;
	if (x->unpack)
		return sum_bytes(b->sum, codes, t, c->rows, c->cols, name, e);
	readback_bytes(b, codes, (size_t)c->codes->nbytes);
	return 0;
}

/* ---- what is read ----------------------------------------------------------------------- */

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

/* Keys of codes that say what they stand for. */
static int check_keys(const struct noted *t, const struct record *r, struct err *e)
{
	int64_t bits = 0, group = 0;

	if (t->bits == 0)
		return 0;
	if (!record_get_int(r, "bits", &bits) || bits != t->bits)
		return differs(t, "bits are others", e);
	if (!record_get_int(r, "group", &group) || group != t->group)
		return differs(t, "groups are others", e);
	return 0;
}

static int add_piece(void *ctx, const void *p, size_t n, struct err *e)
{
	(void)e;
	hash_add(ctx, p, n);
	return 0;
}

struct unpacking {
	struct hash *sum;
	const struct record *r;
};

/* Codes come as one piece. */
static int add_codes(void *ctx, const void *p, size_t n, struct err *e)
{
	struct unpacking *u = ctx;
	const struct record *r = u->r;

	if (n != r->nbytes)
		return err_set(e, ERR_BUG, r->name, "BUG: codes in pieces");
	return sum_bytes(u->sum, p, r->dtype, (size_t)r->shape[0], (size_t)r->shape[1], r->name,
			 e);
}

static int check_sum(struct hash *sum, const struct noted *t, const struct record *r,
		     struct stream_in *in, struct err *e)
{
	struct unpacking u = { sum, r };

	hash_reset(sum);
	if (r->nbytes && stream_pieces(in, r->nbytes, t->unpack ? add_codes : add_piece,
				       t->unpack ? (void *)&u : (void *)sum, e))
		return -1;
	return t->sum == hash_get64(sum) ? 0 :
	       differs(t, "values are not what was written", e);
}

static int check_tensor(const struct readback *b, struct hash *sum, const struct record *r,
			struct stream_in *in, struct err *e)
{
	const struct noted key = { .name = (char *)(uintptr_t)r->name, .role = r->role };
	struct noted *t = b->n ? bsearch(&key, b->v, b->n, sizeof(*b->v), by_name) : NULL;

	if (!t)
		return err_set(e, ERR_IO, r->name, "%s: read back, but not written",
			       role_name(r->role));
	if (__atomic_exchange_n(&t->seen, true, __ATOMIC_RELAXED))
		return differs(t, "record comes twice", e);
	if (t->dtype != r->dtype)
		return differs(t, "type is another", e);
	if (t->rank != r->rank || memcmp(t->shape, r->shape, (size_t)t->rank * sizeof(*t->shape)))
		return differs(t, "shape is another", e);
	return check_keys(t, r, e) ? -1 : check_sum(sum, t, r, in, e);
}

/* The name that a run record is noted by. */
static void run_name(struct record *r)
{
	const size_t n = strlen(r->name);
	char kind[32];

	if (record_get_str(r, "kind", kind, sizeof(kind)) == 1 && strcmp(kind, "hadamard") == 0 &&
	    n + sizeof(" hadamard") <= sizeof(r->name))
		memcpy(r->name + n, " hadamard", sizeof(" hadamard"));
}

static int check_record(void *ctx, struct record *r, struct stream_in *in, int reader,
			struct err *e)
{
	const struct readback *b = ctx;

	if (r->type == REC_RUN) {
		r->role = ROLE_NONE;
		r->rank = r->rank < 0 ? 0 : r->rank;
		run_name(r);
	} else if (r->type != REC_TENSOR) {
		return 0;
	}
	return check_tensor(b, b->back[reader], r, in, e);
}

int readback_check(struct readback *b, const char *path, struct err *e)
{
	const struct readers rs = { source_open, check_record, b };
	char where[sizeof(e->where)];
	int ret = 0;

	finish_last(b);
	if (b->n)
		qsort(b->v, b->n, sizeof(*b->v), by_name);
	for (int i = 0; !ret && i < READERS_MAX; i++) {
		b->back[i] = hash_new(64);
		ret = b->back[i] ? 0 : err_nomem(e, path, 64);
	}
	if (!ret)
		ret = readers_run(&rs, path, pool_cores(), e);
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
