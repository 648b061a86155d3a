/* SPDX-License-Identifier: Apache-2.0 */
/*
 * imageset.h - images, with labels or without, as a model is fed with them
 *
 *     struct image_model m;
 *     struct imageset *s;
 *
 *     image_model_open(&m, "vit/", e);
 *     imageset_open(&s, &m, paths, npaths, true, e);
 *     pixels = malloc(batch * imageset_floats(s) * sizeof(*pixels));
 *     for (i = 0; i < imageset_count(s); i += k) {
 *             k = the smaller of batch and imageset_count(s) - i;
 *             imageset_read_many(s, i, k, pixels, e);   // [k, channels, height, width]
 *             ... imageset_label(s, i + j) is the class of image j of them ...
 *     }
 *     imageset_close(s);
 *     image_model_release(&m);
 *
 * Only names and labels are held in memory; each read opens and decodes what it is asked for.
 */
#ifndef QP_IMAGESET_H
#define QP_IMAGESET_H

#include <stdbool.h>
#include <stddef.h>

#include "formats/image_processor.h"
#include "lib/base/err.h"

struct record;
struct stream_in;

/* What of a model (its config.json and preprocessor_config.json) images have to do with. */
struct image_model {
	size_t channels, height, width; /* num_channels and image_size */
	char **classes;                 /* [nclasses] id2label; an element may be NULL */
	size_t nclasses;                /* of id2label, num_labels, or 2 */
	bool has_processor;             /* is there a preprocessor_config.json? */
	struct image_processor processor;
	char fingerprint[40];           /* "xxh128:..." of that file's bytes, or "" */
};

/* path: a model directory, or a stream with these files among its records ("-": standard
 * input).  ERR_NOINPUT if it or its config.json is not there; ERR_DATA naming file and key. */
int image_model_open(struct image_model *m, const char *path, struct err *e) MUST_USE;
void image_model_release(struct image_model *m);
/* The same of a stream at hand: zero-initialise, give it each file, or file record, (those that do
 * not matter are passed over), then see that there was a config.json. */
int image_model_file(struct image_model *m, const char *name, const char *text, size_t n,
		     struct err *e) MUST_USE;
int image_model_take(struct image_model *m, struct stream_in *in, const struct record *r,
		     struct err *e) MUST_USE;
int image_model_complete(const struct image_model *m, const char *where, struct err *e) MUST_USE;
/* The class of that name or, all digits, of that number; -1: none. */
long image_model_class(const struct image_model *m, const char *name, size_t len);

struct imageset;

/*
 * The images of all n paths, one after the other (n 0: a list from standard input).  A path is
 *   a directory      of pictures, in the order of their names, without labels; or of directories of
 *                    pictures, one for each class: the class is the one that the model calls so,
 *                    or, when the model knows none of their names, the place in their order.
 *                    Names that begin with a dot are passed over, nothing else is.
 *   a picture        PNG, JPEG, PNM, by its first bytes: no label
 *   *.safetensors    pixel_values [N, channels, height, width], F32, F16, BF16 or F64, already
 *                    preprocessed; labels [N], I64 or I32, may be there
 *   *.bin            CIFAR-10's binary version: records of a label and 3 x 32 x 32 bytes
 *   anything else    a list, as is "-" for standard input: a path a line, relative to the list's
 *                    own directory (of a pipe: the current one), and perhaps a tab and the
 *                    label: a number or a class's name
 * Pictures are decoded and preprocessed when they are read.  ERR_DATA where a model without
 * preprocessor_config.json is to be given anything but pixel_values, where a label is none of the
 * model's classes, and, with labelled, where there is none.  m must outlive the set.
 */
int imageset_open(struct imageset **s, const struct image_model *m, const char *const *paths,
		  size_t n, bool labelled, struct err *e) MUST_USE;
void imageset_close(struct imageset *s);

size_t imageset_count(const struct imageset *s);  /* at least 1 */
size_t imageset_floats(const struct imageset *s); /* channels * height * width of the model */
long imageset_label(const struct imageset *s, size_t i); /* -1: none */
/* "images/cat.png", "test.bin: image 17": valid until the next call. */
const char *imageset_name(struct imageset *s, size_t i);

/* Image i, ready for the model: pixels[channels, height, width].  ERR_DATA naming the image where
 * it is damaged, not of the model's size, or (pixel_values) not finite. */
int imageset_read(struct imageset *s, size_t i, float *pixels, struct err *e) MUST_USE;
/* count images from begin on, one behind the other. */
int imageset_read_many(struct imageset *s, size_t begin, size_t count, float *pixels,
		       struct err *e) MUST_USE;

struct calib;

enum image_sampling { IMAGES_RANDOM, IMAGES_SEQUENTIAL };

/*
 * A calibration set of nsamples images: random ones, each at most once, in the order drawn
 * (a Fisher-Yates shuffle by rng_below from rng_init(seed)), or the first ones.  ERR_DATA, saying
 * how many there are, when there are fewer.
 */
int imageset_sample(struct calib *c, struct imageset *s, size_t nsamples,
		    enum image_sampling how, uint64_t seed, struct err *e) MUST_USE;

/* ERR_DATA if an image of c is, to the last bit of its pixels, also in s: names both. */
int imageset_disjoint(const struct calib *c, struct imageset *s, struct err *e) MUST_USE;

/* Both, from paths on: the model's, the n of the set, and that of the other one, or NULL. */
int imageset_calib(struct calib *c, const char *model, const char *const *paths, size_t n,
		   size_t nsamples, enum image_sampling how, uint64_t seed, const char *other,
		   struct err *e) MUST_USE;

#endif
