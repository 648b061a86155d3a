/* SPDX-License-Identifier: Apache-2.0 */
/*
 * image_resize.c - Pillow's resampling (libImaging/Resample.c), and cutting the middle out
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "formats/image.h"

#define WHERE "resize"
/* Weights are integers: 8 bits for the pixel, two for sums of lobes beyond 1, the rest theirs. */
#define PRECISION (32 - 8 - 2)
#define PI 3.14159265358979323846

/* The filters, of the distance in pixels; 0 beyond their support. */
static double box(double x)
{
	return x > -0.5 && x <= 0.5;
}

static double bilinear(double x)
{
	x = fabs(x);
	return x < 1 ? 1 - x : 0;
}

static double hamming(double x)
{
	x = fabs(x);
	if (x == 0)
		return 1;
	if (x >= 1)
		return 0;
	x *= PI;
	return sin(x) / x * (0.54f + 0.46f * cos(x));
}

/* Keys, "Cubic convolution interpolation" (1981), with a = -0.5. */
static double bicubic(double x)
{
	const double a = -0.5;

	x = fabs(x);
	if (x < 1)
		return ((a + 2) * x - (a + 3)) * x * x + 1;
	return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

static double sinc(double x)
{
	x *= PI;
	return x == 0 ? 1 : sin(x) / x;
}

static double lanczos(double x)
{
	return x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0;
}

static const struct {
	double (*f)(double x);
	double support;
} filters[FILTER_COUNT] = {
	[FILTER_LANCZOS] = { lanczos, 3 }, [FILTER_BILINEAR] = { bilinear, 1 },
	[FILTER_BICUBIC] = { bicubic, 2 }, [FILTER_BOX] = { box, 0.5 },
	[FILTER_HAMMING] = { hamming, 1 },
};

/* For each pixel of one side of the result: which pixels it is made of, and their weights. */
struct weights {
	size_t size;    /* weights a pixel has room for */
	size_t *begin, *n;
	int32_t *w;     /* [to, size] */
	double *exact;  /* [size] those of one pixel */
};

static void weights_release(struct weights *k)
{
	free(k->begin);
	free(k->n);
	free(k->w);
	free(k->exact);
}

static void weights_of(struct weights *k, size_t i, size_t from, double scale,
		       enum image_filter f)
{
	const double stretch = scale < 1 ? 1 : scale, support = filters[f].support * stretch;
	const double center = ((double)i + 0.5) * scale;
	const double low = center - support + 0.5, high = center + support + 0.5;
	const size_t begin = low > 0 ? (size_t)low : 0;
	const size_t end = high < (double)from ? (size_t)high : from;
	double sum = 0;

	k->begin[i] = begin;
	k->n[i] = end - begin;
	for (size_t x = 0; x < end - begin; x++) {
		k->exact[x] = filters[f].f(((double)(x + begin) - center + 0.5) * (1 / stretch));
		sum += k->exact[x];
	}
	for (size_t x = 0; x < end - begin; x++) {
		const double v = (sum != 0 ? k->exact[x] / sum : k->exact[x]) * (1 << PRECISION);

		k->w[i * k->size + x] = (int32_t)(v < 0 ? v - 0.5 : v + 0.5);
	}
}

static int weights_init(struct weights *k, size_t from, size_t to, enum image_filter f,
			struct err *e)
{
	const double scale = (double)from / (double)to;

	memset(k, 0, sizeof(*k));
	k->size = (size_t)ceil(filters[f].support * (scale < 1 ? 1 : scale)) * 2 + 1;
	k->begin = malloc(to * sizeof(*k->begin));
	k->n = malloc(to * sizeof(*k->n));
	k->w = malloc(to * k->size * sizeof(*k->w));
	k->exact = malloc(k->size * sizeof(*k->exact));
	if (!k->begin || !k->n || !k->w || !k->exact) {
		weights_release(k);
		return err_nomem(e, WHERE, to * k->size * sizeof(*k->w));
	}
	for (size_t i = 0; i < to; i++)
		weights_of(k, i, from, scale, f);
	return 0;
}

/* The sum of n pixels, step bytes apart, by their weights; rounded and clipped. */
static uint8_t weighted(const uint8_t *px, size_t step, const int32_t *w, size_t n)
{
	int32_t sum = 1 << (PRECISION - 1);

	for (size_t i = 0; i < n; i++)
		sum += px[i * step] * w[i];
	sum >>= PRECISION;
	return sum < 0 ? 0 : sum > 255 ? 255 : (uint8_t)sum;
}

static int new_size(struct image *to, size_t height, size_t width, struct err *e)
{
	return image_alloc(to, width, height, WHERE, e);
}

static int replace(struct image *im, struct image *by)
{
	image_release(im);
	*im = *by;
	return 0;
}

static int resize_rows(struct image *im, size_t width, enum image_filter f, struct err *e)
{
	struct image to;
	struct weights k;

	if (weights_init(&k, im->width, width, f, e))
		return -1;
	if (new_size(&to, im->height, width, e)) {
		weights_release(&k);
		return -1;
	}
	for (size_t y = 0; y < im->height; y++)
		for (size_t x = 0; x < width; x++)
			for (size_t c = 0; c < 3; c++)
				to.px[(y * width + x) * 3 + c] =
					weighted(im->px + (y * im->width + k.begin[x]) * 3 + c, 3,
						 k.w + x * k.size, k.n[x]);
	weights_release(&k);
	return replace(im, &to);
}

static int resize_columns(struct image *im, size_t height, enum image_filter f, struct err *e)
{
	const size_t step = im->width * 3;
	struct image to;
	struct weights k;

	if (weights_init(&k, im->height, height, f, e))
		return -1;
	if (new_size(&to, height, im->width, e)) {
		weights_release(&k);
		return -1;
	}
	for (size_t y = 0; y < height; y++)
		for (size_t x = 0; x < step; x++)
			to.px[y * step + x] = weighted(im->px + k.begin[y] * step + x, step,
						       k.w + y * k.size, k.n[y]);
	weights_release(&k);
	return replace(im, &to);
}

/* The pixel whose place the centre of each falls on; by repeated addition, as Pillow does. */
static int nearest(struct image *im, size_t height, size_t width, struct err *e)
{
	const double dy = (double)im->height / (double)height;
	const double dx = (double)im->width / (double)width;
	struct image to;
	double fy = dy * 0.5;

	if (new_size(&to, height, width, e))
		return -1;
	for (size_t y = 0; y < height; y++, fy += dy) {
		const size_t row = (size_t)fy < im->height ? (size_t)fy : im->height - 1;
		double fx = dx * 0.5;

		for (size_t x = 0; x < width; x++, fx += dx) {
			const size_t col = (size_t)fx < im->width ? (size_t)fx : im->width - 1;

			memcpy(to.px + (y * width + x) * 3, im->px + (row * im->width + col) * 3,
			       3);
		}
	}
	return replace(im, &to);
}

int image_resize(struct image *im, size_t height, size_t width, enum image_filter f,
		 struct err *e)
{
	if (f == FILTER_NEAREST)
		return nearest(im, height, width, e);
	if (width != im->width && resize_rows(im, width, f, e))
		return -1;
	return height != im->height ? resize_columns(im, height, f, e) : 0;
}

void image_center_crop(struct image *im, size_t height, size_t width)
{
	const size_t top = (im->height - height) / 2, left = (im->width - width) / 2;

	for (size_t y = 0; y < height; y++)
		memmove(im->px + y * width * 3, im->px + ((y + top) * im->width + left) * 3,
			width * 3);
	im->height = height;
	im->width = width;
}
