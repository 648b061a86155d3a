/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mp.c - small msgpack values, by msgpack-c
 */
#include "lib/data/mp.h"

#include <msgpack.h>
#include <stdlib.h>
#include <string.h>

/* msgpack-c's own limit is 32, and it says "no memory" beyond. */
#define MP_MAX_DEPTH 30

struct mp_doc {
	msgpack_unpacked u;
};

/* A buf remembers that memory ran out: the packer is told that all went well. */
static int append(void *ctx, const char *p, size_t n)
{
	buf_add(ctx, p, n);
	return 0;
}

static msgpack_packer packer(struct buf *b)
{
	msgpack_packer pk;

	msgpack_packer_init(&pk, b, append);
	return pk;
}

void mp_put_map(struct buf *b, size_t n)
{
	msgpack_packer pk = packer(b);

	msgpack_pack_map(&pk, n);
}

void mp_put_array(struct buf *b, size_t n)
{
	msgpack_packer pk = packer(b);

	msgpack_pack_array(&pk, n);
}

void mp_put_str(struct buf *b, const char *s)
{
	msgpack_packer pk = packer(b);
	size_t n = strlen(s);

	msgpack_pack_str(&pk, n);
	msgpack_pack_str_body(&pk, s, n);
}

void mp_put_int(struct buf *b, int64_t v)
{
	msgpack_packer pk = packer(b);

	msgpack_pack_int64(&pk, v);
}

void mp_put_double(struct buf *b, double v)
{
	msgpack_packer pk = packer(b);

	msgpack_pack_double(&pk, v);
}

void mp_put_bool(struct buf *b, bool v)
{
	msgpack_packer pk = packer(b);

	if (v)
		msgpack_pack_true(&pk);
	else
		msgpack_pack_false(&pk);
}

static uint64_t big_endian(const unsigned char *p, int n)
{
	uint64_t v = 0;

	for (int i = 0; i < n; i++)
		v = v << 8 | p[i];
	return v;
}

/*
 * One value's head at p: its length in *head, the bytes that follow in *body, or the number of
 * values that do in *items.  False when it is cut off or no msgpack.
 */
static bool head_of(const unsigned char *p, const unsigned char *end, size_t *head,
		    uint64_t *body, uint64_t *items)
{
	/* From 0xc0 on: bytes of a length field, and bytes of a fixed body. */
	static const unsigned char length[32] = {
		[0x04] = 1, [0x05] = 2, [0x06] = 4, [0x07] = 1, [0x08] = 2, [0x09] = 4,
		[0x19] = 1, [0x1a] = 2, [0x1b] = 4, [0x1c] = 2, [0x1d] = 4, [0x1e] = 2, [0x1f] = 4,
	};
	static const unsigned char fixed[32] = {
		[0x07] = 1, [0x08] = 1, [0x09] = 1, [0x0a] = 4, [0x0b] = 8, [0x0c] = 1, [0x0d] = 2,
		[0x0e] = 4, [0x0f] = 8, [0x10] = 1, [0x11] = 2, [0x12] = 4, [0x13] = 8,
		[0x14] = 2, [0x15] = 3, [0x16] = 5, [0x17] = 9, [0x18] = 17,
	};
	unsigned tag = *p;

	*head = 1;
	*body = *items = 0;
	if (tag < 0x80 || tag >= 0xe0)
		return true;
	if (tag < 0xc0) {
		*body = tag >= 0xa0 ? tag & 0x1f : 0;
		*items = tag >= 0xa0 ? 0 : tag >= 0x90 ? tag & 0x0f : 2 * (tag & 0x0f);
		return true;
	}
	*head += length[tag - 0xc0];
	if (tag == 0xc1 || (size_t)(end - p) < *head)
		return false;
	if (tag >= 0xdc)
		*items = big_endian(p + 1, length[tag - 0xc0]) << (tag >= 0xde);
	else
		*body = big_endian(p + 1, length[tag - 0xc0]) + fixed[tag - 0xc0];
	return true;
}

/* The end of the value at p, or NULL.  msgpack-c takes memory for as many elements as an array
 * claims to have: none may claim more than there are bytes. */
static const unsigned char *skip(const unsigned char *p, const unsigned char *end, int depth)
{
	uint64_t body, items;
	size_t head;

	if (p >= end || depth > MP_MAX_DEPTH || !head_of(p, end, &head, &body, &items))
		return NULL;
	p += head;
	if (body > (size_t)(end - p) || items > (size_t)(end - p))
		return NULL;
	p += body;
	while (items-- && p)
		p = skip(p, end, depth + 1);
	return p;
}

int mp_parse(struct mp_doc **d, const void *p, size_t n, const char *where, struct err *e)
{
	msgpack_unpack_return r;
	struct mp_doc *doc;
	size_t off = 0;

	if (skip(p, (const unsigned char *)p + n, 0) != (const unsigned char *)p + n)
		return err_set(e, ERR_DATA, where, "not one msgpack value in %zu bytes", n);
	doc = calloc(1, sizeof(*doc));
	if (!doc)
		return err_nomem(e, where, sizeof(*doc));
	msgpack_unpacked_init(&doc->u);
	r = msgpack_unpack_next(&doc->u, p, n, &off);
	if (r == MSGPACK_UNPACK_SUCCESS) {
		*d = doc;
		return 0;
	}
	mp_free(doc);
	/* Its syntax was checked above. */
	return err_nomem(e, where, n);
}

void mp_free(struct mp_doc *d)
{
	if (!d)
		return;
	msgpack_unpacked_destroy(&d->u);
	free(d);
}

static const struct mp *view(const msgpack_object *o)
{
	return (const struct mp *)o;
}

static const msgpack_object *object(const struct mp *v)
{
	return (const msgpack_object *)v;
}

const struct mp *mp_root(const struct mp_doc *d)
{
	return view(&d->u.data);
}

enum mp_type mp_type_of(const struct mp *v)
{
	if (!v)
		return MP_NONE;
	switch (object(v)->type) {
	case MSGPACK_OBJECT_NIL:
		return MP_NIL;
	case MSGPACK_OBJECT_BOOLEAN:
		return MP_BOOL;
	case MSGPACK_OBJECT_POSITIVE_INTEGER:
	case MSGPACK_OBJECT_NEGATIVE_INTEGER:
		return MP_INT;
	case MSGPACK_OBJECT_FLOAT32:
	case MSGPACK_OBJECT_FLOAT64:
		return MP_DOUBLE;
	case MSGPACK_OBJECT_STR:
		return MP_STR;
	case MSGPACK_OBJECT_ARRAY:
		return MP_ARRAY;
	case MSGPACK_OBJECT_MAP:
		return MP_MAP;
	default:
		return MP_OTHER;
	}
}

size_t mp_len(const struct mp *v)
{
	switch (mp_type_of(v)) {
	case MP_ARRAY:
		return object(v)->via.array.size;
	case MP_MAP:
		return object(v)->via.map.size;
	default:
		return 0;
	}
}

const struct mp *mp_at(const struct mp *v, size_t i)
{
	if (i >= mp_len(v))
		return NULL;
	if (mp_type_of(v) == MP_MAP)
		return view(&object(v)->via.map.ptr[i].val);
	return view(&object(v)->via.array.ptr[i]);
}

const struct mp *mp_key(const struct mp *map, size_t i)
{
	if (mp_type_of(map) != MP_MAP || i >= mp_len(map))
		return NULL;
	return view(&object(map)->via.map.ptr[i].key);
}

const struct mp *mp_get(const struct mp *map, const char *key)
{
	size_t want = strlen(key), n;
	const char *s;

	for (size_t i = 0; i < mp_len(map); i++)
		if (mp_str(mp_key(map, i), &s, &n) && n == want && !memcmp(s, key, n))
			return mp_at(map, i);
	return NULL;
}

bool mp_str(const struct mp *v, const char **s, size_t *n)
{
	if (mp_type_of(v) != MP_STR)
		return false;
	*s = object(v)->via.str.ptr;
	*n = object(v)->via.str.size;
	return true;
}

bool mp_int(const struct mp *v, int64_t *out)
{
	if (mp_type_of(v) != MP_INT)
		return false;
	if (object(v)->type == MSGPACK_OBJECT_POSITIVE_INTEGER &&
	    object(v)->via.u64 > (uint64_t)INT64_MAX)
		return false;
	*out = object(v)->via.i64;
	return true;
}

bool mp_double(const struct mp *v, double *out)
{
	int64_t i;

	if (mp_int(v, &i))
		*out = (double)i;
	else if (mp_type_of(v) == MP_DOUBLE)
		*out = object(v)->via.f64;
	else
		return false;
	return true;
}

bool mp_bool(const struct mp *v, bool *out)
{
	if (mp_type_of(v) != MP_BOOL)
		return false;
	*out = object(v)->via.boolean;
	return true;
}
