/* SPDX-License-Identifier: Apache-2.0 */
/*
 * replay.c - runs a fuzz target without a fuzzer: the seeds, and damage done to them
 *
 *     replay-linked-target SEED...
 *
 * Each seed as it is, cut short at 100 places, and with random damage of four kinds (a bit, a
 * byte, a run of bytes moved over others, a number written in place of a digit).  The damage is
 * the same in every run.  TAP: a line a seed; a target that finds a fault aborts.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#define LARGEST (1 << 17)
#define ROUNDS 400

static uint64_t state = 88172645463325252u;

static size_t random_below(size_t n)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return n ? (size_t)(state % n) : 0;
}

static void damage(uint8_t *p, size_t n)
{
	size_t at = random_below(n), from = random_below(n), len;

	switch (random_below(4)) {
	case 0:
		p[at] ^= (uint8_t)(1u << random_below(8));
		break;
	case 1:
		p[at] = (uint8_t)random_below(256);
		break;
	case 2:
		len = random_below(n - (at > from ? at : from)) % 64;
		memmove(p + at, p + from, len);
		break;
	default:
		for (size_t i = 0; i < n; i++, at = (at + 1) % n)
			if (p[at] >= '0' && p[at] <= '9') {
				p[at] = (uint8_t)('0' + random_below(10));
				break;
			}
	}
}

/* The target gets memory of exactly n bytes, so that a sanitizer sees what reads beyond. */
static void run(const uint8_t *data, size_t n)
{
	uint8_t *copy = malloc(n ? n : 1);

	if (!copy)
		abort();
	memcpy(copy, data, n);
	LLVMFuzzerTestOneInput(copy, n);
	free(copy);
}

static int replay(const char *path)
{
	static uint8_t seed[LARGEST], work[LARGEST];
	FILE *f = fopen(path, "rb");
	size_t n = f ? fread(seed, 1, sizeof(seed), f) : 0;

	if (!f || ferror(f) || !n)
		return -1;
	fclose(f);
	run(seed, n);
	for (size_t i = 0; i < 100; i++)
		run(seed, n * i / 100);
	for (int round = 0; round < ROUNDS; round++) {
		memcpy(work, seed, n);
		for (size_t times = 1 + random_below(4); times; times--)
			damage(work, n);
		run(work, n);
	}
	return 0;
}

int main(int argc, char **argv)
{
	int failed = 0;

	for (int i = 1; i < argc; i++) {
		int bad = replay(argv[i]) < 0;

		printf("%sok %d - %s\n", bad ? "not " : "", i, argv[i]);
		fflush(stdout);
		failed |= bad;
	}
	printf("1..%d\n", argc - 1);
	return failed || argc < 2;
}
