/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pool.c - threads that sleep on a condition variable between calls of pool_run
 *
 * pool_run publishes a job under the mutex and wakes as many workers as there are tasks for;
 * everybody, the caller included, takes task numbers from one counter.  Then the caller takes
 * back the call of workers that have not woken up yet - on a busy machine that can take longer
 * than the job - and sleeps until the others have reported back, so that no worker can still
 * look at a job when the next is published.
 *
 * With tokens, those that come at the start of a job say how many workers it begins with; the
 * caller asks for more between two of its tasks, for a neighbour may stop computing meanwhile.
 * They are given back when the job is done.  Asking is a system call, so once a millisecond.
 */
#include "lib/base/pool.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "lib/base/err.h"
#include "lib/base/share.h"
#include "lib/base/usage.h"

#define ASK_SECONDS 1e-3

struct worker {
	struct pool *pool;
	pthread_t id;
	pthread_cond_t wake;
	int index;    /* 1 ...: the caller is 0 */
	bool called;  /* there is a job for this worker */
};

struct pool {
	int nthreads; /* with the caller */
	struct worker *workers; /* [nthreads - 1] */
	pthread_mutex_t lock;
	pthread_cond_t done;
	int busy;     /* workers called and not back */
	bool quit;
	struct share *share; /* NULL: not shared */
	double asked; /* for tokens, when */
	/* the job */
	void (*fn)(void *ctx, size_t task, int thread);
	void *ctx;
	size_t ntasks;
	int helpers, wanted; /* workers called for it so far; that it has tasks for */
	atomic_size_t next;
};

static bool take_task(struct pool *p, int thread)
{
	size_t task = atomic_fetch_add_explicit(&p->next, 1, memory_order_relaxed);

	if (task < p->ntasks)
		p->fn(p->ctx, task, thread);
	return task < p->ntasks;
}

static void *work(void *arg)
{
	struct worker *w = arg;
	struct pool *p = w->pool;

	pthread_mutex_lock(&p->lock);
	for (;;) {
		while (!w->called && !p->quit)
			pthread_cond_wait(&w->wake, &p->lock);
		if (!w->called)
			break;
		w->called = false;
		pthread_mutex_unlock(&p->lock);
		while (take_task(p, w->index))
			;
		pthread_mutex_lock(&p->lock);
		if (--p->busy == 0)
			pthread_cond_signal(&p->done);
	}
	pthread_mutex_unlock(&p->lock);
	return NULL;
}

/* Why a thread could not be started: pthread_create says EAGAIN also when there is no memory for
 * its stack. */
static void set_reason(struct err *e, int thread, int nthreads)
{
	pthread_attr_t attr;
	size_t stack = 0;
	void *p;

	if (pthread_attr_init(&attr) == 0) {
		pthread_attr_getstacksize(&attr, &stack);
		pthread_attr_destroy(&attr);
	}
	p = mmap(NULL, stack, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED) {
		err_set(e, ERR_NOMEM, "threads", "out of memory for thread %d of %d", thread,
			nthreads);
		return;
	}
	munmap(p, stack);
	err_set(e, ERR_UNAVAIL, "threads", "cannot start thread %d of %d", thread, nthreads);
}

struct pool *pool_new(int nthreads, struct err *e)
{
	struct pool *p = calloc(1, sizeof(*p));
	struct worker *w = calloc(nthreads > 1 ? (size_t)nthreads - 1 : 1, sizeof(*w));

	if (!p || !w) {
		free(p);
		free(w);
		err_nomem(e, "threads", sizeof(*p) + (size_t)nthreads * sizeof(*w));
		return NULL;
	}
	p->workers = w;
	p->nthreads = 1;
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->done, NULL);
	for (int i = 1; i < nthreads; i++) {
		w = &p->workers[i - 1];
		w->pool = p;
		w->index = i;
		pthread_cond_init(&w->wake, NULL);
		if (pthread_create(&w->id, NULL, work, w) != 0) {
			pthread_cond_destroy(&w->wake);
			set_reason(e, i + 1, nthreads);
			pool_free(p);
			return NULL;
		}
		p->nthreads++;
	}
	return p;
}

void pool_free(struct pool *p)
{
	if (!p)
		return;
	pthread_mutex_lock(&p->lock);
	p->quit = true;
	for (int i = 0; i < p->nthreads - 1; i++)
		pthread_cond_signal(&p->workers[i].wake);
	pthread_mutex_unlock(&p->lock);
	for (int i = 0; i < p->nthreads - 1; i++) {
		pthread_join(p->workers[i].id, NULL);
		pthread_cond_destroy(&p->workers[i].wake);
	}
	pthread_cond_destroy(&p->done);
	pthread_mutex_destroy(&p->lock);
	if (p->share)
		share_close(p->share);
	free(p->share);
	free(p->workers);
	free(p);
}

int pool_threads(const struct pool *p)
{
	return p->nthreads;
}

int pool_share(struct pool *p, struct err *e)
{
	struct share *s;

	if (p->share || p->nthreads == 1)
		return 0;
	s = malloc(sizeof(*s));
	if (!s)
		return err_nomem(e, "threads", sizeof(*s));
	if (share_open(s, p->nthreads < SHARE_MAX ? p->nthreads : SHARE_MAX, e) < 0) {
		free(s);
		return -1;
	}
	p->share = s;
	return 0;
}

/* How many workers may be at the job now: a token goes to the caller before one goes to them. */
static int allowed(struct pool *p)
{
	if (!p->share)
		return p->wanted;
	share_take(p->share, p->wanted + 1 - p->share->held);
	p->asked = usage_seconds();
	return p->share->held > 0 ? p->share->held - 1 : 0;
}

/* The lock is held. */
static void call(struct pool *p, int helpers)
{
	for (; p->helpers < helpers; p->helpers++) {
		p->workers[p->helpers].called = true;
		p->busy++;
		pthread_cond_signal(&p->workers[p->helpers].wake);
	}
}

/* The caller's part of the job. */
static void work_along(struct pool *p)
{
	while (take_task(p, 0)) {
		if (p->helpers == p->wanted || atomic_load(&p->next) >= p->ntasks ||
		    usage_seconds() - p->asked < ASK_SECONDS)
			continue;

		int helpers = allowed(p);

		pthread_mutex_lock(&p->lock);
		call(p, helpers);
		pthread_mutex_unlock(&p->lock);
	}
}

void pool_run(struct pool *p, size_t ntasks, void (*fn)(void *ctx, size_t task, int thread),
	      void *ctx)
{
	size_t helpers = (size_t)p->nthreads - 1;

	if (ntasks == 0)
		return;
	if (helpers > ntasks - 1)
		helpers = ntasks - 1;
	if (helpers == 0) {
		for (size_t t = 0; t < ntasks; t++)
			fn(ctx, t, 0);
		return;
	}
	p->wanted = (int)helpers;
	helpers = (size_t)allowed(p);
	pthread_mutex_lock(&p->lock);
	p->fn = fn;
	p->ctx = ctx;
	p->ntasks = ntasks;
	atomic_store_explicit(&p->next, 0, memory_order_relaxed);
	p->helpers = p->busy = 0;
	call(p, (int)helpers);
	pthread_mutex_unlock(&p->lock);

	work_along(p);

	pthread_mutex_lock(&p->lock);
	for (int i = 0; i < p->helpers; i++)
		if (p->workers[i].called) { /* not awake yet: nothing is left to wake for */
			p->workers[i].called = false;
			p->busy--;
		}
	while (p->busy > 0)
		pthread_cond_wait(&p->done, &p->lock);
	pthread_mutex_unlock(&p->lock);
	if (p->share)
		share_give(p->share);
}

int pool_cores(void)
{
	cpu_set_t set;

	if (sched_getaffinity(0, sizeof(set), &set) != 0)
		return 1;
	int n = CPU_COUNT(&set);
	return n > 0 ? n : 1;
}
