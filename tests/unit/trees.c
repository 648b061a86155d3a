/* SPDX-License-Identifier: Apache-2.0 */
/*
 * trees.c - sequences that share their beginning, computed once, against each one whole
 */
#include "lib/model/forward.h"
#include "tests/unit/tap.h"
#include "tests/unit/tiny.h"

enum { ROWS = 1024, WIDE = 8 };

static struct err e;
static struct backend be;

/* One tree of `stem` and branches len [n], alone and behind another, against its sequences. */
static double worst(struct forward *f, size_t stem, const size_t *len, size_t n)
{
	static const size_t before_len[] = { 2, 3 };
	const struct forward_tree both[] = { { 4, 2, before_len }, { stem, n, len } };
	static float x[ROWS * WIDE], y[ROWS * WIDE], z[ROWS * WIDE];
	size_t rows = 9 + stem, at;
	double max = 0;

	for (size_t i = 0; i < n; i++)
		rows += len[i];
	tiny_fill(x, rows * WIDE, 0, 2);
	memcpy(y, x, rows * WIDE * sizeof(*x));
	if (forward_trees(f, y, both, 2, &e) < 0)
		return NAN;
	at = 9 + stem;
	for (size_t i = 0; i < n; at += len[i++]) {
		memcpy(z, x + 9 * WIDE, stem * WIDE * sizeof(*x));
		memcpy(z + stem * WIDE, x + at * WIDE, len[i] * WIDE * sizeof(*x));
		if (forward_block(f, z, 1, stem + len[i], NULL, NULL, &e) < 0)
			return NAN;
		for (size_t k = 0; k < stem * WIDE; k++)
			max = fmax(max, fabs((double)(z[k] - y[9 * WIDE + k])));
		for (size_t k = 0; k < len[i] * WIDE; k++)
			max = fmax(max, fabs((double)(z[stem * WIDE + k] - y[at * WIDE + k])));
	}
	if (n > 0)
		return max;
	memcpy(z, x + 9 * WIDE, stem * WIDE * sizeof(*x));
	if (forward_block(f, z, 1, stem, NULL, NULL, &e) < 0)
		return NAN;
	for (size_t k = 0; k < stem * WIDE; k++)
		max = fmax(max, fabs((double)(z[k] - y[9 * WIDE + k])));
	return max;
}

static void test_model(const char *what, const struct model_config *c)
{
	static const size_t few[] = { 3, 3, 1, 5 }, one[] = { 7 }, many[] = { 40, 1, 50, 50, 90 };
	const struct model m = tiny_model(c);
	struct forward *f = forward_new(&m, &be, 300, &e);
	struct block b;

	block_init(&b, &m);
	if (!ok(f != NULL && tiny_block(&b, 0, &e) == 0 && forward_load(f, &b, &e) == 0,
		"%s: a block", what))
		return;
	/* Hidden states are of the order of 10. */
	ok_near(worst(f, 6, few, 4), 0, 2e-5, "%s: four short branches", what);
	ok_near(worst(f, 9, one, 1), 0, 2e-5, "%s: one branch", what);
	ok_near(worst(f, 0, few, 4), 0, 2e-5, "%s: branches of nothing", what);
	ok_near(worst(f, 12, NULL, 0), 0, 2e-5, "%s: a stem alone", what);
	ok_near(worst(f, 1, many, 5), 0, 2e-5, "%s: more than a tile of queries", what);
	ok_near(worst(f, 200, many, 5), 0, 2e-5, "%s: more than a block of keys", what);
	forward_free(f);
	block_release(&b);
}

static void test_limits(void)
{
	static const size_t len[] = { 3, 62 };
	const struct model_config c = tiny_config();
	const struct model m = tiny_model(&c);
	struct forward *f = forward_new(&m, &be, 64, &e);
	struct forward_tree t = { 3, 2, len };
	float x[68 * WIDE] = { 0 };

	ok(forward_trees(f, x, &t, 1, &e) < 0 && e.cls == ERR_BUG && strstr(e.what, "65 tokens"),
	   "a branch that ends beyond the positions");
	t = (struct forward_tree){ 0, 0, NULL };
	ok(forward_trees(f, x, &t, 1, &e) < 0 && e.cls == ERR_BUG, "a tree without a row");
	forward_free(f);
}

int main(void)
{
	struct model_config c = tiny_config();

	if (!ok(backend_open(&be, "cpu", 2, &e) == 0, "backend"))
		return done();
	c.max_positions = 512;
	test_model("grouped heads", &c);
	c.window = 5;
	test_model("a window of 5", &c);
	c.window = 150;
	test_model("a window of 150", &c);
	c.window = 0;
	c.heads = c.kv_heads = 1;
	test_model("one head", &c);
	test_limits();
	backend_close(&be);
	return done();
}
