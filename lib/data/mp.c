/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mp.c - small msgpack values, by msgpack-c
 */
#include "lib/data/mp.h"

#include <msgpack.h>
#include <stdlib.h>
#include <string.h>

#include "lib/data/mpwalk.h"

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

int mp_parse(struct mp_doc **d, const void *p, size_t n, const char *where, struct err *e)
{
	msgpack_unpack_return r;
	struct mp_doc *doc;
	uint64_t extent;
	size_t off = 0;

	if (token_extent(p, n, &extent) != 1 || extent != n)
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
