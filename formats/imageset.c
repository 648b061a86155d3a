/* SPDX-License-Identifier: Apache-2.0 */
/*
 * imageset.c - images, with labels or without: opening a set, reading from it, drawing from it
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "formats/imageset_impl.h"
#include "lib/base/hash.h"
#include "lib/data/calib.h"
#include "lib/data/rng.h"

#define WHERE "images"

/* ---- opening ---------------------------------------------------------------------------- */

int imageset_add(struct imageset *s, struct image_bank *bank, char *path, size_t index, long label,
		 struct err *e)
{
	if (s->n == s->cap) {
		const size_t cap = s->cap ? 2 * s->cap : 256;
		struct image_entry *at = realloc(s->at, cap * sizeof(*at));

		if (!at) {
			free(path);
			return err_nomem(e, WHERE, cap * sizeof(*at));
		}
		s->at = at;
		s->cap = cap;
	}
	s->at[s->n++] = (struct image_entry){ .bank = bank, .path = path, .index = index,
					      .label = label };
	return 0;
}

static bool ends_in(const char *path, const char *suffix)
{
	const size_t n = strlen(path), k = strlen(suffix);

	return n >= k && strcmp(path + n - k, suffix) == 0;
}

static bool is_picture(const char *path)
{
	const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	unsigned char head[8];
	ssize_t n;

	if (fd < 0)
		return false;
	n = read(fd, head, sizeof(head));
	close(fd);
	return n > 0 && image_known(head, (size_t)n);
}

static int add_picture(struct imageset *s, const char *path, struct err *e)
{
	char *copy = strdup(path);

	return copy ? imageset_add(s, NULL, copy, 0, -1, e) :
	       err_nomem(e, path, strlen(path) + 1);
}

static int add_path(struct imageset *s, const char *path, struct err *e)
{
	struct stat st;

	if (strcmp(path, "-") == 0)
		return imageset_add_list(s, path, e);
	if (stat(path, &st))
		return err_errno(e, ERR_NOINPUT, path, "cannot open");
	if (S_ISDIR(st.st_mode))
		return imageset_add_directory(s, path, e);
	if (!S_ISREG(st.st_mode)) /* a pipe: looking at its first bytes would take them */
		return imageset_add_list(s, path, e);
	if (ends_in(path, ".safetensors"))
		return imageset_add_tensors(s, path, e);
	if (ends_in(path, ".bin"))
		return imageset_add_cifar(s, path, e);
	return is_picture(path) ? add_picture(s, path, e) : imageset_add_list(s, path, e);
}

static int check(const struct imageset *s, bool labelled, struct err *e)
{
	if (!s->n)
		return err_set(e, ERR_DATA, WHERE, "none at all");
	for (size_t i = 0; i < s->n; i++) {
		const struct image_entry *at = &s->at[i];
		const bool raw = at->bank && at->bank->pixels;
		const char *name = at->bank ? at->bank->name : at->path;

		if (!raw && !s->m->has_processor)
			return err_set(e, ERR_DATA, name, "the model has no "
				       "preprocessor_config.json to prepare images by (a file of "
				       "pixel_values needs none)");
		if (!raw && s->m->channels != 3)
			return err_set(e, ERR_DATA, name, "pictures have 3 channels; the model "
				       "takes %zu", s->m->channels);
		if (labelled && at->label < 0)
			return err_set(e, ERR_DATA, name, "has no label");
	}
	return 0;
}

int imageset_open(struct imageset **set, const struct image_model *m, const char *const *paths,
		  size_t n, bool labelled, struct err *e)
{
	struct imageset *s = calloc(1, sizeof(*s));
	int ret;

	*set = NULL;
	if (!s)
		return err_nomem(e, WHERE, sizeof(*s));
	s->m = m;
	ret = n ? 0 : add_path(s, "-", e);
	for (size_t i = 0; i < n && !ret; i++)
		ret = add_path(s, paths[i], e);
	if (ret || check(s, labelled, e)) {
		imageset_close(s);
		return -1;
	}
	*set = s;
	return 0;
}

void imageset_close(struct imageset *s)
{
	if (!s)
		return;
	for (struct image_bank *b = s->banks, *next; b; b = next) {
		next = b->next;
		imageset_close_bank(b);
	}
	for (size_t i = 0; i < s->n; i++)
		free(s->at[i].path);
	free(s->at);
	free(s);
}

/* ---- looking and reading ----------------------------------------------------------------- */

size_t imageset_count(const struct imageset *s)
{
	return s->n;
}

size_t imageset_floats(const struct imageset *s)
{
	return s->m->channels * s->m->height * s->m->width;
}

long imageset_label(const struct imageset *s, size_t i)
{
	return s->at[i].label;
}

const char *imageset_name(struct imageset *s, size_t i)
{
	const struct image_entry *at = &s->at[i];

	if (at->bank)
		snprintf(s->name, sizeof(s->name), "%.200s: image %zu", at->bank->name, at->index);
	else
		snprintf(s->name, sizeof(s->name), "%.300s", at->path);
	return s->name;
}

int imageset_read(struct imageset *s, size_t i, float *pixels, struct err *e)
{
	const struct image_entry *at = &s->at[i];
	struct image im;
	int ret;

	if (at->bank)
		return imageset_read_bank(s, i, pixels, e);
	if (image_read(&im, at->path, e))
		return -1;
	ret = image_processor_run(&s->m->processor, &im, s->m->height, s->m->width, pixels,
				  at->path, e);
	image_release(&im);
	return ret;
}

int imageset_read_many(struct imageset *s, size_t begin, size_t count, float *pixels,
		       struct err *e)
{
	for (size_t i = 0; i < count; i++)
		if (imageset_read(s, begin + i, pixels + i * imageset_floats(s), e))
			return -1;
	return 0;
}

/* ---- calibration sets -------------------------------------------------------------------- */

/* Which images, in which order. */
static size_t *draw(size_t count, enum image_sampling how, uint64_t seed, struct err *e)
{
	size_t *which = malloc(count * sizeof(*which));
	struct rng r;

	if (!which) {
		err_nomem(e, WHERE, count * sizeof(*which));
		return NULL;
	}
	for (size_t i = 0; i < count; i++)
		which[i] = i;
	rng_init(&r, seed);
	for (size_t i = 0; how == IMAGES_RANDOM && i < count; i++) {
		const size_t k = i + (size_t)rng_below(&r, count - i), other = which[k];

		which[k] = which[i];
		which[i] = other;
	}
	return which;
}

int imageset_sample(struct calib *c, struct imageset *s, size_t nsamples,
		    enum image_sampling how, uint64_t seed, struct err *e)
{
	size_t *which;
	int ret = 0;

	memset(c, 0, sizeof(*c));
	if (nsamples > s->n)
		return err_set(e, ERR_DATA, WHERE, "%zu of them, not %zu", s->n, nsamples);
	if (calib_alloc_pixels(c, nsamples, s->m->channels, s->m->height, s->m->width, e))
		return -1;
	which = draw(s->n, how, seed, e);
	for (size_t i = 0; which && i < nsamples && !ret; i++)
		ret = imageset_read(s, which[i], c->pixels + i * imageset_floats(s), e);
	if (!which || ret)
		calib_release(c);
	free(which);
	if (!c->pixels)
		return -1;
	calib_fingerprint(c);
	snprintf(c->sampling, sizeof(c->sampling), "%s",
		 how == IMAGES_RANDOM ? "random" : "sequential");
	c->seed = how == IMAGES_RANDOM ? (int64_t)seed : 0;
	c->images = (int64_t)s->n;
	snprintf(c->processor, sizeof(c->processor), "%s", s->m->fingerprint);
	return 0;
}

struct sum {
	uint64_t high, low;
};

static int compare(const struct sum *sums, const struct calib *c, struct imageset *s,
		   float *pixels, struct err *e)
{
	const size_t floats = imageset_floats(s);
	struct sum one;

	for (size_t i = 0; i < s->n; i++) {
		if (imageset_read(s, i, pixels, e))
			return -1;
		hash128(pixels, floats * sizeof(*pixels), &one.high, &one.low);
		for (size_t k = 0; k < c->nsamples; k++)
			if (sums[k].high == one.high && sums[k].low == one.low &&
			    !memcmp(c->pixels + k * floats, pixels, floats * sizeof(*pixels)))
				return err_set(e, ERR_DATA, "calib", "image %zu is also in the "
					       "other set: %s", k, imageset_name(s, i));
	}
	return 0;
}

int imageset_disjoint(const struct calib *c, struct imageset *s, struct err *e)
{
	const size_t floats = imageset_floats(s);
	struct sum *sums = malloc(c->nsamples * sizeof(*sums));
	float *pixels = malloc(floats * sizeof(*pixels));
	int ret;

	for (size_t k = 0; sums && k < c->nsamples; k++)
		hash128(c->pixels + k * floats, floats * sizeof(*pixels), &sums[k].high,
			&sums[k].low);
	ret = sums && pixels ? compare(sums, c, s, pixels, e) :
	      err_nomem(e, "calib", floats * sizeof(*pixels));
	free(sums);
	free(pixels);
	return ret;
}

int imageset_calib(struct calib *c, const char *model, const char *const *paths, size_t n,
		   size_t nsamples, enum image_sampling how, uint64_t seed, const char *other,
		   struct err *e)
{
	struct imageset *set = NULL, *not_in = NULL;
	struct image_model m;
	int ret;

	memset(c, 0, sizeof(*c));
	if (image_model_open(&m, model, e))
		return -1;
	ret = imageset_open(&set, &m, paths, n, false, e) ||
	      imageset_sample(c, set, nsamples, how, seed, e) ||
	      (other && (imageset_open(&not_in, &m, &other, 1, false, e) ||
			 imageset_disjoint(c, not_in, e))) ? -1 : 0;
	if (ret)
		calib_release(c);
	imageset_close(set);
	imageset_close(not_in);
	image_model_release(&m);
	return ret;
}
