/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layer.c - linears taken up, put back, and what is noted about them (layer.h)
 */
#include <stdio.h>
#include <string.h>

#include "lib/method/gptq.h"
#include "lib/method/kquant.h"
#include "lib/method/layer.h"

static void name_layer(struct layer *l, const struct model *m, const struct linear_row *row,
		       long layer)
{
	const char *from;
	size_t n;

	l->row = *row;
	l->starved = NULL;
	model_tensor_name(m, row->weight, layer, l->name);
	from = l->name + (strncmp(l->name, "model.", 6) == 0 ? 6 : 0);
	n = strlen(from);
	if (n > 7 && strcmp(from + n - 7, ".weight") == 0)
		n -= 7;
	snprintf(l->where, sizeof(l->where), "%.*s", (int)n, from);
}

int layer_add_skip(struct layer_options *o, const char *text, struct err *e)
{
	struct layer_skip *s = &o->skip[o->n_skip];
	char what[200];
	int r;

	if (text[0] == '\0')
		return err_set(e, ERR_USAGE, "--skip", "an empty expression would skip everything");
	if (o->n_skip == LAYER_MAX_SKIP)
		return err_set(e, ERR_USAGE, "--skip", "given more than %d times", LAYER_MAX_SKIP);
	r = regcomp(&s->regex, text, REG_EXTENDED | REG_NOSUB);
	if (r) {
		regerror(r, &s->regex, what, sizeof(what));
		return err_set(e, ERR_USAGE, "--skip", "'%s': %s", text, what);
	}
	s->text = text;
	o->n_skip++;
	return 0;
}

void layer_options_release(struct layer_options *o)
{
	while (o->n_skip > 0)
		regfree(&o->skip[--o->n_skip].regex);
	plan_release(&o->plan);
}

struct quantizer layer_quantizer(const struct layer_options *o, const char *name)
{
	const struct plan_row *row = plan_find(&o->plan, name);
	struct quantizer q = o->q;

	if (row && q.grid) {
		q.bits = row->bits;
		kquant_set(&q, kgrid_of_bits(row->bits));
	} else if (row) {
		q.bits = row->bits;
		q.group = row->has_group ? row->group : q.group;
	}
	return q;
}

static bool matches(const struct layer_options *o, const char *name)
{
	for (size_t i = 0; i < o->n_skip; i++)
		if (regexec(&o->skip[i].regex, name, 0, NULL, 0) == 0)
			return true;
	return false;
}

bool layer_skipped(const struct layer_options *o, const struct model *m,
		   const struct linear_row *row, long layer)
{
	char name[256];

	model_tensor_name(m, row->weight, layer, name);
	return row->keep || (layer < 0 && !o->ends) || matches(o, name);
}

static size_t common_divisor(size_t a, size_t b)
{
	return b == 0 ? a : common_divisor(b, a % b);
}

/* A grid of super-blocks has this linear's bits and fits its columns. */
static int check_grid(const struct layer_options *o, const struct layer *l, int64_t cols,
		      struct err *e)
{
	if (o->q.grid && !l->q.grid)
		return err_set(e, ERR_DATA, l->where, "--plan: %d bits, and --grid has 4 (q4_K) "
			       "and 6 (q6_K)", l->q.bits);
	if (l->q.grid && cols % KGRID_BLOCK)
		return err_set(e, ERR_DATA, l->where, "%lld columns are no whole super-blocks of "
			       "%d, as %s has them: --skip it, and quantize it otherwise before or "
			       "after", (long long)cols, KGRID_BLOCK, kgrid(l->q.grid)->name);
	return 0;
}

/* The linear and others that read its edge are cut alike. */
static int check_alike(const struct layer_options *o, const struct model *m, const struct layer *l,
		       long layer, struct err *e)
{
	struct linear_row row;

	for (size_t n = 0; model_linear(m, layer, n, &row); n++) {
		char name[256];
		long group;

		model_tensor_name(m, row.weight, layer, name);
		group = layer_quantizer(o, name).group;
		if (row.in == l->row.in && !row.keep && !matches(o, name) && group != l->q.group)
			return err_set(e, ERR_DATA, l->where, "--plan: groups of %ld here and of "
				       "%ld in %s, which reads the same input", l->q.group, group,
				       name);
	}
	return 0;
}

int layer_check_groups(const struct layer_options *o, const struct model *m, struct err *e)
{
	struct linear_row row;
	size_t common = 0, wrong_cols = 0;
	long wrong_group = 0;
	char wrong[sizeof(((struct layer *)0)->where)], sizes[320];

	if (o->plan.n > 0 && plan_check(&o->plan, m, e) < 0)
		return -1;
	for (long i = o->ends ? -1 : 0; i < m->cfg.layers; i++)
		for (size_t n = 0; model_linear(m, i, n, &row); n++) {
			struct layer l;
			int64_t shape[2];

			name_layer(&l, m, &row, i);
			if (row.keep || matches(o, l.name))
				continue;
			l.q = layer_quantizer(o, l.name);
			if (o->plan.n > 0 && check_alike(o, m, &l, i, e) < 0)
				return -1;
			model_shape(m, row.weight, shape);
			if (check_grid(o, &l, shape[1], e) < 0)
				return -1;
			common = common_divisor((size_t)shape[1], common);
			if (wrong_cols == 0 && l.q.group > 0 && shape[1] % l.q.group != 0) {
				wrong_group = l.q.group;
				snprintf(wrong, sizeof(wrong), "%s", l.where);
				wrong_cols = (size_t)shape[1];
			}
		}
	if (wrong_cols == 0)
		return 0;
	quantizer_sizes(common, sizes, sizeof(sizes));
	return err_set(e, ERR_DATA, wrong, "groups of %ld do not divide %zu columns; sizes that do "
		       "in every linear: %s, -1 (a row), 0 (the tensor)", wrong_group, wrong_cols,
		       sizes);
}

const char *layer_idle_skip(const struct layer_options *o, const struct model *m)
{
	struct linear_row row;

	for (size_t s = 0; s < o->n_skip; s++) {
		bool used = false;

		for (long i = -1; i < m->cfg.layers && !used; i++)
			for (size_t n = 0; model_linear(m, i, n, &row); n++) {
				char name[256];

				model_tensor_name(m, row.weight, i, name);
				used |= regexec(&o->skip[s].regex, name, 0, NULL, 0) == 0;
			}
		if (!used)
			return o->skip[s].text;
	}
	return NULL;
}

static int nomem(const char *where, struct err *e)
{
	return err_nomem(e, where, 64);
}

/* The weight as it came, in its own type, beside it. */
static int keep_reference(struct block *b, enum slot slot, struct err *e)
{
	struct record rec = { .rank = -1 };
	struct item *ref = NULL, *w = block_find(b, slot, ROLE_WEIGHT);

	if (record_dup(&rec, &w->rec, e) < 0)
		return -1;
	rec.role = ROLE_REF;
	ref = block_add(b, &rec, e);
	record_clear(&rec);
	if (!ref)
		return -1;
	w = block_find(b, slot, ROLE_WEIGHT);
	memcpy(ref->data, w->data, w->rec.nbytes);
	return 0;
}

static int refuse_quantized(const struct layer *l, struct block *b, struct err *e)
{
	if (!block_find(b, l->row.weight, ROLE_CODES))
		return 0;
	return err_set(e, ERR_DATA, l->where, "is quantized already; --skip passes it on");
}

int layer_refuse_quantized(const struct layer_options *o, struct block *b, enum edge edge,
			   struct err *e)
{
	struct linear_row row;

	for (size_t n = 0; model_linear(b->model, b->layer, n, &row); n++) {
		struct layer l;

		name_layer(&l, b->model, &row, b->layer);
		if (row.in == edge && !layer_skipped(o, b->model, &row, b->layer) &&
		    refuse_quantized(&l, b, e) < 0)
			return -1;
	}
	return 0;
}

int layer_pick(struct layer *l, struct block *b, const struct linear_row *row,
	       const struct layer_options *o, struct err *e)
{
	int64_t shape[2];

	l->w = NULL;
	name_layer(l, b->model, row, b->layer);
	l->q = layer_quantizer(o, l->name);
	if (row->keep)
		return 0;
	if (matches(o, l->name)) {
		struct item *note = block_note(b, l->name, "skipped", e);

		if (!note)
			return -1;
		return record_set_str(&note->rec, "by", o->by) < 0 ? nomem(l->where, e) : 0;
	}
	if (refuse_quantized(l, b, e) < 0)
		return -1;
	if (!block_find(b, row->weight, ROLE_WEIGHT))
		return err_set(e, ERR_DATA, l->where, "no weight");
	if (o->keep_ref && !block_find(b, row->weight, ROLE_REF) &&
	    keep_reference(b, row->weight, e) < 0)
		return -1;
	model_shape(b->model, row->weight, shape);
	l->rows = (size_t)shape[0];
	l->cols = (size_t)shape[1];
	return 1;
}

int layer_take(struct layer *l, struct block *b, const struct linear_row *row,
	       const struct layer_options *o, struct err *e)
{
	const int got = layer_pick(l, b, row, o, e);

	if (got <= 0)
		return got;
	l->w = block_weight_f32(b, row->weight, e);
	return l->w ? 1 : -1;
}

const float *layer_hessian(struct block *b, enum edge edge)
{
	const struct item *it = block_stat(b, edge, STAT_HESSIAN);

	return it ? it->data : NULL;
}

void layer_drop_hessian(struct block *b, enum edge edge)
{
	struct item *it = block_stat(b, edge, STAT_HESSIAN);

	if (it)
		it->drop = true;
}

int layer_weigh(struct layer *l, struct backend *be, const float *tri, struct err *e)
{
	size_t n = l->rows * l->cols, i = 0;
	double lane[16] = { 0 }; /* one sum after the other would wait for itself */

	if (tri) {
		if (output_energy(be, l->w, l->rows, l->cols, tri, &l->energy, e) < 0) {
			snprintf(e->where, sizeof(e->where), "%s", l->where);
			return -1;
		}
		return 0;
	}
	for (; i + 16 <= n; i += 16)
		for (size_t c = 0; c < 16; c++)
			lane[c] += (double)l->w[i + c] * l->w[i + c];
	for (; i < n; i++)
		lane[0] += (double)l->w[i] * l->w[i];
	l->energy = 0;
	for (size_t c = 0; c < 16; c++)
		l->energy += lane[c];
	return 0;
}

static struct item *add_tensor(struct block *b, const struct layer *l, enum role role,
			       enum dtype t, size_t rows, size_t cols, struct err *e)
{
	struct record r = { .rank = -1 };
	struct item *it;

	record_init(&r, REC_TENSOR, l->name);
	r.role = role;
	r.dtype = t;
	r.rank = 2;
	r.shape[0] = (int64_t)rows;
	r.shape[1] = (int64_t)cols;
	it = block_add(b, &r, e);
	record_clear(&r);
	return it;
}

/* The heads of super-blocks, in the place of scales. */
static int store_heads(const struct layer *l, struct block *b, const struct quantized *z,
		       struct err *e)
{
	const struct kgrid *k = kgrid(z->grid);
	const size_t blocks = z->cols / KGRID_BLOCK;
	struct record r = { .rank = -1 };
	struct item *it;

	record_init(&r, REC_TENSOR, l->name);
	r.role = ROLE_SCALE;
	r.dtype = DT_U8;
	r.rank = 3;
	r.shape[0] = (int64_t)z->rows;
	r.shape[1] = (int64_t)blocks;
	r.shape[2] = (int64_t)k->head;
	it = block_add(b, &r, e);
	record_clear(&r);
	if (!it)
		return -1;
	memcpy(it->data, z->head, z->rows * blocks * k->head);
	return 0;
}

int layer_store(const struct layer *l, struct block *b, const struct quantized *z,
		const struct layer_options *o, struct err *e)
{
	size_t prows = z->per_tensor ? 1 : z->rows;
	struct item *it = add_tensor(b, l, ROLE_CODES, DT_U8, z->rows, z->cols, e);

	if (!it)
		return -1;
	memcpy(it->data, z->codes, z->rows * z->cols);
	if (record_set_int(&it->rec, "bits", z->bits) < 0 ||
	    record_set_int(&it->rec, "group", (int64_t)z->group) < 0 ||
	    record_set_bool(&it->rec, "sym", z->sym) < 0 ||
	    (z->grid && record_set_str(&it->rec, "grid", kgrid(z->grid)->name) < 0))
		return nomem(l->where, e);
	if (z->grid)
		return store_heads(l, b, z, e);
	if (!(it = add_tensor(b, l, ROLE_SCALE, o->q.scale_dtype, prows, z->groups, e)))
		return -1;
	if (dtype_from_f32(it->data, o->q.scale_dtype, z->scale, prows * z->groups) < 0)
		return err_set(e, ERR_BUG, l->where, "no such type of scales");
	if (z->sym)
		return 0;
	if (!(it = add_tensor(b, l, ROLE_ZERO, DT_U8, prows, z->groups, e)))
		return -1;
	memcpy(it->data, z->zero, prows * z->groups);
	return 0;
}

int layer_note(const struct layer *l, struct block *b, const struct layer_options *o,
	       double energy, bool has_h, const struct gptq_result *res, double seconds,
	       struct err *e)
{
	struct item *it = block_note(b, l->name, "layer-error", e);
	double rel = l->energy > 0 ? energy / l->energy : 0;
	const struct kgrid *k = kgrid(l->q.grid);
	struct record *r;

	if (!it)
		return -1;
	r = &it->rec;
	if (record_set_str(r, "by", o->by) < 0 || record_set_int(r, "bits", l->q.bits) < 0 ||
	    record_set_int(r, "group", k ? (int64_t)k->group : l->q.group) < 0 ||
	    (k && record_set_str(r, "grid", k->name) < 0) ||
	    record_set_double(r, has_h ? "rel_err" : "w_rel_err", rel) < 0)
		return nomem(l->where, e);
	if (res && (record_set_double(r, "damp", res->damp) < 0 ||
		    record_set_double(r, "shrink", res->shrink) < 0 ||
		    record_set_int(r, "damp_raised", res->damp_raised) < 0 ||
		    record_set_int(r, "dead", res->dead) < 0 ||
		    (res->tokens_short &&
		     record_set_int(r, "tokens_short", res->tokens_short) < 0) ||
		    (res->moved && record_set_double(r, "step", res->step) < 0)))
		return nomem(l->where, e);
	if (res && res->guard.judged &&
	    (record_set_str(r, "kept", res->guard.keep_plain ? "plain" : "options") < 0 ||
	     record_set_double(r, "err_options", res->guard.options) < 0 ||
	     record_set_double(r, "err_plain", res->guard.plain) < 0 ||
	     record_set_int(r, "rows_judged", (int64_t)res->guard.rows) < 0 ||
	     record_set_int(r, "tokens_aside", res->tokens_aside) < 0))
		return nomem(l->where, e);
	if (l->starved && (record_set_str(r, "starved", l->starved) < 0 ||
			   record_set_int(r, "tokens", l->tokens) < 0))
		return nomem(l->where, e);
	if (o->timing && record_set_double(r, "seconds", seconds) < 0)
		return nomem(l->where, e);
	return 0;
}
