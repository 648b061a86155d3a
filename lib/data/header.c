/* SPDX-License-Identifier: Apache-2.0 */
/*
 * header.c - a record's header from msgpack and back
 */
#include <msgpack.h>
#include <stdio.h>
#include <string.h>

#include "lib/data/mp.h"
#include "lib/data/mpwalk.h"
#include "lib/data/record.h"

#define MAX_BYTES ((uint64_t)1 << 48)

/* The keys of every record, in the order in which they are written. */
enum key { KEY_T, KEY_NAME, KEY_ROLE, KEY_DTYPE, KEY_SHAPE, KEY_NBYTES, KEY_CHUNKS, KEY_ENC,
	   KEY_XXH, KEY_MUST, KEY_COUNT };
static const char *const key_names[KEY_COUNT] = {
	"t", "name", "role", "dtype", "shape", "nbytes", "chunks", "enc", "xxh", "must"
};

static enum key key_find(const struct token *t)
{
	for (int k = 0; k < KEY_COUNT; k++)
		if (t->n == strlen(key_names[k]) && memcmp(t->body, key_names[k], t->n) == 0)
			return (enum key)k;
	return KEY_COUNT;
}

static int bad(const struct record *r, struct err *e, enum key k, const char *what)
{
	char where[STREAM_MAX_NAME + 40];

	record_label(r, where, sizeof(where));
	return err_set(e, ERR_DATA, where[0] ? where : "header", "key '%s': %s", key_names[k],
		       what);
}

/* A short string without control characters, which could upset a terminal. */
static int take_str(char *dst, size_t cap, const struct token *t, const struct record *r,
		    enum key k, struct err *e)
{
	char what[48];

	if (t->type != TOKEN_STR)
		return bad(r, e, k, "expected a string");
	if (t->n >= cap) {
		snprintf(what, sizeof(what), "longer than %zu bytes", cap - 1);
		return bad(r, e, k, what);
	}
	for (size_t i = 0; i < t->n; i++)
		if ((unsigned char)t->body[i] < 0x20 || t->body[i] == 0x7f)
			return bad(r, e, k, "contains a control character");
	memcpy(dst, t->body, t->n);
	dst[t->n] = 0;
	return 0;
}

static int take_uint(uint64_t *dst, uint64_t max, const struct token *t, const struct record *r,
		     enum key k, struct err *e)
{
	if ((t->type != TOKEN_INT || t->i < 0) && t->type != TOKEN_UINT)
		return bad(r, e, k, "expected a whole number");
	if (t->u > max)
		return bad(r, e, k, "too large");
	*dst = t->u;
	return 0;
}

static int take_shape(struct record *r, const struct token *t, const unsigned char *p, size_t n,
		      struct err *e)
{
	size_t pos = t->size;
	struct token dim;
	uint64_t v = 0;

	if (t->type != TOKEN_ARRAY)
		return bad(r, e, KEY_SHAPE, "expected an array");
	if (t->n > STREAM_MAX_RANK)
		return bad(r, e, KEY_SHAPE, "more than 8 dimensions");
	for (uint64_t i = 0; i < t->n; i++) {
		if (token_read(&dim, p + pos, n - pos) != 1 ||
		    take_uint(&v, INT64_MAX, &dim, r, KEY_SHAPE, e) != 0)
			return bad(r, e, KEY_SHAPE, "expected whole numbers");
		r->shape[i] = (int64_t)v;
		pos += dim.size;
	}
	r->rank = (int)t->n;
	return 0;
}

/* One known key; 1 if it is to be kept as an extra key instead. */
static int take(struct record *r, enum key k, const unsigned char *p, size_t n, struct err *e)
{
	char dtype[32];
	struct token t;

	if (token_read(&t, p, n) != 1)
		return bad(r, e, k, "damaged");
	switch (k) {
	case KEY_T:
		return take_str(r->type_name, sizeof(r->type_name), &t, r, k, e);
	case KEY_NAME:
		return take_str(r->name, sizeof(r->name), &t, r, k, e);
	case KEY_ROLE:
		if (take_str(r->role_name, sizeof(r->role_name), &t, r, k, e) != 0)
			return -1;
		r->role = role_from_name(r->role_name);
		return 0;
	case KEY_DTYPE:
		if (take_str(dtype, sizeof(dtype), &t, r, k, e) != 0)
			return -1;
		r->dtype = dtype_from_name(dtype);
		return r->dtype == DT_NONE;
	case KEY_SHAPE:
		return take_shape(r, &t, p, n, e);
	case KEY_NBYTES:
		return take_uint(&r->nbytes, MAX_BYTES, &t, r, k, e);
	case KEY_CHUNKS:
		return take_uint(&r->chunks, MAX_BYTES, &t, r, k, e);
	case KEY_ENC:
		return take_str(r->enc, sizeof(r->enc), &t, r, k, e);
	case KEY_XXH:
		return take_uint(&r->xxh, UINT64_MAX, &t, r, k, e);
	default: /* KEY_MUST */
		if (t.type != TOKEN_BOOL)
			return bad(r, e, k, "expected true or false");
		r->must = t.b;
		return 0;
	}
}

/* What the keys say about one another; seen: bits 1 << key. */
static int check_payload(const struct record *r, unsigned seen, struct err *e)
{
	bool planes = strcmp(r->enc, "zstd-planes") == 0;
	bool known = r->enc[0] == 0 || planes || strcmp(r->enc, "zstd") == 0;
	uint64_t want;

	if ((r->chunks == 0) != (r->nbytes == 0))
		return bad(r, e, KEY_CHUNKS, "a payload needs both chunks and nbytes");
	if (known && r->chunks != record_chunks(r->nbytes))
		return bad(r, e, KEY_CHUNKS, "not the number of chunks that nbytes makes");
	if (r->chunks > 0 && !(seen & 1u << KEY_XXH))
		return bad(r, e, KEY_XXH, "missing: a payload needs its checksum");
	if (planes && dtype_bits(r->dtype) != 16)
		return bad(r, e, KEY_ENC, "zstd-planes is for elements of two bytes");
	if (r->type == REC_OTHER || r->dtype == DT_NONE || r->rank < 0)
		return 0;
	if (dtype_nbytes(r->dtype, r->rank, r->shape, &want) != 0)
		return bad(r, e, KEY_SHAPE, "too large");
	if (want != r->nbytes)
		return bad(r, e, KEY_NBYTES, "not what dtype and shape make");
	return 0;
}

/* What each type of record must have; seen: bits 1 << key. */
static int check_type(const struct record *r, unsigned seen, struct err *e)
{
	const unsigned tensor = 1u << KEY_NAME | 1u << KEY_DTYPE | 1u << KEY_SHAPE;
	const unsigned bare = 1u << REC_STREAM | 1u << REC_BLOCK | 1u << REC_BLOCK_END |
			      1u << REC_ALIAS | 1u << REC_END;

	if (bare >> r->type & 1 && r->chunks > 0)
		return bad(r, e, KEY_CHUNKS, "this type of record has no payload");

	if (r->type == REC_TENSOR && (seen & tensor) != tensor)
		return err_set(e, ERR_DATA, r->name[0] ? r->name : "tensor",
			       "a tensor needs a name, a dtype and a shape");
	if (r->type == REC_TENSOR && !r->name[0])
		return bad(r, e, KEY_NAME, "empty");
	if (r->type == REC_FILE && (!r->name[0] || r->name[0] == '.' || strchr(r->name, '/')))
		return bad(r, e, KEY_NAME, "not the plain name of a file");
	return 0;
}

/* The pairs of the map; those nobody knows go into r->extra, which has room for all. */
static int decode_pairs(struct record *r, const unsigned char *p, size_t n, uint64_t pairs,
			unsigned *seen, struct err *e)
{
	size_t pos = 0;
	struct token key;
	uint64_t size;

	for (uint64_t i = 0; i < pairs; i++) {
		size_t start = pos;

		if (token_read(&key, p + pos, n - pos) != 1 || key.type != TOKEN_STR)
			return err_set(e, ERR_DATA, r->name[0] ? r->name : "header",
				       "a key of the header is not a string");
		pos += key.size;
		if (token_extent(p + pos, n - pos, &size) != 1)
			return err_set(e, ERR_DATA, "header", "damaged");
		enum key k = key_find(&key);
		int other = 1;
		if (k != KEY_COUNT) {
			if (*seen & 1u << k)
				return bad(r, e, k, "there twice");
			*seen |= 1u << k;
			other = take(r, k, p + pos, (size_t)size, e);
			if (other < 0)
				return -1;
		}
		pos += (size_t)size;
		if (other) {
			memcpy(r->extra + r->extra_len, p + start, pos - start);
			r->extra_len += pos - start;
			r->n_extra++;
		}
	}
	return 0;
}

int record_decode(struct record *r, const void *bytes, size_t n, struct err *e)
{
	const unsigned char *p = bytes;
	unsigned seen = 0;
	struct token map;

	record_init(r, REC_OTHER, NULL);
	if (token_read(&map, p, n) != 1 || map.type != TOKEN_MAP)
		return err_set(e, ERR_DATA, "header", "not a record: expected a map");
	if (record_reserve(r, n) != 0)
		return err_nomem(e, "header", n);
	if (decode_pairs(r, p + map.size, n - map.size, map.n, &seen, e) != 0)
		return -1;
	if (!r->type_name[0])
		return err_set(e, ERR_DATA, r->name[0] ? r->name : "header",
			       "a record without a type");
	r->type = rec_type_from_name(r->type_name);
	return check_payload(r, seen, e) != 0 || check_type(r, seen, e) != 0 ? -1 : 0;
}

/* A buf remembers that memory ran out: the packer is told that all went well. */
static int append(void *ctx, const char *p, size_t n)
{
	buf_add(ctx, p, n);
	return 0;
}

static void put_uint(struct buf *b, enum key k, uint64_t v)
{
	msgpack_packer pk;

	mp_put_str(b, key_names[k]);
	msgpack_packer_init(&pk, b, append);
	msgpack_pack_uint64(&pk, v);
}

static void put_str(struct buf *b, enum key k, const char *s)
{
	mp_put_str(b, key_names[k]);
	mp_put_str(b, s);
}

void record_encode(const struct record *r, struct buf *b)
{
	const char *role = r->role == ROLE_OTHER ? r->role_name : role_name(r->role);
	bool sized = r->nbytes > 0 || (r->dtype != DT_NONE && r->rank >= 0);
	size_t pairs = 1 + (r->name[0] != 0) + (role[0] != 0) + (r->dtype != DT_NONE) +
		       (r->rank >= 0) + sized + 2 * (size_t)(r->chunks > 0) + (r->enc[0] != 0) +
		       r->must + r->n_extra;

	mp_put_map(b, pairs);
	put_str(b, KEY_T, r->type_name);
	if (r->name[0])
		put_str(b, KEY_NAME, r->name);
	if (role[0])
		put_str(b, KEY_ROLE, role);
	if (r->dtype != DT_NONE)
		put_str(b, KEY_DTYPE, dtype_name(r->dtype));
	if (r->rank >= 0) {
		mp_put_str(b, key_names[KEY_SHAPE]);
		mp_put_array(b, (size_t)r->rank);
		for (int i = 0; i < r->rank; i++)
			mp_put_int(b, r->shape[i]);
	}
	if (sized)
		put_uint(b, KEY_NBYTES, r->nbytes);
	if (r->chunks > 0)
		put_uint(b, KEY_CHUNKS, r->chunks);
	if (r->enc[0])
		put_str(b, KEY_ENC, r->enc);
	if (r->chunks > 0)
		put_uint(b, KEY_XXH, r->xxh);
	if (r->must) {
		mp_put_str(b, key_names[KEY_MUST]);
		mp_put_bool(b, true);
	}
	buf_add(b, r->extra, r->extra_len);
}
