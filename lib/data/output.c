/* SPDX-License-Identifier: Apache-2.0 */
/*
 * output.c - writing, and the rename that makes a file appear whole or not at all
 */
#include "lib/data/output.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PIPE_SIZE (1 << 20)

enum { MAX_LINKS = 40, MAX_NAME_PART = 32 };

/* Where the file will be: what path is a link to, there or not yet, so that the link stays one.
 * NULL and errno: too many links, no memory. */
static char *target(const char *path)
{
	char *at = strdup(path), text[PATH_MAX];

	for (int hops = 0; at && hops < MAX_LINKS; hops++) {
		const ssize_t n = readlink(at, text, sizeof(text) - 1);
		const char *slash = strrchr(at, '/');
		size_t dir = slash ? (size_t)(slash + 1 - at) : 0, cap;
		char *next;

		if (n < 0)
			return at;
		text[n] = '\0';
		dir = text[0] == '/' ? 0 : dir;
		cap = dir + (size_t)n + 1;
		next = malloc(cap);
		if (next)
			snprintf(next, cap, "%.*s%s", (int)dir, at, text);
		free(at);
		at = next;
	}
	if (!at)
		return NULL;
	free(at);
	errno = ELOOP;
	return NULL;
}

/* Bytes of the file's name that the temporary one begins with: whole characters of UTF-8. */
static size_t name_part(const char *name)
{
	size_t n = strlen(name);

	if (n > MAX_NAME_PART)
		for (n = MAX_NAME_PART; n > 0 && ((unsigned char)name[n] & 0xc0) == 0x80;)
			n--;
	return n;
}

/* Whoever could not read or write the old file cannot the new one: without its group (the
 * caller is not in it) no group's rights either. */
static int keep_mode(int fd, const struct stat *old)
{
	mode_t mode = old->st_mode & 0777;

	if (fchown(fd, old->st_uid, old->st_gid) != 0 && fchown(fd, (uid_t)-1, old->st_gid) != 0)
		mode &= ~(mode_t)S_IRWXG;
	return fchmod(fd, mode);
}

/* A new file beside path; old NULL: there is no file yet. */
static int open_temp(struct output *o, const char *path, const struct stat *old, struct err *e)
{
	size_t cap, n;

	o->path = target(path);
	if (!o->path)
		return err_errno(e, ERR_CANTCREAT, o->name, "%s", "");
	const char *slash = strrchr(o->path, '/'), *name = slash ? slash + 1 : o->path;
	n = (size_t)(name - o->path) + name_part(name);
	cap = n + 48;
	o->temp = malloc(cap);
	if (!o->temp)
		return err_nomem(e, o->name, cap);
	for (unsigned i = 0; i < 1000 && o->fd < 0; i++) {
		snprintf(o->temp, cap, i ? "%.*s.%ld.%u.tmp" : "%.*s.%ld.tmp", (int)n, o->path,
			 (long)getpid(), i);
		o->fd = open(o->temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, old ? 0600 : 0666);
		if (o->fd < 0 && errno != EEXIST)
			break;
	}
	if (o->fd < 0) {
		err_errno(e, ERR_CANTCREAT, o->name, "%s", "");
		free(o->temp);
		o->temp = NULL; /* not ours */
		return -1;
	}
	if (old && keep_mode(o->fd, old) != 0)
		return err_errno(e, ERR_CANTCREAT, o->name, "cannot keep its mode");
	return 0;
}

int output_open(struct output *o, const char *path, struct err *e)
{
	struct stat st;

	memset(o, 0, sizeof(*o));
	o->fd = -1;
	if (!path || strcmp(path, "-") == 0) {
		snprintf(o->name, sizeof(o->name), "standard output");
		if (isatty(STDOUT_FILENO))
			return err_set(e, ERR_USAGE, o->name,
				       "is a terminal; give -o FILE or a pipe");
		o->fd = STDOUT_FILENO;
	} else {
		snprintf(o->name, sizeof(o->name), "%s", *path ? path : "''");
		const bool there = stat(path, &st) == 0;

		if (there ? S_ISREG(st.st_mode) : *path && errno == ENOENT)
			return open_temp(o, path, there ? &st : NULL, e);
		o->fd = open(path, O_WRONLY | O_CLOEXEC);
		if (o->fd < 0)
			return err_errno(e, ERR_CANTCREAT, o->name, "%s", "");
	}
	if (fstat(o->fd, &st) == 0 && S_ISFIFO(st.st_mode) &&
	    fcntl(o->fd, F_GETPIPE_SZ) < PIPE_SIZE)
		fcntl(o->fd, F_SETPIPE_SZ, PIPE_SIZE); /* refused beyond a user's limit: slower */
	return 0;
}

int output_write(struct output *o, struct iovec *v, int n, struct err *e)
{
	while (n > 0) {
		if (v->iov_len == 0) {
			v++;
			n--;
			continue;
		}
		ssize_t w = writev(o->fd, v, n);
		if (w < 0 && errno == EINTR)
			continue;
		if (w == 0)
			errno = ENOSPC;
		if (w <= 0)
			return err_errno(e, ERR_IO, o->name, "%s", "");
		for (size_t left = (size_t)w; left > 0;) {
			size_t part = left < v->iov_len ? left : v->iov_len;

			v->iov_base = (char *)v->iov_base + part;
			v->iov_len -= part;
			left -= part;
			if (v->iov_len == 0)
				v++, n--;
		}
	}
	return 0;
}

/* So that the new name outlives a power cut; not every file system can. */
static void sync_folder(const char *path)
{
	char *copy = strdup(path);
	int fd = copy ? open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;

	if (fd >= 0) {
		fsync(fd);
		close(fd);
	}
	free(copy);
}

int output_commit(struct output *o, struct err *e)
{
	int fd = o->fd;

	if (!o->temp) {
		/* Some file systems report a full disk only on close: close a copy. */
		fd = dup(o->fd);
		if (fd < 0 || close(fd) != 0)
			return err_errno(e, ERR_IO, o->name, "%s", "");
		return 0;
	}
	if (fsync(fd) != 0)
		return err_errno(e, ERR_IO, o->name, "%s", "");
	o->fd = -1;
	if (close(fd) != 0 || rename(o->temp, o->path) != 0)
		return err_errno(e, ERR_IO, o->name, "%s", "");
	free(o->temp);
	o->temp = NULL;
	sync_folder(o->path);
	return 0;
}

void output_close(struct output *o)
{
	if (o->fd >= 0 && o->fd != STDOUT_FILENO)
		close(o->fd);
	if (o->temp)
		unlink(o->temp);
	free(o->temp);
	free(o->path);
	memset(o, 0, sizeof(*o));
	o->fd = -1;
}
