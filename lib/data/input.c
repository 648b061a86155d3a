/* SPDX-License-Identifier: Apache-2.0 */
/*
 * input.c - reading
 */
#include "lib/data/input.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>
#include <zstd.h>

#define BUFFER (16u << 10)   /* what follows a payload in the same read */
#define PIPE_SIZE (1 << 20)  /* the kernel's usual limit for a user; measured best */

struct input_zstd {
	ZSTD_DStream *d;
	unsigned char *in;   /* compressed bytes [pos, len) */
	size_t pos, len, cap;
	size_t hint;         /* 0 between frames */
};

/* One read(2) or readv(2), again after signals.  *got 0: end of file. */
static int read_fd(struct input *in, const struct iovec *iov, int n, size_t *got, struct err *e)
{
	ssize_t r;

	do
		r = readv(in->fd, iov, n);
	while (r < 0 && errno == EINTR);
	if (r < 0)
		return err_errno(e, ERR_IO, in->name, "%s", "");
	*got = (size_t)r;
	in->taken += (uint64_t)r;
	return 0;
}

static int read_zstd(struct input *in, void *dst, size_t n, size_t *got, struct err *e)
{
	struct input_zstd *z = in->z;
	ZSTD_outBuffer out = { dst, n, 0 };

	while (out.pos == 0) {
		if (z->pos == z->len) {
			struct iovec v = { z->in, z->cap };

			z->pos = 0;
			if (read_fd(in, &v, 1, &z->len, e) != 0)
				return -1;
			if (z->len == 0) {
				if (z->hint != 0)
					return err_set(e, ERR_DATA, in->name,
						       "the zstd frame around it is cut short");
				break;
			}
		}
		ZSTD_inBuffer src = { z->in, z->len, z->pos };
		z->hint = ZSTD_decompressStream(z->d, &out, &src);
		if (ZSTD_isError(z->hint))
			return err_set(e, ERR_DATA, in->name, "damaged zstd data: %s",
				       ZSTD_getErrorName(z->hint));
		z->pos = src.pos;
	}
	*got = out.pos;
	return 0;
}

/* At most n bytes to dst, and, when room is left there, what comes along into the empty buffer. */
static int read_more(struct input *in, void *dst, size_t n, bool spill, size_t *got, struct err *e)
{
	struct iovec v[2] = { { dst, n }, { in->buf, BUFFER } };
	size_t r;

	if (in->z) {
		if (read_zstd(in, dst, n, got, e) != 0)
			return -1;
	} else {
		if (read_fd(in, v, spill ? 2 : 1, &r, e) != 0)
			return -1;
		*got = r < n ? r : n;
		if (spill) {
			in->pos = 0;
			in->len = r - *got;
		}
	}
	in->eof = *got == 0;
	return 0;
}

int input_need(struct input *in, size_t n, struct err *e)
{
	size_t got;

	if (in->len - in->pos >= n)
		return 1;
	if (in->pos > 0) {
		memmove(in->buf, in->buf + in->pos, in->len - in->pos);
		in->len -= in->pos;
		in->pos = 0;
	}
	if (n > in->cap) {
		size_t cap = n > 2 * in->cap ? n : 2 * in->cap;
		unsigned char *p = realloc(in->buf, cap);

		if (!p)
			return err_nomem(e, in->name, cap);
		in->buf = p;
		in->cap = cap;
	}
	while (in->len < n) {
		if (in->eof)
			return 0;
		if (read_more(in, in->buf + in->len, in->cap - in->len, false, &got, e) != 0)
			return -1;
		in->len += got;
	}
	return 1;
}

int input_some(struct input *in, void *dst, size_t n, size_t *got, struct err *e)
{
	size_t held = in->len - in->pos;

	if (held > 0) {
		*got = held < n ? held : n;
		memcpy(dst, in->buf + in->pos, *got);
		in->pos += *got;
		return 0;
	}
	*got = 0;
	if (in->eof)
		return 0;
	return read_more(in, dst, n, true, got, e);
}

uint64_t input_left(const struct input *in)
{
	struct stat st;

	if (!in->regular || in->z || fstat(in->fd, &st) != 0)
		return UINT64_MAX;
	uint64_t at = in->start + in->taken, size = (uint64_t)st.st_size;
	return in->len - in->pos + (size > at ? size - at : 0);
}

static int open_zstd(struct input *in, struct err *e)
{
	struct input_zstd *z = calloc(1, sizeof(*z));

	if (!z)
		return err_nomem(e, in->name, sizeof(*z));
	in->z = z;
	z->cap = ZSTD_DStreamInSize();
	z->cap = z->cap > in->cap ? z->cap : in->cap;
	z->in = malloc(z->cap);
	z->d = ZSTD_createDStream();
	if (!z->in || !z->d)
		return err_nomem(e, in->name, z->cap);
	z->len = in->len;
	memcpy(z->in, in->buf, in->len);
	in->pos = in->len = 0;
	in->eof = false;
	return 0;
}

/* zstd's magic number, or a skippable frame's; neither can begin a msgpack map. */
static bool is_zstd(const unsigned char *p)
{
	return memcmp(p, "\x28\xb5\x2f\xfd", 4) == 0 ||
	       ((p[0] & 0xf0) == 0x50 && memcmp(p + 1, "\x2a\x4d\x18", 3) == 0);
}

static int open_fd(struct input *in, const char *path, struct err *e)
{
	struct stat st;
	off_t at;

	if (!path || strcmp(path, "-") == 0) {
		snprintf(in->name, sizeof(in->name), "standard input");
		in->fd = STDIN_FILENO;
		if (isatty(in->fd))
			return err_set(e, ERR_USAGE, in->name,
				       "is a terminal; give a file or a pipe");
	} else {
		snprintf(in->name, sizeof(in->name), "%s", *path ? path : "''");
		in->fd = open(path, O_RDONLY | O_CLOEXEC);
		if (in->fd < 0)
			return err_errno(e, ERR_NOINPUT, in->name, "%s", "");
		in->own = true;
	}
	if (fstat(in->fd, &st) != 0)
		return err_errno(e, ERR_NOINPUT, in->name, "%s", "");
	if (S_ISDIR(st.st_mode))
		return err_set(e, ERR_NOINPUT, in->name, "is a directory");
	if (S_ISREG(st.st_mode) && (at = lseek(in->fd, 0, SEEK_CUR)) >= 0) {
		in->regular = true;
		in->start = (uint64_t)at;
		in->size = (uint64_t)(st.st_size > at ? st.st_size - at : 0);
	}
	if (S_ISFIFO(st.st_mode) && fcntl(in->fd, F_GETPIPE_SZ) < PIPE_SIZE)
		fcntl(in->fd, F_SETPIPE_SZ, PIPE_SIZE);
	return 0;
}

int input_open(struct input *in, const char *path, struct err *e)
{
	int got;

	memset(in, 0, sizeof(*in));
	in->fd = -1;
	if (open_fd(in, path, e) != 0)
		return -1;
	in->cap = BUFFER;
	in->buf = malloc(in->cap);
	if (!in->buf)
		return err_nomem(e, in->name, in->cap);
	got = input_need(in, 4, e);
	if (got < 0)
		return -1;
	return got && is_zstd(in->buf) ? open_zstd(in, e) : 0;
}

void input_close(struct input *in)
{
	if (in->own)
		close(in->fd);
	if (in->z) {
		ZSTD_freeDStream(in->z->d);
		free(in->z->in);
		free(in->z);
	}
	free(in->buf);
	memset(in, 0, sizeof(*in));
}
