/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aside.c - one thing done by another thread while the caller does something else
 */
#include "lib/base/aside.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

struct aside {
	pthread_t id;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	aside_fn *fn;  /* NULL: nothing is to be done, or it is done */
	void *ctx;
	bool quit;
	int ret;
	struct err err;
};

static void *work(void *arg)
{
	struct aside *a = arg;

	pthread_mutex_lock(&a->lock);
	for (;;) {
		int ret;

		while (!a->fn && !a->quit)
			pthread_cond_wait(&a->changed, &a->lock);
		if (!a->fn)
			break;
		pthread_mutex_unlock(&a->lock);
		/* Nobody else looks at these until fn is NULL. */
		ret = a->fn(a->ctx, &a->err);
		pthread_mutex_lock(&a->lock);
		a->ret = ret;
		a->fn = NULL;
		pthread_cond_signal(&a->changed);
	}
	pthread_mutex_unlock(&a->lock);
	return NULL;
}

int aside_new(struct aside **out, struct err *e)
{
	struct aside *a = calloc(1, sizeof(*a));

	if (!a)
		return err_nomem(e, "", sizeof(*a));
	pthread_mutex_init(&a->lock, NULL);
	pthread_cond_init(&a->changed, NULL);
	if (pthread_create(&a->id, NULL, work, a)) {
		pthread_mutex_destroy(&a->lock);
		pthread_cond_destroy(&a->changed);
		free(a);
		return err_set(e, ERR_UNAVAIL, "", "a thread cannot be started");
	}
	*out = a;
	return 0;
}

void aside_free(struct aside *a)
{
	if (!a)
		return;
	pthread_mutex_lock(&a->lock);
	a->quit = true;
	pthread_cond_signal(&a->changed);
	pthread_mutex_unlock(&a->lock);
	pthread_join(a->id, NULL);
	pthread_mutex_destroy(&a->lock);
	pthread_cond_destroy(&a->changed);
	free(a);
}

void aside_start(struct aside *a, aside_fn *fn, void *ctx)
{
	pthread_mutex_lock(&a->lock);
	a->fn = fn;
	a->ctx = ctx;
	pthread_cond_signal(&a->changed);
	pthread_mutex_unlock(&a->lock);
}

int aside_wait(struct aside *a, struct err *e)
{
	pthread_mutex_lock(&a->lock);
	while (a->fn)
		pthread_cond_wait(&a->changed, &a->lock);
	pthread_mutex_unlock(&a->lock);
	if (a->ret)
		*e = a->err;
	return a->ret;
}
