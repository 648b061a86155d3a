/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tasks_impl.h - between tasks.c, which reads lines, and tasks_templates.c, which makes prompts
 */
#ifndef QP_FORMATS_TASKS_IMPL_H
#define QP_FORMATS_TASKS_IMPL_H

#include "formats/json.h"
#include "formats/tasks.h"
#include "lib/base/buf.h"

/* A sample in the making. */
struct maker {
	const struct json *line;
	const char *delimiter;
	char where[320];       /* "FILE: line N" */
	enum task_kind kind;
	size_t n, gold;
	/* [n]; of those that are the same for all only the first */
	struct buf context[TASK_MAX_CHOICES], continuation[TASK_MAX_CHOICES];
	struct err *e;
};

struct template {
	const char *name;
	const char *delimiter; /* of ready queries */
	int (*make)(struct maker *m);
};

/* NULL: no such template. */
const struct template *template_find(const char *name);
/* "arc_challenge, arc_easy, ..." appended to out. */
void template_names(struct buf *out);

/* A field of the line: the first of "a|b" that is there.  Each names it and fails (-1, NULL) when
 * it is missing or of another type. */
const struct json *maker_field(const struct maker *m, const char *names);
const char *maker_text(const struct maker *m, const char *names, size_t *n);
/* An integer, as such or in a string, minus base, is the answer: 0 .. n - 1. */
int maker_gold(struct maker *m, const char *names, int64_t base);
/* Choice i, or context i, is s [n]; ERR_DATA beyond TASK_MAX_CHOICES. */
int maker_choice(struct maker *m, size_t i, const char *s, size_t n);
/* Wrong in some other way. */
int maker_fail(const struct maker *m, const char *fmt, ...) QP_PRINTF(2, 3);

#endif
