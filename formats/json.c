/* SPDX-License-Identifier: Apache-2.0 */
/*
 * json.c - JSON documents, read by jansson
 */
/* Four of jansson's enumerators are called as ours are: they get other names here, so none
 * of its json_is_*() macros may be used below, only json_typeof(). */
#define JSON_OBJECT JANSSON_OBJECT
#define JSON_ARRAY JANSSON_ARRAY
#define JSON_REAL JANSSON_REAL
#define JSON_NULL JANSSON_NULL
#include <jansson.h>
#undef JSON_OBJECT
#undef JSON_ARRAY
#undef JSON_REAL
#undef JSON_NULL

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "formats/file.h"
#include "formats/json.h"
#include "lib/base/buf.h"

#define FLAGS (JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL)

struct json_doc {
	json_t *root;
};

/* What a struct json * points at is jansson's own value; its functions that only look are
 * declared without const. */
static json_t *value(const struct json *v)
{
	union {
		const struct json *in;
		json_t *out;
	} u = { v };

	return u.out;
}

static const struct json *view(const json_t *v)
{
	return (const struct json *)v;
}

/* The last bytes before position, printable: jansson says where an error is and what follows,
 * but not which key it belongs to. */
static void before(char *buf, size_t cap, const char *text, size_t n, int position)
{
	size_t end = position < 0 ? 0 : (size_t)position < n ? (size_t)position : n;
	size_t begin = end > cap - 1 ? end - (cap - 1) : 0;

	for (size_t i = begin; i < end; i++)
		*buf++ = text[i] >= 0x20 && text[i] < 0x7f ? text[i] : '.';
	*buf = '\0';
}

/* Is it JSON, but not to be read by us? */
static bool beyond(enum json_error_code code)
{
	return code == json_error_duplicate_key || code == json_error_numeric_overflow ||
	       code == json_error_null_byte_in_key || code == json_error_stack_overflow;
}

static int refuse(json_error_t *je, const char *text, size_t n, const char *where, struct err *e)
{
	char seen[73];

	/* where jansson lacks memory it often says nothing at all */
	if (json_error_code(je) == json_error_out_of_memory || !je->text[0])
		return err_nomem(e, where, n);
	/* jansson quotes the input in its message: make it one printable line. */
	for (char *p = je->text; *p; p++)
		if (*p < 0x20 || *p >= 0x7f)
			*p = '.';
	before(seen, sizeof(seen), text, n, je->position);
	return err_set(e, ERR_DATA, where, "%s%s (line %d, byte %d, after '%s')",
		       beyond(json_error_code(je)) ? "" : "not JSON: ", je->text, je->line,
		       je->position, seen);
}

/* The bytes of the string or number that text [n] begins with, or 1 of anything else; is it an
 * integer beyond 64 bits? */
static size_t token(const char *text, size_t n, bool *wide)
{
	char digits[24] = "";
	size_t k = 1;

	*wide = false;
	if (*text == '"') {
		while (k < n && text[k] != '"')
			k += text[k] == '\\' ? 2 : 1;
		return k < n ? k + 1 : n;
	}
	if (!memchr("-0123456789", *text, 11))
		return 1;
	while (k < n && memchr("-+.eE0123456789", text[k], 15))
		k++;
	for (size_t i = 1; i < k; i++)
		if (text[i] < '0' || text[i] > '9')
			return k;
	if (k < sizeof(digits))
		memcpy(digits, text, k);
	errno = 0;
	*wide = k >= sizeof(digits) || (strtoll(digits, NULL, 10), errno == ERANGE);
	return k;
}

/* What was refused for integers beyond 64 bits only, with these as reals: ".0" is put behind. */
static json_t *load_wide(const char *text, size_t n, const char *where, json_error_t *je,
			 struct err *e)
{
	struct buf b = { 0 };
	json_t *root = NULL;
	bool wide;

	for (size_t i = 0, k; i < n; i += k) {
		k = token(text + i, n - i, &wide);
		buf_add(&b, text + i, k);
		if (wide)
			buf_puts(&b, ".0");
	}
	if (buf_failed(&b, where, e) == 0) {
		root = json_loadb(b.p, b.n, FLAGS, je);
		if (!root)
			refuse(je, b.p, b.n, where, e);
	}
	buf_release(&b);
	return root;
}

int json_parse(struct json_doc **d, const char *text, size_t n, const char *where, struct err *e)
{
	json_error_t je;
	json_t *root = json_loadb(text, n, FLAGS, &je);

	if (!root && json_error_code(&je) == json_error_numeric_overflow) {
		/* is all else well? Its faults are to be named as they stand in the text */
		root = json_loadb(text, n, FLAGS | JSON_DECODE_INT_AS_REAL, &je);
		if (root) {
			json_decref(root);
			root = load_wide(text, n, where, &je, e);
			if (!root)
				return -1;
		}
	}
	if (!root)
		return refuse(&je, text, n, where, e);
	*d = malloc(sizeof(**d));
	if (!*d) {
		json_decref(root);
		return err_nomem(e, where, sizeof(**d));
	}
	(*d)->root = root;
	return 0;
}

int json_parse_line(struct json_doc **d, const char *text, size_t n, const char *where,
		    struct err *e)
{
	static const char line[] = "(line 1, ";
	char *at;

	if (json_parse(d, text, n, where, e) == 0)
		return 0;
	at = strstr(e->what, line);
	if (at)
		memmove(at + 1, at + sizeof(line) - 1, strlen(at + sizeof(line) - 1) + 1);
	return -1;
}

int json_parse_file(struct json_doc **d, const char *path, struct err *e)
{
	char *text;
	size_t n;
	int ret;

	if (file_read(path, path, FILE_MAX_WHOLE, &text, &n, e))
		return -1;
	ret = json_parse(d, text, n, path, e);
	free(text);
	return ret;
}

void json_free(struct json_doc *d)
{
	if (!d)
		return;
	json_decref(d->root);
	free(d);
}

const struct json *json_root(const struct json_doc *d)
{
	return view(d->root);
}

enum json_type json_type_of(const struct json *v)
{
	if (!v)
		return JSON_NONE;
	switch (json_typeof(value(v))) {
	case JANSSON_OBJECT:
		return JSON_OBJECT;
	case JANSSON_ARRAY:
		return JSON_ARRAY;
	case JSON_STRING:
		return JSON_STR;
	case JSON_INTEGER:
		return JSON_INT;
	case JANSSON_REAL:
		return JSON_REAL;
	case JSON_TRUE:
	case JSON_FALSE:
		return JSON_BOOL;
	case JANSSON_NULL:
		return JSON_NULL;
	}
	return JSON_NONE;
}

const struct json *json_get(const struct json *obj, const char *key)
{
	return obj ? view(json_object_get(value(obj), key)) : NULL;
}

size_t json_len(const struct json *v)
{
	switch (json_type_of(v)) {
	case JSON_ARRAY:
		return json_array_size(value(v));
	case JSON_OBJECT:
		return json_object_size(value(v));
	default:
		return 0;
	}
}

const struct json *json_at(const struct json *arr, size_t i)
{
	return arr ? view(json_array_get(value(arr), i)) : NULL;
}

bool json_same(const struct json *a, const struct json *b)
{
	return a == b || (a && b && json_equal(value(a), value(b)));
}

const char *json_str(const struct json *v, size_t *len)
{
	if (json_type_of(v) != JSON_STR)
		return NULL;
	if (len)
		*len = json_string_length(value(v));
	return json_string_value(value(v));
}

bool json_bool(const struct json *v, bool otherwise)
{
	return json_type_of(v) == JSON_BOOL ? json_typeof(value(v)) == JSON_TRUE : otherwise;
}

int64_t json_int(const struct json *v, int64_t otherwise)
{
	return json_type_of(v) == JSON_INT ? (int64_t)json_integer_value(value(v)) : otherwise;
}

double json_num(const struct json *v, double otherwise)
{
	enum json_type t = json_type_of(v);

	return t == JSON_INT || t == JSON_REAL ? json_number_value(value(v)) : otherwise;
}

void *json_iter(const struct json *obj, void *it, const char **key, const struct json **v)
{
	if (json_type_of(obj) != JSON_OBJECT)
		return NULL;
	it = it ? json_object_iter_next(value(obj), it) : json_object_iter(value(obj));
	if (it) {
		*key = json_object_iter_key(it);
		*v = view(json_object_iter_value(it));
	}
	return it;
}

int json_set(struct json_doc *d, const char *key, const char *text, struct err *e)
{
	json_error_t je;
	json_t *v = json_loads(text, FLAGS, &je);

	if (!v)
		return json_error_code(&je) == json_error_out_of_memory ?
		       err_nomem(e, key, strlen(text)) :
		       err_set(e, ERR_BUG, key, "BUG: '%.64s' is not JSON", text);
	return json_object_set_new(d->root, key, v) ? err_nomem(e, key, strlen(text)) : 0;
}

void json_remove(struct json_doc *d, const char *key)
{
	json_object_del(d->root, key);
}

int json_print(const struct json_doc *d, struct buf *out, struct err *e)
{
	char *text = NULL;
	bool same = false;

	for (int digits = 15; digits <= 17 && !same; digits++) {
		json_t *again;

		free(text);
		text = json_dumps(d->root, JSON_INDENT(2) | JSON_REAL_PRECISION(digits) |
				  JSON_ENCODE_ANY);
		again = text ? json_loads(text, FLAGS, NULL) : NULL;
		if (!again)
			break;
		same = digits == 17 || json_equal(d->root, again);
		json_decref(again);
	}
	if (same) {
		buf_puts(out, text);
		buf_byte(out, '\n');
	}
	free(text);
	return same ? buf_failed(out, "JSON", e) : err_nomem(e, "JSON", 0);
}
