/* SPDX-License-Identifier: Apache-2.0 */
/*
 * image.h - pictures as files hold them, as 8-bit RGB; resized and cut as Pillow does it
 *
 * PNG (libpng), JPEG (libjpeg-turbo), binary PNM (P5, P6); told apart by their first bytes.  The
 * values are those of Pillow's Image.open(path).convert("RGB"): an alpha channel and tRNS are
 * dropped, a palette is looked up, grey is spread, of 16 bits the upper eight stay (but 16-bit
 * grey is cut at 255: Pillow again), CMYK is taken as Adobe writes it, inverted.  Colour profiles,
 * gamma and EXIF (its orientation too) are not looked at.
 */
#ifndef QP_IMAGE_H
#define QP_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"

/* Larger ones are refused before memory is asked for: a quarter of a GiB in RGB, the size from
 * which Pillow, too, thinks of a decompression bomb. */
#define IMAGE_MAX_PIXELS (((size_t)1 << 28) / 3)

struct image {
	uint8_t *px;          /* [height, width, 3] */
	size_t width, height; /* at least 1 */
};

void image_release(struct image *im); /* frees and clears */

/* Is it one of the formats, by its first n bytes (8 are enough)? */
bool image_known(const void *head, size_t n);

/*
 * One picture out of n bytes.  where names it in errors.  ERR_DATA for anything unknown,
 * unsupported, damaged, cut short or larger than IMAGE_MAX_PIXELS; ERR_NOMEM.
 */
int image_decode(struct image *im, const void *data, size_t n, const char *where,
		 struct err *e) MUST_USE;
/* The same of a file, at most FILE_MAX_WHOLE large; ERR_NOINPUT if it is not there. */
int image_read(struct image *im, const char *path, struct err *e) MUST_USE;

/* Pillow's filters, by Pillow's numbers (preprocessor_config.json's "resample"). */
enum image_filter {
	FILTER_NEAREST = 0, FILTER_LANCZOS = 1, FILTER_BILINEAR = 2, FILTER_BICUBIC = 3,
	FILTER_BOX = 4, FILTER_HAMMING = 5, FILTER_COUNT
};

/*
 * *im becomes height x width (both from 1 to 16384), bit for bit as by Image.resize of Pillow 10 to
 * 12 (Resample.c; nearest: Geometry.c): when it shrinks, the filter is stretched by the scale
 * ("antialias"); rows first, then columns, with 8 bits between; weights are integers of 22 bits.
 * (Pillow 13 takes columns first where that is less work: wider, but less high.)  ERR_NOMEM, or
 * ERR_DATA if what stands between would have too many pixels.
 */
int image_resize(struct image *im, size_t height, size_t width, enum image_filter f,
		 struct err *e) MUST_USE;

/* Keep the height x width in the middle; an odd rest leaves one more below and to the right.  The
 * caller has seen that they fit. */
void image_center_crop(struct image *im, size_t height, size_t width);

/* ---- for image_*.c --------------------------------------------------------------------- */

/* ERR_DATA if width x height is nothing or too much, else memory for it. */
int image_alloc(struct image *im, uint64_t width, uint64_t height, const char *where,
		struct err *e) MUST_USE;
int image_png(struct image *im, const uint8_t *p, size_t n, const char *where,
	      struct err *e) MUST_USE;
int image_jpeg(struct image *im, const uint8_t *p, size_t n, const char *where,
	       struct err *e) MUST_USE;
int image_pnm(struct image *im, const uint8_t *p, size_t n, const char *where,
	      struct err *e) MUST_USE;

#endif
