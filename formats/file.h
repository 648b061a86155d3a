/* SPDX-License-Identifier: Apache-2.0 */
/*
 * file.h - reading foreign files: whole small ones, pieces of large ones
 */
#ifndef QP_FILE_H
#define QP_FILE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "lib/base/err.h"

/* A text file that belongs to a model (config, tokenizer) is refused beyond this. */
#define FILE_MAX_WHOLE ((size_t)256 << 20)

/* "a/b/c" -> "c": what messages call a file of a directory that the user named. */
const char *file_base(const char *path);

/*
 * Open for reading.  The descriptor, and the size of the file in *size; ERR_NOINPUT if it is
 * absent or not a regular file, ERR_IO if it cannot be looked at.  where names it in errors.
 */
int file_open(const char *path, const char *where, uint64_t *size, struct err *e) MUST_USE;

/* n bytes at offset, in pieces of at most 64 MiB; the file ending early is ERR_DATA. */
int file_pread(int fd, void *dst, uint64_t n, uint64_t offset, const char *where,
	       struct err *e) MUST_USE;

/* The whole file in a malloc'ed buffer with a NUL after it; more than max bytes is ERR_DATA. */
int file_read(const char *path, const char *where, size_t max, char **text, size_t *n,
	      struct err *e) MUST_USE;

#endif
