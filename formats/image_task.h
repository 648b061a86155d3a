/* SPDX-License-Identifier: Apache-2.0 */
/*
 * image_task.h - a labelled set of images as a task: carried through a classifier, and scored
 */
#ifndef QP_IMAGE_TASK_H
#define QP_IMAGE_TASK_H

#include "formats/carry.h"
#include "lib/model/classify.h"

struct image_task {
	/* set by the caller */
	const char *path;   /* what imageset_open takes */
	long limit;         /* only so many of its first images; 0: all */
	/* kept here */
	struct imageset *set;
	int32_t *label;     /* [result.n] */
	struct classify result;
};

/* For carry.ready: opens the set, with labels, and gives it to c. */
int image_task_ready(struct image_task *t, struct carry *c, struct err *e) MUST_USE;
/* c has gone through the model: the class tokens' logits, ranked. */
int image_task_score(struct image_task *t, const struct carry *c, struct head *head,
		     struct err *e) MUST_USE;
void image_task_release(struct image_task *t);

/* classify_log, _json and _table under the name of the file or directory, without what follows a
 * dot. */
enum image_report { IMAGE_TABLE, IMAGE_JSON, IMAGE_LOG };
int image_task_report(struct buf *out, const struct image_task *t, enum image_report how,
		      struct err *e) MUST_USE;

#endif
