/* SPDX-License-Identifier: Apache-2.0 */
/*
 * clamp.h - codes of 8 bits cut to 4, where a group of channels needs few (QwT-LLM's "Clamp")
 *
 * The codes of a token, 0 ... 255, in groups of consecutive channels.  With lo and hi the least
 * and the greatest of a group and mid = ceil((lo + hi) / 2), by range:
 *     hi - lo <= 15         4 bits hold q - mid: nothing is lost
 *     15 < hi - lo <= 63    q becomes mid + 4 floor((q - mid) / 4), 4 bits: 0 to 3 lower
 *     63 < hi - lo          stays as it is, 8 bits
 * By bits, as the system did before: mid = 0, and what is compared with 4 and 6 is the mean over
 * the group of floor(log2(max(q, 1))) + 1.
 *
 * compat takes mid = floor((lo + hi) / 2), as published.  Then groups whose range is 15 or 63
 * have a code 8 or 32 above mid, which no signed nibble holds; pack leaves them in bytes.  And a
 * code may become less than 0, down to -2, which is 0 without compat.  (As published mid is
 * computed in bf16, and so may be off by one more; here it is not.)
 *
 * Packed, a token is 2 bits a group for its form, a byte a group for its midpoint, and then each
 * group's codes, by form: 0 nibbles q - mid, 1 nibbles (q - mid) / 4, 2 bytes q - mid, 3 bytes q;
 * in two's complement, even channels in the low nibble.
 */
#ifndef QP_CLAMP_H
#define QP_CLAMP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CLAMP_MAX 1024 /* channels in a group, at most */

enum clamp_by { CLAMP_BY_RANGE, CLAMP_BY_BITS };
/* What a group needs: at most 4 bits, 5 or 6, 7 or 8. */
enum clamp_class { CLAMP_INT4, CLAMP_INT6, CLAMP_INT8, CLAMP_CLASSES };

struct clamp {
	size_t group;     /* even, at most CLAMP_MAX, a divisor of the token's width; 0: no clamp */
	enum clamp_by by;
	bool compat;
};

enum clamp_class clamp_class(const struct clamp *c, const int16_t *q);
/* A group, in place. */
void clamp_group(const struct clamp *c, int16_t *q);

/* Bytes that k codes take at most, packed. */
size_t clamp_bound(const struct clamp *c, size_t k);
/* k codes of 0 ... 255, not clamped yet, to their packed form; its bytes.  count, unless NULL: each
 * group is counted in its class. */
size_t clamp_pack(const struct clamp *c, uint8_t *dst, const int16_t *q, size_t k,
		  uint64_t count[CLAMP_CLASSES]);
/* And back, to what clamp_group makes of them.  The bytes read. */
size_t clamp_unpack(const struct clamp *c, int16_t *q, const uint8_t *src, size_t k);

#endif
