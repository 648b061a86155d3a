/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rtn.c - codes against the definition in f64, groups of every kind, any number of threads
 */
#include <stdlib.h>

#include "lib/base/pool.h"
#include "lib/method/rtn.h"
#include "tests/unit/tap.h"

#define ROWS 37
#define COLS 172

static float w[ROWS * COLS];

/* Every code is the nearest: no other code of the grid is closer by more than rounding. */
static bool nearest(const struct quantized *z)
{
	for (size_t i = 0; i < ROWS * COLS; i++) {
		size_t g = i / COLS * z->groups + i % COLS / z->group;
		double s = z->scale[g], zero = z->zero[g], got, best = INFINITY;

		got = fabs(w[i] - s * (z->codes[i] - zero));
		for (int c = 0; c < 1 << z->bits; c++)
			best = fmin(best, fabs(w[i] - s * (c - zero)));
		if (z->codes[i] >> z->bits || got > best + 1e-6 * s)
			return false;
	}
	return true;
}

int main(void)
{
	static const long group[] = { -1, 0, 4, 86, 1, 172 };
	struct err e = { 0 };
	struct pool *one = pool_new(1, &e), *three = pool_new(3, &e);
	struct quantized z = { 0 }, y = { 0 };
	struct quantizer q = { .scale_dtype = DT_F16 };
	uint64_t state = 5;

	for (size_t i = 0; i < ROWS * COLS; i++) {
		state = state * 6364136223846793005u + 1442695040888963407u;
		w[i] = (float)(state >> 40) * 0x1p-23f - 1;
	}
	for (int bits = 2; bits <= 8; bits += 2)
		for (int i = 0; i < 6; i++) {
			q.bits = bits;
			q.sym = i % 2;
			q.group = group[i];
			ok(rtn_quantize(&z, &q, w, ROWS, COLS, one, "x", &e) == 0 && nearest(&z),
			   "%d bits, group %ld, %s: every weight has its nearest code", bits,
			   group[i], q.sym ? "sym" : "asym");
			ok(rtn_quantize(&y, &q, w, ROWS, COLS, three, "x", &e) == 0 &&
			   memcmp(y.codes, z.codes, ROWS * COLS) == 0 &&
			   memcmp(y.scale, z.scale, ROWS * z.groups * sizeof(float)) == 0 &&
			   memcmp(y.zero, z.zero, ROWS * z.groups) == 0, "with three threads too");
		}
	q.group = 0;
	ok(rtn_quantize(&z, &q, w, ROWS, COLS, one, "x", &e) == 0 && z.per_tensor &&
	   z.scale[0] == z.scale[ROWS - 1], "group 0: one scale for all");
	q.group = 128;
	ok(rtn_quantize(&z, &q, w, ROWS, COLS, one, "layers.0.mlp.down_proj", &e) < 0 &&
	   strstr(e.what, "172 columns; sizes that do: 1, 2, 4, 43, 86, 172"), "%s: %s", e.where,
	   e.what);
	q.group = -1;
	w[COLS + 1] = -INFINITY;
	ok(rtn_quantize(&z, &q, w, ROWS, COLS, one, "x", &e) < 0 &&
	   strstr(e.what, "row 1 column 1"), "%s", e.what);
	quantized_release(&z);
	quantized_release(&y);
	pool_free(one);
	pool_free(three);
	return done();
}
