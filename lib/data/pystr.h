/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pystr.h - what some of Python's str methods do to UTF-8 text
 *
 * Data sets and prompts of other programs are defined by Python code; white space and case are
 * what they are there (case by single characters: not the final sigma, not one to many).
 */
#ifndef QP_PYSTR_H
#define QP_PYSTR_H

#include <stddef.h>

#include "lib/base/buf.h"

/* Length of the white space character at p (n bytes left), 0 if it is none. */
size_t pystr_space(const char *p, size_t n);
/* Bytes of white space at the start; where that at the end begins. */
size_t pystr_leading(const char *p, size_t n);
size_t pystr_trailing(const char *p, size_t n);

/* Characters of valid UTF-8. */
size_t pystr_length(const char *p, size_t n);

/* s.replace(from, to): s [n] with every `from`, from left to right, appended to out. */
void pystr_replace(struct buf *out, const char *s, size_t n, const char *from, const char *to);
/* s[0].lower() + s[1:];  s.capitalize() */
void pystr_lower_first(struct buf *out, const char *s, size_t n);
void pystr_capitalize(struct buf *out, const char *s, size_t n);

#endif
