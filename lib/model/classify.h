/* SPDX-License-Identifier: Apache-2.0 */
/*
 * classify.h - how often a classifier's label is the first, or among the first five, of its classes
 *
 * The rank of a label is how many classes come before it: those with a larger logit and, of equal
 * ones, those with a smaller number.  top-1: rank 0, which is that argmax (the first of equals) is
 * the label; top-5: rank below 5.  Standard errors are sqrt(p (1 - p) / n).
 */
#ifndef QP_CLASSIFY_H
#define QP_CLASSIFY_H

#include <stddef.h>
#include <stdint.h>

#include "lib/base/buf.h"

struct head;
struct hidden;

#define CLASSIFY_TOP 5

struct classify {
	size_t n, classes;
	const int32_t *label;  /* [n], of the caller */
	int32_t *rank;         /* [n] */
	int32_t *first;        /* [n, CLASSIFY_TOP] the first classes, -1 where there are fewer */
	double *nll;           /* [n] -log softmax(logits)[label] */
};

/* Memory for n images; label [n] must outlive it and lie in [0, classes). */
int classify_init(struct classify *c, const int32_t *label, size_t n, size_t classes,
		  struct err *e) MUST_USE;
void classify_release(struct classify *c);

/* Images [begin, begin + count) have these logits [count, classes].  ERR_DATA, naming the image,
 * for one that is not finite. */
int classify_logits(struct classify *c, size_t begin, size_t count, const float *logits,
		    struct err *e) MUST_USE;

struct classify_result {
	size_t n, right;      /* right: top-1 */
	double top1, top1_error, top5, top5_error, nll;
};

void classify_result(struct classify_result *r, const struct classify *c);

/* A table for people; the JSON object of eval-tasks, {"tasks": {name: ...}, ...}; and a line for
 * each image, as qp-cmp --tasks wants it. */
int classify_table(struct buf *out, const struct classify *c, const char *name,
		   struct err *e) MUST_USE;
int classify_json(struct buf *out, const struct classify *c, const char *name,
		  struct err *e) MUST_USE;
int classify_log(struct buf *out, const struct classify *c, const char *name,
		 struct err *e) MUST_USE;

#endif
