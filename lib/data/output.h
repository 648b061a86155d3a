/* SPDX-License-Identifier: Apache-2.0 */
/*
 * output.h - bytes to standard output, or to a file that appears when it is complete
 */
#ifndef QP_OUTPUT_H
#define QP_OUTPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/uio.h>

#include "lib/base/err.h"

struct output {
	char name[256];   /* for messages: the path, '' or "standard output" */
	int fd;           /* -1: closed */
	char *path, *temp; /* temp is renamed to path; NULL: nothing to rename */
};

/*
 * path NULL or "-": standard output, ERR_USAGE if it is a terminal.  A regular or new file is
 * written as NAME.PID.tmp beside it (symbolic links followed, NAME cut to 32 bytes so that no
 * legal name makes an illegal one); anything else that exists (a device, a FIFO) is written
 * directly.  What replaces a file has its mode and, where that is allowed, its owner and group.
 * ERR_CANTCREAT.
 */
int output_open(struct output *o, const char *path, struct err *e) MUST_USE;
/* All bytes of v[n], whatever the length of a write; v is consumed.  ERR_IO. */
int output_write(struct output *o, struct iovec *v, int n, struct err *e) MUST_USE;
/* Everything is on disk under its name, or ERR_IO. */
int output_commit(struct output *o, struct err *e) MUST_USE;
/* Close; the temporary file, if it was not committed, is removed. */
void output_close(struct output *o);

#endif
