/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rope.c - rotary position tables
 */
#include "lib/model/rope.h"

#include <math.h>
#include <stdlib.h>

static double scaled(const struct model_config *c, double f)
{
	const double turns = (double)c->rope_original_positions * f / (2 * M_PI);
	double s;

	if (c->rope == ROPE_LINEAR)
		return f / c->rope_factor;
	if (c->rope != ROPE_LLAMA3 || turns > c->rope_high_freq)
		return f;
	if (turns < c->rope_low_freq)
		return f / c->rope_factor;
	s = (turns - c->rope_low_freq) / (c->rope_high_freq - c->rope_low_freq);
	return (1 - s) * f / c->rope_factor + s * f;
}

void rope_frequencies(const struct model_config *c, double *f)
{
	for (long i = 0; i < c->head_dim / 2; i++)
		f[i] = scaled(c, pow(c->rope_theta, -2.0 * (double)i / (double)c->head_dim));
}

int rope_tables(const struct model_config *c, size_t positions, float *cos_, float *sin_,
		struct err *e)
{
	const size_t half = (size_t)c->head_dim / 2;
	double *f = malloc((half + 1) * sizeof(*f));

	if (f == NULL)
		return err_nomem(e, "rotary tables", half * sizeof(*f));
	rope_frequencies(c, f);
	for (size_t p = 0; p < positions; p++)
		for (size_t i = 0; i < half; i++) {
			cos_[p * half + i] = (float)cos((double)p * f[i]);
			sin_[p * half + i] = (float)sin((double)p * f[i]);
		}
	free(f);
	return 0;
}
