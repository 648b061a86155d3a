/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pipeline.c - the provenance of a stream as a pipeline that can be run again
 */
#include "lib/data/pipeline.h"

#include <string.h>

#include "lib/data/mp.h"
#include "lib/data/stream.h"

static bool one_of(const char *s, size_t n, const char *set)
{
	for (size_t i = 0; i < n; i++)
		if (s[i] == '\0' || !strchr(set, s[i]))
			return false;
	return n > 0;
}

#define UPPER "ABCDEFGHIJKLMNOPQRSTUVWXYZ_"
#define DIGIT "0123456789"
#define LOWER "abcdefghijklmnopqrstuvwxyz"

/* $'a\nb', for what the terminal must not see (POSIX.1-2024; most shells had it before). */
static void put_dollar_quoted(struct buf *out, const char *s, size_t n)
{
	buf_puts(out, "$'");
	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)s[i];

		if (c < 0x20 || c == 0x7f)
			buf_printf(out, "\\%03o", c);
		else if (c == '\'' || c == '\\')
			buf_printf(out, "\\%c", c);
		else
			buf_byte(out, c);
	}
	buf_byte(out, '\'');
}

/* One word for the shell: bare, or in single quotes. */
static void put_quoted(struct buf *out, const char *s, size_t n)
{
	if (one_of(s, n, UPPER DIGIT LOWER "@%+=:,./-")) {
		buf_add(out, s, n);
		return;
	}
	for (size_t i = 0; i < n; i++)
		if ((unsigned char)s[i] < 0x20 || s[i] == 0x7f) {
			put_dollar_quoted(out, s, n);
			return;
		}
	buf_byte(out, '\'');
	for (size_t i = 0; i < n; i++) {
		if (s[i] == '\'')
			buf_puts(out, "'\\''");
		else
			buf_byte(out, s[i]);
	}
	buf_byte(out, '\'');
}

/* --calib=$CALIB stands for a file that was not noted: a variable for the shell to fill in. */
static void put_option(struct buf *out, const char *s, size_t n)
{
	const char *eq = n > 2 && s[0] == '-' && s[1] == '-' ? memchr(s, '=', n) : NULL;
	const char *value = eq ? eq + 1 : s;
	size_t rest = n - (size_t)(value - s);

	buf_byte(out, ' ');
	if (rest > 1 && value[0] == '$' && one_of(value + 1, rest - 1, UPPER DIGIT) &&
	    (value == s || one_of(s, (size_t)(value - s), LOWER DIGIT "-="))) {
		buf_add(out, s, n - rest);
		buf_byte(out, '"');
		buf_add(out, value, rest);
		buf_byte(out, '"');
		return;
	}
	put_quoted(out, s, n);
}

static bool is_word(const char *s, size_t n, const char *word)
{
	return n == strlen(word) && memcmp(s, word, n) == 0;
}

/* What the first program read. */
static const char *operand(const char *program, size_t len, const struct mp *options)
{
	const char *s;
	size_t n;

	if (!is_word(program, len, "calib-pack"))
		return " \"$MODEL\"";
	for (size_t k = 0; k < mp_len(options); k++)
		if (mp_str(mp_at(options, k), &s, &n) && is_word(s, n, "--images"))
			return " \"$IMAGES\"";
	return " \"$TEXT\"";
}

static int put_stage(struct buf *out, const struct mp *stage, size_t i, struct err *e)
{
	const struct mp *options = mp_get(stage, "options");
	const char *s;
	size_t n;

	if (mp_type_of(stage) != MP_MAP || !mp_str(mp_get(stage, "program"), &s, &n) ||
	    mp_type_of(options) != MP_ARRAY)
		return err_set(e, ERR_DATA, "header", "prov %zu has no program or no options", i);
	if (i > 0)
		buf_puts(out, " | ");
	put_quoted(out, s, n);
	if (i == 0)
		buf_puts(out, operand(s, n, options));
	else if (is_word(s, n, "record-acts"))
		buf_puts(out, " -");
	for (size_t k = 0; k < mp_len(options); k++) {
		if (!mp_str(mp_at(options, k), &s, &n))
			return err_set(e, ERR_DATA, "header", "prov %zu: option is no string", i);
		put_option(out, s, n);
	}
	return 0;
}

int pipeline_text(struct buf *out, const struct record *head, struct err *e)
{
	const void *prov;
	struct mp_doc *d;
	size_t n;
	int r = 0;

	if (!record_get_raw(head, "prov", &prov, &n))
		return 0;
	if (mp_parse(&d, prov, n, "prov", e) < 0)
		return -1;
	if (mp_type_of(mp_root(d)) != MP_ARRAY)
		r = err_set(e, ERR_DATA, "header", "prov is not a list");
	for (size_t i = 0; r == 0 && i < mp_len(mp_root(d)); i++)
		r = put_stage(out, mp_at(mp_root(d), i), i, e);
	mp_free(d);
	return r < 0 ? -1 : buf_failed(out, "header", e);
}

static bool same_str(const struct mp *a, const struct mp *b)
{
	const char *sa, *sb;
	size_t na, nb;

	return mp_str(a, &sa, &na) && mp_str(b, &sb, &nb) && na == nb && memcmp(sa, sb, na) == 0;
}

static bool same_stage(const struct mp *a, const struct mp *b)
{
	const struct mp *oa = mp_get(a, "options"), *ob = mp_get(b, "options");

	if (!same_str(mp_get(a, "program"), mp_get(b, "program")) ||
	    !same_str(mp_get(a, "version"), mp_get(b, "version")) ||
	    mp_type_of(oa) != MP_ARRAY || mp_type_of(ob) != MP_ARRAY || mp_len(oa) != mp_len(ob))
		return false;
	for (size_t i = 0; i < mp_len(oa); i++)
		if (!same_str(mp_at(oa, i), mp_at(ob, i)))
			return false;
	return true;
}

static bool same_stages(const struct mp *a, const struct mp *b)
{
	if (mp_type_of(a) != MP_ARRAY || mp_type_of(b) != MP_ARRAY || mp_len(a) != mp_len(b))
		return false;
	for (size_t i = 0; i < mp_len(a); i++)
		if (mp_type_of(mp_at(a, i)) != MP_MAP || mp_type_of(mp_at(b, i)) != MP_MAP ||
		    !same_stage(mp_at(a, i), mp_at(b, i)))
			return false;
	return true;
}

bool pipeline_agree(const struct record *a, const struct record *b)
{
	struct mp_doc *da, *db;
	const void *pa, *pb;
	struct err e;
	size_t na, nb;
	int ha = record_get_raw(a, "prov", &pa, &na), hb = record_get_raw(b, "prov", &pb, &nb);
	bool same;

	if (!ha || !hb)
		return ha == hb;
	if (mp_parse(&da, pa, na, "prov", &e) < 0)
		return false;
	if (mp_parse(&db, pb, nb, "prov", &e) < 0) {
		mp_free(da);
		return false;
	}
	same = same_stages(mp_root(da), mp_root(db));
	mp_free(da);
	mp_free(db);
	return same;
}
