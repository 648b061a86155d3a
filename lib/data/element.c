/* SPDX-License-Identifier: Apache-2.0 */
/*
 * element.c - single elements of a tensor as text, and back
 */
#include "lib/data/element.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A float type by its bits: sign, exponent, mantissa. */
struct float_form {
	int bytes, mantissa;
	uint64_t inf; /* all exponent bits set */
};

static struct float_form float_form(enum dtype t)
{
	switch (t) {
	case DT_F64:  return (struct float_form){ 8, 52, UINT64_C(0x7ff) << 52 };
	case DT_F32:  return (struct float_form){ 4, 23, UINT64_C(0xff) << 23 };
	case DT_F16:  return (struct float_form){ 2, 10, UINT64_C(0x1f) << 10 };
	case DT_BF16: return (struct float_form){ 2, 7, UINT64_C(0xff) << 7 };
	default:      return (struct float_form){ 0, 0, 0 };
	}
}

bool element_has_text(enum dtype t)
{
	switch (t) {
	case DT_F64: case DT_F32: case DT_F16: case DT_BF16:
	case DT_I64: case DT_I32: case DT_I16: case DT_I8:
	case DT_U64: case DT_U32: case DT_U16: case DT_U8: case DT_BOOL:
		return true;
	default:
		return false;
	}
}

static uint64_t get_bits(const void *p, int bytes)
{
	const unsigned char *u = p;
	uint64_t v = 0;

	for (int i = bytes - 1; i >= 0; i--)
		v = v << 8 | u[i];
	return v;
}

static void put_bits(void *p, int bytes, uint64_t v)
{
	unsigned char *u = p;

	for (int i = 0; i < bytes; i++, v >>= 8)
		u[i] = (unsigned char)v;
}

/* NaN's usual bits: quiet, no payload. */
static uint64_t plain_nan(struct float_form f)
{
	return f.inf | UINT64_C(1) << (f.mantissa - 1);
}

static void print_float(struct buf *out, enum dtype t, const void *p)
{
	struct float_form f = float_form(t);
	uint64_t v = get_bits(p, f.bytes), sign = UINT64_C(1) << (8 * f.bytes - 1);
	uint64_t magnitude = v & (sign - 1);
	float single;
	double d;

	if (magnitude > f.inf) {
		if (magnitude == plain_nan(f))
			buf_puts(out, v & sign ? "-nan" : "nan");
		else
			buf_printf(out, "nan'%0*" PRIx64 "'", 2 * f.bytes, v);
		return;
	}
	if (magnitude == f.inf) {
		buf_puts(out, v & sign ? "-inf" : "inf");
		return;
	}
	if (t == DT_F64) {
		memcpy(&d, &v, sizeof(d));
	} else if (t == DT_F32) {
		uint32_t bits = (uint32_t)v;
		memcpy(&single, &bits, sizeof(single));
		d = single;
	} else {
		d = t == DT_F16 ? f16_to_f32((uint16_t)v) : bf16_to_f32((uint16_t)v);
	}
	buf_printf(out, "%a", d);
}

void element_print(struct buf *out, enum dtype t, const void *p)
{
	int bytes = dtype_bits(t) / 8;
	uint64_t v = get_bits(p, bytes);

	switch (t) {
	case DT_I64: case DT_I32: case DT_I16: case DT_I8:
		if (bytes < 8 && v >> (8 * bytes - 1))
			v |= ~UINT64_C(0) << (8 * bytes);
		buf_printf(out, "%" PRId64, (int64_t)v);
		break;
	case DT_U64: case DT_U32: case DT_U16: case DT_U8: case DT_BOOL:
		buf_printf(out, "%" PRIu64, v);
		break;
	default:
		print_float(out, t, p);
	}
}

/*
 * d as an f32 for a second rounding to at most 22 bits: rounded to odd, so that rounding twice
 * equals rounding once (Boldo and Melquiond, "Emulation of a FMA and correctly rounded sums").
 */
static float round_to_odd(double d)
{
	float f = (float)d;
	uint32_t bits;

	if ((double)f == d || isinf(f))
		return f;
	memcpy(&bits, &f, sizeof(bits));
	if (!(bits & 1))
		bits += fabs((double)f) < fabs(d) ? 1u : UINT32_MAX;
	memcpy(&f, &bits, sizeof(f));
	return f;
}

/* nan'7fc00001' */
static const char *scan_nan_bits(void *p, struct float_form f, const char *hex)
{
	char *end;
	uint64_t v;

	if (strlen(hex) != 2 * (size_t)f.bytes + 1)
		return "a NaN by its bits has two hex digits a byte";
	v = strtoull(hex, &end, 16);
	if (strcmp(end, "'") != 0)
		return "not a number";
	if ((v & ((UINT64_C(1) << (8 * f.bytes - 1)) - 1)) <= f.inf)
		return "these bits are not a NaN's";
	put_bits(p, f.bytes, v);
	return NULL;
}

static const char *scan_float(void *p, enum dtype t, const char *word)
{
	struct float_form f = float_form(t);
	uint64_t sign = word[0] == '-' ? UINT64_C(1) << (8 * f.bytes - 1) : 0;
	const char *abs = word + (word[0] == '-');
	uint64_t v = 0;
	uint32_t bits;
	float single;
	double d;
	char *end;

	if (strncmp(word, "nan'", 4) == 0)
		return scan_nan_bits(p, f, word + 4);
	if (strcmp(abs, "nan") == 0 || strcmp(abs, "inf") == 0) {
		put_bits(p, f.bytes, sign | (abs[0] == 'n' ? plain_nan(f) : f.inf));
		return NULL;
	}
	if (!strchr("0123456789.", abs[0]) || !abs[0])
		return "not a number";
	if (t == DT_F32) {
		single = strtof(word, &end);
		memcpy(&bits, &single, sizeof(bits));
		v = bits;
	} else {
		d = strtod(word, &end);
		single = round_to_odd(d);
		if (t == DT_F64)
			memcpy(&v, &d, sizeof(v));
		else
			v = t == DT_F16 ? f32_to_f16(single) : f32_to_bf16(single);
	}
	if (*end)
		return "not a number";
	if ((v & f.inf) == f.inf)
		return "out of range";
	put_bits(p, f.bytes, v);
	return NULL;
}

const char *element_scan(void *p, enum dtype t, const char *word)
{
	int bytes = dtype_bits(t) / 8;
	bool sign = t == DT_I64 || t == DT_I32 || t == DT_I16 || t == DT_I8;
	uint64_t max = UINT64_MAX >> (64 - 8 * bytes);
	unsigned long long u;
	long long i;
	char *end;

	if (float_form(t).bytes)
		return scan_float(p, t, word);
	if (!(word[0] >= '0' && word[0] <= '9') && word[0] != '-')
		return "not an integer";
	errno = 0;
	if (sign) {
		i = strtoll(word, &end, 10);
		if (*end || end == word)
			return "not an integer";
		if (errno == ERANGE || i > (long long)(max >> 1) || i < -(long long)(max >> 1) - 1)
			return "out of range";
		put_bits(p, bytes, (uint64_t)i);
		return NULL;
	}
	u = strtoull(word, &end, 10);
	if (*end || end == word)
		return "not an integer";
	if (errno == ERANGE || u > max || word[0] == '-')
		return "out of range";
	put_bits(p, bytes, u);
	return NULL;
}
