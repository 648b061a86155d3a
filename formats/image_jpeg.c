/* SPDX-License-Identifier: Apache-2.0 */
/*
 * image_jpeg.c - JPEG: the one place that knows libjpeg
 */
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>

#include <jpeglib.h>

#include <jerror.h>

#include "formats/image.h"

/* A progressive file may ask for any number of passes over the picture; an honest one has some
 * ten. */
#define MAX_SCANS 500

struct job {
	struct jpeg_decompress_struct cinfo;
	struct jpeg_error_mgr err;
	struct jpeg_progress_mgr progress;
	jmp_buf jump;
	struct image *im;
	uint8_t *row; /* [width * 4] of CMYK */
	const char *where;
	struct err *e;
};

static void on_error(j_common_ptr cinfo)
{
	struct job *j = cinfo->client_data;
	char message[JMSG_LENGTH_MAX];

	if (cinfo->err->msg_code == JERR_OUT_OF_MEMORY) {
		err_nomem(j->e, j->where, 3ull * j->cinfo.image_width * j->cinfo.image_height);
	} else {
		cinfo->err->format_message(cinfo, message);
		err_set(j->e, ERR_DATA, j->where, "damaged JPEG: %s", message);
	}
	longjmp(j->jump, 1);
}

/* Where libjpeg would warn and make up pixels, we stop.  These warnings leave the pixels alone. */
static void on_message(j_common_ptr cinfo, int level)
{
	if (level >= 0)
		return;
	switch (cinfo->err->msg_code) {
	case JWRN_EXTRANEOUS_DATA:
	case JWRN_JFIF_MAJOR:
	case JWRN_ADOBE_XFORM:
		return;
	}
	on_error(cinfo);
}

static void on_progress(j_common_ptr cinfo)
{
	const struct job *j = cinfo->client_data;

	if (j->cinfo.input_scan_number > MAX_SCANS) {
		err_set(j->e, ERR_DATA, j->where, "a JPEG of more than %d scans is not read",
			MAX_SCANS);
		longjmp(((struct job *)cinfo->client_data)->jump, 1);
	}
}

/* a * b / 255, rounded, for a and b up to 255: Pillow's MULDIV255. */
static unsigned muldiv255(unsigned a, unsigned b)
{
	const unsigned t = a * b + 128;

	return ((t >> 8) + t) >> 8;
}

/* Adobe stores CMYK inverted: 255 is no ink. */
static void put_cmyk(uint8_t *to, const uint8_t *from, size_t width)
{
	for (size_t x = 0; x < width; x++)
		for (size_t c = 0; c < 3; c++)
			to[3 * x + c] = (uint8_t)(from[4 * x + 3] -
						  muldiv255(255u - from[4 * x + c],
							    from[4 * x + 3]));
}

static int decode(struct job *j, const uint8_t *p, size_t n)
{
	struct jpeg_decompress_struct *d = &j->cinfo;
	size_t y;

	if (setjmp(j->jump))
		return -1;
	jpeg_create_decompress(d);
	d->progress = &j->progress;
	jpeg_mem_src(d, p, n);
	jpeg_read_header(d, TRUE);
	if (image_alloc(j->im, d->image_width, d->image_height, j->where, j->e))
		return -1;
	if (d->jpeg_color_space == JCS_CMYK || d->jpeg_color_space == JCS_YCCK) {
		d->out_color_space = JCS_CMYK;
		j->row = malloc(4 * j->im->width);
		if (!j->row)
			return err_nomem(j->e, j->where, 4 * j->im->width);
	} else {
		d->out_color_space = JCS_RGB; /* of grey, too */
	}
	jpeg_start_decompress(d);
	while ((y = d->output_scanline) < j->im->height) {
		uint8_t *to = j->im->px + y * j->im->width * 3;
		JSAMPROW row = j->row ? j->row : to;

		if (jpeg_read_scanlines(d, &row, 1) && j->row)
			put_cmyk(to, j->row, j->im->width);
	}
	jpeg_finish_decompress(d);
	return 0;
}

int image_jpeg(struct image *im, const uint8_t *p, size_t n, const char *where, struct err *e)
{
	struct job *j = calloc(1, sizeof(*j));
	int ret;

	if (!j)
		return err_nomem(e, where, sizeof(*j));
	j->cinfo.err = jpeg_std_error(&j->err);
	j->err.error_exit = on_error;
	j->err.emit_message = on_message;
	j->progress.progress_monitor = on_progress;
	j->cinfo.client_data = j;
	j->im = im;
	j->where = where;
	j->e = e;
	ret = decode(j, p, n);
	jpeg_destroy_decompress(&j->cinfo);
	free(j->row);
	free(j);
	if (ret)
		image_release(im);
	return ret;
}
