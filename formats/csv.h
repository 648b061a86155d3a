/* SPDX-License-Identifier: Apache-2.0 */
/*
 * csv.h - tables of comma-separated values (RFC 4180), row by row as JSON objects
 *
 * The first row names the columns.  Cells are strings; one in double quotes may hold commas, line
 * ends and doubled quotes.  Lines end in LF or CRLF; a blank line is nothing.
 */
#ifndef QP_CSV_H
#define QP_CSV_H

#include <stddef.h>

#include "lib/base/buf.h"

struct csv {
	const char *text;  /* the caller's */
	size_t n, at;
	size_t line;       /* where the row just read began, from 1 */
	size_t next_line;
	char **column;
	size_t columns;
};

/* Reads the header.  ERR_DATA ("FILE: line N") as csv_next. */
int csv_open(struct csv *c, const char *text, size_t n, const char *where,
	     struct err *e) MUST_USE;
void csv_close(struct csv *c);

/* 1: the next row as {"column": "cell", ...} in out (cleared first); 0: no more; -1: ERR_DATA for a
 * quote that does not close or stands inside a cell, or a row of another length. */
int csv_next(struct csv *c, struct buf *out, const char *where, struct err *e) MUST_USE;

#endif
