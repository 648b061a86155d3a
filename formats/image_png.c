/* SPDX-License-Identifier: Apache-2.0 */
/*
 * image_png.c - PNG: the one place that knows libpng
 */
#include <png.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include "formats/image.h"

struct job {
	png_structp png;
	png_infop info;
	struct image *im;
	const uint8_t *p; /* what is left of the file */
	size_t n;
	uint8_t *row;     /* [width * 4 * 2] as libpng gives it, the whole picture if interlaced */
	size_t row_bytes;
	int type, depth;  /* of the file */
	const char *where;
	struct err *e;
};

static void on_error(png_structp png, png_const_charp message)
{
	struct job *j = png_get_error_ptr(png);

	if (strcmp(message, "Out of memory") == 0)
		err_nomem(j->e, j->where, j->row_bytes);
	else
		err_set(j->e, ERR_DATA, j->where, "damaged PNG: %s", message);
	png_longjmp(png, 1);
}

static void on_warning(png_structp png, png_const_charp message)
{
	(void)png;
	(void)message;
}

static void on_read(png_structp png, png_bytep dst, size_t n)
{
	struct job *j = png_get_io_ptr(png);

	if (n > j->n)
		png_error(png, "it ends too early");
	memcpy(dst, j->p, n);
	j->p += n;
	j->n -= n;
}

static bool grey(const struct job *j)
{
	return !(j->type & PNG_COLOR_MASK_COLOR);
}

/* Ask for 8-bit samples of the file's own kind, without alpha; but 16-bit grey as it is. */
static void transforms(struct job *j)
{
	if (j->depth == 16 && j->type != PNG_COLOR_TYPE_GRAY)
		png_set_strip_16(j->png);
	if (j->depth < 8 && j->type == PNG_COLOR_TYPE_PALETTE)
		png_set_packing(j->png);
	else if (j->depth < 8)
		png_set_expand_gray_1_2_4_to_8(j->png);
	if (j->type & PNG_COLOR_MASK_ALPHA)
		png_set_strip_alpha(j->png);
	png_set_interlace_handling(j->png);
	png_read_update_info(j->png, j->info);
}

static void put_palette(struct job *j, uint8_t *to, const uint8_t *from)
{
	png_colorp palette = NULL;
	int n = 0;

	png_get_PLTE(j->png, j->info, &palette, &n);
	for (size_t x = 0; x < j->im->width; x++) {
		if (from[x] >= n)
			png_error(j->png, "a pixel has a colour that is not in its palette");
		to[3 * x] = palette[from[x]].red;
		to[3 * x + 1] = palette[from[x]].green;
		to[3 * x + 2] = palette[from[x]].blue;
	}
}

static void put_row(struct job *j, size_t y, const uint8_t *from)
{
	const size_t width = j->im->width;
	uint8_t *to = j->im->px + y * width * 3;

	if (j->type == PNG_COLOR_TYPE_PALETTE)
		put_palette(j, to, from);
	else if (!grey(j))
		memcpy(to, from, 3 * width);
	else if (j->depth == 16 && j->type == PNG_COLOR_TYPE_GRAY)
		for (size_t x = 0; x < width; x++) /* what does not fit is white, in Pillow */
			memset(to + 3 * x, from[2 * x] ? 255 : from[2 * x + 1], 3);
	else
		for (size_t x = 0; x < width; x++)
			memset(to + 3 * x, from[x], 3);
}

static int head(struct job *j)
{
	if (setjmp(png_jmpbuf(j->png)))
		return -1;
	png_set_read_fn(j->png, j, on_read);
	png_set_user_limits(j->png, IMAGE_MAX_PIXELS, IMAGE_MAX_PIXELS);
	png_read_info(j->png, j->info);
	j->type = png_get_color_type(j->png, j->info);
	j->depth = png_get_bit_depth(j->png, j->info);
	transforms(j);
	j->row_bytes = png_get_rowbytes(j->png, j->info);
	return image_alloc(j->im, png_get_image_width(j->png, j->info),
			   png_get_image_height(j->png, j->info), j->where, j->e);
}

/* An interlaced picture comes in seven passes over all of its rows. */
static int body(struct job *j)
{
	const bool whole = png_get_interlace_type(j->png, j->info) != PNG_INTERLACE_NONE;
	const size_t rows = whole ? j->im->height : 1;

	j->row = calloc(rows, j->row_bytes);
	if (!j->row)
		return err_nomem(j->e, j->where, rows * j->row_bytes);
	if (setjmp(png_jmpbuf(j->png)))
		return -1;
	for (int pass = 0; whole && pass < PNG_INTERLACE_ADAM7_PASSES; pass++)
		for (size_t y = 0; y < j->im->height; y++)
			png_read_row(j->png, j->row + y * j->row_bytes, NULL);
	for (size_t y = 0; y < j->im->height; y++) {
		if (!whole)
			png_read_row(j->png, j->row, NULL);
		put_row(j, y, whole ? j->row + y * j->row_bytes : j->row);
	}
	png_read_end(j->png, NULL);
	return 0;
}

static bool four_zeros(const uint8_t *p)
{
	return !p[0] && !p[1] && !p[2] && !p[3];
}

int image_png(struct image *im, const uint8_t *p, size_t n, const char *where, struct err *e)
{
	struct job j = { .im = im, .p = p, .n = n, .where = where, .e = e };
	int ret = -1;

	/* libpng says of this only that the header is not valid */
	if (n >= 24 && (four_zeros(p + 16) || four_zeros(p + 20)))
		return err_set(e, ERR_DATA, where, "a picture without pixels");
	j.png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &j, on_error, on_warning);
	j.info = j.png ? png_create_info_struct(j.png) : NULL;
	if (!j.info)
		err_nomem(e, where, n);
	else
		ret = head(&j) || body(&j) ? -1 : 0;
	png_destroy_read_struct(&j.png, &j.info, NULL);
	free(j.row);
	if (ret)
		image_release(im);
	return ret;
}
