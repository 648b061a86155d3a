/* SPDX-License-Identifier: Apache-2.0 */
/*
 * search.c - the grid of diagonal maps, and what each would cost (search.h)
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "lib/method/gptq.h"
#include "lib/method/rtn.h"
#include "lib/method/search.h"
#include "lib/method/smooth_impl.h"
#include "lib/model/run.h"

#define FLOOR 1e-4 /* of s, and what is added to the weights' part, as published */

struct room {
	float *p;
	size_t cap;
};

struct search {
	struct backend *be;
	const struct search_options *o;
	struct quantized z;
	struct room wide;  /* s over a consumer's columns */
	struct room w;     /* a weight on its way */
	struct room x, y;  /* samples, divided and rounded; outputs */
};

/* A consumer and what its error is measured with. */
struct probe {
	const struct smoothing *m;
	const float *w;
	size_t rows, cols;
	const float *tri;      /* H, or NULL: */
	const float *x;        /* samples */
	size_t n_x;
};

struct search *search_new(struct backend *be, const struct search_options *o, struct err *e)
{
	struct search *s = calloc(1, sizeof(*s));

	if (!s) {
		err_nomem(e, "", sizeof(*s));
		return NULL;
	}
	s->be = be;
	s->o = o;
	return s;
}

void search_free(struct search *s)
{
	if (!s)
		return;
	quantized_release(&s->z);
	free(s->wide.p);
	free(s->w.p);
	free(s->x.p);
	free(s->y.p);
	free(s);
}

static int reserve(struct room *r, size_t n, const char *where, struct err *e)
{
	if (n <= r->cap)
		return 0;
	free(r->p);
	r->cap = 0;
	if (!(r->p = malloc(n * sizeof(*r->p))))
		return err_nomem(e, where, n * sizeof(*r->p));
	r->cap = n;
	return 0;
}

int search_check(const struct model *m, const struct search_options *o, struct err *e)
{
	const struct layer_options l = { .q = o->q };

	if (smooth_check(m, &o->smooth, e) < 0)
		return -1;
	return layer_check_groups(&l, m, e);
}

void search_scales(double *s, const double *x, const double *w, size_t n, double r, bool duo)
{
	double lo = INFINITY, hi = 0;

	for (size_t j = 0; j < n; j++) {
		s[j] = pow(x[j], r);
		if (duo)
			s[j] /= pow(w[j], 1 - r) + FLOOR;
		s[j] = s[j] > FLOOR ? s[j] : FLOOR;
		if (x[j] == 0)
			continue;
		lo = s[j] < lo ? s[j] : lo;
		hi = s[j] > hi ? s[j] : hi;
	}
	for (size_t j = 0; j < n; j++)
		s[j] = x[j] == 0 ? 1 : s[j] / sqrt(lo * hi);
}

void search_round_tokens(float *x, size_t rows, size_t k, int bits)
{
	const float top = (float)((1 << (bits - 1)) - 1);

	for (size_t r = 0; r < rows; r++, x += k) {
		float largest = 1e-5f, scale;

		for (size_t j = 0; j < k; j++)
			largest = fabsf(x[j]) > largest ? fabsf(x[j]) : largest;
		scale = largest / top;
		for (size_t j = 0; j < k; j++)
			x[j] = rintf(x[j] / scale) * scale;
	}
}

/* ---- statistics ------------------------------------------------------------------ */

static const struct item *need(struct block *b, enum edge g, enum stat stat, const char *for_what,
			       struct err *e)
{
	const struct item *it = block_stat(b, g, stat);
	char where[256];

	if (it)
		return it;
	model_edge_name(b->model, g, b->layer, where);
	err_set(e, ERR_DATA, where, "no %s%s; put \"record-acts - --stats=%s\" before smooth",
		stat_name(stat), for_what, stat_name(stat));
	return NULL;
}

/* x over the producer's channels: means over the columns that share one. */
static int take_activations(const struct search *s, struct smoothing *m, struct err *e)
{
	static const enum stat stats[] = {
		[SEARCH_RMS] = STAT_HESSIAN, [SEARCH_ABSMEAN] = STAT_ABSMEAN,
		[SEARCH_ABSMAX] = STAT_ABSMAX,
	};
	const struct item *it = need(m->b, m->row.edge, stats[s->o->stat], "", e);
	int64_t tokens = 0;
	const float *v;

	if (!it)
		return -1;
	v = it->data;
	if (s->o->stat == SEARCH_RMS && (record_get_int(&it->rec, "tokens", &tokens) != 1 ||
					 tokens < 1))
		return err_set(e, ERR_DATA, m->name, "hessian without the number of tokens");
	for (size_t c = 0; c < m->width; c++) {
		double x = s->o->stat != SEARCH_RMS ? v[c] :
			   sqrt(v[tri_index(c, c, m->width)] / (double)tokens);

		if (!(x >= 0) || isinf(x))
			return err_set(e, ERR_DATA, m->name, "%s of channel %zu makes no sense",
				       stat_name(stats[s->o->stat]), c);
		m->x[smoothing_channel(m, c)] += x / (double)m->group;
	}
	return 0;
}

/* w of the duo rule. */
static int take_weights(const struct search *s, struct smoothing *m, struct err *e)
{
	struct linear_row lin;
	size_t rows = 0, group, groups;

	for (size_t n = 0; smoothing_consumer(m, &n, &lin);) {
		const float *w = smoothing_weight(m, lin.weight, e);

		if (!w || quantizer_groups(&s->o->q, m->width, m->name, &groups, &group, e) < 0)
			return -1;
		for (size_t r = smoothing_rows(m, lin.weight); r > 0; r--, rows++)
			for (size_t c0 = 0; c0 < m->width; c0 += group, w += group) {
				double most = 0;

				for (size_t c = 0; c < group; c++)
					most = fmax(most, fabs((double)w[c]));
				for (size_t c = 0; c < group; c++)
					m->w[smoothing_channel(m, c0 + c)] +=
						fabs((double)w[c]) / (most + 1e-6);
			}
	}
	for (size_t j = 0; j < m->n; j++)
		m->w[j] /= (double)(rows * m->group);
	return 0;
}

/* ---- loss ------------------------------------------------------------------------ */

/* Sum of squares of x d' for x [n_x, cols], d [rows, cols]; minus: of x d' - p->x p->w'. */
static int samples_energy(struct search *s, const struct probe *p, const float *x, const float *d,
			  bool minus, double *energy, struct err *e)
{
	const size_t n = p->n_x, rows = p->rows, k = p->cols;
	float *y = s->y.p;
	double sum = 0;

	if (s->be->ops->gemm(s->be, 1, n, rows, k, 1, x, k, d, k, 0, y, rows, e) < 0 ||
	    (minus && s->be->ops->gemm(s->be, 1, n, rows, k, -1, p->x, k, p->w, k, 1, y, rows,
				       e) < 0))
		return -1;
	for (size_t i = 0; i < n * rows; i++)
		sum += (double)y[i] * y[i];
	*energy = sum;
	return 0;
}

/* What the consumer's outputs lose when it is quantized behind s (wide: over its columns). */
static int probe_loss(struct search *s, const struct probe *p, const float *wide, double *loss,
		      struct err *e)
{
	const size_t k = p->cols;
	const bool acts = s->o->act_bits > 0;
	float *w = s->w.p, *x = s->x.p;

	for (size_t r = 0; r < p->rows; r++)
		for (size_t c = 0; c < k; c++)
			w[r * k + c] = p->w[r * k + c] * wide[c];
	if (rtn_quantize(&s->z, &s->o->q, w, p->rows, k, s->be->pool, p->m->name, e) < 0)
		return -1;
	quantized_dequantize(&s->z, w);
	for (size_t r = 0; r < p->rows && !acts; r++)
		for (size_t c = 0; c < k; c++)
			w[r * k + c] = w[r * k + c] / wide[c] - p->w[r * k + c];
	if (p->tri)
		return output_energy(s->be, w, p->rows, k, p->tri, loss, e);
	if (!acts)
		return samples_energy(s, p, p->x, w, false, loss, e);
	for (size_t t = 0; t < p->n_x; t++)
		for (size_t c = 0; c < k; c++)
			x[t * k + c] = p->x[t * k + c] / wide[c];
	search_round_tokens(x, p->n_x, k, s->o->act_bits);
	return samples_energy(s, p, x, w, true, loss, e);
}

/* The linear with its statistics; what lies in them is checked here, once an edge. */
static int open_probe(struct search *s, struct smoothing *m, const struct linear_row *lin,
		      struct probe *p, double *energy, struct err *e)
{
	const enum stat stat = s->o->samples ? STAT_SAMPLES : STAT_HESSIAN;
	const struct item *it = need(m->b, lin->in, stat, "", e);

	*p = (struct probe){ .m = m, .rows = smoothing_rows(m, lin->weight), .cols = m->width };
	if (!it || !(p->w = smoothing_weight(m, lin->weight, e)) ||
	    reserve(&s->w, p->rows * p->cols, m->name, e) < 0)
		return -1;
	it = block_stat(m->b, lin->in, stat);
	if (stat == STAT_HESSIAN) {
		p->tri = it->data;
		return output_energy(s->be, p->w, p->rows, p->cols, p->tri, energy, e);
	}
	p->x = it->data;
	p->n_x = (size_t)it->rec.shape[0];
	if (reserve(&s->x, p->n_x * p->cols, m->name, e) < 0 ||
	    reserve(&s->y, p->n_x * p->rows, m->name, e) < 0)
		return -1;
	return samples_energy(s, p, p->x, p->w, false, energy, e);
}

/* loss[0]: of s = 1; loss[i + 1]: of r = i / n_grid.  A consumer at a time, so that its weight is
 * looked up once; a map whose scales cannot be stored loses. */
static int take_losses(struct search *s, struct smoothing *m, double *loss, double *energy,
		       struct err *e)
{
	struct linear_row lin;
	float *wide = s->wide.p;

	for (size_t n = 0; smoothing_consumer(m, &n, &lin);) {
		struct probe p;
		double own;

		if (lin.keep)
			continue;
		if (open_probe(s, m, &lin, &p, &own, e) < 0)
			return -1;
		*energy += own;
		for (long i = -1; i < s->o->n_grid; i++) {
			double more;

			if (i >= 0)
				search_scales(m->s, m->x, m->w, m->n, (double)i /
					      (double)s->o->n_grid, s->o->duo);
			for (size_t c = 0; c < m->width; c++)
				wide[c] = i < 0 ? 1 : (float)m->s[smoothing_channel(m, c)];
			if (probe_loss(s, &p, wide, &more, e) < 0) {
				if (i < 0 || e->cls != ERR_DATA)
					return -1;
				more = INFINITY;
			}
			loss[i + 1] += more;
		}
	}
	return 0;
}

static int put_note(const struct search *s, const struct smoothing *m, long best,
		    const double *loss, double energy, struct err *e)
{
	struct item *it = block_note(m->b, m->name, "search", e);
	const double per = energy > 0 ? 1 / energy : 0;

	if (!it)
		return -1;
	if (record_set_str(&it->rec, "by", "smooth") < 0 ||
	    record_set_int(&it->rec, "bits", s->o->q.bits) < 0 ||
	    record_set_int(&it->rec, "group", s->o->q.group) < 0 ||
	    (s->o->act_bits && record_set_int(&it->rec, "act_bits", s->o->act_bits) < 0) ||
	    record_set_bool(&it->rec, "moved", best > 0) < 0 ||
	    (best > 0 && record_set_double(&it->rec, "ratio", (double)(best - 1) /
					   (double)s->o->n_grid) < 0) ||
	    record_set_double(&it->rec, "before", loss[0] * per) < 0 ||
	    record_set_double(&it->rec, "after", loss[best] * per) < 0)
		return err_nomem(e, m->name, 64);
	return 0;
}

static int search_edge(struct search *s, struct smoothing *m, double *loss, struct err *e)
{
	double energy = 0;
	long best = 0;

	if (take_activations(s, m, e) < 0 || (s->o->duo && take_weights(s, m, e) < 0) ||
	    reserve(&s->wide, m->width, m->name, e) < 0 ||
	    take_losses(s, m, loss, &energy, e) < 0)
		return -1;
	for (long i = 1; i <= s->o->n_grid; i++)
		if (loss[i] < loss[best])
			best = i;
	if (put_note(s, m, best, loss, energy, e) < 0)
		return -1;
	if (best == 0)
		return 0;
	search_scales(m->s, m->x, m->w, m->n, (double)(best - 1) / (double)s->o->n_grid,
		      s->o->duo);
	return smoothing_apply(m, e);
}

int search_block(struct search *s, struct block *b, struct err *e)
{
	if (run_refuse_fitted(b, "smooth", e) < 0)
		return -1;
	for (int g = 0; g < model_edges(b->model); g++) {
		struct smoothing m;
		double *loss;
		int r;

		if (!model_has_edge(b->model, g, b->layer) ||
		    !smooth_chosen(&s->o->smooth, g) ||
		    model_edge_row(b->model, g).producer == SLOT_NONE)
			continue;
		if (run_refuse_turned(b, (enum edge)g, e) < 0 || smoothing_open(&m, b, g, e) < 0)
			return -1;
		loss = calloc((size_t)s->o->n_grid + 1, sizeof(*loss));
		r = loss ? search_edge(s, &m, loss, e) :
			   err_nomem(e, m.name, (size_t)s->o->n_grid * sizeof(*loss));
		free(loss);
		smoothing_close(&m);
		if (r < 0)
			return -1;
	}
	return 0;
}
