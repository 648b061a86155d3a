/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hash.c - XXH3 by libxxhash
 *
 * On x86 the functions that look at the processor: the plain ones keep to SSE2, at half the speed.
 */
#include "lib/base/hash.h"

#include <assert.h>
#include <stdlib.h>
#include <xxhash.h>

#if defined(__x86_64__) && defined(__has_include)
#if __has_include(<xxh_x86dispatch.h>)
#include <xxh_x86dispatch.h> /* renames XXH3_*bits and XXH3_*bits_update */
#endif
#endif

struct hash {
	XXH3_state_t *state; /* 64-byte aligned, hence not a member */
	int bits;
};

struct hash *hash_new(int bits)
{
	assert(bits == 64 || bits == 128);
	struct hash *h = malloc(sizeof(*h));
	if (!h)
		return NULL;
	h->bits = bits;
	h->state = XXH3_createState();
	if (!h->state) {
		free(h);
		return NULL;
	}
	hash_reset(h);
	return h;
}

void hash_free(struct hash *h)
{
	if (!h)
		return;
	XXH3_freeState(h->state);
	free(h);
}

void hash_reset(struct hash *h)
{
	if (h->bits == 64)
		XXH3_64bits_reset(h->state);
	else
		XXH3_128bits_reset(h->state);
}

void hash_add(struct hash *h, const void *p, size_t n)
{
	if (n == 0)
		return;
	if (h->bits == 64)
		XXH3_64bits_update(h->state, p, n);
	else
		XXH3_128bits_update(h->state, p, n);
}

uint64_t hash_get64(const struct hash *h)
{
	assert(h->bits == 64);
	return XXH3_64bits_digest(h->state);
}

void hash_get128(const struct hash *h, uint64_t *high, uint64_t *low)
{
	assert(h->bits == 128);
	XXH128_hash_t d = XXH3_128bits_digest(h->state);
	*high = d.high64;
	*low = d.low64;
}

uint64_t hash64(const void *p, size_t n)
{
	return XXH3_64bits(p, n);
}

void hash128(const void *p, size_t n, uint64_t *high, uint64_t *low)
{
	XXH128_hash_t d = XXH3_128bits(p, n);
	*high = d.high64;
	*low = d.low64;
}
