/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rope.h - rotary position tables (Su et al., arXiv:2104.09864)
 *
 * Pair i of a head, i < head_dim/2, at position p is rotated by p f_i, f_i = theta^(-2i/head_dim),
 * changed by the configuration's scaling:
 *     linear   f_i / factor
 *     llama3   by wavelength l = 2 pi / f_i and L = the original context: f_i if
 *              l < L / high_freq; f_i / factor if l > L / low_freq; between them a mix of the two,
 *              weights s and 1 - s, s = (L / l - low_freq) / (high_freq - low_freq)
 */
#ifndef QP_ROPE_H
#define QP_ROPE_H

#include "lib/model/family.h"

/* f [head_dim / 2], radians a position. */
void rope_frequencies(const struct model_config *c, double *f);

/* cos_, sin_ [positions, head_dim/2]; angles in f64, rounded once.  0 or ERR_NOMEM. */
int rope_tables(const struct model_config *c, size_t positions, float *cos_, float *sin_,
		struct err *e) MUST_USE;

#endif
