/* SPDX-License-Identifier: Apache-2.0 */
/*
 * record.c - records in memory: their extra keys, and the names of types and roles
 */
#include "lib/data/record.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/data/mp.h"
#include "lib/data/mpwalk.h"

/* Index: enum rec_type, enum role. */
static const char *const type_names[] = {
	"stream", "file", "calib", "block", "block-end", "tensor", "alias", "run", "note", "end"
};
static const char *const role_names[] = {
	"", "weight", "bias", "stat", "ref", "codes", "scale", "zero", "perm", "comp"
};

const char *role_name(enum role r)
{
	return r > ROLE_NONE && r < ROLE_OTHER ? role_names[r] : "";
}

enum role role_from_name(const char *s)
{
	for (int i = ROLE_NONE; i < ROLE_OTHER; i++)
		if (strcmp(s, role_names[i]) == 0)
			return (enum role)i;
	return ROLE_OTHER;
}

enum rec_type rec_type_from_name(const char *s)
{
	for (int i = 0; i < REC_OTHER; i++)
		if (strcmp(s, type_names[i]) == 0)
			return (enum rec_type)i;
	return REC_OTHER;
}

/* Empty, but with the memory of its extra keys. */
static void reset(struct record *r)
{
	unsigned char *extra = r->extra;
	size_t cap = r->extra_cap;

	memset(r, 0, sizeof(*r));
	r->extra = extra;
	r->extra_cap = cap;
	r->rank = -1;
}

void record_clear(struct record *r)
{
	free(r->extra);
	memset(r, 0, sizeof(*r));
	r->rank = -1;
}

void record_init(struct record *r, enum rec_type t, const char *name)
{
	reset(r);
	r->type = t;
	if (t < REC_OTHER)
		snprintf(r->type_name, sizeof(r->type_name), "%s", type_names[t]);
	snprintf(r->name, sizeof(r->name), "%s", name ? name : "");
}

int record_dup(struct record *dst, const struct record *src, struct err *e)
{
	unsigned char *extra = NULL;

	if (src->extra_len > 0) {
		extra = malloc(src->extra_len);
		if (!extra)
			return err_nomem(e, src->name, src->extra_len);
		memcpy(extra, src->extra, src->extra_len);
	}
	free(dst->extra);
	*dst = *src;
	dst->extra = extra;
	dst->extra_cap = src->extra_len;
	return 0;
}

void record_label(const struct record *r, char *label, size_t cap)
{
	const char *name = r->name;
	size_t n = strlen(name);
	int64_t index;

	if (strncmp(name, "model.", 6) == 0)
		name += 6, n -= 6;
	if (n > 7 && strcmp(name + n - 7, ".weight") == 0)
		n -= 7;
	if (n > 0)
		snprintf(label, cap, "%.*s", (int)n, name);
	else if (r->type == REC_STREAM)
		snprintf(label, cap, "header");
	else if (record_get_int(r, "index", &index))
		snprintf(label, cap, "%s %lld", r->type_name, (long long)index);
	else
		snprintf(label, cap, "%s", r->type_name);
}

/* ---- extra keys */

/* The pair with this key: where it begins, its value, and where it ends. */
static bool find(const struct record *r, const char *key, size_t *at, size_t *value, size_t *end)
{
	size_t want = strlen(key), pos = 0;
	uint64_t size;
	struct token t;

	while (pos < r->extra_len) {
		size_t start = pos;

		if (token_read(&t, r->extra + pos, r->extra_len - pos) != 1)
			return false;
		pos += t.size;
		if (token_extent(r->extra + pos, r->extra_len - pos, &size) != 1)
			return false;
		if (t.type == TOKEN_STR && t.n == want && memcmp(t.body, key, want) == 0) {
			*at = start;
			*value = pos;
			*end = pos + (size_t)size;
			return true;
		}
		pos += (size_t)size;
	}
	return false;
}

static bool get(const struct record *r, const char *key, struct token *t)
{
	size_t at, value, end;

	return find(r, key, &at, &value, &end) &&
	       token_read(t, r->extra + value, end - value) == 1;
}

int record_get_int(const struct record *r, const char *key, int64_t *v)
{
	struct token t;

	if (!get(r, key, &t) || t.type != TOKEN_INT)
		return 0;
	*v = t.i;
	return 1;
}

int record_get_double(const struct record *r, const char *key, double *v)
{
	struct token t;

	if (!get(r, key, &t) ||
	    (t.type != TOKEN_INT && t.type != TOKEN_UINT && t.type != TOKEN_REAL))
		return 0;
	*v = t.d;
	return 1;
}

int record_get_bool(const struct record *r, const char *key, bool *v)
{
	struct token t;

	if (!get(r, key, &t) || t.type != TOKEN_BOOL)
		return 0;
	*v = t.b;
	return 1;
}

int record_get_str(const struct record *r, const char *key, char *buf, size_t cap)
{
	struct token t;

	if (!get(r, key, &t) || t.type != TOKEN_STR || t.n >= cap || memchr(t.body, 0, t.n))
		return 0;
	memcpy(buf, t.body, t.n);
	buf[t.n] = 0;
	return 1;
}

int record_get_raw(const struct record *r, const char *key, const void **p, size_t *n)
{
	size_t at, value, end;

	if (!find(r, key, &at, &value, &end))
		return 0;
	*p = r->extra + value;
	*n = end - value;
	return 1;
}

void record_unset(struct record *r, const char *key)
{
	size_t at, value, end;

	if (!find(r, key, &at, &value, &end))
		return;
	memmove(r->extra + at, r->extra + end, r->extra_len - end);
	r->extra_len -= end - at;
	r->n_extra--;
}

int record_reserve(struct record *r, size_t n)
{
	if (n <= r->extra_cap)
		return 0;
	unsigned char *p = realloc(r->extra, n);
	if (!p)
		return -1;
	r->extra = p;
	r->extra_cap = n;
	return 0;
}

/* Room for `add` bytes at `at` in place of `drop`. */
static int open_gap(struct record *r, size_t at, size_t drop, size_t add)
{
	size_t len = r->extra_len - drop + add;

	if (len > r->extra_cap &&
	    record_reserve(r, len > 2 * r->extra_cap ? len : 2 * r->extra_cap) != 0)
		return -1;
	if (r->extra_len > at + drop)
		memmove(r->extra + at + add, r->extra + at + drop, r->extra_len - at - drop);
	r->extra_len = len;
	return 0;
}

int record_set_raw(struct record *r, const char *key, const void *msgpack, size_t n)
{
	size_t at, value, end;

	if (find(r, key, &at, &value, &end)) {
		if (open_gap(r, value, end - value, n) != 0)
			return -1;
		memcpy(r->extra + value, msgpack, n);
		return 0;
	}
	struct buf b = { 0 };
	mp_put_str(&b, key);
	at = r->extra_len;
	int ret = b.failed ? -1 : open_gap(r, at, 0, b.n + n);
	if (ret == 0) {
		memcpy(r->extra + at, b.p, b.n);
		memcpy(r->extra + at + b.n, msgpack, n);
		r->n_extra++;
	}
	buf_release(&b);
	return ret;
}

int record_append(struct record *dst, const struct record *src)
{
	size_t at = dst->extra_len;

	if (open_gap(dst, at, 0, src->extra_len) != 0)
		return -1;
	if (src->extra_len > 0)
		memcpy(dst->extra + at, src->extra, src->extra_len);
	dst->n_extra += src->n_extra;
	return 0;
}

/* Takes over what is in b. */
static int set_from(struct record *r, const char *key, struct buf *b)
{
	int ret = b->failed ? -1 : record_set_raw(r, key, b->p, b->n);

	buf_release(b);
	return ret;
}

int record_set_int(struct record *r, const char *key, int64_t v)
{
	struct buf b = { 0 };

	mp_put_int(&b, v);
	return set_from(r, key, &b);
}

int record_set_uint(struct record *r, const char *key, uint64_t v)
{
	struct buf b = { 0 };
	unsigned char raw[9] = { 0xcf };

	if (v <= INT64_MAX)
		return record_set_int(r, key, (int64_t)v);
	for (int i = 0; i < 8; i++)
		raw[1 + i] = (unsigned char)(v >> (56 - 8 * i));
	buf_add(&b, raw, sizeof(raw));
	return set_from(r, key, &b);
}

int record_set_double(struct record *r, const char *key, double v)
{
	struct buf b = { 0 };

	mp_put_double(&b, v);
	return set_from(r, key, &b);
}

int record_set_bool(struct record *r, const char *key, bool v)
{
	struct buf b = { 0 };

	mp_put_bool(&b, v);
	return set_from(r, key, &b);
}

int record_set_str(struct record *r, const char *key, const char *v)
{
	struct buf b = { 0 };

	mp_put_str(&b, v);
	return set_from(r, key, &b);
}
