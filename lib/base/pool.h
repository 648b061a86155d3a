/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pool.h - one pool of threads that sleep when there is nothing to do
 *
 * The work is cut into tasks by the shape of the data, never by the number of
 * threads, and each task writes its own part of the output; so results do not
 * depend on how many threads ran (BLAS is called with one thread inside tasks).
 *
 * Programs that run side by side, the stages of a pipeline, may share the processors: then a
 * thread other than the caller's takes part in pool_run only while it has a token (share.h) of
 * which there is one a processor.  The caller always works, with a token if there is one.  So N
 * processors and S stages run fewer than N + S threads, where they would run N S.
 */
#ifndef QP_POOL_H
#define QP_POOL_H

#include <stddef.h>

#include "lib/base/err.h"

struct pool;

/* A pool of nthreads >= 1, the calling thread included.  Idle threads sleep on a
 * condition variable; they never spin.  NULL and *e on failure: ERR_NOMEM, or
 * ERR_UNAVAIL when there is memory for a thread and it may not be started. */
struct pool *pool_new(int nthreads, struct err *e);
void pool_free(struct pool *p);
int pool_threads(const struct pool *p);

/* From now on pool_run shares the processors, pool_threads of them, with the process group.
 * ERR_UNAVAIL, ERR_NOMEM: it does not; the pool works on as before. */
int pool_share(struct pool *p, struct err *e) MUST_USE;

/*
 * Run fn(ctx, task, thread) for task = 0 .. ntasks-1 and return when all are done.
 * Tasks are handed out in order, one at a time; thread in [0, pool_threads) tells
 * which scratch to use.  Not reentrant: fn must not call pool_run on the same pool.
 */
void pool_run(struct pool *p, size_t ntasks, void (*fn)(void *ctx, size_t task, int thread),
	      void *ctx);

/* Number of processors this process may use (affinity mask), at least 1. */
int pool_cores(void);

#endif
