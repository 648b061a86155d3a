/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hash.h - XXH3 of a stream of bytes (not cryptographic: it finds damage, not malice)
 *
 * 64 bits for the checksums of streams, 128 for fingerprints.  The value is XXH3 with seed 0
 * and the default secret, as xxhsum -H3 and -H2 print it.
 */
#ifndef QP_HASH_H
#define QP_HASH_H

#include <stddef.h>
#include <stdint.h>

struct hash;

/* bits: 64 or 128.  Empty; NULL when out of memory. */
struct hash *hash_new(int bits);
void hash_free(struct hash *h);
void hash_reset(struct hash *h);
void hash_add(struct hash *h, const void *p, size_t n);
/* Of all added so far; more may be added after.  Of a hash of that width only. */
uint64_t hash_get64(const struct hash *h);
void hash_get128(const struct hash *h, uint64_t *high, uint64_t *low);

/* Of one piece of memory. */
uint64_t hash64(const void *p, size_t n);
void hash128(const void *p, size_t n, uint64_t *high, uint64_t *low);

#endif
