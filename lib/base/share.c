/* SPDX-License-Identifier: Apache-2.0 */
/*
 * share.c - tokens as locks of open file descriptions (fcntl F_OFD_SETLK)
 *
 * All groups of a user lock bytes of one file, each in a range of its own, so that no files pile
 * up.  A range that nobody holds costs one system call, however many tokens it is; a range that
 * somebody holds a part of is halved.
 */
#include "lib/base/share.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The file in a folder; -1, and why in *e, when it is not there and cannot be, or not ours. */
static int open_in(const char *folder, struct err *e)
{
	char path[256];
	struct stat st;
	int fd, n = snprintf(path, sizeof(path), "%s/quantpipe-%ld", folder, (long)geteuid());

	if (n < 0 || (size_t)n >= sizeof(path))
		return err_set(e, ERR_UNAVAIL, "", "the name of a folder is too long");
	fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
	if (fd < 0)
		return err_errno(e, ERR_UNAVAIL, path, "%s", "");
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_uid == geteuid())
		return fd;
	close(fd);
	return err_set(e, ERR_UNAVAIL, path, "is not this user's file");
}

static int lock(const struct share *s, int what, short type, int from, int n)
{
	struct flock l = {
		.l_type = type,
		.l_whence = SEEK_SET,
		.l_start = s->base + from,
		.l_len = n,
	};

	return fcntl(s->fd, what, &l);
}

int share_open(struct share *s, int total, struct err *e)
{
	const char *own = getenv("XDG_RUNTIME_DIR");
	const char *folders[] = { own && *own == '/' ? own : NULL, "/dev/shm", "/tmp" };

	memset(s, 0, sizeof(*s));
	s->fd = -1;
	s->total = total;
	s->base = (off_t)getpgrp() * SHARE_MAX;
	for (size_t i = 0; i < sizeof(folders) / sizeof(*folders) && s->fd < 0; i++) {
		if (!folders[i] || (s->fd = open_in(folders[i], e)) < 0)
			continue;
		if (lock(s, F_OFD_GETLK, F_WRLCK, 0, total) < 0) { /* a file system without */
			err_errno(e, ERR_UNAVAIL, folders[i], "%s", "no locks");
			close(s->fd);
			s->fd = -1;
		}
	}
	return s->fd < 0 ? -1 : 0;
}

void share_close(struct share *s)
{
	if (s->fd >= 0)
		close(s->fd);
	s->fd = -1;
	s->held = 0;
}

/* Take up to want of [from, from + n), none of which we hold. */
static int take(struct share *s, int from, int n, int want)
{
	int try = n < want ? n : want, got;

	if (try == 0)
		return 0;
	if (lock(s, F_OFD_SETLK, F_WRLCK, from, try) == 0) {
		memset(s->mine + from, true, (size_t)try);
		return try;
	}
	if (n == 1)
		return 0;
	got = take(s, from, n / 2, want);
	return got + take(s, from + n / 2, n - n / 2, want - got);
}

int share_take(struct share *s, int want)
{
	int got = 0, end;

	for (int i = 0; i < s->total && got < want; i = end) {
		for (end = i + 1; end < s->total && s->mine[end] == s->mine[i]; end++)
			;
		if (!s->mine[i])
			got += take(s, i, end - i, want - got);
	}
	s->held += got;
	return got;
}

void share_give(struct share *s)
{
	if (s->held == 0)
		return;
	lock(s, F_OFD_SETLK, F_UNLCK, 0, s->total);
	memset(s->mine, false, (size_t)s->total);
	s->held = 0;
}
