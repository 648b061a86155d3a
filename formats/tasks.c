/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tasks.c - lines of a task file, ready queries, and which template makes the others
 */
#include "formats/tasks.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/csv.h"
#include "formats/file.h"
#include "formats/tasks_impl.h"
#include "lib/data/pystr.h"
#include "lib/data/slurp.h"
#include "lib/data/value.h"

#define MAX_FILE ((size_t)1 << 30)

int tasks_file_name(struct tasks_file *f, const char *arg, struct err *e)
{
	const char *equal = strchr(arg, '='), *slash = strchr(arg, '/'), *base;
	size_t n;

	if (equal && (!slash || equal < slash)) {
		base = arg;
		n = (size_t)(equal - arg);
		f->path = equal + 1;
	} else {
		f->path = arg;
		base = file_base(arg);
		n = strcspn(base, ".");
	}
	if (n == 0 || n >= sizeof(f->name))
		return err_set(e, ERR_USAGE, "--task", "expected NAME=FILE, a name of 1 to %zu "
			       "bytes, got '%s'", sizeof(f->name) - 1, arg);
	snprintf(f->name, sizeof(f->name), "%.*s", (int)n, base);
	return 0;
}

int tasks_unescape(char *text, struct err *e)
{
	static const char code[] = "nt\\", stands[] = "\n\t\\";
	char *to = text;

	for (const char *p = text; *p; p++) {
		const char *at = p[0] == '\\' && p[1] ? strchr(code, p[1]) : NULL;

		if (p[0] == '\\' && !at)
			return err_set(e, ERR_USAGE, "--delimiter",
				       "expected \\n, \\t or \\\\, got '%s'", p);
		*to++ = at ? stands[at - code] : *p;
		p += at != NULL;
	}
	*to = '\0';
	for (size_t at = 0, n = strlen(text), len; at < n; at += len) {
		len = utf8_char(text + at, n - at);
		if (len == 0)
			return err_set(e, ERR_USAGE, "--delimiter", "not UTF-8: byte 0x%02x at "
				       "offset %zu", (unsigned)(unsigned char)text[at], at);
	}
	return 0;
}

/* ---- fields -------------------------------------------------------------------------- */

int maker_fail(const struct maker *m, const char *fmt, ...)
{
	char what[256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	return err_set(m->e, ERR_DATA, m->where, "%s", what);
}

static const struct json *look(const struct maker *m, const char *names)
{
	char name[64];

	while (*names) {
		const size_t n = strcspn(names, "|");
		const struct json *v;

		snprintf(name, sizeof(name), "%.*s", (int)n, names);
		v = json_get(m->line, name);
		if (v)
			return v;
		names += n + (names[n] == '|');
	}
	return NULL;
}

const struct json *maker_field(const struct maker *m, const char *names)
{
	const struct json *v = look(m, names);

	if (!v)
		maker_fail(m, "no field '%.*s'", (int)strcspn(names, "|"), names);
	return v;
}

const char *maker_text(const struct maker *m, const char *names, size_t *n)
{
	const char *s = json_str(look(m, names), n);

	if (!s)
		maker_fail(m, "no field '%.*s' that is a string", (int)strcspn(names, "|"), names);
	return s;
}

int maker_gold(struct maker *m, const char *names, int64_t base)
{
	const struct json *v = maker_field(m, names);
	const int name = (int)strcspn(names, "|");
	const char *s = json_str(v, NULL);
	int64_t gold;
	char *end;

	if (!v)
		return -1;
	gold = json_int(v, INT64_MIN);
	if (s) {
		gold = strtoll(s, &end, 10);
		if (end == s || end[pystr_leading(end, strlen(end))])
			gold = INT64_MIN;
	}
	if (gold == INT64_MIN)
		return maker_fail(m, "field '%.*s' is not a whole number", name, names);
	if (gold < base || gold - base >= (int64_t)m->n)
		return maker_fail(m, "%.*s is %lld, but there are the choices %lld to %lld", name,
				  names, (long long)gold, (long long)base,
				  (long long)(base + (int64_t)m->n - 1));
	m->gold = (size_t)(gold - base);
	return 0;
}

int maker_choice(struct maker *m, size_t i, const char *s, size_t n)
{
	struct buf *b = m->kind == TASK_SCHEMA ? m->context : m->continuation;

	if (i >= TASK_MAX_CHOICES)
		return maker_fail(m, "more than %d choices", TASK_MAX_CHOICES);
	buf_clear(&b[i]);
	buf_add(&b[i], s, n);
	m->n = i + 1;
	return 0;
}

/* ---- ready queries ------------------------------------------------------------------- */

/* The strings of an array become the choices. */
static int take_choices(struct maker *m, const char *name)
{
	const struct json *list = maker_field(m, name);

	if (!list)
		return -1;
	if (json_type_of(list) != JSON_ARRAY)
		return maker_fail(m, "field '%s' is not a list", name);
	if (json_len(list) == 0)
		return maker_fail(m, "'%s' is empty", name);
	for (size_t i = 0; i < json_len(list); i++) {
		size_t n = 0;
		const char *s = json_str(json_at(list, i), &n);

		if (!s || n == 0)
			return maker_fail(m, "element %zu of '%s' is %s", i, name,
					  s ? "empty" : "not a string");
		if (maker_choice(m, i, s, n) < 0)
			return -1;
	}
	return 0;
}

static int ready_choice(struct maker *m)
{
	size_t n;
	const char *query = maker_text(m, "query", &n);

	m->kind = TASK_CHOICE;
	if (!query || take_choices(m, "choices") < 0)
		return -1;
	buf_add(&m->context[0], query, n);
	return maker_gold(m, "gold", 0);
}

static int ready_schema(struct maker *m)
{
	size_t n;
	const char *rest = maker_text(m, "continuation", &n);

	m->kind = TASK_SCHEMA;
	if (!rest || take_choices(m, "context_options") < 0)
		return -1;
	buf_add(&m->continuation[0], rest, n);
	return maker_gold(m, "gold", 0);
}

static int ready_cloze(struct maker *m)
{
	size_t n, rest_n;
	const char *context = maker_text(m, "context", &n);
	const char *rest = context ? maker_text(m, "continuation", &rest_n) : NULL;

	if (!rest)
		return -1;
	m->kind = TASK_CLOZE;
	m->n = 1;
	buf_add(&m->context[0], context, n);
	buf_add(&m->continuation[0], rest, rest_n);
	return 0;
}

static int (*ready(const struct maker *m))(struct maker *)
{
	if (json_get(m->line, "query"))
		return ready_choice;
	if (json_get(m->line, "context_options"))
		return ready_schema;
	return json_get(m->line, "continuation") ? ready_cloze : NULL;
}

/* ---- lines --------------------------------------------------------------------------- */

struct reader {
	struct tasks *t;
	const struct tasks_file *f;
	const struct template *template;
	struct maker m;
	size_t done;
	struct err *e;
};

static int unknown(struct reader *r)
{
	struct buf names = { 0 };

	template_names(&names);
	err_set(r->e, ERR_USAGE, "--task", "'%s' has no template, and %s is no ready query; "
		"templates are %s", r->f->name, r->m.where, buf_str(&names));
	buf_release(&names);
	return -1;
}

static struct task_text text_of(const struct buf *b)
{
	return (struct task_text){ b->p ? b->p : "", b->n };
}

static int add(struct reader *r)
{
	struct maker *m = &r->m;
	const bool schema = m->kind == TASK_SCHEMA;
	const size_t joint = strlen(m->delimiter);
	struct task_query q = { .kind = m->kind, .n = m->n, .gold = m->gold };

	for (size_t i = 0; i < m->n; i++) {
		struct buf *context = &m->context[schema ? i : 0];
		struct buf *rest = &m->continuation[schema ? 0 : i];

		if (schema || i == 0)
			buf_puts(context, m->delimiter);
		if (buf_failed(context, m->where, r->e) < 0 ||
		    buf_failed(rest, m->where, r->e) < 0)
			return -1;
		q.context[i] = text_of(context);
		q.continuation[i] = text_of(rest);
		q.choice[i] = text_of(schema ? context : rest);
		q.choice[i].n -= schema ? joint : 0;
		if (pystr_leading(rest->n > 0 ? rest->p : "", rest->n) == rest->n)
			return m->n == 1 || schema ? maker_fail(m, "the continuation is empty") :
			       maker_fail(m, "choice %zu is empty", i);
	}
	if (tasks_add(r->t, &q, r->e) < 0) {
		memcpy(r->e->where, m->where, sizeof(r->e->where));
		return -1;
	}
	r->done++;
	return 0;
}

static int one_line(struct reader *r, const char *s, size_t n, size_t line)
{
	struct maker *m = &r->m;
	struct json_doc *d;
	int (*make)(struct maker *);
	int ret;

	snprintf(m->where, sizeof(m->where), "%.200s: line %zu", r->f->path, line);
	if (json_parse_line(&d, s, n, m->where, r->e) < 0)
		return -1;
	m->line = json_root(d);
	m->n = m->gold = 0;
	buf_clear(&m->context[0]);
	buf_clear(&m->continuation[0]);
	make = json_type_of(m->line) == JSON_OBJECT ? ready(m) : NULL;
	m->delimiter = make && r->template && r->template->delimiter ? r->template->delimiter : " ";
	if (r->f->delimiter)
		m->delimiter = r->f->delimiter;
	if (json_type_of(m->line) != JSON_OBJECT)
		ret = err_set(r->e, ERR_DATA, m->where, "not a JSON object");
	else if (!make && !r->template)
		ret = unknown(r);
	else
		ret = make ? make(m) : r->template->make(m);
	if (ret == 0)
		ret = add(r);
	json_free(d);
	return ret;
}

static bool full(const struct reader *r)
{
	return r->f->limit > 0 && r->done >= (size_t)r->f->limit;
}

static int read_lines(struct reader *r, const struct buf *text)
{
	size_t line = 1, n;

	for (size_t i = 0; i < text->n && !full(r); i += n + 1, line++) {
		const char *end = memchr(text->p + i, '\n', text->n - i);

		n = end ? (size_t)(end - text->p) - i : text->n - i;
		if (pystr_leading(text->p + i, n) < n &&
		    one_line(r, text->p + i, n, line) < 0)
			return -1;
	}
	return 0;
}

static int read_csv(struct reader *r, const struct buf *text)
{
	struct buf row = { 0 };
	struct csv c;
	int got;

	if (csv_open(&c, text->p ? text->p : "", text->n, r->f->path, r->e) < 0)
		return -1;
	while ((got = full(r) ? 0 : csv_next(&c, &row, r->f->path, r->e)) > 0)
		if (one_line(r, row.p, row.n, c.line) < 0) {
			got = -1;
			break;
		}
	csv_close(&c);
	buf_release(&row);
	return got;
}

int tasks_read(struct tasks *t, const struct tasks_file *f, struct err *e)
{
	const size_t n = strlen(f->path);
	struct buf text = { 0 };
	struct reader *r;
	int ret;

	r = calloc(1, sizeof(*r));
	if (!r)
		return err_nomem(e, f->path, sizeof(*r));
	r->t = t;
	r->f = f;
	r->e = r->m.e = e;
	r->template = template_find(f->name);
	ret = tasks_begin(t, f->name, e);
	if (ret == 0)
		ret = slurp(&text, f->path, MAX_FILE, e);
	if (ret == 0)
		ret = n > 4 && strcmp(f->path + n - 4, ".csv") == 0 ? read_csv(r, &text) :
								     read_lines(r, &text);
	if (ret == 0 && r->done == 0)
		ret = err_set(e, ERR_DATA, f->path, "no samples");
	for (size_t i = 0; i < TASK_MAX_CHOICES; i++) {
		buf_release(&r->m.context[i]);
		buf_release(&r->m.continuation[i]);
	}
	buf_release(&text);
	free(r);
	return ret;
}

int tasks_read_all(struct tasks *t, struct tasks_file *f, size_t n, long limit,
		   const struct tokenizer *tok, const struct model *m, struct err *e)
{
	if (tok == NULL)
		return err_set(e, ERR_DATA, "model", "carries no tokenizer");
	t->tok = tok;
	t->model = m;
	if (t->ctx > m->cfg.max_positions)
		return err_set(e, ERR_DATA, "--ctx", "%ld, but the model has %ld positions",
			       t->ctx, m->cfg.max_positions);
	for (size_t i = 0; i < n; i++) {
		f[i].limit = limit;
		if (tasks_read(t, &f[i], e) < 0)
			return -1;
	}
	return tasks_layout(t, e);
}
