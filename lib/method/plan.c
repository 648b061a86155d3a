/* SPDX-License-Identifier: Apache-2.0 */
/*
 * plan.c - plans read, held to a model, and written (plan.h)
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/hash.h"
#include "lib/data/slurp.h"
#include "lib/method/plan.h"

#define MAX_BYTES ((size_t)64 << 20)

static const char magic[] = "# quantpipe plan ";

void plan_shapes(const struct model *m, char out[PLAN_SHAPES])
{
	struct linear_row row;
	struct buf text = { 0 };

	for (long i = 0; i < m->cfg.layers; i++)
		for (size_t n = 0; model_linear(m, i, n, &row); n++) {
			char name[256];
			int64_t shape[2];

			model_tensor_name(m, row.weight, i, name);
			model_shape(m, row.weight, shape);
			buf_printf(&text, "%s %" PRId64 " %" PRId64 "\n", name, shape[0], shape[1]);
		}
	snprintf(out, PLAN_SHAPES, "xxh64:%016" PRIx64, hash64(text.p, text.n));
	buf_release(&text);
}

void plan_release(struct plan *p)
{
	free(p->rows);
	memset(p, 0, sizeof(*p));
}

static int add_row(struct plan *p, const struct plan_row *row, const char *where, struct err *e)
{
	if (p->n == p->cap) {
		size_t cap = p->cap ? 2 * p->cap : 256;
		struct plan_row *rows = realloc(p->rows, cap * sizeof(*rows));

		if (!rows)
			return err_nomem(e, where, cap * sizeof(*rows));
		p->rows = rows;
		p->cap = cap;
	}
	p->rows[p->n++] = *row;
	return 0;
}

/* A whole number in [min, max], alone in the field. */
static bool number(const char *text, size_t n, long min, long max, long *v)
{
	char copy[24], *end;

	if (n == 0 || n >= sizeof(copy) || !strchr("-0123456789", text[0]))
		return false;
	memcpy(copy, text, n);
	copy[n] = '\0';
	errno = 0;
	*v = strtol(copy, &end, 10);
	return *end == '\0' && !errno && *v >= min && *v <= max;
}

static int read_row(struct plan *p, const char *line, size_t len, const char *where, size_t at,
		    struct err *e)
{
	const char *tab = memchr(line, '\t', len), *bits = tab + 1, *tab2;
	struct plan_row row = { 0 };
	size_t name, rest;
	long v;

	name = tab ? (size_t)(tab - line) : 0;
	if (name == 0 || name >= sizeof(row.name))
		return err_set(e, ERR_DATA, where, "line %zu: expected a tensor's name, a tab, "
			       "bits", at);
	memcpy(row.name, line, name);
	rest = len - name - 1;
	tab2 = memchr(bits, '\t', rest);
	if (!number(bits, tab2 ? (size_t)(tab2 - bits) : rest, 2, 8, &v))
		return err_set(e, ERR_DATA, where, "line %zu: expected 2 to 8 bits", at);
	row.bits = (int)v;
	if (tab2) {
		row.has_group = true;
		if (!number(tab2 + 1, rest - (size_t)(tab2 + 1 - bits), -1, 1 << 24, &row.group))
			return err_set(e, ERR_DATA, where, "line %zu: expected a group, -1 or "
				       "more, after the bits", at);
	}
	return add_row(p, &row, where, e);
}

/* "# quantpipe plan 1", "# shapes ..." or a comment. */
static int read_hash(struct plan *p, const char *line, size_t len, const char *where, size_t at,
		     struct err *e)
{
	static const char shapes[] = "# shapes ";
	const size_t n = sizeof(shapes) - 1;
	long v;

	if (at == 1) {
		if (len < sizeof(magic) || memcmp(line, magic, sizeof(magic) - 1) != 0 ||
		    !number(line + sizeof(magic) - 1, len - sizeof(magic) + 1, 1, 1 << 20, &v))
			return err_set(e, ERR_DATA, where, "no plan: its first line is not "
				       "\"# quantpipe plan 1\"");
		if (v != 1)
			return err_set(e, ERR_VERSION, where, "plan %ld: this version reads plan 1",
				       v);
	} else if (len > n && memcmp(line, shapes, n) == 0) {
		if (len - n >= sizeof(p->shapes))
			return err_set(e, ERR_DATA, where, "line %zu: no fingerprint", at);
		memcpy(p->shapes, line + n, len - n);
		p->shapes[len - n] = '\0';
	}
	return 0;
}

static int by_name(const void *a, const void *b)
{
	const struct plan_row *x = a, *y = b;

	return strcmp(x->name, y->name);
}

static int parse(struct plan *p, const char *text, size_t size, const char *where, struct err *e)
{
	size_t line = 0;

	if (size == 0)
		return err_set(e, ERR_DATA, where, "no plan: it is empty");
	for (size_t at = 0; at < size; ) {
		const char *from = text + at, *end = memchr(from, '\n', size - at);
		size_t len = end ? (size_t)(end - from) : size - at;
		int r = 0;

		line++;
		at += len + 1;
		if (line == 1 || (len > 0 && from[0] == '#'))
			r = read_hash(p, from, len, where, line, e);
		else if (len > 0)
			r = read_row(p, from, len, where, line, e);
		if (r < 0)
			return -1;
	}
	if (p->n == 0)
		return err_set(e, ERR_DATA, where, "a plan without a linear");
	qsort(p->rows, p->n, sizeof(*p->rows), by_name);
	for (size_t i = 1; i < p->n; i++)
		if (strcmp(p->rows[i - 1].name, p->rows[i].name) == 0)
			return err_set(e, ERR_DATA, where, "%s stands there twice",
				       p->rows[i].name);
	return 0;
}

int plan_read(struct plan *p, const char *path, struct err *e)
{
	struct buf text = { 0 };
	int r = -1;

	memset(p, 0, sizeof(*p));
	if (slurp(&text, path, MAX_BYTES, e) == 0)
		r = parse(p, text.p, text.n, path, e);
	buf_release(&text);
	if (r < 0)
		plan_release(p);
	return r;
}

const struct plan_row *plan_find(const struct plan *p, const char *name)
{
	size_t lo = 0, hi = p->n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		int c = strcmp(name, p->rows[mid].name);

		if (c == 0)
			return &p->rows[mid];
		if (c < 0)
			hi = mid;
		else
			lo = mid + 1;
	}
	return NULL;
}

/* Is it the weight of a linear that may be quantized? */
static bool is_linear(const struct model *m, const char *name)
{
	struct linear_row row;
	long layer;
	enum slot s = model_slot(m, name, &layer);

	if (s == SLOT_NONE || layer < 0)
		return false;
	for (size_t n = 0; model_linear(m, layer, n, &row); n++)
		if (row.weight == s)
			return !row.keep;
	return false;
}

int plan_check(const struct plan *p, const struct model *m, struct err *e)
{
	char shapes[PLAN_SHAPES];

	plan_shapes(m, shapes);
	if (p->shapes[0] && strcmp(p->shapes, shapes) != 0)
		return err_set(e, ERR_DATA, "--plan", "made for a model of other shapes (%s, this "
			       "one's are %s)", p->shapes, shapes);
	for (size_t i = 0; i < p->n; i++)
		if (!is_linear(m, p->rows[i].name))
			return err_set(e, ERR_DATA, "--plan", "%s is no linear of this model that "
				       "could be quantized", p->rows[i].name);
	return 0;
}

void plan_put_head(struct buf *out, const struct model *m)
{
	char shapes[PLAN_SHAPES];

	plan_shapes(m, shapes);
	buf_printf(out, "%s1\n# shapes %s\n", magic, shapes);
}

void plan_put_row(struct buf *out, const struct plan_row *row)
{
	buf_printf(out, "%s\t%d", row->name, row->bits);
	if (row->has_group)
		buf_printf(out, "\t%ld", row->group);
	buf_byte(out, '\n');
}
