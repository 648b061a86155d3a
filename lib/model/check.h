/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check.h - what a whole stream must be beyond its END and checksums
 *
 * Payloads are the stream reader's concern, but for their numbers.  Of headers are checked
 *     the first record is the stream's header, and the only one
 *     blocks: index 0, 1, 2 ..., not nested, closed by a block-end of the same index
 *     no tensor, statistic or alias twice within one block (or outside the blocks)
 *     the plan, if the header has one: every weight and bias, and every codes, is in it, with
 *     that shape, once; everything in it is there (a weight, codes, or an alias)
 *     a tensor or statistic of the model stands in its block, if the header carries a model that
 *     this version knows
 *     codes have their scale and zero, of shapes that fit
 *     statistics are F32, have tokens, and the shape that their kind asks for
 * and of values, with one payload in memory,
 *     weights, biases, refs, scales and statistics (F64, F32, F16, BF16) are finite
 *     absmax, absmean and the diagonal of a hessian are not negative
 */
#ifndef QP_CHECK_H
#define QP_CHECK_H

#include "lib/base/err.h"

struct check;
struct record;
struct stream_in;

struct check *check_new(struct err *e); /* NULL: ERR_NOMEM */
void check_free(struct check *c);

/* The next record, the current one of in, whose payload is taken if it has values to look at.
 * ERR_DATA naming it. */
int check_record(struct check *c, struct stream_in *in, const struct record *r,
		 struct err *e) MUST_USE;
/* After the last: what is still missing. */
int check_end(struct check *c, struct err *e) MUST_USE;

#endif
