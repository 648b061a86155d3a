/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gptq_read.c - linears of GPTQ (checkpoint_format gptq and gptq_v2) and of AWQ (version gemm)
 *
 * Both lie transposed, [columns, rows], in words of 32 bits.  GPTQ packs codes down the columns and
 * zeros along the rows as streams of bits, lowest first (3-bit codes straddle words); v1 stores
 * zero - 1, v2 the zero itself.  AWQ packs both along the rows, eight to a word, the i-th nibble
 * being row 8 c + order[i].  Scales are [groups, rows].  g_idx, if it is there, tells the group of
 * each column; groups whose columns are not neighbours become a dense weight.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/hf_quant.h"
#include "formats/json.h"
#include "lib/base/clones.h"
#include "lib/data/bits.h"

#define WHERE "config.json: quantization_config"

struct int32 {
	bool awq, v1, sym;
	int bits;
	int64_t group; /* -1: all columns */
	uint32_t *room; /* for a slab of codes */
	size_t cap;
};

/* ---- configuration ---------------------------------------------------------------------- */

static int refuse(struct err *e, const char *key, const char *value, const char *only)
{
	return err_set(e, ERR_DATA, WHERE, "%s '%.64s' is not read (%s is)", key,
		       value ? value : "?", only);
}

static const struct json *either(const struct json *config, const char *a, const char *b)
{
	const struct json *v = json_get(config, a);

	return v ? v : json_get(config, b);
}

static int take_sizes(struct int32 *q, const struct json *config, struct err *e)
{
	const int64_t bits = json_int(either(config, "bits", "w_bit"), 0);

	q->group = json_int(either(config, "group_size", "q_group_size"), 0);
	if (q->awq ? bits != 4 : bits != 2 && bits != 3 && bits != 4 && bits != 8)
		return err_set(e, ERR_DATA, WHERE, "codes of %lld bits are not read (%s are)",
			       (long long)bits, q->awq ? "4" : "2, 3, 4 and 8");
	if (q->group < -1 || q->group == 0)
		return err_set(e, ERR_DATA, WHERE, "group_size is missing or wrong");
	q->bits = (int)bits;
	return 0;
}

static int open_new(void **self, struct int32 q, const struct json *config, struct err *e)
{
	struct int32 *p;

	if (take_sizes(&q, config, e))
		return -1;
	p = malloc(sizeof(*p));
	if (!p)
		return err_nomem(e, WHERE, sizeof(*p));
	*p = q;
	*self = p;
	return 0;
}

static int gptq_open(void **self, const struct json *config, struct err *e)
{
	const char *format = json_str(either(config, "checkpoint_format", "format"), NULL);
	const char *words = json_str(json_get(config, "pack_dtype"), NULL);

	/* Some writers do not say: then it is v1, as everybody reads. */
	if (format && strcmp(format, "gptq") && strcmp(format, "gptq_v2"))
		return refuse(e, "checkpoint_format", format, "gptq or gptq_v2");
	if (words && strcmp(words, "int32"))
		return refuse(e, "pack_dtype", words, "int32");
	return open_new(self, (struct int32){
		.v1 = !format || strcmp(format, "gptq") == 0,
		.sym = json_bool(json_get(config, "sym"), false) }, config, e);
}

static int awq_open(void **self, const struct json *config, struct err *e)
{
	const char *version = json_str(json_get(config, "version"), NULL);

	if (version && strcmp(version, "gemm") && strcmp(version, "GEMM"))
		return refuse(e, "version", version, "gemm");
	if (!json_bool(json_get(config, "zero_point"), true))
		return refuse(e, "zero_point", "false", "true");
	return open_new(self, (struct int32){ .awq = true }, config, e);
}

static void close_it(void *self)
{
	free(((struct int32 *)self)->room);
	free(self);
}

/* ---- bits --------------------------------------------------------------------------------- */

/* The i-th code of a stream of bits whose words lie `step` apart. */
static unsigned stream_code(const uint32_t *w, size_t step, size_t i, int bits)
{
	const size_t bit = i * (size_t)bits, at = bit % 32;
	uint64_t v = w[bit / 32 * step];

	if (at + (size_t)bits > 32)
		v |= (uint64_t)w[(bit / 32 + 1) * step] << 32;
	return (unsigned)(v >> at) & ((1u << bits) - 1);
}

/* The code of a row among `words` words of eight. */
static unsigned nibble(const uint32_t *words, size_t row)
{
	static const unsigned char place[8] = { 0, 4, 1, 5, 2, 6, 3, 7 };

	return words[row / 8] >> 4 * place[row % 8] & 15;
}

/* A part as a whole, malloc'ed. */
static void *whole(const struct hf_place *p, struct err *e)
{
	void *w = malloc((size_t)p->t->nbytes + 4);

	if (!w) {
		err_nomem(e, p->t->name, p->t->nbytes);
		return NULL;
	}
	if (hf_part_read(p, w, e) == 0)
		return w;
	free(w);
	return NULL;
}

/* ---- a linear ------------------------------------------------------------------------------ */

static int check_shapes(const struct int32 *q, const struct hf_linear *l, int64_t groups,
			struct err *e)
{
	const int64_t n = l->rows, k = l->cols, b = q->bits;
	const enum dtype scale = l->part[HF_SCALE].t ? l->part[HF_SCALE].t->dtype : DT_F16;

	if ((n * b) % 32 || (!q->awq && (k * b) % 32))
		return err_set(e, ERR_DATA, l->name, "%lld rows of %lld columns do not fill words "
			       "with codes of %lld bits", (long long)n, (long long)k, (long long)b);
	if ((q->awq ? hf_part_check(l, HF_CODES, DT_I32, 2, k, n / 8, e) :
	     hf_part_check(l, HF_CODES, DT_I32, 2, k * b / 32, n, e)) ||
	    hf_part_check(l, HF_ZERO, DT_I32, 2, groups, n * b / 32, e) ||
	    hf_part_check(l, HF_SCALE, scale, 2, groups, n, e))
		return -1;
	if (scale != DT_F16 && scale != DT_BF16 && scale != DT_F32)
		return err_set(e, ERR_DATA, l->part[HF_SCALE].t->name,
			       "dtype %s, expected F16, BF16 or F32", dtype_name(scale));
	return l->part[HF_G_IDX].t ? hf_part_check(l, HF_G_IDX, DT_I32, 1, k, 0, e) : 0;
}

/* The group of each column, malloc'ed; *scattered: not those of neighbours. */
static int32_t *group_index(const struct hf_linear *l, int64_t group, int64_t groups,
			    bool *scattered, struct err *e)
{
	int32_t *index = l->part[HF_G_IDX].t ? whole(&l->part[HF_G_IDX], e) :
			 malloc((size_t)l->cols * sizeof(*index) + 4);

	*scattered = l->cols % group != 0;
	if (!index) {
		if (!l->part[HF_G_IDX].t)
			err_nomem(e, l->name, (uint64_t)l->cols * sizeof(*index));
		return NULL;
	}
	for (int64_t k = 0; k < l->cols; k++) {
		if (!l->part[HF_G_IDX].t)
			index[k] = (int32_t)(k / group);
		if (index[k] < 0 || index[k] >= groups) {
			err_set(e, ERR_DATA, l->part[HF_G_IDX].t->name, "column %lld is in group "
				"%d of %lld", (long long)k, (int)index[k], (long long)groups);
			free(index);
			return NULL;
		}
		*scattered = *scattered || index[k] != k / group;
	}
	return index;
}

static unsigned zero_of(const struct int32 *q, const struct hf_linear *l, const uint32_t *w,
			size_t row, size_t g)
{
	const uint32_t *words = w + g * ((size_t)l->rows * (size_t)q->bits / 32);

	return q->awq ? nibble(words, row) : stream_code(words, 1, row, q->bits) + q->v1;
}

/* What is nearly always so can be seen at a glance, but of 3 bits, whose words differ. */
static bool all_middle(const struct int32 *q, const uint32_t *w, size_t n)
{
	uint32_t one = 0, other = 0;

	if (32 % q->bits)
		return false;
	for (int i = 0; i < 32; i += q->bits)
		one |= ((1u << (q->bits - 1)) - (q->awq ? 0 : q->v1)) << i;
	for (size_t i = 0; i < n; i++)
		other |= w[i] ^ one;
	return other == 0;
}

/* Are all zeros in the middle, and none beyond what a stream can say? */
static int look_at_zeros(const struct int32 *q, const struct hf_linear *l, int64_t groups,
			 bool *middle, struct err *e)
{
	uint32_t *w = whole(&l->part[HF_ZERO], e);
	int ret = w ? 0 : -1;

	*middle = true;
	if (!ret && all_middle(q, w, (size_t)(l->rows * groups) * (size_t)q->bits / 32)) {
		free(w);
		return 0;
	}
	for (size_t g = 0; !ret && g < (size_t)groups; g++)
		for (size_t n = 0; !ret && n < (size_t)l->rows; n++) {
			const unsigned z = zero_of(q, l, w, n, g);

			*middle = *middle && z == 1u << (q->bits - 1);
			if (z > 255)
				ret = err_set(e, ERR_DATA, l->part[HF_ZERO].t->name, "zero %u of "
					      "row %zu is beyond what 8 bits hold", z, n);
		}
	free(w);
	return ret;
}

static int look(const void *self, const struct hf_linear *l, struct hf_codes *out, struct err *e)
{
	const struct int32 *q = self;
	const int64_t group = q->group < 0 || q->group > l->cols ? l->cols : q->group;
	const int64_t groups = (l->cols + group - 1) / group;
	bool scattered, middle;
	int32_t *index;

	memset(out, 0, sizeof(*out));
	if (check_shapes(q, l, groups, e))
		return -1;
	index = group_index(l, group, groups, &scattered, e);
	free(index);
	if (!index || look_at_zeros(q, l, groups, &middle, e))
		return -1;
	out->bits = q->bits;
	out->sym = q->sym && middle;
	out->group = group;
	out->tall = 1;
	out->codes = q->bits == 2 ? DT_U2 : q->bits == 3 ? DT_U3 : q->bits == 4 ? DT_U4 : DT_U8;
	out->scale = l->part[HF_SCALE].t->dtype;
	out->scale_shape[0] = l->rows;
	out->scale_shape[1] = groups;
	out->dense = scattered;
	return 0;
}

/* Codes of row n. */
static void code_row(const struct int32 *q, const struct hf_linear *l, const uint32_t *w, size_t n,
		     uint8_t *code)
{
	const size_t rows = (size_t)l->rows, cols = (size_t)l->cols;

	for (size_t k = 0; k < cols; k++)
		code[k] = (uint8_t)(q->awq ? nibble(w + k * (rows / 8), n) :
				    stream_code(w + n, rows, k, q->bits));
}

/* 16 words: a line of the cache.  A slab of the file makes one line of every row: SIDE rows of
 * words, or of AWQ 8 SIDE columns; rows are unpacked BAND at a time, so that what lies side by side
 * in the slab, words of several rows, comes in lines that are neighbours too. */
enum { SIDE = 16, BAND = 128 };
typedef uint32_t line_of __attribute__((vector_size(4 * SIDE), aligned(4), may_alias));

struct slab {
	const uint32_t *w;
	size_t rows, bytes; /* of codes; of a row of them */
	size_t at, n;       /* the line's first byte in a row, and its bytes */
	size_t columns;     /* AWQ: of the slab */
	uint8_t *dst;
};

static inline void put_line(const struct slab *s, size_t row, const uint32_t line[SIDE])
{
	uint8_t *dst = s->dst + row * s->bytes + s->at;

	if (s->n == 4 * SIDE)
		memcpy(dst, line, 4 * SIDE);
	else
		memcpy(dst, line, s->n);
}

/* A square of four words by four: word j of line i, lines `from` words apart, becomes word i of
 * line j, `to` words apart. */
static inline void turn(uint32_t *dst, size_t to, const uint32_t *src, size_t from)
{
	typedef uint32_t four __attribute__((vector_size(16), aligned(4), may_alias));
	typedef uint32_t pick __attribute__((vector_size(16)));
	const four a = *(const four *)src, b = *(const four *)(src + from);
	const four c = *(const four *)(src + 2 * from), d = *(const four *)(src + 3 * from);
	const four ac = __builtin_shuffle(a, c, (pick){ 0, 4, 1, 5 });
	const four bd = __builtin_shuffle(b, d, (pick){ 0, 4, 1, 5 });
	const four ac2 = __builtin_shuffle(a, c, (pick){ 2, 6, 3, 7 });
	const four bd2 = __builtin_shuffle(b, d, (pick){ 2, 6, 3, 7 });

	*(four *)dst = __builtin_shuffle(ac, bd, (pick){ 0, 4, 1, 5 });
	*(four *)(dst + to) = __builtin_shuffle(ac, bd, (pick){ 2, 6, 3, 7 });
	*(four *)(dst + 2 * to) = __builtin_shuffle(ac2, bd2, (pick){ 0, 4, 1, 5 });
	*(four *)(dst + 3 * to) = __builtin_shuffle(ac2, bd2, (pick){ 2, 6, 3, 7 });
}

/* Row n is the bits of words n, n + rows, n + 2 rows .. */
CLONES static void gptq_slab(const struct slab *s)
{
	uint32_t t[BAND][SIDE];

	for (size_t first = 0; first < s->rows; first += BAND) {
		const size_t m = s->rows - first < BAND ? s->rows - first : BAND;
		const size_t most = s->n / 16 * 4, wide = m / 4 * 4;

		for (size_t k = 0; k < most; k += 4)
			for (size_t n = 0; n < wide; n += 4)
				turn(&t[n][k], SIDE, s->w + k * s->rows + first + n, s->rows);
		for (size_t k = 0; 4 * k < s->n; k++)
			for (size_t n = k < most ? wide : 0; n < m; n++)
				t[n][k] = s->w[k * s->rows + first + n];
		for (size_t n = 0; n < m; n++)
			put_line(s, first + n, t[n]);
	}
}

/* Nibble p of word j becomes nibble j of word p, of sixteen words each: first of neighbours, then
 * of pairs, then of fours. */
static inline void turn_nibbles(line_of x[8])
{
	static const uint32_t low[] = { 0x0f0f0f0f, 0x00ff00ff, 0x0000ffff };

	for (int step = 0; step < 3; step++)
		for (int j = 0; j < 8; j++) {
			const int d = 1 << step;
			const uint32_t m = low[step];
			line_of a, b;

			if (j & d)
				continue;
			a = x[j];
			b = x[j + d];
			x[j] = (a & m) | (b & m) << 4 * d;
			x[j + d] = (a >> 4 * d & m) | (b & ~m);
		}
}

/* Of eight columns, m words of each: all[r][i] is what they make for row r of every eight. */
static inline void awq_columns(uint32_t all[8][SIDE][SIDE], size_t i, const uint32_t *w,
			       size_t eighths, size_t columns, size_t m)
{
	static const uint8_t at[8] = { 0, 4, 1, 5, 2, 6, 3, 7 }; /* the nibble of row r */
	line_of x[8];

	memset(x, 0, sizeof(x));
	for (size_t j = 0; j < columns; j++)
		if (m == SIDE)
			memcpy(&x[j], w + j * eighths, sizeof(x[j]));
		else
			memcpy(&x[j], w + j * eighths, 4 * m);
	turn_nibbles(x);
	for (int r = 0; r < 8; r++)
		memcpy(all[r][i], &x[at[r]], sizeof(all[r][i]));
}

CLONES static void awq_slab(const struct slab *s)
{
	const size_t eighths = s->rows / 8;
	uint32_t all[8][SIDE][SIDE], t[SIDE][SIDE];

	for (size_t first = 0; first < eighths; first += SIDE) {
		const size_t m = eighths - first < SIDE ? eighths - first : SIDE;

		for (size_t i = 0; 8 * i < s->columns; i++)
			awq_columns(all, i, s->w + 8 * i * eighths + first, eighths,
				    s->columns - 8 * i < 8 ? s->columns - 8 * i : 8, m);
		for (size_t r = 0; r < 8; r++) {
			for (size_t i = 0; i < SIDE; i += 4)
				for (size_t n = 0; n < m; n += 4)
					turn(&t[n][i], SIDE, all[r][i] + n, SIDE);
			for (size_t n = 0; n < m; n++)
				put_line(s, 8 * (first + n) + r, t[n]);
		}
	}
}

/* A slab at a time: no more memory is touched than a cache holds. */
static int read_codes(struct int32 *q, const struct hf_linear *l, uint8_t *dst,
		      struct err *e)
{
	const size_t cols = (size_t)l->cols, bytes = bits_row_bytes(cols, q->bits);
	struct slab s = { .rows = (size_t)l->rows, .bytes = bytes, .dst = dst };
	const size_t most = (q->awq ? 8 * SIDE * (s.rows / 8) : SIDE * s.rows) * 4;
	uint64_t from = 0;

	if (most > q->cap) {
		free(q->room);
		q->room = malloc(most);
		q->cap = q->room ? most : 0;
		if (!q->cap)
			return err_nomem(e, l->name, most);
	}
	s.w = q->room;
	for (; s.at < bytes; s.at += 4 * SIDE) {
		const size_t left = bytes - s.at;
		size_t n;

		s.n = left < 4 * SIDE ? left : 4 * SIDE;
		s.columns = s.n * 2 < cols - s.at * 2 ? s.n * 2 : cols - s.at * 2;
		n = (q->awq ? s.columns * (s.rows / 8) : s.n / 4 * s.rows) * 4;
		if (hf_part_piece(&l->part[HF_CODES], from, n, q->room, e))
			return -1;
		from += n;
		(q->awq ? awq_slab : gptq_slab)(&s);
	}
	return 0;
}

static int read_scale(const struct hf_linear *l, char *dst, struct err *e)
{
	const struct st_tensor *t = l->part[HF_SCALE].t;
	const size_t groups = (size_t)t->shape[0], rows = (size_t)l->rows;
	const size_t width = (size_t)dtype_bits(t->dtype) / 8;
	char *s = whole(&l->part[HF_SCALE], e);

	for (size_t n = 0; s && n < rows; n++)
		for (size_t g = 0; g < groups; g++)
			if (width == 2)
				memcpy(dst + (n * groups + g) * 2, s + (g * rows + n) * 2, 2);
			else
				memcpy(dst + (n * groups + g) * 4, s + (g * rows + n) * 4, 4);
	free(s);
	return s ? 0 : -1;
}

static int read_zero(const struct int32 *q, const struct hf_linear *l, const struct hf_codes *c,
		     uint8_t *dst, struct err *e)
{
	const size_t groups = (size_t)c->scale_shape[1];
	uint32_t *w = whole(&l->part[HF_ZERO], e);

	for (size_t n = 0; w && n < (size_t)l->rows; n++)
		for (size_t g = 0; g < groups; g++)
			dst[n * groups + g] = (uint8_t)zero_of(q, l, w, n, g);
	free(w);
	return w ? 0 : -1;
}

/* scale * (code - zero) by the index of groups. */
static void dense_rows(const struct int32 *q, const struct hf_linear *l, const struct hf_codes *c,
		       const void *const part[4], uint8_t *code, float *dst)
{
	const size_t cols = (size_t)l->cols, rows = (size_t)l->rows;
	const size_t width = (size_t)dtype_bits(c->scale) / 8;
	const int32_t *index = part[3];

	for (size_t n = 0; n < rows; n++) {
		code_row(q, l, part[0], n, code);
		for (size_t k = 0; k < cols; k++) {
			const size_t g = (size_t)index[k];
			float s = 0;

			(void)dtype_to_f32(&s, (const char *)part[1] + (g * rows + n) * width,
					   c->scale, 1);
			dst[n * cols + k] = s * (float)((int)code[k] -
							(int)zero_of(q, l, part[2], n, g));
		}
	}
}

static int read_dense(const struct int32 *q, const struct hf_linear *l, const struct hf_codes *c,
		      float *dst, struct err *e)
{
	static const enum hf_part parts[] = { HF_CODES, HF_SCALE, HF_ZERO };
	void *part[4] = { NULL, NULL, NULL, NULL };
	uint8_t *code = malloc((size_t)l->cols + 1);
	bool scattered;
	int ret = code ? 0 : err_nomem(e, l->name, (uint64_t)l->cols);

	for (int i = 0; i < 3 && !ret; i++) {
		part[i] = whole(&l->part[parts[i]], e);
		ret = part[i] ? 0 : -1;
	}
	if (!ret)
		part[3] = group_index(l, c->group, c->scale_shape[1], &scattered, e);
	if (!ret && part[3])
		dense_rows(q, l, c, (const void *const *)part, code, dst);
	ret = ret || !part[3] ? -1 : 0;
	for (int i = 0; i < 4; i++)
		free(part[i]);
	free(code);
	return ret;
}

static int read_it(void *self, const struct hf_linear *l, const struct hf_codes *c,
		   enum role role, void *dst, struct err *e)
{
	switch (role) {
	case ROLE_SCALE: return read_scale(l, dst, e);
	case ROLE_ZERO: return read_zero(self, l, c, dst, e);
	case ROLE_WEIGHT: return read_dense(self, l, c, dst, e);
	default: return read_codes(self, l, dst, e);
	}
}

static const struct hf_suffix suffixes[] = {
	{ ".qweight", HF_CODES }, { ".scales", HF_SCALE }, { ".qzeros", HF_ZERO },
	{ ".g_idx", HF_G_IDX }, { NULL, HF_PARTS },
};

const struct hf_quant hf_quant_gptq = { "gptq", suffixes, gptq_open, look, read_it, close_it,
				     NULL, NULL };
const struct hf_quant hf_quant_awq = { "awq", suffixes, awq_open, look, read_it, close_it,
				     NULL, NULL };
