/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tokenizer_regex.c - regular expressions in Oniguruma's Ruby syntax, said in PCRE2's
 *
 * tokenizer.json is written for Oniguruma.  The two agree on most of the syntax but not on the
 * meaning of all of it: \s, \w and \h, what (?m) means, class intersections, "{,n}", "{n,m}+".
 * Every construct is either rewritten into one with the same meaning, copied because the
 * meaning is the same, or refused by name.  Classes are rewritten by set algebra into an
 * expression that matches exactly one character.
 */
#include <stdlib.h>
#include <string.h>

#include "lib/data/tokenizer_impl.h"

#define MAX_DEPTH 32

struct rx {
	const char *s;
	size_t n, i;
	struct tok_buf *out;
	const char *where;
	int depth; /* of nested classes */
	struct err *e;
};

static int refuse(struct rx *r, const char *what)
{
	return err_set(r->e, ERR_DATA, r->where, "regular expression: %s at byte %zu", what, r->i);
}

static int put(struct rx *r, const char *s)
{
	return tok_buf_add(r->out, s, strlen(s), r->e);
}

static int copy(struct rx *r, size_t n)
{
	if (tok_buf_add(r->out, r->s + r->i, n, r->e))
		return -1;
	r->i += n;
	return 0;
}

static int peek(const struct rx *r, size_t ahead)
{
	return r->i + ahead < r->n ? (unsigned char)r->s[r->i + ahead] : -1;
}

static bool starts(const struct rx *r, const char *what)
{
	size_t n = strlen(what);

	return r->n - r->i >= n && memcmp(r->s + r->i, what, n) == 0;
}

static int put_set(struct rx *r, int c, bool alone)
{
	return tok_set_shorthand(r->out, c, alone, r->e);
}

static bool is_hex(int c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

/* \p{Name}: what goes into a class for it, and whether it is the complement that is meant. */
static int property(struct rx *r, struct tok_buf *set, bool *negated)
{
	const char *name, *close;

	*negated = peek(r, 1) == 'P';
	if (peek(r, 2) != '{')
		return refuse(r, "\\p without {name}");
	name = r->s + r->i + 3;
	close = memchr(name, '}', r->n - r->i - 3);
	if (!close)
		return refuse(r, "\\p{ without }");
	if (*name == '^') {
		*negated = !*negated;
		name++;
	}
	if (name == close || close - name > TOK_SET_NAME || memchr(name, 0, (size_t)(close - name)))
		return refuse(r, "\\p{} with a name that is not known");
	r->i = (size_t)(close + 1 - r->s);
	return tok_set_property(set, name, (size_t)(close - name), r->e);
}

/* \xHH, \x{H...}, \uHHHH */
static int hex_escape(struct rx *r)
{
	size_t k = r->i + 2, digits = 0;
	bool braces = false;

	if (peek(r, 1) == 'x' && peek(r, 2) == '{') {
		braces = true;
		k++;
	}
	while (k + digits < r->n && is_hex((unsigned char)r->s[k + digits]) &&
	       digits < (braces ? 8u : peek(r, 1) == 'u' ? 4u : 2u))
		digits++;
	if (!digits || (peek(r, 1) == 'u' && digits != 4) ||
	    (braces && (k + digits >= r->n || r->s[k + digits] != '}')))
		return refuse(r, "malformed hexadecimal escape");
	if (put(r, "\\x{") || tok_buf_add(r->out, r->s + k, digits, r->e) || put(r, "}"))
		return -1;
	r->i = k + digits + (braces ? 1 : 0);
	return 0;
}

/* An escape that means one character, the same in and out of a class. */
static int plain_escape(struct rx *r)
{
	int c = peek(r, 1);

	if (c < 0)
		return refuse(r, "\\ at the end");
	if (c == 'x' || c == 'u')
		return hex_escape(r);
	if (c == 'v') {
		r->i += 2;
		return put(r, "\\x0b");
	}
	if (strchr("nrtfae", c))
		return copy(r, 2);
	if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9')) {
		char what[] = "escape \\? is not supported";

		what[8] = (char)c;
		return refuse(r, what);
	}
	if (c < 0x80)
		return copy(r, 2); /* an escaped punctuation mark is itself in both */
	r->i++;
	return 0; /* a backslash before other characters means nothing */
}

static int class(struct rx *r);

/* The sets that were joined so far: a plain one still open as "[...", others closed before. */
struct sets {
	size_t begin;      /* in out: where this part of the class begins */
	struct tok_buf plain;
	size_t n;          /* alternatives already written to out */
};

static int alternative(struct rx *r, struct sets *u)
{
	return u->n++ ? put(r, "|") : 0;
}

/* [:name:] */
static int bracket_class(struct rx *r, struct sets *u)
{
	const char *close = memmem(r->s + r->i, r->n - r->i, ":]", 2);
	size_t n = close ? (size_t)(close - (r->s + r->i)) - 2 : 0;
	int got = close ? tok_set_bracket(&u->plain, r->s + r->i + 2, n, r->e) : 0;

	if (!got)
		return refuse(r, "bracket class is not supported");
	r->i += n + 4;
	return got < 0 ? -1 : 0;
}

static int class_property(struct rx *r, struct sets *u)
{
	struct tok_buf set = { 0 };
	bool negated;
	int ret = property(r, &set, &negated);

	if (!ret && negated)
		ret = alternative(r, u) || put(r, "[^") ||
		      tok_buf_add(r->out, set.p, set.n, r->e) || put(r, "]") ? -1 : 0;
	else if (!ret)
		ret = tok_buf_add(&u->plain, set.p, set.n, r->e);
	free(set.p);
	return ret;
}

/* One member of a union: its text goes to plain, or as an alternative to out. */
static int member(struct rx *r, struct sets *u, bool first)
{
	struct tok_buf *out = r->out;
	int c = peek(r, 0), d = peek(r, 1);
	int ret;

	if (c == '[' && d == ':')
		return bracket_class(r, u);
	if (c == '[')
		return alternative(r, u) || class(r) ? -1 : 0;
	if (c == '\\' && d > 0 && strchr("SWHD", d)) {
		r->i += 2;
		return alternative(r, u) || put(r, "[^") || put_set(r, d, false) ||
		       put(r, "]") ? -1 : 0;
	}
	if (c == '\\' && (d == 'p' || d == 'P'))
		return class_property(r, u);
	r->out = &u->plain;
	if (c == '\\' && d == 'b') {
		r->i += 2;
		ret = put(r, "\\x08");
	} else if (c == '\\' && d > 0 && strchr("swhd", d)) {
		r->i += 2;
		ret = put_set(r, d, false);
	} else if (c == '\\') {
		ret = plain_escape(r);
	} else if (c == '^' && !u->plain.n) {
		r->i++; /* would complement the class that is written */
		ret = put(r, "\\^");
	} else if (c == ']' && first) {
		r->i++;
		ret = put(r, "\\]");
	} else {
		ret = copy(r, 1);
	}
	r->out = out;
	return ret;
}

/* Members up to "]" or "&&".  simple: nothing but plain members, and they are left in u. */
static int join(struct rx *r, struct sets *u, bool *simple)
{
	bool first = true;

	while (r->i < r->n && !starts(r, "&&") && (r->s[r->i] != ']' || first)) {
		if (member(r, u, first))
			return -1;
		first = false;
	}
	if (r->i >= r->n)
		return refuse(r, "[ without ]");
	*simple = u->n == 0;
	if (!*simple && u->plain.n)
		return alternative(r, u) || put(r, "[") ||
		       tok_buf_add(r->out, u->plain.p, u->plain.n, r->e) || put(r, "]") ? -1 : 0;
	return 0;
}

/* What was written from begin on becomes an operand of an intersection or a complement. */
static int wrap(struct rx *r, size_t begin, const char *open, const char *close)
{
	size_t n = strlen(open), len = r->out->n - begin;

	if (tok_buf_reserve(r->out, n, r->e))
		return -1;
	memmove(r->out->p + begin + n, r->out->p + begin, len);
	memcpy(r->out->p + begin, open, n);
	r->out->n += n;
	return put(r, close);
}

static int class_body(struct rx *r, struct sets *u)
{
	bool negated = false, simple = false, more;
	size_t begin = r->out->n;

	r->i++;
	if (peek(r, 0) == '^') {
		negated = true;
		r->i++;
	}
	do {
		size_t part = r->out->n;

		u->n = 0;
		u->plain.n = 0;
		if (join(r, u, &simple))
			return -1;
		more = starts(r, "&&");
		if (simple && !u->plain.n)
			return refuse(r, "empty class");
		if (simple && !more && part == begin) { /* by far the most frequent */
			r->i++;
			return put(r, negated ? "[^" : "[") ||
			       tok_buf_add(r->out, u->plain.p, u->plain.n, r->e) ||
			       put(r, "]") ? -1 : 0;
		}
		if (simple && (put(r, "[") || tok_buf_add(r->out, u->plain.p, u->plain.n, r->e) ||
			       put(r, "]")))
			return -1;
		if (wrap(r, part, more ? "(?=" : "(?:", ")"))
			return -1;
		r->i += more ? 2 : 1;
	} while (more);
	return wrap(r, begin, negated ? "(?:(?!" : "(?:", negated ? ")(?s:.))" : ")");
}

static int class(struct rx *r)
{
	struct sets u = { 0 };
	int ret;

	if (++r->depth > MAX_DEPTH)
		return refuse(r, "classes nested too deeply");
	ret = class_body(r, &u);
	free(u.plain.p);
	r->depth--;
	return ret;
}

/* "(" and what follows up to the body of the group. */
static int group(struct rx *r)
{
	static const char *const same[] = { "(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>", NULL };
	size_t k;

	if (peek(r, 1) == '*')
		return refuse(r, "(* is not supported");
	if (peek(r, 1) != '?')
		return copy(r, 1);
	for (k = 0; same[k]; k++)
		if (starts(r, same[k]))
			return copy(r, strlen(same[k]));
	/* Options: i, x, and m, which lets a dot match a line feed. */
	for (k = 2; peek(r, k) >= 0 && strchr("imx-", peek(r, k)); k++)
		;
	if (k == 2 || (peek(r, k) != ')' && peek(r, k) != ':'))
		return refuse(r, "this kind of group is not supported");
	for (size_t j = 0; j <= k; j++)
		if (tok_buf_add(r->out, r->s[r->i + j] == 'm' ? "s" : r->s + r->i + j, 1, r->e))
			return -1;
	r->i += k + 1;
	return 0;
}

/* "{n,m}" as it is, "{,n}" as "{0,n}"; anything else after "{" is a literal in both. */
static int interval(struct rx *r)
{
	size_t k = 1, low, high;
	bool comma = false;

	while (peek(r, k) >= '0' && peek(r, k) <= '9')
		k++;
	low = k - 1;
	if (peek(r, k) == ',') {
		comma = true;
		k++;
	}
	high = k;
	while (peek(r, k) >= '0' && peek(r, k) <= '9')
		k++;
	high = k - high;
	if (peek(r, k) != '}' || (!low && !high))
		return put(r, "\\{") ? -1 : (r->i++, 0);
	if (peek(r, k + 1) == '+' || (!comma && peek(r, k + 1) == '?'))
		return refuse(r, "an interval followed by + or ? is not supported");
	if (!low)
		return put(r, "{0") ? -1 : (r->i++, copy(r, k));
	return copy(r, k + 1);
}

/* A look to one side for a word character: "(?<=[...])" */
static int look(struct rx *r, const char *open)
{
	return put(r, open) || put_set(r, 'w', true) || put(r, "])");
}

/* \b: a word character on one side only; \B: on both or on none. */
static int word_boundary(struct rx *r, bool is)
{
	r->i += 2;
	return put(r, "(?:") || look(r, "(?<=[") || look(r, is ? "(?![" : "(?=[") || put(r, "|") ||
	       look(r, "(?<![") || look(r, is ? "(?=[" : "(?![") || put(r, ")") ? -1 : 0;
}

static int alone_property(struct rx *r)
{
	struct tok_buf set = { 0 };
	bool negated;
	int ret = property(r, &set, &negated) || put(r, negated ? "[^" : "[") ||
		  tok_buf_add(r->out, set.p, set.n, r->e) || put(r, "]") ? -1 : 0;

	free(set.p);
	return ret;
}

static int escape(struct rx *r)
{
	int c = peek(r, 1);

	if (c > 0 && strchr("swhdSWHD", c)) {
		r->i += 2;
		return put(r, c < 'a' ? "[^" : "[") || put_set(r, c, true) || put(r, "]") ? -1 : 0;
	}
	switch (c) {
	case 'p': case 'P':
		return alone_property(r);
	case 'b': case 'B':
		return word_boundary(r, c == 'b');
	case 'A': case 'z': case 'Z': case 'R':
		return copy(r, 2);
	}
	return plain_escape(r);
}

int tok_regex_translate(struct tok_buf *out, const char *s, size_t n, const char *where,
			struct err *e)
{
	struct rx r = { .s = s, .n = n, .out = out, .where = where, .e = e };
	int ret = 0;

	while (!ret && r.i < n)
		switch (s[r.i]) {
		case '\\':
			ret = escape(&r);
			break;
		case '[':
			ret = class(&r);
			break;
		case '(':
			ret = group(&r);
			break;
		case '{':
			ret = interval(&r);
			break;
		default:
			ret = copy(&r, 1);
		}
	return ret;
}
