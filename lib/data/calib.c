/* SPDX-License-Identifier: Apache-2.0 */
/*
 * calib.c - a calibration set: drawn from text, compared with another, as a record
 */
#include "lib/data/calib.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/hash.h"
#include "lib/data/rng.h"
#include "lib/data/stream.h"
#include "lib/data/tokenizer.h"

#define WHERE "calib"
#define RUN 32 /* so many tokens in common are no coincidence */

void calib_release(struct calib *c)
{
	free(c->ids);
	free(c->pixels);
	memset(c, 0, sizeof(*c));
}

size_t calib_nbytes(const struct calib *c)
{
	return c->pixels ? c->nsamples * calib_image_floats(c) * sizeof(*c->pixels) :
			   c->nsamples * c->seqlen * sizeof(*c->ids);
}

void calib_fingerprint(struct calib *c)
{
	uint64_t high, low;

	hash128(calib_payload(c), calib_nbytes(c), &high, &low);
	snprintf(c->fingerprint, sizeof(c->fingerprint), "xxh128:%016llx%016llx",
		 (unsigned long long)high, (unsigned long long)low);
}

/* ---- sampling --------------------------------------------------------------------- */

static int alloc(struct calib *c, size_t nsamples, size_t seqlen, struct err *e)
{
	memset(c, 0, sizeof(*c));
	if (!nsamples || !seqlen || nsamples > SIZE_MAX / sizeof(*c->ids) / seqlen)
		return err_set(e, ERR_DATA, WHERE, "%zu windows of %zu tokens", nsamples, seqlen);
	c->ids = malloc(nsamples * seqlen * sizeof(*c->ids));
	if (!c->ids)
		return err_nomem(e, WHERE, nsamples * seqlen * sizeof(*c->ids));
	c->nsamples = nsamples;
	c->seqlen = seqlen;
	return 0;
}

int calib_alloc_pixels(struct calib *c, size_t nsamples, size_t channels, size_t height,
		       size_t width, struct err *e)
{
	const int64_t shape[] = { (int64_t)nsamples, (int64_t)channels, (int64_t)height,
				  (int64_t)width };
	uint64_t n;

	memset(c, 0, sizeof(*c));
	if (dtype_nbytes(DT_F32, 4, shape, &n) || !n)
		return err_set(e, ERR_DATA, WHERE, "%zu images of %zu x %zu x %zu", nsamples,
			       channels, height, width);
	c->pixels = malloc(n);
	if (!c->pixels)
		return err_nomem(e, WHERE, n);
	c->nsamples = nsamples;
	c->channels = channels;
	c->height = height;
	c->width = width;
	return 0;
}

/* Offsets and lengths of the documents that hold a window, in ids; how many there are. */
struct document {
	size_t begin, n;
};

static size_t long_documents(struct document *to, const size_t *docs, size_t ndocs,
			     size_t seqlen)
{
	size_t found = 0, at = 0;

	for (size_t i = 0; i < ndocs; at += docs[i++])
		if (docs[i] >= seqlen)
			to[found++] = (struct document){ .begin = at, .n = docs[i] };
	return found;
}

static int sample_documents(struct calib *c, const struct ids *ids, const size_t *docs,
			    size_t ndocs, struct rng *rng, struct err *e)
{
	struct document *d = malloc((ndocs + 1) * sizeof(*d));
	size_t n;

	if (!d)
		return err_nomem(e, WHERE, (ndocs + 1) * sizeof(*d));
	n = long_documents(d, docs, ndocs, c->seqlen);
	for (size_t i = 0; n && i < c->nsamples; i++) {
		const struct document *one = &d[rng_below(rng, n)];
		size_t start = one->begin + rng_below(rng, one->n - c->seqlen + 1);

		memcpy(c->ids + i * c->seqlen, ids->id + start, c->seqlen * sizeof(*c->ids));
	}
	free(d);
	return n ? 0 : err_set(e, ERR_DATA, "text", "none of its %zu documents has a window of %zu "
			       "tokens (%zu tokens in all)", ndocs, c->seqlen, ids->n);
}

static int sample(struct calib *c, const struct ids *ids, const size_t *docs, size_t ndocs,
		  enum calib_sampling how, uint64_t seed, struct err *e)
{
	struct rng rng;

	rng_init(&rng, seed);
	if (how == CALIB_DOCUMENTS)
		return sample_documents(c, ids, docs, ndocs, &rng, e);
	for (size_t i = 0; i < c->nsamples; i++) {
		size_t start = how == CALIB_SEQUENTIAL ? i * c->seqlen :
			       rng_below(&rng, ids->n - c->seqlen + 1);

		memcpy(c->ids + i * c->seqlen, ids->id + start, c->seqlen * sizeof(*c->ids));
	}
	return 0;
}

int calib_sample(struct calib *c, const struct ids *ids, const size_t *docs, size_t ndocs,
		 size_t nsamples, size_t seqlen, enum calib_sampling how, uint64_t seed,
		 struct err *e)
{
	static const char *const names[] = {
		[CALIB_RANDOM] = "random", [CALIB_SEQUENTIAL] = "sequential",
		[CALIB_DOCUMENTS] = "documents",
	};

	if (ids->n < seqlen)
		return err_set(e, ERR_DATA, "text", "%zu tokens, less than one window of %zu",
			       ids->n, seqlen);
	if (how == CALIB_SEQUENTIAL && seqlen && ids->n / seqlen < nsamples)
		return err_set(e, ERR_DATA, "text", "%zu tokens hold %zu windows of %zu, not %zu",
			       ids->n, ids->n / seqlen, seqlen, nsamples);
	if (alloc(c, nsamples, seqlen, e))
		return -1;
	if (sample(c, ids, docs, ndocs, how, seed, e)) {
		calib_release(c);
		return -1;
	}
	calib_fingerprint(c);
	snprintf(c->sampling, sizeof(c->sampling), "%s", names[how]);
	c->seed = how == CALIB_SEQUENTIAL ? 0 : (int64_t)seed;
	c->tokens = (int64_t)ids->n;
	return 0;
}

/* ---- disjoint from an evaluation text ---------------------------------------------- */

/* Hashes of all runs of `run` tokens of a text, rolling: sum of (id + 1) * B^k mod 2^64. */
#define B 0x9e3779b97f4a7c15u

struct runs {
	const int32_t *text;
	size_t n, run;
	uint64_t top;   /* B^(run-1) */
	uint64_t *hash; /* of the run that begins at a position */
	size_t *slot;   /* position + 1; 0: free */
	size_t mask;
};

static uint64_t roll(uint64_t h, uint64_t top, int32_t out, int32_t in)
{
	return (h - ((uint64_t)(uint32_t)out + 1) * top) * B + (uint32_t)in + 1;
}

static uint64_t first_hash(const int32_t *t, size_t run)
{
	uint64_t h = 0;

	for (size_t i = 0; i < run; i++)
		h = h * B + (uint32_t)t[i] + 1;
	return h;
}

static size_t spread(uint64_t h)
{
	h ^= h >> 32;
	h *= B;
	return (size_t)(h ^ h >> 29);
}

static int runs_init(struct runs *r, const struct ids *text, size_t run, struct err *e)
{
	size_t count = text->n - run + 1, slots = 64;

	while (slots < 2 * count)
		slots *= 2;
	*r = (struct runs){ .text = text->id, .n = count, .run = run, .top = 1,
			    .mask = slots - 1 };
	r->hash = malloc(count * sizeof(*r->hash));
	r->slot = calloc(slots, sizeof(*r->slot));
	if (!r->hash || !r->slot)
		return err_nomem(e, WHERE, slots * sizeof(*r->slot));
	for (size_t i = 1; i < run; i++)
		r->top *= B;
	r->hash[0] = first_hash(text->id, run);
	for (size_t i = 1; i < count; i++)
		r->hash[i] = roll(r->hash[i - 1], r->top, text->id[i - 1], text->id[i + run - 1]);
	for (size_t i = 0; i < count; i++) {
		size_t k = spread(r->hash[i]) & r->mask;

		/* Of equal runs the first is enough. */
		while (r->slot[k] && r->hash[r->slot[k] - 1] != r->hash[i])
			k = (k + 1) & r->mask;
		if (!r->slot[k])
			r->slot[k] = i + 1;
	}
	return 0;
}

/* The position in the text of the run at t, or SIZE_MAX. */
static size_t runs_find(const struct runs *r, const int32_t *t, uint64_t h)
{
	for (size_t k = spread(h) & r->mask; r->slot[k]; k = (k + 1) & r->mask) {
		size_t at = r->slot[k] - 1;

		if (r->hash[at] == h && memcmp(r->text + at, t, r->run * sizeof(*t)) == 0)
			return at;
	}
	return SIZE_MAX;
}

static int compare(const struct calib *c, const struct runs *r, struct err *e)
{
	for (size_t w = 0; w < c->nsamples; w++) {
		const int32_t *t = c->ids + w * c->seqlen;
		uint64_t h = first_hash(t, r->run);

		for (size_t i = 0; i + r->run <= c->seqlen; i++) {
			size_t at;

			if (i)
				h = roll(h, r->top, t[i - 1], t[i + r->run - 1]);
			at = runs_find(r, t + i, h);
			if (at != SIZE_MAX)
				return err_set(e, ERR_DATA, WHERE, "window %zu, token %zu: the "
					       "%zu tokens from there are also in the other text, "
					       "from token %zu", w, i, r->run, at);
		}
	}
	return 0;
}

int calib_disjoint(const struct calib *c, const struct ids *text, struct err *e)
{
	size_t run = c->seqlen < RUN ? c->seqlen : RUN;
	struct runs r;
	int ret;

	if (text->n < run)
		run = text->n;
	if (!run)
		return 0;
	ret = runs_init(&r, text, run, e) || compare(c, &r, e) ? -1 : 0;
	free(r.hash);
	free(r.slot);
	return ret;
}

/* ---- the record --------------------------------------------------------------------- */

static bool is_drawn(const struct calib *c)
{
	return strcmp(c->sampling, "random") == 0 || strcmp(c->sampling, "documents") == 0;
}

int calib_record(const struct calib *c, struct record *r, struct err *e)
{
	int bad;

	record_init(r, REC_CALIB, WHERE);
	r->dtype = calib_images(c) ? DT_F32 : DT_I32;
	r->rank = calib_images(c) ? 4 : 2;
	r->shape[0] = (int64_t)c->nsamples;
	r->shape[1] = (int64_t)(calib_images(c) ? c->channels : c->seqlen);
	r->shape[2] = (int64_t)c->height;
	r->shape[3] = (int64_t)c->width;
	r->nbytes = calib_nbytes(c);
	bad = record_set_str(r, "fingerprint", c->fingerprint) ||
	      (c->sampling[0] && record_set_str(r, "sampling", c->sampling)) ||
	      (is_drawn(c) && record_set_int(r, "seed", c->seed)) ||
	      (c->tokens && record_set_int(r, "tokens", c->tokens)) ||
	      (c->tokenizer[0] && record_set_str(r, "tokenizer", c->tokenizer)) ||
	      (c->images && record_set_int(r, "images", c->images)) ||
	      (c->processor[0] && record_set_str(r, "processor", c->processor));
	return bad ? err_nomem(e, WHERE, 64) : 0;
}

static void keys(struct calib *c, const struct record *r)
{
	if (!record_get_str(r, "sampling", c->sampling, sizeof(c->sampling)))
		c->sampling[0] = '\0';
	if (!record_get_str(r, "tokenizer", c->tokenizer, sizeof(c->tokenizer)))
		c->tokenizer[0] = '\0';
	if (!record_get_str(r, "processor", c->processor, sizeof(c->processor)))
		c->processor[0] = '\0';
	if (!record_get_int(r, "images", &c->images))
		c->images = 0;
	if (!record_get_int(r, "seed", &c->seed))
		c->seed = 0;
	if (!record_get_int(r, "tokens", &c->tokens))
		c->tokens = 0;
}

static int check_values(const struct calib *c, struct err *e)
{
	const size_t floats = calib_image_floats(c);
	int64_t bad;

	for (size_t i = 0; c->ids && i < c->nsamples * c->seqlen; i++)
		if (c->ids[i] < 0)
			return err_set(e, ERR_DATA, WHERE, "window %zu has the token id %d",
				       i / c->seqlen, (int)c->ids[i]);
	for (size_t i = 0; c->pixels && i < c->nsamples; i++) {
		bad = f32_first_nonfinite(calib_image(c, i), floats);
		if (bad >= 0)
			return err_set(e, ERR_DATA, WHERE, "image %zu: value %lld is not finite",
				       i, (long long)bad);
	}
	return 0;
}

static int check(const struct calib *c, const struct record *r, struct err *e)
{
	struct calib now = *c;
	char want[sizeof(c->fingerprint)];

	if (check_values(c, e))
		return -1;
	calib_fingerprint(&now);
	if (!record_get_str(r, "fingerprint", want, sizeof(want)))
		return err_set(e, ERR_DATA, WHERE, "no fingerprint");
	return strcmp(want, now.fingerprint) == 0 ? 0 :
	       err_set(e, ERR_DATA, WHERE, "the fingerprint is %s, of %s it is %s", want,
		       c->pixels ? "these pixels" : "these ids", now.fingerprint);
}

/* Memory as the header wants it. */
static int alloc_as(struct calib *c, const struct record *r, struct err *e)
{
	const bool tokens = r->dtype == DT_I32 && r->rank == 2;
	const bool images = r->dtype == DT_F32 && r->rank == 4;
	uint64_t n;

	memset(c, 0, sizeof(*c));
	for (int i = 0; i < r->rank; i++)
		if (r->shape[i] < 1)
			return err_set(e, ERR_DATA, WHERE, "dimension %d of its shape is %lld", i,
				       (long long)r->shape[i]);
	if (!tokens && !images)
		return err_set(e, ERR_DATA, WHERE, "neither a matrix of I32 nor images of F32");
	if (dtype_nbytes(r->dtype, r->rank, r->shape, &n) || n != r->nbytes)
		return err_set(e, ERR_DATA, WHERE, "%llu bytes are not what its shape makes",
			       (unsigned long long)r->nbytes);
	return tokens ? alloc(c, (size_t)r->shape[0], (size_t)r->shape[1], e) :
	       calib_alloc_pixels(c, (size_t)r->shape[0], (size_t)r->shape[1],
				  (size_t)r->shape[2], (size_t)r->shape[3], e);
}

int calib_read(struct calib *c, struct stream_in *in, const struct record *r, struct err *e)
{
	if (alloc_as(c, r, e))
		return -1;
	if (stream_payload(in, c->pixels ? (void *)c->pixels : c->ids, e) || check(c, r, e)) {
		calib_release(c);
		return -1;
	}
	calib_fingerprint(c);
	keys(c, r);
	return 0;
}

int calib_suits(const struct calib *c, size_t channels, size_t height, size_t width,
		struct err *e)
{
	if (!channels)
		return calib_images(c) ? err_set(e, ERR_DATA, WHERE, "it is a set of images; the "
						 "model takes tokens") : 0;
	if (!calib_images(c))
		return err_set(e, ERR_DATA, WHERE, "it is a set of tokens; the model takes "
			       "images: calib-pack --images makes one");
	return c->channels == channels && c->height == height && c->width == width ? 0 :
	       err_set(e, ERR_DATA, WHERE, "its images are %zu x %zu x %zu; the model takes "
		       "%zu x %zu x %zu", c->channels, c->height, c->width, channels, height,
		       width);
}

int calib_open(struct calib *c, const char *path, struct err *e)
{
	struct record header = { .rank = -1 };
	const int ret = calib_open_record(c, &header, path, e);

	record_clear(&header);
	return ret;
}

int calib_open_record(struct calib *c, struct record *header, const char *path, struct err *e)
{
	const char *name = !path || strcmp(path, "-") == 0 ? "standard input" : path;
	struct record rec = { .rank = -1 };
	struct stream_in *in;
	int got;

	memset(c, 0, sizeof(*c));
	if (stream_open_in(&in, path, e))
		return -1;
	while ((got = stream_next(in, &rec, e)) > 0) {
		if (rec.type != REC_CALIB)
			continue;
		if (calib_there(c))
			got = err_set(e, ERR_DATA, name, "has two calibration sets");
		else if (calib_read(c, in, &rec, e) || record_dup(header, &rec, e))
			got = -1;
		if (got < 0)
			break;
	}
	if (got == 0 && !calib_there(c))
		got = err_set(e, ERR_DATA, name, "has no calibration set");
	record_clear(&rec);
	stream_close_in(in);
	if (got < 0)
		calib_release(c);
	return got < 0 ? -1 : 0;
}
