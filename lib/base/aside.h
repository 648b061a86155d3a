/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aside.h - one thing done by another thread while the caller does something else
 *
 * The thread is started with the first thing and kept for the next.
 */
#ifndef QP_ASIDE_H
#define QP_ASIDE_H

#include "lib/base/err.h"

struct aside;
typedef int aside_fn(void *ctx, struct err *e); /* 0, or -1 and *e */

/* ERR_NOMEM; ERR_UNAVAIL when no thread may be started. */
int aside_new(struct aside **a, struct err *e) MUST_USE;
/* Waits for what is being done. */
void aside_free(struct aside *a);
/* One thing at a time: aside_wait stands between two. */
void aside_start(struct aside *a, aside_fn *fn, void *ctx);
/* It is over: what fn returned, with its *e. */
int aside_wait(struct aside *a, struct err *e) MUST_USE;

#endif
