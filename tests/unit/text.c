/* SPDX-License-Identifier: Apache-2.0 */
/*
 * text.c - elements, msgpack values and records as text and back, without loss
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>

#include "lib/base/buf.h"
#include "lib/data/element.h"
#include "lib/data/stream.h"
#include "lib/data/text.h"
#include "lib/data/value.h"
#include "tests/unit/tap.h"

static uint64_t state = 88172645463325252u;

static uint64_t random64(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

/* The text of the bits reads back as the same bits. */
static bool same_bits(enum dtype t, uint64_t bits)
{
	unsigned char in[8], out[8] = { 0 };
	size_t bytes = (size_t)dtype_bits(t) / 8;
	struct buf text = { 0 };
	const char *bad;
	bool same;

	for (size_t i = 0; i < bytes; i++)
		in[i] = (unsigned char)(bits >> (8 * i));
	element_print(&text, t, in);
	bad = element_scan(out, t, buf_str(&text));
	same = !bad && memcmp(in, out, bytes) == 0;
	if (!same)
		printf("# %s %llx: %s (%s)\n", dtype_name(t), (unsigned long long)bits,
		       buf_str(&text), bad ? bad : "other bits");
	buf_release(&text);
	return same;
}

static void test_elements(void)
{
	static const enum dtype narrow[] = { DT_F16, DT_BF16, DT_I16, DT_U16 };
	static const enum dtype wide[] = { DT_F32, DT_F64, DT_I32, DT_U32, DT_I64, DT_U64 };

	for (size_t k = 0; k < sizeof(narrow) / sizeof(narrow[0]); k++) {
		int failed = 0;

		for (uint32_t bits = 0; bits < 65536 && failed < 5; bits++)
			failed += !same_bits(narrow[k], bits);
		ok(failed == 0, "all 65536 values of %s survive", dtype_name(narrow[k]));
	}
	for (size_t k = 0; k < sizeof(wide) / sizeof(wide[0]); k++) {
		int failed = 0;

		for (int i = 0; i < 100000 && failed < 5; i++)
			failed += !same_bits(wide[k], random64());
		/* zeros, the smallest, the largest, infinities, NaNs of both kinds */
		for (int sign = 0; sign < 2; sign++)
			for (int d = -3; d <= 3; d++) {
				uint64_t top = (uint64_t)sign << (dtype_bits(wide[k]) - 1);

				failed += !same_bits(wide[k], top + (uint64_t)(int64_t)d);
				failed += !same_bits(DT_F32, 0x7f800000u + (uint64_t)(int64_t)d +
						     ((uint64_t)sign << 31));
				failed += !same_bits(DT_F64, (UINT64_C(0x7ff) << 52) +
						     (uint64_t)(int64_t)d + ((uint64_t)sign << 63));
			}
		ok(failed == 0, "100000 random values of %s survive", dtype_name(wide[k]));
	}
}

/* A decimal is rounded once to F16 or BF16, not to F32 first. */
static void test_rounding(void)
{
	/* Between 1 and the next value; the halves; and a hair above a half, which an F32 on the
	 * way would lose. */
	static const struct { enum dtype t; const char *word; uint16_t bits; } rows[] = {
		{ DT_F16, "1.00048828125", 0x3c00 },             /* half: to even */
		{ DT_F16, "1.0004882812500002", 0x3c01 },        /* above it */
		{ DT_F16, "1.00146484375", 0x3c02 },             /* half: to even, up */
		{ DT_F16, "1.0014648437499998", 0x3c01 },        /* below it */
		{ DT_F16, "65519.99", 0x7bff }, { DT_F16, "2.9802322387695312e-08", 0 },
		{ DT_F16, "2.9802322387695316e-08", 1 }, { DT_F16, "-0", 0x8000 },
		{ DT_BF16, "1.00390625", 0x3f80 }, { DT_BF16, "1.0039062500000002", 0x3f81 },
		{ DT_BF16, "1.01171875", 0x3f82 }, { DT_BF16, "1.0117187499999998", 0x3f81 },
	};
	uint16_t got;

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		ok(!element_scan(&got, rows[i].t, rows[i].word) && got == rows[i].bits,
		   "%s is %04x in %s", rows[i].word, rows[i].bits, dtype_name(rows[i].t));
	ok(element_scan(&got, DT_F16, "65520") != NULL, "65520 is out of range for F16");
	ok(element_scan(&got, DT_BF16, "3.3961775292304601e+38") != NULL,
	   "halfway to 2^128 is out of range for BF16");
}

/* The msgpack bytes mp as text, and that text as msgpack. */
static bool value_survives(const void *mp, size_t n, const char *want)
{
	struct buf text = { 0 }, again = { 0 };
	struct scan s;
	struct err e;
	FILE *f;
	bool good;

	if (value_to_text(&text, mp, n, &e) < 0) {
		printf("# %s\n", e.what);
		return false;
	}
	f = fmemopen(text.p, text.n, "r");
	scan_init(&s, f);
	good = value_scan(&s, &again, &e) == 0 && s.c == EOF && again.n == n &&
	       memcmp(again.p, mp, n) == 0;
	if (want && strcmp(want, buf_str(&text)) != 0)
		good = false;
	if (!good)
		printf("# %s\n", buf_str(&text));
	fclose(f);
	buf_release(&text);
	buf_release(&again);
	return good;
}

static void test_values(void)
{
#define V(bytes, text) { bytes, sizeof(bytes) - 1, text }
	static const struct { const char *mp; size_t n; const char *text; } rows[] = {
		V("\xc0", "null"), V("\xc2", "false"), V("\xc3", "true"),
		V("\x00", "0"), V("\x7f", "127"), V("\xcc\x80", "128"), V("\xff", "-1"),
		V("\xe0", "-32"), V("\xd0\xdf", "-33"), V("\xd1\xff\x7f", "-129"),
		V("\xcf\xff\xff\xff\xff\xff\xff\xff\xff", "18446744073709551615"),
		V("\xd3\x80\x00\x00\x00\x00\x00\x00\x00", "-9223372036854775808"),
		V("\xcb\x3f\xe0\x00\x00\x00\x00\x00\x00", "0.5"),
		V("\xcb\x3f\xf0\x00\x00\x00\x00\x00\x00", "1.0"),
		V("\xcb\x80\x00\x00\x00\x00\x00\x00\x00", "-0.0"),
		V("\xcb\x7f\xf0\x00\x00\x00\x00\x00\x00", "inf"),
		V("\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00", "nan"),
		V("\xcb\xff\xf8\x00\x00\x00\x00\x00\x00", "f64'fff8000000000000'"),
		V("\xca\x3f\x00\x00\x00", "0.5f"), V("\xca\x7f\x80\x00\x00", "f32'7f800000'"),
		V("\xca\x7f\xa0\x00\x01", NULL), /* signalling: quiet in C, so kept raw */
		V("\xa0", "\"\""), V("\xa3" "a\"\n", "\"a\\\"\\n\""),
		V("\xa2\xc3\xa9", "\"\xc3\xa9\""),
		V("\xa1\xff", "\"\\xff\""), V("\xa3\xed\xa0\x80", "\"\\xed\\xa0\\x80\""),
		V("\xa2\xc0\x80", "\"\\xc0\\x80\""), V("\xa1\x00", "\"\\u0000\""),
		V("\xc4\x00", "h''"), V("\xc4\x02\x00\xff", "h'00ff'"),
		V("\xd4\x05\xaa", "ext(5,h'aa')"), V("\xc7\x00\x80", "ext(-128,h'')"),
		V("\xd6\xff\x00\x00\x00\x01", "ext(-1,h'00000001')"),
		V("\x90", "[]"), V("\x80", "{}"), V("\x92\x01\x92\x02\x03", "[1,[2,3]]"),
		V("\x82\xa1" "b\x01\xa1" "a\x02", "{\"b\":1,\"a\":2}"),
		V("\x81\x93\x01\xc0\xa0\x80", "{[1,null,\"\"]:{}}"),
		V("\xcc\x01", "raw'cc01'"), V("\xd9\x01" "a", "raw'd90161'"),
		V("\xdc\x00\x01\x01", "raw'dc000101'"), V("\x91\xcd\x00\x01", "raw'91cd0001'"),
		V("\xc5\x00\x00", "raw'c50000'"),
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		ok(value_survives(rows[i].mp, rows[i].n, rows[i].text), "msgpack value %zu: %s", i,
		   rows[i].text ? rows[i].text : "(no text of its own)");
}

static void test_doubles(void)
{
	int failed = 0;

	for (int i = 0; i < 100000 && failed < 5; i++) {
		unsigned char mp[9] = { 0xcb };
		uint64_t bits = random64();

		for (int k = 0; k < 8; k++)
			mp[1 + k] = (unsigned char)(bits >> (56 - 8 * k));
		failed += !value_survives(mp, sizeof(mp), NULL);
		mp[0] = 0xca;
		failed += !value_survives(mp, 5, NULL);
	}
	ok(failed == 0, "100000 random floats of 64 and of 32 bits survive in headers");
}

static void test_utf8(void)
{
	ok(utf8_char("a", 1) == 1 && utf8_char("", 0) == 0, "ASCII");
	ok(utf8_char("\xc3\xa9", 2) == 2 && utf8_char("\xe2\x82\xac", 3) == 3 &&
	   utf8_char("\xf0\x9f\x98\x80", 4) == 4, "two, three, four bytes");
	ok(utf8_char("\xc3", 1) == 0 && utf8_char("\xf0\x9f\x98", 3) == 0, "cut short");
	ok(utf8_char("\xc0\x80", 2) == 0 && utf8_char("\xe0\x80\x80", 3) == 0 &&
	   utf8_char("\xf0\x80\x80\x80", 4) == 0, "longer than needed");
	ok(utf8_char("\xed\xa0\x80", 3) == 0 && utf8_char("\xf4\x90\x80\x80", 4) == 0 &&
	   utf8_char("\xff", 1) == 0 && utf8_char("\x80", 1) == 0, "surrogates and beyond");
}

/* A record with random bytes for a payload, written and read. */
static bool record_survives(enum dtype t, int64_t rows, int64_t cols)
{
	struct record r = { .rank = -1 }, back = { .rank = -1 };
	const void *payload = NULL;
	struct text_in *in;
	unsigned char *data;
	char *text = NULL;
	size_t n = 0;
	struct err e;
	bool good;
	FILE *f;

	record_init(&r, REC_TENSOR, "x");
	r.dtype = t;
	r.rank = 2;
	r.shape[0] = rows;
	r.shape[1] = cols;
	dtype_nbytes(t, 2, r.shape, &r.nbytes);
	data = malloc((size_t)r.nbytes + 1);
	for (uint64_t i = 0; i < r.nbytes; i++)
		data[i] = (unsigned char)random64();
	f = open_memstream(&text, &n);
	fputs("stream v=[1,0]\n", f);
	good = text_write(f, &r, data, &e) == 0;
	fputs("end\n", f);
	fclose(f);
	f = fmemopen(text, n, "r");
	in = text_open(f, &e);
	good = good && text_next(in, &back, &payload, &e) == 1 && back.type == REC_STREAM &&
	       text_next(in, &back, &payload, &e) == 1 && text_line(in) == 2 &&
	       back.nbytes == r.nbytes && back.dtype == t &&
	       (r.nbytes == 0 || memcmp(payload, data, (size_t)r.nbytes) == 0) &&
	       text_next(in, &back, &payload, &e) == 0;
	text_close(in);
	fclose(f);
	free(text);
	free(data);
	record_clear(&r);
	record_clear(&back);
	return good;
}

static void test_records(void)
{
	for (int t = DT_F64; t < DT_COUNT; t++) {
		bool good = true;

		for (int64_t cols = 0; cols < 40 && good; cols++)
			for (int64_t rows = 0; rows < 4 && good; rows++)
				good = record_survives((enum dtype)t, rows, cols);
		ok(good, "random bytes as %s, of 0 to 39 columns", dtype_name((enum dtype)t));
	}
}

int main(void)
{
	test_elements();
	test_rounding();
	test_values();
	test_doubles();
	test_utf8();
	test_records();
	return done();
}
