/* SPDX-License-Identifier: Apache-2.0 */
/*
 * round.h - the nearest integer, in loops that are to be vectorised
 */
#ifndef QP_ROUND_H
#define QP_ROUND_H

/* x to the nearest integer, half to even, for |x| <= 2^22, in the default rounding mode: a sum
 * and a difference, which vectorise on every machine where rintf may be a call. */
static inline float round_even(float x)
{
	return (x + 0x1.8p23f) - 0x1.8p23f;
}

#endif
