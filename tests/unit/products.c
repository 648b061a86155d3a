/* SPDX-License-Identifier: Apache-2.0 */
/*
 * products.c - the kernels for short numbers of every instruction set this machine has, each
 * against a plain sum: tails of every kind, strides, addresses without alignment, extremes
 */
#include <stdint.h>
#include <stdlib.h>

#include "lib/compute/vec.h"
#include "lib/data/dtype.h"
#include "tests/unit/tap.h"

#ifdef VEC_X86
#include "tests/unit/amx.h"
#endif

#define COUNT(a) (sizeof(a) / sizeof(*(a)))
#define GUARD	 0x5a5a5a5a
#define PAD	 5

static uint64_t seed = 11;

static uint32_t bits(void)
{
	seed = seed * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(seed >> 33);
}

static void *must(void *p)
{
	if (!p) {
		printf("Bail out! out of memory\n");
		exit(1);
	}
	return p;
}

/* W [n, k] and X [t, k] in the units of a set; W's first panel begins 4 bytes off a line. */
struct operands {
	uint32_t *x, *w, *room;
	size_t units;
};

static void arrange(struct operands *o, const struct vec_tiles *v, const void *x, const void *w,
		    size_t size, size_t t, size_t n, size_t k)
{
	size_t per = v->per_unit, panels = (n + VEC_TILE - 1) / VEC_TILE;
	size_t rows = (t + v->rows - 1) / v->rows * v->rows;
	uint32_t row[VEC_PITCH];

	o->units = ((k + per - 1) / per + v->multiple - 1) / v->multiple * v->multiple;
	o->x = must(aligned_alloc(64, (rows + 1) * VEC_PITCH * sizeof(uint32_t)));
	o->room = must(calloc(panels * VEC_TILE * o->units + 32, sizeof(uint32_t)));
	o->w = o->room + 1;
	memset(o->x, 0x77, rows * VEC_PITCH * sizeof(uint32_t));
	for (size_t i = 0; i < t; i++) {
		memset(o->x + i * VEC_PITCH, 0, o->units * sizeof(uint32_t));
		v->x_units(o->x + i * VEC_PITCH, (const char *)x + i * k * size, k);
	}
	for (size_t j = 0; j < n; j++) {
		memset(row, 0, sizeof(row));
		v->w_units(row, (const char *)w + j * k * size, k);
		for (size_t u = 0; u < o->units; u++)
			o->w[j / VEC_TILE * VEC_TILE * o->units + u * VEC_TILE + j % VEC_TILE] =
				row[u];
	}
}

static void disarrange(struct operands *o)
{
	free(o->x);
	free(o->room);
}

/* How many of y [t, n] are wrong; what lies between its rows must be as it was. */
static size_t wrong_i8(const struct vec_tiles *v, size_t t, size_t n, size_t k, int extreme,
		       int add)
{
	int8_t *x = must(malloc(t * k + 1)), *w = must(malloc(n * k + 1));
	size_t ldy = n + PAD, wrong = 0, padded = (n + VEC_TILE - 1) / VEC_TILE * VEC_TILE;
	int32_t *y = must(malloc((t * ldy + 1) * sizeof(*y))), *start = must(calloc(padded + 1, 4));
	struct operands o;

	for (size_t i = 0; i < t * k; i++)
		x[i] = (int8_t)(extreme ? bits() & 1 ? -128 : 127 : (int)(bits() & 255) - 128);
	for (size_t i = 0; i < n * k; i++)
		w[i] = (int8_t)(extreme ? bits() & 3 ? -128 : 127 : (int)(bits() & 255) - 128);
	arrange(&o, v, x, w, 1, t, n, k);
	for (size_t j = 0; j < n; j++)
		for (size_t l = 0; l < k; l++)
			start[j] -= v->offset * w[j * k + l];
	for (size_t i = 0; i < t * ldy; i++)
		y[i] = GUARD;
	for (size_t i = 0; add && i < t; i++)
		for (size_t j = 0; j < n; j++)
			y[i * ldy + j] = (int32_t)(i * 1000 + j);
	v->run(&(struct vec_product){ .y = y, .x = o.x, .ldx = VEC_PITCH, .w = o.w, .ldy = ldy,
				      .t = t, .n = n, .ldw = o.units * VEC_TILE,
				      .units = o.units, .add = add,
				      .start = v->offset ? start : NULL });
	for (size_t i = 0; i < t; i++)
		for (size_t j = 0; j < ldy; j++) {
			int64_t s = add ? (int64_t)(i * 1000 + j) : 0;

			for (size_t l = 0; j < n && l < k; l++)
				s += (int64_t)x[i * k + l] * w[j * k + l];
			wrong += y[i * ldy + j] != (j < n ? s : GUARD);
		}
	disarrange(&o);
	free(x);
	free(w);
	free(y);
	free(start);
	return wrong;
}

static float number(void)
{
	return (float)(int32_t)(bits() - 0x40000000) / 1073741824.0f;
}

static float rounded(float x)
{
	return bf16_to_f32(f32_to_bf16(x));
}

/* The largest error beside the sum of magnitudes, of rounded operands in f64; 1: y is wrong. */
static double worst_bf16(const struct vec_tiles *v, size_t t, size_t n, size_t k, int start,
			 int add)
{
	float *x = must(malloc((t * k + 1) * 4)), *w = must(malloc((n * k + 1) * 4));
	size_t ldy = n + PAD, padded = (n + VEC_TILE - 1) / VEC_TILE * VEC_TILE;
	float *y = must(malloc((t * ldy + 1) * 4)), *from = must(calloc(padded + 1, 4));
	struct operands o;
	double worst = 0;

	for (size_t i = 0; i < t * k; i++)
		x[i] = number();
	for (size_t i = 0; i < n * k; i++)
		w[i] = number();
	for (size_t i = 0; i < n; i++)
		from[i] = number();
	for (size_t i = 0; i < t * ldy; i++)
		y[i] = add || i % ldy >= n ? 0.25f * (float)(i % 7) : NAN;
	arrange(&o, v, x, w, 4, t, n, k);
	v->run(&(struct vec_product){ .y = y, .x = o.x, .ldx = VEC_PITCH, .w = o.w, .ldy = ldy,
				      .t = t, .n = n, .ldw = o.units * VEC_TILE,
				      .units = o.units, .add = add,
				      .start = start ? from : NULL });
	for (size_t i = 0; i < t * ldy; i++) {
		double s = add || i % ldy >= n ? 0.25 * (double)(i % 7) : 0, a = fabs(s) + 1e-30;

		if (i % ldy < n && start) {
			s += from[i % ldy];
			a += fabsf(from[i % ldy]);
		}
		for (size_t l = 0; i % ldy < n && l < k; l++) {
			double p = (double)rounded(x[i / ldy * k + l]) *
				   rounded(w[i % ldy * k + l]);

			s += p;
			a += fabs(p);
		}
		worst = fmax(worst, isnan(y[i]) ? 1 : fabs(y[i] - s) / a);
	}
	disarrange(&o);
	free(x);
	free(w);
	free(y);
	free(from);
	return worst;
}

static void test_bf16(const char *name, const struct vec_tiles *v)
{
	static const size_t sizes[] = { 1, 2, 3, 11, 12, 13, 31, 32, 33, 64, 65, 100 };
	double worst = 0;

	for (size_t i = 0; i < COUNT(sizes); i++)
		for (size_t j = 0; j < COUNT(sizes); j++)
			for (size_t l = 0; l < COUNT(sizes); l++)
				worst = fmax(worst, worst_bf16(v, sizes[i], sizes[j], sizes[l],
							       (i + l) % 2, j % 2));
	ok(worst < 1e-6, "%s: bf16: %zu shapes within %.1e", name,
	   COUNT(sizes) * COUNT(sizes) * COUNT(sizes), worst);
	worst = fmax(worst_bf16(v, 30, 70, 2 * VEC_DEPTH, 0, 0),
		     worst_bf16(v, 30, 70, 2 * VEC_DEPTH - 1, 1, 1));
	ok(worst < 2e-6, "%s: bf16: the whole depth within %.1e", name, worst);
}

static void test_i8(const char *name, const struct vec_tiles *v)
{
	static const size_t sizes[] = { 1, 2, 3, 4, 5, 11, 12, 13, 31, 32, 33, 64, 65, 100, 257 };
	size_t wrong = 0, deep = v->per_unit * VEC_DEPTH;

	for (size_t i = 0; i < COUNT(sizes); i++)
		for (size_t j = 0; j < COUNT(sizes); j++)
			for (size_t l = 0; l < COUNT(sizes); l++)
				wrong += wrong_i8(v, sizes[i], sizes[j], sizes[l], (i + j) % 5 == 0,
						  l % 2);
	ok(wrong == 0, "%s: int8: %zu shapes are exact", name, COUNT(sizes) * COUNT(sizes) *
	   COUNT(sizes));
	ok(wrong_i8(v, 30, 70, deep, 1, 0) == 0 && wrong_i8(v, 30, 70, deep - 1, 1, 1) == 0,
	   "%s: int8: the extremes over the whole depth", name);
}

int main(void)
{
	struct vec_set set;
	struct err e;

	if (!ok(vec_select(&set, &e) == 0, "QP_CPU can be had"))
		return done();
	test_i8("plain", &i8_base);
#ifdef VEC_X86
	if (__builtin_cpu_supports("x86-64-v3"))
		test_i8("avx2", &i8_v3);
	if (__builtin_cpu_supports("x86-64-v4"))
		test_i8("avx512", &i8_v4);
	if (__builtin_cpu_supports("x86-64-v4") && __builtin_cpu_supports("avx512vnni"))
		test_i8("avx512vnni", &i8_vnni);
	if (__builtin_cpu_supports("x86-64-v4") && __builtin_cpu_supports("avx512bf16"))
		test_bf16("avx512bf16", &bf16_v4);
	else
		skip("no AVX-512 BF16 here");
	test_i8("amx in C", &i8_emulated);
	test_bf16("amx in C", &bf16_emulated);
	if (set.level == VEC_AMX) {
		test_i8("amx", &i8_amx);
		test_bf16("amx", &bf16_amx);
	} else {
		skip("no AMX here");
	}
#endif
	return done();
}
