/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rotate_block.c - the linears, norms and statistics of one block (rotate.h)
 */
#include "lib/method/rotate_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/model/run.h"

double *rotate_wide(struct rotate *r, size_t values, struct err *e)
{
	if (values > r->wide_values) {
		free(r->wide);
		r->wide_values = 0;
		r->wide = malloc(values * sizeof(*r->wide));
		if (r->wide == NULL)
			err_nomem(e, "rotate", values * sizeof(*r->wide));
		else
			r->wide_values = values;
	}
	return r->wide;
}

/* ---- norms ------------------------------------------------------------------------ */

int gain_reset(struct rotate *r, struct gain *g, struct err *e)
{
	const size_t n = (size_t)r->m->cfg.hidden;

	if (g->g == NULL)
		g->g = malloc(n * sizeof(*g->g));
	if (g->g == NULL)
		return err_nomem(e, "rotate", n * sizeof(*g->g));
	for (size_t i = 0; i < n; i++)
		g->g[i] = 1;
	free(g->c);
	g->c = NULL;
	g->invertible = true;
	g->shifted = false;
	return 0;
}

int gain_take(struct rotate *r, struct gain *g, float *w, float *bias, struct err *e)
{
	const size_t n = (size_t)r->m->cfg.hidden;

	for (size_t i = 0; i < n; i++) {
		g->g[i] = w[i];
		g->invertible &= w[i] != 0;
		w[i] = 1;
	}
	if (bias == NULL)
		return 0;
	g->c = malloc(n * sizeof(*g->c));
	if (g->c == NULL)
		return err_nomem(e, "rotate", n * sizeof(*g->c));
	for (size_t i = 0; i < n; i++) {
		g->c[i] = bias[i];
		g->shifted |= bias[i] != 0;
		bias[i] = 0;
	}
	return 0;
}

int gain_bias(struct rotate *r, struct gain *g, float *bias, const char *where, struct err *e)
{
	const size_t n = (size_t)r->m->cfg.hidden;
	double *w = rotate_wide(r, n, e);

	if (w == NULL)
		return -1;
	for (size_t i = 0; i < n; i++) {
		if (g->g[i] == 0 && bias[i] != 0)
			return err_set(e, ERR_DATA, where, "gain %zu is 0 and the bias is not: "
				       "R1 cannot be folded; --rotations=r2", i);
		w[i] = g->g[i] == 0 ? 0 : bias[i] / g->g[i];
	}
	if (rotation_rows(r->r1, w, 1, n, r->pool, e) < 0)
		return -1;
	for (size_t i = 0; i < n; i++)
		bias[i] = (float)w[i];
	return 0;
}

/* The f32 values of a tensor, NULL where the model has none (*e untouched) or on failure. */
static float *tensor(struct block *b, enum slot s, struct err *e)
{
	struct item *it = block_find(b, s, ROLE_WEIGHT);
	char where[256];

	if (it != NULL && block_find(b, s, ROLE_CODES) == NULL)
		return item_f32(it, e);
	model_tensor_name(b->model, s, b->layer, where);
	err_set(e, ERR_DATA, where, "is quantized already; put rotate before the quantizer");
	return NULL;
}

/* Has every linear that reads the vector of edge g a bias? */
static bool readers_biased(const struct block *b, enum edge g)
{
	struct linear_row row;

	for (size_t n = 0; model_linear(b->model, b->layer, n, &row); n++)
		if (model_edge_row(b->model, row.in).of == g &&
		    (row.bias == SLOT_NONE || !model_has(b->model, row.bias, b->layer)))
			return false;
	return true;
}

static int take_norm(struct rotate *r, struct block *b, enum edge g, struct gain *gain,
		     struct err *e)
{
	const struct edge_row row = model_edge_row(b->model, g);
	const bool has_bias = row.producer_bias != SLOT_NONE &&
			      model_has(b->model, row.producer_bias, b->layer);
	const bool fold = has_bias && readers_biased(b, g);
	float *w, *bias = NULL;
	char where[256];

	if (gain_reset(r, gain, e) < 0)
		return -1;
	if (!model_has(b->model, row.producer, b->layer))
		return 0;
	w = tensor(b, row.producer, e);
	if (w == NULL || (has_bias && (bias = tensor(b, row.producer_bias, e)) == NULL) ||
	    gain_take(r, gain, w, fold ? bias : NULL, e) < 0)
		return -1;
	model_tensor_name(b->model, row.producer, b->layer, where);
	return has_bias && !fold ? gain_bias(r, gain, bias, where, e) : 0;
}

/* ---- linears ---------------------------------------------------------------------- */

/* What happens to one linear: columns by diag(g) and in; rows by out. */
struct turn {
	const struct gain *gain;
	const struct rotation *in, *out;
};

static struct turn turn_of(const struct rotate *r, enum edge g, enum slot weight,
			   const struct gain *attn, const struct gain *mlp)
{
	struct turn t = { .out = r->r1 };

	switch (edge_kind(g)) {
	case EDGE_ATTN_IN:
		t = (struct turn){ attn, r->r1, weight == SLOT_V ? r->r2 : NULL };
		break;
	case EDGE_MLP_IN:
	case EDGE_X_IN:
		t = (struct turn){ mlp, r->r1, NULL };
		break;
	case EDGE_ATTN_MID: t.in = r->r2; break;
	case EDGE_SHARED_MID: t.in = r->r4_shared; break;
	case EDGE_X_MID: t.in = r->r4_expert; break;
	default: t.in = r->r4; break;
	}
	if (r->r1 == NULL)
		t.gain = NULL;
	return t;
}

/* bias += W c, before W changes; then bias R'. */
static int turn_bias(struct rotate *r, const struct turn *t, const float *w, float *bias,
		     size_t rows, size_t cols, struct err *e)
{
	double *x = rotate_wide(r, rows, e);

	if (x == NULL)
		return -1;
	for (size_t i = 0; i < rows; i++) {
		x[i] = bias[i];
		for (size_t j = 0; t->gain != NULL && t->gain->c != NULL && j < cols; j++)
			x[i] += w[i * cols + j] * t->gain->c[j];
	}
	if (t->out != NULL && rotation_rows(t->out, x, 1, rows, r->pool, e) < 0)
		return -1;
	for (size_t i = 0; i < rows; i++)
		bias[i] = (float)x[i];
	return 0;
}

static int turn_weight(struct rotate *r, const struct turn *t, float *w, size_t rows, size_t cols,
		       struct err *e)
{
	double *x = rotate_wide(r, rows * cols, e);

	if (x == NULL)
		return -1;
	for (size_t i = 0; i < rows; i++)
		for (size_t j = 0; j < cols; j++)
			x[i * cols + j] = w[i * cols + j] *
					  (t->gain != NULL ? t->gain->g[j] : 1.0);
	if ((t->in != NULL && rotation_rows(t->in, x, rows, cols, r->pool, e) < 0) ||
	    (t->out != NULL && rotation_columns(t->out, x, rows, cols, r->pool, e) < 0))
		return -1;
	for (size_t i = 0; i < rows * cols; i++)
		w[i] = (float)x[i];
	return 0;
}

static int turn_linear(struct rotate *r, struct block *b, const struct linear_row *row,
		       const struct turn *t, struct err *e)
{
	float *w, *bias;
	int64_t shape[2];

	if (t->gain == NULL && t->in == NULL && t->out == NULL)
		return 0;
	model_shape(b->model, row->weight, shape);
	w = tensor(b, row->weight, e);
	if (w == NULL)
		return -1;
	if (row->bias != SLOT_NONE && model_has(b->model, row->bias, b->layer)) {
		bias = tensor(b, row->bias, e);
		if (bias == NULL || turn_bias(r, t, w, bias, (size_t)shape[0], (size_t)shape[1],
					      e) < 0)
			return -1;
	}
	return turn_weight(r, t, w, (size_t)shape[0], (size_t)shape[1], e);
}

/* ---- statistics ------------------------------------------------------------------- */

/* H [n, n], both triangles: R' diag(1/g) H diag(1/g) R. */
static int turn_hessian(struct rotate *r, const struct turn *t, float *tri, size_t n,
			struct err *e)
{
	double *h = rotate_wide(r, n * n, e);

	if (h == NULL)
		return -1;
	for (size_t i = 0; i < n; i++)
		for (size_t j = i; j < n; j++) {
			const double s = t->gain != NULL ? t->gain->g[i] * t->gain->g[j] : 1;

			h[i * n + j] = h[j * n + i] = tri[tri_index(i, j, n)] / s;
		}
	if (rotation_rows(t->in, h, n, n, r->pool, e) < 0 ||
	    rotation_columns(t->in, h, n, n, r->pool, e) < 0)
		return -1;
	for (size_t i = 0; i < n; i++)
		for (size_t j = i; j < n; j++)
			tri[tri_index(i, j, n)] = (float)h[i * n + j];
	return 0;
}

static int turn_samples(struct rotate *r, const struct turn *t, float *x, size_t rows, size_t n,
			struct err *e)
{
	double *w = rotate_wide(r, rows * n, e);

	if (w == NULL)
		return -1;
	for (size_t i = 0; i < rows * n; i++)
		w[i] = x[i] / (t->gain != NULL ? t->gain->g[i % n] : 1.0);
	if (rotation_rows(t->in, w, rows, n, r->pool, e) < 0)
		return -1;
	for (size_t i = 0; i < rows * n; i++)
		x[i] = (float)w[i];
	return 0;
}

/* An item goes, and is named with the others of its place. */
static void drop(struct item *it, enum stat s, char names[128])
{
	it->drop = true;
	snprintf(names + strlen(names), 128 - strlen(names), "%s%s", names[0] ? " " : "",
		 stat_name(s));
}

static int note_dropped(struct block *b, const char *name, const char *names, struct err *e)
{
	struct item *note;

	if (!names[0])
		return 0;
	note = block_note(b, name, "statistics-dropped", e);
	if (note == NULL)
		return -1;
	if (record_set_str(&note->rec, "by", "rotate") < 0 ||
	    record_set_str(&note->rec, "statistics", names) < 0)
		return err_nomem(e, name, 0);
	return 0;
}

static int turn_stats(struct rotate *r, struct block *b, enum edge g, const struct turn *t,
		      struct err *e)
{
	const size_t n = (size_t)model_edge_width(b->model, g);
	const bool lost = t->gain != NULL && (!t->gain->invertible || t->gain->shifted);
	char names[128] = "", name[256];

	for (int s = 0; s < STAT_COUNT; s++) {
		struct item *it = block_stat(b, g, (enum stat)s);

		if (it == NULL)
			continue;
		if (!lost && s == STAT_HESSIAN) {
			if (turn_hessian(r, t, it->data, n, e) < 0)
				return -1;
		} else if (!lost && s == STAT_SAMPLES) {
			if (turn_samples(r, t, it->data, (size_t)it->rec.shape[0], n, e) < 0)
				return -1;
		} else {
			drop(it, (enum stat)s, names);
			r->lost += s == STAT_HESSIAN;
		}
	}
	model_edge_name(b->model, g, b->layer, name);
	return note_dropped(b, name, names, e);
}

/* Those of keys or values, which are turned: what was recorded is of the heads as they were. */
static int drop_stats(struct block *b, int place, struct err *e)
{
	char names[128] = "", name[256];

	run_place_name(b->model, place, b->layer, name);
	for (int s = 0; s < STAT_COUNT; s++) {
		struct item *it = block_stat_of(b, name, (enum stat)s);

		if (it != NULL)
			drop(it, (enum stat)s, names);
	}
	return note_dropped(b, name, names, e);
}

/* What is left to run time: R3, and R4 of the edges this layer has. */
static int mark(const struct rotate *r, struct block *b, struct err *e)
{
	const struct { enum edge from, to; const struct rotation *r4; } mids[] = {
		{ EDGE_MLP_MID, EDGE_MLP_MID, r->r4 },
		{ EDGE_SHARED_MID, EDGE_SHARED_MID, r->r4_shared },
		{ EDGE_COUNT, (enum edge)(model_edges(b->model) - 1), r->r4_expert },
	};
	const size_t head = (size_t)b->model->cfg.head_dim;

	if (r->opt.which & ROTATE_R3 && (run_add_hadamard(b, PLACE_Q, head, e) < 0 ||
					 run_add_hadamard(b, PLACE_K, head, e) < 0))
		return -1;
	for (size_t i = 0; i < sizeof(mids) / sizeof(mids[0]); i++)
		for (int g = mids[i].from; mids[i].r4 != NULL && g <= (int)mids[i].to; g++) {
			const enum edge kind = edge_kind((enum edge)g);

			if (kind == EDGE_X_IN || !model_has_edge(b->model, (enum edge)g, b->layer))
				continue;
			if (run_add_hadamard(b, PLACE_EDGES + g, rotation_order(mids[i].r4),
					     e) < 0)
				return -1;
		}
	return 0;
}

int rotate_block(struct rotate *r, struct block *b, struct err *e)
{
	struct gain attn = { 0 }, mlp = { 0 };
	struct linear_row row;
	int ret = -1;

	if (run_refuse_fitted(b, "rotate", e) < 0 || mark(r, b, e) < 0)
		return -1;
	if (r->r1 != NULL && (take_norm(r, b, EDGE_ATTN_IN, &attn, e) < 0 ||
			      take_norm(r, b, EDGE_MLP_IN, &mlp, e) < 0))
		goto out;
	for (size_t n = 0; model_linear(b->model, b->layer, n, &row); n++) {
		const struct turn t = turn_of(r, row.in, row.weight, &attn, &mlp);

		if (turn_linear(r, b, &row, &t, e) < 0)
			goto out;
	}
	for (int g = 0; g < model_edges(b->model); g++) {
		const struct turn t = turn_of(r, (enum edge)g, SLOT_NONE, &attn, &mlp);

		if (t.in != NULL && model_has_edge(b->model, (enum edge)g, b->layer) &&
		    turn_stats(r, b, (enum edge)g, &t, e) < 0)
			goto out;
	}
	if ((r->r2 == NULL || drop_stats(b, PLACE_V, e) == 0) &&
	    (!(r->opt.which & ROTATE_R3) || drop_stats(b, PLACE_K, e) == 0))
		ret = 0;
out:
	free(attn.g);
	free(attn.c);
	free(mlp.g);
	free(mlp.c);
	return ret;
}
