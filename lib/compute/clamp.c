/* SPDX-License-Identifier: Apache-2.0 */
/*
 * clamp.c - groups of codes classified, cut, packed (clamp.h)
 */
#include "lib/compute/clamp.h"

#include <string.h>

/* Of a packed group; OFFSETS: bytes, q - mid. */
enum form { NIBBLES, NIBBLES_BY_4, OFFSETS, BYTES };

struct span {
	int lo, hi;
};

static struct span span_of(const struct clamp *c, const int16_t *q)
{
	int16_t lo = q[0], hi = q[0];

	for (size_t i = 1; i < c->group; i++) {
		lo = q[i] < lo ? q[i] : lo;
		hi = q[i] > hi ? q[i] : hi;
	}
	return (struct span){ lo, hi };
}

/* The sum over the group of the bits that hold a code. */
static size_t sum_of_bits(const struct clamp *c, const int16_t *q)
{
	size_t sum = 0;

	for (size_t i = 0; i < c->group; i++) {
		int bits = 1;

		while (q[i] >> bits != 0)
			bits++;
		sum += (size_t)bits;
	}
	return sum;
}

enum clamp_class clamp_class(const struct clamp *c, const int16_t *q)
{
	if (c->by == CLAMP_BY_BITS) {
		const size_t sum = sum_of_bits(c, q);

		return sum <= 4 * c->group ? CLAMP_INT4 : sum <= 6 * c->group ? CLAMP_INT6 :
		       CLAMP_INT8;
	} else {
		const struct span s = span_of(c, q);

		return s.hi - s.lo <= 15 ? CLAMP_INT4 : s.hi - s.lo <= 63 ? CLAMP_INT6 :
		       CLAMP_INT8;
	}
}

/* Of codes that are not negative.  By bits none was published, and it is for storage alone. */
static int midpoint(const struct clamp *c, struct span s)
{
	return (s.lo + s.hi + (c->compat && c->by == CLAMP_BY_RANGE ? 0 : 1)) / 2;
}

/* Two's complement: & ~3 is 4 floor(v / 4), also below 0. */
static int16_t cut(const struct clamp *c, int q, int mid)
{
	const int v = mid + ((q - mid) & ~3);

	return (int16_t)(v < 0 && !c->compat ? 0 : v);
}

void clamp_group(const struct clamp *c, int16_t *q)
{
	const int mid = c->by == CLAMP_BY_BITS ? 0 : midpoint(c, span_of(c, q));

	if (clamp_class(c, q) == CLAMP_INT6)
		for (size_t i = 0; i < c->group; i++)
			q[i] = cut(c, q[i], mid);
}

/* ---- packed ---------------------------------------------------------------------- */

size_t clamp_bound(const struct clamp *c, size_t k)
{
	const size_t groups = k / c->group;

	return (groups + 3) / 4 + groups + k;
}

/*
 * The form in which a group keeps all that clamp_group leaves of it, and the midpoint.  By bits a
 * group need not be narrow, so that its class is not its form; where codes are multiples of 4 the
 * midpoint is one, too.
 */
static enum form form_of(const struct clamp *c, const int16_t *q, int *mid)
{
	const enum clamp_class class = clamp_class(c, q);
	const struct span s = span_of(c, q);
	const int step = class == CLAMP_INT6 ? 4 : 1;
	int lo, hi;

	*mid = midpoint(c, s);
	if (c->by == CLAMP_BY_BITS && step == 4)
		*mid = midpoint(c, (struct span){ s.lo / 4, s.hi / 4 }) * 4;
	lo = ((s.lo - *mid) & -step) / step;
	hi = ((s.hi - *mid) & -step) / step;
	if (lo >= -8 && hi <= 7)
		return step == 4 ? NIBBLES_BY_4 : NIBBLES;
	return c->by == CLAMP_BY_RANGE && class != CLAMP_INT8 ? OFFSETS : BYTES;
}

static size_t pack_nibbles(uint8_t *dst, const int16_t *q, size_t n, int mid, int step)
{
	for (size_t i = 0; i < n; i += 2) {
		const int a = ((q[i] - mid) & -step) / step;
		const int b = ((q[i + 1] - mid) & -step) / step;

		dst[i / 2] = (uint8_t)((a & 15) | (b & 15) << 4);
	}
	return n / 2;
}

static size_t pack_bytes(const struct clamp *c, uint8_t *dst, const int16_t *q, int less)
{
	int16_t left[CLAMP_MAX];

	memcpy(left, q, c->group * sizeof(*left));
	clamp_group(c, left);
	for (size_t i = 0; i < c->group; i++)
		dst[i] = (uint8_t)(left[i] - less);
	return c->group;
}

size_t clamp_pack(const struct clamp *c, uint8_t *dst, const int16_t *q, size_t k,
		  uint64_t count[CLAMP_CLASSES])
{
	const size_t groups = k / c->group;
	uint8_t *const mids = dst + (groups + 3) / 4;
	uint8_t *p = mids + groups;

	memset(dst, 0, (groups + 3) / 4);
	for (size_t g = 0; g < groups; g++, q += c->group) {
		int mid;
		const enum form f = form_of(c, q, &mid);

		if (count != NULL)
			count[clamp_class(c, q)]++;
		dst[g / 4] = (uint8_t)(dst[g / 4] | f << 2 * (g % 4));
		mids[g] = (uint8_t)mid;
		p += f == NIBBLES ? pack_nibbles(p, q, c->group, mid, 1) :
		     f == NIBBLES_BY_4 ? pack_nibbles(p, q, c->group, mid, 4) :
		     pack_bytes(c, p, q, f == OFFSETS ? mid : 0);
	}
	return (size_t)(p - dst);
}

static int16_t signed_nibble(unsigned v)
{
	return (int16_t)((int)((v & 15) ^ 8) - 8);
}

static size_t unpack_nibbles(const struct clamp *c, int16_t *q, const uint8_t *src, int mid,
			     int step)
{
	for (size_t i = 0; i < c->group; i++) {
		const int v = mid + step * signed_nibble((unsigned)src[i / 2] >> 4 * (i % 2));

		q[i] = (int16_t)(v < 0 && !c->compat ? 0 : v);
	}
	return c->group / 2;
}

static size_t unpack_bytes(const struct clamp *c, int16_t *q, const uint8_t *src, enum form f,
			   int mid)
{
	for (size_t i = 0; i < c->group; i++)
		q[i] = (int16_t)(f == OFFSETS ? mid + (int8_t)src[i] : src[i]);
	return c->group;
}

size_t clamp_unpack(const struct clamp *c, int16_t *q, const uint8_t *src, size_t k)
{
	const size_t groups = k / c->group;
	const uint8_t *const mids = src + (groups + 3) / 4;
	const uint8_t *p = mids + groups;

	for (size_t g = 0; g < groups; g++, q += c->group) {
		const enum form f = (enum form)(src[g / 4] >> 2 * (g % 4) & 3);

		p += f == NIBBLES ? unpack_nibbles(c, q, p, mids[g], 1) :
		     f == NIBBLES_BY_4 ? unpack_nibbles(c, q, p, mids[g], 4) :
		     unpack_bytes(c, q, p, f, mids[g]);
	}
	return (size_t)(p - src);
}
