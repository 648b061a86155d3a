/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tasks_run.h - the rows of tasks through a block, and what came out as text
 */
#ifndef QP_TASKS_RUN_H
#define QP_TASKS_RUN_H

#include "lib/base/buf.h"
#include "lib/model/forward.h"
#include "lib/model/tasks.h"

/* All rows of h, laid out by tasks_layout, through the block that f has loaded; after each piece
 * done(arg, rows). */
int tasks_pass(const struct tasks *t, struct forward *f, struct hidden *h,
	       void (*done)(void *arg, size_t rows), void *arg, struct err *e) MUST_USE;

/* A table for people, one line a task and one for the mean if there are several; or a JSON
 * object {"tasks": {NAME: {...}}, "mean": {...}, ...}. */
int tasks_table(struct buf *out, const struct tasks *t, struct err *e) MUST_USE;
int tasks_json(struct buf *out, const struct tasks *t, struct err *e) MUST_USE;
/* A JSON line for each sample, see the manual of eval-tasks. */
int tasks_log(struct buf *out, const struct tasks *t, struct err *e) MUST_USE;

#endif
