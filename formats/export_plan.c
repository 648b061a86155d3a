/* SPDX-License-Identifier: Apache-2.0 */
/*
 * export_plan.c - the types that the tensors of the checkpoint had
 */
#include "formats/export_plan.h"

#include <stdlib.h>
#include <string.h>

#include "lib/data/mp.h"
#include "lib/data/stream.h"

struct export_planned {
	char *name;
	enum dtype dtype;
};

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct export_planned *)a)->name,
		      ((const struct export_planned *)b)->name);
}

static int take(struct export_plan *p, const struct mp *v, struct err *e)
{
	struct export_planned *t = &p->v[p->n];
	const char *name, *type;
	size_t n, k;
	char word[16];

	if (!mp_str(mp_at(v, 0), &name, &n) || !mp_str(mp_at(v, 1), &type, &k) ||
	    k >= sizeof(word))
		return err_set(e, ERR_DATA, "plan", "is not a list of [name, dtype, [shape]]");
	memcpy(word, type, k);
	word[k] = '\0';
	t->dtype = dtype_from_name(word);
	t->name = strndup(name, n);
	if (!t->name)
		return err_nomem(e, "plan", n);
	p->n++;
	return 0;
}

int export_plan_read(struct export_plan *p, const struct record *head, struct err *e)
{
	struct mp_doc *d;
	const void *raw;
	size_t n;
	int ret = 0;

	memset(p, 0, sizeof(*p));
	if (!record_get_raw(head, "plan", &raw, &n))
		return 0;
	if (mp_parse(&d, raw, n, "plan", e))
		return -1;
	n = mp_len(mp_root(d));
	p->v = calloc(n + 1, sizeof(*p->v));
	if (!p->v)
		ret = err_nomem(e, "plan", n * sizeof(*p->v));
	for (size_t i = 0; !ret && i < n; i++)
		ret = take(p, mp_at(mp_root(d), i), e);
	if (!ret)
		qsort(p->v, p->n, sizeof(*p->v), by_name);
	mp_free(d);
	return ret;
}

void export_plan_release(struct export_plan *p)
{
	for (size_t i = 0; i < p->n; i++)
		free(p->v[i].name);
	free(p->v);
	memset(p, 0, sizeof(*p));
}

enum dtype export_plan_dtype(const struct export_plan *p, const char *name)
{
	const struct export_planned key = { .name = (char *)(uintptr_t)name };
	const struct export_planned *t = p->n ?
		bsearch(&key, p->v, p->n, sizeof(*p->v), by_name) : NULL;

	return t ? t->dtype : DT_NONE;
}
