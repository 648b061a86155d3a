/* SPDX-License-Identifier: Apache-2.0 */
/*
 * image.c - which format a picture has, and memory for it
 */
#include "formats/image.h"

#include <stdlib.h>
#include <string.h>

#include "formats/file.h"

void image_release(struct image *im)
{
	free(im->px);
	memset(im, 0, sizeof(*im));
}

int image_alloc(struct image *im, uint64_t width, uint64_t height, const char *where,
		struct err *e)
{
	memset(im, 0, sizeof(*im));
	if (!width || !height)
		return err_set(e, ERR_DATA, where, "a picture without pixels");
	if (width > IMAGE_MAX_PIXELS || height > IMAGE_MAX_PIXELS / width)
		return err_set(e, ERR_DATA, where, "%llu x %llu pixels are too many (at most %zu)",
			       (unsigned long long)width, (unsigned long long)height,
			       IMAGE_MAX_PIXELS);
	im->px = malloc((size_t)(width * height * 3));
	if (!im->px)
		return err_nomem(e, where, width * height * 3);
	im->width = (size_t)width;
	im->height = (size_t)height;
	return 0;
}

enum format { UNKNOWN, PNG, JPEG, PNM };

static enum format format_of(const void *head, size_t n)
{
	const uint8_t *p = head;

	if (n >= 8 && memcmp(p, "\x89PNG\r\n\x1a\n", 8) == 0)
		return PNG;
	if (n >= 3 && memcmp(p, "\xff\xd8\xff", 3) == 0)
		return JPEG;
	if (n >= 3 && p[0] == 'P' && (p[1] == '5' || p[1] == '6') &&
	    (p[2] == '#' || p[2] == ' ' || (p[2] >= '\t' && p[2] <= '\r')))
		return PNM;
	return UNKNOWN;
}

bool image_known(const void *head, size_t n)
{
	return format_of(head, n) != UNKNOWN;
}

int image_decode(struct image *im, const void *data, size_t n, const char *where, struct err *e)
{
	memset(im, 0, sizeof(*im));
	switch (format_of(data, n)) {
	case PNG:
		return image_png(im, data, n, where, e);
	case JPEG:
		return image_jpeg(im, data, n, where, e);
	case PNM:
		return image_pnm(im, data, n, where, e);
	case UNKNOWN:
		break;
	}
	return err_set(e, ERR_DATA, where, "%s", n ? "not a picture (PNG, JPEG, PPM or PGM)" :
		       "an empty file is no picture");
}

int image_read(struct image *im, const char *path, struct err *e)
{
	char *data;
	size_t n;
	int ret;

	memset(im, 0, sizeof(*im));
	if (file_read(path, path, FILE_MAX_WHOLE, &data, &n, e))
		return -1;
	ret = image_decode(im, data, n, path, e);
	free(data);
	return ret;
}
