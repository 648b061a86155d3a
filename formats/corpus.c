/* SPDX-License-Identifier: Apache-2.0 */
/*
 * corpus.c - the tokens of text files, of JSON Lines, and given as ids
 */
#include "formats/corpus.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/json.h"
#include "formats/source.h"
#include "lib/data/calib.h"
#include "lib/data/idlines.h"
#include "lib/data/slurp.h"
#include "lib/data/tokenizer_impl.h"

#define MAX_TEXT ((size_t)1 << 30) /* bytes of one file */

void corpus_release(struct corpus *c)
{
	ids_release(&c->ids);
	free(c->docs);
	memset(c, 0, sizeof(*c));
}

struct reader {
	struct corpus *c;
	const struct tokenizer *t;
	const struct corpus_options *opt;
	struct buf joined; /* when documents are not separate */
	bool any;
	const char *name;  /* of the file at hand */
	size_t line;       /* in it, from 1; 0: the file is the document */
	struct err *e;
};

/* "FILE" or "FILE: line N" */
static const char *place(const struct reader *r, char *where, size_t cap)
{
	if (r->line)
		snprintf(where, cap, "%.200s: line %zu", r->name, r->line);
	else
		snprintf(where, cap, "%.200s", r->name);
	return where;
}

static int tokenize(struct reader *r, const char *s, size_t n)
{
	struct corpus *c = r->c;
	const size_t before = c->ids.n;

	if (c->ndocs == c->cap) {
		const size_t cap = c->cap ? 2 * c->cap : 64;
		size_t *docs = realloc(c->docs, cap * sizeof(*docs));

		if (!docs)
			return err_nomem(r->e, r->name, cap * sizeof(*docs));
		c->docs = docs;
		c->cap = cap;
	}
	if (tokenizer_encode(r->t, n ? s : "", n, true, &c->ids, r->e)) {
		place(r, r->e->where, sizeof(r->e->where));
		return -1;
	}
	c->docs[c->ndocs++] = c->ids.n - before;
	return 0;
}

static int document(struct reader *r, const char *s, size_t n)
{
	const size_t bad = n ? tok_utf8_check(s, n) : 0;
	char where[320];

	place(r, where, sizeof(where));
	if (bad != n) /* here, where offsets are still those of the file */
		return err_set(r->e, ERR_DATA, where, "not UTF-8: byte 0x%02x at offset %zu",
			       (unsigned char)s[bad], bad);
	if (r->opt->separate) {
		r->any = r->any || n;
		return n ? tokenize(r, s, n) : 0;
	}
	if (r->any)
		buf_puts(&r->joined, "\n\n");
	r->any = true;
	buf_add(&r->joined, s, n);
	return buf_failed(&r->joined, where, r->e);
}

static int json_line(struct reader *r, const char *s, size_t n)
{
	struct json_doc *d;
	const char *text;
	char where[320];
	size_t len;
	int ret;

	place(r, where, sizeof(where));
	if (json_parse_line(&d, s, n, where, r->e))
		return -1;
	text = json_str(json_get(json_root(d), r->opt->field), &len);
	if (json_type_of(json_root(d)) != JSON_OBJECT)
		ret = err_set(r->e, ERR_DATA, where, "not a JSON object");
	else if (!text)
		ret = err_set(r->e, ERR_DATA, where, "no field '%.80s' that is a string",
			      r->opt->field);
	else
		ret = document(r, text, len);
	json_free(d);
	return ret;
}

static bool blank(const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!memchr(" \t\r", s[i], 3))
			return false;
	return true;
}

static int one_file(struct reader *r, const char *path)
{
	struct buf text = { 0 };
	int ret = slurp(&text, path, MAX_TEXT, r->e);

	r->name = path && strcmp(path, "-") ? path : "standard input";
	r->line = 0;
	if (!ret && !r->opt->field)
		ret = document(r, text.p, text.n);
	for (size_t i = 0, n; !ret && r->opt->field && i < text.n; i += n + 1) {
		const char *end = memchr(text.p + i, '\n', text.n - i);

		n = end ? (size_t)(end - text.p) - i : text.n - i;
		r->line++;
		if (!blank(text.p + i, n))
			ret = json_line(r, text.p + i, n);
	}
	buf_release(&text);
	return ret;
}

int corpus_read(struct corpus *c, const struct tokenizer *t, const char *const *files, size_t n,
		const struct corpus_options *opt, struct err *e)
{
	struct reader r = { .c = c, .t = t, .opt = opt, .e = e };
	int ret = 0;

	memset(c, 0, sizeof(*c));
	if (!n)
		ret = one_file(&r, NULL);
	for (size_t i = 0; i < n && !ret; i++)
		ret = one_file(&r, files[i]);
	if (!ret && (!r.any || (!opt->separate && !r.joined.n)))
		ret = err_set(e, ERR_DATA, n == 1 ? files[0] : n ? "text" : "standard input",
			      "no text");
	if (n > 1)
		r.name = "text";
	r.line = 0;
	if (!ret && !opt->separate)
		ret = tokenize(&r, r.joined.p, r.joined.n);
	buf_release(&r.joined);
	if (ret)
		corpus_release(c);
	return ret;
}

/* ---- token ids ---------------------------------------------------------------------- */

static int check_lines(const struct id_lines *l, const struct tokenizer *t,
		       const struct source_room *room, struct err *e)
{
	char where[48];

	for (size_t i = 0, at = 0; i < l->n; at += l->len[i++]) {
		snprintf(where, sizeof(where), "line %zu", i + 1);
		if (l->len[i] != l->len[0])
			return err_set(e, ERR_DATA, where, "%zu ids; line 1 has %zu", l->len[i],
				       l->len[0]);
		if (room->positions && l->len[i] > (size_t)room->positions)
			return err_set(e, ERR_DATA, where, "%zu ids; the model has %ld positions",
				       l->len[i], room->positions);
		for (size_t k = at; k < at + l->len[i]; k++)
			if (room->vocab ? l->ids.id[k] >= room->vocab :
					  t && !tokenizer_has(t, l->ids.id[k]))
				return err_set(e, ERR_DATA, where, "%d is not in the vocabulary "
					       "of the model", (int)l->ids.id[k]);
	}
	return 0;
}

int corpus_windows(struct calib *c, const struct tokenizer *t, const struct source_room *room,
		   const char *path, struct err *e)
{
	struct id_lines l;
	int ret;

	if (id_lines_read(&l, path, e))
		return -1;
	ret = check_lines(&l, t, room, e);
	if (!ret)
		ret = calib_sample(c, &l.ids, NULL, 0, l.n, l.len[0], CALIB_SEQUENTIAL, 0, e);
	if (!ret) {
		snprintf(c->sampling, sizeof(c->sampling), "ids");
		c->tokens = 0; /* of the text that they are from nothing is known */
	}
	id_lines_release(&l);
	return ret;
}
