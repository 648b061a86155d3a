/* SPDX-License-Identifier: Apache-2.0 */
/*
 * calib.c - calibration sets: where windows come from, and what is refused
 */
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include "lib/base/hash.h"
#include "lib/data/calib.h"
#include "lib/data/rng.h"
#include "lib/data/stream.h"
#include "lib/data/tokenizer.h"
#include "tests/unit/tap.h"

/* n ids: 1000, 1001, ... so that an id tells its position. */
static struct ids positions(size_t n)
{
	struct ids v = { 0 };
	struct err e;

	for (size_t i = 0; i < n; i++)
		if (ids_push(&v, 1000 + (int32_t)i, &e))
			abort();
	return v;
}

static size_t start_of(const struct calib *c, size_t window)
{
	return (size_t)c->ids[window * c->seqlen] - 1000;
}

static bool consecutive(const struct calib *c)
{
	for (size_t w = 0; w < c->nsamples; w++)
		for (size_t i = 1; i < c->seqlen; i++)
			if (c->ids[w * c->seqlen + i] != c->ids[w * c->seqlen + i - 1] + 1)
				return false;
	return true;
}

static void test_random(void)
{
	struct ids v = positions(103);
	unsigned seen[100] = { 0 };
	struct calib a, b;
	struct rng r;
	struct err e;
	bool as_drawn = true;
	size_t distinct = 0;

	ok(!calib_sample(&a, &v, NULL, 0, 2000, 4, CALIB_RANDOM, 5, &e), "random windows");
	ok(a.nsamples == 2000 && a.seqlen == 4 && consecutive(&a), "are stretches of the text");
	rng_init(&r, 5);
	for (size_t w = 0; w < 2000; w++) {
		as_drawn = as_drawn && start_of(&a, w) == rng_below(&r, 100);
		seen[start_of(&a, w)]++;
	}
	ok(as_drawn, "their starts are what xoshiro256** draws below n - seqlen + 1");
	for (size_t i = 0; i < 100; i++)
		distinct += seen[i] > 0;
	ok(distinct == 100 && seen[0] && seen[99], "every start occurs, the last one too");
	ok(!calib_sample(&b, &v, NULL, 0, 2000, 4, CALIB_RANDOM, 5, &e) &&
	   !memcmp(a.ids, b.ids, 8000 * sizeof(*a.ids)), "a seed gives the same set again");
	ok_str(a.fingerprint, b.fingerprint, "and the same fingerprint");
	calib_release(&b);
	ok(!calib_sample(&b, &v, NULL, 0, 2000, 4, CALIB_RANDOM, 6, &e) &&
	   strcmp(a.fingerprint, b.fingerprint), "another seed gives another");
	calib_release(&a);
	calib_release(&b);
	ok(!calib_sample(&a, &v, NULL, 0, 3, 103, CALIB_RANDOM, 0, &e) && start_of(&a, 2) == 0,
	   "a window as long as the text is the text");
	calib_release(&a);
	ok(calib_sample(&a, &v, NULL, 0, 1, 104, CALIB_RANDOM, 0, &e) && e.cls == ERR_DATA,
	   "a text shorter than a window is refused");
	ok_str(e.what, "103 tokens, less than one window of 104", "saying how many tokens it has");
	ids_release(&v);
}

static void test_sequential(void)
{
	struct ids v = positions(35);
	struct calib c;
	struct err e;

	ok(!calib_sample(&c, &v, NULL, 0, 3, 10, CALIB_SEQUENTIAL, 9, &e) && consecutive(&c) &&
	   start_of(&c, 0) == 0 && start_of(&c, 1) == 10 && start_of(&c, 2) == 20,
	   "sequential windows follow each other from the start");
	calib_release(&c);
	ok(calib_sample(&c, &v, NULL, 0, 4, 10, CALIB_SEQUENTIAL, 0, &e) && e.cls == ERR_DATA,
	   "four of ten do not fit in 35 tokens");
	ok_str(e.what, "35 tokens hold 3 windows of 10, not 4", "and it says how many do");
	ids_release(&v);
}

static void test_documents(void)
{
	/* Documents at 0, 5, 15, 18, 38; only those of 10 and 20 tokens hold a window of 8. */
	const size_t docs[] = { 5, 10, 3, 20, 7 };
	struct ids v = positions(45);
	unsigned second = 0, at[45] = { 0 };
	struct calib c;
	struct err e;
	bool inside = true;

	ok(!calib_sample(&c, &v, docs, 5, 3000, 8, CALIB_DOCUMENTS, 3, &e) && consecutive(&c),
	   "windows of documents");
	for (size_t w = 0; w < 3000; w++) {
		size_t s = start_of(&c, w);

		inside = inside && ((s >= 5 && s <= 7) || (s >= 18 && s <= 30));
		second += s <= 7;
		at[s]++;
	}
	ok(inside, "lie inside one document that is long enough");
	ok(second > 1400 && second < 1600, "each such document as often (%u of 3000)", second);
	ok(at[5] && at[6] && at[7] && at[18] && at[30], "from its first to its last start");
	calib_release(&c);
	ok(calib_sample(&c, &v, docs, 5, 1, 21, CALIB_DOCUMENTS, 0, &e) && e.cls == ERR_DATA,
	   "no document long enough is refused");
	ids_release(&v);
}

static void test_fingerprint(void)
{
	int32_t ids[] = { 1, 2, 3, 4 };
	struct calib c = { .ids = ids, .nsamples = 2, .seqlen = 2 };
	uint64_t high, low;
	char want[40];

	/* XXH3-128 of 01000000 02000000 03000000 04000000. */
	hash128("\1\0\0\0\2\0\0\0\3\0\0\0\4\0\0", 16, &high, &low);
	snprintf(want, sizeof(want), "xxh128:%016llx%016llx", (unsigned long long)high,
		 (unsigned long long)low);
	calib_fingerprint(&c);
	ok_str(c.fingerprint, want, "the fingerprint is of the ids, 32 bits little-endian");
}

static void test_disjoint(void)
{
	struct ids text = positions(500), other = { 0 };
	int32_t ids[2 * 64];
	struct calib c = { .ids = ids, .nsamples = 2, .seqlen = 64 };
	struct err e;

	for (int i = 0; i < 128; i++)
		ids[i] = i;
	ok(!calib_disjoint(&c, &text, &e), "other ids: disjoint");
	for (int i = 0; i < 31; i++)
		ids[64 + 20 + i] = 1300 + i;
	ok(!calib_disjoint(&c, &text, &e), "31 in common: still");
	ids[64 + 20 + 31] = 1331;
	ok(calib_disjoint(&c, &text, &e) && e.cls == ERR_DATA, "32 in common: refused");
	ok(strstr(e.what, "window 1, token 20:") && strstr(e.what, "from token 300"),
	   "naming the window and both positions: %s", e.what);
	/* A shorter window is compared whole, as is a shorter text. */
	c = (struct calib){ .ids = ids, .nsamples = 2, .seqlen = 4 };
	for (int i = 0; i < 8; i++)
		ids[i] = 1490 + i;
	ok(calib_disjoint(&c, &text, &e), "windows of 4: all 4 in common is refused");
	ids[3] = ids[7] = 0;
	ok(!calib_disjoint(&c, &text, &e), "3 of 4 is not");
	ok(!calib_disjoint(&c, &other, &e), "no text has nothing in common");
	for (int i = 0; i < 3; i++)
		ok(!ids_push(&other, 1490 + i, &e), "a text of %d", i + 1);
	ok(calib_disjoint(&c, &other, &e), "a text shorter than a window is looked for whole");
	ids_release(&text);
	ids_release(&other);
}

/* Against the plain comparison of all positions, over few ids so that runs are frequent. */
static void test_disjoint_random(void)
{
	unsigned agree = 0, common = 0;
	struct rng r;
	struct err e;

	rng_init(&r, 11);
	for (int round = 0; round < 400; round++) {
		int32_t ids[40];
		struct calib c = { .ids = ids, .nsamples = 4, .seqlen = 10 };
		struct ids text = { 0 };
		bool want = false;

		for (int i = 0; i < 40; i++)
			ids[i] = (int32_t)rng_below(&r, 3);
		for (int i = 0; i < 1000; i++)
			if (ids_push(&text, (int32_t)rng_below(&r, 3), &e))
				abort();
		for (size_t w = 0; w < 4; w++)
			for (size_t t = 0; t + 10 <= text.n; t++)
				want = want || !memcmp(ids + w * 10, text.id + t,
						       10 * sizeof(*ids));
		agree += (calib_disjoint(&c, &text, &e) != 0) == want;
		common += want;
		ids_release(&text);
	}
	ok(agree == 400, "as a plain search says, in %u of 400", agree);
	ok(common > 5 && common < 100, "of which %u have a run in common", common);
}

/* ---- as a record ------------------------------------------------------------------- */

static char path[64];

/* A stream with the records of c, `times` over; change is made to the header first. */
static void write_stream(const struct calib *c, int times, void (*change)(struct record *))
{
	struct stream_out_options opt = { .path = path };
	struct provenance prov = { .program = "test", .version = "1" };
	struct record head = { .rank = -1 }, r = { .rank = -1 };
	struct stream_out *out;
	struct err e;
	int bad;

	record_init(&head, REC_STREAM, "");
	bad = stream_open_out(&out, &opt, &e) || stream_write_head(out, &head, &prov, &e);
	for (int i = 0; i < times && !bad; i++) {
		bad = calib_record(c, &r, &e);
		if (change)
			change(&r);
		bad = bad || stream_write(out, &r, calib_payload(c), &e);
	}
	if (bad || stream_commit(out, &e)) {
		printf("# %s: %s\n", e.where, e.what);
		abort();
	}
	stream_close_out(out);
	record_clear(&head);
	record_clear(&r);
}

static void as_f32(struct record *r)
{
	r->dtype = DT_F32;
}

static void as_vector(struct record *r)
{
	r->rank = 1;
	r->shape[0] *= r->shape[1];
}

static void with_another_fingerprint(struct record *r)
{
	if (record_set_str(r, "fingerprint", "xxh128:00000000000000000000000000000000"))
		abort();
}

static void without_fingerprint(struct record *r)
{
	record_unset(r, "fingerprint");
}

static void refused(const struct calib *c, int times, void (*change)(struct record *),
		    const char *why, const char *what)
{
	struct calib got;
	struct err e;

	write_stream(c, times, change);
	ok(calib_open(&got, path, &e) == -1 && e.cls == ERR_DATA && strstr(e.what, why) &&
	   !got.ids, "%s is refused", what);
}

static void test_record(void)
{
	int32_t ids[] = { 5, 0, 2047, 7, 8, 9 };
	struct calib c = { .ids = ids, .nsamples = 2, .seqlen = 3 }, got;
	struct err e;

	calib_fingerprint(&c);
	write_stream(&c, 1, NULL);
	ok(!calib_open(&got, path, &e) && got.nsamples == 2 && got.seqlen == 3 &&
	   !memcmp(got.ids, ids, sizeof(ids)), "comes back from a stream");
	ok_str(got.fingerprint, c.fingerprint, "with its fingerprint");
	calib_release(&got);
	refused(&c, 0, NULL, "no calibration set", "a stream without one");
	refused(&c, 2, NULL, "two calibration sets", "a stream with two");
	refused(&c, 1, as_f32, "neither a matrix of I32", "another type");
	refused(&c, 1, as_vector, "neither a matrix of I32", "another shape");
	refused(&c, 1, with_another_fingerprint, "of these ids it is", "a wrong fingerprint");
	refused(&c, 1, without_fingerprint, "no fingerprint", "no fingerprint");
	ids[4] = -3;
	calib_fingerprint(&c);
	refused(&c, 1, NULL, "window 1 has the token id -3", "a negative id");
	unlink(path);
	ok(calib_open(&got, path, &e) == -1 && e.cls == ERR_NOINPUT, "no file: ERR_NOINPUT");
}

/* ---- images ----------------------------------------------------------------------------- */

static void one_dimension_less(struct record *r)
{
	r->rank = 3;
	r->shape[2] = 4;
}

static void test_images(void)
{
	float pixels[24];
	struct calib c = { .pixels = pixels, .nsamples = 2, .channels = 3, .height = 2,
			   .width = 2, .images = 9 }, got;
	struct err e;

	for (size_t i = 0; i < 24; i++)
		pixels[i] = (float)i / 7 - 1;
	snprintf(c.sampling, sizeof(c.sampling), "random");
	snprintf(c.processor, sizeof(c.processor), "xxh128:5");
	calib_fingerprint(&c);
	write_stream(&c, 1, NULL);
	ok(!calib_open(&got, path, &e) && calib_images(&got) && !got.ids && got.nsamples == 2 &&
	   got.channels == 3 && got.height == 2 && got.width == 2 && !got.seqlen &&
	   !memcmp(got.pixels, pixels, sizeof(pixels)), "a set of images comes back");
	ok(got.images == 9 && !strcmp(got.processor, "xxh128:5") &&
	   !strcmp(got.fingerprint, c.fingerprint), "with what is known of it");
	ok(calib_image(&got, 1) == got.pixels + 12, "image after image");
	ok(!calib_suits(&got, 3, 2, 2, &e), "it suits a model of that size");
	ok(calib_suits(&got, 3, 2, 4, &e) == -1 && e.cls == ERR_DATA &&
	   strstr(e.what, "3 x 2 x 2; the model takes 3 x 2 x 4"), "not one of another");
	ok(calib_suits(&got, 0, 0, 0, &e) == -1 && strstr(e.what, "takes tokens"),
	   "not one of language");
	calib_release(&got);
	refused(&c, 1, one_dimension_less, "neither a matrix", "a shape of three dimensions");
	refused(&c, 1, with_another_fingerprint, "of these pixels it is", "a wrong fingerprint");
	pixels[13] = INFINITY;
	calib_fingerprint(&c);
	refused(&c, 1, NULL, "image 1: value 1 is not finite", "an infinite pixel");
	ok(calib_alloc_pixels(&got, 1, 3, 0, 5, &e) == -1 && e.cls == ERR_DATA,
	   "images of nothing are refused");
	ok(calib_alloc_pixels(&got, SIZE_MAX / 8, 3, 99999, 99999, &e) == -1 && e.cls == ERR_DATA,
	   "and such that no memory holds");
	unlink(path);
}

int main(void)
{
	snprintf(path, sizeof(path), "/tmp/calib-test.%ld", (long)getpid());
	test_random();
	test_sequential();
	test_documents();
	test_fingerprint();
	test_disjoint();
	test_disjoint_random();
	test_record();
	test_images();
	return done();
}
