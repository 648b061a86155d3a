/* SPDX-License-Identifier: Apache-2.0 */
/*
 * codes.c - a quantized weight as a stream carries it
 */
#include "lib/model/codes.h"

#include <string.h>

#include "lib/base/clones.h"
#include "lib/data/bits.h"
#include "lib/data/f8.h"
#include "lib/data/stream.h"

#define F8_SIDE ((int64_t)1 << 24) /* of a block, at most */

/* Columns and rows that share a scale: any numbers, where codes are floats; a block of 128 x 128
 * that a smaller weight does not fill is one of 128 x 128 still. */
static int f8_init(struct codes *c, const struct record *codes, struct err *e)
{
	int64_t bits, group, tall = 1;

	if (!record_get_int(codes, "bits", &bits) || bits != 8)
		return err_set(e, ERR_DATA, codes->name, "codes whose key bits is absent or wrong");
	if (!record_get_int(codes, "group", &group) || group < 1 || group > F8_SIDE)
		return err_set(e, ERR_DATA, codes->name,
			       "codes whose key group is missing or not from 1 to %lld",
			       (long long)F8_SIDE);
	record_get_int(codes, "tall", &tall);
	if (tall < 1 || tall > F8_SIDE)
		return err_set(e, ERR_DATA, codes->name, "codes whose key tall is not from 1 to "
			       "%lld", (long long)F8_SIDE);
	c->bits = 8;
	c->group = (size_t)group;
	c->groups = (c->cols + c->group - 1) / c->group;
	c->tall = (size_t)tall;
	c->sym = c->f8 = true;
	return 0;
}

/* Key grid, if it is there: then the rest is known. */
static int grid_init(struct codes *c, const struct record *codes, struct err *e)
{
	const struct kgrid *k;
	char name[32];

	if (!record_get_str(codes, "grid", name, sizeof(name)))
		return 0;
	c->grid = kgrid_from_name(name);
	k = kgrid(c->grid);
	if (!k)
		return err_set(e, ERR_VERSION, codes->name, "codes on a grid '%s', which this "
			       "version does not know", name);
	if (c->bits != k->bits || c->group != k->group || c->sym != k->sym ||
	    c->cols % KGRID_BLOCK)
		return err_set(e, ERR_DATA, codes->name, "codes on the grid %s whose bits, group, "
			       "sym or columns are not those of it", name);
	return 0;
}

int codes_init(struct codes *c, const struct record *codes, struct err *e)
{
	int64_t bits, group;
	bool sym = false;

	memset(c, 0, sizeof(*c));
	if (codes->rank != 2 || codes->shape[0] < 1 || codes->shape[1] < 1)
		return err_set(e, ERR_DATA, codes->name, "codes need a shape of rows and columns");
	c->rows = (size_t)codes->shape[0];
	c->cols = (size_t)codes->shape[1];
	c->tall = 1;
	c->codes = codes;
	if (codes->dtype == DT_F8_E4M3)
		return f8_init(c, codes, e);
	if (codes->dtype != DT_U8 && (codes->dtype < DT_U2 || codes->dtype > DT_U4))
		return err_set(e, ERR_DATA, codes->name,
			       "codes are U8, U2, U3, U4 or F8_E4M3, not %s",
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
	return grid_init(c, codes, e);
}

static int grid_fit(struct codes *c, const struct record *scale, const struct record *zero,
		    struct err *e)
{
	const struct kgrid *k = kgrid(c->grid);

	if (zero)
		return err_set(e, ERR_DATA, c->codes->name, "codes on the grid %s with a zero",
			       k->name);
	if (scale->dtype != DT_U8 || scale->rank != 3 || (size_t)scale->shape[0] != c->rows ||
	    (size_t)scale->shape[1] != c->cols / KGRID_BLOCK ||
	    (size_t)scale->shape[2] != k->head)
		return err_set(e, ERR_DATA, c->codes->name, "scale is not U8 [%zu, %zu, %zu], the "
			       "heads of %s", c->rows, c->cols / KGRID_BLOCK, k->head, k->name);
	c->scale = scale;
	c->zero = NULL;
	return 0;
}

int codes_fit(struct codes *c, const struct record *scale, const struct record *zero,
	      struct err *e)
{
	const char *name = c->codes->name;
	const size_t rows = (c->rows + c->tall - 1) / c->tall;

	if (!scale)
		return err_set(e, ERR_DATA, name, "codes without scale");
	if (c->grid)
		return grid_fit(c, scale, zero, e);
	if (!zero && !c->sym)
		return err_set(e, ERR_DATA, name, "asymmetric codes without zero");
	if (scale->dtype != DT_F16 && scale->dtype != DT_BF16 && scale->dtype != DT_F32)
		return err_set(e, ERR_DATA, name, "scale is F16, BF16 or F32, not %s",
			       dtype_name(scale->dtype));
	c->one_row = scale->rank == 2 && scale->shape[0] == 1 && rows > 1;
	if (scale->rank != 2 || (size_t)scale->shape[1] != c->groups ||
	    (!c->one_row && (size_t)scale->shape[0] != rows) || (c->one_row && c->groups > 1))
		return err_set(e, ERR_DATA, name, "scale does not fit %zu rows of %zu groups",
			       rows, c->groups);
	if (zero && c->f8)
		return err_set(e, ERR_DATA, name, "codes that are floats with a zero");
	if (zero && (zero->dtype != DT_U8 || zero->rank != 2 ||
		     zero->shape[0] != scale->shape[0] || zero->shape[1] != scale->shape[1]))
		return err_set(e, ERR_DATA, name, "zero is not U8 of the shape of scale");
	c->scale = scale;
	c->zero = zero;
	return 0;
}

/* Row n; scale is that of its first group. */
static int f8_row(const struct codes *c, float *w, size_t n, const uint8_t *codes,
		  const char *scale, struct err *e)
{
	const enum dtype t = c->scale->dtype;
	const uint8_t *q = codes + n * c->cols;
	float s = 0;

	for (size_t k = 0; k < c->cols; k++) {
		if (k % c->group == 0 &&
		    dtype_to_f32(&s, scale + k / c->group * ((size_t)dtype_bits(t) / 8), t, 1) < 0)
			return err_set(e, ERR_BUG, c->codes->name, "scale cannot be converted");
		if (f8_is_nan(q[k]))
			return err_set(e, ERR_DATA, c->codes->name,
				       "code at row %zu column %zu is a NaN", n, k);
		w[k] = s * f8_to_f32(q[k]);
	}
	return 0;
}

/* Are there codes beyond `bits` bits?  No branch inside, so that vectors can be used. */
static bool beyond(const uint8_t *q, size_t n, int bits)
{
	const uint64_t low = UINT64_C(0x0101010101010101) * ((1u << bits) - 1);
	uint64_t all = 0, v;
	size_t k = 0;

	for (; k + 8 <= n; k += 8) {
		memcpy(&v, q + k, sizeof(v));
		all |= v;
	}
	for (; k < n; k++)
		all |= q[k];
	return (all & ~low) != 0;
}

static int beyond_error(const struct codes *c, const uint8_t *q, size_t n, struct err *e)
{
	size_t k = 0;

	while (q[k] >> c->bits == 0)
		k++;
	return err_set(e, ERR_DATA, c->codes->name, "code %d at row %zu column %zu does not fit "
		       "%d bits", q[k], n, k, c->bits);
}

CLONES static void scaled(float *restrict w, const uint8_t *restrict q, size_t n, float s, int z)
{
	enum { STEP = 16 };
	size_t k = 0;

	for (; k + STEP <= n; k += STEP)
		for (size_t j = 0; j < STEP; j++)
			w[k + j] = s * (float)(q[k + j] - z);
	for (; k < n; k++)
		w[k] = s * (float)(q[k] - z);
}

/* bits_unpack_row, but of 4 bits faster. */
CLONES static void unpack(uint8_t *restrict dst, const uint8_t *restrict src, size_t n, int bits)
{
	enum { STEP = 32 };
	size_t k = 0;

	for (; bits == 4 && k + 2 * STEP <= n; k += 2 * STEP)
		for (size_t j = 0; j < STEP; j++) {
			dst[k + 2 * j] = src[k / 2 + j] & 15;
			dst[k + 2 * j + 1] = src[k / 2 + j] >> 4;
		}
	bits_unpack_row(dst + k, src + k / 2, n - k, bits);
}

int codes_row(const struct codes *c, float *w, size_t n, const void *codes, const void *scale,
	      const void *zero, uint8_t *buf, struct err *e)
{
	const size_t at = c->one_row ? 0 : n / c->tall * c->groups;
	const size_t row = bits_row_bytes(c->cols, c->bits);
	size_t width = (size_t)dtype_bits(c->scale->dtype) / 8;
	const uint8_t *q = (const uint8_t *)codes + n * c->cols;
	int z = 1 << (c->bits - 1);
	enum dtype t = c->scale->dtype;
	float s;

	if (c->codes->dtype != DT_U8) {
		unpack(buf, (const uint8_t *)codes + n * row, c->cols, c->bits);
		q = buf;
	}
	if (c->f8)
		return f8_row(c, w, n, codes, (const char *)scale + at * width, e);
	if (q != buf && beyond(q, c->cols, c->bits))
		return beyond_error(c, q, n, e);
	for (size_t i = 0; c->grid && i < c->cols / KGRID_BLOCK; i++) {
		const size_t head = kgrid(c->grid)->head, b = n * (c->cols / KGRID_BLOCK) + i;

		kgrid_row(c->grid, w + i * KGRID_BLOCK, q + i * KGRID_BLOCK,
			  (const uint8_t *)scale + b * head);
	}
	for (size_t g = 0; !c->grid && g < c->groups; g++) {
		if (dtype_to_f32(&s, (const char *)scale + (at + g) * width, t, 1) < 0)
			return err_set(e, ERR_BUG, c->codes->name, "scale cannot be converted");
		if (c->zero)
			z = ((const uint8_t *)zero)[at + g];
		scaled(w + g * c->group, q + g * c->group, c->group, s, z);
	}
	return 0;
}

double codes_bits(const struct codes *c)
{
	const size_t rows = c->one_row ? 1 : (c->rows + c->tall - 1) / c->tall;
	double params = (double)rows * (double)c->groups;

	if (c->grid)
		return (double)c->rows * (double)c->cols *
		       (c->bits + 8 * (double)kgrid(c->grid)->head / KGRID_BLOCK);
	return (double)c->rows * (double)c->cols * c->bits +
	       params * (dtype_bits(c->scale->dtype) + (c->zero ? 8 : 0));
}

int codes_row_int(const struct codes *c, int8_t *q, float *scale, int32_t *zero, size_t n,
		  const void *codes, const void *scales, const void *zeros, struct err *e)
{
	const size_t at = c->one_row ? 0 : n * c->groups;
	const size_t width = (size_t)dtype_bits(c->scale->dtype) / 8;
	const int less = c->bits == 8 ? 128 : 0;
	const uint8_t *u = (const uint8_t *)codes + n * c->cols;

	if (c->codes->dtype != DT_U8) {
		bits_unpack_row((uint8_t *)q, (const uint8_t *)codes +
				n * bits_row_bytes(c->cols, c->bits), c->cols, c->bits);
		u = (const uint8_t *)q;
	}
	if (dtype_to_f32(scale, (const char *)scales + at * width, c->scale->dtype,
			 c->groups) < 0)
		return err_set(e, ERR_BUG, c->codes->name, "scale cannot be converted");
	for (size_t g = 0; g < c->groups; g++)
		zero[g] = (c->zero ? ((const uint8_t *)zeros)[at + g] : 1 << (c->bits - 1)) - less;
	if (beyond(u, c->cols, c->bits))
		return beyond_error(c, u, n, e);
	for (size_t k = 0; k < c->cols; k++)
		q[k] = (int8_t)(u[k] - less);
	return 0;
}
