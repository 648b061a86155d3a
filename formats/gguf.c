/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gguf.c - read GGUF files, trusting no length
 */
#include "formats/gguf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "formats/file.h"

#define MAGIC "GGUF"
#define MAX_META FILE_MAX_WHOLE /* keys and list of tensors together */
enum { MAX_KEY = 65535, MAX_NAME = 63, MAX_SHOWN = 128 };

static const struct {
	const char *name;
	unsigned bytes; /* at least, for a string */
} types[GGUF_TYPES] = {
	[GGUF_U8] = { "u8", 1 }, [GGUF_I8] = { "i8", 1 }, [GGUF_U16] = { "u16", 2 },
	[GGUF_I16] = { "i16", 2 }, [GGUF_U32] = { "u32", 4 }, [GGUF_I32] = { "i32", 4 },
	[GGUF_F32] = { "f32", 4 }, [GGUF_BOOL] = { "bool", 1 }, [GGUF_STRING] = { "string", 8 },
	[GGUF_ARRAY] = { "array", 12 }, [GGUF_U64] = { "u64", 8 }, [GGUF_I64] = { "i64", 8 },
	[GGUF_F64] = { "f64", 8 },
};

const char *gguf_type_name(enum gguf_type t)
{
	return types[t].name;
}

bool gguf_magic(const void *first4)
{
	return memcmp(first4, MAGIC, 4) == 0;
}

/* An unsigned number of n bytes, little-endian. */
static uint64_t number(const unsigned char *p, unsigned n)
{
	uint64_t v = 0;

	while (n--)
		v = v << 8 | p[n];
	return v;
}

/* "file: key", for messages. */
static void place(char *where, size_t cap, const struct gguf *g, const char *name)
{
	snprintf(where, cap, "%s: %.*s", g->path, MAX_SHOWN, name);
}

/* ---- the part before the data, read as far as it is looked at ---------------------- */

static int fill(struct gguf *g, uint64_t upto, struct err *e)
{
	uint64_t want = upto + (upto >> 1) + 65536;
	unsigned char *p;

	if (want > g->size)
		want = g->size;
	if (want > g->cap) {
		p = realloc(g->meta, (size_t)want);
		if (!p)
			return err_nomem(e, g->path, want);
		g->meta = p;
		g->cap = want;
	}
	if (file_pread(g->fd, g->meta + g->have, want - g->have, g->have, g->path, e))
		return -1;
	g->have = want;
	return 0;
}

/* The next n bytes, good until the next call; what names them in messages. */
static const unsigned char *take(struct gguf *g, uint64_t n, const char *where, const char *what,
				 struct err *e)
{
	if (n > g->size - g->pos) {
		err_set(e, ERR_DATA, where, "%s: %llu bytes at byte %llu, but the file ends at "
			"%llu", what, (unsigned long long)n, (unsigned long long)g->pos,
			(unsigned long long)g->size);
		return NULL;
	}
	if (g->pos + n > MAX_META) {
		err_set(e, ERR_DATA, where, "%s: keys and tensor list take more than %zu bytes",
			what, MAX_META);
		return NULL;
	}
	if (g->pos + n > g->have && fill(g, g->pos + n, e))
		return NULL;
	g->pos += n;
	return g->meta + g->pos - n;
}

static int take_number(struct gguf *g, unsigned bytes, uint64_t *v, const char *where,
		       const char *what, struct err *e)
{
	const unsigned char *p = take(g, bytes, where, what, e);

	if (!p)
		return -1;
	*v = number(p, bytes);
	return 0;
}

/* A count of things that take at least `bytes` each. */
static int take_count(struct gguf *g, uint64_t bytes, uint64_t *n, const char *where,
		      const char *what, struct err *e)
{
	if (take_number(g, 8, n, where, what, e))
		return -1;
	if (*n > (g->size - g->pos) / bytes)
		return err_set(e, ERR_DATA, where, "%s: %llu do not fit the %llu bytes that are "
			       "left of the file", what, (unsigned long long)*n,
			       (unsigned long long)(g->size - g->pos));
	return 0;
}

/* A key or a tensor's name: plain text, so that it can be shown. */
static int take_name(struct gguf *g, char **name, size_t max, const char *what, struct err *e)
{
	const unsigned char *p;
	uint64_t n;

	if (take_number(g, 8, &n, g->path, what, e))
		return -1;
	p = take(g, n, g->path, what, e);
	if (!p)
		return -1;
	if (n == 0 || n > max)
		return err_set(e, ERR_DATA, g->path, "%s of %llu bytes (1 to %zu)", what,
			       (unsigned long long)n, max);
	for (uint64_t i = 0; i < n; i++)
		if (p[i] < 0x20 || p[i] > 0x7e)
			return err_set(e, ERR_DATA, g->path, "%s is not plain text: byte 0x%02x "
				       "at %llu", what, p[i],
				       (unsigned long long)(g->pos - n + i));
	*name = malloc((size_t)n + 1);
	if (!*name)
		return err_nomem(e, g->path, n);
	memcpy(*name, p, (size_t)n);
	(*name)[n] = '\0';
	return 0;
}

/* Room for one more of what is n long: doubling, as nobody's count is believed. */
static int grow(void *list, size_t n, size_t bytes, const char *where, struct err *e)
{
	void *p;

	if (n & (n - 1))
		return 0;
	memcpy(&p, list, sizeof(p));
	p = realloc(p, (n ? 2 * n : 1) * bytes);
	if (!p)
		return err_nomem(e, where, 2 * n * bytes);
	memcpy(list, &p, sizeof(p));
	return 0;
}

/* ---- keys -------------------------------------------------------------------------- */

static int take_type(struct gguf *g, enum gguf_type *type, const char *where, const char *what,
		     struct err *e)
{
	uint64_t v;

	if (take_number(g, 4, &v, where, what, e))
		return -1;
	if (v >= GGUF_TYPES)
		return err_set(e, ERR_DATA, where, "%s %llu is not one of the format", what,
			       (unsigned long long)v);
	*type = (enum gguf_type)v;
	return 0;
}

static int take_elements(struct gguf *g, const struct gguf_kv *kv, const char *where,
			 struct err *e)
{
	const unsigned char *p;
	uint64_t n;

	if (kv->elem == GGUF_STRING) {
		for (uint64_t i = 0; i < kv->n; i++)
			if (take_number(g, 8, &n, where, "length of a string", e) ||
			    !take(g, n, where, "string", e))
				return -1;
		return 0;
	}
	p = take(g, kv->n * types[kv->elem].bytes, where, "value", e);
	if (!p)
		return -1;
	if (kv->elem == GGUF_BOOL)
		for (uint64_t i = 0; i < kv->n; i++)
			if (p[i] > 1)
				return err_set(e, ERR_DATA, where, "a bool is %d", p[i]);
	return 0;
}

static int take_kv(struct gguf *g, struct err *e)
{
	struct gguf_kv *kv;
	char where[320];

	if (grow(&g->kv, g->n_kv, sizeof(*g->kv), g->path, e))
		return -1;
	kv = &g->kv[g->n_kv];
	if (take_name(g, &kv->key, MAX_KEY, "key", e))
		return -1;
	g->n_kv++;
	place(where, sizeof(where), g, kv->key);
	if (take_type(g, &kv->type, where, "value type", e))
		return -1;
	kv->elem = kv->type;
	kv->n = 1;
	if (kv->type == GGUF_ARRAY) {
		if (take_type(g, &kv->elem, where, "element type", e))
			return -1;
		if (kv->elem == GGUF_ARRAY)
			return err_set(e, ERR_DATA, where, "an array of arrays is not supported");
		if (take_count(g, types[kv->elem].bytes, &kv->n, where, "elements", e))
			return -1;
	}
	kv->at = g->pos;
	return take_elements(g, kv, where, e);
}

static int by_key(const void *a, const void *b)
{
	return strcmp(((const struct gguf_kv *)a)->key, ((const struct gguf_kv *)b)->key);
}

static int take_kvs(struct gguf *g, uint64_t n, struct err *e)
{
	char where[320];

	for (uint64_t i = 0; i < n; i++)
		if (take_kv(g, e))
			return -1;
	if (g->n_kv)
		qsort(g->kv, g->n_kv, sizeof(*g->kv), by_key);
	for (size_t i = 1; i < g->n_kv; i++)
		if (strcmp(g->kv[i - 1].key, g->kv[i].key) == 0) {
			place(where, sizeof(where), g, g->kv[i].key);
			return err_set(e, ERR_DATA, where, "is there twice");
		}
	return 0;
}

const struct gguf_kv *gguf_find(const struct gguf *g, const char *key)
{
	const struct gguf_kv k = { .key = (char *)(uintptr_t)key };

	return g->n_kv ? bsearch(&k, g->kv, g->n_kv, sizeof(k), by_key) : NULL;
}

bool gguf_int(const struct gguf *g, const struct gguf_kv *kv, uint64_t i, int64_t *v)
{
	unsigned bytes;
	uint64_t u;

	if (!kv || i >= kv->n || kv->elem == GGUF_F32 || kv->elem == GGUF_F64 ||
	    kv->elem == GGUF_BOOL || kv->elem == GGUF_STRING)
		return false;
	bytes = types[kv->elem].bytes;
	u = number(g->meta + kv->at + i * bytes, bytes);
	if (kv->elem == GGUF_I8)
		*v = (int8_t)u;
	else if (kv->elem == GGUF_I16)
		*v = (int16_t)u;
	else if (kv->elem == GGUF_I32)
		*v = (int32_t)u;
	else if (kv->elem == GGUF_U64 && u > INT64_MAX)
		return false;
	else
		*v = (int64_t)u;
	return true;
}

bool gguf_real(const struct gguf *g, const struct gguf_kv *kv, uint64_t i, double *v)
{
	uint64_t u;
	uint32_t w;
	float f;

	if (!kv || i >= kv->n || (kv->elem != GGUF_F32 && kv->elem != GGUF_F64))
		return false;
	u = number(g->meta + kv->at + i * types[kv->elem].bytes, types[kv->elem].bytes);
	if (kv->elem == GGUF_F64) {
		memcpy(v, &u, sizeof(*v));
	} else {
		w = (uint32_t)u;
		memcpy(&f, &w, sizeof(f));
		*v = f;
	}
	return true;
}

bool gguf_bool(const struct gguf *g, const struct gguf_kv *kv, bool *v)
{
	if (!kv || kv->type != GGUF_BOOL)
		return false;
	*v = g->meta[kv->at] != 0;
	return true;
}

bool gguf_str(const struct gguf *g, const struct gguf_kv *kv, uint64_t *at, const char **s,
	      size_t *n)
{
	const unsigned char *p;

	/* *at: the strings so far, and in its upper half the bytes that they took. */
	if (!kv || kv->elem != GGUF_STRING || (*at & UINT32_MAX) >= kv->n)
		return false;
	p = g->meta + kv->at + (*at >> 32);
	*n = (size_t)number(p, 8);
	*s = (const char *)p + 8;
	*at += ((uint64_t)*n + 8) << 32 | 1;
	return true;
}

/* ---- tensors ------------------------------------------------------------------------- */

static int take_dims(struct gguf *g, struct gguf_tensor *t, const char *where, struct err *e)
{
	uint64_t n, count = 1;

	if (take_number(g, 4, &n, where, "dimensions", e))
		return -1;
	if (n < 1 || n > 4)
		return err_set(e, ERR_DATA, where, "%llu dimensions (1 to 4)",
			       (unsigned long long)n);
	t->rank = (int)n;
	for (int i = 0; i < t->rank; i++) {
		if (take_number(g, 8, &n, where, "dimension", e))
			return -1;
		if (n == 0 || n > INT64_MAX)
			return err_set(e, ERR_DATA, where, "dimension %d is %llu", i,
				       (unsigned long long)n);
		t->ne[i] = (int64_t)n;
		if (__builtin_mul_overflow(count, n, &count))
			return err_set(e, ERR_DATA, where, "too many elements");
	}
	return 0;
}

static int take_ggml_type(struct gguf *g, struct gguf_tensor *t, const char *where, struct err *e)
{
	uint64_t v;

	if (take_number(g, 4, &v, where, "type", e))
		return -1;
	t->type = ggml_type((uint32_t)v);
	if (!t->type)
		return err_set(e, ERR_DATA, where, "type %llu is not one of ggml's",
			       (unsigned long long)v);
	if (t->ne[0] % t->type->block)
		return err_set(e, ERR_DATA, where, "rows of %lld do not divide into blocks of %u "
			       "(%s)", (long long)t->ne[0], t->type->block, t->type->name);
	t->nbytes = (uint64_t)t->ne[0] / t->type->block;
	for (int i = 1; i < t->rank; i++)
		t->nbytes *= (uint64_t)t->ne[i]; /* fewer than elements, which fit */
	if (__builtin_mul_overflow(t->nbytes, t->type->bytes, &t->nbytes) ||
	    t->nbytes > (uint64_t)1 << 48)
		return err_set(e, ERR_DATA, where, "too many bytes");
	return 0;
}

static int take_tensor(struct gguf *g, struct err *e)
{
	struct gguf_tensor *t;
	char where[320];

	if (grow(&g->t, g->n, sizeof(*g->t), g->path, e))
		return -1;
	t = &g->t[g->n];
	t->part = 0;
	if (take_name(g, &t->name, MAX_NAME, "name of a tensor", e))
		return -1;
	g->n++;
	place(where, sizeof(where), g, t->name);
	return take_dims(g, t, where, e) || take_ggml_type(g, t, where, e) ||
	       take_number(g, 8, &t->at, where, "offset", e) ? -1 : 0;
}

static int take_alignment(const struct gguf *g, uint64_t *align, struct err *e)
{
	const struct gguf_kv *kv = gguf_find(g, "general.alignment");
	char where[320];
	int64_t v = 32;

	place(where, sizeof(where), g, "general.alignment");
	if (kv && (kv->type != GGUF_U32 || !gguf_int(g, kv, 0, &v)))
		return err_set(e, ERR_DATA, where, "is of type %s, not u32", types[kv->type].name);
	if (v < 1 || (v & (v - 1)))
		return err_set(e, ERR_DATA, where, "%lld is not a power of two", (long long)v);
	*align = (uint64_t)v;
	return 0;
}

/* Offsets become absolute: one tensor after the other from the end of the list on. */
static int place_tensors(struct gguf *g, struct err *e)
{
	uint64_t align = 32, at = 0, base, left;
	char where[320];

	if (take_alignment(g, &align, e))
		return -1;
	base = (g->pos + align - 1) & ~(align - 1);
	left = base < g->size ? g->size - base : 0;
	for (size_t i = 0; i < g->n; i++) {
		struct gguf_tensor *t = &g->t[i];

		place(where, sizeof(where), g, t->name);
		if (t->at % align)
			return err_set(e, ERR_DATA, where, "offset %llu is not a multiple of the "
				       "alignment %llu", (unsigned long long)t->at,
				       (unsigned long long)align);
		if (t->at != at)
			return err_set(e, ERR_DATA, where, "its data begin at %llu, those before "
				       "it end at %llu", (unsigned long long)t->at,
				       (unsigned long long)at);
		if (t->nbytes > left || at > left - t->nbytes)
			return err_set(e, ERR_DATA, where, "its data end at byte %llu, the file "
				       "at %llu", (unsigned long long)(base + at + t->nbytes),
				       (unsigned long long)g->size);
		at = (at + t->nbytes + align - 1) & ~(align - 1);
		t->at += base;
	}
	if (at < left)
		return err_set(e, ERR_DATA, g->path, "%llu bytes after the last tensor",
			       (unsigned long long)(left - at));
	return 0;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct gguf_tensor *)a)->name, ((const struct gguf_tensor *)b)->name);
}

int gguf_sort(struct gguf *g, struct err *e)
{
	char where[320];

	if (g->n)
		qsort(g->t, g->n, sizeof(*g->t), by_name);
	for (size_t i = 1; i < g->n; i++)
		if (strcmp(g->t[i - 1].name, g->t[i].name) == 0) {
			place(where, sizeof(where), g, g->t[i].name);
			return err_set(e, ERR_DATA, where, "is there twice");
		}
	return 0;
}

const struct gguf_tensor *gguf_tensor(const struct gguf *g, const char *name)
{
	const struct gguf_tensor t = { .name = (char *)(uintptr_t)name };

	return g->n ? bsearch(&t, g->t, g->n, sizeof(t), by_name) : NULL;
}

int gguf_fd(const struct gguf *g, const struct gguf_tensor *t)
{
	return t->part ? g->part[t->part - 1].fd : g->fd;
}

int gguf_read(const struct gguf *g, const struct gguf_tensor *t, uint64_t from, void *dst,
	      uint64_t n, struct err *e)
{
	char where[320];

	place(where, sizeof(where), g, t->name);
	if (g->fd >= 0)
		return file_pread(gguf_fd(g, t), dst, n, t->at + from, where, e);
	memcpy(dst, g->meta + t->at + from, (size_t)n);
	return 0;
}

/* ---- the whole ------------------------------------------------------------------------ */

static int take_version(struct gguf *g, struct err *e)
{
	const unsigned char *p = take(g, 8, g->path, "header", e);

	if (!p)
		return -1;
	if (!gguf_magic(p))
		return err_set(e, ERR_DATA, g->path, "is not a GGUF file");
	g->version = (uint32_t)number(p + 4, 4);
	if (g->version == 2 || g->version == 3)
		return 0;
	if (g->version && !(g->version & 0xffffff))
		return err_set(e, ERR_DATA, g->path, "is a big-endian GGUF file, which is not "
			       "supported");
	return err_set(e, ERR_DATA, g->path, "GGUF version %lu is not supported (only 2 and 3)",
		       (unsigned long)g->version);
}

static int take_all(struct gguf *g, struct err *e)
{
	uint64_t n_tensors, n_kv;

	/* The least of each: an empty name is refused later, a value is a byte, a dimension one. */
	if (take_version(g, e) ||
	    take_count(g, 8 + 4 + 8 + 4 + 8, &n_tensors, g->path, "tensors", e) ||
	    take_count(g, 8 + 4 + 1, &n_kv, g->path, "keys", e) || take_kvs(g, n_kv, e))
		return -1;
	for (uint64_t i = 0; i < n_tensors; i++)
		if (take_tensor(g, e))
			return -1;
	return place_tensors(g, e) || gguf_sort(g, e) ? -1 : 0;
}

int gguf_open(struct gguf *g, const char *path, struct err *e)
{
	memset(g, 0, sizeof(*g));
	g->fd = file_open(path, path, &g->size, e);
	if (g->fd < 0)
		return -1;
	g->path = strdup(file_base(path));
	if (!g->path) {
		close(g->fd);
		return err_nomem(e, path, strlen(path));
	}
	if (!take_all(g, e))
		return 0;
	gguf_close(g);
	return -1;
}

int gguf_parse(struct gguf *g, const void *data, size_t n, const char *where, struct err *e)
{
	memset(g, 0, sizeof(*g));
	g->fd = -1;
	g->path = strdup(where);
	if (!g->path)
		return err_nomem(e, where, strlen(where));
	g->meta = (unsigned char *)(uintptr_t)data;
	g->size = g->have = n;
	if (!take_all(g, e))
		return 0;
	gguf_close(g);
	return -1;
}

void gguf_close(struct gguf *g)
{
	for (size_t i = 0; i < g->n_kv; i++)
		free(g->kv[i].key);
	for (size_t i = 0; i < g->n; i++)
		free(g->t[i].name);
	free(g->kv);
	free(g->t);
	for (int i = 0; i < g->parts; i++)
		gguf_close(&g->part[i]);
	free(g->part);
	/* What was parsed in memory is the caller's; a zeroed one has neither file nor path. */
	if (g->path && g->fd >= 0) {
		close(g->fd);
		free(g->meta);
	}
	free(g->path);
	memset(g, 0, sizeof(*g));
	g->fd = -1;
}
