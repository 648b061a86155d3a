/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sha256.h - FIPS 180-4, for goldens that are digests
 */
#ifndef QP_SHA256_H
#define QP_SHA256_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

static inline uint32_t sha256_ror(uint32_t x, int n)
{
	return x >> n | x << (32 - n);
}

/* The first 32 bits of the fraction of a root of a small prime, exactly: long double has 64. */
static inline uint32_t sha256_fraction(long double root)
{
	return (uint32_t)((root - floorl(root)) * 0x1p32L);
}

static inline void sha256_tables(uint32_t k[64], uint32_t h[8])
{
	int n = 0;

	for (int p = 2; n < 64; p++) {
		int d = 2;

		while (d * d <= p && p % d)
			d++;
		if (d * d <= p)
			continue;
		if (n < 8)
			h[n] = sha256_fraction(sqrtl(p));
		k[n++] = sha256_fraction(cbrtl(p));
	}
}

static inline void sha256_block(uint32_t h[8], const uint32_t k[64], const uint8_t *p)
{
	uint32_t w[64], s[8];

	for (int i = 0; i < 16; i++)
		w[i] = (uint32_t)p[4 * i] << 24 | (uint32_t)p[4 * i + 1] << 16 |
		       (uint32_t)p[4 * i + 2] << 8 | p[4 * i + 3];
	for (int i = 16; i < 64; i++)
		w[i] = w[i - 16] + w[i - 7] +
		       (sha256_ror(w[i - 15], 7) ^ sha256_ror(w[i - 15], 18) ^ w[i - 15] >> 3) +
		       (sha256_ror(w[i - 2], 17) ^ sha256_ror(w[i - 2], 19) ^ w[i - 2] >> 10);
	memcpy(s, h, sizeof(s));
	for (int i = 0; i < 64; i++) {
		uint32_t a = s[0], e = s[4];
		uint32_t t = s[7] + (sha256_ror(e, 6) ^ sha256_ror(e, 11) ^ sha256_ror(e, 25)) +
			     ((e & s[5]) ^ (~e & s[6])) + k[i] + w[i];
		uint32_t u = (sha256_ror(a, 2) ^ sha256_ror(a, 13) ^ sha256_ror(a, 22)) +
			     ((a & s[1]) ^ (a & s[2]) ^ (s[1] & s[2]));

		memmove(s + 1, s, 7 * sizeof(*s));
		s[4] += t;
		s[0] = t + u;
	}
	for (int i = 0; i < 8; i++)
		h[i] += s[i];
}

static inline void sha256_hex(const uint8_t *p, size_t n, char hex[65])
{
	uint32_t k[64], h[8];
	uint8_t last[128] = { 0 };
	size_t rest = n % 64, tail = rest < 56 ? 64 : 128;
	uint64_t bits = (uint64_t)n * 8;

	sha256_tables(k, h);
	for (size_t i = 0; i + 64 <= n; i += 64)
		sha256_block(h, k, p + i);
	memcpy(last, p + n - rest, rest);
	last[rest] = 0x80;
	for (size_t i = 0; i < 8; i++)
		last[tail - 1 - i] = (uint8_t)(bits >> 8 * i);
	for (size_t i = 0; i < tail; i += 64)
		sha256_block(h, k, last + i);
	for (int i = 0; i < 8; i++)
		snprintf(hex + 8 * i, 9, "%08x", (unsigned)h[i]);
}

#endif
