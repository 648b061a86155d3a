/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tokenizer_norm.c - normalizers: text to text
 */
#include <stdlib.h>
#include <string.h>

#include <utf8proc.h>

#include "lib/data/tokenizer_impl.h"

void norm_step_release(struct norm_step *s)
{
	free(s->s);
	tok_pattern_free(s->pat);
	tok_charsmap_free(s->map);
}

/* Unicode normalization of a whole text would need four bytes for each of its characters three
 * times over, so it is done in slices.  A slice ends before a line feed after an ASCII
 * character: neither takes part in a composition or a reordering with what is around it. */
#define SLICE ((size_t)1 << 20)

static size_t slice_end(const char *s, size_t n)
{
	if (n <= SLICE)
		return n;
	for (size_t i = SLICE; i < n; i++)
		if (s[i] == '\n' && (unsigned char)s[i - 1] < 0x80)
			return i;
	return n;
}

static int unicode_slice(const char *s, size_t n, utf8proc_option_t opt, struct tok_buf *out,
			 struct err *e)
{
	utf8proc_ssize_t got;
	utf8proc_int32_t *c;
	size_t cap;

	got = utf8proc_decompose((const utf8proc_uint8_t *)s, (utf8proc_ssize_t)n, NULL, 0, opt);
	if (got < 0)
		return err_set(e, ERR_BUG, "tokenizer", "%s", utf8proc_errmsg(got));
	cap = (size_t)got;
	c = malloc((cap + 1) * sizeof(*c));
	if (!c)
		return err_nomem(e, "tokenizer", (cap + 1) * sizeof(*c));
	got = utf8proc_decompose((const utf8proc_uint8_t *)s, (utf8proc_ssize_t)n, c, got, opt);
	if (got > 0)
		got = utf8proc_normalize_utf32(c, got, opt);
	if (got < 0) {
		free(c);
		return err_set(e, ERR_BUG, "tokenizer", "%s", utf8proc_errmsg(got));
	}
	if (tok_buf_reserve(out, 4 * (size_t)got, e)) {
		free(c);
		return -1;
	}
	for (utf8proc_ssize_t i = 0; i < got; i++)
		out->n += tok_put(out->p + out->n, (uint32_t)c[i]);
	free(c);
	return 0;
}

static int unicode(const char *s, size_t n, enum norm_kind kind, struct tok_buf *out,
		   struct err *e)
{
	utf8proc_option_t opt = UTF8PROC_STABLE;

	/* ASCII is its own normal form. */
	for (size_t i = 0; i <= n; i++) {
		if (i == n)
			return tok_buf_add(out, s, n, e);
		if ((unsigned char)s[i] >= 0x80)
			break;
	}
	if (kind == NORM_NFC || kind == NORM_NFKC)
		opt |= UTF8PROC_COMPOSE;
	else
		opt |= UTF8PROC_DECOMPOSE;
	if (kind == NORM_NFKC || kind == NORM_NFKD)
		opt |= UTF8PROC_COMPAT;
	while (n) {
		size_t len = slice_end(s, n);

		if (unicode_slice(s, len, opt, out, e))
			return -1;
		s += len;
		n -= len;
	}
	return 0;
}

/* Character by character: LOWERCASE, STRIP_ACCENTS and BYTELEVEL. */
static int each_char(const char *s, size_t n, enum norm_kind kind, struct tok_buf *out,
		     struct err *e)
{
	for (size_t i = 0, len; i < n; i += len) {
		uint32_t c = tok_char(s + i, &len);
		utf8proc_category_t cat;

		if (tok_buf_reserve(out, 8, e))
			return -1;
		switch (kind) {
		case NORM_LOWERCASE:
			if (c == 0x130) { /* the one character whose small form is two */
				out->n += tok_put(out->p + out->n, 'i');
				c = 0x307;
			} else {
				c = (uint32_t)utf8proc_tolower((utf8proc_int32_t)c);
			}
			break;
		case NORM_STRIP_ACCENTS:
			cat = utf8proc_category((utf8proc_int32_t)c);
			if (cat == UTF8PROC_CATEGORY_MN || cat == UTF8PROC_CATEGORY_MC ||
			    cat == UTF8PROC_CATEGORY_ME)
				continue;
			break;
		default:
			for (size_t k = 0; k < len; k++)
				out->n += tok_put(out->p + out->n,
						  tok_byte_char((unsigned char)s[i + k]));
			continue;
		}
		out->n += tok_put(out->p + out->n, c);
	}
	return 0;
}

/* What is put in belongs to the last character that it replaces. */
static int replace(const struct norm_step *step, const char *s, size_t n, struct tok_buf *out,
		   size_t *zero, struct err *e)
{
	struct tok_match m;
	size_t done = 0, start, end, was = *zero;
	int got;

	if (tok_match_start(&m, step->pat, e))
		return -1;
	tok_match_text(&m, s, n);
	while ((got = tok_match_next(&m, &start, &end, e)) > 0) {
		if (tok_buf_add(out, s + done, start - done, e) ||
		    tok_buf_add(out, step->s, step->n, e)) {
			got = -1;
			break;
		}
		if (was) { /* the bytes of the first character go, what replaces them comes */
			*zero -= (end < was ? end : was) - (start < was ? start : was);
			*zero += end <= was ? step->n : 0;
		}
		done = end;
	}
	tok_match_end(&m);
	return got < 0 ? -1 : tok_buf_add(out, s + done, n - done, e);
}

static int strip(const struct norm_step *step, const char *s, size_t n, struct tok_buf *out,
		 size_t *zero, struct err *e)
{
	size_t len, end = n, begin = 0;

	while (step->left && begin < n && tok_is_space(tok_char(s + begin, &len)))
		begin += len;
	*zero = *zero > begin ? *zero - begin : 0;
	while (step->right && end > begin) {
		size_t k = end - 1;

		while ((s[k] & 0xc0) == 0x80)
			k--;
		if (!tok_is_space(tok_char(s + k, &len)))
			break;
		end = k;
	}
	return tok_buf_add(out, s + begin, end - begin, e);
}

static int transform(const struct norm_step *step, const char *s, size_t n, struct tok_buf *out,
		     struct err *e)
{
	switch (step->kind) {
	case NORM_NFC: case NORM_NFD: case NORM_NFKC: case NORM_NFKD:
		return unicode(s, n, step->kind, out, e);
	default:
		return each_char(s, n, step->kind, out, e);
	}
}

/* How many bytes of `of` (n of them) as many characters take as the text p of pn bytes has. */
static size_t same_count(const char *p, size_t pn, const char *of, size_t n)
{
	size_t i = 0, k = 0, len;

	for (; i < pn && k < n; i += len) {
		(void)tok_char(of + k, &len);
		k += len;
		(void)tok_char(p + i, &len);
	}
	return k;
}

/* The first character alone becomes so many characters; in its place in the text it becomes as
 * many, whatever it is composed with. */
static int transformed_zero(const struct norm_step *step, const char *s, const char *out,
			    size_t n, size_t *zero, struct err *e)
{
	struct tok_buf alone = { 0 };
	int ret;

	if (!*zero)
		return 0;
	ret = transform(step, s, *zero, &alone, e);
	*zero = same_count(alone.p, alone.n, out, n);
	free(alone.p);
	return ret;
}

static int run(const struct norm_step *step, const char *s, size_t n, struct tok_buf *out,
	       size_t *zero, struct err *e)
{
	const size_t off = out->n;

	if (!n)
		return 0;
	switch (step->kind) {
	case NORM_PREPEND:
		*zero += *zero ? step->n : 0;
		return tok_buf_add(out, step->s, step->n, e) || tok_buf_add(out, s, n, e) ? -1 : 0;
	case NORM_REPLACE:
		return replace(step, s, n, out, zero, e);
	case NORM_STRIP:
		return strip(step, s, n, out, zero, e);
	case NORM_SENTENCEPIECE:
		return tok_normalize_spm(step, s, n, out, zero, e);
	default:
		return transform(step, s, n, out, e) ||
		       transformed_zero(step, s, out->p + off, out->n - off, zero, e) ? -1 : 0;
	}
}

int tok_normalize(const struct tokenizer *t, const char *s, size_t n, struct tok_buf *out,
		  size_t *zero, struct err *e)
{
	struct tok_buf work[2] = { { 0 }, { 0 } };
	int ret = 0;

	if (!t->n_norm)
		return tok_buf_add(out, s, n, e);
	for (size_t i = 0; i < t->n_norm && !ret; i++) {
		struct tok_buf *to = i + 1 == t->n_norm ? out : &work[i & 1];
		const size_t off = to == out ? out->n : 0;

		to->n = off;
		ret = run(&t->norm[i], s, n, to, zero, e);
		s = to->p + off;
		n = to->n - off;
	}
	free(work[0].p);
	free(work[1].p);
	return ret;
}
