/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tokenizer_pattern.c - finding a string or a regular expression in a text
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <stdlib.h>
#include <string.h>

#include "lib/data/tokenizer_impl.h"

struct tok_pattern {
	char *s; /* a string, when re is NULL */
	size_t n;
	pcre2_code *re;
};

static int compile(struct tok_pattern *p, const char *s, size_t n, const char *where,
		   struct err *e)
{
	struct tok_buf out = { 0 };
	pcre2_compile_context *ctx;
	PCRE2_UCHAR msg[160];
	PCRE2_SIZE at;
	int code;

	if (tok_buf_reserve(&out, n + 1, e) || tok_regex_translate(&out, s, n, where, e)) {
		free(out.p);
		return -1;
	}
	ctx = pcre2_compile_context_create(NULL);
	if (!ctx) {
		free(out.p);
		return err_nomem(e, where, 1);
	}
	pcre2_set_newline(ctx, PCRE2_NEWLINE_LF);
	/* In Ruby's syntax ^ and $ are always about lines. */
	p->re = pcre2_compile((PCRE2_SPTR)out.p, out.n, PCRE2_UTF | PCRE2_MULTILINE |
			      PCRE2_NEVER_BACKSLASH_C, &code, &at, ctx);
	pcre2_compile_context_free(ctx);
	free(out.p);
	if (!p->re) {
		if (pcre2_get_error_message(code, msg, sizeof(msg)) < 0)
			msg[0] = '\0';
		return err_set(e, ERR_DATA, where, "regular expression: %s", (const char *)msg);
	}
	/* Where there is no JIT pcre2_match interprets: the same result, slower. */
	(void)pcre2_jit_compile(p->re, PCRE2_JIT_COMPLETE);
	return 0;
}

int tok_pattern_new(struct tok_pattern **out, bool regex, const char *s, size_t n,
		    const char *where, struct err *e)
{
	struct tok_pattern *p;

	if (!n)
		return err_set(e, ERR_DATA, where, "empty pattern");
	p = calloc(1, sizeof(*p));
	if (!p)
		return err_nomem(e, where, sizeof(*p));
	if (regex) {
		if (compile(p, s, n, where, e)) {
			free(p);
			return -1;
		}
	} else {
		p->s = malloc(n);
		if (!p->s) {
			free(p);
			return err_nomem(e, where, n);
		}
		memcpy(p->s, s, n);
		p->n = n;
	}
	*out = p;
	return 0;
}

void tok_pattern_free(struct tok_pattern *p)
{
	if (!p)
		return;
	pcre2_code_free(p->re);
	free(p->s);
	free(p);
}

int tok_match_start(struct tok_match *m, const struct tok_pattern *p, struct err *e)
{
	*m = (struct tok_match){ .p = p };
	if (!p->re)
		return 0;
	m->data = pcre2_match_data_create(1, NULL);
	return m->data ? 0 : err_nomem(e, "tokenizer", 1);
}

void tok_match_text(struct tok_match *m, const char *s, size_t n)
{
	m->s = n ? s : "";
	m->n = n;
	m->from = m->last_end = 0;
	m->any = false;
}

void tok_match_end(struct tok_match *m)
{
	pcre2_match_data_free(m->data);
	m->data = NULL;
}

static int next_string(struct tok_match *m, size_t *start, size_t *end)
{
	const char *hit;

	if (m->n - m->from < m->p->n)
		return 0;
	hit = memmem(m->s + m->from, m->n - m->from, m->p->s, m->p->n);
	if (!hit)
		return 0;
	*start = (size_t)(hit - m->s);
	m->from = *end = *start + m->p->n;
	return 1;
}

static int match(struct tok_match *m, struct err *e)
{
	int rc = pcre2_match(m->p->re, (PCRE2_SPTR)m->s, m->n, m->from, PCRE2_NO_UTF_CHECK,
			     m->data, NULL);
	PCRE2_UCHAR msg[160];

	/* The JIT's stack is small; the interpreter's is the heap. */
	if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
		rc = pcre2_match(m->p->re, (PCRE2_SPTR)m->s, m->n, m->from,
				 PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, m->data, NULL);
	if (rc >= 0)
		return 1;
	if (rc == PCRE2_ERROR_NOMATCH)
		return 0;
	if (pcre2_get_error_message(rc, msg, sizeof(msg)) < 0)
		msg[0] = '\0';
	return err_set(e, rc == PCRE2_ERROR_NOMEMORY ? ERR_NOMEM : ERR_DATA, "tokenizer",
		       "regular expression at byte %zu of the text: %s", m->from,
		       (const char *)msg);
}

/* An empty match right after the last match does not count (as in Rust's onig). */
int tok_match_next(struct tok_match *m, size_t *start, size_t *end, struct err *e)
{
	const PCRE2_SIZE *ov;

	if (!m->p->re)
		return next_string(m, start, end);
	for (;;) {
		size_t len = 1;
		int got;

		if (m->from > m->n)
			return 0;
		got = match(m, e);
		if (got <= 0)
			return got;
		ov = pcre2_get_ovector_pointer(m->data);
		*start = ov[0];
		*end = ov[1];
		if (*start != *end || !m->any || m->last_end != *end)
			break;
		if (m->from < m->n)
			(void)tok_char(m->s + m->from, &len);
		m->from += len;
	}
	m->from = m->last_end = *end;
	m->any = true;
	return 1;
}
