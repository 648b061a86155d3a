/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rng.c - the generators against published values
 */
#include <stddef.h>

#include "lib/data/rng.h"
#include "tests/unit/tap.h"

static void test_splitmix64(void)
{
	/* Seed 1234567: Rosetta Code, "Pseudo-random numbers/Splitmix64". */
	static const uint64_t want[] = {
		6457827717110365317u, 3203168211198807973u, 9817491932198370423u,
		4593380528125082431u, 16408922859458223821u
	};
	uint64_t s = 1234567;

	for (size_t i = 0; i < sizeof(want) / sizeof(*want); i++)
		ok(splitmix64(&s) == want[i], "splitmix64, value %zu", i);
}

static void test_xoshiro(void)
{
	/* State 1, 2, 3, 4: the authors' C code, as in the tests of Rust's rand_xoshiro. */
	static const uint64_t want[] = {
		11520u, 0u, 1509978240u, 1215971899390074240u, 1216172134540287360u,
		607988272756665600u, 16172922978634559625u, 8476171486693032832u,
		10595114339597558777u, 2904607092377533576u
	};
	struct rng r = { .s = { 1, 2, 3, 4 } };

	for (size_t i = 0; i < sizeof(want) / sizeof(*want); i++)
		ok(rng_next(&r) == want[i], "xoshiro256**, value %zu", i);
}

static void test_seed(void)
{
	struct rng r;
	uint64_t s = 42;

	rng_init(&r, 42);
	for (int i = 0; i < 4; i++)
		ok(r.s[i] == splitmix64(&s), "the state is filled by splitmix64, word %d", i);
}

static void test_below(void)
{
	unsigned count[6] = { 0 };
	bool inside = true;
	struct rng r, q;

	rng_init(&r, 1);
	for (int i = 0; i < 60000; i++) {
		uint64_t x = rng_below(&r, 6);

		inside = inside && x < 6;
		count[x % 6]++;
	}
	ok(inside, "below 6");
	for (int i = 0; i < 6; i++) /* 10000 +- 5 standard deviations */
		ok(count[i] > 9540 && count[i] < 10460, "%d comes up %u times of 60000", i,
		   count[i]);
	ok(rng_below(&r, 1) == 0, "below 1 there is only 0");
	/* 2^64 - 1 = UINT64_MAX values: only the topmost is drawn again. */
	rng_init(&r, 7);
	rng_init(&q, 7);
	ok(rng_below(&r, UINT64_MAX) == rng_next(&q), "a bound of 2^64-1 takes values as they are");
	/* 2^64 mod (2^63 + 1) = 2^63 - 1: the values above 2^63, nearly half, are drawn again. */
	rng_init(&r, 9);
	rng_init(&q, 9);
	inside = true;
	for (int i = 0; i < 1000; i++) {
		uint64_t x;

		do
			x = rng_next(&q);
		while (x > 1ull << 63);
		inside = inside && rng_below(&r, (1ull << 63) + 1) == x % ((1ull << 63) + 1);
	}
	ok(inside, "a bound just above 2^63 draws again what is beyond a multiple of it");
}

int main(void)
{
	test_splitmix64();
	test_xoshiro();
	test_seed();
	test_below();
	return done();
}
