/* SPDX-License-Identifier: Apache-2.0 */
/* columns.h - the devices backend_open chooses from; private to lib/compute */
#ifndef QP_COLUMNS_H
#define QP_COLUMNS_H

#include "lib/compute/backend.h"

int backend_cpu_open(struct backend *b, int threads, struct err *e) MUST_USE;
void backend_cpu_close(struct backend *b);

#endif
