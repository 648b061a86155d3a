/* SPDX-License-Identifier: Apache-2.0 */
/*
 * behind.c - writing that goes on behind the caller
 */
#include "lib/data/behind.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Small enough to stay in a cache of the second or third level between the two copies. */
enum { SLOT = 1 << 18, SLOTS = 8 };
/* So much of a file, one after the other, is sent to the disk: enough for one large request. */
enum { SEND = 1 << 23 };

struct slot {
	int fd;
	uint64_t at;
	size_t n;
	const char *where;
	unsigned char *p;
};

struct behind {
	pthread_t id;
	pthread_mutex_t lock;
	pthread_cond_t filled, emptied;
	struct slot slot[SLOTS];
	size_t first, n;  /* those that wait, the one being written too */
	bool quit, failed;
	struct err err;
	/* the thread's own: bytes [from, to) of fd are in the page cache and nowhere else */
	int fd;
	uint64_t from, to;
};

static int write_slot(const struct slot *s, struct err *e)
{
	const unsigned char *p = s->p;
	uint64_t at = s->at;
	size_t n = s->n;

	while (n > 0) {
		const ssize_t got = s->at == BEHIND_HERE ? write(s->fd, p, n) :
				    pwrite(s->fd, p, n, (off_t)at);

		if (got < 0 && errno == EINTR)
			continue;
		if (got == 0)
			errno = ENOSPC;
		if (got <= 0)
			return err_errno(e, ERR_IO, s->where, "%s", "");
		p += got;
		at += (uint64_t)got;
		n -= (size_t)got;
	}
	return 0;
}

/* What has been written goes to the disk from now on, and not only when fsync asks for it.  Only
 * a hint: where it is not understood, nothing is lost. */
static void send(struct behind *b, const struct slot *s)
{
	if (s->at == BEHIND_HERE)
		return;
	if (s->fd != b->fd || s->at != b->to) {
		b->fd = s->fd;
		b->from = s->at;
	}
	b->to = s->at + s->n;
	if (b->to - b->from < SEND)
		return;
	(void)sync_file_range(b->fd, (off_t)b->from, (off_t)(b->to - b->from),
			      SYNC_FILE_RANGE_WRITE);
	b->from = b->to;
}

static void *work(void *arg)
{
	struct behind *b = arg;

	pthread_mutex_lock(&b->lock);
	for (;;) {
		struct err e;
		int ret = 0;

		while (b->n == 0 && !b->quit)
			pthread_cond_wait(&b->filled, &b->lock);
		if (b->quit)
			break;
		if (!b->failed) {
			pthread_mutex_unlock(&b->lock);
			ret = write_slot(&b->slot[b->first], &e);
			if (!ret)
				send(b, &b->slot[b->first]);
			pthread_mutex_lock(&b->lock);
		}
		if (ret) {
			b->failed = true;
			b->err = e;
		}
		b->first = (b->first + 1) % SLOTS;
		b->n--;
		pthread_cond_signal(&b->emptied);
	}
	pthread_mutex_unlock(&b->lock);
	return NULL;
}

int behind_new(struct behind **out, struct err *e)
{
	struct behind *b = calloc(1, sizeof(*b));
	unsigned char *p = malloc((size_t)SLOT * SLOTS);

	if (!b || !p) {
		free(b);
		free(p);
		return err_nomem(e, "", (size_t)SLOT * SLOTS);
	}
	for (size_t i = 0; i < SLOTS; i++)
		b->slot[i].p = p + i * SLOT;
	b->fd = -1;
	pthread_mutex_init(&b->lock, NULL);
	pthread_cond_init(&b->filled, NULL);
	pthread_cond_init(&b->emptied, NULL);
	if (pthread_create(&b->id, NULL, work, b)) {
		free(b);
		free(p);
		return err_set(e, ERR_UNAVAIL, "", "a thread cannot be started");
	}
	*out = b;
	return 0;
}

void behind_free(struct behind *b)
{
	if (!b)
		return;
	pthread_mutex_lock(&b->lock);
	b->quit = true;
	pthread_cond_signal(&b->filled);
	pthread_mutex_unlock(&b->lock);
	pthread_join(b->id, NULL);
	pthread_mutex_destroy(&b->lock);
	pthread_cond_destroy(&b->filled);
	pthread_cond_destroy(&b->emptied);
	free(b->slot[0].p);
	free(b);
}

/* Under the lock: what has gone wrong. */
static int failed(const struct behind *b, struct err *e)
{
	if (!b->failed)
		return 0;
	*e = b->err;
	return -1;
}

int behind_write(struct behind *b, int fd, const void *p, size_t n, uint64_t at,
		 const char *where, struct err *e)
{
	const unsigned char *from = p;
	int ret = 0;

	while (n > 0 && !ret) {
		const size_t some = n < SLOT ? n : SLOT;
		struct slot *s;

		pthread_mutex_lock(&b->lock);
		while (b->n == SLOTS)
			pthread_cond_wait(&b->emptied, &b->lock);
		ret = failed(b, e);
		s = &b->slot[(b->first + b->n) % SLOTS];
		pthread_mutex_unlock(&b->lock);
		if (ret)
			break;
		/* The thread does not look at it before it is counted. */
		s->fd = fd;
		s->at = at;
		s->n = some;
		s->where = where;
		memcpy(s->p, from, some);
		pthread_mutex_lock(&b->lock);
		b->n++;
		pthread_cond_signal(&b->filled);
		pthread_mutex_unlock(&b->lock);
		from += some;
		n -= some;
		at += at == BEHIND_HERE ? 0 : some;
	}
	return ret;
}

int behind_drain(struct behind *b, struct err *e)
{
	int ret;

	pthread_mutex_lock(&b->lock);
	while (b->n > 0)
		pthread_cond_wait(&b->emptied, &b->lock);
	ret = failed(b, e);
	pthread_mutex_unlock(&b->lock);
	return ret;
}
