/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rotate.c - which rotation goes where: blocks, what stands before and behind them (rotate.h)
 */
#include "lib/method/rotate_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/pool.h"
#include "lib/compute/hadamard.h"

/* ---- the matrices ----------------------------------------------------------------- */

struct given {
	double *m;
	size_t order;
};

/* One tensor of the file, F32 or F64, square. */
static int take_given(struct stream_in *in, const struct record *rec, struct given *g,
		      struct err *e)
{
	const size_t n = rec->rank == 2 ? (size_t)rec->shape[0] : 0;
	void *raw;

	if (n == 0 || rec->shape[1] != rec->shape[0] ||
	    (rec->dtype != DT_F32 && rec->dtype != DT_F64))
		return err_set(e, ERR_DATA, rec->name, "expected a square matrix of F32 or F64");
	if (g->m != NULL)
		return err_set(e, ERR_DATA, rec->name, "twice");
	raw = malloc(rec->nbytes);
	g->m = malloc(n * n * sizeof(*g->m));
	if (raw == NULL || g->m == NULL) {
		free(raw);
		return err_nomem(e, rec->name, (unsigned long long)n * n * sizeof(*g->m));
	}
	if (stream_payload(in, raw, e) < 0) {
		free(raw);
		return -1;
	}
	for (size_t i = 0; i < n * n; i++)
		g->m[i] = rec->dtype == DT_F32 ? (double)((float *)raw)[i] : ((double *)raw)[i];
	g->order = n;
	free(raw);
	return 0;
}

static int read_given(const char *file, struct given given[2], struct err *e)
{
	struct record rec = { .rank = -1 };
	struct stream_in *in;
	int got;

	if (stream_open_in(&in, file, e) < 0)
		return -1;
	while ((got = stream_next(in, &rec, e)) > 0)
		if (rec.type == REC_TENSOR &&
		    (strcmp(rec.name, "R1") == 0 || strcmp(rec.name, "R2") == 0) &&
		    take_given(in, &rec, &given[rec.name[1] - '1'], e) < 0) {
			got = -1;
			break;
		}
	record_clear(&rec);
	stream_close_in(in);
	return got;
}

/* R1 and R2 from the file; every one asked for must be there. */
static int use_given(struct rotate *r, struct err *e)
{
	const size_t want[2] = { r->opt.block ? (size_t)r->opt.block : (size_t)r->m->cfg.hidden,
				 (size_t)r->m->cfg.head_dim };
	struct rotation **to[2] = { &r->r1, &r->r2 };
	const bool mean[2] = { r->m->family->norm == NORM_LAYER, false };
	struct given given[2] = { { 0 } };
	int ret = read_given(r->opt.file, given, e);

	for (int i = 0; i < 2 && ret == 0; i++) {
		const char name[] = { 'R', (char)('1' + i), '\0' };

		if (!(r->opt.which >> i & 1))
			continue;
		if (given[i].m == NULL)
			ret = err_set(e, ERR_DATA, r->opt.file, "no tensor %s", name);
		else if (given[i].order != want[i])
			ret = err_set(e, ERR_DATA, name, "of order %zu, where %zu is wanted",
				      given[i].order, want[i]);
		else
			ret = rotation_given(to[i], given[i].m, want[i], mean[i], name, e);
	}
	free(given[0].m);
	free(given[1].m);
	return ret;
}

/* --block does not divide so many channels: the orders that do and, unless any, have a Hadamard
 * matrix. */
static int no_block(const struct rotate *r, const char *where, long width, bool any,
		    struct err *e)
{
	char sizes[96] = "";

	for (long n = width; n > 1 && strlen(sizes) < sizeof(sizes) - 8; n--)
		if (width % n == 0 && (any || hadamard_known((size_t)n)))
			snprintf(sizes + strlen(sizes), sizeof(sizes) - strlen(sizes), "%s%ld",
				 sizes[0] != '\0' ? ", " : "; these do: ", n);
	return err_set(e, ERR_DATA, where, "blocks of %ld do not divide %ld %schannels%s",
		       r->opt.block, width, where[0] == '-' ? "hidden " : "", sizes);
}

/* Order of the Hadamard matrix on a vector of so many values. */
static size_t order_of(const struct rotate *r, long width)
{
	return (size_t)(r->opt.block ? r->opt.block : width);
}

static int make_online(struct rotate *r, enum edge g, struct rotation **to, struct err *e)
{
	const struct edge_row row = model_edge_row(r->m, g);
	const long width = model_edge_width(r->m, g);

	if (row.name == NULL || width == 0)
		return 0;
	if (width % (long)order_of(r, width))
		return no_block(r, row.name, width, false, e);
	return rotation_new(to, ROTATION_HADAMARD, order_of(r, width), false, 0, row.name, e);
}

static int make_rotations(struct rotate *r, struct err *e)
{
	const struct model_config *c = &r->m->cfg;
	const bool mean = r->m->family->norm == NORM_LAYER;

	if (r->opt.block && r->opt.which & ROTATE_R1 && c->hidden % r->opt.block)
		return no_block(r, "--block", c->hidden, r->opt.kind == ROTATION_ORTHOGONAL,
				e);
	if (r->opt.file != NULL) {
		if (use_given(r, e) < 0)
			return -1;
	} else if ((r->opt.which & ROTATE_R1 &&
		    rotation_new(&r->r1, r->opt.kind, order_of(r, c->hidden), mean, r->opt.seed,
				 "residual stream", e) < 0) ||
		   (r->opt.which & ROTATE_R2 &&
		    rotation_new(&r->r2, r->opt.kind, (size_t)c->head_dim, false,
				 r->opt.seed + 1, "head", e) < 0)) {
		return -1;
	}
	if (!(r->opt.which & ROTATE_R4))
		return 0;
	if (c->experts > 0 && (make_online(r, EDGE_SHARED_MID, &r->r4_shared, e) < 0 ||
			       make_online(r, EDGE_X_MID, &r->r4_expert, e) < 0))
		return -1;
	return model_has_edge(r->m, EDGE_MLP_MID, 0) || c->experts == 0 || c->n_dense > 0 ||
	       c->sparse_step > 1 ? make_online(r, EDGE_MLP_MID, &r->r4, e) : 0;
}

static int check(struct rotate *r, struct err *e)
{
	const struct model *m = r->m;

	if (r->opt.which & ROTATE_R1 && m->cfg.post_norm)
		return err_set(e, ERR_DATA, m->family->model_type, "norms stand behind attention "
			       "and MLP, so their gain is in the residual stream and R1 cannot "
			       "be folded: --rotations=r2");
	if (r->opt.which & ROTATE_R3 && m->cfg.rope == ROPE_NONE)
		return err_set(e, ERR_DATA, m->family->model_type, "R3 stands behind rotary "
			       "positions, which this model does not have; leave r3 out of "
			       "--rotations");
	if (r->opt.which & ROTATE_R3 && !hadamard_known((size_t)m->cfg.head_dim))
		return err_set(e, ERR_DATA, "head", "no Hadamard matrix of order %ld is known "
			       "here, for R3", m->cfg.head_dim);
	r->untie = m->cfg.tied && r->opt.which & ROTATE_R1 &&
		   !model_has(m, SLOT_PROJECT_IN, -1);
	if (r->untie && r->opt.keep_tied)
		return err_set(e, ERR_DATA, "head", "is tied to the embedding, which R1 parts it "
			       "from: without --keep-tied, or --rotations=r2");
	return 0;
}

int rotate_new(struct rotate **out, const struct model *m, struct model *to,
	       const struct rotate_options *opt, struct pool *pool, struct err *e)
{
	struct rotate *r = calloc(1, sizeof(*r));

	*out = NULL;
	if (r == NULL)
		return err_nomem(e, "rotate", sizeof(*r));
	r->m = m;
	r->opt = *opt;
	r->pool = pool;
	if (check(r, e) < 0 || make_rotations(r, e) < 0 || gain_reset(r, &r->final, e) < 0) {
		rotate_free(r);
		return -1;
	}
	*to = *m;
	to->cfg.tied = m->cfg.tied && !r->untie;
	r->to = to;
	*out = r;
	return 0;
}

void rotate_free(struct rotate *r)
{
	if (r == NULL)
		return;
	rotation_free(r->r1);
	rotation_free(r->r2);
	rotation_free(r->r4);
	rotation_free(r->r4_shared);
	rotation_free(r->r4_expert);
	item_release(&r->end);
	item_release(&r->embed);
	free(r->final.g);
	free(r->final.c);
	free(r->wide);
	free(r);
}

long rotate_lost(const struct rotate *r)
{
	return r->lost;
}

int rotate_parse(const char *list, unsigned *which, struct err *e)
{
	*which = 0;
	if (strcmp(list, "none") == 0)
		return 0;
	for (const char *p = list;; p++) {
		if (p[0] != 'r' || p[1] < '1' || p[1] > '4' || (p[2] && p[2] != ','))
			return err_set(e, ERR_USAGE, "--rotations", "expected some of r1,r2,r3,r4 "
				       "with commas between, or none, got '%s'", list);
		*which |= 1u << (p[1] - '1');
		p += 2;
		if (!*p)
			return 0;
	}
}

int rotate_check(const struct rotate_options *o, struct err *e)
{
	const bool made = o->which & (ROTATE_R1 | ROTATE_R2);

	if (o->which == 0)
		return 0;
	if (!made && o->matrix_given)
		return err_set(e, ERR_USAGE, "--matrix", "is of r1 and r2: r3 and r4 are Hadamard "
			       "matrices");
	if (!made && o->seed_given)
		return err_set(e, ERR_USAGE, "--seed", "is of r1 and r2");
	if (o->seed_given && (o->file != NULL || o->kind == ROTATION_HADAMARD))
		return err_set(e, ERR_USAGE, "--seed", "is of random matrices: without it, or "
			       "another --matrix");
	if (o->block && !(o->which & (ROTATE_R1 | ROTATE_R4)))
		return err_set(e, ERR_USAGE, "--block", "is of r1 and r4");
	return 0;
}

/* ---- outside the blocks ----------------------------------------------------------- */

#define CHUNK_VALUES ((size_t)1 << 22) /* of a table's rows that are in F64 at a time */

/* Rows of a table or of the head: diag(g) first if they read the final norm, then R1. */
static int rotate_table(struct rotate *r, float *x, size_t rows, size_t n, const double *g,
			struct err *e)
{
	const size_t step = CHUNK_VALUES / n ? CHUNK_VALUES / n : 1;
	double *w = rotate_wide(r, (step < rows ? step : rows) * n, e);

	if (w == NULL)
		return -1;
	for (size_t i = 0; i < rows; i += step) {
		const size_t m = step < rows - i ? step : rows - i;

		for (size_t j = 0; j < m * n; j++)
			w[j] = x[i * n + j] * (g != NULL ? g[j % n] : 1.0);
		if (rotation_rows(r->r1, w, m, n, r->pool, e) < 0)
			return -1;
		for (size_t j = 0; j < m * n; j++)
			x[i * n + j] = (float)w[j];
	}
	return 0;
}

/* A linear that writes the stream: R1' W. */
static int rotate_writer(struct rotate *r, float *x, size_t rows, size_t cols, struct err *e)
{
	double *w = rotate_wide(r, rows * cols, e);

	if (w == NULL)
		return -1;
	for (size_t j = 0; j < rows * cols; j++)
		w[j] = x[j];
	if (rotation_columns(r->r1, w, rows, cols, r->pool, e) < 0)
		return -1;
	for (size_t j = 0; j < rows * cols; j++)
		x[j] = (float)w[j];
	return 0;
}

static int rotate_end(struct rotate *r, enum slot s, float *x, struct err *e)
{
	const bool project = model_has(r->m, SLOT_PROJECT_OUT, -1);
	const size_t hidden = (size_t)r->m->cfg.hidden;
	int64_t shape[2] = { 1, 1 };
	size_t rows, cols;

	if (model_shape(r->m, s, shape) == 1)
		shape[1] = 1;
	rows = (size_t)shape[0];
	cols = (size_t)shape[1];
	switch (s) {
	case SLOT_EMBED:
		return project ? 0 : rotate_table(r, x, rows, cols, NULL, e);
	case SLOT_POSITIONS:
	case SLOT_CLASS:
	case SLOT_PATCH_B:
		return rotate_table(r, x, rows * cols / hidden, hidden, NULL, e);
	case SLOT_PROJECT_IN:
	case SLOT_PATCH:
		return rotate_writer(r, x, rows, cols, e);
	case SLOT_NORM_F:
		return gain_take(r, &r->final, x, NULL, e);
	case SLOT_NORM_F_B:
		return gain_bias(r, &r->final, x, "final norm", e);
	case SLOT_PROJECT_OUT:
		return rotate_table(r, x, rows, cols, r->final.g, e);
	case SLOT_HEAD:
		return project ? 0 : rotate_table(r, x, rows, cols, r->final.g, e);
	default:
		return 0;
	}
}

/* The head that was the embedding, as a tensor of its own. */
static int write_head(struct rotate *r, struct stream_out *out, struct err *e)
{
	struct item *it = &r->embed;
	float *x = item_f32(it, e);

	if (it->data == NULL)
		return err_set(e, ERR_DATA, "head", "the embedding has not come before it");
	if (x == NULL || rotate_end(r, SLOT_HEAD, x, e) < 0)
		return -1;
	model_tensor_name(r->to, SLOT_HEAD, -1, it->rec.name);
	r->untied = true;
	return stream_write(out, &it->rec, x, e);
}

int rotate_other(struct rotate *r, struct stream_in *in, struct record *rec,
		 struct stream_out *out, struct err *e)
{
	const enum slot s = ends_slot(r->m, rec);
	struct item *it = &r->end;
	float *x;

	if (rec->type == REC_ALIAS && r->untie)
		return write_head(r, out, e);
	if (rec->role == ROLE_CODES)
		return err_set(e, ERR_DATA, rec->name,
			       "is quantized already; put rotate before the quantizer");
	if (s == SLOT_NONE || r->r1 == NULL ||
	    (rec->role != ROLE_WEIGHT && rec->role != ROLE_BIAS))
		return stream_copy(out, in, rec, e);
	if (item_read(it, r->m, in, rec, e) < 0)
		return -1;
	if (s == SLOT_EMBED && r->untie) {
		if (record_dup(&r->embed.rec, rec, e) < 0)
			return -1;
		free(r->embed.data);
		r->embed.cap = rec->nbytes;
		r->embed.data = malloc(rec->nbytes);
		if (r->embed.data == NULL)
			return err_nomem(e, rec->name, rec->nbytes);
		memcpy(r->embed.data, it->data, rec->nbytes);
	}
	x = item_f32(it, e);
	if (x == NULL || rotate_end(r, s, x, e) < 0 || stream_write(out, &it->rec, x, e) < 0)
		return -1;
	item_release(it); /* an embedding is not to lie beside the blocks */
	return 0;
}

/* What was done, for whoever reads the stream. */
int rotate_finish(struct rotate *r, struct stream_out *out, struct err *e)
{
	struct record note = { .rank = -1 };
	int ret = -1;

	if (r->untie && !r->untied)
		return err_set(e, ERR_DATA, "head",
			       "neither a tensor nor an alias of the embedding");
	record_init(&note, REC_NOTE, "rotations");
	if (record_set_str(&note, "kind", "rotated") < 0 ||
	    record_set_str(&note, "by", "rotate") < 0 ||
	    (r->r1 != NULL && record_set_str(&note, "r1", rotation_name(r->r1)) < 0) ||
	    (r->r2 != NULL && record_set_str(&note, "r2", rotation_name(r->r2)) < 0) ||
	    (r->r4 != NULL && record_set_str(&note, "r4", rotation_name(r->r4)) < 0) ||
	    record_set_bool(&note, "untied", r->untied) < 0)
		err_nomem(e, "rotate", sizeof(note));
	else
		ret = stream_write(out, &note, NULL, e);
	record_clear(&note);
	return ret;
}
