/* SPDX-License-Identifier: Apache-2.0 */
/*
 * readers.h - one model read by several threads, each record by one of them
 *
 * Each thread opens the model for itself and goes through all its records, but takes the payload
 * of its own only: a record falls to the thread that has had the fewest bytes so far, which all of
 * them work out alike.  Of a source that makes payloads when they are asked for (a directory, a
 * GGUF file) the others' cost nothing.
 */
#ifndef QP_READERS_H
#define QP_READERS_H

#include "lib/data/stream.h"

enum { READERS_MAX = 4 }; /* more would wait for the memory */

struct readers {
	int (*open)(struct stream_in **in, const char *path, struct err *e);
	/* Called once for each record, in any order, by thread `reader` < READERS_MAX. */
	int (*take)(void *ctx, struct record *r, struct stream_in *in, int reader, struct err *e);
	void *ctx;
};

/* All records of path, by at most so many threads.  The error is that of the first record which
 * has one, whatever ran when. */
int readers_run(const struct readers *rs, const char *path, int threads, struct err *e) MUST_USE;

#endif
