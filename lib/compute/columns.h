/* SPDX-License-Identifier: Apache-2.0 */
/* columns.h - the devices backend_open chooses from; private to lib/compute */
#ifndef QP_COLUMNS_H
#define QP_COLUMNS_H

#include "lib/compute/backend.h"

int backend_cpu_open(struct backend *b, int threads, struct err *e) MUST_USE;
void backend_cpu_close(struct backend *b);

/* name and compute go together */
void backend_cpu_name(struct backend *b);
static inline const char *compute_name(enum compute c)
{
	return c == COMPUTE_BF16 ? "bf16" : c == COMPUTE_BF16X3 ? "bf16x3" : "f32";
}

#endif
