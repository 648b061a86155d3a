/* SPDX-License-Identifier: Apache-2.0 */
/*
 * buf.h - bytes that grow: text being put together, a payload of unknown length
 *
 * Memory that runs out is remembered, not reported at each call: the later calls do nothing,
 * and buf_failed tells at the end.  The bytes are not followed by a NUL unless buf_str is used.
 */
#ifndef QP_BUF_H
#define QP_BUF_H

#include <stdbool.h>
#include <stddef.h>

#include "lib/base/err.h"

struct buf {
	char *p;
	size_t n, cap;
	bool failed;
};

/* Zero-initialise; buf_release frees and clears. */
void buf_release(struct buf *b);
void buf_clear(struct buf *b); /* empty, memory kept */

void buf_add(struct buf *b, const void *p, size_t n);
void buf_byte(struct buf *b, int c);
void buf_puts(struct buf *b, const char *s);
void buf_printf(struct buf *b, const char *fmt, ...) QP_PRINTF(2, 3);
/* Room for n more bytes, and where they go; they count only when b->n is raised. NULL: failed. */
void *buf_room(struct buf *b, size_t n);
/* The bytes with a NUL after them (not counted), or "" when memory ran out. */
const char *buf_str(struct buf *b);

/* 0, or -1 with ERR_NOMEM when an earlier call found no memory. */
int buf_failed(const struct buf *b, const char *where, struct err *e);

#endif
