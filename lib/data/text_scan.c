/* SPDX-License-Identifier: Apache-2.0 */
/*
 * text_scan.c - records read from text
 */
#include <ctype.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/buf.h"
#include "lib/data/bits.h"
#include "lib/data/element.h"
#include "lib/data/mp.h"
#include "lib/data/mpwalk.h"
#include "lib/data/record.h"
#include "lib/data/text.h"
#include "lib/data/value.h"

struct text_in {
	struct scan s;
	long line;       /* of the header of the current record */
	struct buf data; /* its payload; codes of U2..U4 a byte each until they are packed */
	struct buf word, value;
	bool head;       /* the record 'stream' was read */
	bool codes, bytes; /* payload given as codes, as bytes */
	uint64_t limit;  /* bytes that data may have */
};

struct text_in *text_open(FILE *f, struct err *e)
{
	struct text_in *t = calloc(1, sizeof(*t));

	if (!t) {
		err_nomem(e, "", sizeof(*t));
		return NULL;
	}
	scan_init(&t->s, f);
	return t;
}

void text_close(struct text_in *t)
{
	if (!t)
		return;
	buf_release(&t->data);
	buf_release(&t->word);
	buf_release(&t->value);
	free(t);
}

long text_line(const struct text_in *t)
{
	return t->line;
}

static bool is_blank(int c)
{
	return c == ' ' || c == '\t' || c == '\r';
}

/* Over blanks and a comment; true at the end of the line. */
static bool line_over(struct scan *s)
{
	while (is_blank(s->c))
		scan_next(s);
	if (s->c == '#')
		while (s->c != '\n' && s->c != EOF)
			scan_next(s);
	return s->c == '\n' || s->c == EOF;
}

/* A word, bare or quoted, into t->word (with a NUL after it, not counted). */
static int scan_name(struct text_in *t, const char *what, struct err *e)
{
	struct scan *s = &t->s;

	buf_clear(&t->word);
	if (s->c == '"') {
		if (value_scan_string(s, &t->word, e) < 0)
			return -1;
	} else {
		for (; text_bare_char(s->c); scan_next(s))
			buf_byte(&t->word, s->c);
		if (t->word.n == 0)
			return scan_error(s, e, "expected %s", what);
	}
	if (strlen(buf_str(&t->word)) != t->word.n)
		return scan_error(s, e, "a NUL in %s", what);
	return buf_failed(&t->word, "", e);
}

/* t->word into a field of cap bytes. */
static int set_field(struct text_in *t, char *field, size_t cap, const char *what, struct err *e)
{
	if (t->word.n >= cap)
		return scan_error(&t->s, e, "%s has %zu bytes, %zu at most", what, t->word.n,
				  cap - 1);
	memcpy(field, t->word.p, t->word.n);
	field[t->word.n] = '\0';
	return 0;
}

static int set_shape(struct text_in *t, struct record *r, struct err *e)
{
	struct mp_doc *d;
	size_t rank;
	int result = 0;

	if (mp_parse(&d, t->value.p, t->value.n, "", e) < 0)
		return -1;
	rank = mp_len(mp_root(d));
	if (mp_type_of(mp_root(d)) != MP_ARRAY || rank > STREAM_MAX_RANK)
		result = scan_error(&t->s, e, "shape is a list of at most %d integers",
				    STREAM_MAX_RANK);
	for (size_t i = 0; i < rank && result == 0; i++)
		if (!mp_int(mp_at(mp_root(d), i), &r->shape[i]) || r->shape[i] < 0)
			result = scan_error(&t->s, e, "shape is a list of at most %d integers",
					    STREAM_MAX_RANK);
	if (result == 0)
		r->rank = (int)rank;
	mp_free(d);
	return result;
}

static int set_role(struct text_in *t, struct record *r, struct err *e)
{
	if (scan_name(t, "a role", e) < 0 ||
	    set_field(t, r->role_name, sizeof(r->role_name), "a role", e) < 0)
		return -1;
	r->role = role_from_name(r->role_name);
	return 0;
}

static int set_dtype(struct text_in *t, struct record *r, struct err *e)
{
	if (scan_name(t, "a dtype", e) < 0)
		return -1;
	r->dtype = dtype_from_name(t->word.p);
	/* One from the future: kept as it is, the payload is bytes. */
	if (r->dtype == DT_NONE && record_set_str(r, "dtype", t->word.p) < 0)
		return err_nomem(e, r->name, t->word.n);
	return 0;
}

/* The value of the key in t->word. */
static int set_key(struct text_in *t, struct record *r, struct err *e)
{
	static const char *const ours[] = { "t", "name", "nbytes", "chunks", "enc", "xxh" };
	struct scan *s = &t->s;
	char key[STREAM_MAX_NAME + 1];
	const void *old;
	size_t old_n;

	if (set_field(t, key, sizeof(key), "a key", e) < 0)
		return -1;
	for (size_t i = 0; i < sizeof(ours) / sizeof(ours[0]); i++)
		if (strcmp(key, ours[i]) == 0)
			return scan_error(s, e, "%s cannot be given: qp-make works it out", key);
	if ((strcmp(key, "role") == 0 && r->role != ROLE_NONE) ||
	    (strcmp(key, "dtype") == 0 && r->dtype != DT_NONE) ||
	    (strcmp(key, "shape") == 0 && r->rank >= 0) ||
	    (strcmp(key, "must") == 0 && r->must) ||
	    record_get_raw(r, key, &old, &old_n))
		return scan_error(s, e, "key %s is given twice", key);
	if (strcmp(key, "role") == 0)
		return set_role(t, r, e);
	if (strcmp(key, "dtype") == 0)
		return set_dtype(t, r, e);
	buf_clear(&t->value);
	if (value_scan(s, &t->value, e) < 0)
		return -1;
	if (strcmp(key, "shape") == 0)
		return set_shape(t, r, e);
	if (strcmp(key, "must") == 0) {
		if (t->value.n != 1 || (unsigned char)t->value.p[0] != 0xc3)
			return scan_error(s, e, "must is true, or not given");
		r->must = true;
		return 0;
	}
	if (record_set_raw(r, key, t->value.p, t->value.n) < 0)
		return err_nomem(e, r->name, t->value.n);
	return 0;
}

/* The type in t->word. */
static int set_type(struct text_in *t, struct record *r, struct err *e)
{
	record_clear(r);
	for (int i = REC_STREAM; i <= REC_END; i++) {
		record_init(r, (enum rec_type)i, "");
		if (strcmp(r->type_name, t->word.p) == 0)
			return 0;
	}
	record_init(r, REC_OTHER, "");
	return set_field(t, r->type_name, sizeof(r->type_name), "a record type", e);
}

static int scan_header(struct text_in *t, struct record *r, struct err *e)
{
	struct scan *s = &t->s;

	t->line = s->line;
	if (scan_name(t, "a record type", e) < 0 || set_type(t, r, e) < 0)
		return -1;
	for (int words = 0; !line_over(s); words++) {
		if (scan_name(t, "a name or key=value", e) < 0)
			return -1;
		if (s->c == '=') {
			scan_next(s);
			if (set_key(t, r, e) < 0)
				return -1;
		} else if (words > 0) {
			return scan_error(s, e, "expected '=' after %.60s", t->word.p);
		} else if (set_field(t, r->name, sizeof(r->name), "a name", e) < 0) {
			return -1;
		}
		if (s->c != '\n' && s->c != EOF && s->c != '#' && !is_blank(s->c))
			return scan_error(s, e, "expected a blank, got '%c'", s->c);
	}
	return 0;
}

/* ---- payload --------------------------------------------------------------------- */

/* Room for n more bytes: the shape limits them. */
static int check_room(struct text_in *t, uint64_t n, struct err *e)
{
	if (n > t->limit || t->data.n > t->limit - n)
		return scan_error(&t->s, e, "more values than the shape has");
	return 0;
}

static int add_values(struct text_in *t, const struct record *r, char *word, struct err *e)
{
	char *star = strchr(word, '*'), *end;
	bool packed = r->dtype >= DT_U2 && r->dtype <= DT_U4;
	unsigned long long times = 1;
	unsigned char v[8];
	const char *bad;
	size_t bytes;

	if (star) {
		*star = '\0';
		times = strtoull(star + 1, &end, 10);
		if (!isdigit((unsigned char)star[1]) || *end || times == 0 || times > 1ull << 40)
			return scan_error(&t->s, e, "expected a count after '*', got %s", star + 1);
	}
	if (!packed && !element_has_text(r->dtype))
		return scan_error(&t->s, e, "bytes are given as h'00ff' or \"text\", not %s", word);
	bad = element_scan(v, packed ? DT_U8 : r->dtype, word);
	if (!bad && packed && v[0] >> dtype_bits(r->dtype))
		bad = "out of range";
	if (bad)
		return scan_error(&t->s, e, "%s for %s: %s", bad, dtype_name(r->dtype), word);
	bytes = packed ? 1 : (size_t)dtype_bits(r->dtype) / 8;
	if (check_room(t, times * bytes, e) < 0)
		return -1;
	t->codes |= packed;
	for (; times > 0 && !t->data.failed; times--)
		buf_add(&t->data, v, bytes);
	return 0;
}

static int scan_item(struct text_in *t, const struct record *r, struct err *e)
{
	struct scan *s = &t->s;

	buf_clear(&t->word);
	if (s->c == '"') {
		if (value_scan_string(s, &t->word, e) < 0)
			return -1;
	} else if (s->c == 'h') {
		scan_next(s);
		if (value_scan_hex(s, &t->word, e) < 0)
			return -1;
	} else {
		while (s->c != EOF && s->c != '\n' && s->c != '#' && !is_blank(s->c)) {
			if (t->word.n > 400 || s->c == '\0')
				return scan_error(s, e, "not a value: %.40s...", buf_str(&t->word));
			buf_byte(&t->word, s->c);
			scan_next(s);
		}
		buf_str(&t->word);
		if (buf_failed(&t->word, "", e) < 0)
			return -1;
		return add_values(t, r, t->word.p, e);
	}
	t->bytes = true;
	if (buf_failed(&t->word, "", e) < 0 || check_room(t, t->word.n, e) < 0)
		return -1;
	buf_add(&t->data, t->word.p, t->word.n);
	return 0;
}

/* Codes, a byte each, to rows of packed codes. */
static int pack_payload(struct text_in *t, const struct record *r, uint64_t want, struct err *e)
{
	size_t cols = (size_t)r->shape[r->rank - 1];
	size_t row = bits_row_bytes(cols, dtype_bits(r->dtype));
	size_t rows = cols ? t->data.n / cols : 0;
	struct buf packed = { 0 };
	uint8_t *to;

	if (t->bytes || rows * cols != t->data.n || rows * row != want)
		return scan_error(&t->s, e, "%zu codes do not fill the shape", t->data.n);
	to = buf_room(&packed, rows * row);
	if (to) {
		for (size_t i = 0; i < rows; i++)
			bits_pack_row(to + i * row, (const uint8_t *)t->data.p + i * cols, cols,
				      dtype_bits(r->dtype));
		packed.n = rows * row;
	}
	buf_release(&t->data);
	t->data = packed;
	return 0;
}

static int scan_payload(struct text_in *t, struct record *r, struct err *e)
{
	bool shaped = r->dtype != DT_NONE && r->rank >= 0;
	struct scan *s = &t->s;
	uint64_t want = 0;
	long line;

	if (shaped && dtype_nbytes(r->dtype, r->rank, r->shape, &want) < 0)
		return scan_error(s, e, "a tensor of this shape is too large");
	t->limit = !shaped ? UINT64_MAX : want;
	if (shaped && dtype_bits(r->dtype) < 8) {
		if (r->rank == 0)
			return scan_error(s, e, "%s needs a shape of rows", dtype_name(r->dtype));
		t->limit = want * 8 / (uint64_t)dtype_bits(r->dtype);
	}
	while (s->c == '\n' || s->c == '#' || is_blank(s->c)) {
		while (!line_over(s))
			if (scan_item(t, r, e) < 0)
				return -1;
		scan_next(s);
	}
	line = s->line;
	s->line = t->line; /* what is missing is missing from the whole record */
	if (t->codes && shaped && pack_payload(t, r, want, e) < 0)
		return -1;
	if (buf_failed(&t->data, r->name, e) < 0)
		return -1;
	if (t->codes && !shaped)
		return scan_error(s, e, "codes need a shape");
	if (shaped && t->data.n != want)
		return scan_error(s, e, "%s has %zu of the %" PRIu64 " bytes of its shape",
				  r->name[0] ? r->name : r->type_name, t->data.n, want);
	s->line = line;
	r->nbytes = t->data.n;
	return 0;
}

/* A header without its version, as that of a model directory is, is of this one. */
static int add_version(struct text_in *t, struct record *r, struct err *e)
{
	const void *v;
	size_t n;

	if (record_get_raw(r, "v", &v, &n))
		return 0;
	buf_clear(&t->value);
	mp_put_array(&t->value, 2);
	mp_put_int(&t->value, STREAM_MAJOR);
	mp_put_int(&t->value, STREAM_MINOR);
	if (t->value.failed || record_set_raw(r, "v", t->value.p, t->value.n) < 0)
		return err_nomem(e, "header", t->value.n);
	return 0;
}

/* What the reader of streams would refuse is refused here, at its line. */
static int check_header(struct text_in *t, struct record *r, struct err *e)
{
	struct record again = { 0 };
	char label[320];
	struct err why;
	uint64_t size;
	int result;

	if (t->head == (r->type == REC_STREAM)) {
		t->s.line = t->line;
		return scan_error(&t->s, e, t->head ? "a second record 'stream'" :
				  "the first record must be 'stream'");
	}
	t->head = true;
	if (r->type == REC_STREAM && add_version(t, r, e) < 0)
		return -1;
	r->chunks = record_chunks(r->nbytes);
	record_label(r, label, sizeof(label));
	buf_clear(&t->value);
	record_encode(r, &t->value);
	if (buf_failed(&t->value, r->name, e) < 0)
		return -1;
	/* raw'...' may nest deeper than headers may. */
	if (token_extent(t->value.p, t->value.n, &size) != 1)
		result = err_set(&why, ERR_DATA, label, "values nested too deep");
	else
		result = record_decode(&again, t->value.p, t->value.n, &why);
	record_clear(&again);
	t->s.line = result < 0 ? t->line : t->s.line;
	if (result < 0)
		return scan_error(&t->s, e, "%s: %s", why.where, why.what);
	if (t->value.n > STREAM_MAX_HEADER)
		return scan_error(&t->s, e, "%s: a header of %zu bytes, %u at most", label,
				  t->value.n, STREAM_MAX_HEADER);
	return 0;
}

int text_next(struct text_in *t, struct record *r, const void **payload, struct err *e)
{
	struct scan *s = &t->s;

	*payload = NULL;
	buf_clear(&t->data);
	t->codes = t->bytes = false;
	while (s->c == '\n' || s->c == '#' || is_blank(s->c)) {
		if (!line_over(s))
			return scan_error(s, e, "a value before the first header");
		scan_next(s);
	}
	if (s->c == EOF)
		return scan_error(s, e, "the text ends here without the line 'end'");
	if (scan_header(t, r, e) < 0)
		return -1;
	if (r->type == REC_END) {
		if (r->n_extra || r->name[0] || r->role || r->dtype || r->rank >= 0 || r->must) {
			s->line = t->line;
			return scan_error(s, e, "'end' stands alone");
		}
		while (s->c != EOF) {
			if (!line_over(s))
				return scan_error(s, e, "more text after 'end'");
			scan_next(s);
		}
		if (ferror(s->f))
			return scan_error(s, e, "reading");
		return 0;
	}
	if (scan_payload(t, r, e) < 0 || check_header(t, r, e) < 0)
		return -1;
	*payload = r->nbytes > 0 ? t->data.p : NULL;
	return 1;
}
