/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tokenizer_parts.c - what the readers of the parts of a tokenizer.json share
 */
#include "formats/tokenizer_parts.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int part_bad(const struct part *p, const char *fmt, ...)
{
	char what[300];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	return err_set(p->e, ERR_DATA, p->where, "%s", what);
}

void part_below(struct part *to, const struct part *p, const struct json *v, const char *name)
{
	const size_t shown = strlen(name) < 60 ? strlen(name) : 60;
	const int room = (int)(sizeof(to->where) - shown - 3);

	to->v = v;
	to->e = p->e;
	snprintf(to->where, sizeof(to->where), "%.*s: %.60s", room, p->where, name);
}

static bool is_listed(const char *names, const char *name)
{
	size_t n = strlen(name), len;

	for (; *names; names += len) {
		names += strspn(names, " ");
		len = strcspn(names, " ");
		if (len && len == n && memcmp(names, name, n) == 0)
			return true;
	}
	return false;
}

int part_keys(const struct part *p, const char *keys)
{
	const char *key;
	const struct json *v;

	if (json_type_of(p->v) != JSON_OBJECT)
		return part_bad(p, "not an object");
	for (void *it = json_iter(p->v, NULL, &key, &v); it; it = json_iter(p->v, it, &key, &v))
		if (!is_listed(keys, key))
			return part_bad(p, "key '%.60s' is not known", key);
	return 0;
}

bool part_absent(const struct json *v)
{
	enum json_type t = json_type_of(v);

	return t == JSON_NONE || t == JSON_NULL;
}

int part_bool(const struct part *p, const char *key, bool otherwise, bool *out)
{
	const struct json *v = json_get(p->v, key);

	if (!part_absent(v) && json_type_of(v) != JSON_BOOL)
		return part_bad(p, "%s is not true or false", key);
	*out = json_bool(v, otherwise);
	return 0;
}

int part_str(const struct part *p, const char *key, const char **s, size_t *n)
{
	*s = json_str(json_get(p->v, key), n);
	return *s ? 0 : part_bad(p, "%s is missing or not a string", key);
}

int part_dup(const struct part *p, const char *s, size_t n, char **out)
{
	*out = malloc(n + 1);
	if (!*out)
		return err_nomem(p->e, p->where, n + 1);
	memcpy(*out, s, n);
	(*out)[n] = '\0';
	return 0;
}

int part_type(struct part *p, const char **type)
{
	struct part named;
	size_t n;

	if (json_type_of(p->v) != JSON_OBJECT)
		return part_bad(p, "not an object");
	if (part_str(p, "type", type, &n))
		return -1;
	part_below(&named, p, p->v, *type);
	*p = named;
	return 0;
}

int part_unsupported(struct part *p, const char *kind)
{
	char *end = strrchr(p->where, ':');
	char type[64];

	snprintf(type, sizeof(type), "%s", end ? end + 2 : "");
	if (end)
		*end = '\0';
	return part_bad(p, "%s type '%s' is not supported", kind, type);
}
