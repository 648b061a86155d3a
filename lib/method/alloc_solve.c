/* SPDX-License-Identifier: Apache-2.0 */
/*
 * alloc_solve.c - a multiple-choice knapsack by lists of undominated partial solutions (alloc.h)
 */
#include <stdlib.h>
#include <string.h>

#include "lib/method/alloc.h"

#define MOST ((size_t)1 << 26)

/* So much for the items so far: what no other partial solution beats in size and cost. */
struct part {
	uint64_t size;
	double cost;
	uint32_t from; /* of the list before */
	uint8_t pick;
};

struct list {
	struct part *p;
	size_t n;
};

static int by_size(const void *a, const void *b)
{
	const struct part *x = a, *y = b;

	if (x->size != y->size)
		return x->size < y->size ? -1 : 1;
	if (x->cost != y->cost)
		return x->cost < y->cost ? -1 : 1;
	return x->pick != y->pick ? (x->pick < y->pick ? -1 : 1) :
	       (x->from > y->from) - (x->from < y->from);
}

/* Every part of `was` with every choice of the item that leaves room for what is to come. */
static int extend(struct list *now, const struct list *was, const struct alloc_item *item,
		  uint64_t room, struct err *e)
{
	struct part *p = malloc(was->n * item->n * sizeof(*p)), *kept;
	size_t n = 0, out = 0;

	if (!p)
		return err_nomem(e, "", was->n * item->n * sizeof(*p));
	for (size_t i = 0; i < was->n; i++)
		for (size_t c = 0; c < item->n; c++) {
			const struct alloc_choice *ch = &item->choice[c];

			if (was->p[i].size + ch->size <= room)
				p[n++] = (struct part){
					was->p[i].size + ch->size, was->p[i].cost + ch->cost,
					(uint32_t)i, (uint8_t)c,
				};
		}
	qsort(p, n, sizeof(*p), by_size);
	for (size_t i = 0; i < n; i++)
		if (out == 0 || p[i].cost < p[out - 1].cost)
			p[out++] = p[i];
	kept = realloc(p, (out ? out : 1) * sizeof(*p));
	now->p = kept ? kept : p;
	now->n = out;
	return 0;
}

static uint64_t smallest(const struct alloc_item *item)
{
	uint64_t least = item->choice[0].size;

	for (size_t c = 1; c < item->n; c++)
		least = item->choice[c].size < least ? item->choice[c].size : least;
	return least;
}

int alloc_solve(const struct alloc_item *items, size_t n, uint64_t budget, uint8_t *pick,
		uint64_t *least, struct err *e)
{
	struct list *lists = calloc(n + 1, sizeof(*lists));
	struct part start = { 0 };
	size_t held = 1, at;
	uint64_t rest = 0;
	int r = -1;

	if (!lists)
		return err_nomem(e, "", (n + 1) * sizeof(*lists));
	for (size_t i = 0; i < n; i++)
		rest += smallest(&items[i]);
	*least = rest;
	if (rest > budget) {
		err_set(e, ERR_DATA, "", "the budget is less than the smallest choices take");
		goto out;
	}
	lists[0] = (struct list){ &start, 1 };
	for (size_t i = 0; i < n; i++) {
		rest -= smallest(&items[i]);
		if (extend(&lists[i + 1], &lists[i], &items[i], budget - rest, e) < 0)
			goto out;
		held += lists[i + 1].n;
		if (held > MOST) {
			err_set(e, ERR_UNAVAIL, "", "sizes too many and too different to be "
				"solved exactly");
			goto out;
		}
	}
	/* Costs fall along a list: the last is the best. */
	at = lists[n].n - 1;
	for (size_t i = n; i > 0; i--) {
		pick[i - 1] = lists[i].p[at].pick;
		at = lists[i].p[at].from;
	}
	r = 0;
out:
	for (size_t i = 1; i <= n; i++)
		free(lists[i].p);
	free(lists);
	return r;
}
