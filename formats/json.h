/* SPDX-License-Identifier: Apache-2.0 */
/*
 * json.h - the one place that knows the JSON library (jansson)
 *
 * Read-only views of a parsed document, with errors that name the file and the key.
 */
#ifndef QP_JSON_H
#define QP_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"

struct buf;
struct json;      /* a value, owned by its document */
struct json_doc;

/*
 * Duplicate keys, numbers beyond a double, nesting deeper than 2048, NUL in keys, bad UTF-8 and
 * trailing text are refused (ERR_DATA with line and byte).  An integer outside int64 is a
 * JSON_REAL.  where names the file in errors ("config.json").  json_parse_file: ERR_NOINPUT if
 * it is not there; at most 256 MiB.
 */
int json_parse(struct json_doc **d, const char *text, size_t n, const char *where,
	       struct err *e) MUST_USE;
/* The same of a line of a file, which where names: errors say the byte only. */
int json_parse_line(struct json_doc **d, const char *text, size_t n, const char *where,
		    struct err *e) MUST_USE;
int json_parse_file(struct json_doc **d, const char *path, struct err *e) MUST_USE;
void json_free(struct json_doc *d);
const struct json *json_root(const struct json_doc *d);

enum json_type { JSON_NONE, JSON_NULL, JSON_BOOL, JSON_INT, JSON_REAL, JSON_STR, JSON_ARRAY,
		 JSON_OBJECT };
enum json_type json_type_of(const struct json *v); /* JSON_NONE for NULL */
const struct json *json_get(const struct json *obj, const char *key); /* NULL: absent */
size_t json_len(const struct json *v);             /* elements of an array or object */
const struct json *json_at(const struct json *arr, size_t i);
const char *json_str(const struct json *v, size_t *len); /* NULL if not a string */
bool json_bool(const struct json *v, bool otherwise);
int64_t json_int(const struct json *v, int64_t otherwise);
double json_num(const struct json *v, double otherwise); /* integers too */
/* In file order: start with it = NULL. */
/* The same value: numbers of one kind, members in any order; absent is like absent only. */
bool json_same(const struct json *a, const struct json *b);
void *json_iter(const struct json *obj, void *it, const char **key, const struct json **v);

/* ---- changing a document whose root is an object; its order stays */

/* The value that text is takes the place of the key's, or stands at the end.  ERR_BUG if text is no
 * JSON. */
int json_set(struct json_doc *d, const char *key, const char *text, struct err *e) MUST_USE;
void json_remove(struct json_doc *d, const char *key);
/* As text, indented by two, numbers in as few digits (15 to 17) as keep all of them; a line end
 * behind it. */
int json_print(const struct json_doc *d, struct buf *out, struct err *e) MUST_USE;

#endif
