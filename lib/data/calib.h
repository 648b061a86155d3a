/* SPDX-License-Identifier: Apache-2.0 */
/*
 * calib.h - a calibration set, as a stream carries it: windows of token ids, or images
 *
 * Which of the two it is, calib_images() tells; a program that has a model asks calib_suits().
 * Images are ready for the model, preprocessed: sample i is the floats from
 * calib_image(c, i) on, [channels, height, width], and all of them lie one behind the other at
 * c->pixels.
 */
#ifndef QP_CALIB_H
#define QP_CALIB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"

struct record;
struct stream_in;
struct ids;

struct calib {
	int32_t *ids;      /* [nsamples, seqlen], NULL for images */
	float *pixels;     /* [nsamples, channels, height, width], NULL for tokens */
	size_t nsamples, seqlen; /* seqlen: tokens of a window, 0 for images */
	size_t channels, height, width; /* of images, else 0 */
	char fingerprint[40]; /* "xxh128:" and 32 hex digits of ids or pixels, little-endian */
	/* Where the samples came from, as far as it is known; these travel with the record. */
	char sampling[16];    /* "random", "sequential", "documents", "ids"; "": not known */
	int64_t seed;         /* of random and documents */
	int64_t tokens;       /* in the text; 0: not known */
	int64_t images;       /* in the set that was drawn from; 0: not known */
	char tokenizer[40];   /* tokenizer_fingerprint(); "": not known */
	char processor[40];   /* of preprocessor_config.json, in the same form; "": none */
};

enum calib_sampling { CALIB_RANDOM, CALIB_SEQUENTIAL, CALIB_DOCUMENTS };

void calib_release(struct calib *c);
/* Room for images, not cleared; the rest of *c is.  ERR_DATA for none, or for too many. */
int calib_alloc_pixels(struct calib *c, size_t nsamples, size_t channels, size_t height,
		       size_t width, struct err *e) MUST_USE;

static inline bool calib_images(const struct calib *c)
{
	return c->pixels != NULL;
}

/* Has it been read or made? */
static inline bool calib_there(const struct calib *c)
{
	return c->ids != NULL || c->pixels != NULL;
}

/* Floats of one image. */
static inline size_t calib_image_floats(const struct calib *c)
{
	return c->channels * c->height * c->width;
}

static inline const float *calib_image(const struct calib *c, size_t i)
{
	return c->pixels + i * calib_image_floats(c);
}

size_t calib_nbytes(const struct calib *c);
/* What a record of it has for payload, calib_nbytes() of it. */
static inline const void *calib_payload(const struct calib *c)
{
	return c->pixels ? (const void *)c->pixels : c->ids;
}

/* A model that takes images, or tokens (channels 0), is to have this set: ERR_DATA if it holds the
 * other kind, or images of another size. */
int calib_suits(const struct calib *c, size_t channels, size_t height, size_t width,
		struct err *e) MUST_USE;

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

/* Of tokens: ERR_DATA when a window of c shares a run of min(32, seqlen, text->n) tokens with
 * text: names the window, the position in it, and the position in text. */
int calib_disjoint(const struct calib *c, const struct ids *text, struct err *e) MUST_USE;

/* The record's header: type, name "calib", dtype I32 or (images) F32, shape, and the keys
 * fingerprint, sampling, seed, tokens, tokenizer, images, processor.  Its payload is
 * calib_payload(). */
int calib_record(const struct calib *c, struct record *r, struct err *e);
/* Back from the current record of in: ERR_DATA when its shape or type is another, an id is
 * negative, a pixel is not finite or the fingerprint does not fit. */
int calib_read(struct calib *c, struct stream_in *in, const struct record *r, struct err *e)
	MUST_USE;
/* Opens a stream and takes its calib record: ERR_DATA if it has none. */
int calib_open(struct calib *c, const char *path, struct err *e) MUST_USE;
/* And its header, for passing it on with all its keys. */
int calib_open_record(struct calib *c, struct record *header, const char *path,
		      struct err *e) MUST_USE;

#endif
