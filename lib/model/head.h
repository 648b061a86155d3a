/* SPDX-License-Identifier: Apache-2.0 */
/*
 * head.h - what follows the blocks: final norm, projection, head
 *
 * y = project_out(norm(x)), as far as the model has them; logits = head y (+ bias).
 */
#ifndef QP_HEAD_H
#define QP_HEAD_H

#include "lib/compute/backend.h"
#include "lib/model/ends.h"

struct head;

/* Pack what n holds for the device; the head may be the embedding.  The items stay as they are. */
int head_load(struct head **h, const struct model *m, struct backend *be, struct ends *n,
	      struct err *e) MUST_USE;
void head_free(struct head *h);

/*
 * nll[i] = -log softmax(logits(x_i))[target_i], natural log, f32 logits, f64 sum, for n rows of
 * x [n, hidden]; target < 0: 0, and no logits are made for the row.  Logits are made in slices of
 * rows.
 */
int head_nll(struct head *h, const float *x, size_t n, const int32_t *target, double *nll,
	     struct err *e) MUST_USE;
/* top[i]: target_i, a token of the vocabulary, is the most likely one (the first of equals). */
int head_top(struct head *h, const float *x, size_t n, const int32_t *target, bool *top,
	     struct err *e) MUST_USE;
/* logits [n, vocab] */
int head_logits(struct head *h, const float *x, size_t n, float *logits, struct err *e) MUST_USE;
/* y [n, head_width], what the head reads; y may be x if it is no wider. */
int head_norm(struct head *h, const float *x, size_t n, float *y, struct err *e) MUST_USE;
size_t head_width(const struct head *h);

#endif
