/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tasks_run.c - the rows of tasks through a block
 */
#include "lib/model/tasks_run.h"

#define SLICE_TREES 512

static size_t rows_of(const struct tasks *t, const struct task_tree *tree)
{
	size_t rows = tree->stem;

	for (size_t i = 0; i < tree->branches; i++)
		rows += t->length[tree->first + i];
	return rows;
}

int tasks_pass(const struct tasks *t, struct forward *f, struct hidden *h,
	       void (*done)(void *arg, size_t rows), void *arg, struct err *e)
{
	struct forward_tree some[SLICE_TREES];
	size_t from = 0;

	for (size_t i = 0; i < t->n_tree;) {
		size_t n = 0, rows = 0;

		while (i < t->n_tree && n < SLICE_TREES) {
			const struct task_tree *tree = &t->tree[i];
			const size_t more = rows_of(t, tree);

			if (n > 0 && rows + more > FORWARD_SLICE)
				break;
			some[n++] = (struct forward_tree){ tree->stem, tree->branches,
							   t->length + tree->first };
			rows += more;
			i++;
		}
		if (forward_trees(f, h->x + from * h->width, some, n, e) < 0)
			return -1;
		hidden_drop(h, from, rows);
		from += rows;
		if (done != NULL)
			done(arg, rows);
	}
	return 0;
}
