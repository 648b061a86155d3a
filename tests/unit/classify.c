/* SPDX-License-Identifier: Apache-2.0 */
/*
 * classify.c - ranks of labels by hand, ties, and the figures made of them
 */
#include <stdlib.h>

#include "lib/model/classify.h"
#include "tests/unit/tap.h"

static void test_ranks(void)
{
	static const float logits[4][7] = {
		{ 1, 5, 2, 4, 3, 0, -1 },   /* order: 1 3 4 2 0 5 6 */
		{ 2, 2, 2, 2, 2, 2, 2 },    /* 0 1 2 3 4 5 6 */
		{ -9, 1, 1, 7, -3, 7, 0 },  /* 3 5 1 2 6 4 0 */
		{ 0, 1, 2, 3, 4, 5, 6 },    /* 6 5 4 3 2 1 0 */
	};
	static const int32_t label[] = { 1, 5, 5, 2 };
	static const int32_t first[4][5] = {
		{ 1, 3, 4, 2, 0 }, { 0, 1, 2, 3, 4 }, { 3, 5, 1, 2, 6 }, { 6, 5, 4, 3, 2 },
	};
	struct classify_result r;
	struct classify c;
	struct buf out = { 0 };
	struct err e;

	if (classify_init(&c, label, 4, 7, &e))
		abort();
	ok(!classify_logits(&c, 0, 1, logits[0], &e) && !classify_logits(&c, 1, 3, logits[1], &e),
	   "logits in two pieces");
	ok(c.rank[0] == 0 && c.rank[1] == 5 && c.rank[2] == 1 && c.rank[3] == 4,
	   "ranks; of equal logits the smaller class is first");
	ok(!memcmp(c.first, first, sizeof(first)), "the first five");
	ok_near(c.nll[1], log(7), 1e-12, "nll of equal logits");
	ok_near(c.nll[3], log(1 + exp(-1) + exp(-2) + exp(-3) + exp(-4) + exp(-5) + exp(-6)) + 4,
		1e-12, "nll of others");
	classify_result(&r, &c);
	ok(r.n == 4 && r.right == 1 && r.top1 == 0.25 && r.top5 == 0.75, "1 of 4, 3 of 4");
	ok_near(r.top1_error, sqrt(0.25 * 0.75 / 4), 1e-15, "with their standard errors");
	ok(!classify_table(&out, &c, "x", &e), "a table");
	ok_str(buf_str(&out),
	       "task samples       top1                 top5\n"
	       "x          4     0.2500 +- 0.2165     0.7500 +- 0.2165\n", "of one line");
	buf_clear(&out);
	ok(!classify_log(&out, &c, "x", &e) && !strncmp(buf_str(&out), "{\"task\": \"x\", "
	   "\"sample\": 0, \"gold\": 1, \"acc\": 1, \"acc_top5\": 1, \"ll\": -0.", 66) &&
	   strstr(buf_str(&out), "\"first\": [3,5,1,2,6]}\n"), "a line for each image");
	buf_release(&out);
	classify_release(&c);
}

static void test_few(void)
{
	static const float logits[] = { 1, 2, INFINITY };
	static const int32_t label[] = { 0 };
	struct classify c;
	struct buf out = { 0 };
	struct err e;

	if (classify_init(&c, label, 1, 2, &e))
		abort();
	ok(!classify_logits(&c, 0, 1, logits, &e) && c.rank[0] == 1 && c.first[0] == 1 &&
	   c.first[1] == 0 && c.first[2] == -1 && c.first[4] == -1, "fewer classes than five");
	ok(!classify_log(&out, &c, "x", &e) && strstr(buf_str(&out), "\"first\": [1,0]}"),
	   "and not more in the log");
	buf_release(&out);
	ok(classify_logits(&c, 0, 1, logits + 1, &e) == -1 && e.cls == ERR_DATA &&
	   !strcmp(e.what, "image 0: the logit of class 1 is not finite"), "infinite logits");
	classify_release(&c);
}

int main(void)
{
	test_ranks();
	test_few();
	return done();
}
