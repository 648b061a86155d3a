/* SPDX-License-Identifier: Apache-2.0 */
/*
 * smooth.c - diagonal maps on edges, folded into producers and consumers (smooth.h)
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/method/smooth_impl.h"
#include "lib/model/run.h"

#define FLOOR 1e-5 /* of s and of the weights' maxima, as published */

void smooth_scales(double *s, const double *amax_x, const double *amax_w, size_t n, double alpha)
{
	for (size_t j = 0; j < n; j++) {
		double w = amax_w[j] > FLOOR ? amax_w[j] : FLOOR;

		s[j] = pow(amax_x[j], alpha) / pow(w, 1 - alpha);
		if (amax_x[j] == 0)
			s[j] = 1;
		else if (s[j] < FLOOR)
			s[j] = FLOOR;
	}
}

static void slot_where(const struct smoothing *m, enum slot slot, char *buf)
{
	size_t n;

	model_tensor_name(m->b->model, slot, m->b->layer, buf);
	if (strncmp(buf, "model.", 6) == 0)
		memmove(buf, buf + 6, strlen(buf + 6) + 1);
	n = strlen(buf);
	if (n > 7 && strcmp(buf + n - 7, ".weight") == 0)
		buf[n - 7] = '\0';
}

float *smoothing_weight(const struct smoothing *m, enum slot slot, struct err *e)
{
	struct item *it = block_find(m->b, slot, ROLE_WEIGHT);
	char where[256];

	slot_where(m, slot, where);
	if (block_find(m->b, slot, ROLE_CODES)) {
		err_set(e, ERR_DATA, where,
			"is quantized already; put smooth before the quantizer");
		return NULL;
	}
	if (!it) {
		err_set(e, ERR_DATA, where, "no weight");
		return NULL;
	}
	return item_f32(it, e);
}

size_t smoothing_rows(const struct smoothing *m, enum slot slot)
{
	int64_t shape[2];

	model_shape(m->b->model, slot, shape);
	return (size_t)shape[0];
}

bool smoothing_consumer(const struct smoothing *m, size_t *n, struct linear_row *row)
{
	while (model_linear(m->b->model, m->b->layer, (*n)++, row))
		if (model_edge_row(m->b->model, row->in).of == m->row.edge)
			return true;
	return false;
}

static int take_maxima(struct smoothing *m, struct err *e)
{
	const struct item *it = block_stat(m->b, m->row.edge, STAT_ABSMAX);
	const float *x;
	struct linear_row lin;

	if (!it)
		return err_set(e, ERR_DATA, m->name, "no activation maxima; put \"record-acts -\" "
			       "before smooth");
	x = it->data;
	for (size_t c = 0; c < m->width; c++) {
		double *a = &m->x[smoothing_channel(m, c)];

		if (!(x[c] >= 0) || isinf(x[c]))
			return err_set(e, ERR_DATA, m->name,
				       "activation maximum of channel %zu is %g",
				       c, (double)x[c]);
		*a = x[c] > *a ? x[c] : *a;
	}
	for (size_t n = 0; smoothing_consumer(m, &n, &lin);) {
		const float *w = smoothing_weight(m, lin.weight, e);

		if (!w)
			return -1;
		for (size_t r = smoothing_rows(m, lin.weight); r > 0; r--)
			for (size_t c = 0; c < m->width; c++) {
				double v = fabs((double)*w++), *a = &m->w[smoothing_channel(m, c)];

				*a = v > *a ? v : *a;
			}
	}
	return 0;
}

static int scale_weights(const struct smoothing *m, struct err *e)
{
	const enum slot produced[2] = { m->row.producer, m->row.producer_bias };
	struct linear_row lin;

	for (size_t n = 0; smoothing_consumer(m, &n, &lin);) {
		float *w = smoothing_weight(m, lin.weight, e);

		if (!w)
			return -1;
		for (size_t r = smoothing_rows(m, lin.weight); r > 0; r--)
			for (size_t c = 0; c < m->width; c++, w++)
				*w = (float)(*w * m->s[smoothing_channel(m, c)]);
	}
	for (int i = 0; i < 2; i++) {
		size_t cols = 1;
		int64_t shape[2];
		float *w;

		if (produced[i] == SLOT_NONE ||
		    !model_has(m->b->model, produced[i], m->b->layer))
			continue;
		if (!(w = smoothing_weight(m, produced[i], e)))
			return -1;
		if (model_shape(m->b->model, produced[i], shape) == 2)
			cols = (size_t)shape[1];
		for (size_t c = 0; c < m->n; c++)
			for (size_t j = 0; j < cols; j++, w++)
				*w = (float)(*w / m->s[c]);
	}
	return 0;
}

/* x is divided by s now: so is what was recorded of it, at one edge. */
static void scale_edge(const struct smoothing *m, enum edge g)
{
	for (int stat = 0; stat < STAT_COUNT; stat++) {
		struct item *it = block_stat(m->b, g, (enum stat)stat);
		float *x;
		size_t rows;

		if (!it)
			continue;
		x = it->data;
		if (stat == STAT_HESSIAN) {
			for (size_t i = 0; i < m->width; i++)
				for (size_t j = i; j < m->width; j++, x++)
					*x = (float)(*x / (m->s[smoothing_channel(m, i)] *
							   m->s[smoothing_channel(m, j)]));
			continue;
		}
		rows = stat == STAT_SAMPLES ? (size_t)it->rec.shape[0] : 1;
		for (size_t r = 0; r < rows; r++)
			for (size_t c = 0; c < m->width; c++, x++)
				*x = (float)(*x / m->s[smoothing_channel(m, c)]);
	}
}

/* And, where values are the producer, of them. */
static void scale_values(const struct smoothing *m)
{
	static const enum stat kinds[] = { STAT_MIN, STAT_MAX };
	char name[256];

	run_place_name(m->b->model, PLACE_V, m->b->layer, name);
	for (size_t k = 0; k < sizeof(kinds) / sizeof(*kinds); k++) {
		struct item *it = block_stat_of(m->b, name, kinds[k]);
		float *x = it ? it->data : NULL;

		if (it && it->rec.dtype == DT_F32 && it->rec.nbytes == m->n * sizeof(*x))
			for (size_t c = 0; c < m->n; c++)
				x[c] = (float)(x[c] / m->s[c]);
	}
}

static void scale_stats(const struct smoothing *m)
{
	const struct model *model = m->b->model;

	if (m->row.kv_grouped)
		scale_values(m);

	for (int g = 0; g < model_edges(model); g++)
		if (model_has_edge(model, g, m->b->layer) &&
		    model_edge_row(model, g).of == m->row.edge)
			scale_edge(m, g);
}

/* After the division everything must still be a number of F32's range. */
static int check_finite(const struct smoothing *m, enum slot slot, struct err *e)
{
	const struct item *it;
	char where[256];
	int64_t bad;

	if (slot == SLOT_NONE || !model_has(m->b->model, slot, m->b->layer))
		return 0;
	it = block_find(m->b, slot, ROLE_WEIGHT);
	bad = f32_first_nonfinite(it->data, it->rec.nbytes / sizeof(float));
	if (bad < 0)
		return 0;
	slot_where(m, slot, where);
	return err_set(e, ERR_DATA, where, "value %lld is out of range after smoothing of %s",
		       (long long)bad, m->name);
}

int smoothing_open(struct smoothing *m, struct block *b, enum edge g, struct err *e)
{
	const struct model_config *cfg = &b->model->cfg;

	*m = (struct smoothing){
		.b = b, .row = model_edge_row(b->model, g), .group = 1, .head = 1,
	};
	model_edge_name(b->model, g, b->layer, m->name);
	m->width = (size_t)model_edge_width(b->model, g);
	m->n = m->width;
	if (m->row.kv_grouped) {
		m->group = (size_t)(cfg->heads / cfg->kv_heads);
		m->head = (size_t)cfg->head_dim;
		m->n = m->width / m->group;
	}
	m->s = calloc(3 * m->n, sizeof(*m->s));
	if (!m->s)
		return err_nomem(e, m->name, 3 * m->n * sizeof(*m->s));
	m->x = m->s + m->n;
	m->w = m->x + m->n;
	return 0;
}

void smoothing_close(struct smoothing *m)
{
	free(m->s);
}

int smoothing_apply(const struct smoothing *m, struct err *e)
{
	struct linear_row lin;

	if (scale_weights(m, e) < 0)
		return -1;
	scale_stats(m);
	for (size_t n = 0; smoothing_consumer(m, &n, &lin);)
		if (check_finite(m, lin.weight, e) < 0)
			return -1;
	if (check_finite(m, m->row.producer, e) < 0)
		return -1;
	return check_finite(m, m->row.producer_bias, e);
}

static int smooth_edge(struct block *b, enum edge g, double alpha, struct err *e)
{
	struct smoothing m;
	int r = -1;

	if (smoothing_open(&m, b, g, e) < 0)
		return -1;
	if (take_maxima(&m, e) == 0) {
		smooth_scales(m.s, m.x, m.w, m.n, alpha);
		r = smoothing_apply(&m, e);
	}
	smoothing_close(&m);
	return r;
}

bool smooth_chosen(const struct smooth_options *opt, enum edge g)
{
	const enum edge kind = edge_kind(g);

	if (kind == EDGE_SHARED_MID || kind == EDGE_X_MID)
		return opt->edges >> EDGE_MLP_MID & 1;
	return opt->edges >> kind & 1;
}

int smooth_check(const struct model *m, const struct smooth_options *opt, struct err *e)
{
	for (int g = 0; g < EDGE_X_IN; g++) {
		const struct edge_row row = model_edge_row(m, g);

		if (opt->edges != SMOOTH_ALL && row.name && smooth_chosen(opt, g) &&
		    row.producer == SLOT_NONE)
			return err_set(e, ERR_DATA, row.name, "no diagonal map can be put on this "
				       "edge of this %s model", m->family->model_type);
	}
	return 0;
}

int smooth_block(struct block *b, const struct smooth_options *opt, struct err *e)
{
	if (smooth_check(b->model, opt, e) < 0 || run_refuse_fitted(b, "smooth", e) < 0)
		return -1;
	for (int g = 0; g < model_edges(b->model); g++) {
		if (!model_has_edge(b->model, g, b->layer) || !smooth_chosen(opt, g) ||
		    model_edge_row(b->model, g).producer == SLOT_NONE)
			continue;
		if (run_refuse_turned(b, (enum edge)g, e) < 0 ||
		    smooth_edge(b, g, opt->alpha, e) < 0)
			return -1;
	}
	return 0;
}

int smooth_parse_edges(const char *list, unsigned *edges, struct err *e)
{
	enum { N = EDGE_MLP_MID + 1 };
	static const char *const names[N] = {
		[EDGE_ATTN_IN] = "attn.in", [EDGE_ATTN_MID] = "attn.mid",
		[EDGE_MLP_IN] = "mlp.in", [EDGE_MLP_MID] = "mlp.mid",
	};

	*edges = 0;
	if (strcmp(list, "all") == 0) {
		*edges = SMOOTH_ALL;
		return 0;
	}
	for (const char *p = list;; p++) {
		size_t n = strcspn(p, ",");
		int i = 0;

		while (i < N && (strlen(names[i]) != n || strncmp(names[i], p, n) != 0))
			i++;
		if (i == N)
			return err_set(e, ERR_USAGE, "--edges", "expected all, or some of attn.in,"
				       "attn.mid,mlp.in,mlp.mid, got '%s'", list);
		*edges |= 1u << i;
		p += n;
		if (!*p)
			return 0;
	}
}
