/* SPDX-License-Identifier: Apache-2.0 */
/*
 * image_pnm.c - binary PPM (P6) and PGM (P5), as netpbm's ppm(5) and pgm(5) describe them
 */
#include <math.h>

#include "formats/image.h"

struct cursor {
	const uint8_t *p, *end;
};

static bool is_blank(uint8_t c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

/* A number of the header, after blanks and comments; at most a million.  0: there is none. */
static uint64_t number(struct cursor *c)
{
	uint64_t v = 0;

	while (c->p < c->end && (is_blank(*c->p) || *c->p == '#'))
		if (*c->p++ == '#')
			while (c->p < c->end && *c->p != '\n' && *c->p != '\r')
				c->p++;
	while (c->p < c->end && *c->p >= '0' && *c->p <= '9' && v < 1000000)
		v = 10 * v + (uint64_t)(*c->p++ - '0');
	return v;
}

/* As Pillow: to 0..255 by a quotient, rounded half to even. */
static uint8_t scaled(unsigned v, unsigned max)
{
	const double x = nearbyint((double)v / max * 255);

	return x < 255 ? (uint8_t)x : 255;
}

static void fill(struct image *im, const uint8_t *p, size_t channels, unsigned max)
{
	const size_t wide = max > 255 ? 2 : 1;

	for (size_t i = 0; i < im->width * im->height; i++)
		for (size_t c = 0; c < 3; c++) {
			const uint8_t *v = p + (i * channels + c % channels) * wide;

			im->px[3 * i + c] = scaled(wide == 2 ? v[0] * 256u + v[1] : v[0], max);
		}
}

int image_pnm(struct image *im, const uint8_t *p, size_t n, const char *where, struct err *e)
{
	struct cursor c = { .p = p + 2, .end = p + n };
	const size_t channels = p[1] == '6' ? 3 : 1;
	const uint64_t width = number(&c), height = number(&c), max = number(&c);
	uint64_t need;

	if (c.p >= c.end || !is_blank(*c.p) || max < 1 || max > 65535)
		return err_set(e, ERR_DATA, where, "its header is not that of a P%c file", p[1]);
	if (channels == 1 && max > 255)
		return err_set(e, ERR_DATA, where, "a PGM of %llu levels, more than 256",
			       (unsigned long long)max + 1);
	c.p++;
	if (image_alloc(im, width, height, where, e))
		return -1;
	need = width * height * channels * (max > 255 ? 2 : 1);
	if ((uint64_t)(c.end - c.p) == need) {
		fill(im, c.p, channels, (unsigned)max);
		return 0;
	}
	image_release(im);
	return err_set(e, ERR_DATA, where, "%zu bytes of pixels; %llu x %llu pixels have %llu",
		       (size_t)(c.end - c.p), (unsigned long long)width,
		       (unsigned long long)height, (unsigned long long)need);
}
