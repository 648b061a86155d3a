/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ct_write.c - linears as compressed-tensors holds them
 *
 * Packed: codes as they are, unsigned, in words of 32 bits along the row; zeros in words down the
 * columns, as a stream of bits each.  Of 8 bits with activations: codes less 128, a byte each.
 */
#include "formats/ct_write.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/ct_acts.h"
#include "formats/ct_run.h"
#include "lib/base/buf.h"
#include "lib/data/bits.h"

#define BATCH ((size_t)1 << 20) /* bytes that are put together before they are written */

struct ct_writer {
	const struct ct_options *o;
	struct export *x;
	struct st_writer *w;
	struct readback *b;
	struct ct_schemes *schemes;
	uint8_t *batch;       /* of rows */
	size_t cap;
	bool bf16, f16;       /* all packed linears' scales so far are numbers of that type */
	struct run_list runs; /* of the layer */
	struct ct_runs beside; /* what layers do beside their linears */
	long layer;           /* whose first tensor has come, or -1 */
	uint16_t largest;     /* of what is BF16 and not in codes, its bits without the sign */
};

static bool input_of(const struct model *m, enum slot s, long layer, struct linear_row *row)
{
	for (size_t i = 0; layer >= 0 && model_linear(m, layer, i, row); i++)
		if (row->weight == s)
			return true;
	return false;
}

/* Of the linears that read the same edge. */
static bool is_first(const struct model *m, long layer, const struct linear_row *of)
{
	struct linear_row row;

	for (size_t i = 0; model_linear(m, layer, i, &row); i++)
		if (row.in == of->in && !row.keep)
			return row.weight == of->weight;
	return false;
}

/* ---- what the format can hold ------------------------------------------------------- */

static int check_activations(const struct export_codes *q, const struct ct_scheme *s,
			     struct err *e)
{
	if (s->format == CT_FLOAT && s->act.kind == HF_ACT_INT)
		return err_set(e, ERR_DATA, q->name, "float codes, and activations in integers: "
			       "--format=e4m3 for both, or for none");
	if (s->format != CT_FLOAT && !s->sym)
		return err_set(e, ERR_DATA, q->name, "asymmetric codes with quantized activations "
			       "are not to be had in this format: --sym before it");
	if (s->format == CT_PACKED && s->bits == 8 && s->act.kind == HF_ACT_E4M3)
		return err_set(e, ERR_DATA, q->name, "8-bit integers with activations in floats "
			       "are not to be had in this format: quant-acts --format=int");
	if (s->format == CT_PACKED && s->bits == 8)
		return err_set(e, ERR_DATA, q->name, "8-bit codes in groups of %zu with quantized "
			       "activations: one scale a row is needed: -g -1 before it",
			       q->c.group);
	return 0;
}

/* What rounds an edge of the layer, or NULL. */
static const struct run_op *quantizer_of(const struct ct_writer *t, enum edge g)
{
	const struct run_op *op;

	for (size_t at = 0; (op = run_at(&t->runs, PLACE_EDGES + (int)g, &at));)
		if (op->kind == RUN_QUANT)
			return op;
	return NULL;
}

/* Of what comes into a linear: what a run record says, or --activations.  *a: with the range. */
static int take_act(struct ct_writer *t, const struct export_codes *q,
		    const struct ct_scheme *s, struct hf_act *a, struct err *e)
{
	const struct model *m = &t->x->model;
	const struct run_op *op;
	struct linear_row row;
	char place[256];

	*a = (struct hf_act){ .kind = HF_ACT_NONE, .bits = 8 };
	if (!input_of(m, q->slot, q->layer, &row) || row.keep)
		return 0;
	model_edge_name(m, row.in, q->layer, place);
	if (t->o->dynamic_token) {
		/* Read back, it is one record for the edge. */
		if (is_first(m, q->layer, &row) &&
		    readback_begin(t->b, place, ROLE_NONE, DT_NONE, 0, NULL, e))
			return -1;
		a->kind = s->format == CT_FLOAT ? HF_ACT_E4M3 : HF_ACT_INT;
		/* Floats by blocks meet as many channels of a token, as in FP8_BLOCK. */
		a->group = s->strategy == CT_BLOCK ? s->group : 0;
		return 0;
	}
	op = quantizer_of(t, row.in);
	return op ? ct_acts_from(a, op, place, e) : 0;
}

static int take_scheme(struct ct_writer *t, const struct export_codes *q,
		       struct ct_scheme *s, struct hf_act *a, struct err *e)
{
	const struct codes *c = &q->c;

	*s = (struct ct_scheme){ .bits = c->bits, .sym = c->sym, .group = (long)c->group,
				 .tall = (long)c->tall };
	/* With a group as wide as the row the shapes are those of a channel. */
	s->strategy = c->tall > 1 ? CT_BLOCK : c->groups > 1 ? CT_GROUP :
		      c->one_row ? CT_TENSOR : CT_CHANNEL;
	s->format = c->f8 ? CT_FLOAT : CT_PACKED;
	if (c->grid)
		return err_set(e, ERR_DATA, q->name, "codes on the grid %s, which only to-gguf can "
			       "write", kgrid(c->grid)->name);
	if (c->f8 && s->strategy == CT_GROUP)
		return err_set(e, ERR_DATA, q->name, "FP8 with scales for %zu columns of a row: "
			       "this format has a tensor, rows, or blocks", c->group);
	if (take_act(t, q, s, a, e))
		return -1;
	s->act = *a;
	s->act.scale = s->act.zero = 0;
	if (a->kind == HF_ACT_INT && s->format == CT_PACKED && s->bits == 8 && s->sym &&
	    s->strategy <= CT_CHANNEL)
		s->format = CT_INT;
	return a->kind != HF_ACT_NONE ? check_activations(q, s, e) : 0;
}

/* Which types could hold the scales of a loader that rounds them to the model's. */
static void note_scales(struct ct_writer *t, const struct export_codes *q)
{
	const struct record *r = q->c.scale;
	const size_t width = (size_t)dtype_bits(r->dtype) / 8, n = (size_t)r->nbytes / width;
	enum { SOME = 1024 };
	float v[SOME];

	for (size_t i = 0; (t->bf16 || t->f16) && i < n; i += SOME) {
		const size_t k = n - i < SOME ? n - i : SOME;

		if (dtype_to_f32(v, (const char *)q->scale + i * width, r->dtype, k))
			return;
		for (size_t j = 0; j < k && t->bf16; j++)
			t->bf16 = bf16_to_f32(f32_to_bf16(v[j])) == v[j];
		for (size_t j = 0; r->dtype != DT_F16 && j < k && t->f16; j++)
			t->f16 = f16_to_f32(f32_to_f16(v[j])) == v[j];
	}
}

/* ---- a linear ------------------------------------------------------------------------ */

static const char *part_name(char buf[320], const struct export_codes *q, const char *suffix)
{
	snprintf(buf, 320, "%.*s%s", (int)(strlen(q->name) - strlen(".weight")), q->name, suffix);
	return buf;
}

static int reserve(struct ct_writer *t, size_t n, struct err *e)
{
	if (n <= t->cap)
		return 0;
	free(t->batch);
	t->batch = malloc(n);
	t->cap = t->batch ? n : 0;
	return t->batch ? 0 : err_nomem(e, "rows", n);
}

/* Row n of the codes, packed, at dst, which has been cleared. */
static int pack_row(const struct export_codes *q, size_t n, uint8_t *dst, struct err *e)
{
	const size_t cols = q->c.cols, row = bits_row_bytes(cols, q->c.bits);
	const uint8_t *u = (const uint8_t *)q->codes + n * cols;

	if (q->c.codes->dtype != DT_U8) {
		memcpy(dst, (const uint8_t *)q->codes + n * row, row);
		return 0;
	}
	for (size_t k = 0; k < cols; k++)
		if (u[k] >> q->c.bits)
			return err_set(e, ERR_DATA, q->name, "code %d at row %zu column %zu does "
				       "not fit %d bits", u[k], n, k, q->c.bits);
	if (q->c.bits == 8)
		memcpy(dst, u, cols);
	else
		bits_pack_row(dst, u, cols, q->c.bits);
	return 0;
}

/* The codes as a reader will give them: packed up to 4 bits, else a byte each. */
static enum dtype canonical(const struct codes *c)
{
	static const enum dtype packed[] = { DT_U8, DT_U8, DT_U2, DT_U3, DT_U4 };

	return c->f8 ? DT_F8_E4M3 : c->bits <= 4 ? packed[c->bits] : DT_U8;
}

static int put_shape(struct ct_writer *t, const struct export_codes *q, struct err *e)
{
	char name[320];

	return st_writer_put(t->w, part_name(name, q, ".weight_shape"), DT_I64, 1,
			     (const int64_t[]){ 2 }, q->c.codes->shape, e);
}

static int put_packed(struct ct_writer *t, const struct export_codes *q, struct err *e)
{
	const struct codes *c = &q->c;
	const size_t words = (c->cols * (size_t)c->bits + 31) / 32;
	const size_t row = bits_row_bytes(c->cols, c->bits);
	const size_t most = 4 * words > BATCH ? 1 : BATCH / (4 * words);
	const int64_t shape[2] = { (int64_t)c->rows, (int64_t)words };
	char name[320];

	if (reserve(t, most * 4 * words, e) ||
	    st_writer_begin(t->w, part_name(name, q, ".weight_packed"), DT_I32, 2, shape, e))
		return -1;
	if (c->codes->dtype != DT_U8 && row == 4 * words) {
		/* The rows are whole words already. */
		if (st_writer_bytes(t->w, q->codes, c->rows * row, e))
			return -1;
		return put_shape(t, q, e);
	}
	for (size_t n = 0; n < c->rows; n += most) {
		const size_t rows = c->rows - n < most ? c->rows - n : most;

		memset(t->batch, 0, rows * 4 * words);
		for (size_t i = 0; i < rows; i++)
			if (pack_row(q, n + i, t->batch + i * 4 * words, e))
				return -1;
		if (st_writer_bytes(t->w, t->batch, rows * 4 * words, e))
			return -1;
	}
	return put_shape(t, q, e);
}

/* A byte each: floats as they are, integers less 2^(bits-1). */
static int put_bytes(struct ct_writer *t, const struct export_codes *q, struct err *e)
{
	const size_t n = q->c.rows * q->c.cols;
	const uint8_t *u = q->codes;

	if (st_writer_begin(t->w, q->name, q->c.f8 ? DT_F8_E4M3 : DT_I8, 2, q->c.codes->shape, e))
		return -1;
	if (q->c.f8)
		return st_writer_bytes(t->w, u, n, e);
	if (reserve(t, BATCH, e))
		return -1;
	for (size_t i = 0; i < n; i += BATCH) {
		const size_t k = n - i < BATCH ? n - i : BATCH;

		for (size_t j = 0; j < k; j++)
			t->batch[j] = u[i + j] ^ 0x80;
		if (st_writer_bytes(t->w, t->batch, k, e))
			return -1;
	}
	return 0;
}

/* Scales are as the stream has them, but of codes in bytes: there they are F32, which holds any. */
static int put_scale(struct ct_writer *t, const struct export_codes *q, const struct ct_scheme *s,
		     struct err *e)
{
	const struct record *r = q->c.scale;
	const bool widen = s->format != CT_PACKED && r->dtype != DT_F32;
	const enum dtype dtype = widen ? DT_F32 : r->dtype;
	const size_t n = (size_t)r->nbytes * 8 / (size_t)dtype_bits(r->dtype);
	const void *scale = q->scale;
	float *wide = NULL;
	char name[320];
	int ret = 0;

	if (widen) {
		scale = wide = malloc(n * sizeof(*wide));
		if (!wide)
			return err_nomem(e, q->name, n * sizeof(*wide));
		if (dtype_to_f32(wide, q->scale, r->dtype, n))
			ret = err_set(e, ERR_BUG, q->name, "BUG: scales cannot be converted");
	}
	/* One for all is a vector of one. */
	if (!ret)
		ret = readback_note(t->b, q->name, ROLE_SCALE, dtype, 2, r->shape, scale, e) ||
		      st_writer_put(t->w, part_name(name, q, ".weight_scale"), dtype,
				    s->strategy == CT_TENSOR ? 1 : 2, r->shape, scale, e) ? -1 : 0;
	free(wide);
	return ret;
}

/* [rows, groups] into words down the columns. */
static int pack_zeros(struct ct_writer *t, const struct export_codes *q, size_t words,
		      struct err *e)
{
	const size_t rows = q->c.rows, groups = q->c.groups;
	const uint8_t *z = q->zero;
	uint8_t *column, *out;

	if (reserve(t, 4 * words * groups + rows + 4 * words, e))
		return -1;
	out = t->batch;
	column = out + 4 * words * groups;
	for (size_t g = 0; g < groups; g++) {
		for (size_t n = 0; n < rows; n++) {
			if (z[n * groups + g] >> q->c.bits)
				return err_set(e, ERR_DATA, q->name, "zero %d of row %zu does not "
					       "fit %d bits", z[n * groups + g], n, q->c.bits);
			column[n] = z[n * groups + g];
		}
		memset(column + rows, 0, 4 * words);
		bits_pack_row(column + rows, column, rows, q->c.bits);
		for (size_t i = 0; i < words; i++)
			memcpy(out + 4 * (i * groups + g), column + rows + 4 * i, 4);
	}
	return 0;
}

static int put_zero(struct ct_writer *t, const struct export_codes *q, const struct ct_scheme *s,
		    struct err *e)
{
	const size_t words = (q->c.rows * (size_t)q->c.bits + 31) / 32;
	const int64_t shape[2] = { (int64_t)words, (int64_t)q->c.groups };
	const char *suffix = ".weight_zero_point";
	char name[320];
	int8_t z;

	if (readback_note(t->b, q->name, ROLE_ZERO, DT_U8, 2, q->c.zero->shape, q->zero, e))
		return -1;
	if (s->strategy == CT_TENSOR) {
		z = (int8_t)(((const uint8_t *)q->zero)[0] - (1 << (q->c.bits - 1)));
		return st_writer_put(t->w, part_name(name, q, suffix), DT_I8, 1,
				     (const int64_t[]){ 1 }, &z, e);
	}
	if (pack_zeros(t, q, words, e))
		return -1;
	return st_writer_put(t->w, part_name(name, q, suffix), DT_I32, 2, shape, t->batch, e);
}

static int put_act(struct ct_writer *t, const struct export_codes *q, const struct hf_act *a,
		   struct err *e)
{
	const int8_t zero = (int8_t)(a->zero - 128);
	const int64_t one[1] = { 1 };
	char name[320];

	if (a->kind == HF_ACT_NONE || !a->fixed)
		return 0;
	if (st_writer_put(t->w, part_name(name, q, ".input_scale"), DT_F32, 1, one, &a->scale, e))
		return -1;
	return !a->asym ? 0 : st_writer_put(t->w, part_name(name, q, ".input_zero_point"), DT_I8,
					    1, one, &zero, e);
}

/* What the run records of the layer's edges will be when they are read back. */
static int note_runs(struct ct_writer *t, struct err *e)
{
	char place[256];
	struct hf_act a;

	for (size_t i = 0; i < t->runs.n; i++) {
		if (t->runs.op[i].kind != RUN_QUANT || t->runs.op[i].place < PLACE_EDGES)
			continue;
		run_place_name(&t->x->model, t->runs.op[i].place, t->layer, place);
		if (ct_acts_from(&a, &t->runs.op[i], place, e) ||
		    readback_begin(t->b, place, ROLE_NONE, a.fixed ? DT_F32 : DT_NONE,
				   a.fixed ? 2 : 0, (const int64_t[]){ 1, 2 }, e))
			return -1;
		if (a.fixed)
			readback_bytes(t->b, (const float[]){ a.scale, a.zero },
				       2 * sizeof(float));
	}
	return 0;
}

/* With the first tensor of a layer all its run records are there. */
static int enter_layer(struct ct_writer *t, long layer, struct err *e)
{
	if (layer < 0 || layer == t->layer)
		return 0;
	t->layer = layer;
	return run_read(&t->runs, &t->x->block, e) || note_runs(t, e) ||
	       ct_runs_add(&t->beside, &t->x->model, &t->runs, layer, t->w, t->b, e) ? -1 : 0;
}

static int take_codes(void *ctx, const struct export_codes *q, struct err *e)
{
	struct ct_writer *t = ctx;
	struct ct_scheme s;
	struct hf_act a;

	if (enter_layer(t, q->layer, e) || take_scheme(t, q, &s, &a, e) ||
	    ct_schemes_add(t->schemes, &s, q->name, e) ||
	    readback_codes(t->b, q->name, &q->c, q->codes, canonical(&q->c), q->c.bits, e))
		return -1;
	if (s.format == CT_PACKED)
		note_scales(t, q);
	if (s.format == CT_PACKED ? put_packed(t, q, e) : put_bytes(t, q, e))
		return -1;
	return put_scale(t, q, &s, e) || (!q->c.sym && put_zero(t, q, &s, e)) ||
	       put_act(t, q, &a, e) ? -1 : 0;
}

/* ---- the rest -------------------------------------------------------------------------- */

/* A linear whose input is quantized must be in codes itself. */
static int refuse_float(const struct ct_writer *t, enum slot s, long layer,
			const struct record *rec, struct err *e)
{
	struct linear_row row;
	char place[256];

	if (!input_of(&t->x->model, s, layer, &row) || row.keep ||
	    !quantizer_of(t, row.in))
		return 0;
	model_edge_name(&t->x->model, row.in, layer, place);
	return err_set(e, ERR_DATA, rec->name, "is not in codes, but its input is quantized: this "
		       "format has none such; quantize it too, or quant-acts --skip=%s", place);
}

static uint16_t largest(uint16_t most, const uint16_t *v, size_t n)
{
	for (size_t i = 0; i < n; i++)
		most = (v[i] & 0x7fff) > most ? v[i] & 0x7fff : most;
	return most;
}

static int take_weight(void *ctx, const struct record *rec, const void *data, struct err *e)
{
	struct ct_writer *t = ctx;
	long layer;
	const enum slot s = model_slot(&t->x->model, rec->name, &layer);

	if (enter_layer(t, layer, e) || refuse_float(t, s, layer, rec, e))
		return -1;
	if (rec->dtype == DT_BF16)
		t->largest = largest(t->largest, data, (size_t)rec->nbytes / 2);
	return export_weight(t->x, t->w, t->b, rec, data, t->o->dtype, ": --dtype=bf16 or f32",
			     e);
}

static int take_run(void *ctx, const struct record *rec, struct err *e)
{
	const struct ct_writer *t = ctx;
	char kind[32] = "?";
	long layer;
	const int place = run_place_find(&t->x->model, rec->name, &layer);

	(void)record_get_str(rec, "kind", kind, sizeof(kind));
	if (strcmp(kind, "act-quant") && strcmp(kind, "hadamard"))
		return err_set(e, ERR_DATA, rec->name, "wants '%s' at run time, for which this "
			       "format has no words", kind);
	if (strcmp(kind, "act-quant") == 0 && place >= 0 && place < PLACE_EDGES &&
	    place != PLACE_K && place != PLACE_V)
		return err_set(e, ERR_DATA, rec->name, "is quantized at run time, for which this "
			       "format has no words: only inputs of linears, rotated keys, and "
			       "values; quant-acts without %s before it",
			       place == PLACE_K_RAW ? "--kv-raw" : "--probs and --resid");
	if (t->o->dynamic_token && place >= PLACE_EDGES && strcmp(kind, "act-quant") == 0)
		return err_set(e, ERR_DATA, rec->name, "the stream says how activations are "
			       "quantized: without --activations");
	if (layer == t->layer)
		return err_set(e, ERR_DATA, rec->name, "run record behind tensors of its block");
	return 0;
}

/* What loaders make of packed scales that are not of the model's type is rounding: so the model is
 * said to be of a type that holds them. */
static enum dtype model_dtype(const struct ct_writer *t)
{
	const enum dtype was = t->o->dtype ? t->o->dtype : export_config_dtype(t->x);

	if (t->o->dtype || was == DT_F32 || was == DT_NONE || (was == DT_BF16 && t->bf16) ||
	    (was == DT_F16 && t->f16))
		return was;
	return t->f16 && t->largest < f32_to_bf16(65536) ? DT_F16 : DT_F32;
}

static int write_all(struct ct_writer *t, struct outdir *dir, struct stream_in *in, struct err *e)
{
	struct buf config = { 0 };
	int ret;

	if (export_read(t->x, in, e))
		return -1;
	if (t->x->n_codes == 0)
		return err_set(e, ERR_DATA, "", "no codes in the stream: put rtn or gptq before "
			       "to-ct, or use to-hf");
	ret = st_writer_finish(t->w, e);
	if (!ret)
		ret = ct_schemes_print(t->schemes, &t->x->model, &t->beside, &config, e);
	if (!ret)
		ret = export_config(t->x, model_dtype(t), buf_str(&config), e);
	buf_release(&config);
	return ret ? -1 : readback_check(t->b, dir->temp, e);
}

int ct_write(struct outdir *dir, struct stream_in *in, struct export *x,
	     const struct ct_options *o, struct err *e)
{
	static const struct export_ops ops = { NULL, take_codes, take_weight, NULL, take_run,
					       NULL };
	struct ct_writer t = { .o = o, .x = x, .bf16 = true, .f16 = true, .layer = -1 };
	int ret;

	x->ops = &ops;
	x->ctx = &t;
	x->dir = dir;
	x->progress = o->progress;
	t.schemes = ct_schemes_new();
	ret = t.schemes ? 0 : err_nomem(e, "", 64);
	if (!ret)
		ret = st_writer_new(&t.w, dir, o->max_shard, export_header_room(&x->model, 8), e);
	if (!ret)
		ret = readback_new(&t.b, e);
	if (!ret)
		ret = write_all(&t, dir, in, e);
	st_writer_free(t.w);
	readback_free(t.b);
	ct_schemes_free(t.schemes);
	run_release(&t.runs);
	ct_runs_release(&t.beside);
	free(t.batch);
	return ret;
}
