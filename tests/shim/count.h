/* SPDX-License-Identifier: Apache-2.0 */
/*
 * count.h - how many calls a shim saw, told to the test at the program's end
 */
#ifndef QP_SHIM_COUNT_H
#define QP_SHIM_COUNT_H

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Write n to the file that the variable names, by no call that a shim counts. */
static inline void count_report(const char *variable, long n)
{
	const char *path = getenv(variable);
	char text[32];
	int fd, len;

	if (!path)
		return;
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	len = snprintf(text, sizeof(text), "%ld\n", n);
	if (fd < 0 || syscall(SYS_write, fd, text, len) != len)
		_exit(125);
	close(fd);
}

#endif
