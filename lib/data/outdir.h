/* SPDX-License-Identifier: Apache-2.0 */
/*
 * outdir.h - a directory of files that appears whole, or not at all
 *
 * Files are written into NAME.PID.tmp beside the directory that is asked for; outdir_commit renames
 * it.  Nothing but this file knows the temporary name.
 */
#ifndef QP_OUTDIR_H
#define QP_OUTDIR_H

#include <stdbool.h>
#include <stddef.h>

#include "lib/base/err.h"

struct outdir_file;

struct outdir {
	char name[256];      /* for messages: the path */
	char *path, *temp;   /* NULL temp: committed, or never opened */
	int fd;              /* of temp */
	bool replace;        /* path is there and is to go */
	struct outdir_file *files; /* of temp, the last one first */
};

/*
 * ERR_CANTCREAT if path is there, unless force: then it must be a directory that holds nothing but
 * files, which goes when the new one is complete.  Blanks at its end, "." and "..": refused.
 */
int outdir_open(struct outdir *d, const char *path, bool force, struct err *e) MUST_USE;

/* A new file of it, for writing: a descriptor, the caller's; or -1. */
int outdir_create(struct outdir *d, const char *name, struct err *e) MUST_USE;
int outdir_rename(struct outdir *d, const char *from, const char *to, struct err *e) MUST_USE;
/* Every byte to fd, whatever the length of a write; where names the file.  ERR_IO. */
int outdir_write(int fd, const void *p, size_t n, const char *where, struct err *e) MUST_USE;
/* fsync and close fd, whether or not that works. */
int outdir_finish(int fd, const char *where, struct err *e) MUST_USE;
/* A small file, from creation to fsync. */
int outdir_put(struct outdir *d, const char *name, const void *p, size_t n,
	       struct err *e) MUST_USE;

/* The directory is on disk under its name, or ERR_IO (ERR_CANTCREAT if somebody made one of this
 * name meanwhile). */
int outdir_commit(struct outdir *d, struct err *e) MUST_USE;
/* What was not committed is removed. */
void outdir_close(struct outdir *d);
/* The same, for a signal handler: nothing but system calls. */
void outdir_wipe(const struct outdir *d);

#endif
