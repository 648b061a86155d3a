/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sentencepiece.c - a tokenizer.model into a struct tokenizer
 *
 * The wire format (protobuf.dev, "Encoding"): fields of a number and a type, in any order; of a
 * field that is there twice the last one counts.  Every length is compared with what is left
 * before it is used.
 */
#include "formats/sentencepiece.h"

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/tokenizer_config.h"
#include "lib/data/tokenizer_impl.h"

#define LONGEST 1024 /* bytes of a piece; trained ones have at most 16 characters */

/* ---- the wire format -------------------------------------------------------------- */

struct wire {
	const unsigned char *p;
	size_t n;
	const char *where;
	struct err *e;
};

enum wire_type { VARINT, FIXED64, BYTES, FIXED32 = 5 };

struct field {
	uint32_t number;
	enum wire_type type;
	uint64_t v;             /* VARINT, FIXED */
	const unsigned char *p; /* BYTES */
	size_t n;
};

static int damaged(const struct wire *w, const char *what)
{
	return err_set(w->e, ERR_DATA, w->where, "%s: not a SentencePiece model, or damaged", what);
}

static int varint(struct wire *w, uint64_t *v)
{
	*v = 0;
	for (unsigned shift = 0; shift < 64 && w->n; shift += 7) {
		const unsigned char c = *w->p++;

		w->n--;
		*v |= (uint64_t)(c & 0x7f) << shift;
		if (c < 0x80)
			return 0;
	}
	return damaged(w, "a number does not end");
}

static int fixed(struct wire *w, size_t size, uint64_t *v)
{
	if (w->n < size)
		return damaged(w, "a number is cut short");
	*v = 0;
	for (size_t i = 0; i < size; i++)
		*v |= (uint64_t)w->p[i] << 8 * i;
	w->p += size;
	w->n -= size;
	return 0;
}

/* The next field: 1, 0 at the end, -1. */
static int next_field(struct wire *w, struct field *f)
{
	uint64_t tag, len;

	if (!w->n)
		return 0;
	if (varint(w, &tag))
		return -1;
	if (tag >> 3 == 0 || tag >> 3 > 536870911)
		return damaged(w, "a field without a number");
	f->number = (uint32_t)(tag >> 3);
	f->type = (enum wire_type)(tag & 7);
	switch (f->type) {
	case VARINT:
		return varint(w, &f->v) ? -1 : 1;
	case FIXED64:
		return fixed(w, 8, &f->v) ? -1 : 1;
	case FIXED32:
		return fixed(w, 4, &f->v) ? -1 : 1;
	case BYTES:
		break;
	default:
		return damaged(w, "a field of a type that is not used");
	}
	if (varint(w, &len))
		return -1;
	if (len > w->n)
		return damaged(w, "a length goes beyond the end");
	f->p = w->p;
	f->n = (size_t)len;
	w->p += len;
	w->n -= (size_t)len;
	return 1;
}

static int of_type(const struct wire *w, const struct field *f, enum wire_type type)
{
	char what[40];

	if (f->type == type)
		return 0;
	snprintf(what, sizeof(what), "field %u has another type", (unsigned)f->number);
	return damaged(w, what);
}

/* ---- ModelProto ------------------------------------------------------------------- */

enum piece_type { PIECE_NORMAL = 1, PIECE_UNKNOWN, PIECE_CONTROL, PIECE_USER, PIECE_UNUSED,
		  PIECE_BYTE };
enum { MODEL_TYPE_UNIGRAM = 1, MODEL_TYPE_BPE };

struct piece {
	const char *s;
	size_t n;
	float score;
	enum piece_type type;
};

struct proto {
	struct piece *piece;
	size_t n, cap;
	int64_t model_type, bos_id, eos_id;
	bool byte_fallback, suffix;
	const unsigned char *charsmap;
	size_t charsmap_n;
	bool prefix, trim, escape;
	bool denormalizer;
	const char *where;
	struct err *e;
};

static int bad(const struct proto *m, const char *what)
{
	return err_set(m->e, ERR_DATA, m->where, "%s", what);
}

static int read_piece(struct proto *m, const struct field *of)
{
	struct wire w = { of->p, of->n, m->where, m->e };
	struct piece *p;
	struct field f;
	int got;

	if (m->n == (size_t)TOK_MAX_ID)
		return bad(m, "too many pieces");
	if (m->n == m->cap) {
		const size_t cap = m->cap ? 2 * m->cap : 1024;

		p = realloc(m->piece, cap * sizeof(*p));
		if (!p)
			return err_nomem(m->e, m->where, cap * sizeof(*p));
		m->piece = p;
		m->cap = cap;
	}
	p = &m->piece[m->n];
	*p = (struct piece){ .type = PIECE_NORMAL };
	while ((got = next_field(&w, &f)) > 0) {
		const uint32_t bits = (uint32_t)f.v;

		if (of_type(&w, &f, f.number == 1 ? BYTES : f.number == 2 ? FIXED32 :
			    f.number == 3 ? VARINT : f.type))
			return -1;
		if (f.number == 1) {
			p->s = (const char *)f.p;
			p->n = f.n;
		} else if (f.number == 2) {
			memcpy(&p->score, &bits, sizeof(bits));
		} else if (f.number != 3 || f.v < PIECE_NORMAL || f.v > PIECE_BYTE) {
			return err_set(m->e, ERR_DATA, m->where, "piece %zu: %s %llu is not known",
				       m->n, f.number == 3 ? "type" : "field", f.number == 3 ?
				       (unsigned long long)f.v : f.number);
		} else {
			p->type = (enum piece_type)f.v;
		}
	}
	m->n++;
	return got;
}

/* Only what changes the use of a model; the rest says how it was trained. */
static int read_trainer(struct proto *m, const struct field *of)
{
	struct wire w = { of->p, of->n, m->where, m->e };
	struct field f;
	int got;

	while ((got = next_field(&w, &f)) > 0) {
		switch (f.number) {
		case 3: m->model_type = (int64_t)f.v; break;
		case 24: m->suffix = f.v != 0; break;
		case 35: m->byte_fallback = f.v != 0; break;
		case 41: m->bos_id = (int32_t)f.v; break;
		case 42: m->eos_id = (int32_t)f.v; break;
		default: continue;
		}
		if (of_type(&w, &f, VARINT))
			return -1;
	}
	return got;
}

static int read_normalizer(struct proto *m, const struct field *of, bool back)
{
	struct wire w = { of->p, of->n, m->where, m->e };
	struct field f;
	int got;

	while ((got = next_field(&w, &f)) > 0) {
		if (!f.number || f.number > 6)
			return err_set(m->e, ERR_DATA, m->where, "normalizer_spec: field %u is not "
				       "known", (unsigned)f.number);
		if (of_type(&w, &f, f.number < 3 || f.number == 6 ? BYTES : VARINT))
			return -1;
		if (back) {
			m->denormalizer = m->denormalizer || (f.number == 2 && f.n);
			continue;
		}
		switch (f.number) {
		case 2:
			m->charsmap = f.p;
			m->charsmap_n = f.n;
			break;
		case 3: m->prefix = f.v != 0; break;
		case 4: m->trim = f.v != 0; break;
		case 5: m->escape = f.v != 0; break;
		default: break; /* the rules' name and their source, as text */
		}
	}
	return got;
}

static int read_model(struct proto *m, const char *model, size_t n)
{
	struct wire w = { (const unsigned char *)model, n, m->where, m->e };
	struct field f;
	int got;

	while ((got = next_field(&w, &f)) > 0) {
		if (f.number > 5)
			return err_set(m->e, ERR_DATA, m->where, "field %u is not known",
				       (unsigned)f.number);
		if (of_type(&w, &f, BYTES) ||
		    (f.number == 1 && read_piece(m, &f)) ||
		    (f.number == 2 && read_trainer(m, &f)) ||
		    (f.number == 3 && read_normalizer(m, &f, false)) ||
		    (f.number == 5 && read_normalizer(m, &f, true)))
			return -1;
	}
	return got;
}

/* ---- what it says, checked -------------------------------------------------------- */

static int check_options(const struct proto *m)
{
	if (m->model_type != MODEL_TYPE_UNIGRAM && m->model_type != MODEL_TYPE_BPE)
		return bad(m, m->model_type == 3 ? "model_type WORD is not supported" :
			   m->model_type == 4 ? "model_type CHAR is not supported" :
			   "model_type is not known");
	if (m->suffix)
		return bad(m, "treat_whitespace_as_suffix is not supported");
	if (!m->escape)
		return bad(m, "escape_whitespaces = false is not supported");
	if (m->denormalizer)
		return bad(m, "denormalizer_spec is not supported");
	return m->n ? 0 : bad(m, "no pieces");
}

static int check_piece(const struct proto *m, size_t i)
{
	const struct piece *p = &m->piece[i];
	const char *why = NULL;

	if (!p->n)
		why = "is empty";
	else if (tok_utf8_check(p->s, p->n) != p->n)
		why = "is not UTF-8";
	else if (p->n > LONGEST)
		why = "is too long";
	else if (!isfinite(p->score))
		why = "has a score that is not finite";
	return why ? err_set(m->e, ERR_DATA, m->where, "piece %zu %s", i, why) : 0;
}

static int check_pieces(const struct proto *m)
{
	size_t unknown = 0, bytes = 0;

	for (size_t i = 0; i < m->n; i++) {
		if (check_piece(m, i))
			return -1;
		unknown += m->piece[i].type == PIECE_UNKNOWN;
		bytes += m->piece[i].type == PIECE_BYTE;
	}
	if (unknown != 1)
		return bad(m, unknown ? "more than one piece of type UNKNOWN" :
			   "no piece of type UNKNOWN");
	if (bytes && !m->byte_fallback)
		return bad(m, "pieces of type BYTE without byte_fallback");
	if (m->byte_fallback && bytes != 256)
		return err_set(m->e, ERR_DATA, m->where, "byte_fallback with %zu pieces of type "
			       "BYTE, not 256", bytes);
	return 0;
}

/* ---- into the tokenizer ----------------------------------------------------------- */

static int vocabulary(struct tokenizer *t, const struct proto *m)
{
	int32_t id[256];

	if (tok_vocab_reserve(&t->vocab, m->n, 8 * m->n, m->e))
		return -1;
	for (size_t i = 0; i < m->n; i++) {
		const struct piece *p = &m->piece[i];

		if (tok_vocab_add(&t->vocab, p->s, p->n, (int64_t)i, m->where, m->e))
			return -1;
		t->vocab.entry[i].extra = p->type == PIECE_UNKNOWN || p->type == PIECE_CONTROL ||
					  p->type == PIECE_BYTE;
		if (p->type == PIECE_USER &&
		    tok_trie_add(&t->user, p->s, p->n, (int32_t)i, m->where, m->e))
			return -1;
	}
	tok_byte_ids(&t->vocab, id);
	for (int b = 0; b < 256 && m->byte_fallback; b++)
		if (id[b] < 0 || m->piece[id[b]].type != PIECE_BYTE)
			return err_set(m->e, ERR_DATA, m->where, "byte_fallback without a piece of "
				       "type BYTE for 0x%02x", (unsigned)b);
	return 0;
}

static size_t unknown_piece(const struct proto *m)
{
	size_t i = 0;

	while (m->piece[i].type != PIECE_UNKNOWN)
		i++;
	return i;
}

static int bpe(struct tokenizer *t, const struct proto *m, const bool *unused)
{
	const struct piece *unk = &m->piece[unknown_piece(m)];
	float *score = malloc(m->n * sizeof(*score));
	struct part p = { .e = m->e };
	int ret;

	if (!score)
		return err_nomem(m->e, m->where, m->n * sizeof(*score));
	for (size_t i = 0; i < m->n; i++)
		score[i] = m->piece[i].score;
	snprintf(p.where, sizeof(p.where), "%.150s", m->where);
	t->bpe.byte_fallback = m->byte_fallback;
	t->bpe.fuse_unk = true;
	ret = part_dup(&p, unk->s, unk->n, &t->bpe.unk_token) ||
	      tok_bpe_by_scores(t, score, unused, m->where, m->e) ? -1 : 0;
	free(score);
	return ret ? -1 : tok_bpe_finish(t, m->e);
}

/* Scores as unigram_model.cc has them: a user-defined symbol beats whatever covers it, a
 * character without a piece is worth less than the least likely piece. */
static int unigram(struct tokenizer *t, const struct proto *m, const bool *unused)
{
	double *score = malloc(m->n * sizeof(*score));
	float least = FLT_MAX, most = FLT_MIN;

	if (!score)
		return err_nomem(m->e, m->where, m->n * sizeof(*score));
	for (size_t i = 0; i < m->n; i++)
		if (m->piece[i].type == PIECE_NORMAL) {
			least = fminf(least, m->piece[i].score);
			most = fmaxf(most, m->piece[i].score);
		}
	for (size_t i = 0; i < m->n; i++) {
		const struct piece *p = &m->piece[i];

		score[i] = p->type == PIECE_USER ? (double)((float)p->n * most) - 0.1 :
			   (double)p->score;
	}
	t->uni.single = true;
	t->uni.byte_fallback = m->byte_fallback;
	t->uni.unk = (int32_t)unknown_piece(m);
	t->uni.unk_score = (double)(least - 10.0f);
	return tok_unigram_finish(t, score, unused, m->where, m->e);
}

static int model(struct tokenizer *t, const struct proto *m)
{
	bool *unused = malloc(m->n * sizeof(*unused));
	int ret;

	if (!unused)
		return err_nomem(m->e, m->where, m->n * sizeof(*unused));
	for (size_t i = 0; i < m->n; i++)
		unused[i] = m->piece[i].type == PIECE_UNUSED;
	ret = m->model_type == MODEL_TYPE_BPE ? bpe(t, m, unused) : unigram(t, m, unused);
	free(unused);
	return ret;
}

static int stages(struct tokenizer *t, const struct proto *m, const struct tokenizer_config *c)
{
	static const char decoder[] = "{\"decoder\":{\"type\":\"Sequence\",\"decoders\":["
		"{\"type\":\"Replace\",\"pattern\":{\"String\":\"\xe2\x96\x81\"},"
		"\"content\":\" \"},{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"}%s]}}";
	struct norm_step *s = calloc(1, sizeof(*s));
	bool legacy;
	char json[512];

	if (!s)
		return err_nomem(m->e, m->where, sizeof(*s));
	t->norm = s;
	t->n_norm = 1;
	s->kind = NORM_SENTENCEPIECE;
	s->prefix = m->prefix;
	s->trim = m->trim;
	s->keep = &t->user;
	if (tokenizer_config_flag(c, "legacy", true, &legacy, m->e))
		return -1;
	s->first_only = !legacy;
	if (m->charsmap_n && tok_charsmap_new(&s->map, (const char *)m->charsmap, m->charsmap_n,
					      m->where, m->e))
		return -1;
	snprintf(json, sizeof(json), decoder, m->prefix ? ",{\"type\":\"Strip\",\"content\":\" \","
		 "\"start\":1,\"stop\":0}" : "");
	return tokenizer_config_stages(t, json, m->where, m->e);
}

/* Control symbols and <unk> are special tokens; then those of the files beside the model. */
static int added(struct tokenizer *t, const struct proto *m, const struct tokenizer_config *c)
{
	struct part p = { .e = m->e };

	snprintf(p.where, sizeof(p.where), "%.150s", m->where);
	for (size_t i = 0; i < m->n; i++) {
		struct tok_added a = { .id = (int32_t)i, .special = true, .n = m->piece[i].n };

		if (m->piece[i].type != PIECE_UNKNOWN && m->piece[i].type != PIECE_CONTROL)
			continue;
		if (part_dup(&p, m->piece[i].s, a.n, &a.content) ||
		    tok_added_add(t, &a, m->where, m->e))
			return -1;
	}
	return tokenizer_config_add(c, t, m->e);
}

/* One of the two ends of a text. */
static int around(struct tokenizer *t, const struct proto *m, const struct tokenizer_config *c,
		  bool begin, struct ids *out)
{
	const char *key = begin ? "bos_token" : "eos_token", *text;
	int64_t id = begin ? m->bos_id : m->eos_id;
	bool wanted;

	if (tokenizer_config_flag(c, begin ? "add_bos_token" : "add_eos_token", begin, &wanted,
				  m->e) || tokenizer_config_token(c, key, &text, m->e))
		return -1;
	if (!wanted)
		return 0;
	if (tokenizer_config_has(c, key))
		id = text ? tok_vocab_find(&t->vocab, text, strlen(text)) : -1;
	else if (id >= (int64_t)m->n || (id >= 0 && m->piece[id].type != PIECE_CONTROL))
		id = -1; /* as in SentencePiece: there is none */
	return id < 0 ? 0 : ids_push(out, (int32_t)id, m->e);
}

static int build(struct tokenizer *t, struct proto *m, const char *model_text, size_t n,
		 const struct tokenizer_config *c)
{
	/* As the .proto has it where the file says nothing. */
	m->model_type = MODEL_TYPE_UNIGRAM;
	m->bos_id = 1;
	m->eos_id = 2;
	m->prefix = m->trim = m->escape = true;
	if (strcmp(c->cls, "") && strcmp(c->cls, "LlamaTokenizer") &&
	    strcmp(c->cls, "LlamaTokenizerFast") && strcmp(c->cls, "CodeLlamaTokenizer") &&
	    strcmp(c->cls, "CodeLlamaTokenizerFast"))
		return err_set(m->e, ERR_DATA, c->top[TOKF_CONFIG].where, "tokenizer_class '%.60s' "
			       "is not supported with a tokenizer.model", c->cls);
	if (read_model(m, model_text, n) || check_options(m) || check_pieces(m) ||
	    vocabulary(t, m) || model(t, m) || stages(t, m, c) || added(t, m, c))
		return -1;
	return around(t, m, c, true, &t->before) || around(t, m, c, false, &t->after) ? -1 : 0;
}

int tokenizer_from_sentencepiece(struct tokenizer **out, const char *model_text, size_t n,
				 const struct tokenizer_config *c, const char *where,
				 struct err *e)
{
	struct proto m = { .where = where, .e = e };
	struct tokenizer *t = tokenizer_new(e);
	int ret = t ? build(t, &m, model_text, n, c) : -1;

	free(m.piece);
	if (ret) {
		tokenizer_free(t);
		return -1;
	}
	*out = t;
	return 0;
}

int sentencepiece_pieces(struct sentencepiece_piece **pieces, size_t *count, const char *model_text,
			 size_t n, const char *where, struct err *e)
{
	struct proto m = { .where = where, .e = e };
	struct sentencepiece_piece *v = NULL;
	int ret = read_model(&m, model_text, n);

	if (!ret) {
		v = malloc((m.n + 1) * sizeof(*v));
		ret = v ? 0 : err_nomem(e, where, m.n * sizeof(*v));
	}
	for (size_t i = 0; !ret && i < m.n; i++)
		v[i] = (struct sentencepiece_piece){ m.piece[i].s, m.piece[i].n, m.piece[i].score,
						     (int)m.piece[i].type };
	*pieces = v;
	*count = m.n;
	free(m.piece);
	return ret;
}
