/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mp.h - small msgpack values: put together in a buffer, and looked into
 *
 * For values that a record carries whole under an extra key (record_set_raw, record_get_raw): a
 * model's configuration, a plan.  Shortest encodings; integers for numbers without a fraction.
 */
#ifndef QP_MP_H
#define QP_MP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/buf.h"

/* Append to b.  A map is followed by n keys and values, an array by n values. */
void mp_put_map(struct buf *b, size_t n);
void mp_put_array(struct buf *b, size_t n);
void mp_put_str(struct buf *b, const char *s);
void mp_put_int(struct buf *b, int64_t v);
void mp_put_double(struct buf *b, double v);
void mp_put_bool(struct buf *b, bool v);

struct mp;     /* a value, owned by its document */
struct mp_doc;

/* The n bytes at p are exactly one value, nested at most 30 deep; strings point into p. */
int mp_parse(struct mp_doc **d, const void *p, size_t n, const char *where, struct err *e)
	MUST_USE;
void mp_free(struct mp_doc *d);
const struct mp *mp_root(const struct mp_doc *d);

enum mp_type { MP_NONE, MP_NIL, MP_BOOL, MP_INT, MP_DOUBLE, MP_STR, MP_ARRAY, MP_MAP, MP_OTHER };
enum mp_type mp_type_of(const struct mp *v);       /* MP_NONE for NULL */
size_t mp_len(const struct mp *v);                 /* elements of an array or pairs of a map */
const struct mp *mp_at(const struct mp *v, size_t i);  /* the i-th element, or value of a map */
const struct mp *mp_key(const struct mp *map, size_t i);
const struct mp *mp_get(const struct mp *map, const char *key); /* the first such; NULL: absent */

/* Each gives true and fills its output when v is of that type; mp_double takes integers too.
 * MP_INT outside int64 is not given.  Strings are not NUL-terminated. */
bool mp_str(const struct mp *v, const char **s, size_t *n);
bool mp_int(const struct mp *v, int64_t *out);
bool mp_double(const struct mp *v, double *out);
bool mp_bool(const struct mp *v, bool *out);

#endif
