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

#define LANES 16 /* columns looked at together */

/* What the codes of LANES columns would best be; is any of them another? */
__attribute__((always_inline))
static inline unsigned best_codes(float best[LANES], const struct descent *d, size_t at)
{
	unsigned moves = 0;

	for (size_t i = 0; i < LANES; i++) {
		/* G / H_jj from where it stands, in steps of the grid */
		float q = d->code[at + i] + d->g[at + i] * d->inv[at + i] / d->scale[at + i];

		q = q < 0 ? 0 : q;
		q = q > d->top ? d->top : q;
		best[i] = round_even(q);
		moves |= best[i] != d->code[at + i];
	}
	return moves;
}

/* Code j moves there; by how much what it stands for does. */
__attribute__((always_inline))
static inline float move(struct descent *d, size_t j, float to)
{
	const float scale = d->scale[j], zero = d->zero[j], x = d->g[j];
	const float by = scale * (to - zero) - scale * (d->code[j] - zero);

	d->code[j] = to;
	d->at[d->moves] = (uint16_t)j;
	d->by[d->moves++] = by;
	d->gain += by * (2 * x - by * d->h[j * d->ld + j]);
	return by;
}

/* axpy: g[0 .. n) -= by h[0 .. n) */
__attribute__((always_inline))
static inline void descend_body(struct descent *d,
				void (*axpy)(float *g, size_t n, float by, const float *h))
{
	const size_t whole = d->n / LANES * LANES;
	float best[LANES];

	for (size_t at = 0; at < whole; at += LANES)
		/* Lanes before i have had their turn. */
		for (size_t i = 0; i < LANES && best_codes(best, d, at); i++) {
			while (i < LANES && best[i] == d->code[at + i])
				i++;
			if (i < LANES)
				axpy(d->g, d->n, move(d, at + i, best[i]),
				     d->h + (at + i) * d->ld);
		}
	for (size_t j = whole; j < d->n; j++) {
		float q = d->code[j] + d->g[j] * d->inv[j] / d->scale[j];

		q = q < 0 ? 0 : q;
		q = round_even(q > d->top ? d->top : q);
		if (q != d->code[j])
			axpy(d->g, d->n, move(d, j, q), d->h + j * d->ld);
	}
}

/* Eight vectors of g at a time stay in registers for all moves. */
#define DEFINE_SPREAD(name, attribute, bytes)                                                      \
	attribute static void name##_axpy(float *g, size_t n, float by, const float *h)            \
	{                                                                                          \
		size_t j = 0;                                                                      \
                                                                                                   \
		for (; j + (bytes) / sizeof(float) <= n; j += (bytes) / sizeof(float)) {           \
			update_##name##_vec x = *(const update_##name##_vec *)(h + j);             \
                                                                                                   \
			*(update_##name##_vec *)(g + j) -= x * by;                                 \
		}                                                                                  \
		for (; j < n; j++)                                                                 \
			g[j] -= h[j] * by;                                                         \
	}                                                                                          \
	attribute static void spread_##name(float *g, size_t n, const uint16_t *at,                \
					    const float *by, size_t moves, const float *h,         \
					    size_t ld)                                             \
	{                                                                                          \
		const size_t v = (bytes) / sizeof(float);                                          \
		size_t j = 0;                                                                      \
                                                                                                   \
		for (; j + EIGHT * v <= n; j += EIGHT * v) {                                       \
			update_##name##_vec acc[EIGHT];                                            \
                                                                                                   \
			for (size_t l = 0; l < EIGHT; l++)                                         \
				acc[l] = *(update_##name##_vec *)(g + j + l * v);                  \
			for (size_t i = 0; i < moves; i++) {                                       \
				const update_##name##_vec *x = (const void *)(h + at[i] * ld + j); \
                                                                                                   \
				for (size_t l = 0; l < EIGHT; l++)                                 \
					acc[l] -= x[l] * by[i];                                    \
			}                                                                          \
			for (size_t l = 0; l < EIGHT; l++)                                         \
				*(update_##name##_vec *)(g + j + l * v) = acc[l];                  \
		}                                                                                  \
		for (size_t i = 0; j < n && i < moves; i++)                                        \
			name##_axpy(g + j, n - j, by[i], h + at[i] * ld + j);                      \
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
	DEFINE_SPREAD(name, attribute, bytes)                                                      \
	attribute static void descend_##name(struct descent *d)                                    \
	{                                                                                          \
		descend_body(d, name##_axpy);                                                      \
	}                                                                                          \
	static const struct kernels name = { #name, update_##name, enter_##name, solve_##name,     \
					     descend_##name, spread_##name }

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
