/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tasks.h - task files: JSON Lines (or CSV) to contexts, continuations and right answers
 *
 * A line is a ready query,
 *     {"query": Q, "choices": [C, ...], "gold": i}                  Q D C_i
 *     {"context_options": [Q, ...], "continuation": C, "gold": i}   Q_i D C
 *     {"context": Q, "continuation": C}                             Q D C
 * or a line of the raw dataset whose template the task's name selects (lm-evaluation-harness's,
 * zero-shot).  D, the delimiter, is one blank, or what llm-foundry puts behind the ready queries
 * of a task of that name.
 */
#ifndef QP_FORMATS_TASKS_H
#define QP_FORMATS_TASKS_H

#include "lib/model/tasks.h"

struct tasks_file {
	char name[64];
	const char *path;
	const char *delimiter; /* NULL: as the task has it */
	long limit;            /* samples, the first ones; 0: all */
};

/*
 * "NAME=PATH" or "PATH" (whose base name without extension is the name) taken apart; path points
 * into arg.  ERR_USAGE for a name that is empty or too long.
 */
int tasks_file_name(struct tasks_file *f, const char *arg, struct err *e) MUST_USE;

/* \n, \t and \\ in a delimiter become, in place, what they stand for.  ERR_USAGE, also
 * for what is not UTF-8. */
int tasks_unescape(char *text, struct err *e) MUST_USE;

/*
 * The samples of f as a new task of t.  A path that ends in ".csv" is CSV, anything else JSON
 * Lines.  ERR_DATA, where "FILE: line N", for a line that is not JSON or not an object, a field
 * that is missing or of the wrong type (named), no choices or blank ones, gold out of range, and
 * what tasks_add refuses; ERR_USAGE for raw lines when no template has the task's name: those
 * known are listed.
 */
int tasks_read(struct tasks *t, const struct tasks_file *f, struct err *e) MUST_USE;

/* All n files for a model that is known, at most limit samples (0: all) of each, laid out.
 * ERR_DATA also if it has no tokenizer, or fewer positions than t->ctx. */
int tasks_read_all(struct tasks *t, struct tasks_file *f, size_t n, long limit,
		   const struct tokenizer *tok, const struct model *m, struct err *e) MUST_USE;

#endif
