/* SPDX-License-Identifier: Apache-2.0 */
/*
 * input.h - bytes from a file or a pipe, whole-stream zstd undone, little of it buffered
 *
 * A small buffer serves headers; large reads go straight to where the caller wants them, and
 * what the same system call brings beyond them lands in the buffer.
 */
#ifndef QP_INPUT_H
#define QP_INPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"

struct input_zstd;

struct input {
	char name[256];       /* for messages: the path, '' or "standard input" */
	int fd;
	bool own, regular, eof;
	unsigned char *buf;   /* bytes [pos, len) are unread */
	size_t pos, len, cap;
	struct input_zstd *z; /* NULL: not compressed */
	uint64_t taken;       /* bytes taken from fd */
	uint64_t start, size; /* where reading began, and the file's size; 0 for a pipe */
};

/* path NULL or "-": standard input.  ERR_USAGE for a terminal, ERR_NOINPUT for a directory or
 * what cannot be opened.  Reads the first bytes to see whether it is zstd. */
int input_open(struct input *in, const char *path, struct err *e) MUST_USE;
void input_close(struct input *in);

/* Make at least n bytes lie at buf + pos.  1, 0 when the input ends before, -1 and *e. */
int input_need(struct input *in, size_t n, struct err *e) MUST_USE;

/* Up to n > 0 bytes into dst; *got is 0 only at the end of input. */
int input_some(struct input *in, void *dst, size_t n, size_t *got, struct err *e) MUST_USE;

/* The most bytes that can still come: of an uncompressed regular file those left in it, else
 * UINT64_MAX. */
uint64_t input_left(const struct input *in);

#endif
