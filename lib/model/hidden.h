/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hidden.h - hidden states of all tokens: in memory, or in an unlinked file (--spill)
 */
#ifndef QP_HIDDEN_H
#define QP_HIDDEN_H

#include <stddef.h>

struct err;

struct hidden {
	float *x;        /* [tokens, width] */
	size_t tokens, width, mapped;
};

/* spill_dir NULL: anonymous memory; else a file in that directory, unlinked at once. */
int hidden_open(struct hidden *h, size_t tokens, size_t width, const char *spill_dir,
		struct err *e);
void hidden_close(struct hidden *h);

#endif
