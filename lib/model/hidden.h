/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hidden.h - hidden states of all tokens: in memory, or in an unlinked file (--spill)
 */
#ifndef QP_HIDDEN_H
#define QP_HIDDEN_H

#include <stdbool.h>
#include <stddef.h>

struct err;

struct hidden {
	float *x;        /* [tokens, width] */
	size_t tokens, width, mapped;
	bool spilled;
};

/* spill_dir NULL: anonymous memory; else a file in that directory, unlinked at once, its space
 * reserved (ERR_CANTCREAT, ERR_IO). */
int hidden_open(struct hidden *h, size_t tokens, size_t width, const char *spill_dir,
		struct err *e);
/* Tokens [from, from + n) are not needed for a while: a spilled set gives up the memory of whole
 * pages among them (values stay); one in memory does nothing. */
void hidden_drop(struct hidden *h, size_t from, size_t n);
void hidden_close(struct hidden *h);

#endif
