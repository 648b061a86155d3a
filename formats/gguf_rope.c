/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gguf_rope.c - Llama 3's rotary scaling, from the factors that llama.cpp's converter made of it
 *
 * With t_i = theta^(-2i/d) / 2 pi, turns in a token, the factor f_i of frequency i is
 *     1 if P t_i > H,  F if P t_i < L,  else 1 / f_i = (1 - s) / F + s, s = (P t_i - L) / (H - L)
 * (H, L: high and low frequency factor, P: original positions).  s is linear in t, so two factors
 * between 1 and F give all but a common multiple of H, L and P.
 */
#include <math.h>
#include <stdlib.h>

#include "formats/gguf_model.h"
#include "lib/model/family.h"
#include "lib/model/rope.h"

#define TOLERANCE 1e-5 /* the converter computes frequencies in f32 */

static bool near(double a, double b)
{
	return fabs(a - b) <= TOLERANCE * fabs(b);
}

/* Does c make these factors? */
static bool makes(const struct model_config *c, const float *factor, double *plain, double *scaled)
{
	struct model_config p = *c;

	if (!(c->rope_high_freq > c->rope_low_freq && c->rope_low_freq > 0 &&
	      c->rope_original_positions >= 1 && c->rope_factor > 0))
		return false;
	p.rope = ROPE_PLAIN;
	rope_frequencies(&p, plain);
	rope_frequencies(c, scaled);
	for (long i = 0; i < c->head_dim / 2; i++)
		if (!near(factor[i], plain[i] / scaled[i]))
			return false;
	return true;
}

/* L = 1, and H and P given: P made an integer at the cost of L and H, which need not be. */
static void set(struct model_config *c, double high, double positions)
{
	double whole = fmin(fmax(rint(positions), 1), INT32_MAX), by = whole / positions;

	c->rope_low_freq = by;
	c->rope_high_freq = high * by;
	c->rope_original_positions = (long)whole;
}

/* The first frequency that is scaled wholly, and H and P with L = 1 from those before it. */
static void solve(const struct model_config *c, const float *factor, const double *plain,
		  double *high, double *positions)
{
	const long n = c->head_dim / 2;
	const double inv = 1 / c->rope_factor;
	double s[2] = { 0, 0 }, t[2] = { 0, 0 }, slope, first = 0, last = 0;
	int found = 0;

	for (long i = 0; i < n; i++) {
		double turns = plain[i] / (2 * M_PI);

		if (near(factor[i], 1)) {
			first = turns;
		} else if (near(factor[i], c->rope_factor)) {
			last = last > 0 ? last : turns;
		} else {
			/* The two that are furthest apart. */
			t[found > 0] = turns;
			s[found > 0] = (1 / (double)factor[i] - inv) / (1 - inv);
			found++;
		}
	}
	*high = 4; /* as in the published models, where less than two factors tell */
	if (found >= 2) {
		slope = (s[0] - s[1]) / (t[0] - t[1]);
		*high = 1 - 1 / (s[0] - slope * t[0]);
		*positions = slope * (*high - 1);
	} else if (found == 1) {
		*positions = (3 * s[0] + 1) / t[0];
	} else {
		*positions = last > 0 ? 0.999 / last : 1;
		*high = fmin(*high, 0.999 * *positions * first);
	}
}

int gguf_rope_llama3(struct model_config *c, const float *factor)
{
	const long n = c->head_dim / 2;
	double *plain = malloc(2 * (size_t)n * sizeof(*plain) + 1), high, positions;
	struct model_config p = *c;
	int ret = 0;

	if (!plain)
		return -1;
	c->rope = ROPE_LLAMA3;
	c->rope_factor = (double)factor[n - 1];
	p.rope = ROPE_PLAIN;
	rope_frequencies(&p, plain);
	set(c, 4, 8192);
	if (!makes(c, factor, plain, plain + n)) {
		solve(c, factor, plain, &high, &positions);
		/* Where the figures were whole they are found whole, but for rounding. */
		set(c, rint(high), rint(positions));
		if (!makes(c, factor, plain, plain + n)) {
			set(c, high, positions);
			ret = makes(c, factor, plain, plain + n) ? 0 : -1;
		}
	}
	free(plain);
	return ret;
}
