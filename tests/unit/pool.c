/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pool.c - every task runs once, whatever the number of threads, and idle threads cost nothing
 */
#include "lib/base/pool.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "lib/base/err.h"
#include "tests/unit/tap.h"

enum { TASKS = 1000 };

struct job {
	atomic_int runs[TASKS];
	double out[TASKS];
	int nthreads;
	atomic_int bad_thread;
	atomic_int seen[8];
};

static void task(void *ctx, size_t i, int thread)
{
	struct job *j = ctx;
	double s = 0;

	if (thread < 0 || thread >= j->nthreads)
		j->bad_thread++;
	else
		j->seen[thread]++;
	j->runs[i]++;
	for (int k = 1; k < 200; k++)
		s += 1.0 / ((double)i + k);
	j->out[i] = s;
}

static void once_each(int nthreads, double *first)
{
	struct err e;
	struct pool *p = pool_new(nthreads, &e);
	struct job *j = calloc(1, sizeof(*j));
	int wrong = 0;

	if (!ok(p && j, "a pool of %d", nthreads))
		return;
	ok(pool_threads(p) == nthreads, "says %d", nthreads);
	j->nthreads = nthreads;
	for (size_t n = 0; n <= TASKS; n = n < 20 ? n + 1 : n * 3 / 2) {
		for (int i = 0; i < TASKS; i++)
			j->runs[i] = 0;
		pool_run(p, n, task, j);
		for (size_t i = 0; i < TASKS; i++)
			wrong += j->runs[i] != (i < n);
	}
	ok(wrong == 0, "%d threads: each task once, none beyond", nthreads);
	ok(j->bad_thread == 0, "%d threads: thread numbers in range", nthreads);
	pool_run(p, TASKS, task, j);
	if (first[0] == 0)
		memcpy(first, j->out, sizeof(j->out));
	ok(memcmp(first, j->out, sizeof(j->out)) == 0, "%d threads: the same results", nthreads);
	pool_free(p);
	free(j);
}

/* In quick succession, where a wake-up could be lost: the alarm in main would end the test. */
static void many_rounds(void)
{
	struct err e;
	struct pool *p = pool_new(4, &e);
	struct job *j = calloc(1, sizeof(*j));
	int wrong = 0;

	if (!ok(p && j, "a pool of 4"))
		return;
	j->nthreads = 4;
	for (int round = 1; round <= 20000; round++)
		pool_run(p, 1 + (size_t)round % 5, task, j);
	for (int i = 0; i < 5; i++)
		wrong += j->runs[i] != 20000 - 4000 * i;
	ok(wrong == 0, "20000 short rounds");
	pool_free(p);
	free(j);
}

static double cpu_seconds(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return (double)u.ru_utime.tv_sec + (double)u.ru_stime.tv_sec +
	       1e-6 * (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

static void idle(void)
{
	struct err e;
	struct pool *p = pool_new(8, &e);
	struct job *j = calloc(1, sizeof(*j));
	double before;

	if (!ok(p && j, "a pool of 8"))
		return;
	j->nthreads = 8;
	pool_run(p, TASKS, task, j);
	before = cpu_seconds();
	nanosleep(&(struct timespec){ .tv_nsec = 200000000 }, NULL);
	double used = cpu_seconds() - before;
	ok(used < 0.05, "idle threads sleep: %.3f s of CPU in 0.2 s", used);
	pool_free(p);
	free(j);
}

int main(void)
{
	double first[TASKS] = { 0 };

	alarm(120);
	for (int n = 1; n <= 8; n = n < 4 ? n + 1 : n * 2)
		once_each(n, first);
	many_rounds();
	idle();
	pool_free(NULL);
	ok(pool_cores() >= 1, "%d processors", pool_cores());
	return done();
}
