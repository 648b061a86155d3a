/* SPDX-License-Identifier: Apache-2.0 */
/*
 * calib.h - a calibration set: windows of token ids, as a stream carries them
 */
#ifndef QP_CALIB_H
#define QP_CALIB_H

#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"

struct record;
struct stream_in;
struct ids;

struct calib {
	int32_t *ids;      /* [nsamples, seqlen] */
	size_t nsamples, seqlen;
	char fingerprint[40]; /* "xxh128:" and 32 hex digits of the ids, i32 little-endian */
	/* Where the windows came from, as far as it is known; these travel with the record. */
	char sampling[16];    /* "random", "sequential", "documents", "ids"; "": not known */
	int64_t seed;         /* of random and documents */
	int64_t tokens;       /* in the text; 0: not known */
	char tokenizer[40];   /* tokenizer_fingerprint(); "": not known */
};

enum calib_sampling { CALIB_RANDOM, CALIB_SEQUENTIAL, CALIB_DOCUMENTS };

void calib_release(struct calib *c);
void calib_fingerprint(struct calib *c);

/*
 * nsamples windows of seqlen tokens.  random: starts drawn with replacement, uniform over the
 * positions of all text joined; sequential: window after window without overlap from the
 * start; documents: a document of at least seqlen tokens drawn at random, then a random start
 * in it (the GPTQ paper's C4 protocol).  Generator: xoshiro256** seeded by splitmix64(seed).
 * docs: token counts of the documents that make up ids; only CALIB_DOCUMENTS looks at them.
 * ERR_DATA, saying how many tokens there are, when the text is too short.
 */
int calib_sample(struct calib *c, const struct ids *ids, const size_t *docs, size_t ndocs,
		 size_t nsamples, size_t seqlen, enum calib_sampling how, uint64_t seed,
		 struct err *e) MUST_USE;

/* ERR_DATA when a window of c shares a run of min(32, seqlen, text->n) tokens with text: names
 * the window, the position in it, and the position in text. */
int calib_disjoint(const struct calib *c, const struct ids *text, struct err *e) MUST_USE;

/* The record's header: type, name "calib", dtype I32, shape, and the keys fingerprint, sampling,
 * seed, tokens, tokenizer.  Its payload is c->ids. */
int calib_record(const struct calib *c, struct record *r, struct err *e);
/* Back from the current record of in: ERR_DATA when its shape or type is another, an id is
 * negative or the fingerprint does not fit. */
int calib_read(struct calib *c, struct stream_in *in, const struct record *r, struct err *e)
	MUST_USE;
/* Opens a stream and takes its calib record: ERR_DATA if it has none. */
int calib_open(struct calib *c, const char *path, struct err *e) MUST_USE;
/* And its header, for passing it on with all its keys. */
int calib_open_record(struct calib *c, struct record *header, const char *path,
		      struct err *e) MUST_USE;

#endif
