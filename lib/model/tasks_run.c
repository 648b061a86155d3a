/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tasks_run.c - the rows of tasks through a block
 */
#include "lib/model/tasks_run.h"

int tasks_pass(const struct tasks *t, struct forward *f, struct hidden *h,
	       void (*done)(void *arg, size_t rows), void *arg, struct err *e)
{
	for (size_t i = 0, n; i < t->n_tree; i += n) {
		const struct task_tree *first = &t->tree[i];

		for (n = 1; i + n < t->n_tree && first[n].stem == first->stem;)
			n++;
		if (forward_block(f, h->x + first->row * h->width, n, first->stem, NULL, NULL,
				  e) < 0)
			return -1;
		hidden_drop(h, first->row, n * first->stem);
		if (done != NULL)
			done(arg, n * first->stem);
	}
	return 0;
}
