/* SPDX-License-Identifier: Apache-2.0 */
/*
 * outdir.c - files in a directory beside the one that is asked for, and the rename at the end
 */
#include "lib/data/outdir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_NAME_PART = 64 };

/* A list that only grows at its head, so that a signal handler may walk it at any time. */
struct outdir_file {
	struct outdir_file *next;
	char name[];
};

static int remember(struct outdir *d, const char *name, struct err *e)
{
	struct outdir_file *f = malloc(sizeof(*f) + strlen(name) + 1);

	if (!f)
		return err_nomem(e, name, sizeof(*f));
	f->next = d->files;
	snprintf(f->name, strlen(name) + 1, "%s", name);
	d->files = f;
	return 0;
}

/* Only files: what is to be replaced can then be removed without surprises. */
static int check_flat(const char *path, const char *where, struct err *e)
{
	DIR *dir = opendir(path);
	const struct dirent *f;
	struct stat st;
	int ret = 0;

	if (!dir)
		return err_errno(e, ERR_CANTCREAT, where, "%s", "");
	while (!ret && (f = readdir(dir)))
		if (strcmp(f->d_name, ".") && strcmp(f->d_name, "..") &&
		    (fstatat(dirfd(dir), f->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0 ||
		     S_ISDIR(st.st_mode)))
			ret = err_set(e, ERR_CANTCREAT, where, "has a folder '%.64s' in it, and "
				      "is not replaced", f->d_name);
	closedir(dir);
	return ret;
}

static int check_target(struct outdir *d, bool force, struct err *e)
{
	struct stat st;

	if (stat(d->path, &st) != 0)
		return errno == ENOENT ? 0 : err_errno(e, ERR_CANTCREAT, d->name, "%s", "");
	if (!force)
		return err_set(e, ERR_CANTCREAT, d->name, "is there already; --force replaces it");
	if (!S_ISDIR(st.st_mode))
		return err_set(e, ERR_CANTCREAT, d->name, "is not a directory");
	d->replace = true;
	return check_flat(d->path, d->name, e);
}

static int make_temp(struct outdir *d, struct err *e)
{
	const char *slash = strrchr(d->path, '/'), *name = slash ? slash + 1 : d->path;
	size_t n = (size_t)(name - d->path) + strnlen(name, MAX_NAME_PART), cap = n + 48;
	char *temp = malloc(cap);
	int ret = -1;

	if (!temp)
		return err_nomem(e, d->name, cap);
	for (unsigned i = 0; i < 1000 && ret; i++) {
		snprintf(temp, cap, i ? "%.*s.%ld.%u.tmp" : "%.*s.%ld.tmp", (int)n, d->path,
			 (long)getpid(), i);
		ret = mkdir(temp, 0777);
		if (ret && errno != EEXIST)
			break;
	}
	if (ret) {
		err_errno(e, ERR_CANTCREAT, d->name, "%s", "");
		free(temp);
		return -1;
	}
	d->temp = temp;
	d->fd = open(temp, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return d->fd < 0 ? err_errno(e, ERR_CANTCREAT, d->name, "%s", "") : 0;
}

int outdir_open(struct outdir *d, const char *path, bool force, struct err *e)
{
	size_t n = strlen(path);
	const char *base;

	memset(d, 0, sizeof(*d));
	d->fd = -1;
	snprintf(d->name, sizeof(d->name), "%s", path);
	while (n > 1 && path[n - 1] == '/')
		n--;
	/* A link stays one: what it leads to is replaced. */
	d->path = force ? realpath(path, NULL) : NULL;
	if (!d->path)
		d->path = strndup(path, n);
	if (!d->path)
		return err_nomem(e, d->name, n);
	base = strrchr(d->path, '/') ? strrchr(d->path, '/') + 1 : d->path;
	if (!*base || strcmp(base, ".") == 0 || strcmp(base, "..") == 0)
		return err_set(e, ERR_CANTCREAT, *path ? d->name : "''",
			       "is not the name of a directory to make");
	return check_target(d, force, e) ? -1 : make_temp(d, e);
}

int outdir_create(struct outdir *d, const char *name, struct err *e)
{
	int fd;

	if (remember(d, name, e))
		return -1;
	fd = openat(d->fd, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
	return fd < 0 ? err_errno(e, ERR_CANTCREAT, name, "%s", "") : fd;
}

int outdir_rename(struct outdir *d, const char *from, const char *to, struct err *e)
{
	if (remember(d, to, e))
		return -1;
	return renameat(d->fd, from, d->fd, to) ? err_errno(e, ERR_IO, to, "%s", "") : 0;
}

int outdir_write(int fd, const void *p, size_t n, const char *where, struct err *e)
{
	const char *at = p;

	while (n > 0) {
		ssize_t w = write(fd, at, n);

		if (w < 0 && errno == EINTR)
			continue;
		if (w == 0)
			errno = ENOSPC;
		if (w <= 0)
			return err_errno(e, ERR_IO, where, "%s", "");
		at += w;
		n -= (size_t)w;
	}
	return 0;
}

int outdir_finish(int fd, const char *where, struct err *e)
{
	int ret = fsync(fd) ? err_errno(e, ERR_IO, where, "%s", "") : 0;

	if (close(fd) && !ret)
		ret = err_errno(e, ERR_IO, where, "%s", "");
	return ret;
}

/* What is in the file is what was to be. */
static int same_again(int fd, const char *p, size_t n, const char *where, struct err *e)
{
	char buf[16384];
	size_t at = 0;

	while (at < n) {
		const ssize_t got = pread(fd, buf, n - at < sizeof(buf) ? n - at : sizeof(buf),
					  (off_t)at);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return err_errno(e, ERR_IO, where, "%s", "");
		if (got == 0 || memcmp(buf, p + at, (size_t)got))
			return err_set(e, ERR_IO, where, "read back, it is not what was written");
		at += (size_t)got;
	}
	return 0;
}

int outdir_put(struct outdir *d, const char *name, const void *p, size_t n, struct err *e)
{
	int fd = outdir_create(d, name, e);

	if (fd < 0)
		return -1;
	if (outdir_write(fd, p, n, name, e) || same_again(fd, p, n, name, e)) {
		close(fd);
		return -1;
	}
	return outdir_finish(fd, name, e);
}

/* So that the new name outlives a power cut; not every file system can. */
static void sync_parent(const struct outdir *d)
{
	const char *slash = strrchr(d->path, '/');
	char *parent = slash ? strndup(d->path, slash > d->path ? (size_t)(slash - d->path) : 1) :
		       strdup(".");
	int fd = parent ? open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;

	if (fd >= 0) {
		fsync(fd);
		close(fd);
	}
	free(parent);
}

/* A directory that has been replaced: it was seen to hold files only. */
static void remove_flat(const char *path)
{
	DIR *dir = opendir(path);
	const struct dirent *f;

	while (dir && (f = readdir(dir)))
		if (strcmp(f->d_name, ".") && strcmp(f->d_name, ".."))
			unlinkat(dirfd(dir), f->d_name, 0);
	if (dir)
		closedir(dir);
	rmdir(path);
}

static int replace(struct outdir *d, struct err *e)
{
	size_t cap = strlen(d->temp) + 8;
	char *old;

	if (renameat2(AT_FDCWD, d->temp, AT_FDCWD, d->path, RENAME_EXCHANGE) == 0) {
		remove_flat(d->temp);
		return 0;
	}
	/* Not every file system can exchange two names. */
	old = malloc(cap);
	if (!old)
		return err_nomem(e, d->name, cap);
	snprintf(old, cap, "%s.old", d->temp);
	if (rename(d->path, old)) {
		err_errno(e, ERR_IO, d->name, "%s", "");
		free(old);
		return -1;
	}
	if (rename(d->temp, d->path)) {
		err_errno(e, ERR_IO, d->name, "%s", "");
		if (rename(old, d->path))
			err_set(e, ERR_IO, d->name, "what was there is now %.128s", old);
		free(old);
		return -1;
	}
	remove_flat(old);
	free(old);
	return 0;
}

int outdir_commit(struct outdir *d, struct err *e)
{
	char *temp;
	int fd = d->fd;

	if (fsync(fd))
		return err_errno(e, ERR_IO, d->name, "%s", "");
	if (d->replace) {
		if (replace(d, e))
			return -1;
	} else if (renameat2(AT_FDCWD, d->temp, AT_FDCWD, d->path, RENAME_NOREPLACE)) {
		struct stat st;

		if (errno == EEXIST || stat(d->path, &st) == 0)
			return err_set(e, ERR_CANTCREAT, d->name, "has come to be meanwhile");
		if (rename(d->temp, d->path))
			return err_errno(e, ERR_IO, d->name, "%s", "");
	}
	temp = d->temp;
	d->temp = NULL;
	free(temp);
	d->fd = -1;
	close(fd);
	sync_parent(d);
	return 0;
}

void outdir_wipe(const struct outdir *d)
{
	/* By its name, not by d->fd: once that directory has got its own, it is to stay. */
	const int fd = d->temp ? open(d->temp, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;

	if (fd < 0)
		return;
	for (const struct outdir_file *f = d->files; f; f = f->next)
		unlinkat(fd, f->name, 0);
	close(fd);
	rmdir(d->temp);
}

void outdir_close(struct outdir *d)
{
	outdir_wipe(d);
	if (d->fd >= 0)
		close(d->fd);
	for (struct outdir_file *f = d->files, *next; f; f = next) {
		next = f->next;
		free(f);
	}
	free(d->temp);
	free(d->path);
	memset(d, 0, sizeof(*d));
	d->fd = -1;
}
