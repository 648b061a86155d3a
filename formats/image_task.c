/* SPDX-License-Identifier: Apache-2.0 */
/*
 * image_task.c - a labelled set of images, carried through a classifier and scored
 */
#include "formats/image_task.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/file.h"

#define BATCH 256 /* images whose logits are made at once */

int image_task_ready(struct image_task *t, struct carry *c, struct err *e)
{
	const char *paths[] = { t->path };
	const size_t classes = (size_t)c->run.model.cfg.vocab;
	size_t n;

	if (imageset_open(&t->set, &c->image_model, paths, 1, true, e) < 0)
		return -1;
	n = imageset_count(t->set);
	if (t->limit > 0 && (size_t)t->limit < n)
		n = (size_t)t->limit;
	t->label = malloc(n * sizeof(*t->label));
	if (t->label == NULL)
		return err_nomem(e, t->path, n * sizeof(*t->label));
	for (size_t i = 0; i < n; i++) {
		t->label[i] = (int32_t)imageset_label(t->set, i);
		if ((size_t)t->label[i] >= classes)
			return err_set(e, ERR_DATA, imageset_name(t->set, i), "its label is %d; "
				       "the model has %zu classes", (int)t->label[i], classes);
	}
	c->set = t->set;
	c->tokens = n * (size_t)c->run.model.cfg.max_positions;
	return classify_init(&t->result, t->label, n, classes, e);
}

int image_task_score(struct image_task *t, const struct carry *c, struct head *head,
		     struct err *e)
{
	const struct hidden *h = &c->run.hidden;
	const size_t seqlen = c->run.seqlen;
	float *x = malloc(BATCH * h->width * sizeof(*x));
	float *logits = malloc(BATCH * t->result.classes * sizeof(*logits));
	int ret = x != NULL && logits != NULL ? 0 :
		  err_nomem(e, t->path, BATCH * t->result.classes * sizeof(*logits));

	for (size_t i = 0, n; i < t->result.n && ret == 0; i += n) {
		n = t->result.n - i < BATCH ? t->result.n - i : BATCH;
		for (size_t k = 0; k < n; k++)
			memcpy(x + k * h->width, h->x + (i + k) * seqlen * h->width,
			       h->width * sizeof(*x));
		ret = head_logits(head, x, n, logits, e);
		if (ret == 0)
			ret = classify_logits(&t->result, i, n, logits, e);
	}
	free(x);
	free(logits);
	return ret;
}

void image_task_release(struct image_task *t)
{
	imageset_close(t->set);
	free(t->label);
	classify_release(&t->result);
	memset(t, 0, sizeof(*t));
}

/* "a/test.bin" and "a/test/" are test. */
static void name_of(char *name, size_t cap, const char *path)
{
	size_t n = strlen(path);
	char *dot;

	while (n > 1 && path[n - 1] == '/')
		n--;
	snprintf(name, cap, "%.*s", (int)(n < 4096 ? n : 4096), path);
	memmove(name, file_base(name), strlen(file_base(name)) + 1);
	dot = strchr(name + (*name != '\0'), '.');
	if (dot != NULL)
		*dot = '\0';
}

int image_task_report(struct buf *out, const struct image_task *t, enum image_report how,
		      struct err *e)
{
	char name[4097];

	name_of(name, sizeof(name), strcmp(t->path, "-") == 0 ? "images" : t->path);
	if (how == IMAGE_LOG)
		return classify_log(out, &t->result, name, e);
	return how == IMAGE_JSON ? classify_json(out, &t->result, name, e) :
	       classify_table(out, &t->result, name, e);
}
