/* SPDX-License-Identifier: Apache-2.0 */
/*
 * codes.c - a quantized weight as a stream carries it
 */
#include "lib/model/codes.h"

#include <string.h>

#include "lib/data/bits.h"
#include "lib/data/stream.h"

int codes_init(struct codes *c, const struct record *codes, struct err *e)
{
	int64_t bits, group;
	bool sym = false;

	memset(c, 0, sizeof(*c));
	if (codes->rank != 2 || codes->shape[0] < 1 || codes->shape[1] < 1)
		return err_set(e, ERR_DATA, codes->name, "codes need a shape of rows and columns");
	c->rows = (size_t)codes->shape[0];
	c->cols = (size_t)codes->shape[1];
	if (codes->dtype != DT_U8 && (codes->dtype < DT_U2 || codes->dtype > DT_U4))
		return err_set(e, ERR_DATA, codes->name, "codes are U8, U2, U3 or U4, not %s",
			       dtype_name(codes->dtype));
	if (!record_get_int(codes, "bits", &bits) || bits < 1 || bits > 8 ||
	    (codes->dtype != DT_U8 && bits != dtype_bits(codes->dtype)))
		return err_set(e, ERR_DATA, codes->name, "codes whose key bits is absent or wrong");
	if (!record_get_int(codes, "group", &group) || group < 1 ||
	    (uint64_t)group > c->cols || c->cols % (size_t)group != 0)
		return err_set(e, ERR_DATA, codes->name,
			       "codes whose key group is missing or does not divide %zu columns",
			       c->cols);
	record_get_bool(codes, "sym", &sym);
	c->bits = (int)bits;
	c->group = (size_t)group;
	c->groups = c->cols / c->group;
	c->sym = sym;
	c->codes = codes;
	return 0;
}

int codes_fit(struct codes *c, const struct record *scale, const struct record *zero,
	      struct err *e)
{
	const char *name = c->codes->name;

	if (!scale)
		return err_set(e, ERR_DATA, name, "codes without scale");
	if (!zero && !c->sym)
		return err_set(e, ERR_DATA, name, "asymmetric codes without zero");
	if (scale->dtype != DT_F16 && scale->dtype != DT_BF16 && scale->dtype != DT_F32)
		return err_set(e, ERR_DATA, name, "scale is F16, BF16 or F32, not %s",
			       dtype_name(scale->dtype));
	c->one_row = scale->rank == 2 && scale->shape[0] == 1 && c->rows > 1;
	if (scale->rank != 2 || (size_t)scale->shape[1] != c->groups ||
	    (!c->one_row && (size_t)scale->shape[0] != c->rows) || (c->one_row && c->groups > 1))
		return err_set(e, ERR_DATA, name, "scale does not fit %zu rows of %zu groups",
			       c->rows, c->groups);
	if (zero && (zero->dtype != DT_U8 || zero->rank != 2 ||
		     zero->shape[0] != scale->shape[0] || zero->shape[1] != scale->shape[1]))
		return err_set(e, ERR_DATA, name, "zero is not U8 of the shape of scale");
	c->scale = scale;
	c->zero = zero;
	return 0;
}

int codes_row(const struct codes *c, float *w, size_t n, const void *codes, const void *scale,
	      const void *zero, uint8_t *buf, struct err *e)
{
	size_t at = c->one_row ? 0 : n * c->groups, row = bits_row_bytes(c->cols, c->bits);
	size_t width = (size_t)dtype_bits(c->scale->dtype) / 8;
	const uint8_t *q = (const uint8_t *)codes + n * c->cols;
	int z = 1 << (c->bits - 1);
	enum dtype t = c->scale->dtype;
	float s;

	if (c->codes->dtype != DT_U8) {
		bits_unpack_row(buf, (const uint8_t *)codes + n * row, c->cols, c->bits);
		q = buf;
	}
	for (size_t g = 0, k = 0; g < c->groups; g++) {
		if (dtype_to_f32(&s, (const char *)scale + (at + g) * width, t, 1) < 0)
			return err_set(e, ERR_BUG, c->codes->name, "scale cannot be converted");
		if (c->zero)
			z = ((const uint8_t *)zero)[at + g];
		for (; k < (g + 1) * c->group; k++) {
			if (q[k] >> c->bits)
				return err_set(e, ERR_DATA, c->codes->name,
					       "code %d at row %zu column %zu does not fit %d bits",
					       q[k], n, k, c->bits);
			w[k] = s * (float)(q[k] - z);
		}
	}
	return 0;
}

double codes_bits(const struct codes *c)
{
	double params = (double)(c->one_row ? 1 : c->rows) * (double)c->groups;

	return (double)c->rows * (double)c->cols * c->bits +
	       params * (dtype_bits(c->scale->dtype) + (c->zero ? 8 : 0));
}
