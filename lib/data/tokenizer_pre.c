/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tokenizer_pre.c - pre-tokenizers: cut a text into the pieces that merges stay inside
 */
#include <stdlib.h>
#include <string.h>

#include "lib/data/tokenizer_impl.h"

void pre_step_release(struct pre_step *s)
{
	tok_pattern_free(s->pat);
}

/* A part of the piece at hand, and whether the pattern matched it. */
struct part {
	size_t begin, end;
	bool match;
};

struct splitter {
	struct tok_match m;
	enum split_behavior behavior;
	bool invert;
	struct part open; /* not written yet: the next part may still join it */
	bool is_open;
	bool was;         /* whether the part before was a match (inverted if asked) */
	const struct tok_piece *whole;
	struct tok_pieces *out;
};

static int write_part(struct splitter *s, size_t begin, size_t end, struct err *e)
{
	return tok_piece_add(s->out, s->whole->off + begin, end - begin, -1,
			     s->whole->zero > begin ? s->whole->zero - begin : 0, e);
}

static int flush(struct splitter *s, struct err *e)
{
	if (!s->is_open)
		return 0;
	s->is_open = false;
	return write_part(s, s->open.begin, s->open.end, e);
}

/*
 * The rules of HF's NormalizedString::split, from left to right.  MERGED_NEXT is defined there
 * from right to left: of two matches side by side the last one goes with the text after it, and
 * a match before a match stands alone if the one after it was joined.
 */
static int part(struct splitter *s, size_t begin, size_t end, bool match, struct err *e)
{
	bool is = match != s->invert, join;

	switch (s->behavior) {
	case SPLIT_REMOVED:
		return is ? 0 : write_part(s, begin, end, e);
	case SPLIT_CONTIGUOUS:
		join = is == s->was;
		break;
	case SPLIT_MERGED_PREVIOUS:
		join = is && !s->was;
		break;
	default:
		return write_part(s, begin, end, e);
	}
	s->was = is;
	if (join && s->is_open) {
		s->open.end = end;
		return 0;
	}
	if (flush(s, e))
		return -1;
	s->open = (struct part){ .begin = begin, .end = end, .match = is };
	s->is_open = true;
	return 0;
}

/* MERGED_NEXT: a match is joined to the part after it if that one is text. */
static int part_next(struct splitter *s, size_t begin, size_t end, bool match, struct err *e)
{
	bool is = match != s->invert;

	if (s->is_open && s->open.match && !is) {
		s->open.end = end;
		s->open.match = false;
		return 0;
	}
	if (flush(s, e))
		return -1;
	s->open = (struct part){ .begin = begin, .end = end, .match = is };
	s->is_open = true;
	return 0;
}

static int split_piece(struct splitter *s, const char *text, const struct tok_piece *p,
		       struct err *e)
{
	size_t done = 0, start, end;
	int (*one)(struct splitter *, size_t, size_t, bool, struct err *) =
		s->behavior == SPLIT_MERGED_NEXT ? part_next : part;
	int got;

	s->whole = p;
	s->was = s->is_open = false;
	tok_match_text(&s->m, text + p->off, p->len);
	while ((got = tok_match_next(&s->m, &start, &end, e)) > 0) {
		if ((done != start && one(s, done, start, false, e)) ||
		    one(s, start, end, true, e))
			return -1;
		done = end;
	}
	if (got < 0 || (done != p->len && one(s, done, p->len, false, e)))
		return -1;
	return flush(s, e);
}

static int split(const struct pre_step *step, struct tok_work *w, struct err *e)
{
	struct splitter s = { .behavior = step->behavior, .invert = step->invert,
			      .out = &w->pieces2 };
	int ret = 0;

	if (tok_match_start(&s.m, step->pat, e))
		return -1;
	w->pieces2.n = 0;
	for (size_t i = 0; i < w->pieces.n && !ret; i++) {
		const struct tok_piece *p = &w->pieces.v[i];

		if (p->id >= 0)
			ret = tok_piece_add(&w->pieces2, p->off, p->len, p->id, p->zero, e);
		else
			ret = split_piece(&s, w->text.p, p, e);
	}
	tok_match_end(&s.m);
	tok_swap_pieces(w);
	return ret;
}

/* Rewrite the text of every piece by fn, which appends to text2 and sets zero anew. */
static int rewrite(const struct pre_step *step, struct tok_work *w,
		   int (*fn)(const struct pre_step *, const char *, struct tok_piece *,
			     struct tok_buf *, struct err *), struct err *e)
{
	w->text2.n = 0;
	for (size_t i = 0; i < w->pieces.n; i++) {
		struct tok_piece *p = &w->pieces.v[i];
		size_t off = w->text2.n;

		if (p->id >= 0)
			continue;
		if (fn(step, w->text.p + p->off, p, &w->text2, e))
			return -1;
		p->off = off;
		p->len = w->text2.n - off;
	}
	tok_swap_text(w);
	return 0;
}

static int prefix_space(const struct pre_step *step, const char *s, struct tok_piece *p,
			struct tok_buf *out, struct err *e)
{
	(void)step;
	if (*s != ' ') {
		if (tok_buf_add(out, " ", 1, e))
			return -1;
		p->zero += p->zero ? 1 : 0;
	}
	return tok_buf_add(out, s, p->len, e);
}

static int to_bytes(const struct pre_step *step, const char *s, struct tok_piece *p,
		    struct tok_buf *out, struct err *e)
{
	const size_t off = out->n, zero = p->zero;

	(void)step;
	if (tok_buf_reserve(out, 2 * p->len, e))
		return -1;
	for (size_t i = 0; i < p->len; i++) {
		uint32_t c = tok_byte_char((unsigned char)s[i]);

		if (c < 0x80)
			out->p[out->n++] = (char)c;
		else
			out->n += tok_put(out->p + out->n, c);
		if (i + 1 == zero)
			p->zero = out->n - off;
	}
	return 0;
}

static int mark_spaces(const struct pre_step *step, const char *s, struct tok_piece *p,
		       struct tok_buf *out, struct err *e)
{
	bool marked = *s == ' ' ||
		(p->len >= step->mark_n && memcmp(s, step->mark, step->mark_n) == 0);
	const char *end = s + p->len;
	size_t zero = p->zero;

	for (size_t i = 0; i < zero; i++)
		p->zero += s[i] == ' ' ? step->mark_n - 1 : 0;
	if (!marked && (step->prepend == PREPEND_ALWAYS ||
			(step->prepend == PREPEND_FIRST && zero))) {
		if (tok_buf_add(out, step->mark, step->mark_n, e))
			return -1;
		p->zero += zero ? step->mark_n : 0;
	}
	while (s < end) {
		const char *space = memchr(s, ' ', (size_t)(end - s));
		size_t n = (size_t)((space ? space : end) - s);

		if (tok_buf_add(out, s, n, e) ||
		    (space && tok_buf_add(out, step->mark, step->mark_n, e)))
			return -1;
		s += n + (space ? 1 : 0);
	}
	return 0;
}

int tok_pre_run(const struct pre_step *step, struct tok_work *w, struct err *e)
{
	switch (step->kind) {
	case PRE_SPLIT:
		return split(step, w, e);
	case PRE_BYTELEVEL:
		if ((step->prefix_space && rewrite(step, w, prefix_space, e)) ||
		    (step->pat && split(step, w, e)))
			return -1;
		return rewrite(step, w, to_bytes, e);
	case PRE_METASPACE:
		if (rewrite(step, w, mark_spaces, e))
			return -1;
		return step->pat ? split(step, w, e) : 0;
	}
	return err_set(e, ERR_BUG, "tokenizer", "pre-tokenizer %d", (int)step->kind);
}
