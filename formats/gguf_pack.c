/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gguf_pack.c - codes of a quantized linear in ggml's blocks of 32
 */
#include "formats/gguf_pack.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/ggml.h"
#include "lib/base/clones.h"
#include "lib/data/bits.h"
#include "lib/data/stream.h"
#include "lib/model/kgrid_fit.h"

/* What a type can say: c - z within lo .. hi, or (min) codes of so many bits with a minimum. */
static const struct form {
	uint32_t type;
	int lo, hi, bits;
	bool min;
} forms[] = {
	/* From the smallest. */
	{ GGML_Q4_0, -8, 7, 4, false },
	{ GGML_Q4_1, 0, 0, 4, true },
	{ GGML_Q5_0, -16, 15, 5, false },
	{ GGML_Q5_1, 0, 0, 5, true },
	{ GGML_Q8_0, -128, 127, 8, false },
};
enum { N_FORMS = sizeof(forms) / sizeof(forms[0]) };

static const struct form *form_of(uint32_t type)
{
	for (int i = 0; i < N_FORMS; i++)
		if (forms[i].type == type)
			return &forms[i];
	return NULL;
}

/* The type of a grid of super-blocks. */
static uint32_t grid_type(enum codes_grid grid)
{
	return grid == GRID_Q4_K ? GGML_Q4_K : GGML_Q6_K;
}

static enum codes_grid grid_of(uint32_t type)
{
	return type == GGML_Q4_K ? GRID_Q4_K : type == GGML_Q6_K ? GRID_Q6_K : GRID_UNIFORM;
}

static float scale_at(const struct gguf_codes *g, size_t i)
{
	const size_t width = (size_t)dtype_bits(g->c.scale->dtype) / 8;
	float s = 0;

	(void)dtype_to_f32(&s, (const char *)g->scale + i * width, g->c.scale->dtype, 1);
	return s;
}

static int zero_at(const struct gguf_codes *g, size_t i)
{
	return g->zero ? ((const uint8_t *)g->zero)[i] : 1 << (g->c.bits - 1);
}

static size_t parameters(const struct gguf_codes *g)
{
	return (g->c.one_row ? 1 : g->c.rows) * g->c.groups;
}

static bool is_half(float x)
{
	return f16_to_f32(f32_to_f16(x)) == x;
}

/* ---- which type ------------------------------------------------------------------------- */

/* What stands in the way: the groups, or the first scale that is no F16. */
struct facts {
	bool blocks;         /* rows are whole blocks */
	bool groups;         /* and so are groups */
	size_t bad_scale;    /* parameters(g): all are fine */
	int lo, hi;          /* of c - z, whatever the codes are */
};

static struct facts look(const struct gguf_codes *g)
{
	const size_t n = parameters(g);
	const int top = (1 << g->c.bits) - 1;
	struct facts f = { .bad_scale = n, .lo = 0, .hi = 0 };

	f.blocks = g->c.cols % GGUF_BLOCK == 0;
	f.groups = f.blocks && g->c.group % GGUF_BLOCK == 0;
	for (size_t i = n; g->c.scale->dtype != DT_F16 && i-- > 0;)
		if (!is_half(scale_at(g, i)))
			f.bad_scale = i;
	for (size_t i = g->zero ? n : 1; i-- > 0;) {
		const int z = zero_at(g, i);

		f.lo = -z < f.lo ? -z : f.lo;
		f.hi = top - z > f.hi ? top - z : f.hi;
	}
	return f;
}

/* The first minimum that is no number of F16; parameters(g): all are. */
static size_t bad_min(const struct gguf_codes *g)
{
	const size_t n = parameters(g);
	size_t i = 0;

	while (i < n && is_half(scale_at(g, i) * (float)zero_at(g, i)))
		i++;
	return i;
}

static bool holds(const struct form *f, const struct gguf_codes *g, const struct facts *is)
{
	if (!is->groups || is->bad_scale < parameters(g))
		return false;
	return f->min ? g->c.bits <= f->bits && bad_min(g) == parameters(g) :
	       is->lo >= f->lo && is->hi <= f->hi;
}

/* The codes can stay, if scale and minimum are rounded. */
static bool nearly(const struct form *f, const struct gguf_codes *g, const struct facts *is)
{
	return is->groups && (f->min ? g->c.bits <= f->bits : is->lo >= f->lo && is->hi <= f->hi);
}

static int refuse(const struct gguf_codes *g, const struct facts *is, const struct form *want,
		  struct err *e)
{
	const char *name = g->c.codes->name;
	const char *kind = g->c.sym ? "symmetric" : "asymmetric", *type;
	const size_t n = parameters(g);

	type = want ? ggml_type(want->type)->name : "a type of GGUF";
	if (!is->blocks)
		return err_set(e, ERR_DATA, name, "rows of %zu columns are no whole blocks of 32: "
			       "rtn or gptq --skip it, or --requantize", g->c.cols);
	if (!is->groups)
		return err_set(e, ERR_DATA, name, "%s codes of group %zu need %s groups of 32: "
			       "gptq -g 32 (or a multiple), or --requantize", kind, g->c.group,
			       want ? type : g->c.sym ? "Q4_0 or Q8_0" : "Q4_1");
	if (is->bad_scale < n)
		return err_set(e, ERR_DATA, name, "scale %g (row %zu group %zu) is no number of "
			       "F16, as GGUF's are: gptq --scale-dtype=f16, or --requantize",
			       (double)scale_at(g, is->bad_scale), is->bad_scale / g->c.groups,
			       is->bad_scale % g->c.groups);
	if (want && want->min && g->c.bits <= want->bits) {
		const size_t i = bad_min(g);

		return err_set(e, ERR_DATA, name, "asymmetric codes: the minimum %g (row %zu "
			       "group %zu) is no number of F16, as %s has it: another --type, or "
			       "--requantize",
			       -(double)(scale_at(g, i) * (float)zero_at(g, i)),
			       i / g->c.groups, i % g->c.groups, type);
	}
	return err_set(e, ERR_DATA, name, "%s codes of %d bits reach from %d to %d around their "
		       "zero, beyond %s: %s, or --requantize", kind, g->c.bits, is->lo, is->hi,
		       want ? type : "Q8_0", want ? "another --type" : "gptq --sym");
}

/* Codes on a grid of super-blocks, or a type that is one: 1: that is settled. */
static int choose_grid(struct gguf_packing *p, const struct gguf_codes *g, uint32_t want,
		       bool requantize, struct err *e)
{
	const char *name = g->c.codes->name;
	const enum codes_grid grid = grid_of(want);

	p->how = GGUF_PACK_EXACT;
	if (g->c.grid && (want == GGUF_PACK_AUTO || grid == g->c.grid)) {
		p->type = grid_type(g->c.grid);
		return 1;
	}
	if (grid && !requantize)
		return err_set(e, ERR_DATA, name, "its codes are not on the grid of %s: gptq "
			       "--grid=%s solves for it; or --requantize, or another --type",
			       ggml_type(want)->name, kgrid(grid)->name);
	if (g->c.grid && !requantize)
		return err_set(e, ERR_DATA, name, "codes on the grid %s fit no %s: --type=auto, or "
			       "--requantize", kgrid(g->c.grid)->name, ggml_type(want)->name);
	p->how = GGUF_PACK_ANEW;
	p->type = want;
	return g->c.grid || grid ? 1 : 0;
}

/* The type asked for, but of rows that are no whole super-blocks the one that llama.cpp takes
 * instead, the next larger of 32. */
static uint32_t possible(uint32_t want, const struct gguf_codes *g, bool requantize)
{
	if (!requantize || !grid_of(want) || g->c.cols % KGRID_BLOCK == 0)
		return want;
	return want == GGML_Q4_K ? GGML_Q5_0 : GGML_Q8_0;
}

/* Codes that are no integers: 1: that is settled. */
static int choose_floats(struct gguf_packing *p, const struct gguf_codes *g, uint32_t want,
			 bool requantize, struct err *e)
{
	const enum dtype t = g->c.codes->dtype;

	if (t != DT_F8_E4M3)
		return 0;
	if (!requantize)
		return err_set(e, ERR_DATA, g->c.codes->name, "codes of type %s, which GGUF has "
			       "not: to-ct, or --requantize", dtype_name(t));
	p->how = GGUF_PACK_ANEW;
	p->type = g->c.cols % GGUF_BLOCK ? GGML_F16 : want == GGUF_PACK_AUTO ? GGML_Q8_0 : want;
	return 1;
}

int gguf_pack_choose(struct gguf_packing *p, const struct gguf_codes *g, uint32_t want,
		     bool requantize, struct err *e)
{
	const uint32_t type = possible(want, g, requantize);
	const struct form *asked = type == GGUF_PACK_AUTO ? NULL : form_of(type);
	int settled = choose_floats(p, g, type, requantize, e);
	struct facts is;

	if (!settled)
		settled = choose_grid(p, g, type, requantize, e);
	if (settled)
		return settled < 0 ? -1 : 0;
	is = look(g);
	p->how = GGUF_PACK_EXACT;
	for (int i = 0; i < N_FORMS; i++)
		if ((!asked || asked == &forms[i]) && holds(&forms[i], g, &is)) {
			p->type = forms[i].type;
			return 0;
		}
	if (!requantize)
		return refuse(g, &is, asked, e);
	p->how = GGUF_PACK_ROUNDED;
	for (int i = 0; i < N_FORMS; i++)
		if ((!asked || asked == &forms[i]) && nearly(&forms[i], g, &is)) {
			p->type = forms[i].type;
			return 0;
		}
	p->how = GGUF_PACK_ANEW;
	p->type = asked ? asked->type : g->c.bits > 5 ? GGML_Q8_0 :
		  g->c.bits > 4 ? (g->c.sym ? GGML_Q5_0 : GGML_Q5_1) :
		  g->c.sym ? GGML_Q4_0 : GGML_Q4_1;
	if (!is.blocks)
		p->type = GGML_F16;
	return 0;
}

/* ---- rows ------------------------------------------------------------------------------- */

int gguf_pack_scratch_new(struct gguf_pack_scratch *s, size_t cols, struct err *e)
{
	s->w = malloc(cols * sizeof(*s->w));
	s->code = malloc(cols + 1);
	if (s->w && s->code)
		return 0;
	gguf_pack_scratch_free(s);
	return err_nomem(e, "row", cols * 5);
}

void gguf_pack_scratch_free(struct gguf_pack_scratch *s)
{
	free(s->w);
	free(s->code);
	memset(s, 0, sizeof(*s));
}

static void put_half(unsigned char *p, float x)
{
	const uint16_t h = f32_to_f16(x);

	p[0] = (unsigned char)(h & 0xff);
	p[1] = (unsigned char)(h >> 8);
}

/* 32 values that fit 5 bits: low nibbles of j and j + 16 in byte j, fifth bits in a word. */
static inline void put_nibbles(unsigned char *restrict low, unsigned char *high,
			const uint8_t *restrict v)
{
	uint32_t fifth = 0;

	for (int j = 0; j < 16; j++)
		low[j] = (unsigned char)((v[j] & 15) | (v[j + 16] & 15) << 4);
	if (!high)
		return;
	for (int j = 0; j < 32; j++)
		fifth |= (uint32_t)(v[j] >> 4 & 1) << j;
	for (int j = 0; j < 4; j++)
		high[j] = (unsigned char)(fifth >> 8 * j & 0xff);
}

/* A block of v[32], as they are stored; d and m as put_half has put them. */
static inline void put_block(unsigned char *dst, uint32_t type, const unsigned char d[2],
		      const unsigned char m[2], const uint8_t *v)
{
	memcpy(dst, d, 2);
	switch (type) {
	case GGML_Q4_0:
		put_nibbles(dst + 2, NULL, v);
		break;
	case GGML_Q4_1:
		memcpy(dst + 2, m, 2);
		put_nibbles(dst + 4, NULL, v);
		break;
	case GGML_Q5_0:
		put_nibbles(dst + 6, dst + 2, v);
		break;
	case GGML_Q5_1:
		memcpy(dst + 2, m, 2);
		put_nibbles(dst + 8, dst + 4, v);
		break;
	default: /* Q8_0 */
		memcpy(dst + 2, v, 32);
	}
}

/* Nibbles of 64 weights in 32 bytes, the first 32 low. */
static void put_q4_k(unsigned char *restrict dst, const uint8_t *restrict head,
		     const uint8_t *restrict v)
{
	memcpy(dst, head, 16);
	dst += 16;
	for (int k = 0; k < KGRID_BLOCK; k += 64, v += 64, dst += 32)
		for (int j = 0; j < 32; j++)
			dst[j] = (unsigned char)(v[j] | v[j + 32] << 4);
}

/* Low nibbles of 128 weights in 64 bytes, the first 64 low; then the two bits above, of four
 * quarters of 128 in a byte each; the head. */
static void put_q6_k(unsigned char *restrict dst, const uint8_t *restrict head,
		     const uint8_t *restrict v)
{
	unsigned char *restrict high = dst + 128;

	memcpy(dst + 192, head, 18);
	for (int k = 0; k < KGRID_BLOCK; k += 128, v += 128, dst += 64, high += 32) {
		for (int j = 0; j < 64; j++)
			dst[j] = (unsigned char)((v[j] & 15) | (v[j + 64] & 15) << 4);
		for (int j = 0; j < 32; j++)
			high[j] = (unsigned char)(v[j] >> 4 | v[j + 32] >> 4 << 2 |
						  v[j + 64] >> 4 << 4 | v[j + 96] >> 4 << 6);
	}
}

static void put_k(unsigned char *dst, enum codes_grid grid, const uint8_t *head, const uint8_t *v)
{
	if (grid == GRID_Q4_K)
		put_q4_k(dst, head, v);
	else
		put_q6_k(dst, head, v);
}

/* The codes of the row, on their grid. */
static void keep_blocks(unsigned char *dst, const struct gguf_codes *g, size_t n,
			const uint8_t *code)
{
	const size_t bytes = ggml_type(grid_type(g->c.grid))->bytes;
	const size_t each = kgrid(g->c.grid)->head, blocks = g->c.cols / KGRID_BLOCK;
	const uint8_t *head = (const uint8_t *)g->scale + n * blocks * each;

	for (size_t b = 0; b < blocks; b++, dst += bytes, head += each, code += KGRID_BLOCK)
		put_k(dst, g->c.grid, head, code);
}

/* Weights of the row, on a grid that is fit to them: every weight counts the same. */
static void new_blocks(unsigned char *dst, enum codes_grid grid, const float *w, size_t cols)
{
	const size_t bytes = ggml_type(grid_type(grid))->bytes;
	uint8_t head[KGRID_MAX_HEAD], code[KGRID_BLOCK];

	for (size_t k = 0; k < cols; k += KGRID_BLOCK, dst += bytes) {
		kgrid_fit(grid, head, w + k, 1, NULL, true);
		kgrid_codes(grid, code, w + k, head);
		put_k(dst, grid, head, code);
	}
}

/* The codes of the row, shifted by the type's own zero. */
CLONES static void keep_codes(unsigned char *restrict dst, const struct form *f,
		       const struct gguf_codes *g, size_t n, const uint8_t *restrict code)
{
	const size_t bytes = ggml_type(f->type)->bytes;
	const size_t at = g->c.one_row ? 0 : n * g->c.groups;
	unsigned char d[2] = { 0 }, m[2] = { 0 };
	uint8_t v[GGUF_BLOCK], shift = 0;

	for (size_t k = 0; k < g->c.cols; k += GGUF_BLOCK, dst += bytes) {
		if (k % g->c.group == 0) {
			const size_t i = at + k / g->c.group;
			const int z = zero_at(g, i);

			/* Q8_0 stores c - z itself, modulo 256. */
			shift = (uint8_t)(f->min ? 0 : f->bits == 8 ? -z : -f->lo - z);
			if (g->c.scale->dtype == DT_F16)
				memcpy(d, (const uint16_t *)g->scale + i, 2);
			else
				put_half(d, scale_at(g, i));
			if (f->min)
				put_half(m, 0 - scale_at(g, i) * (float)z);
		}
		for (int j = 0; j < GGUF_BLOCK; j++)
			v[j] = (uint8_t)(code[k + (size_t)j] + shift);
		put_block(dst, f->type, d, m, v);
	}
}

/* ggml's rule: d from the value furthest from zero (which becomes lo), or from the range. */
static void anew(unsigned char *dst, const struct form *f, const float *w)
{
	unsigned char dh[2], mh[2];
	float lo = w[0], hi = w[0], far = 0, d, inv;
	uint8_t v[GGUF_BLOCK];

	for (int j = 0; j < GGUF_BLOCK; j++) {
		lo = fminf(lo, w[j]);
		hi = fmaxf(hi, w[j]);
		far = fabsf(w[j]) > fabsf(far) ? w[j] : far;
	}
	d = f->min ? (hi - lo) / (float)((1 << f->bits) - 1) :
	    f->bits == 8 ? fabsf(far) / 127 : far / (float)f->lo;
	inv = d != 0 ? 1 / d : 0;
	for (int j = 0; j < GGUF_BLOCK; j++) {
		const float x = f->min ? (w[j] - lo) * inv : w[j] * inv;
		const int top = f->min ? (1 << f->bits) - 1 : f->hi, bottom = f->min ? 0 : f->lo;
		int q = (int)rintf(x);

		q = q < bottom ? bottom : q > top ? top : q;
		v[j] = (uint8_t)(f->min || f->bits == 8 ? q : q - f->lo);
	}
	put_half(dh, d);
	put_half(mh, lo);
	put_block(dst, f->type, dh, mh, v);
}

static int check_range(const struct gguf_packing *p, const struct gguf_codes *g, const float *w,
		       struct err *e)
{
	/* The largest F16; a scale is smaller than the weight that it makes. */
	if (p->how == GGUF_PACK_EXACT)
		return 0;
	for (size_t k = 0; k < g->c.cols; k++)
		if (!(fabsf(w[k]) <= 65504))
			return err_set(e, ERR_DATA, g->c.codes->name, "weight %g is too large "
				       "for F16", (double)w[k]);
	return 0;
}

int gguf_pack_row(unsigned char *dst, const struct gguf_packing *p, const struct gguf_codes *g,
		  size_t n, const struct gguf_pack_scratch *s, struct err *e)
{
	const struct form *f = form_of(p->type);
	const enum codes_grid grid = grid_of(p->type);
	const uint8_t *code = (const uint8_t *)g->codes + n * g->c.cols;

	/* It checks the codes too; packed ones are unpacked into s->code. */
	if (codes_row(&g->c, s->w, n, g->codes, g->scale, g->zero, s->code, e) ||
	    check_range(p, g, s->w, e))
		return -1;
	if (g->c.codes->dtype != DT_U8)
		code = s->code;
	if (g->c.grid && p->how == GGUF_PACK_EXACT) {
		keep_blocks(dst, g, n, code);
		return 0;
	}
	if (grid) {
		new_blocks(dst, grid, s->w, g->c.cols);
		return 0;
	}
	if (!f)
		return dtype_from_f32(dst, DT_F16, s->w, g->c.cols);
	if (p->how != GGUF_PACK_ANEW) {
		keep_codes(dst, f, g, n, code);
		return 0;
	}
	for (size_t k = 0; k < g->c.cols; k += GGUF_BLOCK)
		anew(dst + k / GGUF_BLOCK * ggml_type(f->type)->bytes, f, s->w + k);
	return 0;
}
