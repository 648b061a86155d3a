/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sum.h - the statistics of several streams of one model added up
 *
 * Shards: the same model and the same weights, recorded over different calibration sets.  With
 * T_s the tokens of shard s and T their sum:
 *     hessian  sum_s H_s (f64, rounded once)         absmean  sum_s T_s m_s / T
 *     absmax   max_s            max, min likewise    samples  rows of shard after shard
 *     tokens   T
 * and so the result is that of one run over all the sets, up to the rounding of F32.  Calibration
 * sets are put one behind the other, which needs windows of one length; a key of theirs that
 * differs (a seed) is dropped, the fingerprint made anew.  A set that two streams share would be
 * counted twice and is refused.  Everything else must be equal.
 */
#ifndef QP_SUM_H
#define QP_SUM_H

#include <stdbool.h>

#include "lib/data/stream.h"

struct sum;

/* n >= 1 streams, in[] and names[] (for messages) stay the caller's.  NULL: ERR_NOMEM. */
struct sum *sum_new(struct stream_in *const *in, const char *const *names, int n, struct err *e);
void sum_free(struct sum *s);

/* Read the headers of all streams: *head is the first's.  ERR_DATA when one carries no model, or
 * they are of different models, or made in different ways (the backend may differ). */
int sum_head(struct sum *s, struct record *head, struct err *e) MUST_USE;

/* The next record of all streams, added up or equal, to out.  1; 0: all have ended; -1: ERR_DATA
 * naming the record in which a stream differs from the first, and that stream; or there was no
 * statistic in them. */
int sum_next(struct sum *s, struct stream_out *out, struct err *e) MUST_USE;

#endif
