/* SPDX-License-Identifier: Apache-2.0 */
/*
 * share.h - one token a processor, shared by the processes of a process group
 *
 * The stages of a pipeline, and all that one "make -j" starts, are one process group.  Each token
 * is a lock on a byte of a small file of the user's own, so that the kernel gives back what a
 * process held when it dies, and a file that is left there means nothing: it stays empty.  Locks
 * belong to the open file: two struct share of one process are strangers to each other.
 */
#ifndef QP_SHARE_H
#define QP_SHARE_H

#include <stdbool.h>
#include <sys/types.h>

#include "lib/base/err.h"

enum { SHARE_MAX = 4096 }; /* tokens of a group */

struct share {
	int fd;
	off_t base; /* of the group in the file */
	int total, held;
	bool mine[SHARE_MAX];
};

/*
 * The tokens of this process's group, 1 <= total <= SHARE_MAX of them; none is taken.  The file is
 * quantpipe-UID in the first of $XDG_RUNTIME_DIR, /dev/shm and /tmp where the user has it or can
 * make it; not through a symbolic link, and not another user's.  ERR_UNAVAIL: there is no place.
 */
int share_open(struct share *s, int total, struct err *e) MUST_USE;
void share_close(struct share *s); /* gives all back */

/* Take up to want more, without waiting: how many came.  One thread at a time, as with the rest. */
int share_take(struct share *s, int want);
void share_give(struct share *s);  /* all */

#endif
