/* SPDX-License-Identifier: Apache-2.0 */
/*
 * behind.h - writing that goes on behind the caller
 *
 * What is given is copied into one of a few buffers and written by a thread of its own, in order,
 * so that the kernel's copying goes on beside the work that makes the next bytes; and what lies in
 * a file in one piece begins its way to the disk, so that an fsync finds little left.  An error
 * shows with one of the calls after it, at the latest with behind_drain.
 */
#ifndef QP_BEHIND_H
#define QP_BEHIND_H

#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"

struct behind;

#define BEHIND_HERE UINT64_MAX

/* ERR_NOMEM; ERR_UNAVAIL when no thread may be started. */
int behind_new(struct behind **b, struct err *e) MUST_USE;
/* Drops what has not been written. */
void behind_free(struct behind *b);
/* n bytes to fd, at that offset or where it stands.  where names it in errors, and must live until
 * behind_drain, as fd must. */
int behind_write(struct behind *b, int fd, const void *p, size_t n, uint64_t at,
		 const char *where, struct err *e) MUST_USE;
/* All has been written. */
int behind_drain(struct behind *b, struct err *e) MUST_USE;

#endif
