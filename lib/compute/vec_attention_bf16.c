/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vec_attention_bf16.c - one tile of queries of one head, its products of bf16
 *
 * The same scheme as vec_attention.h: scores a row a key and a lane a query, a block of keys at a
 * time, one softmax in the end.  Queries, scaled, and probabilities are rounded to bf16 and become
 * panels of units as W has them; keys and values lie ready in units (bf16_block).  Sums, the
 * softmax and the sum of its probabilities, taken before they are rounded, are f32.
 */
#include "lib/compute/vec.h"

#ifdef VEC_X86
#include <immintrin.h>
#include <math.h>
#include <string.h>

#pragma GCC target("arch=x86-64-v4,avx512bf16,prefer-vector-width=512")

#define QUERIES VEC_QUERIES
#define PANELS	(QUERIES / VEC_TILE)
#define VECTORS (QUERIES / 16)
#define PAIRS	(BF16_KEYS / 2)

#include "lib/compute/vec_mask.h"

/* e^x for x <= 0 within 4e-6 of itself, for -infinity 0, for NaN NaN: 2^n 2^r, |r| <= 1/2, and the
 * series of 2^r. */
static inline __m512 exp_below_0(__m512 x)
{
	__m512 t = _mm512_max_ps(_mm512_set1_ps(-150.0f), x * _mm512_set1_ps(1.44269504f));
	__m512 n = _mm512_roundscale_ps(t, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
	__m512 r = t - n, p = _mm512_set1_ps(1.33335581e-3f);

	p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(9.61812911e-3f));
	p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.55041087e-2f));
	p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(2.40226507e-1f));
	p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(6.93147181e-1f));
	p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
	return _mm512_scalef_ps(p, n);
}

/* Two keys' probabilities to units of both. */
static inline __m512i pair(__m512 even, __m512 odd)
{
	const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25,
					       9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2,
					       17, 1, 16, 0);

	return _mm512_permutexvar_epi16(order, (__m512i)_mm512_cvtne2ps_pbh(odd, even));
}

/* Scores of n keys, of 16 queries, to units of their probabilities, of pairs of keys; the maximum
 * and the sum carried on, o [d] scaled to the new maximum when there is one. */
static void soften(const float *s, size_t n, size_t pairs, uint32_t *p, float *max, float *sum,
		   float *o, size_t d)
{
	const __m512 was = _mm512_loadu_ps(max);
	__m512 m = was, total = _mm512_loadu_ps(sum), even, odd;

	for (size_t j = 0; j < n; j++)
		m = _mm512_max_ps(_mm512_loadu_ps(s + j * QUERIES), m);
	if (_mm512_cmp_ps_mask(m, was, _CMP_GT_OQ)) {
		const __m512 by = exp_below_0(was - m);

		total *= by;
		for (size_t l = 0; l < d; l++)
			_mm512_storeu_ps(o + l * QUERIES, _mm512_loadu_ps(o + l * QUERIES) * by);
		_mm512_storeu_ps(max, m);
	}
	for (size_t u = 0; u < pairs; u++, s += 2 * QUERIES) {
		even = 2 * u < n ? exp_below_0(_mm512_loadu_ps(s) - m) : _mm512_setzero_ps();
		odd = 2 * u + 1 < n ? exp_below_0(_mm512_loadu_ps(s + QUERIES) - m) :
				      _mm512_setzero_ps();
		total += even + odd;
		_mm512_storeu_si512(p + u * VEC_TILE, pair(even, odd));
	}
	_mm512_storeu_ps(sum, total);
}

/* Scratch of a tile. */
struct work {
	float *s, *o;     /* [BF16_KEYS][QUERIES]; [d][QUERIES] */
	uint32_t *q, *p;  /* [PANELS][units][VEC_TILE]; [PANELS][PAIRS][VEC_TILE] */
	size_t units;
};

/* The queries, scaled, in panels; rows on their way in what later are scores. */
static void queries(const struct attend *t, const struct vec_tiles *tiles, const struct work *w)
{
	uint32_t *rows = (uint32_t *)w->o + t->d * QUERIES;
	float *x = w->s;

	memset(rows, 0, QUERIES * w->units * sizeof(*rows));
	for (size_t i = 0; i < t->nq; i++) {
		for (size_t l = 0; l < t->d; l++)
			x[l] = t->q[i * t->ldq + l] * t->scale;
		tiles->x_units(rows + i * w->units, x, t->d);
	}
	for (size_t i = 0; i < PANELS; i++)
		vec_v4.transpose((float *)w->q + i * w->units * VEC_TILE, VEC_TILE,
				 (const float *)rows + i * VEC_TILE * w->units, w->units, VEC_TILE,
				 w->units);
}

/* Scores of the n keys of a block. */
static void scores(const struct vec_tiles *tiles, const struct work *w, const uint32_t *k, size_t n)
{
	for (size_t u = 0; u < w->units; u += BF16_DEPTH, k += BF16_KEYS * BF16_PITCH)
		tiles->run(&(struct vec_product){
			.y = w->s, .ldy = QUERIES, .x = k, .ldx = BF16_PITCH,
			.w = w->q + u * VEC_TILE, .ldw = w->units * VEC_TILE, .t = n, .n = QUERIES,
			.units = w->units - u < BF16_DEPTH ? w->units - u : BF16_DEPTH,
			.add = u > 0,
		});
}

void bf16_attend(const struct attend *t, const struct vec_tiles *tiles, const uint32_t *blocks,
		 float *work)
{
	const size_t d = t->d, units = BF16_UNITS(d, tiles->multiple), size = BF16_BLOCK(d, units);
	const size_t from = t->window && t->q0 >= t->window ? t->q0 - t->window + 1 : 0;
	const size_t end = t->causal || t->window ? t->q0 + t->nq : t->seqlen;
	struct work w = { .q = (uint32_t *)work, .units = units };
	float max[QUERIES], sum[QUERIES];

	w.p = w.q + QUERIES * units;
	w.s = (float *)w.p + QUERIES * PAIRS;
	w.o = w.s + BF16_KEYS * QUERIES;
	queries(t, tiles, &w);
	memset(w.o, 0, d * QUERIES * sizeof(*w.o));
	for (int q = 0; q < QUERIES; q++) {
		max[q] = -1e30f; /* not infinite: a query may see nothing in its first block */
		sum[q] = 0.0f;
	}
	for (size_t b = from / BF16_KEYS; b * BF16_KEYS < end; b++) {
		const size_t k0 = b * BF16_KEYS, n = end - k0 < BF16_KEYS ? end - k0 : BF16_KEYS;
		const size_t m = tiles->multiple, pairs = ((n + 1) / 2 + m - 1) / m * m;
		const uint32_t *k = blocks + b * size;

		scores(tiles, &w, k, n);
		mask(t, w.s, k0, n);
		for (size_t v = 0; v < VECTORS; v++)
			soften(w.s + 16 * v, n, pairs,
			       w.p + v / 2 * PAIRS * VEC_TILE + v % 2 * 16, max + 16 * v,
			       sum + 16 * v, w.o + 16 * v, d);
		tiles->run(&(struct vec_product){
			.y = w.o, .ldy = QUERIES, .x = k + size - d * BF16_PITCH,
			.ldx = BF16_PITCH, .w = w.p, .ldw = PAIRS * VEC_TILE, .t = d, .n = QUERIES,
			.units = pairs, .add = 1,
		});
	}
	for (int q = 0; q < QUERIES; q++)
		sum[q] = 1.0f / sum[q];
	for (size_t l = 0; l < d; l++)
		for (int q = 0; q < QUERIES; q++)
			w.o[l * QUERIES + q] *= sum[q];
	vec_v4.transpose(t->o, t->ldo, w.o, QUERIES, d, t->nq);
}

/* Keys from k0 on: rows of keys, then a row of units for each of the d values. */
void bf16_block(const struct attend *t, const struct vec_tiles *tiles, size_t k0, uint32_t *block,
		float *work)
{
	const size_t d = t->d, units = BF16_UNITS(d, tiles->multiple), size = BF16_BLOCK(d, units);
	const size_t n = t->seqlen - k0 < BF16_KEYS ? t->seqlen - k0 : BF16_KEYS;
	uint32_t *pairs = (uint32_t *)work, *at = block;

	memset(block, 0, size * sizeof(*block));
	for (size_t l = 0; l < d; l += 2 * BF16_DEPTH, at += BF16_KEYS * BF16_PITCH)
		for (size_t i = 0; i < n; i++)
			tiles->x_units(at + i * BF16_PITCH, t->k + (k0 + i) * t->ldkv + l,
				       d - l < 2 * BF16_DEPTH ? d - l : 2 * BF16_DEPTH);
	memset(pairs, 0, PAIRS * d * sizeof(*pairs));
	for (size_t i = 0; i < n; i += 2)
		for (size_t l = 0; l < d; l += 16) {
			const __mmask16 some = (__mmask16)(d - l < 16 ? (1 << (d - l)) - 1 : -1);
			const float *v = t->v + (k0 + i) * t->ldkv + l;
			__m512 even = _mm512_maskz_loadu_ps(some, v);
			__m512 odd = i + 1 < n ? _mm512_maskz_loadu_ps(some, v + t->ldkv) :
						 _mm512_setzero_ps();

			_mm512_mask_storeu_epi32(pairs + i / 2 * d + l, some, pair(even, odd));
		}
	vec_v4.transpose((float *)block + size - d * BF16_PITCH, BF16_PITCH, work, d, PAIRS, d);
}
#else
typedef int vec_attention_bf16_is_empty;
#endif
