/* SPDX-License-Identifier: Apache-2.0 */
/*
 * progress.h - one line on a terminal: what, i of n, rate, time left
 *
 * Draws only if stderr is a terminal (or QP_PROGRESS=1), the program is not quiet and more
 * than a second has passed; at most 5 times a second; erased before any message.  Whoever reads
 * stderr may stop doing so: what cannot be written there is dropped, without SIGPIPE.
 */
#ifndef QP_PROGRESS_H
#define QP_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

void progress_start(const char *what, uint64_t total, const char *unit, bool quiet);
void progress_step(uint64_t done); /* absolute; cheap enough to call in any loop */
void progress_clear(void);         /* erase the line, if one is drawn */
void progress_finish(void);
void progress_say(const char *s);  /* erase the line, then print s as it is on stderr */

#endif
