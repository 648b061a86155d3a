/* SPDX-License-Identifier: Apache-2.0 */
/*
 * alloc.c - the knapsack against every combination there is
 */
#include <stdlib.h>

#include "lib/method/alloc.h"
#include "tests/unit/tap.h"
#include "tests/unit/tiny.h"

enum { MOST_ITEMS = 7 };

struct best {
	bool any;
	uint64_t size;
	double cost;
};

/* All choices of the items from i on. */
static void brute(const struct alloc_item *items, size_t n, size_t i, uint64_t size, double cost,
		  uint64_t budget, struct best *best)
{
	if (i < n) {
		for (size_t c = 0; c < items[i].n; c++)
			brute(items, n, i + 1, size + items[i].choice[c].size,
			      cost + items[i].choice[c].cost, budget, best);
		return;
	}
	if (size > budget || (best->any && (cost > best->cost ||
					    (cost == best->cost && size >= best->size))))
		return;
	*best = (struct best){ true, size, cost };
}

/* Whole costs, so that sums are exact and ties happen; sizes of any kind. */
static void fill(struct alloc_item *items, size_t n, int round)
{
	for (size_t i = 0; i < n; i++) {
		items[i].n = 1 + (size_t)((tiny_random() + 1) * 2.9);
		for (size_t c = 0; c < items[i].n; c++) {
			items[i].choice[c].size = (uint64_t)((tiny_random() + 1) *
							     (round % 2 ? 20 : 5e5)) + 1;
			items[i].choice[c].cost = floor((tiny_random() + 1) * 30);
		}
	}
}

static void against_brute_force(void)
{
	struct alloc_item items[MOST_ITEMS];
	uint8_t pick[MOST_ITEMS];
	int wrong = 0, unmet = 0, met = 0;

	for (int round = 0; round < 2000; round++) {
		const size_t n = 1 + (size_t)round % MOST_ITEMS;
		struct best best = { 0 };
		uint64_t most = 0, least = 0, budget, size = 0;
		double cost = 0;
		struct err e = { 0 };
		int r;

		fill(items, n, round);
		for (size_t i = 0; i < n; i++)
			most += items[i].choice[0].size;
		budget = (uint64_t)((double)most * (0.6 + 0.5 * tiny_random()));
		brute(items, n, 0, 0, 0, budget, &best);
		r = alloc_solve(items, n, budget, pick, &least, &e);
		if (!best.any) {
			unmet++;
			wrong += r == 0 || e.cls != ERR_DATA || least <= budget;
			continue;
		}
		met++;
		for (size_t i = 0; r == 0 && i < n; i++) {
			size += items[i].choice[pick[i]].size;
			cost += items[i].choice[pick[i]].cost;
		}
		wrong += r < 0 || cost != best.cost || size != best.size;
	}
	ok(wrong == 0, "cost and size of every combination's best: %d of 2000 differ", wrong);
	ok(unmet > 50 && met > 1000, "%d budgets could not be met, %d could", unmet, met);
}

/* 32 blocks of 7B shapes, seven linears each, six widths: it must not take long or much. */
static void large(void)
{
	static struct alloc_item items[224];
	static uint8_t pick[224];
	uint64_t least, budget = 0, size = 0;
	struct err e = { 0 };

	for (size_t i = 0; i < 224; i++) {
		static const uint64_t n[7] = { 16, 16, 16, 16, 43, 43, 43 };

		items[i].n = 6;
		for (size_t c = 0; c < 6; c++) {
			items[i].choice[c].size = n[i % 7] * (2 + c) * 1048576;
			items[i].choice[c].cost = (1.5 + tiny_random()) * exp2(-2 * (double)c);
		}
		budget += n[i % 7] * 4 * 1048576;
	}
	ok(alloc_solve(items, 224, budget, pick, &least, &e) == 0, "224 linears %s", e.what);
	for (size_t i = 0; i < 224; i++)
		size += items[i].choice[pick[i]].size;
	ok(size <= budget && size > budget - 43 * 1048576, "the budget is used");
}

static void widths(void)
{
	static const char *const bad[] = { "", "1", "9", "4,", "4 8", "44", "4,,8", ",4" };
	unsigned w;
	struct err e = { 0 };

	ok(alloc_parse_widths("2,4,8", &w, &e) == 0 && w == 0x114, "2,4,8");
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		ok(alloc_parse_widths(bad[i], &w, &e) < 0 && e.cls == ERR_USAGE, "'%s'", bad[i]);
}

int main(void)
{
	against_brute_force();
	large();
	widths();
	return done();
}
