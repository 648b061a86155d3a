/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dtype.c - every f16 and bf16, rounding to even against exact arithmetic, sizes, names
 */
#include "lib/data/dtype.h"

#include <stdlib.h>

#include "tests/unit/tap.h"

/* The value of a 16-bit float, from its definition, in f64 (exact). */
static double value16(unsigned h, int exp_bits)
{
	int man_bits = 15 - exp_bits, bias = (1 << (exp_bits - 1)) - 1;
	unsigned man = h & ((1u << man_bits) - 1), e = h >> man_bits & ((1u << exp_bits) - 1);
	double v;

	if (e == (1u << exp_bits) - 1)
		v = man ? (double)NAN : (double)INFINITY;
	else if (e == 0)
		v = ldexp(man, 1 - bias - man_bits);
	else
		v = ldexp((1 << man_bits) + (int)man, (int)e - bias - man_bits);
	return h & 0x8000 ? -v : v;
}

static bool same(double a, double b)
{
	return isnan(a) ? isnan(b) : a == b && signbit(a) == signbit(b);
}

/* All 65536 patterns to f32 and back. */
static void all_patterns(const char *name, int exp_bits, float (*up)(uint16_t),
			 uint16_t (*down)(float))
{
	int wrong_up = 0, wrong_back = 0;

	for (unsigned h = 0; h < 65536; h++) {
		float f = up((uint16_t)h);
		uint16_t back = down(f);

		wrong_up += !same(f, value16(h, exp_bits));
		wrong_back += isnan(f) ? !isnan(up(back)) || ((back ^ h) & 0x8000) : back != h;
	}
	ok(wrong_up == 0, "%s: all 65536 patterns have their value (%d wrong)", name, wrong_up);
	ok(wrong_back == 0, "%s: and come back (%d wrong)", name, wrong_back);
}

/*
 * Around every pair of neighbours a < b: the middle goes to the even one, a hair to either side
 * of it to the nearer one.  The same with the sign.  The middle of the largest and 2^16 (f16) is
 * where infinity begins.
 */
static void rounding(const char *name, int exp_bits, uint16_t (*down)(float))
{
	unsigned inf = exp_bits == 5 ? 0x7c00 : 0x7f80;
	int wrong = 0;

	for (unsigned h = 0; h < inf; h++) {
		double a = value16(h, exp_bits);
		double b = h + 1 < inf ? value16(h + 1, exp_bits) :
					 ldexp(1.0, exp_bits == 5 ? 16 : 128);
		float mid = (float)((a + b) / 2);

		wrong += (double)mid != (a + b) / 2; /* or the test itself would round */
		wrong += down(mid) != (h & 1 ? h + 1 : h);
		wrong += down(nextafterf(mid, 0)) != h;
		wrong += down(nextafterf(mid, INFINITY)) != h + 1;
		wrong += down(-mid) != ((h & 1 ? h + 1 : h) | 0x8000);
	}
	ok(wrong == 0, "%s: ties to even, all else to the nearest (%d wrong)", name, wrong);
	ok(down(INFINITY) == inf && down(-INFINITY) == (inf | 0x8000), "%s: infinity stays", name);
	ok(down(3e38f) == (exp_bits == 5 ? inf : 0x7f62), "%s: 3e38", name);
}

static void arrays(void)
{
	enum { N = 1000 };
	float x[N], y[N];
	uint16_t h[N];
	double d[2] = { 1.0 + 0x1p-24, 1.0 + 0x3p-24 };

	for (int i = 0; i < N; i++)
		x[i] = (float)(i - 500) * 0.25f;
	ok(dtype_from_f32(h, DT_BF16, x, N) == 0 && h[502] == 0x3f00, "an array to bf16");
	ok(dtype_to_f32(y, h, DT_BF16, N) == 0 && y[502] == 0.5f && y[0] == -125.0f,
	   "an array from bf16");
	ok(dtype_from_f32(h, DT_F16, x, N) == 0 && dtype_to_f32(y, h, DT_F16, N) == 0 &&
	   memcmp(x, y, sizeof(x)) == 0, "an array through f16, exact values");
	ok(dtype_to_f32(y, d, DT_F64, 2) == 0 && y[0] == 1.0f && y[1] == 1.0f + 0x1p-22f,
	   "f64 rounds half to even");
	ok(dtype_to_f32(y, h, DT_I8, 1) == -1 && dtype_from_f32(h, DT_U8, x, 1) == -1 &&
	   dtype_from_f32(h, DT_F64, x, 1) == -1, "other types are refused");
	ok(f32_first_nonfinite(x, N) == -1, "all finite");
	x[999] = INFINITY;
	ok(f32_first_nonfinite(x, N) == 999, "an infinity at the end");
	x[7] = -NAN;
	ok(f32_first_nonfinite(x, N) == 7 && f32_first_nonfinite(x, 7) == -1, "the first is found");
	x[7] = 3.4e38f;
	ok(f32_first_nonfinite(x, 8) == -1, "the largest numbers are finite");
}

static void sizes(void)
{
	uint64_t n = 77;

	ok(dtype_nbytes(DT_F32, 2, (int64_t[]){ 3, 5 }, &n) == 0 && n == 60, "F32 [3,5]");
	ok(dtype_nbytes(DT_F32, 0, NULL, &n) == 0 && n == 4, "a scalar");
	ok(dtype_nbytes(DT_U4, 2, (int64_t[]){ 3, 5 }, &n) == 0 && n == 9, "U4 rows are padded");
	ok(dtype_nbytes(DT_U3, 2, (int64_t[]){ 2, 8 }, &n) == 0 && n == 6, "U3 [2,8]");
	ok(dtype_nbytes(DT_U2, 1, (int64_t[]){ 5 }, &n) == 0 && n == 2, "U2 [5]");
	ok(dtype_nbytes(DT_BF16, 3, (int64_t[]){ 4, 0, INT64_MAX }, &n) == 0 && n == 0, "a zero");
	ok(dtype_nbytes(DT_U8, 2, (int64_t[]){ (int64_t)1 << 24, (int64_t)1 << 24 }, &n) == 0 &&
	   n == (uint64_t)1 << 48, "2^48 bytes");
	ok(dtype_nbytes(DT_U8, 1, (int64_t[]){ ((int64_t)1 << 48) + 1 }, &n) == -1, "one more");
	ok(dtype_nbytes(DT_F32, 2, (int64_t[]){ (int64_t)1 << 40, (int64_t)1 << 40 }, &n) == -1,
	   "2^40 by 2^40 does not wrap");
	ok(dtype_nbytes(DT_F64, 2, (int64_t[]){ 2, INT64_MAX }, &n) == -1, "nor does INT64_MAX");
	ok(dtype_nbytes(DT_F32, 2, (int64_t[]){ 0, -1 }, &n) == -1, "a negative dimension");
	ok(dtype_nbytes(DT_NONE, 1, (int64_t[]){ 1 }, &n) == -1, "no type");
}

static void names(void)
{
	static const char *const all[] = {
		"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "I64", "I32", "I16", "I8",
		"U64", "U32", "U16", "U8", "BOOL", "U2", "U3", "U4"
	};
	static const int bits[] = {
		64, 32, 16, 16, 8, 8, 64, 32, 16, 8, 64, 32, 16, 8, 8, 2, 3, 4
	};

	for (int i = 0; i < DT_COUNT - 1; i++) {
		enum dtype t = dtype_from_name(all[i]);

		ok(t == (enum dtype)(i + 1) && dtype_bits(t) == bits[i] &&
		   strcmp(dtype_name(t), all[i]) == 0, "%s", all[i]);
	}
	ok(dtype_from_name("f32") == DT_NONE && dtype_from_name("?") == DT_NONE &&
	   dtype_from_name("") == DT_NONE, "other names are none");
	ok_str(dtype_name(DT_NONE), "?", "the name of none");
}

int main(void)
{
	all_patterns("f16", 5, f16_to_f32, f32_to_f16);
	all_patterns("bf16", 8, bf16_to_f32, f32_to_bf16);
	rounding("f16", 5, f32_to_f16);
	rounding("bf16", 8, f32_to_bf16);
	arrays();
	sizes();
	names();
	return done();
}
