/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tokenizer_decode.c - decoders: the texts of tokens to the text they came from
 *
 * Each takes the list of strings that the one before left and makes another.
 */
#include <stdlib.h>
#include <string.h>

#include "lib/data/tokenizer_impl.h"

static const char REPLACEMENT[] = "\xef\xbf\xbd"; /* U+FFFD */

void dec_step_release(struct dec_step *s)
{
	tok_pattern_free(s->pat);
	free(s->s);
}

/* A string was appended to text2 from off on.  Empty strings stay in the list. */
static int item(struct tok_work *w, size_t off, struct err *e)
{
	return tok_piece_add(&w->pieces2, off, w->text2.n - off, 0, 0, e);
}

static int replace_one(const struct dec_step *step, struct tok_match *m, const char *s, size_t n,
		       struct tok_buf *out, struct err *e)
{
	size_t done = 0, start, end;
	int got;

	tok_match_text(m, s, n);
	while (n && (got = tok_match_next(m, &start, &end, e)) != 0) {
		if (got < 0 || tok_buf_add(out, s + done, start - done, e) ||
		    tok_buf_add(out, step->s, step->n, e))
			return -1;
		done = end;
	}
	return tok_buf_add(out, s + done, n - done, e);
}

static int replace(const struct dec_step *step, struct tok_work *w, struct err *e)
{
	struct tok_match m;
	int ret = 0;

	if (tok_match_start(&m, step->pat, e))
		return -1;
	for (size_t i = 0; i < w->pieces.n && !ret; i++) {
		const struct tok_piece *p = &w->pieces.v[i];
		size_t off = w->text2.n;

		ret = replace_one(step, &m, w->text.p + p->off, p->len, &w->text2, e) ||
		      item(w, off, e) ? -1 : 0;
	}
	tok_match_end(&m);
	return ret;
}

static int hex(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 :
	       c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* "<0x41>" -> 0x41, others -1. */
static int byte_token(const char *s, size_t n)
{
	if (n != 6 || memcmp(s, "<0x", 3) != 0 || s[5] != '>' || hex(s[3]) < 0 || hex(s[4]) < 0)
		return -1;
	return hex(s[3]) << 4 | hex(s[4]);
}

/* A run of byte tokens becomes one string, or that many replacement characters. */
static int bytes_done(struct tok_work *w, struct tok_buf *bytes, struct err *e)
{
	bool good = tok_utf8_check(bytes->p, bytes->n) == bytes->n;
	size_t n = bytes->n, off = w->text2.n;

	bytes->n = 0;
	if (!n)
		return 0;
	if (good)
		return tok_buf_add(&w->text2, bytes->p, n, e) || item(w, off, e) ? -1 : 0;
	for (size_t i = 0; i < n; i++, off = w->text2.n)
		if (tok_buf_add(&w->text2, REPLACEMENT, 3, e) || item(w, off, e))
			return -1;
	return 0;
}

static int byte_fallback(struct tok_work *w, struct err *e)
{
	struct tok_buf bytes = { 0 };
	int ret = 0;

	for (size_t i = 0; i < w->pieces.n && !ret; i++) {
		const struct tok_piece *p = &w->pieces.v[i];
		const char *s = w->text.p + p->off;
		int b = byte_token(s, p->len);
		char c = (char)b;

		if (b >= 0) {
			ret = tok_buf_add(&bytes, &c, 1, e);
			continue;
		}
		ret = bytes_done(w, &bytes, e);
		if (!ret) {
			size_t off = w->text2.n;

			ret = tok_buf_add(&w->text2, s, p->len, e) || item(w, off, e) ? -1 : 0;
		}
	}
	if (!ret)
		ret = bytes_done(w, &bytes, e);
	free(bytes.p);
	return ret;
}

static int fuse(struct tok_work *w, struct err *e)
{
	for (size_t i = 0; i < w->pieces.n; i++)
		if (tok_buf_add(&w->text2, w->text.p + w->pieces.v[i].off, w->pieces.v[i].len, e))
			return -1;
	return item(w, 0, e);
}

static int strip(const struct dec_step *step, struct tok_work *w, struct err *e)
{
	for (size_t i = 0; i < w->pieces.n; i++) {
		const struct tok_piece *p = &w->pieces.v[i];
		const char *s = w->text.p + p->off;
		size_t begin = 0, end = p->len, len, off = w->text2.n;

		for (size_t k = 0; k < step->start && begin < end; k++, begin += len)
			if (tok_char(s + begin, &len) != step->c)
				break;
		for (size_t k = 0; k < step->stop && end > begin; k++) {
			size_t at = end - 1;

			while ((s[at] & 0xc0) == 0x80)
				at--;
			if (tok_char(s + at, &len) != step->c)
				break;
			end = at;
		}
		if (tok_buf_add(&w->text2, s + begin, end - begin, e) || item(w, off, e))
			return -1;
	}
	return 0;
}

/* A token that has a character outside of GPT-2's alphabet stands for its own bytes. */
static int byte_level(struct tok_work *w, struct err *e)
{
	struct tok_buf bytes = { 0 };
	int ret = 0;

	for (size_t i = 0; i < w->pieces.n && !ret; i++) {
		const struct tok_piece *p = &w->pieces.v[i];
		const char *s = w->text.p + p->off;
		size_t len, before = bytes.n;

		if (!p->len)
			continue;
		ret = tok_buf_reserve(&bytes, p->len, e);
		for (size_t k = 0; k < p->len && !ret; k += len) {
			int b = tok_char_byte(tok_char(s + k, &len));

			if (b < 0) {
				bytes.n = before;
				ret = tok_buf_add(&bytes, s, p->len, e);
				break;
			}
			bytes.p[bytes.n++] = (char)b;
		}
	}
	/* What is not UTF-8 becomes U+FFFD, one for each maximal part of a character. */
	for (size_t i = 0; i < bytes.n && !ret;) {
		size_t n = tok_utf8_check(bytes.p + i, bytes.n - i);

		ret = tok_buf_add(&w->text2, bytes.p + i, n, e);
		i += n;
		if (i == bytes.n || ret)
			break;
		i += tok_utf8_bad(bytes.p + i, bytes.n - i);
		ret = tok_buf_add(&w->text2, REPLACEMENT, 3, e);
	}
	free(bytes.p);
	return ret ? -1 : item(w, 0, e);
}

static int metaspace(const struct dec_step *step, struct tok_work *w, struct err *e)
{
	for (size_t i = 0; i < w->pieces.n; i++) {
		const struct tok_piece *p = &w->pieces.v[i];
		const char *s = w->text.p + p->off;
		size_t off = w->text2.n;

		for (size_t k = 0, len; k < p->len; k += len) {
			uint32_t c = tok_char(s + k, &len);

			if (c != step->c ? tok_buf_add(&w->text2, s + k, len, e) :
			    (i || !step->drop_first) && tok_buf_add(&w->text2, " ", 1, e))
				return -1;
		}
		if (item(w, off, e))
			return -1;
	}
	return 0;
}

int tok_dec_run(const struct dec_step *step, struct tok_work *w, struct err *e)
{
	int ret = -1;

	w->text2.n = 0;
	w->pieces2.n = 0;
	switch (step->kind) {
	case DEC_REPLACE:
		ret = replace(step, w, e);
		break;
	case DEC_BYTE_FALLBACK:
		ret = byte_fallback(w, e);
		break;
	case DEC_FUSE:
		ret = fuse(w, e);
		break;
	case DEC_STRIP:
		ret = strip(step, w, e);
		break;
	case DEC_BYTELEVEL:
		ret = byte_level(w, e);
		break;
	case DEC_METASPACE:
		ret = metaspace(step, w, e);
		break;
	}
	tok_swap_text(w);
	tok_swap_pieces(w);
	return ret;
}
