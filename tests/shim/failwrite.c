/* SPDX-License-Identifier: Apache-2.0 */
/*
 * failwrite.c - LD_PRELOAD: writes that are short, and one that fails
 *
 * Counts the calls of write, writev, pwrite and pwritev to any descriptor but stderr.  Every one
 * that works writes at most half of what it was given, so a caller that forgets short writes
 * produces damaged output.  The FAIL_AT'th (from 1; 0 or unset: none) fails with ENOSPC, and so
 * does every later one, as on a full disk.  With FAIL_COUNT=FILE the number of calls is written
 * to FILE when the program ends, so that a test knows how far to sweep.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "tests/shim/count.h"

static long calls, fail_at = -1;

/* 1: fail this call. */
static int next_fails(int fd)
{
	const char *at;

	if (fd == STDERR_FILENO)
		return 0;
	if (fail_at < 0) {
		at = getenv("FAIL_AT");
		fail_at = at ? strtol(at, NULL, 10) : 0;
	}
	calls++;
	if (!fail_at || calls < fail_at)
		return 0;
	errno = ENOSPC;
	return 1;
}

static size_t half(size_t n)
{
	return n > 7 ? n / 2 : n;
}

ssize_t write(int fd, const void *buf, size_t n)
{
	if (next_fails(fd))
		return -1;
	return syscall(SYS_write, fd, buf, fd == STDERR_FILENO ? n : half(n));
}

ssize_t pwrite(int fd, const void *buf, size_t n, off_t at)
{
	if (next_fails(fd))
		return -1;
	return syscall(SYS_pwrite64, fd, buf, half(n), at);
}

/* The first part that is not empty, or half of it. */
ssize_t writev(int fd, const struct iovec *v, int n)
{
	if (next_fails(fd))
		return -1;
	for (int i = 0; i < n; i++)
		if (v[i].iov_len)
			return syscall(SYS_write, fd, v[i].iov_base, half(v[i].iov_len));
	return 0;
}

ssize_t pwritev(int fd, const struct iovec *v, int n, off_t at)
{
	if (next_fails(fd))
		return -1;
	for (int i = 0; i < n; i++)
		if (v[i].iov_len)
			return syscall(SYS_pwrite64, fd, v[i].iov_base, half(v[i].iov_len), at);
	return 0;
}

static void __attribute__((destructor)) report(void)
{
	count_report("FAIL_COUNT", calls);
}
