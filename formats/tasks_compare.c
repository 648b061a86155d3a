/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tasks_compare.c - paired differences of two logs
 */
#include "formats/tasks_compare.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/json.h"
#include "lib/data/slurp.h"

#define MAX_LOG ((size_t)1 << 30)

enum figure { ACC, NORM, LL, FIGURES };

static const char *const figure_name[] = { "acc", "acc_norm", "ll" };

/* A line of a log. */
struct sample {
	char task[64];
	int64_t number, gold;
	double x[FIGURES]; /* NAN: the task has no such figure */
};

struct log {
	const char *path;
	struct buf text;
	size_t at, line;
	struct sample s;
};

struct sums {
	double a, b, d, d2;
	size_t lost, gained;
};

struct task {
	char name[64];
	size_t n;
	bool has[FIGURES];
	struct sums sum[FIGURES];
};

struct comparison {
	struct log log[2];
	struct task *task;
	size_t n, cap, differ;
};

static int bad(const struct log *l, const char *what, struct err *e)
{
	char where[320];

	snprintf(where, sizeof(where), "%.200s: line %zu", l->path, l->line);
	return err_set(e, ERR_DATA, where, "%s", what);
}

static double figure(const struct json *line, const char *name)
{
	return json_num(json_get(line, name), NAN);
}

static int take(struct log *l, const struct json *line, struct err *e)
{
	const char *task = json_str(json_get(line, "task"), NULL);
	const struct json *ll = json_get(line, "ll");
	struct sample *s = &l->s;

	if (json_get(line, "tasks") != NULL)
		return bad(l, "the summary of eval-tasks --json; its --samples=FILE is wanted", e);
	s->number = json_int(json_get(line, "sample"), -1);
	s->gold = json_int(json_get(line, "gold"), 0);
	s->x[ACC] = figure(line, "acc");
	s->x[NORM] = figure(line, "acc_norm");
	/* of images there is only the label's */
	if (json_type_of(ll) == JSON_ARRAY)
		ll = s->gold < 0 ? NULL : json_at(ll, (size_t)s->gold);
	s->x[LL] = json_num(ll, NAN);
	if (task == NULL || strlen(task) >= sizeof(s->task) || s->number < 0 ||
	    !isfinite(s->x[ACC]) || !isfinite(s->x[LL]))
		return bad(l, "not a sample of eval-tasks: no task, sample, acc, or ll of the "
			   "right continuation", e);
	snprintf(s->task, sizeof(s->task), "%s", task);
	return 0;
}

/* 1: the next line is in l->s; 0: no more. */
static int next(struct log *l, struct err *e)
{
	while (l->at < l->text.n) {
		const char *s = l->text.p + l->at;
		const char *end = memchr(s, '\n', l->text.n - l->at);
		const size_t n = end != NULL ? (size_t)(end - s) : l->text.n - l->at;
		struct json_doc *d;
		char where[320];
		int ret;

		l->at += n + 1;
		l->line++;
		if (n == 0)
			continue;
		snprintf(where, sizeof(where), "%.200s: line %zu", l->path, l->line);
		if (json_parse_line(&d, s, n, where, e) < 0)
			return -1;
		ret = take(l, json_root(d), e);
		json_free(d);
		return ret < 0 ? -1 : 1;
	}
	return 0;
}

static struct task *find(struct comparison *c, const char *name, struct err *e)
{
	struct task *p;

	for (size_t i = c->n; i-- > 0;)
		if (strcmp(c->task[i].name, name) == 0)
			return &c->task[i];
	if (c->n == c->cap) {
		const size_t cap = c->cap == 0 ? 16 : 2 * c->cap;

		p = realloc(c->task, cap * sizeof(*p));
		if (p == NULL) {
			err_nomem(e, "tasks", cap * sizeof(*p));
			return NULL;
		}
		c->task = p;
		c->cap = cap;
	}
	p = &c->task[c->n++];
	memset(p, 0, sizeof(*p));
	memcpy(p->name, name, strlen(name) + 1);
	return p;
}

static int add(struct comparison *c, struct err *e)
{
	const struct sample *a = &c->log[0].s, *b = &c->log[1].s;
	struct task *t;
	bool differ = false;

	if (strcmp(a->task, b->task) != 0 || a->number != b->number || a->gold != b->gold)
		return bad(&c->log[1], "another sample than in the first file: both must be of "
				       "the same tasks", e);
	t = find(c, a->task, e);
	if (t == NULL)
		return -1;
	for (int i = 0; i < FIGURES; i++) {
		const double x = a->x[i], y = b->x[i], d = y - x;
		struct sums *s = &t->sum[i];

		if (isnan(x) != isnan(y) || (t->n > 0 && t->has[i] == isnan(x)))
			return bad(&c->log[1], "other figures than elsewhere", e);
		t->has[i] = !isnan(x);
		if (!t->has[i])
			continue;
		s->a += x;
		s->b += y;
		s->d += d;
		s->d2 += d * d;
		s->lost += d < 0;
		s->gained += d > 0;
		differ = differ || (i != LL && d != 0);
	}
	t->n++;
	c->differ += differ;
	return 0;
}

/* ---- the table ----------------------------------------------------------------------- */

static double error_of(const struct task *t, int i)
{
	const double n = (double)t->n, d = t->sum[i].d;

	return t->n > 1 ? sqrt(fmax(t->sum[i].d2 - d * d / n, 0) / (n - 1) / n) : 0;
}

static void put_task(struct buf *out, int width, const struct task *t)
{
	for (int i = 0; i < FIGURES; i++) {
		const double n = (double)t->n;
		const struct sums *s = &t->sum[i];

		if (t->has[i])
			buf_printf(out, "%-*s %8zu  %-8s %9.4f %9.4f  %+9.4f +-%7.4f %7zu %7zu\n",
				   width, t->name, t->n, figure_name[i], s->a / n, s->b / n,
				   s->d / n, error_of(t, i), s->lost, s->gained);
	}
}

/* Means over tasks; acc_norm takes acc where a task has none. */
static void put_mean(struct buf *out, int width, const struct comparison *c)
{
	const double k = (double)c->n;

	for (int i = 0; i < FIGURES; i++) {
		double a = 0, b = 0, d = 0, var = 0;
		size_t n = 0, lost = 0, gained = 0;
		bool any = false;

		for (size_t j = 0; j < c->n; j++) {
			const struct task *t = &c->task[j];
			const int f = t->has[i] ? i : ACC;
			const double m = (double)t->n;

			any = any || t->has[i];
			a += t->sum[f].a / m / k;
			b += t->sum[f].b / m / k;
			d += t->sum[f].d / m / k;
			var += error_of(t, f) * error_of(t, f) / k / k;
			lost += t->sum[f].lost;
			gained += t->sum[f].gained;
			n += t->n;
		}
		if (any)
			buf_printf(out, "%-*s %8zu  %-8s %9.4f %9.4f  %+9.4f +-%7.4f %7zu %7zu\n",
				   width, "mean", n, figure_name[i], a, b, d, sqrt(var),
				   lost, gained);
	}
}

static void table(struct buf *out, const struct comparison *c)
{
	int width = 4;

	for (size_t i = 0; i < c->n; i++)
		if ((int)strlen(c->task[i].name) > width)
			width = (int)strlen(c->task[i].name);
	buf_printf(out, "%-*s %8s  %-8s %9s %9s  %9s %9s %7s %7s\n", width, "task", "samples",
		   "figure", "first", "second", "change", "", "lost", "gained");
	for (size_t i = 0; i < c->n; i++)
		put_task(out, width, &c->task[i]);
	if (c->n > 1)
		put_mean(out, width, c);
}

int tasks_compare(struct buf *out, size_t *differ, const char *first, const char *second,
		  struct err *e)
{
	struct comparison c = { .log = { { .path = first }, { .path = second } } };
	int got[2] = { 1, 1 }, ret = 0;

	for (int i = 0; i < 2 && ret == 0; i++)
		ret = slurp(&c.log[i].text, c.log[i].path, MAX_LOG, e);
	while (ret == 0 && got[0] > 0) {
		got[0] = next(&c.log[0], e);
		got[1] = got[0] < 0 ? 0 : next(&c.log[1], e);
		if (got[0] < 0 || got[1] < 0)
			ret = -1;
		else if (got[0] != got[1])
			ret = bad(&c.log[got[0] == 0], "one file has more samples than the other",
				  e);
		else if (got[0] > 0)
			ret = add(&c, e);
	}
	if (ret == 0 && c.n == 0)
		ret = err_set(e, ERR_DATA, first, "no samples");
	if (ret == 0) {
		table(out, &c);
		ret = buf_failed(out, "tasks", e);
	}
	*differ = c.differ;
	buf_release(&c.log[0].text);
	buf_release(&c.log[1].text);
	free(c.task);
	return ret;
}
