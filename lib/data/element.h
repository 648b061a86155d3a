/* SPDX-License-Identifier: Apache-2.0 */
/*
 * element.h - single elements of a tensor as text, and back, without loss
 */
#ifndef QP_ELEMENT_H
#define QP_ELEMENT_H

#include <stdbool.h>
#include <stddef.h>

#include "lib/base/buf.h"
#include "lib/data/dtype.h"

/* Floats and integers of whole bytes, but not F8: those print as numbers. */
bool element_has_text(enum dtype t);

/* One element at p: a hex float, inf, nan, -nan, nan'7fc00001', or a decimal integer. */
void element_print(struct buf *out, enum dtype t, const void *p);

/*
 * The reverse, into p.  Decimal floats are rounded half to even (F16 and BF16 by way of f64).
 * NULL, or what is wrong: "not a number", "out of range".
 */
const char *element_scan(void *p, enum dtype t, const char *word);

#endif
