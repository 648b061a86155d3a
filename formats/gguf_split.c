/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gguf_split.c - the parts of a GGUF file, read as one
 */
#include "formats/gguf_split.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/file.h"

enum { MAX_PARTS = 1000 };
#define SUFFIX "-%05d-of-%05d.gguf"
enum { SUFFIX_LEN = sizeof("-00001-of-00001.gguf") - 1 };

static int64_t key(const struct gguf *g, const char *name)
{
	int64_t v;

	return gguf_int(g, gguf_find(g, name), 0, &v) ? v : -1;
}

/* The path of part i of n, malloc'ed, from that of the first. */
static char *part_path(const char *first, int i, int n)
{
	const size_t len = strlen(first);
	char *p = malloc(len + 1);

	if (!p)
		return NULL;
	memcpy(p, first, len + 1);
	snprintf(p + len - SUFFIX_LEN, SUFFIX_LEN + 1, SUFFIX, i + 1, n);
	return p;
}

/* Is path what the first of n parts is called? */
static bool first_name(const char *path, int n)
{
	const size_t len = strlen(path);
	char want[64];

	snprintf(want, sizeof(want), SUFFIX, 1, n);
	return len > SUFFIX_LEN && strcmp(path + len - SUFFIX_LEN, want) == 0;
}

/* The tensors of part i become g's. */
static int take_tensors(struct gguf *g, int i, struct err *e)
{
	struct gguf *part = &g->part[i - 1];
	struct gguf_tensor *t = realloc(g->t, (g->n + part->n + 1) * sizeof(*t));

	if (!t)
		return err_nomem(e, part->path, (g->n + part->n) * sizeof(*t));
	g->t = t;
	for (size_t k = 0; k < part->n; k++) {
		g->t[g->n + k] = part->t[k];
		g->t[g->n + k].part = i;
	}
	g->n += part->n;
	part->n = 0;
	return 0;
}

static int open_part(struct gguf *g, const char *path, int i, int n, struct err *e)
{
	struct gguf *part = &g->part[i - 1];
	char *name = part_path(path, i, n);
	int ret = name ? gguf_open(part, name, e) : err_nomem(e, path, strlen(path));

	if (!ret)
		g->parts = i;
	if (!ret && (key(part, "split.no") != i || key(part, "split.count") != n))
		ret = err_set(e, ERR_DATA, part->path, "is not part %d of %d, by its keys split.no "
			      "and split.count", i + 1, n);
	if (!ret)
		ret = take_tensors(g, i, e);
	free(name);
	return ret;
}

int gguf_join(struct gguf *g, const char *path, struct err *e)
{
	const int64_t n = key(g, "split.count"), no = key(g, "split.no");
	const int64_t all = key(g, "split.tensors.count");

	if (n <= 1)
		return 0;
	if (n > MAX_PARTS)
		return err_set(e, ERR_DATA, g->path, "is one of %lld parts, at most %d are read",
			       (long long)n, MAX_PARTS);
	if (no != 0)
		return err_set(e, ERR_DATA, g->path, "is part %lld of %lld of a model: give the "
			       "first", (long long)no + 1, (long long)n);
	if (!first_name(path, (int)n))
		return err_set(e, ERR_DATA, g->path, "is the first of %lld parts, but is not "
			       "called NAME" SUFFIX ", so the others cannot be found",
			       (long long)n, 1, (int)n);
	g->part = calloc((size_t)n - 1, sizeof(*g->part));
	if (!g->part)
		return err_nomem(e, g->path, (uint64_t)n * sizeof(*g->part));
	for (int i = 1; i < n; i++)
		if (open_part(g, path, i, (int)n, e))
			return -1;
	if (gguf_sort(g, e))
		return -1;
	if (all >= 0 && (uint64_t)all != g->n)
		return err_set(e, ERR_DATA, g->path, "its parts have %zu tensors, key "
			       "split.tensors.count says %lld", g->n, (long long)all);
	return 0;
}
