/* SPDX-License-Identifier: Apache-2.0 */
/*
 * clamp_note.c - the note on a clamp, and the table of such notes (clamp_note.h)
 */
#include "lib/model/clamp_note.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const shares[] = { "int4", "int5_6", "int7_8", "packed" };

static bool is_note(const struct record *r)
{
	char kind[16];

	return r->type == REC_NOTE && record_get_str(r, "kind", kind, sizeof(kind)) == 1 &&
	       strcmp(kind, "clamp") == 0;
}

/* ---- written --------------------------------------------------------------------- */

/* Room for a token: as floats, codes, and packed. */
struct room {
	struct quant_codes codes;
	float *y;
	int16_t *q;
	uint8_t *packed;
};

static void room_free(struct room *m)
{
	free(m->codes.code);
	free(m->codes.scale);
	free(m->codes.zero);
	free(m->y);
	free(m->q);
	free(m->packed);
}

static int room_new(struct room *m, const struct quant *q, size_t width, const char *where,
		    struct err *e)
{
	m->codes.code = malloc(width);
	m->codes.scale = malloc(width * sizeof(float));
	m->codes.zero = malloc(width * sizeof(int32_t));
	m->y = malloc(width * sizeof(float));
	m->q = malloc(width * sizeof(*m->q));
	m->packed = malloc(clamp_bound(&q->clamp, width));
	return m->codes.code != NULL && m->codes.scale != NULL && m->codes.zero != NULL &&
	       m->y != NULL && m->q != NULL && m->packed != NULL ? 0 :
	       err_nomem(e, where, 16 * width);
}

static int fit_all(const struct quant *q, const float *x, size_t n, struct quant_grid *g)
{
	float lo = x[0], hi = x[0];

	for (size_t i = 0; i < n; i++) {
		lo = fminf(lo, x[i]);
		hi = fmaxf(hi, x[i]);
	}
	return quant_fit(q, lo, hi, g);
}

/* The bytes of the tokens packed, 0 if there is no grid; groups are counted in their classes. */
static uint64_t pack_all(struct room *m, const struct quant *q, const float *x, size_t rows,
			 size_t width, uint64_t count[CLAMP_CLASSES])
{
	struct quant plain = *q;
	struct quant_grid g;
	uint64_t bytes = 0;
	size_t at;

	plain.clamp.group = 0;
	if (q->per == QUANT_TENSOR && q->fixed == NULL) {
		if (fit_all(&plain, x, rows * width, &g) < 0)
			return 0;
		plain.fixed = &g;
	}
	for (size_t i = 0; i < rows; i++, x += width) {
		if (quant_row(&plain, m->y, x, width, &m->codes, &at) < 0)
			return 0;
		for (size_t j = 0; j < width; j++)
			m->q[j] = (int16_t)(m->codes.code[j] + 128);
		bytes += clamp_pack(&q->clamp, m->packed, m->q, width, count);
	}
	return bytes;
}

static int set_note(struct block *b, const char *name, const struct quant *q, size_t rows,
		    const double *share, struct err *e)
{
	struct item *it;

	for (size_t i = 0; i < b->n; i++)
		if (is_note(&b->items[i].rec) && strcmp(b->items[i].rec.name, name) == 0)
			b->items[i].drop = true;
	it = block_note(b, name, "clamp", e);
	if (it == NULL)
		return -1;
	if (record_set_int(&it->rec, "group", (int64_t)q->clamp.group) < 0 ||
	    record_set_int(&it->rec, "tokens", (int64_t)rows) < 0)
		return err_nomem(e, name, 64);
	for (int i = 0; i < 4; i++)
		if (record_set_double(&it->rec, shares[i], share[i]) < 0)
			return err_nomem(e, name, 64);
	return 0;
}

int clamp_note(struct block *b, enum edge g, const struct quant *q, struct err *e)
{
	const struct item *it = block_stat(b, g, STAT_SAMPLES);
	const size_t rows = it != NULL ? (size_t)it->rec.shape[0] : 0;
	const size_t width = it != NULL ? (size_t)it->rec.shape[1] : 0;
	uint64_t count[CLAMP_CLASSES] = { 0 }, bytes = 0;
	double share[4], groups;
	struct room m = { 0 };
	char name[256];
	int ret;

	if (rows == 0)
		return 0;
	model_edge_name(b->model, g, b->layer, name);
	ret = room_new(&m, q, width, name, e);
	if (ret == 0 && (bytes = pack_all(&m, q, it->data, rows, width, count)) == 0)
		ret = err_set(e, ERR_DATA, name, "no grid holds a token of the samples");
	room_free(&m);
	groups = (double)rows * (double)(width / q->clamp.group);
	for (int i = 0; i < CLAMP_CLASSES; i++)
		share[i] = (double)count[i] / groups;
	share[3] = (double)bytes / ((double)rows * (double)width);
	return ret == 0 ? set_note(b, name, q, rows, share, e) : -1;
}

/* ---- taken back ------------------------------------------------------------------ */

static bool has_clamp(const struct record *r)
{
	const void *p;
	size_t n;

	return r->type == REC_RUN && record_get_raw(r, "clamp", &p, &n) == 1;
}

size_t clamp_count(const struct block *b)
{
	size_t n = 0;

	for (size_t i = 0; i < b->n; i++)
		n += !b->items[i].drop && has_clamp(&b->items[i].rec);
	return n;
}

static int note_off(struct block *b, const char *name, struct err *e)
{
	for (size_t i = 0; i < b->n; i++) {
		struct record *r = &b->items[i].rec;

		if (is_note(r) && strcmp(r->name, name) == 0 &&
		    (record_set_double(r, "packed", 1) < 0 || record_set_bool(r, "off", true) < 0))
			return err_nomem(e, name, 64);
	}
	return 0;
}

int clamp_drop(struct block *b, bool attention, bool mlp, size_t *n, struct err *e)
{
	long layer;

	*n = 0;
	for (size_t i = 0; i < b->n; i++) {
		struct record *r = &b->items[i].rec;
		const int g = has_clamp(r) ? model_edge(b->model, r->name, &layer) : -1;
		const bool front = g == EDGE_ATTN_IN || g == EDGE_ATTN_MID;

		if (g < 0 || !(front ? attention : mlp))
			continue;
		record_unset(r, "clamp");
		record_unset(r, "clamp_by");
		record_unset(r, "clamp_mid");
		++*n;
		if (note_off(b, r->name, e) < 0)
			return -1;
	}
	return 0;
}

/* ---- read ------------------------------------------------------------------------ */

void clamp_table_head(struct buf *out)
{
	buf_printf(out, "%-32s %6s %8s %8s %8s %8s %8s\n", "edge", "group", "tokens", "int4 %",
		   "int5-6 %", "int7-8 %", "packed %");
}

static void put_shares(struct buf *out, const double *share)
{
	for (int i = 0; i < 4; i++)
		buf_printf(out, " %8.2f", 100 * share[i]);
}

/* Blocks of which an input is clamped, and all.  Notes of a block follow one another. */
static void count(struct clamp_table *t, const char *name, bool off)
{
	const char *dot = strncmp(name, "layers.", 7) == 0 ? strchr(name + 7, '.') : NULL;
	const size_t n = dot != NULL ? (size_t)(dot + 1 - name) : 0;

	if (strncmp(t->block, name, n) != 0 || t->block[n] != '\0' || t->edges == 0) {
		snprintf(t->block, sizeof(t->block), "%.*s", (int)n, name);
		t->blocks++;
		t->block_is_on = false;
	}
	t->edges++;
	t->on += !off;
	t->blocks_on += !off && !t->block_is_on;
	t->block_is_on |= !off;
}

int clamp_table_row(struct clamp_table *t, struct buf *out, const struct record *r, struct err *e)
{
	int64_t group, tokens;
	double share[4];
	bool off = false;

	if (!is_note(r))
		return 0;
	for (int i = 0; i < 4; i++)
		if (record_get_double(r, shares[i], &share[i]) != 1)
			return err_set(e, ERR_DATA, r->name, "a note on a clamp without %s",
				       shares[i]);
	if (record_get_int(r, "group", &group) != 1 || record_get_int(r, "tokens", &tokens) != 1)
		return err_set(e, ERR_DATA, r->name, "a note on a clamp without group or tokens");
	for (int i = 0; i < 4; i++)
		t->sum[i] += share[i];
	(void)record_get_bool(r, "off", &off);
	count(t, r->name, off);
	buf_printf(out, "%-32s %6" PRId64 " %8" PRId64, r->name, group, tokens);
	put_shares(out, share);
	buf_printf(out, "%s\n", off ? "  not clamped" : "");
	return 1;
}

void clamp_table_mean(const struct clamp_table *t, struct buf *out)
{
	double mean[4];

	for (int i = 0; i < 4; i++)
		mean[i] = t->sum[i] / t->edges;
	buf_printf(out, "%-32s %6s %8s", "mean of edges", "", "");
	put_shares(out, mean);
	buf_printf(out, "\nclamped: %ld of %.0f inputs, in %ld of %ld blocks\n", t->on, t->edges,
		   t->blocks_on, t->blocks);
}
