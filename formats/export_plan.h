/* SPDX-License-Identifier: Apache-2.0 */
/*
 * export_plan.h - the types that the tensors of the checkpoint had: a stream's key "plan"
 */
#ifndef QP_EXPORT_PLAN_H
#define QP_EXPORT_PLAN_H

#include <stddef.h>

#include "lib/base/err.h"
#include "lib/data/dtype.h"

struct record;
struct export_planned;

/* Zero-initialised: empty. */
struct export_plan {
	struct export_planned *v; /* sorted by name */
	size_t n;
};

/* Of a stream's head; one without a plan has an empty one. */
int export_plan_read(struct export_plan *p, const struct record *head, struct err *e) MUST_USE;
void export_plan_release(struct export_plan *p);
/* DT_NONE: not in the plan, or of a type that is not known. */
enum dtype export_plan_dtype(const struct export_plan *p, const char *name);

#endif
