/* SPDX-License-Identifier: Apache-2.0 */
/*
 * slurp.h - a whole text from a file or standard input, zstd undone
 */
#ifndef QP_SLURP_H
#define QP_SLURP_H

#include "lib/base/buf.h"

/*
 * All of path (NULL or "-": standard input) appended to out.  ERR_USAGE for a terminal,
 * ERR_NOINPUT for what cannot be opened, ERR_DATA for more than max bytes.
 */
int slurp(struct buf *out, const char *path, size_t max, struct err *e) MUST_USE;

#endif
