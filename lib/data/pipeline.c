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

/* One word for the shell: bare, or in single quotes. */
static void put_quoted(struct buf *out, const char *s, size_t n)
{
	if (one_of(s, n, UPPER DIGIT LOWER "@%+=:,./-")) {
		buf_add(out, s, n);
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

static int put_stage(struct buf *out, const struct mp *stage, size_t i, bool model, struct err *e)
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
		buf_puts(out, model ? " \"$MODEL\"" : " \"$TEXT\"");
	else if (n == 11 && memcmp(s, "record-acts", n) == 0)
		buf_puts(out, " -");
	for (size_t k = 0; k < mp_len(options); k++) {
		if (!mp_str(mp_at(options, k), &s, &n))
			return err_set(e, ERR_DATA, "header", "prov %zu: an option is no string", i);
		put_option(out, s, n);
	}
	return 0;
}

int pipeline_text(struct buf *out, const struct record *head, struct err *e)
{
	const void *family, *prov;
	struct mp_doc *d;
	size_t n, family_n;
	int r = 0;

	if (!record_get_raw(head, "prov", &prov, &n))
		return 0;
	if (mp_parse(&d, prov, n, "prov", e) < 0)
		return -1;
	if (mp_type_of(mp_root(d)) != MP_ARRAY)
		r = err_set(e, ERR_DATA, "header", "prov is not a list");
	for (size_t i = 0; r == 0 && i < mp_len(mp_root(d)); i++)
		r = put_stage(out, mp_at(mp_root(d), i), i,
			      record_get_raw(head, "family", &family, &family_n), e);
	mp_free(d);
	return r < 0 ? -1 : buf_failed(out, "header", e);
}
