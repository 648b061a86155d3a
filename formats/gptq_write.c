/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gptq_write.c - codes into GPTQ's and AWQ's words
 */
#include "formats/gptq_write.h"
#include "formats/gptq_refit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/buf.h"
#include "lib/base/clones.h"
#include "lib/base/pool.h"
#include "lib/data/bits.h"

struct writer {
	const struct gptq_write_options *o;
	struct export *x;
	struct st_writer *w;
	struct readback *b;
	struct pool *pool;
	/* what all linears have in common */
	int bits;
	bool sym;
	size_t group;          /* of linears with several groups, 0: none yet */
	size_t single;         /* columns of those with one, 0: none */
	bool singles_differ;
	char first[256];
	struct buf plain;      /* modules without codes, a line each */
};

/* ---- what the layout holds --------------------------------------------------------------- */

static bool is_half(float x)
{
	return f16_to_f32(f32_to_f16(x)) == x;
}

static float scale_at(const struct export_codes *q, size_t n, size_t g)
{
	const size_t i = (q->c.one_row ? 0 : n * q->c.groups) + g;
	const size_t width = (size_t)dtype_bits(q->c.scale->dtype) / 8;
	float s = 0;

	(void)dtype_to_f32(&s, (const char *)q->scale + i * width, q->c.scale->dtype, 1);
	return s;
}

static unsigned zero_at(const struct export_codes *q, size_t n, size_t g)
{
	const size_t i = (q->c.one_row ? 0 : n * q->c.groups) + g;

	return q->zero ? ((const uint8_t *)q->zero)[i] : 1u << (q->c.bits - 1);
}

/* Bits that the layout gives a code: AWQ's are four, whatever they are used for. */
static int width_of(const struct writer *t, const struct export_codes *q)
{
	return t->o->awq ? 4 : q->c.bits;
}

static int check_sizes(const struct writer *t, const struct export_codes *q, struct err *e)
{
	const size_t b = (size_t)width_of(t, q);

	if (q->c.codes->dtype > DT_U4 || q->c.codes->dtype < DT_U8)
		return err_set(e, ERR_DATA, q->name, "codes of type %s: only integers "
			       "fit: to-ct, or --requantize",
			       dtype_name(q->c.codes->dtype));
	if (q->c.grid)
		return err_set(e, ERR_DATA, q->name, "codes on the grid %s, which only to-gguf can "
			       "write", kgrid(q->c.grid)->name);
	if (t->o->awq && q->c.bits > 4)
		return err_set(e, ERR_DATA, q->name, "codes of %d bits: AWQ has 4: gptq -b 4, or "
			       "to-gptq", q->c.bits);
	if (!t->o->awq && q->c.bits != 2 && q->c.bits != 3 && q->c.bits != 4 && q->c.bits != 8)
		return err_set(e, ERR_DATA, q->name, "codes of %d bits: GPTQ has 2, 3, 4 and 8: "
			       "gptq -b 4", q->c.bits);
	if (q->c.rows * b % 32 || (!t->o->awq && q->c.cols * b % 32))
		return err_set(e, ERR_DATA, q->name, "%zu rows of %zu columns do not fill words of "
			       "32 bits with codes of %zu: rtn or gptq --skip it", q->c.rows,
			       q->c.cols, b);
	return 0;
}

static int check_values(const struct writer *t, const struct export_codes *q, struct err *e)
{
	for (size_t n = 0; n < q->c.rows; n++)
		for (size_t g = 0; g < q->c.groups; g++) {
			if (q->c.scale->dtype != DT_F16 && !is_half(scale_at(q, n, g)))
				return err_set(e, ERR_DATA, q->name, "scale %g (row %zu group %zu) "
					       "is no number of F16, as these are: gptq "
					       "--scale-dtype=f16", (double)scale_at(q, n, g), n,
					       g);
			if (!t->o->awq && !t->o->v2 && zero_at(q, n, g) == 0)
				return err_set(e, ERR_DATA, q->name, "zero 0 (row %zu group %zu) "
					       "cannot be said in GPTQ v1, which stores it less "
					       "one: gptq --sym, --v2, or to-awq", n, g);
		}
	return 0;
}

/* The configuration has one figure of each for all. */
static int check_common(struct writer *t, const struct export_codes *q, struct err *e)
{
	const bool one = q->c.groups == 1;

	if (!t->bits) {
		t->bits = q->c.bits;
		t->sym = q->c.sym;
		snprintf(t->first, sizeof(t->first), "%s", q->name);
	}
	if ((!t->o->awq && (q->c.bits != t->bits || q->c.sym != t->sym)) ||
	    (!one && t->group && q->c.group != t->group))
		return err_set(e, ERR_DATA, q->name, "has %d bits, %s, group %zu, not what %s has: "
			       "this layout has the same for all; to-ct can say it", q->c.bits,
			       q->c.sym ? "symmetric" : "asymmetric", q->c.group, t->first);
	if (!one)
		t->group = q->c.group;
	t->singles_differ = t->singles_differ || (one && t->single && t->single != q->c.cols);
	t->single = one ? q->c.cols : t->single;
	return 0;
}

/* -1: each row is one group. */
static int common_group(const struct writer *t, long *group, struct err *e)
{
	*group = t->group ? (long)t->group : -1;
	if (t->group && t->single && (t->singles_differ || t->single != t->group))
		return err_set(e, ERR_DATA, t->first, "some linears have groups of %zu, others one "
			       "for a row: this layout has the same for all", t->group);
	return 0;
}

/* ---- words ------------------------------------------------------------------------------- */

/* Of AWQ: the row of eight that nibble i of a word is. */
static const unsigned char awq_order[8] = { 0, 2, 4, 6, 1, 3, 5, 7 };

/* Code i of a stream of bits. */
static void put_stream(uint32_t *w, size_t i, int bits, uint32_t code)
{
	const size_t at = i * (size_t)bits;
	const uint64_t v = (uint64_t)code << at % 32;

	w[at / 32] |= (uint32_t)v;
	if (v >> 32)
		w[at / 32 + 1] |= (uint32_t)(v >> 32);
}

static void put_nibble(uint32_t *words, size_t row, uint32_t code)
{
	static const unsigned char place[8] = { 0, 4, 1, 5, 2, 6, 3, 7 }; /* in awq_order */

	words[row / 8] |= code << 4 * place[row % 8];
}

/* A line of the cache: 16 words of a row, or of 16 rows. */
enum { LINE = 16, LINE_BYTES = 4 * LINE };
typedef uint32_t words_of __attribute__((vector_size(LINE_BYTES), aligned(4), may_alias));

/* Words i .. i + 15 of a packed row; behind its end are zeros. */
static inline void line_at(words_of *w, const uint8_t *row, size_t bytes, size_t i)
{
	const size_t left = bytes - 4 * i;

	if (left >= LINE_BYTES) {
		memcpy(w, row + 4 * i, LINE_BYTES);
		return;
	}
	memset(w, 0, LINE_BYTES);
	memcpy(w, row + 4 * i, left);
}

/* n words of a line: nearly always all. */
static inline void put_line(uint32_t *dst, const uint32_t line[LINE], size_t n)
{
	if (n == LINE)
		memcpy(dst, line, LINE_BYTES);
	else
		memcpy(dst, line, n * 4);
}

/* Four words, what every processor has registers for. */
typedef uint32_t quad __attribute__((vector_size(16), aligned(4), may_alias));

/* Words k .. k + 3 of rows j .. j + 3 of x become words j .. j + 3 of rows k .. k + 3 of t. */
static inline void turn4(uint32_t t[LINE][LINE], uint32_t x[LINE][LINE], size_t k, size_t j)
{
	typedef int32_t which __attribute__((vector_size(16)));
	const which low = { 0, 4, 1, 5 }, high = { 2, 6, 3, 7 };
	const which left = { 0, 1, 4, 5 }, right = { 2, 3, 6, 7 };
	quad r[4], p, q;

	for (size_t i = 0; i < 4; i++)
		memcpy(&r[i], &x[j + i][k], sizeof(r[i]));
	p = __builtin_shuffle(r[0], r[1], low);
	q = __builtin_shuffle(r[2], r[3], low);
	*(quad *)&t[k][j] = __builtin_shuffle(p, q, left);
	*(quad *)&t[k + 1][j] = __builtin_shuffle(p, q, right);
	p = __builtin_shuffle(r[0], r[1], high);
	q = __builtin_shuffle(r[2], r[3], high);
	*(quad *)&t[k + 2][j] = __builtin_shuffle(p, q, left);
	*(quad *)&t[k + 3][j] = __builtin_shuffle(p, q, right);
}

/* GPTQ's words [i, i + n) of all rows: a packed row is the stream of bits that a column of words
 * is, so words change their places only, 16 by 16. */
static void gptq_words(uint32_t *w, size_t rows, const uint8_t *packed, size_t bytes, size_t i,
		       size_t n)
{
	uint32_t x[LINE][LINE] = { 0 }, t[LINE][LINE];

	for (size_t r = 0; r < rows; r += LINE) {
		const size_t m = rows - r < LINE ? rows - r : LINE;

		for (size_t j = 0; j < m; j++) {
			line_at((words_of *)x[j], packed + (r + j) * bytes, bytes, i);
			__builtin_prefetch(packed + (r + 2 * LINE + j) * bytes + 4 * i);
		}
		for (size_t k = 0; k < LINE; k += 4)
			for (size_t j = 0; j < LINE; j += 4)
				turn4(t, x, k, j);
		for (size_t k = 0; k < n; k++)
			put_line(w + k * rows + r, t[k], m);
	}
}

/* x[i]'s nibble j becomes x[j]'s nibble i, of 16 words each: halves change places, then quarters,
 * then eighths. */
static inline void transpose_nibbles(words_of x[8])
{
	static const uint32_t low[] = { 0x0f0f0f0f, 0x00ff00ff, 0x0000ffff };

	for (int step = 2; step >= 0; step--)
		for (int i = 0; i < 8; i++) {
			const uint32_t d = 1u << step;
			words_of t;

			if ((uint32_t)i & d)
				continue;
			t = (x[i] >> 4 * d ^ x[(uint32_t)i + d]) & low[step];
			x[(uint32_t)i + d] ^= t;
			x[i] ^= t << 4 * d;
		}
}

/* AWQ's words of columns 8 i .. 8 (i + n): of eight rows a line each makes eight lines of which
 * word k is column 8 (i + k) and so on; 16 times eight rows fill lines of the result. */
CLONES static void awq_words(uint32_t *w, size_t rows, const uint8_t *packed, size_t bytes,
			     size_t i, size_t n)
{
	const size_t eighths = rows / 8;
	uint32_t all[8][LINE][LINE] = { 0 }, t[LINE][LINE];
	words_of x[8];

	for (size_t o = 0; o < eighths; o += LINE) {
		const size_t m = eighths - o < LINE ? eighths - o : LINE;

		for (size_t j = 0; j < m; j++) {
			const uint8_t *row = packed + 8 * (o + j) * bytes;

			for (int r = 0; r < 8; r++) {
				line_at(&x[r], row + awq_order[r] * bytes, bytes, i);
				__builtin_prefetch(row + (size_t)(32 + r) * bytes + 4 * i);
			}
			transpose_nibbles(x);
			for (size_t r = 0; r < 8; r++)
				memcpy(all[r][j], &x[r], LINE_BYTES);
		}
		for (size_t r = 0; r < 8; r++) {
			for (size_t k = 0; k < LINE; k += 4)
				for (size_t j = 0; j < LINE; j += 4)
					turn4(t, all[r], k, j);
			for (size_t k = 0; k < LINE && 8 * k + r < n; k++)
				put_line(w + (8 * k + r) * eighths + o, t[k], m);
		}
	}
}

static int put_part(struct writer *t, const struct export_codes *q, const char *suffix,
		    enum dtype dtype, int rank, int64_t d0, int64_t d1, const void *data,
		    struct err *e)
{
	const int n = (int)(strlen(q->name) - strlen(".weight"));
	const int64_t shape[2] = { d0, d1 };
	char name[320];

	snprintf(name, sizeof(name), "%.*s%s", n, q->name, suffix);
	return st_writer_put(t->w, name, dtype, rank, shape, data, e);
}

/* The codes of row n, checked; scratch [cols]. */
static const uint8_t *row_codes(const struct export_codes *q, size_t n, uint8_t *scratch,
				struct err *e)
{
	const size_t cols = q->c.cols;
	const uint8_t *code = (const uint8_t *)q->codes + n * cols;

	if (q->c.codes->dtype != DT_U8) {
		bits_unpack_row(scratch, (const uint8_t *)q->codes +
				n * bits_row_bytes(cols, q->c.bits), cols, q->c.bits);
		return scratch;
	}
	for (size_t k = 0; k < cols; k++)
		if (code[k] >> q->c.bits) {
			err_set(e, ERR_DATA, q->name, "code %d at row %zu column %zu does not fit "
				"%d bits", code[k], n, k, q->c.bits);
			return NULL;
		}
	return code;
}

/* All rows packed, in room unless they are already: NULL is an error. */
static const uint8_t *packed_rows(const struct export_codes *q, int bits, uint8_t *room,
				  struct err *e)
{
	const size_t rows = q->c.rows, cols = q->c.cols, bytes = bits_row_bytes(cols, bits);

	for (size_t i = 0; room && i < rows; i++) {
		const uint8_t *code = row_codes(q, i, room + rows * bytes, e);

		if (!code)
			return NULL;
		bits_pack_row(room + i * bytes, code, cols, bits);
	}
	return room ? room : q->codes;
}

/* Lines of qweight, each LINE words of all packed rows, that are made side by side: one for each
 * thread, so that the next are made while these are written. */
struct lines {
	const uint8_t *packed;
	uint32_t *w;
	size_t rows, cols, bytes, first;
	bool awq;
};

/* Words of line i in w: of all columns that are left, 8 LINE of AWQ's. */
static size_t line_words(const struct lines *l, size_t i)
{
	const size_t left = l->awq ? l->cols - 8 * LINE * i : l->bytes / 4 - LINE * i;
	const size_t most = l->awq ? 8 * LINE : LINE;

	return (left < most ? left : most) * (l->awq ? l->rows / 8 : l->rows);
}

static void make_line(void *ctx, size_t i, int thread)
{
	const struct lines *l = ctx;
	const size_t at = l->first + i;
	uint32_t *w = l->w + i * LINE * l->rows;

	(void)thread;
	if (l->awq)
		awq_words(w, l->rows, l->packed, l->bytes, at * LINE,
			  line_words(l, at) / (l->rows / 8));
	else
		gptq_words(w, l->rows, l->packed, l->bytes, at * LINE,
			   line_words(l, at) / l->rows);
}

/* qweight, a few lines at a time, in w. */
static int put_words(struct writer *t, const struct export_codes *q, const uint8_t *packed,
		     uint32_t *w, struct err *e)
{
	struct lines l = { .packed = packed, .w = w, .rows = q->c.rows, .cols = q->c.cols,
			   .bytes = bits_row_bytes(q->c.cols, width_of(t, q)),
			   .awq = t->o->awq };
	const size_t all = (l.bytes + LINE_BYTES - 1) / LINE_BYTES;
	const size_t most = (size_t)pool_threads(t->pool);

	for (l.first = 0; l.first < all; l.first += most) {
		const size_t n = all - l.first < most ? all - l.first : most;
		size_t words = 0;

		pool_run(t->pool, n, make_line, &l);
		for (size_t i = 0; i < n; i++)
			words += line_words(&l, l.first + i);
		if (st_writer_bytes(t->w, w, words * 4, e))
			return -1;
	}
	return 0;
}

static int put_codes(struct writer *t, const struct export_codes *q, struct err *e)
{
	static const enum dtype types[] = { [2] = DT_U2, [3] = DT_U3, [4] = DT_U4, [8] = DT_U8 };
	const size_t rows = q->c.rows, cols = q->c.cols;
	const int bits = width_of(t, q), n = (int)(strlen(q->name) - strlen(".weight"));
	const bool ready = q->c.bits == bits && q->c.codes->dtype == types[bits];
	const size_t room_bytes = rows * bits_row_bytes(cols, bits) + cols;
	/* Of AWQ a line is 8 LINE times rows / 8 words. */
	const size_t line = (size_t)pool_threads(t->pool) * LINE * rows * 4;
	const int64_t shape[2] = { t->o->awq ? (int64_t)cols : (int64_t)cols * bits / 32,
				   t->o->awq ? (int64_t)rows / 8 : (int64_t)rows };
	const uint8_t *packed = NULL;
	uint32_t *w = malloc(line);
	uint8_t *room = ready ? NULL : malloc(room_bytes);
	char name[320];
	int ret = w && (room || ready) ? 0 : err_nomem(e, q->name, line + room_bytes);

	snprintf(name, sizeof(name), "%.*s.qweight", n, q->name);
	if (!ret)
		ret = readback_codes(t->b, q->name, &q->c, q->codes, types[bits], bits, e);
	if (!ret) {
		packed = packed_rows(q, bits, room, e);
		ret = packed && !st_writer_begin(t->w, name, DT_I32, 2, shape, e) &&
		      !put_words(t, q, packed, w, e) ? 0 : -1;
	}
	free(room);
	free(w);
	return ret;
}

/* Scales and zeros: as they are written, and as the reader has them where the stream has them
 * otherwise. */
struct params {
	uint16_t *scale, *scale_back;
	uint32_t *zero;
	uint8_t *zero_back;
};

static void fill_params(const struct writer *t, const struct export_codes *q, struct params *p)
{
	const size_t rows = q->c.rows, groups = q->c.groups;
	const bool ready = q->c.scale->dtype == DT_F16 && !q->c.one_row;
	const int bits = width_of(t, q);

	for (size_t n = 0; n < rows; n++)
		for (size_t g = 0; g < groups; g++) {
			const uint16_t s = ready ? ((const uint16_t *)q->scale)[n * groups + g] :
					   f32_to_f16(scale_at(q, n, g));
			const unsigned z = zero_at(q, n, g);
			uint32_t *words = p->zero + g * (rows * (size_t)bits / 32);

			p->scale[g * rows + n] = p->scale_back[n * groups + g] = s;
			p->zero_back[n * groups + g] = (uint8_t)z;
			if (t->o->awq)
				put_nibble(words, n, z);
			else
				put_stream(words, n, bits, t->o->v2 ? z : z - 1);
		}
}

static int put_params(struct writer *t, const struct export_codes *q, struct err *e)
{
	const size_t rows = q->c.rows, groups = q->c.groups, n = rows * groups;
	const size_t words = n * (size_t)width_of(t, q) / 32;
	const int64_t back[2] = { (int64_t)rows, (int64_t)groups };
	const int64_t r = (int64_t)rows, g = (int64_t)groups;
	const bool own = !q->c.one_row;
	struct params p = { malloc(n * 2), malloc(n * 2), calloc(words, 4), malloc(n) };
	int ret = p.scale && p.scale_back && p.zero && p.zero_back ? 0 :
		  err_nomem(e, q->name, n * 9);

	if (!ret) {
		fill_params(t, q, &p);
		ret = readback_note(t->b, q->name, ROLE_SCALE, DT_F16, 2, back,
				    own && q->c.scale->dtype == DT_F16 ? q->scale : p.scale_back,
				    e) ||
		      ((t->o->awq || !q->c.sym) &&
		       readback_note(t->b, q->name, ROLE_ZERO, DT_U8, 2, back,
				     own && q->zero ? q->zero : p.zero_back, e)) ||
		      put_part(t, q, ".scales", DT_F16, 2, g, r, p.scale, e) ||
		      put_part(t, q, ".qzeros", DT_I32, 2, g, r * width_of(t, q) / 32, p.zero,
			       e) ? -1 : 0;
	}
	free(p.scale);
	free(p.scale_back);
	free(p.zero);
	free(p.zero_back);
	return ret;
}

static int put_index(struct writer *t, const struct export_codes *q, struct err *e)
{
	int32_t *index = malloc(q->c.cols * sizeof(*index));
	int ret;

	if (!index)
		return err_nomem(e, q->name, q->c.cols * sizeof(*index));
	for (size_t k = 0; k < q->c.cols; k++)
		index[k] = (int32_t)(k / q->c.group);
	ret = put_part(t, q, ".g_idx", DT_I32, 1, (int64_t)q->c.cols, 0, index, e);
	free(index);
	return ret;
}

static int write_codes(struct writer *t, const struct export_codes *q, struct err *e)
{
	return check_sizes(t, q, e) || check_common(t, q, e) || check_values(t, q, e) ||
	       put_codes(t, q, e) || put_params(t, q, e) || (!t->o->awq && put_index(t, q, e)) ?
	       -1 : 0;
}

/* The form that a linear has to have: that of the first, or the closest to its own. */
static struct gptq_form form_for(const struct writer *t, const struct export_codes *q)
{
	const int own = q->c.bits < 4 ? q->c.bits : q->c.bits == 4 ? 4 : 8;
	struct gptq_form f = { .bits = t->o->awq ? 4 : t->bits ? t->bits : own,
			       .sym = t->bits && !t->o->awq ? t->sym : q->c.sym,
			       .above_0 = !t->o->awq && !t->o->v2, .group = q->c.group };

	if (t->group)
		f.group = t->group;
	else if (t->single)
		f.group = q->c.cols;
	return f;
}

static int take_weight(void *ctx, const struct record *rec, const void *data, struct err *e);

/* What fills no words: what its codes stand for, as any weight without. */
static int as_weight(struct writer *t, const struct export_codes *q, struct err *e)
{
	const size_t rows = q->c.rows, cols = q->c.cols;
	float *w = malloc(rows * cols * sizeof(*w));
	uint8_t *room = malloc(cols);
	struct record rec = { .rank = -1 };
	int ret = w && room ? 0 : err_nomem(e, q->name, rows * cols * sizeof(*w));

	for (size_t n = 0; !ret && n < rows; n++)
		ret = codes_row(&q->c, w + n * cols, n, q->codes, q->scale, q->zero, room, e);
	record_init(&rec, REC_TENSOR, q->name);
	rec.role = ROLE_WEIGHT;
	rec.dtype = DT_F32;
	rec.rank = 2;
	rec.shape[0] = (int64_t)rows;
	rec.shape[1] = (int64_t)cols;
	rec.nbytes = rows * cols * sizeof(*w);
	if (!ret)
		ret = take_weight(t, &rec, w, e);
	record_clear(&rec);
	free(w);
	free(room);
	return ret;
}

static int requantize(struct writer *t, const struct export_codes *q, struct err *e)
{
	const struct gptq_form f = form_for(t, q);
	const size_t b = (size_t)f.bits;
	struct gptq_refit r;
	char what[64];
	int ret;

	if (q->c.rows * b % 32 || (!t->o->awq && q->c.cols * b % 32) || q->c.cols % f.group)
		return as_weight(t, q, e);
	if (gptq_conforms(q, &f))
		return write_codes(t, q, e);
	ret = gptq_refit(&r, q, &f, e);
	if (!ret)
		ret = write_codes(t, &r.q, e);
	snprintf(what, sizeof(what), "made %d bits, groups of %zu, %s", f.bits, f.group,
		 f.sym ? "symmetric" : "asymmetric");
	if (!ret)
		export_lost(t->x, q->name, what, r.error, r.norm);
	gptq_refit_release(&r);
	return ret;
}

static int take_codes(void *ctx, const struct export_codes *q, struct err *e)
{
	struct writer *t = ctx;

	return t->o->requantize ? requantize(t, q, e) : write_codes(t, q, e);
}

/* ---- the rest ---------------------------------------------------------------------------- */

/* What a weight without codes is written as. */
static enum dtype target(const struct writer *t, const struct record *rec)
{
	const enum dtype to = t->o->dtype ? t->o->dtype :
			      export_plan_dtype(&t->x->plan, rec->name);

	return to == DT_F32 || to == DT_F16 || to == DT_BF16 ? to : rec->dtype;
}

static int take_pass(void *ctx, const struct record *rec, struct stream_in *in, struct err *e)
{
	struct writer *t = ctx;

	if (target(t, rec) != rec->dtype)
		return 0;
	return export_pass(t->w, t->b, rec, in, e) ? -1 : 1;
}

static int take_weight(void *ctx, const struct record *rec, const void *data, struct err *e)
{
	struct writer *t = ctx;
	long layer;
	const enum slot s = model_slot(&t->x->model, rec->name, &layer);
	const enum dtype to = target(t, rec);

	if (slot_in_block(s) && rec->rank == 2)
		buf_printf(&t->plain, "%.*s\n", (int)(strlen(rec->name) - strlen(".weight")),
			   rec->name);
	export_rounded(t->x, rec, data, to);
	return export_weight(NULL, t->w, t->b, rec, data, to, ": --dtype=bf16 or f32", e);
}

static int take_run(void *ctx, const struct record *rec, struct err *e)
{
	const struct writer *t = ctx;
	char kind[32] = "?";

	(void)record_get_str(rec, "kind", kind, sizeof(kind));
	return err_set(e, ERR_DATA, rec->name, "wants '%s' at run time, which %s cannot say", kind,
		       t->o->awq ? "AWQ" : "GPTQ");
}

/* The modules without codes, as elements of a list or (GPTQ's "dynamic") keys of an object. */
static void put_plain(struct writer *t, struct buf *out)
{
	const char *s = buf_str(&t->plain), *comma = "";

	for (const char *end; (end = strchr(s, '\n')); s = end + 1, comma = ", ") {
		buf_puts(out, comma);
		if (t->o->awq) {
			buf_printf(out, "\"%.*s\"", (int)(end - s), s);
			continue;
		}
		buf_puts(out, "\"-:^");
		for (; s < end; s++)
			buf_printf(out, *s == '.' ? "\\\\%c" : "%c", *s);
		buf_puts(out, "$\": {}");
	}
}

static void describe(struct writer *t, long group, struct buf *out)
{
	const char *format = t->o->v2 ? "gptq_v2" : "gptq", *sym = t->sym ? "true" : "false";

	if (t->o->awq) {
		buf_printf(out, "{\"quant_method\": \"awq\", \"bits\": 4, \"group_size\": %ld, "
			   "\"zero_point\": true, \"version\": \"gemm\", "
			   "\"modules_to_not_convert\": ", group);
		buf_puts(out, t->plain.n ? "[" : "null");
		put_plain(t, out);
		buf_puts(out, t->plain.n ? "]}" : "}");
		return;
	}
	buf_printf(out, "{\"quant_method\": \"gptq\", \"bits\": %d, \"group_size\": %ld, "
		   "\"desc_act\": false, \"sym\": %s, \"checkpoint_format\": \"%s\", "
		   "\"format\": \"%s\", \"pack_dtype\": \"int32\", \"lm_head\": false, "
		   "\"static_groups\": true, ",
		   t->bits, group, sym, format, format);
	if (t->plain.n) {
		buf_puts(out, "\"dynamic\": {");
		put_plain(t, out);
		buf_puts(out, "}, ");
	}
	buf_puts(out, "\"meta\": {\"quantizer\": [\"quantpipe:" QP_VERSION "\"]}}");
}

static int write_config(struct writer *t, struct outdir *dir, struct err *e)
{
	struct buf text = { 0 };
	long group;
	int ret;

	if (t->x->n_codes == 0)
		return err_set(e, ERR_DATA, "", "no codes in the stream; put rtn or gptq before "
			       "%s", t->o->awq ? "to-awq" : "to-gptq");
	if (common_group(t, &group, e))
		return -1;
	describe(t, group, &text);
	ret = buf_failed(&text, "config.json", e) || buf_failed(&t->plain, "config.json", e) ||
	      export_config(t->x, t->o->dtype, buf_str(&text), e) ? -1 : 0;
	if (!ret && !t->o->awq) {
		buf_byte(&text, '\n');
		ret = outdir_put(dir, "quantize_config.json", text.p, text.n, e);
	}
	buf_release(&text);
	return ret;
}

int gptq_write(struct outdir *dir, struct stream_in *in, struct export *x,
	       const struct gptq_write_options *o, struct err *e)
{
	static const struct export_ops ops = { NULL, take_codes, take_weight, take_pass, take_run,
					       NULL };
	struct writer t = { .o = o, .x = x, .pool = pool_new(pool_cores(), e) };
	struct err alone;
	int ret;

	if (!t.pool)
		return -1;
	/* Where the processors cannot be shared with what feeds the pipe, it works on as well. */
	(void)!pool_share(t.pool, &alone);
	x->ops = &ops;
	x->ctx = &t;
	x->dir = dir;
	x->progress = o->progress;
	ret = st_writer_new(&t.w, dir, o->max_shard, export_header_room(&x->model, 4), e);
	if (!ret)
		ret = readback_new(&t.b, e);
	if (!ret)
		ret = export_read(x, in, e) || st_writer_finish(t.w, e) ||
		      write_config(&t, dir, e) || readback_check(t.b, dir->temp, e) ? -1 : 0;
	st_writer_free(t.w);
	readback_free(t.b);
	pool_free(t.pool);
	buf_release(&t.plain);
	return ret;
}
