/* SPDX-License-Identifier: Apache-2.0 */
/*
 * usage.h - what this process has used: time and memory, for -v
 */
#ifndef QP_USAGE_H
#define QP_USAGE_H

#include <stdint.h>

double usage_seconds(void);     /* monotonic, since some fixed moment */
double usage_cpu_seconds(void); /* of all processors, so far */
uint64_t usage_peak_bytes(void); /* largest resident set so far */

#endif
