/* SPDX-License-Identifier: Apache-2.0 */
/*
 * idlines.h - token ids as text: a sequence a line, decimal, between blanks or commas
 */
#ifndef QP_IDLINES_H
#define QP_IDLINES_H

#include <stddef.h>

#include "lib/base/err.h"
#include "lib/data/tokenizer.h"

struct id_lines {
	struct ids ids; /* all, one line after the other */
	size_t *len;    /* [n] ids in each line */
	size_t n, cap, longest;
};

/* From path, or standard input when it is NULL or "-".  ERR_DATA with the number of the line for
 * anything but numbers from 0 to 2^31-1, for a line without any, and for no line at all. */
int id_lines_read(struct id_lines *l, const char *path, struct err *e) MUST_USE;
void id_lines_release(struct id_lines *l);

/* The ids between s and end, appended to out; line (from 0) is for errors.  There may be none. */
int id_line_parse(struct ids *out, const char *s, const char *end, size_t line, struct err *e)
	MUST_USE;

#endif
