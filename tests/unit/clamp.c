/* SPDX-License-Identifier: Apache-2.0 */
/*
 * clamp.c - codes clamped, for every least and greatest of a group, and packed
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "lib/compute/quant.h"
#include "tests/unit/tap.h"
#include "tests/unit/tiny.h"

enum { N = 256 };

/* lo, hi, and all between: a group that has every code of its range. */
static void every_code(int16_t *q, int lo, int hi)
{
	for (int i = 0; i < N; i++)
		q[i] = (int16_t)(lo + i % (hi - lo + 1));
}

/* The published formula, in doubles. */
static int published(int q, int lo, int hi, bool ceil_mid)
{
	const double mid = ceil_mid ? ceil((lo + hi) / 2.0) : floor((lo + hi) / 2.0);
	double v = q - mid;

	if (hi - lo > 15 && hi - lo <= 63)
		v = floor(v / 4) * 4;
	v += mid;
	return (int)(ceil_mid && v < 0 ? 0 : v);
}

/* Packed, in nibbles? */
static bool in_nibbles(size_t bytes)
{
	return bytes == 1 + 1 + N / 2;
}

struct seen {
	int wrong, changed, raised, lowered, unlike, bytes[256]; /* bytes: not nibbles, by range */
	int below;
};

static void try_pair(const struct clamp *c, int lo, int hi, struct seen *s)
{
	int16_t q[N], was[N], back[N];
	uint8_t packed[2 + N];
	uint64_t count[CLAMP_CLASSES] = { 0 };
	const int range = hi - lo;
	size_t n;

	every_code(was, lo, hi);
	memcpy(q, was, sizeof(q));
	clamp_group(c, q);
	for (int i = 0; i < N; i++) {
		s->wrong += q[i] != published(was[i], lo, hi, !c->compat);
		s->changed += (range <= 15 || range > 63) && q[i] != was[i];
		s->raised += q[i] > was[i];
		s->lowered += was[i] - q[i] > 3;
		s->below += q[i] < 0;
	}
	n = clamp_pack(c, packed, was, N, count);
	s->unlike += n > clamp_bound(c, N) || clamp_unpack(c, back, packed, N) != n ||
		     memcmp(back, q, sizeof(q)) != 0 ||
		     count[range <= 15 ? CLAMP_INT4 : range <= 63 ? CLAMP_INT6 : CLAMP_INT8] != 1;
	s->bytes[range] += !in_nibbles(n);
}

static void test_every_pair(bool compat)
{
	const struct clamp c = { .group = N, .compat = compat };
	const char *const mid = compat ? "floor" : "ceil";
	struct seen s = { 0 };
	int misfits = 0, wide = 0;

	for (int lo = 0; lo < 256; lo++)
		for (int hi = lo; hi < 256; hi++)
			try_pair(&c, lo, hi, &s);
	ok(s.wrong == 0, "%s: as published, in doubles", mid);
	ok(s.changed == 0, "%s: ranges to 15 and above 63 stay", mid);
	ok(s.raised == 0 && s.lowered == 0, "%s: the others 0 to 3 lower, never higher", mid);
	ok(s.unlike == 0, "%s: unpacked, what was packed is what is computed with", mid);
	for (int r = 0; r < 64; r++)
		misfits += s.bytes[r];
	for (int r = 64; r < 256; r++)
		wide += s.bytes[r] == 256 - r;
	ok(wide == 192, "%s: what is wider lies in bytes", mid);
	if (!compat) {
		ok(misfits == 0 && s.below == 0, "ceil: nibbles hold all the others; none below 0");
		return;
	}
	ok(s.bytes[15] == 241 && s.bytes[63] == 193 && misfits == 241 + 193,
	   "floor: ranges of 15 and 63 do not fit a nibble: %d", misfits);
	ok(s.below > 0, "floor: some codes are below 0");
}

static void test_bits(void)
{
	const struct clamp c = { .group = 16, .by = CLAMP_BY_BITS };
	int16_t q[16 * 64], back[16 * 64];
	uint8_t packed[16 * 64 + 80];
	uint64_t count[CLAMP_CLASSES] = { 0 };
	bool same = true;
	size_t n;

	for (int i = 0; i < 16; i++)
		q[i] = i < 8 ? 63 : 3; /* 6 and 2 bits: 4 */
	ok(clamp_class(&c, q) == CLAMP_INT4, "by bits: a mean of 4");
	q[8] = 4;
	ok(clamp_class(&c, q) == CLAMP_INT6, "by bits: a little more");
	clamp_group(&c, q);
	ok(q[0] == 60 && q[8] == 4 && q[9] == 0, "by bits: two bits less, from 0");
	for (int i = 0; i < 16; i++)
		q[i] = 64;
	ok(clamp_class(&c, q) == CLAMP_INT8, "by bits: 7");
	for (int i = 0; i < 16 * 64; i++)
		q[i] = (int16_t)(i * 37 % (1 + i / 4));
	n = clamp_pack(&c, packed, q, 16 * 64, count);
	ok(n <= clamp_bound(&c, 16 * 64) && clamp_unpack(&c, back, packed, 16 * 64) == n &&
	   count[0] + count[1] + count[2] == 64 && count[0] && count[1] && count[2],
	   "by bits: packed in %zu bytes", n);
	for (int i = 0; i < 16 * 64; i += 16) {
		clamp_group(&c, q + i);
		same = same && memcmp(q + i, back + i, 32) == 0;
	}
	ok(same, "by bits: unpacked, what was packed is what is computed with");
}

/* Values quantized with a clamp are the codes quantized without, packed, unpacked, taken back. */
static void test_values(struct quant q, const char *what)
{
	enum { K = 512 };
	static float x[K], y[K], z[K];
	int8_t code[K], clamped[K];
	int16_t c[K];
	uint8_t packed[K + 64];
	float scale[8];
	int32_t zero[8];
	struct quant_codes codes = { code, scale, zero };
	struct quant plain = q;
	bool same = true, same_codes = true;
	size_t at, n = K;

	plain.clamp.group = 0;
	tiny_fill(x, K, 0, 1);
	for (int i = 0; i < K; i++) /* narrow groups, middling ones, a wide one */
		x[i] *= i < 128 ? 0.03f : i < 384 ? 0.2f : 1;
	ok(quant_row(&plain, y, x, K, &codes, &at) == 0, "%s: codes", what);
	for (int i = 0; i < K; i++)
		c[i] = (int16_t)(code[i] + 128);
	clamp_pack(&q.clamp, packed, c, K, NULL);
	clamp_unpack(&q.clamp, c, packed, K);
	if (q.per == QUANT_GROUP)
		n = q.group;
	codes.code = clamped;
	memcpy(z, x, sizeof(z));
	ok(quant_row(&q, z, z, K, quant_has_codes(&q) ? &codes : NULL, &at) == 0, "%s: run", what);
	for (int i = 0; i < K; i++) {
		same = same && z[i] == (float)(c[i] - 128 - zero[(size_t)i / n]) *
					scale[(size_t)i / n];
		same_codes = same_codes && clamped[i] == c[i] - 128;
	}
	ok(same, "%s: values are those of what is packed", what);
	ok(memcmp(y, z, sizeof(y)) != 0, "%s: and not those without a clamp", what);
	ok(same_codes == quant_has_codes(&q), "%s: codes, too, if int8_t holds them", what);
}

int main(void)
{
	struct quant q = { .bits = 8, .rule = QUANT_AWQ, .per = QUANT_TOKEN, .clip = 1,
			   .clamp = { .group = 64 } };

	test_every_pair(false);
	test_every_pair(true);
	test_bits();
	test_values(q, "awq");
	q.clamp.compat = true;
	test_values(q, "awq, floor");
	q.clamp.compat = false;
	q.per = QUANT_GROUP;
	q.group = 256;
	test_values(q, "awq, two groups");
	q.per = QUANT_TOKEN;
	q.rule = QUANT_QUAROT;
	q.sym = true;
	test_values(q, "symmetric");
	return done();
}
