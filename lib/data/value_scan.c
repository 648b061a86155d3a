/* SPDX-License-Identifier: Apache-2.0 */
/*
 * value_scan.c - the text form of msgpack values read back
 */
#include "lib/data/value.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "lib/data/value_pack.h"

void scan_init(struct scan *s, FILE *f)
{
	s->f = f;
	s->line = 1;
	s->c = getc(f);
}

int scan_next(struct scan *s)
{
	if (s->c == '\n')
		s->line++;
	if (s->c != EOF)
		s->c = getc(s->f);
	return s->c;
}

int scan_error(struct scan *s, struct err *e, const char *fmt, ...)
{
	char where[40], what[256];
	va_list ap;

	if (ferror(s->f))
		return err_errno(e, errno == EISDIR ? ERR_NOINPUT : ERR_IO, "", "reading");
	snprintf(where, sizeof(where), "line %ld", s->line);
	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	return err_set(e, ERR_DATA, where, "%s", what);
}

/* What stands at s, for a message. */
static const char *seen(const struct scan *s, char buf[24])
{
	if (s->c == EOF)
		return "the end of the text";
	if (s->c == '\n')
		return "the end of the line";
	if (s->c > 0x20 && s->c < 0x7f)
		snprintf(buf, 24, "'%c'", s->c);
	else
		snprintf(buf, 24, "byte 0x%02x", (unsigned)s->c);
	return buf;
}

static int hex_digit(int c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 :
	       c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

int value_scan_hex(struct scan *s, struct buf *out, struct err *e)
{
	char at[24];
	int hi, lo;

	if (s->c != '\'')
		return scan_error(s, e, "expected ' and hex digits, got %s", seen(s, at));
	scan_next(s);
	while (s->c != '\'') {
		hi = hex_digit(s->c);
		if (hi < 0)
			return scan_error(s, e, "expected a hex digit or ', got %s", seen(s, at));
		lo = hex_digit(scan_next(s));
		if (lo < 0)
			return scan_error(s, e, "expected a second hex digit, got %s", seen(s, at));
		buf_byte(out, hi << 4 | lo);
		scan_next(s);
	}
	scan_next(s);
	return 0;
}

/* n hex digits after the character at s. */
static int scan_hex_number(struct scan *s, int n, uint32_t *v, struct err *e)
{
	char at[24];
	int d;

	for (*v = 0; n > 0; n--) {
		d = hex_digit(scan_next(s));
		if (d < 0)
			return scan_error(s, e, "expected a hex digit, got %s", seen(s, at));
		*v = *v << 4 | (uint32_t)d;
	}
	return 0;
}

static void put_utf8(struct buf *out, uint32_t v)
{
	if (v < 0x80) {
		buf_byte(out, (int)v);
	} else if (v < 0x800) {
		buf_byte(out, (int)(0xc0 | v >> 6));
		buf_byte(out, (int)(0x80 | (v & 0x3f)));
	} else if (v < 0x10000) {
		buf_byte(out, (int)(0xe0 | v >> 12));
		buf_byte(out, (int)(0x80 | (v >> 6 & 0x3f)));
		buf_byte(out, (int)(0x80 | (v & 0x3f)));
	} else {
		buf_byte(out, (int)(0xf0 | v >> 18));
		buf_byte(out, (int)(0x80 | (v >> 12 & 0x3f)));
		buf_byte(out, (int)(0x80 | (v >> 6 & 0x3f)));
		buf_byte(out, (int)(0x80 | (v & 0x3f)));
	}
}

/* \uXXXX at the u; a pair of surrogates is one character. */
static int scan_unicode(struct scan *s, struct buf *out, struct err *e)
{
	uint32_t v, low;

	if (scan_hex_number(s, 4, &v, e) < 0)
		return -1;
	if (v >= 0xd800 && v < 0xdc00) {
		if (scan_next(s) != '\\' || scan_next(s) != 'u')
			return scan_error(s, e, "half a surrogate pair in a string");
		if (scan_hex_number(s, 4, &low, e) < 0)
			return -1;
		if (low < 0xdc00 || low >= 0xe000)
			return scan_error(s, e, "half a surrogate pair in a string");
		v = 0x10000 + ((v - 0xd800) << 10) + (low - 0xdc00);
	} else if (v >= 0xdc00 && v < 0xe000) {
		return scan_error(s, e, "half a surrogate pair in a string");
	}
	put_utf8(out, v);
	return 0;
}

/* The escape after a backslash, up to its last character. */
static int scan_escape(struct scan *s, struct buf *out, struct err *e)
{
	static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
	char at[24];
	const char *p;
	uint32_t v;

	if (s->c == 'u')
		return scan_unicode(s, out, e);
	if (s->c == 'x') {
		if (scan_hex_number(s, 2, &v, e) < 0)
			return -1;
		buf_byte(out, (int)v);
		return 0;
	}
	p = s->c > 0 ? strchr(from, s->c) : NULL;
	if (!p)
		return scan_error(s, e, "unknown escape in a string: %s", seen(s, at));
	buf_byte(out, to[p - from]);
	return 0;
}

int value_scan_string(struct scan *s, struct buf *out, struct err *e)
{
	char at[24];

	if (s->c != '"')
		return scan_error(s, e, "expected a string, got %s", seen(s, at));
	scan_next(s);
	while (s->c != '"') {
		if (s->c == EOF || s->c == '\n')
			return scan_error(s, e, "a string without its closing quote");
		if (s->c == '\\') {
			scan_next(s);
			if (scan_escape(s, out, e) < 0)
				return -1;
		} else {
			buf_byte(out, s->c);
		}
		scan_next(s);
	}
	scan_next(s);
	return buf_failed(out, "", e);
}

static void skip_blanks(struct scan *s)
{
	for (;;) {
		if (s->c == '#')
			while (s->c != '\n' && s->c != EOF)
				scan_next(s);
		if (s->c != ' ' && s->c != '\t' && s->c != '\n' && s->c != '\r')
			return;
		scan_next(s);
	}
}

static int scan_value(struct scan *s, struct buf *out, int depth, struct err *e);

static int scan_container(struct scan *s, struct buf *out, int depth, struct err *e)
{
	bool map = s->c == '{';
	int close = map ? '}' : ']';
	struct buf body = { 0 };
	size_t count = 0;
	char at[24];

	if (depth >= VALUE_MAX_DEPTH)
		return scan_error(s, e, "brackets nested more than %d deep", VALUE_MAX_DEPTH);
	scan_next(s);
	for (skip_blanks(s); s->c != close; skip_blanks(s)) {
		if (count > 0) {
			if (s->c != ',') {
				scan_error(s, e, "expected ',' or '%c', got %s", close,
					   seen(s, at));
				goto fail;
			}
			scan_next(s);
			skip_blanks(s);
		}
		if (scan_value(s, &body, depth + 1, e) < 0)
			goto fail;
		if (map) {
			skip_blanks(s);
			if (s->c != ':') {
				scan_error(s, e, "expected ':' after a key, got %s", seen(s, at));
				goto fail;
			}
			scan_next(s);
			skip_blanks(s);
			if (scan_value(s, &body, depth + 1, e) < 0)
				goto fail;
		}
		count++;
	}
	scan_next(s);
	value_pack_count(out, map ? 0x80 : 0x90, map ? 0xde : 0xdc, count);
	buf_add(out, body.p, body.n);
	out->failed |= body.failed;
	buf_release(&body);
	return 0;
fail:
	buf_release(&body);
	return -1;
}

/* f32'...' and f64'...': the bits of a float. */
static int scan_bits(struct scan *s, struct buf *out, size_t bytes, struct err *e)
{
	struct buf raw = { 0 };
	int r = value_scan_hex(s, &raw, e);

	if (r == 0 && raw.n != bytes)
		r = scan_error(s, e, "expected %zu hex digits, got %zu", 2 * bytes, 2 * raw.n);
	if (r == 0) {
		buf_byte(out, bytes == 4 ? 0xca : 0xcb);
		buf_add(out, raw.p, raw.n);
	}
	out->failed |= raw.failed;
	buf_release(&raw);
	return r;
}

static int scan_bin(struct scan *s, struct buf *out, struct err *e)
{
	struct buf raw = { 0 };
	int r = value_scan_hex(s, &raw, e);

	if (r == 0)
		value_pack_bin(out, &raw);
	out->failed |= raw.failed;
	buf_release(&raw);
	return r;
}

static int scan_ext(struct scan *s, struct buf *out, struct err *e)
{
	struct buf raw = { 0 };
	char word[8], at[24], *end;
	size_t n = 0;
	long type;
	int r = -1;

	while ((scan_next(s) == '-' || isdigit(s->c)) && n + 1 < sizeof(word))
		word[n++] = (char)s->c;
	word[n] = '\0';
	type = strtol(word, &end, 10);
	if (n == 0 || *end || s->c != ',' || type < INT8_MIN || type > INT8_MAX)
		return scan_error(s, e, "expected ext(TYPE,h'...'), TYPE from -128 to 127");
	if (scan_next(s) != 'h')
		return scan_error(s, e, "expected h'...' in ext, got %s", seen(s, at));
	scan_next(s);
	if (value_scan_hex(s, &raw, e) == 0) {
		if (s->c == ')')
			r = 0;
		else
			scan_error(s, e, "expected ')' after ext, got %s", seen(s, at));
	}
	if (r == 0) {
		scan_next(s);
		value_pack_ext(out, (int)type, &raw);
	}
	out->failed |= raw.failed;
	buf_release(&raw);
	return r;
}

/* raw'...': any one msgpack value. */
static int scan_raw(struct scan *s, struct buf *out, struct err *e)
{
	struct buf raw = { 0 };
	int r = value_scan_hex(s, &raw, e);
	uint64_t size;

	if (r == 0 && (token_extent(raw.p, raw.n, &size) != 1 || size != raw.n))
		r = scan_error(s, e, "raw'...' is not one msgpack value");
	if (r == 0)
		buf_add(out, raw.p, raw.n);
	out->failed |= raw.failed;
	buf_release(&raw);
	return r;
}

static int scan_float(struct scan *s, struct buf *out, const char *word, size_t n, struct err *e)
{
	bool single = word[n - 1] == 'f' && !strpbrk(word, "xX");
	uint32_t bits;
	char *end;
	double d;
	float f;

	if (single) {
		f = strtof(word, &end);
		if (end != word + n - 1 || !isfinite(f))
			return scan_error(s, e, "not a number: %s", word);
		memcpy(&bits, &f, sizeof(bits));
		value_pack_be(out, 0xca, bits, 4);
		return 0;
	}
	d = strtod(word, &end);
	if (*end || !isfinite(d))
		return scan_error(s, e, "not a number: %s", word);
	value_pack_f64(out, d);
	return 0;
}

static int scan_number(struct scan *s, struct buf *out, const char *word, size_t n, struct err *e)
{
	unsigned long long u;
	long long i;
	char *end;

	if (strspn(word + (word[0] == '-'), "0123456789") != n - (word[0] == '-'))
		return scan_float(s, out, word, n, e);
	errno = 0;
	if (word[0] == '-') {
		i = strtoll(word, &end, 10);
		if (i < 0)
			value_pack_negative(out, i);
		else
			value_pack_uint(out, 0);
	} else {
		u = strtoull(word, &end, 10);
		value_pack_uint(out, u);
	}
	if (*end || end == word || errno == ERANGE)
		return scan_error(s, e, "an integer has 64 bits at most: %s", word);
	return 0;
}

/* A word, up to a quote, bracket, comma or blank: a constant, a number, or what opens a quote. */
static int scan_word(struct scan *s, struct buf *out, struct err *e)
{
	char word[64], at[24];
	size_t n = 0;

	while (s->c != EOF && (isalnum(s->c) || s->c == '+' || s->c == '-' || s->c == '.')) {
		if (n + 1 == sizeof(word))
			return scan_error(s, e, "not a value: %.40s...", word);
		word[n++] = (char)s->c;
		word[n] = '\0';
		scan_next(s);
	}
	if (n == 0)
		return scan_error(s, e, "expected a value, got %s", seen(s, at));
	if (s->c == '\'') {
		if (strcmp(word, "h") == 0)
			return scan_bin(s, out, e);
		if (strcmp(word, "f32") == 0)
			return scan_bits(s, out, 4, e);
		if (strcmp(word, "f64") == 0)
			return scan_bits(s, out, 8, e);
	}
	if (s->c == '(' && strcmp(word, "ext") == 0)
		return scan_ext(s, out, e);
	if (strcmp(word, "null") == 0)
		buf_byte(out, 0xc0);
	else if (strcmp(word, "false") == 0)
		buf_byte(out, 0xc2);
	else if (strcmp(word, "true") == 0)
		buf_byte(out, 0xc3);
	else if (strcmp(word, "inf") == 0)
		value_pack_f64(out, HUGE_VAL);
	else if (strcmp(word, "-inf") == 0)
		value_pack_f64(out, -HUGE_VAL);
	else if (strcmp(word, "nan") == 0)
		value_pack_be(out, 0xcb, UINT64_C(0x7ff8000000000000), 8);
	else if (strcmp(word, "raw") == 0 && s->c == '\'')
		return scan_raw(s, out, e);
	else if (word[0] == '-' || isdigit((unsigned char)word[0]))
		return scan_number(s, out, word, n, e);
	else
		return scan_error(s, e, "not a value: %s", word);
	return 0;
}

static int scan_value(struct scan *s, struct buf *out, int depth, struct err *e)
{
	struct buf text = { 0 };
	int r;

	if (s->c == '[' || s->c == '{')
		return scan_container(s, out, depth, e);
	if (s->c != '"')
		return scan_word(s, out, e);
	r = value_scan_string(s, &text, e);
	if (r == 0)
		value_pack_str(out, &text);
	out->failed |= text.failed;
	buf_release(&text);
	return r;
}

int value_scan(struct scan *s, struct buf *out, struct err *e)
{
	if (scan_value(s, out, 0, e) < 0)
		return -1;
	return buf_failed(out, "", e);
}
