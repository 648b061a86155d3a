/* SPDX-License-Identifier: Apache-2.0 */
/*
 * listing.c - what is in a stream, from its headers alone
 */
#include "lib/model/listing.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/data/mpwalk.h"
#include "lib/data/pipeline.h"
#include "lib/data/stream.h"
#include "lib/data/value.h"
#include "lib/model/codes.h"
#include "lib/model/clamp_note.h"
#include "lib/model/experts.h"

struct listing {
	enum listing_kind kind;
	struct record head, calib;
	struct buf rows;          /* lines, or JSON objects with commas between */
	uint64_t records, blocks, tensors, parameters, payload;
	/* the quantized weight at hand, name empty: none; and the name of
	 * the last weight counted, which its codes may precede or follow */
	struct record codes, scale, zero;
	char weight[STREAM_MAX_NAME + 1];
	uint64_t quantized, unfit; /* unfit: codes without a scale and zero that fit */
	double q_elements, q_bits;
	/* layer errors */
	uint64_t errors, with_h, few; /* few: H of fewer tokens than columns */
	uint64_t judged;              /* of two candidates one kept */
	double rel_sum, rel_max;
	char worst[STREAM_MAX_NAME + 1];
	struct clamp_table clamps;
};

struct listing *listing_new(enum listing_kind kind, struct err *e)
{
	struct listing *l = calloc(1, sizeof(*l));

	if (!l) {
		err_nomem(e, "", sizeof(*l));
		return NULL;
	}
	l->kind = kind;
	record_init(&l->head, REC_STREAM, "");
	record_init(&l->calib, REC_CALIB, "");
	record_init(&l->codes, REC_TENSOR, "");
	record_init(&l->scale, REC_TENSOR, "");
	record_init(&l->zero, REC_TENSOR, "");
	return l;
}

void listing_free(struct listing *l)
{
	if (!l)
		return;
	record_clear(&l->head);
	record_clear(&l->calib);
	record_clear(&l->codes);
	record_clear(&l->scale);
	record_clear(&l->zero);
	buf_release(&l->rows);
	free(l);
}

/* ---- sums ------------------------------------------------------------------------ */

static uint64_t elements(const struct record *r)
{
	uint64_t n = 1;

	for (int i = 0; i < r->rank; i++)
		n *= (uint64_t)r->shape[i];
	return n;
}

/* The quantized weight at hand is over. */
static void close_codes(struct listing *l)
{
	struct codes q;
	struct err e;

	if (!l->codes.name[0])
		return;
	if (codes_init(&q, &l->codes, &e) < 0 ||
	    codes_fit(&q, l->scale.name[0] ? &l->scale : NULL, l->zero.name[0] ? &l->zero : NULL,
		      &e) < 0) {
		l->unfit++;
	} else {
		l->quantized++;
		l->q_elements += (double)q.rows * (double)q.cols;
		l->q_bits += codes_bits(&q);
	}
	if (strcmp(l->weight, l->codes.name) != 0)
		l->parameters += elements(&l->codes);
	memcpy(l->weight, l->codes.name, sizeof(l->weight));
	record_init(&l->codes, REC_TENSOR, "");
	record_init(&l->scale, REC_TENSOR, "");
	record_init(&l->zero, REC_TENSOR, "");
}

static int add_tensor(struct listing *l, const struct record *r, struct err *e)
{
	l->tensors++;
	if (strcmp(l->codes.name, r->name) != 0)
		close_codes(l);
	switch (r->role) {
	case ROLE_WEIGHT: case ROLE_BIAS:
		if (strcmp(l->weight, r->name) != 0)
			l->parameters += elements(r);
		memcpy(l->weight, r->name, sizeof(l->weight));
		return 0;
	case ROLE_CODES:
		return record_dup(&l->codes, r, e);
	case ROLE_SCALE:
		return record_dup(&l->scale, r, e);
	case ROLE_ZERO:
		return record_dup(&l->zero, r, e);
	default:
		return 0;
	}
}

/* The note that pack-int4 leaves in the place of a calibration set, as that set's header. */
static int add_note(struct listing *l, const struct record *r, struct err *e)
{
	struct record *c = &l->calib;
	char kind[32];

	if (c->name[0] || c->rank >= 0 || !record_get_str(r, "kind", kind, sizeof(kind)) ||
	    strcmp(kind, "calibration") != 0)
		return 0;
	if (record_dup(c, r, e) < 0)
		return -1;
	if (record_get_int(r, "nsamples", &c->shape[0]) &&
	    record_get_int(r, "seqlen", &c->shape[1]))
		c->rank = 2;
	else if (record_get_int(r, "channels", &c->shape[1]) &&
		 record_get_int(r, "height", &c->shape[2]) &&
		 record_get_int(r, "width", &c->shape[3]))
		c->rank = 4;
	return 0;
}

static int add_sums(struct listing *l, const struct record *r, struct err *e)
{
	l->records++;
	l->payload += r->nbytes;
	switch (r->type) {
	case REC_STREAM:
		return record_dup(&l->head, r, e);
	case REC_CALIB:
		return record_dup(&l->calib, r, e);
	case REC_NOTE:
		close_codes(l);
		return add_note(l, r, e);
	case REC_BLOCK:
		l->blocks++;
		return 0;
	case REC_TENSOR:
		return add_tensor(l, r, e);
	default:
		close_codes(l);
		return 0;
	}
}

/* ---- rows ------------------------------------------------------------------------ */

static void shape_text(char out[200], const struct record *r)
{
	size_t n = 0;

	out[0] = '\0';
	for (int i = 0; i < r->rank; i++)
		n += (size_t)snprintf(out + n, 200 - n, "%s%" PRId64, i ? "x" : "", r->shape[i]);
}

/* A string of the header for a terminal, which must not obey it: control characters become '?'.
 * Names, types and roles have none. */
static bool get_text(const struct record *r, const char *key, char *out, size_t cap)
{
	if (!record_get_str(r, key, out, cap))
		return false;
	for (; *out; out++)
		if ((unsigned char)*out < 0x20 || *out == 0x7f)
			*out = '?';
	return true;
}

/* What a record is beside its type and name: its role, a statistic, the kind of a note. */
static void detail(char *out, size_t cap, const struct record *r)
{
	char of[STREAM_MAX_NAME + 1];

	snprintf(out, cap, "%s", r->role_name);
	if (r->role == ROLE_STAT)
		get_text(r, "stat", out, cap);
	else if (r->type == REC_NOTE)
		get_text(r, "kind", out, cap);
	else if (r->type == REC_ALIAS && get_text(r, "of", of, sizeof(of)))
		snprintf(out, cap, "of %s", of);
}

static void add_row(struct listing *l, const struct record *r)
{
	char what[STREAM_MAX_NAME + 16], shape[200], bytes[32] = "", name[STREAM_MAX_NAME + 1];
	int64_t index;

	if (r->type == REC_STREAM || r->type == REC_BLOCK_END)
		return;
	memcpy(name, r->name, sizeof(name));
	if (r->type == REC_BLOCK && record_get_int(r, "index", &index))
		snprintf(name, sizeof(name), "%" PRId64, index);
	detail(what, sizeof(what), r);
	shape_text(shape, r);
	if (r->nbytes > 0)
		snprintf(bytes, sizeof(bytes), "%" PRIu64, r->nbytes);
	buf_printf(&l->rows, "%-8s %-48s", r->type_name, name);
	buf_printf(&l->rows, " %-8s %-5s %12s %12s %s", what,
		   r->dtype == DT_NONE ? "" : dtype_name(r->dtype), shape, bytes, r->enc);
	while (l->rows.n > 0 && !l->rows.failed && l->rows.p[l->rows.n - 1] == ' ')
		l->rows.n--;
	buf_byte(&l->rows, '\n');
}

/* The keys this version has no field for: ,"key":value ... */
static int add_extra_json(struct buf *out, const struct record *r, struct err *e)
{
	size_t pos = 0;
	uint64_t n;

	for (int part = 0; pos < r->extra_len; part ^= 1, pos += (size_t)n) {
		buf_byte(out, part ? ':' : ',');
		if (token_extent(r->extra + pos, r->extra_len - pos, &n) != 1)
			return err_set(e, ERR_DATA, r->name, "damaged header");
		if (value_to_json(out, r->extra + pos, (size_t)n, e) < 0)
			return -1;
	}
	return 0;
}

static int add_json_row(struct listing *l, const struct record *r, struct err *e)
{
	struct buf *out = &l->rows;

	if (r->type == REC_STREAM)
		return 0;
	buf_puts(out, out->n > 0 ? ",\n  {\"t\":" : "\n  {\"t\":");
	value_quote_json(out, r->type_name, strlen(r->type_name));
	if (r->name[0]) {
		buf_puts(out, ",\"name\":");
		value_quote_json(out, r->name, strlen(r->name));
	}
	if (r->role != ROLE_NONE) {
		buf_puts(out, ",\"role\":");
		value_quote_json(out, r->role_name, strlen(r->role_name));
	}
	if (r->dtype != DT_NONE)
		buf_printf(out, ",\"dtype\":\"%s\"", dtype_name(r->dtype));
	if (r->rank >= 0) {
		buf_puts(out, ",\"shape\":[");
		for (int i = 0; i < r->rank; i++)
			buf_printf(out, "%s%" PRId64, i ? "," : "", r->shape[i]);
		buf_byte(out, ']');
	}
	if (r->nbytes > 0)
		buf_printf(out, ",\"nbytes\":%" PRIu64, r->nbytes);
	if (r->enc[0]) {
		buf_puts(out, ",\"enc\":");
		value_quote_json(out, r->enc, strlen(r->enc));
	}
	if (r->must)
		buf_puts(out, ",\"must\":true");
	if (add_extra_json(out, r, e) < 0)
		return -1;
	buf_byte(out, '}');
	return 0;
}

static void add_number(struct buf *out, const struct record *r, const char *key, const char *fmt,
		       const char *blank)
{
	double v;

	if (record_get_double(r, key, &v))
		buf_printf(out, fmt, v);
	else
		buf_puts(out, blank);
}

/* The columns of LISTING_ERRORS_TSV behind name, by, measure and rel_err: keys of the note. */
static const char *const error_keys[] = {
	"bits", "group", "damp", "damp_raised", "dead", "step", "tokens", "starved", "seconds",
	"kept", "err_options", "err_plain",
};

/* measure: h, under a Hessian; t, under one of too few tokens; w, of the weights alone. */
static void add_error_tsv(struct buf *out, const struct record *r, const char *by, double rel,
			  char measure)
{
	char text[32];

	buf_printf(out, "%s\t%s\t%c\t%.9g", r->name, by, measure, rel);
	for (size_t i = 0; i < sizeof(error_keys) / sizeof(*error_keys); i++) {
		buf_byte(out, '\t');
		if (get_text(r, error_keys[i], text, sizeof(text)))
			buf_puts(out, text);
		else
			add_number(out, r, error_keys[i], "%.9g", "");
	}
	buf_byte(out, '\n');
}

/* A note of kind layer-error; rel_err is under H, w_rel_err of the weights alone. */
static void add_error(struct listing *l, const struct record *r)
{
	struct buf *out = &l->rows;
	char kind[32], by[32] = "";
	int64_t tokens;
	double rel;
	bool h, few;

	if (r->type != REC_NOTE || !record_get_str(r, "kind", kind, sizeof(kind)) ||
	    strcmp(kind, "layer-error") != 0)
		return;
	get_text(r, "by", by, sizeof(by));
	h = record_get_double(r, "rel_err", &rel);
	if (!h && !record_get_double(r, "w_rel_err", &rel))
		return;
	few = h && record_get_int(r, "tokens_short", &tokens) == 1;
	if (l->kind == LISTING_ERRORS_TSV) {
		l->errors++;
		add_error_tsv(out, r, by, rel, few ? 't' : h ? 'h' : 'w');
		return;
	}
	l->errors++;
	l->with_h += h;
	l->few += few;
	l->rel_sum += rel;
	if (rel >= l->rel_max) {
		l->rel_max = rel;
		memcpy(l->worst, r->name, sizeof(l->worst));
	}
	buf_printf(out, "%-48s %-6s", r->name, by);
	add_number(out, r, "bits", " %4.0f", "    -");
	buf_printf(out, " %11.4e%s", rel, few ? "t" : h ? " " : "w");
	add_number(out, r, "damp", " %9.3g", "         -");
	add_number(out, r, "damp_raised", " %6.0f", "      -");
	add_number(out, r, "dead", " %6.0f", "      -");
	add_number(out, r, "err_options", " %11.4e", "");
	add_number(out, r, "err_plain", " %11.4e", "");
	if (record_get_str(r, "kept", kind, sizeof(kind))) {
		l->judged++;
		buf_printf(out, " %s", kind);
	}
	add_number(out, r, "seconds", " %8.3f", "");
	if (record_get_str(r, "starved", kind, sizeof(kind))) {
		add_number(out, r, "tokens", " %8.0f tokens:", "");
		buf_printf(out, " %s", kind);
	}
	buf_byte(out, '\n');
}

int listing_add(struct listing *l, const struct record *r, struct err *e)
{
	if (add_sums(l, r, e) < 0)
		return -1;
	if (l->kind == LISTING_TABLE)
		add_row(l, r);
	else if (l->kind == LISTING_JSON && add_json_row(l, r, e) < 0)
		return -1;
	else if (l->kind == LISTING_ERRORS || l->kind == LISTING_ERRORS_TSV)
		add_error(l, r);
	else if (l->kind == LISTING_EXPERTS && experts_row(&l->rows, r, e) < 0)
		return -1;
	else if (l->kind == LISTING_CLAMP && clamp_table_row(&l->clamps, &l->rows, r, e) < 0)
		return -1;
	return buf_failed(&l->rows, r->name, e);
}

/* ---- texts ----------------------------------------------------------------------- */

/* "1,234,567" */
static void put_count(struct buf *out, uint64_t v)
{
	char digits[24];
	int n = snprintf(digits, sizeof(digits), "%" PRIu64, v);

	for (int i = 0; i < n; i++) {
		if (i > 0 && (n - i) % 3 == 0)
			buf_byte(out, ',');
		buf_byte(out, digits[i]);
	}
}

/* xxh128:... of the calibration set, if the stream has it or a note of it. */
static bool fingerprint(const struct listing *l, char *out, size_t cap)
{
	return get_text(&l->calib, "fingerprint", out, cap);
}

static void put_sums(struct listing *l, struct buf *out)
{
	char text[200];

	if (get_text(&l->head, "family", text, sizeof(text)))
		buf_printf(out, "family       %s, %" PRIu64 " block%s\n", text, l->blocks,
			   l->blocks == 1 ? "" : "s");
	if (l->tensors > 0) {
		buf_printf(out, "tensors      %" PRIu64 ", ", l->tensors);
		put_count(out, l->parameters);
		buf_puts(out, " parameters\n");
	}
	if (l->quantized > 0)
		buf_printf(out, "quantized    %" PRIu64 " weights, %.3f bits each with scales\n",
			   l->quantized, l->q_bits / l->q_elements);
	if (l->unfit > 0)
		buf_printf(out, "unsound      %" PRIu64 " codes without a scale and zero that fit "
			   "them; see qp-check\n", l->unfit);
	if (fingerprint(l, text, sizeof(text))) {
		buf_printf(out, "calibration  %s", text);
		shape_text(text, &l->calib);
		buf_printf(out, "%s%s\n", !text[0] ? "" : l->calib.rank == 4 ? ", images " :
			   ", tokens ", text);
	}
	buf_puts(out, "payload      ");
	put_count(out, l->payload);
	buf_puts(out, " bytes\n");
}

static int put_table(struct listing *l, struct buf *out, struct err *e)
{
	struct buf line = { 0 };
	int r = pipeline_text(&line, &l->head, e);

	if (r == 0) {
		buf_printf(out, "%-8s %-48s %-8s %-5s %12s %12s\n", "record", "name", "what",
			   "dtype", "shape", "bytes");
		buf_add(out, l->rows.p, l->rows.n);
		buf_byte(out, '\n');
		put_sums(l, out);
		if (line.n > 0)
			buf_printf(out, "made by      %s\n", buf_str(&line));
	}
	out->failed |= line.failed;
	buf_release(&line);
	return r;
}

/* A key of the header as it stands, or null. */
static int put_head_json(struct buf *out, const struct listing *l, const char *name,
			 const char *key, struct err *e)
{
	const void *raw;
	size_t n;

	buf_printf(out, " \"%s\":", name);
	if (!record_get_raw(&l->head, key, &raw, &n))
		buf_puts(out, "null");
	else if (value_to_json(out, raw, n, e) < 0)
		return -1;
	buf_puts(out, ",\n");
	return 0;
}

static void put_calib_json(struct buf *out, const struct listing *l)
{
	char text[200];

	buf_puts(out, " \"calibration\":");
	if (!fingerprint(l, text, sizeof(text))) {
		buf_puts(out, "null,\n");
		return;
	}
	buf_puts(out, "{\"fingerprint\":");
	value_quote_json(out, text, strlen(text));
	if (l->calib.rank == 2)
		buf_printf(out, ",\"nsamples\":%" PRId64 ",\"seqlen\":%" PRId64, l->calib.shape[0],
			   l->calib.shape[1]);
	if (l->calib.rank == 4)
		buf_printf(out, ",\"nsamples\":%" PRId64 ",\"image\":[%" PRId64 ",%" PRId64 ",%"
			   PRId64 "]", l->calib.shape[0], l->calib.shape[1], l->calib.shape[2],
			   l->calib.shape[3]);
	buf_puts(out, "},\n");
}

static int put_json(struct listing *l, struct buf *out, struct err *e)
{
	struct buf line = { 0 };
	int r = pipeline_text(&line, &l->head, e);

	buf_puts(out, "{\n");
	if (r == 0)
		r = put_head_json(out, l, "version", "v", e);
	if (r == 0)
		r = put_head_json(out, l, "family", "family", e);
	if (r == 0)
		r = put_head_json(out, l, "config", "config", e);
	if (r == 0)
		r = put_head_json(out, l, "provenance", "prov", e);
	if (r == 0) {
		buf_puts(out, " \"pipeline\":");
		value_quote_json(out, line.n ? line.p : "", line.n);
		buf_puts(out, ",\n");
		put_calib_json(out, l);
		buf_printf(out, " \"blocks\":%" PRIu64 ",\n \"tensors\":%" PRIu64
			   ",\n \"parameters\":%" PRIu64 ",\n \"payload_bytes\":%" PRIu64 ",\n",
			   l->blocks, l->tensors, l->parameters, l->payload);
		buf_printf(out, " \"quantized\":%" PRIu64 ",\n \"bits_per_weight\":", l->quantized);
		if (l->quantized > 0)
			value_double(out, l->q_bits / l->q_elements);
		else
			buf_puts(out, "null");
		buf_puts(out, ",\n \"records\":[");
		buf_add(out, l->rows.p, l->rows.n);
		buf_puts(out, "\n ]\n}\n");
	}
	out->failed |= line.failed;
	buf_release(&line);
	return r;
}

static int put_errors(struct listing *l, struct buf *out, struct err *e)
{
	if (l->errors == 0)
		return err_set(e, ERR_DATA, "", "no notes of layer errors in this stream");
	if (l->kind == LISTING_ERRORS_TSV) {
		buf_puts(out, "layer\tby\tmeasure\trel_err");
		for (size_t i = 0; i < sizeof(error_keys) / sizeof(*error_keys); i++)
			buf_printf(out, "\t%s", error_keys[i]);
		buf_byte(out, '\n');
		buf_add(out, l->rows.p, l->rows.n);
		return 0;
	}
	buf_printf(out, "%-48s %-6s %4s %11s  %9s %6s %6s\n", "layer", "by", "bits", "rel_err",
		   "damp", "raised", "dead");
	buf_add(out, l->rows.p, l->rows.n);
	buf_printf(out, "\n%" PRIu64 " layers, mean rel_err %.4e, worst %.4e at %s\n", l->errors,
		   l->rel_sum / (double)l->errors, l->rel_max, l->worst);
	if (l->few)
		buf_printf(out, "t: H of fewer tokens than columns: looks better than it is "
			   "(%" PRIu64 " layers)\n", l->few);
	if (l->judged)
		buf_puts(out, "behind dead: errors with the options and without, by which one is "
			 "kept\n");
	if (l->with_h < l->errors)
		buf_puts(out, "w: of the weights alone, where there was no Hessian\n");
	return 0;
}

static int put_experts(struct listing *l, struct buf *out, struct err *e)
{
	if (l->rows.n == 0)
		return err_set(e, ERR_DATA, "", "no notes of experts in this stream; record-acts "
			       "leaves them");
	experts_head(out);
	buf_add(out, l->rows.p, l->rows.n);
	return 0;
}

static int put_clamps(struct listing *l, struct buf *out, struct err *e)
{
	if (l->rows.n == 0)
		return err_set(e, ERR_DATA, "", "no notes of clamps in this stream; quant-acts "
			       "--clamp leaves them where record-acts -S samples was before");
	clamp_table_head(out);
	buf_add(out, l->rows.p, l->rows.n);
	clamp_table_mean(&l->clamps, out);
	return 0;
}

static int put_provenance(struct listing *l, struct buf *out, struct err *e)
{
	size_t before = out->n;

	if (pipeline_text(out, &l->head, e) < 0)
		return -1;
	if (out->n == before)
		return err_set(e, ERR_DATA, "header", "no provenance in this stream");
	buf_byte(out, '\n');
	return 0;
}

int listing_text(struct listing *l, struct buf *out, struct err *e)
{
	int r;

	close_codes(l);
	r = l->kind == LISTING_TABLE ? put_table(l, out, e) :
	    l->kind == LISTING_JSON ? put_json(l, out, e) :
	    l->kind == LISTING_ERRORS || l->kind == LISTING_ERRORS_TSV ? put_errors(l, out, e) :
	    l->kind == LISTING_EXPERTS ? put_experts(l, out, e) :
	    l->kind == LISTING_CLAMP ? put_clamps(l, out, e) : put_provenance(l, out, e);
	return r < 0 ? -1 : buf_failed(out, "", e);
}
