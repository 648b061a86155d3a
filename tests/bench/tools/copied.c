/* SPDX-License-Identifier: Apache-2.0 */
/*
 * copied.c - what an exporter cannot do without: read a file, write one, see it on disk, read it
 *
 *     copied IN BYTES OUT
 *
 * IN is read whole, BYTES bytes are written to OUT (of IN, as often as it takes) and fsynced, and
 * OUT is read again: plain read(2) and write(2) by 1 MiB, one thing after the other.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PIECE = 1 << 20 };

static char piece[PIECE];

static int fail(const char *what)
{
	perror(what);
	return 74;
}

/* Up to most bytes of fd, each handed on to `to` unless that is -1; how many, or -1. */
static long long pass(int fd, int to, long long most)
{
	long long all = 0;

	while (all < most) {
		const size_t want = most - all < PIECE ? (size_t)(most - all) : PIECE;
		const ssize_t n = read(fd, piece, want);

		if (n <= 0)
			return n < 0 ? -1 : all;
		if (to >= 0 && write(to, piece, (size_t)n) != n)
			return -1;
		all += n;
	}
	return all;
}

int main(int argc, char **argv)
{
	long long left = argc == 4 ? atoll(argv[2]) : 0, got;
	int in, out;

	if (left <= 0) {
		fprintf(stderr, "usage: copied IN BYTES OUT\n");
		return 64;
	}
	in = open(argv[1], O_RDONLY);
	out = open(argv[3], O_RDWR | O_CREAT | O_TRUNC, 0666);
	if (in < 0 || out < 0)
		return fail(in < 0 ? argv[1] : argv[3]);
	while (left > 0) {
		got = pass(in, out, left);
		if (got < 0 || lseek(in, left > got ? 0 : got, SEEK_SET) < 0)
			return fail(argv[3]);
		left -= got;
	}
	if (pass(in, -1, (1LL << 62)) < 0 || fsync(out) != 0)
		return fail(argv[3]);
	if (lseek(out, 0, SEEK_SET) < 0 || pass(out, -1, (1LL << 62)) < 0)
		return fail(argv[3]);
	return 0;
}
