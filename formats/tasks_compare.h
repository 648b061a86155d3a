/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tasks_compare.h - two logs of eval-tasks --samples, sample by sample
 *
 * For a figure x of each sample (acc, acc_norm: 0 or 1; ll: the log-likelihood of the right
 * continuation), d = x in the second - x in the first: mean of d, and its standard error
 * sqrt(sum (d - mean)^2 / (n - 1) / n).  What samples have in common, their difficulty, is gone
 * from it.
 */
#ifndef QP_TASKS_COMPARE_H
#define QP_TASKS_COMPARE_H

#include "lib/base/buf.h"

/*
 * A table of tasks, and of their mean if there are several, appended to out; *differ: samples of
 * which an answer is right in one and wrong in the other.  ERR_DATA, where "FILE: line N", for a
 * line that is not of such a log, or not of the same sample as the other file's.
 */
int tasks_compare(struct buf *out, size_t *differ, const char *first, const char *second,
		  struct err *e) MUST_USE;

#endif
