/* SPDX-License-Identifier: Apache-2.0 */
/*
 * compare.c - errors between tensors, and weights from codes, against plain sums and against the
 * quantizers and packers that make codes
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>

#include "lib/data/bits.h"
#include "lib/data/stream.h"
#include "lib/method/quantizer.h"
#include "lib/model/codes.h"
#include "lib/model/compare.h"
#include "tests/unit/tap.h"

static uint64_t state = 1234567;

static double random1(void) /* in [-1, 1) */
{
	state = state * 6364136223846793005u + 1442695040888963407u;
	return (double)(state >> 11) / 4503599627370496.0 - 1;
}

static void test_errors(void)
{
	enum { N = 10007 };
	static double a[N], b[N];
	struct tensor_error s = { 0 };
	long double d2 = 0, a2 = 0, b2 = 0, ab = 0;
	double max = 0, rel;

	for (int i = 0; i < N; i++) {
		a[i] = random1() * 100;
		b[i] = a[i] + random1() * 0.01;
		max = fmax(max, fabs(a[i] - b[i]));
		d2 += (long double)(a[i] - b[i]) * (a[i] - b[i]);
		a2 += (long double)a[i] * a[i];
		b2 += (long double)b[i] * b[i];
		ab += (long double)a[i] * b[i];
	}
	tensor_error_add(&s, a, b, 4096);
	tensor_error_add(&s, a + 4096, b + 4096, N - 4096);
	rel = (double)sqrtl(d2 / a2);
	ok(s.n == N && s.max_abs == max, "elements and the largest difference");
	ok_near(tensor_error_rel(&s), rel, 1e-12 * rel, "relative error");
	ok_near(tensor_error_snr(&s), -20 * log10(rel), 1e-9, "signal to noise");
	ok_near(tensor_error_cosine(&s), (double)(ab / sqrtl(a2 * b2)), 1e-12, "cosine");

	memset(&s, 0, sizeof(s));
	tensor_error_add(&s, a, a, N);
	ok(s.unequal == 0 && tensor_error_rel(&s) == 0 && isinf(tensor_error_snr(&s)) &&
	   tensor_error_cosine(&s) == 1, "equal: no error, infinite ratio, cosine 1");
	memset(&s, 0, sizeof(s));
	tensor_error_add(&s, (double[]){ 0, 0 }, (double[]){ 0, 1 }, 2);
	ok(isinf(tensor_error_rel(&s)) && tensor_error_cosine(&s) == 0, "something over nothing");
	memset(&s, 0, sizeof(s));
	tensor_error_add(&s, (double[]){ NAN, INFINITY }, (double[]){ NAN, INFINITY }, 2);
	ok(s.unequal == 0 && !s.infinite, "NaN and infinity have equal partners");
	tensor_error_add(&s, (double[]){ NAN }, (double[]){ 1 }, 1);
	ok(s.unequal == 1 && s.infinite && isinf(tensor_error_rel(&s)), "NaN beside a number");
	ok(isinf(s.max_abs), "and the largest difference is infinite");
}

/* A record of codes, scale or zero. */
static void part(struct record *r, enum role role, enum dtype t, size_t rows, size_t cols)
{
	record_init(r, REC_TENSOR, "w");
	r->role = role;
	r->dtype = t;
	r->rank = 2;
	r->shape[0] = (int64_t)rows;
	r->shape[1] = (int64_t)cols;
	dtype_nbytes(t, 2, r->shape, &r->nbytes);
}

struct coded {
	struct quantized z;
	struct tensor_value v; /* the same as records */
	float *want;           /* dequantized */
	size_t n;
};

/* Random weights, quantized; codes U8 or packed. */
static void make_coded(struct coded *c, const struct quantizer *q, size_t rows, size_t cols,
		       bool packed)
{
	static const enum dtype small[] = { [2] = DT_U2, [3] = DT_U3, [4] = DT_U4 };
	size_t params;
	struct err e;

	memset(c, 0, sizeof(*c));
	ok(quantized_init(&c->z, q, rows, cols, "w", &e) == 0, "quantized_init");
	c->n = rows * cols;
	params = q->group == 0 ? 1 : rows * c->z.groups;
	for (size_t i = 0; i < c->n; i++)
		c->z.codes[i] = (uint8_t)((random1() + 1) * (1 << (q->bits - 1)));
	for (size_t i = 0; i < rows * c->z.groups; i++) {
		size_t at = q->group == 0 ? 0 : i;

		c->z.scale[i] = i > at ? c->z.scale[0] : f16_to_f32(f32_to_f16((float)random1()));
		c->z.zero[i] = i > at ? c->z.zero[0] : q->sym ? (uint8_t)(1 << (q->bits - 1)) :
			       (uint8_t)((random1() + 1) * (1 << (q->bits - 1)));
	}
	c->want = malloc(c->n * sizeof(*c->want));
	quantized_dequantize(&c->z, c->want);

	part(&c->v.rec, ROLE_CODES, packed ? small[q->bits] : DT_U8, rows, cols);
	record_set_int(&c->v.rec, "bits", q->bits);
	record_set_int(&c->v.rec, "group", (int64_t)c->z.group);
	record_set_bool(&c->v.rec, "sym", q->sym);
	part(&c->v.scale, ROLE_SCALE, DT_F16, q->group == 0 ? 1 : rows, c->z.groups);
	c->v.data = calloc(1, (size_t)c->v.rec.nbytes);
	c->v.scale_data = malloc((size_t)c->v.scale.nbytes);
	dtype_from_f32(c->v.scale_data, DT_F16, c->z.scale, params);
	if (!q->sym) {
		part(&c->v.zero, ROLE_ZERO, DT_U8, q->group == 0 ? 1 : rows, c->z.groups);
		c->v.zero_data = malloc(params);
		memcpy(c->v.zero_data, c->z.zero, params);
	}
	for (size_t i = 0; i < rows; i++) {
		if (packed)
			bits_pack_row((uint8_t *)c->v.data + i * bits_row_bytes(cols, q->bits),
				      c->z.codes + i * cols, cols, q->bits);
		else
			memcpy((uint8_t *)c->v.data + i * cols, c->z.codes + i * cols, cols);
	}
}

static void release_coded(struct coded *c)
{
	quantized_release(&c->z);
	tensor_value_release(&c->v);
	free(c->want);
}

static void test_codes(void)
{
	static const struct {
		int bits;
		bool sym, packed;
		long group;
		size_t rows, cols;
	} rows[] = {
		{ 4, true, false, 32, 5, 96 }, { 4, false, false, 32, 5, 96 },
		{ 4, false, true, 32, 5, 96 }, { 3, true, true, -1, 7, 45 },
		{ 3, false, true, 15, 7, 45 }, { 2, false, true, 11, 3, 33 },
		{ 8, false, false, -1, 4, 17 }, { 5, true, false, 0, 4, 17 },
		{ 4, true, true, 0, 3, 17 }, { 4, false, true, 0, 1, 5000 },
	};
	struct tensor_value plain = { 0 };
	struct tensor_error s;
	struct coded c;
	char why[80];
	struct err e;

	for (size_t k = 0; k < sizeof(rows) / sizeof(rows[0]); k++) {
		struct quantizer q = { .bits = rows[k].bits, .sym = rows[k].sym,
				       .group = rows[k].group, .scale_dtype = DT_F16 };
		int got;

		make_coded(&c, &q, rows[k].rows, rows[k].cols, rows[k].packed);
		part(&plain.rec, ROLE_WEIGHT, DT_F32, rows[k].rows, rows[k].cols);
		plain.data = c.want;
		got = tensor_value_compare(&s, &plain, &c.v, why, sizeof(why), &e);
		ok(got == 1 && s.n == c.n && s.unequal == 0 && s.a2 > 0,
		   "%d bits, %s, group %ld%s: codes are the dequantized weights, bit for bit",
		   q.bits, q.sym ? "symmetric" : "asymmetric", q.group,
		   rows[k].packed ? ", packed" : "");
		c.want[c.n - 1] += 1;
		got = tensor_value_compare(&s, &plain, &c.v, why, sizeof(why), &e);
		ok(got == 1 && s.unequal == 1, "and another last weight is seen");
		release_coded(&c);
	}
	plain.data = NULL;
	tensor_value_release(&plain);
}

/* Bits that codes take: N K bits and, a group, 16 for the scale and 8 for a zero. */
static void test_bits(void)
{
	struct quantizer q = { .bits = 3, .sym = false, .group = 8, .scale_dtype = DT_F16 };
	struct codes codes;
	struct coded c;
	struct err e;

	make_coded(&c, &q, 4, 16, true);
	ok(codes_init(&codes, &c.v.rec, &e) == 0 &&
	   codes_fit(&codes, &c.v.scale, &c.v.zero, &e) == 0 &&
	   codes_bits(&codes) == 4 * 16 * 3 + 4 * 2 * (16 + 8), "bits of codes, scales and zeros");
	release_coded(&c);
}

int main(void)
{
	test_errors();
	test_codes();
	test_bits();
	return done();
}
