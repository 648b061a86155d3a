/* SPDX-License-Identifier: Apache-2.0 */
/*
 * flipbit.c - LD_PRELOAD: a disk that turns one bit over
 *
 * Counts the calls of write and pwrite of 16 bytes or more to regular files.  In the FLIP_AT'th
 * (from 1; 0 or unset: none) the lowest bit of the byte in the middle becomes the other one, and
 * the caller is told that all went well.  With FLIP_COUNT=FILE the number of calls is written to
 * FILE when the program ends, so that a test knows how far to sweep.
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/shim/count.h"

#define LEAST 16

static long calls, flip_at = -1;

/* A copy of what is to be written with the bit turned, or NULL. */
static char *turned(int fd, const void *buf, size_t n)
{
	const char *at;
	struct stat st;
	char *copy;

	if (n < LEAST || fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))
		return NULL;
	if (flip_at < 0) {
		at = getenv("FLIP_AT");
		flip_at = at ? strtol(at, NULL, 10) : 0;
	}
	if (__atomic_add_fetch(&calls, 1, __ATOMIC_RELAXED) != flip_at)
		return NULL;
	copy = malloc(n);
	if (!copy)
		_exit(125);
	memcpy(copy, buf, n);
	copy[n / 2] ^= 1;
	return copy;
}

ssize_t write(int fd, const void *buf, size_t n)
{
	char *copy = turned(fd, buf, n);
	const ssize_t got = syscall(SYS_write, fd, copy ? copy : buf, n);

	free(copy);
	return got;
}

ssize_t pwrite(int fd, const void *buf, size_t n, off_t at)
{
	char *copy = turned(fd, buf, n);
	const ssize_t got = syscall(SYS_pwrite64, fd, copy ? copy : buf, n, at);

	free(copy);
	return got;
}

static void __attribute__((destructor)) report(void)
{
	count_report("FLIP_COUNT", calls);
}
