/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aside.c - things done by another thread, one after the other
 */
#include "lib/base/aside.h"

#include <pthread.h>

#include "tests/unit/tap.h"

struct thing {
	int times, fails;
	pthread_t by;
};

static int doing(void *ctx, struct err *e)
{
	struct thing *t = ctx;

	t->times++;
	t->by = pthread_self();
	return t->fails ? err_set(e, ERR_DATA, "here", "thing %d", t->times) : 0;
}

int main(void)
{
	struct aside *a;
	struct thing t = { 0 };
	struct err e = { 0 };
	int done_right = 0;

	if (!ok(!aside_new(&a, &e), "a thread: %s", e.what))
		return done();
	for (int i = 1; i <= 1000; i++) {
		t.fails = i % 3 == 0;
		aside_start(a, doing, &t);
		done_right += aside_wait(a, &e) == (t.fails ? -1 : 0) && t.times == i &&
			      (!t.fails || (e.cls == ERR_DATA && strcmp(e.where, "here") == 0));
	}
	ok(done_right == 1000, "a thousand things, each done once, with its own end (%d)",
	   done_right);
	ok(!pthread_equal(t.by, pthread_self()), "by another thread");
	t.fails = 0;
	aside_start(a, doing, &t);
	aside_free(a);
	ok(t.times == 1001, "what was begun is done before it goes");
	aside_free(NULL);
	return done();
}
