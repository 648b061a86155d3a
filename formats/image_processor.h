/* SPDX-License-Identifier: Apache-2.0 */
/*
 * image_processor.h - preprocessor_config.json: from a picture to what a model is fed with
 *
 * What transformers' processors for PIL images compute, in their order and precision: resize (8-bit
 * arithmetic, image.h), centre crop, x * rescale_factor (rounded from f64 to f32),
 * (x - image_mean) / image_std in f32, channels first.
 */
#ifndef QP_IMAGE_PROCESSOR_H
#define QP_IMAGE_PROCESSOR_H

#include <stdbool.h>
#include <stddef.h>

#include "formats/image.h"
#include "lib/base/err.h"

struct image_processor {
	bool resize, crop, rescale, normalize;
	size_t height, width;  /* resize to this; */
	size_t shortest;       /* or, not 0: the shorter side to this, the other in proportion */
	enum image_filter filter;
	size_t crop_height, crop_width;
	double factor;
	float mean[3], std[3];
};

/*
 * json[n] is a preprocessor_config.json; where names it.  The type (image_processor_type, or
 * feature_extractor_type as it was called before) is that of ViT or DeiT and says what absent keys
 * mean; none is ViT's.  size and crop_size are a number, {height, width} or {shortest_edge}.
 * ERR_DATA naming the key for another type, for a value that makes no sense, and for what is not
 * done here: a key that is not known is refused unless its value is null or false.
 */
int image_processor_parse(struct image_processor *p, const char *json, size_t n,
			  const char *where, struct err *e) MUST_USE;

/* What an image becomes; ERR_DATA if the crop does not fit, saying which sizes. */
int image_processor_size(const struct image_processor *p, const struct image *im, size_t *height,
			 size_t *width, const char *where, struct err *e) MUST_USE;

/* pixels[3, height, width] of the picture, which is resized and cropped in place.  ERR_DATA naming
 * both sizes if the result is not height x width. */
int image_processor_run(const struct image_processor *p, struct image *im, size_t height,
			size_t width, float *pixels, const char *where,
			struct err *e) MUST_USE;

#endif
