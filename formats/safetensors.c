/* SPDX-License-Identifier: Apache-2.0 */
/*
 * safetensors.c - read tensors out of safetensors files, trusting no length
 */
#include "formats/safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "formats/file.h"
#include "formats/json.h"

#define MAX_HEADER 100000000u

/* The format's vocabulary and the bits of an element.  Our own packed types are not in it. */
static const struct {
	const char *name;
	int bits;
} types[] = {
	{ "BOOL", 8 }, { "U8", 8 }, { "I8", 8 }, { "U16", 16 }, { "I16", 16 }, { "F16", 16 },
	{ "BF16", 16 }, { "U32", 32 }, { "I32", 32 }, { "F32", 32 }, { "U64", 64 }, { "I64", 64 },
	{ "F64", 64 }, { "C64", 64 }, { "F8_E4M3", 8 }, { "F8_E5M2", 8 }, { "F8_E8M0", 8 },
	{ "F8_E4M3FNUZ", 8 }, { "F8_E5M2FNUZ", 8 }, { "F4", 4 }, { "F6_E2M3", 6 },
	{ "F6_E3M2", 6 },
};

static int type_bits(const char *name)
{
	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
		if (strcmp(types[i].name, name) == 0)
			return types[i].bits;
	return 0;
}

/* "file: tensor", for messages. */
static void place(char *where, size_t cap, const struct safetensors *s, const char *name)
{
	snprintf(where, cap, "%s: %s", s->path, name);
}

static int take_dtype(struct st_tensor *t, int *bits, const struct json *v, const char *where,
		      struct err *e)
{
	const char *name = json_str(v, NULL);

	if (!name)
		return err_set(e, ERR_DATA, where, "dtype: expected a string");
	*bits = type_bits(name);
	if (!*bits)
		return err_set(e, ERR_DATA, where, "dtype '%.32s' is not one of the format", name);
	snprintf(t->dtype_name, sizeof(t->dtype_name), "%s", name);
	t->dtype = dtype_from_name(name);
	return 0;
}

/* Shape, and the bytes that it needs with so many bits an element. */
static int take_shape(struct st_tensor *t, int bits, const struct json *v, const char *where,
		      struct err *e)
{
	const size_t max = sizeof(t->shape) / sizeof(t->shape[0]);
	uint64_t n = 1;

	if (json_type_of(v) != JSON_ARRAY)
		return err_set(e, ERR_DATA, where, "shape: expected an array");
	if (json_len(v) > max)
		return err_set(e, ERR_DATA, where, "shape: %zu dimensions (at most %zu)",
			       json_len(v), max);
	t->rank = (int)json_len(v);
	for (int i = 0; i < t->rank; i++) {
		int64_t d = json_int(json_at(v, (size_t)i), -1);

		if (d < 0)
			return err_set(e, ERR_DATA, where,
				       "shape: dimension %d is not an integer from 0 up", i);
		t->shape[i] = d;
		if (__builtin_mul_overflow(n, (uint64_t)d, &n))
			return err_set(e, ERR_DATA, where, "shape: too many elements");
	}
	if (__builtin_mul_overflow(n, (uint64_t)bits, &n) || n % 8)
		return err_set(e, ERR_DATA, where, "shape: %s", n % 8 ?
			       "elements do not fill whole bytes" : "too many elements");
	t->nbytes = n / 8;
	return 0;
}

/* begin becomes an offset in the file: size bytes of data start at base. */
static int take_offsets(struct st_tensor *t, const struct json *v, uint64_t base, uint64_t size,
			const char *where, struct err *e)
{
	int64_t begin = json_int(json_at(v, 0), -1), end = json_int(json_at(v, 1), -1);

	if (json_type_of(v) != JSON_ARRAY || json_len(v) != 2 || begin < 0 || end < begin)
		return err_set(e, ERR_DATA, where,
			       "data_offsets: expected [begin, end] with 0 <= begin <= end");
	if ((uint64_t)(end - begin) != t->nbytes)
		return err_set(e, ERR_DATA, where,
			       "data_offsets [%lld, %lld] hold %lld bytes, dtype and shape need "
			       "%llu", (long long)begin, (long long)end, (long long)(end - begin),
			       (unsigned long long)t->nbytes);
	if ((uint64_t)end > size)
		return err_set(e, ERR_DATA, where,
			       "data_offsets [%lld, %lld] end outside the file (%llu bytes of "
			       "data)", (long long)begin, (long long)end, (unsigned long long)size);
	t->begin = base + (uint64_t)begin;
	return 0;
}

static int take_tensor(struct safetensors *s, const char *name, const struct json *v,
		       uint64_t base, uint64_t size, struct err *e)
{
	struct st_tensor *t = &s->t[s->n];
	const struct json *field;
	char where[320];
	const char *key;
	void *it = NULL;
	int bits;

	place(where, sizeof(where), s, name);
	if (json_type_of(v) != JSON_OBJECT)
		return err_set(e, ERR_DATA, where, "expected an object");
	while ((it = json_iter(v, it, &key, &field)))
		if (strcmp(key, "dtype") && strcmp(key, "shape") && strcmp(key, "data_offsets"))
			return err_set(e, ERR_DATA, where, "unknown key '%.64s'", key);
	for (int i = 0; i < 3; i++) {
		key = ((const char *const[]){ "dtype", "shape", "data_offsets" })[i];
		if (!json_get(v, key))
			return err_set(e, ERR_DATA, where, "has no %s", key);
	}
	if (take_dtype(t, &bits, json_get(v, "dtype"), where, e) ||
	    take_shape(t, bits, json_get(v, "shape"), where, e) ||
	    take_offsets(t, json_get(v, "data_offsets"), base, size, where, e))
		return -1;
	t->name = strdup(name);
	if (!t->name)
		return err_nomem(e, where, strlen(name));
	s->n++;
	return 0;
}

static int take_metadata(const struct safetensors *s, const struct json *v, struct err *e)
{
	const struct json *text;
	const char *key;
	void *it = NULL;

	if (json_type_of(v) != JSON_OBJECT)
		return err_set(e, ERR_DATA, s->path, "__metadata__: expected an object");
	while ((it = json_iter(v, it, &key, &text)))
		if (!json_str(text, NULL))
			return err_set(e, ERR_DATA, s->path,
				       "__metadata__: %.64s: expected a string", key);
	return 0;
}

static int by_begin(const void *a, const void *b)
{
	const struct st_tensor *x = a, *y = b;

	if (x->begin != y->begin)
		return x->begin < y->begin ? -1 : 1;
	/* Empty ones first: nothing of theirs can overlap. */
	return x->nbytes < y->nbytes ? -1 : x->nbytes > y->nbytes;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct st_tensor *)a)->name, ((const struct st_tensor *)b)->name);
}

/* The ranges, sorted, touch each other and end with the file. */
static int check_cover(const struct safetensors *s, uint64_t base, uint64_t size, struct err *e)
{
	uint64_t at = base;
	char where[320];

	for (size_t i = 0; i < s->n; i++) {
		const struct st_tensor *t = &s->t[i];

		if (t->begin != at) {
			place(where, sizeof(where), s, t->name);
			return err_set(e, ERR_DATA, where,
				       "its data begin at %llu, %s ends at %llu",
				       (unsigned long long)(t->begin - base), t->begin < at ?
				       "inside another tensor, which" : "but the tensor before it",
				       (unsigned long long)(at - base));
		}
		at += t->nbytes;
	}
	if (at - base != size)
		return err_set(e, ERR_DATA, s->path, "%llu bytes after the last tensor",
			       (unsigned long long)(size - (at - base)));
	return 0;
}

/* size bytes of data start at base, after the header. */
static int take_header(struct safetensors *s, const struct json *root, uint64_t base,
		       uint64_t size, struct err *e)
{
	const struct json *v;
	const char *name;
	void *it = NULL;

	if (json_type_of(root) != JSON_OBJECT)
		return err_set(e, ERR_DATA, s->path, "header is not an object");
	s->t = calloc(json_len(root) + 1, sizeof(*s->t));
	if (!s->t)
		return err_nomem(e, s->path, json_len(root) * sizeof(*s->t));
	while ((it = json_iter(root, it, &name, &v)))
		if (strcmp(name, "__metadata__") == 0 ? take_metadata(s, v, e) :
		    take_tensor(s, name, v, base, size, e))
			return -1;
	qsort(s->t, s->n, sizeof(*s->t), by_begin);
	if (check_cover(s, base, size, e))
		return -1;
	qsort(s->t, s->n, sizeof(*s->t), by_name);
	return 0;
}

static int read_header(struct safetensors *s, uint64_t size, struct err *e)
{
	struct json_doc *doc = NULL;
	unsigned char len[8];
	char *text;
	uint64_t n = 0;
	int ret;

	if (size < sizeof(len))
		return err_set(e, ERR_DATA, s->path, "%llu bytes are no safetensors file",
			       (unsigned long long)size);
	if (file_pread(s->fd, len, sizeof(len), 0, s->path, e))
		return -1;
	for (int i = 7; i >= 0; i--)
		n = n << 8 | len[i];
	if (n > MAX_HEADER)
		return err_set(e, ERR_DATA, s->path,
			       "header of %llu bytes is too large (at most %u)",
			       (unsigned long long)n, MAX_HEADER);
	if (n > size - sizeof(len))
		return err_set(e, ERR_DATA, s->path,
			       "header of %llu bytes is longer than the file of %llu",
			       (unsigned long long)n, (unsigned long long)size);
	text = malloc((size_t)n + 1);
	if (!text)
		return err_nomem(e, s->path, n);
	ret = file_pread(s->fd, text, n, sizeof(len), s->path, e);
	if (!ret && (n == 0 || text[0] != '{'))
		ret = err_set(e, ERR_DATA, s->path, "header does not begin with '{'");
	if (!ret)
		ret = json_parse(&doc, text, (size_t)n, s->path, e);
	free(text);
	if (!ret)
		ret = take_header(s, json_root(doc), sizeof(len) + n, size - sizeof(len) - n, e);
	json_free(doc);
	return ret;
}

int safetensors_open(struct safetensors *s, const char *path, struct err *e)
{
	uint64_t size;

	memset(s, 0, sizeof(*s));
	s->fd = file_open(path, path, &size, e);
	if (s->fd < 0)
		return -1;
	s->path = strdup(file_base(path));
	if (!s->path) {
		close(s->fd);
		return err_nomem(e, path, strlen(path));
	}
	if (!read_header(s, size, e))
		return 0;
	safetensors_close(s);
	return -1;
}

void safetensors_close(struct safetensors *s)
{
	for (size_t i = 0; i < s->n; i++)
		free(s->t[i].name);
	free(s->t);
	/* A zeroed one, never opened, has no path. */
	if (s->path)
		close(s->fd);
	free(s->path);
	memset(s, 0, sizeof(*s));
	s->fd = -1;
}

const struct st_tensor *safetensors_find(const struct safetensors *s, const char *name)
{
	const struct st_tensor key = { .name = (char *)(uintptr_t)name };

	return s->n ? bsearch(&key, s->t, s->n, sizeof(*s->t), by_name) : NULL;
}

int safetensors_read(const struct safetensors *s, const struct st_tensor *t, void *dst,
		     struct err *e)
{
	char where[320];

	place(where, sizeof(where), s, t->name);
	return file_pread(s->fd, dst, t->nbytes, t->begin, where, e);
}
