/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rng.h - pseudo-random numbers that are the same everywhere
 *
 * xoshiro256** 1.0 by Blackman and Vigna, "Scrambled Linear Pseudorandom Number Generators"
 * (ACM TOMS 47, 2021), its state filled by splitmix64 from a seed, as they advise.  Not for
 * secrets.
 */
#ifndef QP_RNG_H
#define QP_RNG_H

#include <stdint.h>

struct rng {
	uint64_t s[4];
};

/* The generator of Steele, Lea and Flood (OOPSLA 2014); steps *state. */
uint64_t splitmix64(uint64_t *state);

void rng_init(struct rng *r, uint64_t seed);
uint64_t rng_next(struct rng *r);
/* Uniform in 0 .. n-1, n > 0, without bias (values beyond a multiple of n are drawn again). */
uint64_t rng_below(struct rng *r, uint64_t n);

#endif
