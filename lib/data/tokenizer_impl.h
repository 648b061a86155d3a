/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tokenizer_impl.h - the parts that a tokenizer is made of
 *
 * For lib/data/tokenizer*.c and for the readers in formats/ that fill a tokenizer in; programs
 * use tokenizer.h.  Text is UTF-8 throughout and was checked at the entrance.  The semantics
 * are those of Hugging Face's `tokenizers` library (0.23), which wrote the files; a place where
 * it differs between versions, or where we refuse what it drops, says so.
 */
#ifndef QP_TOKENIZER_IMPL_H
#define QP_TOKENIZER_IMPL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"
#include "lib/data/tokenizer.h"

#define TOK_MAX_ID ((int64_t)1 << 24) /* ids are below; tables are indexed by id */

/* ---- text in work ---------------------------------------------------------------- */

struct tok_buf {
	char *p;
	size_t n, cap;
};

/*
 * A stretch of a tok_buf, or an added token already found in it.  zero: so many of its first bytes
 * come from the very first character of the input (0: it is not the beginning); a pre-tokenizer
 * may treat the beginning of the input, and only that, in another way.
 */
struct tok_piece {
	size_t off, len, zero;
	int32_t id; /* -1: text */
};

struct tok_pieces {
	struct tok_piece *v;
	size_t n, cap;
};

/* What a stage changes: pieces of text; it builds the new state in text2 and pieces2. */
struct tok_work {
	struct tok_buf text, text2;
	struct tok_pieces pieces, pieces2;
};

int tok_buf_reserve(struct tok_buf *b, size_t more, struct err *e) MUST_USE;
int tok_buf_add(struct tok_buf *b, const char *s, size_t n, struct err *e) MUST_USE;
/* Drops a piece of no length that is not a token. */
int tok_piece_add(struct tok_pieces *p, size_t off, size_t len, int32_t id, size_t zero,
		  struct err *e) MUST_USE;
void tok_work_release(struct tok_work *w);
void tok_swap_text(struct tok_work *w);   /* text2 becomes text */
void tok_swap_pieces(struct tok_work *w); /* pieces2 becomes pieces */

/* The character at s (n >= 1 bytes of valid UTF-8) and its length. */
uint32_t tok_char(const char *s, size_t *len);
size_t tok_put(char *dst, uint32_t c); /* its UTF-8, at most 4 bytes */
/* Offset of the first byte that is not UTF-8, or n. */
size_t tok_utf8_check(const char *s, size_t n);
/* s begins with a bad byte: how many belong to it (the start of a character that is cut
 * short counts as one error: Unicode 3.9, "maximal subparts"). */
size_t tok_utf8_bad(const char *s, size_t n);
bool tok_is_space(uint32_t c); /* the Unicode property White_Space */
bool tok_is_word(uint32_t c);  /* \w of Rust's regex: letters, marks, digits, connectors */
/* GPT-2's alphabet: a printable character for each of the 256 bytes, and back (-1: none). */
uint32_t tok_byte_char(unsigned char b);
int tok_char_byte(uint32_t c);

/* ---- patterns -------------------------------------------------------------------- */

struct tok_pattern; /* a string, or a regular expression in Oniguruma's (Ruby's) syntax */

/* ERR_DATA, where, when an expression is wrong or uses what PCRE2 cannot say. */
int tok_pattern_new(struct tok_pattern **p, bool regex, const char *s, size_t n,
		    const char *where, struct err *e) MUST_USE;
void tok_pattern_free(struct tok_pattern *p);

/* Successive matches in s.  next: 1 and the match, 0 at the end, -1. */
struct tok_match {
	const struct tok_pattern *p;
	const char *s;
	size_t n, from, last_end;
	bool any;
	void *data;
};
int tok_match_start(struct tok_match *m, const struct tok_pattern *p, struct err *e) MUST_USE;
void tok_match_text(struct tok_match *m, const char *s, size_t n);
int tok_match_next(struct tok_match *m, size_t *start, size_t *end, struct err *e) MUST_USE;
void tok_match_end(struct tok_match *m);

/* The expression in PCRE2's syntax (tokenizer_regex.c). */
int tok_regex_translate(struct tok_buf *out, const char *s, size_t n, const char *where,
			struct err *e) MUST_USE;

/* Members of a class of PCRE2, without brackets (tokenizer_sets.c): of \s \w \h \d by their letter,
 * alone when they stand outside of a class; of [:name:] (1, or 0: not known); of \p{name}, at
 * most TOK_SET_NAME bytes. */
#define TOK_SET_NAME 60
int tok_set_shorthand(struct tok_buf *out, int c, bool alone, struct err *e) MUST_USE;
int tok_set_bracket(struct tok_buf *out, const char *name, size_t n, struct err *e) MUST_USE;
int tok_set_property(struct tok_buf *out, const char *name, size_t n, struct err *e) MUST_USE;

/* ---- stages ---------------------------------------------------------------------- */

enum norm_kind { NORM_NFC, NORM_NFD, NORM_NFKC, NORM_NFKD, NORM_LOWERCASE, NORM_STRIP_ACCENTS,
		 NORM_PREPEND, NORM_REPLACE, NORM_STRIP, NORM_BYTELEVEL, NORM_SENTENCEPIECE };

struct tok_trie;
struct tok_charsmap;

struct norm_step {
	enum norm_kind kind;
	char *s; /* PREPEND: what; REPLACE: by what */
	size_t n;
	struct tok_pattern *pat;
	bool left, right; /* STRIP */
	/* SENTENCEPIECE (its Normalizer): a mark U+2581 for each space and, with prefix, one before
	 * the text (first_only: only if it is the beginning of the input); trim: no spaces at the
	 * ends, one in place of several */
	bool prefix, first_only, trim;
	struct tok_charsmap *map;    /* rules for characters, or NULL: none */
	const struct tok_trie *keep; /* symbols that no rule changes */
};

enum split_behavior { SPLIT_REMOVED, SPLIT_ISOLATED, SPLIT_MERGED_PREVIOUS, SPLIT_MERGED_NEXT,
		      SPLIT_CONTIGUOUS };
enum prepend_scheme { PREPEND_ALWAYS, PREPEND_FIRST, PREPEND_NEVER };
enum pre_kind { PRE_BYTELEVEL, PRE_SPLIT, PRE_METASPACE };

struct pre_step {
	enum pre_kind kind;
	struct tok_pattern *pat;     /* BYTELEVEL: or NULL; METASPACE: its mark, or NULL: whole */
	enum split_behavior behavior;
	bool invert;
	bool prefix_space;           /* BYTELEVEL */
	enum prepend_scheme prepend; /* METASPACE */
	char mark[4];
	size_t mark_n;
};

enum dec_kind { DEC_REPLACE, DEC_BYTE_FALLBACK, DEC_FUSE, DEC_STRIP, DEC_BYTELEVEL,
		DEC_METASPACE };

struct dec_step {
	enum dec_kind kind;
	struct tok_pattern *pat;
	char *s; /* REPLACE: by what */
	size_t n;
	uint32_t c;          /* STRIP: this character; METASPACE: the mark */
	size_t start, stop;  /* STRIP: at most so many */
	bool drop_first;     /* METASPACE: no space for a mark in the first token */
};

/* ---- added tokens ---------------------------------------------------------------- */

struct tok_added {
	char *content;
	size_t n;
	char *norm; /* what the normalizer makes of content; NULL: the same */
	size_t norm_n;
	int32_t id;
	bool single_word, lstrip, rstrip, normalized, special;
};

/* A trie over the bytes of the added tokens' texts; node 0 is the root. */
struct tok_trie_node {
	uint32_t child, sibling; /* 0: none */
	int32_t token;           /* index into added, or -1 */
	unsigned char byte;
};

struct tok_trie {
	struct tok_trie_node *v;
	size_t n, cap;
	uint32_t first[256]; /* children of the root */
};

/* One more text; ERR_DATA if it is there. */
int tok_trie_add(struct tok_trie *t, const char *s, size_t n, int32_t token, const char *where,
		 struct err *e) MUST_USE;
/* The token of the longest text that s begins with and its length, or -1. */
int32_t tok_trie_prefix(const struct tok_trie *t, const char *s, size_t n, size_t *len);

/* ---- the vocabulary and its models -------------------------------------------------- */

struct tok_entry {
	size_t off;
	uint32_t len;
	bool used;
	bool extra;    /* the model does not know it: an added token, a control symbol */
	int32_t added; /* index into added, or -1 */
};

struct tok_vocab {
	struct tok_buf bytes;    /* the tokens' texts, one after the other */
	struct tok_entry *entry; /* by id */
	size_t n, cap;           /* entries: one more than the largest id */
	size_t used;
	uint64_t *slot;          /* by hash of the text: its high half, then id + 1; 0: free */
	size_t mask;
};

struct tok_merge {
	uint64_t key; /* left id << 32 | right id; UINT64_MAX: free */
	uint32_t rank;
	int32_t id;
};

/* Values of bpe.left and bpe.right */
#define TOK_NONE (-2) /* never made of a text */
#define TOK_ANY (-1)  /* of more than one: unknown */

struct tok_bpe {
	struct tok_merge *merge; /* open addressing */
	size_t merge_mask, n_merges;
	char *unk_token; /* NULL: none */
	int32_t unk;     /* its id, or -1 */
	bool fuse_unk, byte_fallback, ignore_merges;
	char *prefix, *suffix; /* continuing_subword_prefix, end_of_word_suffix; "": none */
	size_t prefix_n, suffix_n;
	int32_t *char_id; /* [65536]: id of a character alone, or -1 */
	int32_t byte_id[256];
	/* The pairs of first symbols that stand side by side inside any token that merging can
	 * make.  Between two symbols of another pair no merge ever reaches, so a text may be
	 * cut there.  NULL: not known, do not cut. */
	uint64_t *near;
	size_t near_mask;
};

/* A trie over all tokens' bytes.  A slot: node << 36 | byte << 28 | child; 0: free. */
struct tok_unigram {
	double *score;       /* [vocab.n], logarithms */
	double unk_score;    /* of a character without a token */
	int32_t unk;         /* or -1 */
	bool byte_fallback;
	bool single;         /* sums are floats, as SentencePiece's; else doubles, as tokenizers' */
	uint32_t first[256]; /* children of the root, 0: none */
	uint64_t *edge;      /* open addressing */
	size_t edge_mask;
	int32_t *token;      /* by node: id, or -1 */
	size_t nodes;
	int32_t byte_id[256];
};

enum tok_model { MODEL_BPE, MODEL_UNIGRAM };

struct tokenizer {
	struct tok_vocab vocab;
	enum tok_model model;
	struct tok_bpe bpe;
	struct tok_unigram uni;
	struct tok_trie user; /* BPE: symbols that are cut out first and never merged, by id */
	struct tok_added *added;
	size_t n_added;
	struct tok_trie raw, normalized;
	struct norm_step *norm;
	size_t n_norm;
	struct pre_step *pre;
	size_t n_pre;
	struct dec_step *dec;
	size_t n_dec;
	bool has_decoder;          /* else tokens are joined by spaces */
	struct ids before, after;  /* what the post-processor puts around a text */
	char fingerprint[40];
};

/* ---- building (in this order: vocabulary, merges, stages, added tokens, finish) --- */

struct tokenizer *tokenizer_new(struct err *e);
int tok_vocab_reserve(struct tok_vocab *v, size_t ntokens, size_t nbytes, struct err *e) MUST_USE;
/* ERR_DATA for an id out of range or in use, a text that is there already. */
int tok_vocab_add(struct tok_vocab *v, const char *s, size_t n, int64_t id, const char *where,
		  struct err *e) MUST_USE;
int32_t tok_vocab_find(const struct tok_vocab *v, const char *s, size_t n); /* or -1 */
int32_t tok_model_find(const struct tok_vocab *v, const char *s, size_t n); /* no extras */

int tok_bpe_reserve(struct tokenizer *t, size_t nmerges, struct err *e) MUST_USE;
/* Ranks in the order of the calls.  A pair given again takes the later rank. */
int tok_bpe_add(struct tokenizer *t, const char *a, size_t an, const char *b, size_t bn,
		const char *where, struct err *e) MUST_USE;
int tok_bpe_finish(struct tokenizer *t, struct err *e) MUST_USE;
void tok_bpe_release(struct tok_bpe *b);
/*
 * SentencePiece's BPE in place of reserve and add: two symbols whose texts together are a token
 * of the model merge, those of the highest score first; equal scores are equal ranks.  score
 * [vocab.n]; what is in t->user is not merged to, unused [vocab.n] must not be (ERR_DATA).
 */
int tok_bpe_by_scores(struct tokenizer *t, const float *score, const bool *unused,
		      const char *where, struct err *e) MUST_USE;

/* The trie of the tokens that the model knows, but for those in unused (or NULL); takes over
 * score.  The other fields of uni are set by the caller. */
int tok_unigram_finish(struct tokenizer *t, double *score, const bool *unused, const char *where,
		       struct err *e) MUST_USE;
void tok_unigram_release(struct tok_unigram *u);
/* "<0x00>" to "<0xFF>" in the vocabulary, -1 for those that are not. */
void tok_byte_ids(const struct tok_vocab *v, int32_t id[256]);

/* SentencePiece's precompiled_charsmap; a copy is kept.  ERR_DATA if it is damaged. */
int tok_charsmap_new(struct tok_charsmap **m, const char *blob, size_t n, const char *where,
		     struct err *e) MUST_USE;
void tok_charsmap_free(struct tok_charsmap *m);

/* Takes over a's strings.  The normalizer must be complete. */
int tok_added_add(struct tokenizer *t, struct tok_added *a, const char *where,
		  struct err *e) MUST_USE;

/* ---- running --------------------------------------------------------------------- */

/* Append the normalized text of s to out.  *zero (see tok_piece) is that of s, and becomes that of
 * what was appended. */
int tok_normalize(const struct tokenizer *t, const char *s, size_t n, struct tok_buf *out,
		  size_t *zero, struct err *e) MUST_USE;
void norm_step_release(struct norm_step *s);
/* The step SENTENCEPIECE (tokenizer_spm.c). */
int tok_normalize_spm(const struct norm_step *step, const char *s, size_t n, struct tok_buf *out,
		      size_t *zero, struct err *e) MUST_USE;

int tok_pre_run(const struct pre_step *s, struct tok_work *w, struct err *e) MUST_USE;
void pre_step_release(struct pre_step *s);

int tok_dec_run(const struct dec_step *s, struct tok_work *w, struct err *e) MUST_USE;
void dec_step_release(struct dec_step *s);

/* Scratch for one encoding; expect is the length of the text. */
struct bpe_run;
struct bpe_run *bpe_run_new(const struct tokenizer *t, size_t expect, struct err *e);
void bpe_run_free(struct bpe_run *r);
int bpe_run_piece(struct bpe_run *r, const char *s, size_t n, struct ids *out,
		  struct err *e) MUST_USE;

/* The same for Unigram; zero-initialised. */
struct uni_best;
struct uni_run {
	const struct tokenizer *t;
	struct uni_best *best; /* by end, from base on */
	size_t cap;
	struct uni_step {
		size_t begin, end;
		int32_t id;
	} *step; /* of the best path, from its end */
	size_t step_cap;
};
void uni_run_release(struct uni_run *r);
int uni_run_piece(struct uni_run *r, const char *s, size_t n, struct ids *out,
		  struct err *e) MUST_USE;

#endif
