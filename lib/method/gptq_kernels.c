/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gptq_kernels.c - inner loops, once for each instruction set (gptq_kernels.h)
 */
#include "lib/compute/vec.h"
#include "lib/method/gptq_kernels.h"

#include "lib/method/quantizer.h"

#define DEFINE_UPDATE(name, attribute, bytes)                                                      \
	typedef float name##_vec __attribute__((vector_size(bytes), aligned(4), may_alias));       \
	attribute static void name(float *t, size_t c, size_t j0, size_t j1, const float *l,       \
				   size_t ld)                                                      \
	{                                                                                          \
		for (size_t r = 0; r < ROWS; r += (bytes) / sizeof(float)) {                       \
			name##_vec acc[EIGHT];                                                     \
                                                                                                   \
			for (int i = 0; i < EIGHT; i++)                                            \
				acc[i] = *(name##_vec *)(t + (c + (size_t)i) * ROWS + r);          \
			for (size_t j = j0; j < j1; j++) {                                         \
				name##_vec e = *(name##_vec *)(t + j * ROWS + r);                  \
                                                                                                   \
				for (int i = 0; i < EIGHT; i++)                                    \
					acc[i] -= e * l[(size_t)i * ld + j];                       \
			}                                                                          \
			for (int i = 0; i < EIGHT; i++)                                            \
				*(name##_vec *)(t + (c + (size_t)i) * ROWS + r) = acc[i];          \
		}                                                                                  \
	}

__attribute__((always_inline))
static inline void enter_body(float *restrict t, const struct eight *g)
{
	for (size_t i = g->n; i-- > 0;) {
		const float *restrict w = g->w + i * g->np;
		float *x = t + i * ROWS, u = g->diag[i];

		for (size_t r = 0; r < ROWS; r++)
			x[r] = w[r] - x[r] * u;
		for (size_t j = 0; j < i; j++) {
			float l = g->l[i * g->ld + j];

			for (size_t r = 0; r < ROWS; r++)
				x[r] -= t[j * ROWS + r] * l;
		}
	}
}

__attribute__((always_inline))
static inline void solve_body(float *restrict t, uint8_t *restrict code, const struct eight *g,
			      float *restrict loss)
{
	for (size_t i = 0; i < g->n; i++) {
		const float *scale = g->scale[i], *zero = g->zero[i];
		float *x = t + i * ROWS, *restrict w = g->w + i * g->np;
		float inv = g->inv[i], mid = g->mid;

		for (size_t j = 0; j < i; j++) {
			float l = g->l[i * g->ld + j];

			for (size_t r = 0; r < ROWS; r++)
				x[r] -= t[j * ROWS + r] * l;
		}
		for (size_t r = 0; r < ROWS; r++) {
			float shift = zero[r] - mid, q = x[r] / scale[r] + shift, e;

			q = q < -mid ? -mid : q;
			q = q > mid - 1 ? mid - 1 : q;
			q = round_even(q);
			code[i * ROWS + r] = (uint8_t)(int)(q + mid);
			q = scale[r] * (q - shift);
			e = (x[r] - q) * inv;
			x[r] = e;
			w[r] -= q;
			loss[r] += e * e;
		}
	}
}

__attribute__((always_inline))
static inline void descend_body(float *restrict t, uint8_t *restrict code, const struct eight *g,
				float *restrict gain)
{
	for (size_t i = 0; i < g->n; i++) {
		const float *scale = g->scale[i], *zero = g->zero[i];
		float *x = t + i * ROWS, *restrict w = g->w + i * g->np;
		float inv = g->inv[i], h = g->diag[i], mid = g->mid;

		for (size_t j = 0; j < i; j++) {
			float l = g->l[i * g->ld + j];

			for (size_t r = 0; r < ROWS; r++)
				x[r] -= t[j * ROWS + r] * l;
		}
		for (size_t r = 0; r < ROWS; r++) {
			float shift = zero[r] - mid, was = (float)(int)code[i * ROWS + r] - mid, q;

			/* x / H_jj from where it stands, in steps of the grid */
			q = was + x[r] * inv / scale[r];
			q = q < -mid ? -mid : q;
			q = q > mid - 1 ? mid - 1 : q;
			q = round_even(q);
			code[i * ROWS + r] = (uint8_t)(int)(q + mid);
			q = scale[r] * (q - shift) - scale[r] * (was - shift);
			gain[r] += q * (2 * x[r] - q * h);
			x[r] = q;
			w[r] -= q;
		}
	}
}

#define DEFINE_KERNELS(name, attribute, bytes)                                                     \
	DEFINE_UPDATE(update_##name, attribute, bytes)                                             \
	attribute static void enter_##name(float *t, const struct eight *g)                        \
	{                                                                                          \
		enter_body(t, g);                                                                  \
	}                                                                                          \
	attribute static void solve_##name(float *t, uint8_t *code, const struct eight *g,         \
					   float *loss)                                            \
	{                                                                                          \
		solve_body(t, code, g, loss);                                                      \
	}                                                                                          \
	attribute static void descend_##name(float *t, uint8_t *code, const struct eight *g,       \
					     float *gain)                                          \
	{                                                                                          \
		descend_body(t, code, g, gain);                                                    \
	}                                                                                          \
	static const struct kernels name = { #name, update_##name, enter_##name, solve_##name,     \
					     descend_##name }

DEFINE_KERNELS(plain, , 16);

#if defined(__x86_64__)
DEFINE_KERNELS(avx2, __attribute__((target("avx2"))), 32);
DEFINE_KERNELS(avx512, __attribute__((target("avx512f"))), 64);
#endif

const struct kernels *kernel_set(size_t i)
{
	const struct kernels *have[4] = { &plain };
	size_t n = 1;

#if defined(__x86_64__)
	if (vec_level() >= VEC_AVX2)
		have[n++] = &avx2;
	if (vec_level() >= VEC_AVX512)
		have[n++] = &avx512;
#endif
	return i < n ? have[i] : NULL;
}

/* As update, for n < 8 columns. */
static void update_few(float *t, size_t c, size_t n, size_t j0, size_t j1, const float *l,
		       size_t ld)
{
	for (size_t i = 0; i < n; i++)
		for (size_t j = j0; j < j1; j++)
			for (size_t r = 0; r < ROWS; r++)
				t[(c + i) * ROWS + r] -= t[j * ROWS + r] * l[i * ld + j];
}

void kernels_update(const struct kernels *k, float *t, size_t c, size_t n, size_t j0, size_t j1,
		    const float *l, size_t ld)
{
	if (j0 == j1)
		return;
	for (; n >= EIGHT; c += EIGHT, n -= EIGHT, l += EIGHT * ld)
		k->update(t, c, j0, j1, l, ld);
	if (n)
		update_few(t, c, n, j0, j1, l, ld);
}
