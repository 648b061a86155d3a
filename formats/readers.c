/* SPDX-License-Identifier: Apache-2.0 */
/*
 * readers.c - one model read by several threads
 */
#include "formats/readers.h"

#include "lib/base/pool.h"

struct job {
	const struct readers *rs;
	const char *path;
	int n;
	struct {
		uint64_t bad; /* the record that failed; UINT64_MAX: none */
		struct err err;
	} end[READERS_MAX];
};

/* Whose the next record is: the first of those that have had the fewest bytes. */
static int turn(uint64_t had[READERS_MAX], int n, const struct record *r)
{
	int least = 0;

	for (int i = 1; i < n; i++)
		if (had[i] < had[least])
			least = i;
	had[least] += r->nbytes + 1;
	return least;
}

static int go(const struct job *j, int self, uint64_t *at, struct err *e)
{
	struct record r = { .rank = -1 };
	uint64_t had[READERS_MAX] = { 0 };
	struct stream_in *in;
	int got;

	*at = 0;
	if (j->rs->open(&in, j->path, e))
		return -1;
	while ((got = stream_next(in, &r, e)) > 0) {
		++*at;
		if (turn(had, j->n, &r) == self && j->rs->take(j->rs->ctx, &r, in, self, e)) {
			got = -1;
			break;
		}
	}
	record_clear(&r);
	stream_close_in(in);
	return got;
}

static void task(void *ctx, size_t i, int thread)
{
	struct job *j = ctx;
	uint64_t at;

	(void)thread;
	j->end[i].bad = go(j, (int)i, &at, &j->end[i].err) ? at : UINT64_MAX;
}

int readers_run(const struct readers *rs, const char *path, int threads, struct err *e)
{
	struct job j = { .rs = rs, .path = path };
	struct pool *pool;
	int first = 0;

	j.n = threads < READERS_MAX ? threads : READERS_MAX;
	pool = pool_new(j.n, e);
	if (!pool)
		return -1;
	pool_run(pool, (size_t)j.n, task, &j);
	pool_free(pool);
	for (int i = 1; i < j.n; i++)
		if (j.end[i].bad < j.end[first].bad)
			first = i;
	if (j.end[first].bad == UINT64_MAX)
		return 0;
	*e = j.end[first].err;
	return -1;
}
