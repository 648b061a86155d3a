/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qwt.c - reference and quantized blocks side by side, and the map between them (qwt.h)
 */
#include "lib/method/qwt.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "lib/method/qwt_solve.h"
#include "lib/model/clamp_note.h"
#include "lib/model/runner.h"

enum side { QUANTIZED, REFERENCE, SIDES };
enum stage { STAGE_BLOCK, STAGE_ATTENTION, STAGE_MLP };

struct qwt {
	struct qwt_options opt;
	struct backend *be;
	struct runner run[SIDES];
	struct hidden before;      /* input of the stage, quantized side */
	struct qwt_sums sums, held;
	double *w, *bias, *low;    /* the solution; up and down */
	double ridge;              /* of it */
	float *ctx;                /* [a slice, q dim] */
	struct block shadow;       /* the reference's weights, borrowed */
	struct qwt_counts n;
	const struct calib *calib;
	bool ready, own;           /* own: the reference has embeddings of its own */
};

int qwt_except(struct qwt_options *o, const char *list, struct err *e)
{
	for (const char *p = list; *p != '\0'; p++)
		if ((*p < '0' || *p > '9') && (*p != ',' || p == list || p[-1] == ','))
			return err_set(e, ERR_USAGE, "--except", "expected numbers of blocks, 0,3, "
				       "got '%s'", list);
	o->except = list;
	return 0;
}

int qwt_check(struct qwt_options *o, struct err *e)
{
	if (o->form == FORM_DIAGONAL && o->rank > 0)
		return err_set(e, ERR_USAGE, "--diagonal", "does not go with --rank");
	if (o->rank > 0)
		o->form = FORM_LOW_RANK;
	if (o->compat && o->form != FORM_FULL)
		return err_set(e, ERR_USAGE, "--compat", "goes with whole maps");
	if (o->compat && (o->ridge >= 0 || o->holdout >= 0))
		return err_set(e, ERR_USAGE, "--compat", "has no ridge and holds nothing out: "
			       "without --ridge and --holdout");
	if (o->holdout < 0)
		o->holdout = 0.2;
	return 0;
}

int qwt_same(const struct model *m, const struct model *ref, struct err *e)
{
	const struct model_config *a = &m->cfg, *b = &ref->cfg;

	return m->family == ref->family && a->hidden == b->hidden && a->layers == b->layers &&
	       a->ffn == b->ffn && a->heads == b->heads && a->vocab == b->vocab ? 0 :
	       err_set(e, ERR_DATA, "--ref", "is another model than that of the stream");
}

static bool excepted(const struct qwt_options *o, long layer)
{
	char *end;

	for (const char *p = o->except; p != NULL && *p != '\0'; p = end + (*end == ',')) {
		if (strtol(p, &end, 10) == layer && end > p)
			return true;
		if (end == p)
			break;
	}
	return layer < o->begin;
}

/* What is named is there, and something is left. */
static int check_blocks(const struct qwt_options *o, const struct model *m, struct err *e)
{
	const long layers = m->cfg.layers;
	char *end;

	for (const char *p = o->except; p != NULL && *p != '\0'; p = end + (*end == ','))
		if (strtol(p, &end, 10) >= layers)
			return err_set(e, ERR_DATA, "--except", "this model has no block %ld, "
				       "its last is %ld", strtol(p, NULL, 10), layers - 1);
	for (long i = 0; i < layers; i++)
		if (!excepted(o, i))
			return 0;
	return err_set(e, ERR_DATA, o->begin < layers ? "--except" : "--begin",
		       "no block is left to compensate");
}

struct qwt *qwt_new(const struct qwt_options *opt, const struct model *m, struct backend *be,
		    struct err *e)
{
	struct qwt *q;

	if (check_blocks(opt, m, e) < 0)
		return NULL;
	q = calloc(1, sizeof(*q));
	if (q == NULL) {
		err_nomem(e, "qwt-fit", sizeof(*q));
		return NULL;
	}
	q->opt = *opt;
	q->be = be;
	for (int i = 0; i < SIDES; i++) {
		q->run[i].be = be;
		q->run[i].model = *m;
		q->run[i].headless = true;
	}
	return q;
}

void qwt_free(struct qwt *q)
{
	if (q == NULL)
		return;
	runner_release(&q->run[QUANTIZED]);
	runner_release(&q->run[REFERENCE]);
	hidden_close(&q->before);
	qwt_sums_release(&q->sums);
	qwt_sums_release(&q->held);
	free(q->w);
	free(q->ctx);
	free(q->shadow.items);
	free(q);
}

int qwt_calib(struct qwt *q, const struct calib *c, struct err *e)
{
	q->calib = c;
	return runner_calib(&q->run[QUANTIZED], c, e);
}

int qwt_ref_front(struct qwt *q, struct stream_in *in, const struct record *rec, struct err *e)
{
	struct runner *r = &q->run[REFERENCE];

	if (q->calib == NULL) /* nothing stands in front of the stream's blocks: refused there */
		return 0;
	if (!q->own && runner_calib(r, q->calib, e) < 0)
		return -1;
	q->own = true;
	return runner_embed(r, in, rec, e) < 0 ? -1 : 0;
}

int qwt_front(struct qwt *q, struct stream_in *in, const struct record *rec, struct item **it,
	      struct err *e)
{
	const int got = runner_embed(&q->run[QUANTIZED], in, rec, e);

	*it = q->run[QUANTIZED].front;
	return got;
}

struct qwt_counts qwt_count(const struct qwt *q)
{
	return q->n;
}

/* ---- two streams ----------------------------------------------------------------- */

/* The ridge is one of several: those that windows held out tell apart. */
static bool chooses(const struct qwt *q)
{
	return q->opt.ridge < 0 && q->opt.holdout > 0 && !q->opt.compat &&
	       q->opt.form != FORM_DIAGONAL;
}

/* Both begin as the same embeddings, those of the reference perhaps not rounded. */
static int same_start(const struct qwt *q, struct err *e)
{
	const struct runner *r = &q->run[QUANTIZED];
	const float *a = q->run[REFERENCE].hidden.x, *b = r->hidden.x;
	double apart = 0, all = 0;

	for (size_t i = 0; i < r->hidden.tokens * r->hidden.width; i++) {
		const double d = (double)a[i] - (double)b[i];

		apart += d * d;
		all += (double)a[i] * (double)a[i];
	}
	return !(apart > all / 2) ? 0 :
	       err_set(e, ERR_DATA, "--ref", "its embeddings are not those of the stream; of a "
		       "rotated model the reference is the stream between rotate and the "
		       "quantizer");
}

static int lend_start(struct qwt *q, struct err *e)
{
	struct runner *r = &q->run[QUANTIZED], *ref = &q->run[REFERENCE];

	ref->seqlen = r->seqlen;
	ref->input = r->input;
	ref->embedded = true;
	if (hidden_open(&ref->hidden, r->hidden.tokens, r->hidden.width, NULL, e) < 0)
		return -1;
	memcpy(ref->hidden.x, r->hidden.x, r->hidden.tokens * r->hidden.width * sizeof(float));
	return 0;
}

static int start(struct qwt *q, struct err *e)
{
	struct runner *r = &q->run[QUANTIZED];
	const size_t d = r->hidden.width;
	const size_t rank = (size_t)(q->opt.form == FORM_LOW_RANK ? q->opt.rank : 0);
	const size_t slice = r->seqlen > FORWARD_SLICE ? r->seqlen : FORWARD_SLICE;
	const size_t doubles = d * d + d + 2 * d * rank;

	if (rank > d)
		return err_set(e, ERR_DATA, "--rank", "%zu; the model is %zu wide", rank, d);
	if ((!q->own && lend_start(q, e) < 0) ||
	    hidden_open(&q->before, r->hidden.tokens, d, NULL, e) < 0 ||
	    qwt_sums_init(&q->sums, d, e) < 0 || (chooses(q) && qwt_sums_init(&q->held, d, e) < 0))
		return -1;
	q->w = malloc(doubles * sizeof(*q->w));
	q->ctx = malloc(slice * (size_t)model_dim(&r->model, DIM_Q) * sizeof(*q->ctx));
	if (q->w == NULL || q->ctx == NULL)
		return err_nomem(e, "compensation", doubles * sizeof(*q->w));
	q->bias = q->w + d * d;
	q->low = q->bias + d;
	q->ready = true;
	return 0;
}

/* All states of a side through a stage of the block loaded. */
static int advance(struct qwt *q, enum side side, enum stage stage, struct err *e)
{
	struct runner *r = &q->run[side];
	const size_t len = r->seqlen, all = r->hidden.tokens / len;
	const size_t step = len < FORWARD_SLICE ? FORWARD_SLICE / len : 1;

	if (stage == STAGE_BLOCK)
		return forward_all(r->f, &r->hidden, len, NULL, NULL, NULL, NULL, e);
	for (size_t i = 0; i < all; i += step) {
		const size_t n = all - i < step ? all - i : step;
		float *x = r->hidden.x + i * len * r->hidden.width;

		if (stage == STAGE_MLP ?
		    forward_mlp(r->f, x, n * len, true, NULL, NULL, e) < 0 :
		    forward_attention(r->f, x, q->ctx, n, len, NULL, NULL, e) < 0 ||
		    forward_attention_out(r->f, x, q->ctx, n * len, e) < 0)
			return -1;
	}
	return 0;
}

/* Is it of what the reference computes?  Rotations that run time completes are: its weights are
 * those of turned inputs. */
static bool lent(struct block *b, const struct item *it)
{
	char kind[16];

	if (it->rec.type == REC_RUN)
		return record_get_str(&it->rec, "kind", kind, sizeof(kind)) == 1 &&
		       strcmp(kind, "hadamard") == 0;
	if (it->slot == SLOT_NONE || it->rec.type != REC_TENSOR)
		return false;
	if (block_find(b, it->slot, ROLE_CODES) != NULL)
		return it->rec.role == ROLE_REF;
	return it->rec.role == ROLE_WEIGHT || it->rec.role == ROLE_BIAS;
}

/* The block with the reference's weights: refs where there are such, else the weights. */
static int borrow(struct qwt *q, struct block *b, struct err *e)
{
	struct block *s = &q->shadow;

	if (b->n > s->cap) {
		struct item *p = realloc(s->items, b->n * sizeof(*p));

		if (p == NULL)
			return err_nomem(e, "reference", b->n * sizeof(*p));
		s->items = p;
		s->cap = b->n;
	}
	s->model = b->model;
	s->layer = b->layer;
	s->n = 0;
	for (size_t i = 0; i < b->n; i++) {
		struct item *it = &b->items[i], *mine = &s->items[s->n];

		if (!lent(b, it))
			continue;
		*mine = *it;
		if (it->rec.role == ROLE_REF)
			mine->rec.role = ROLE_WEIGHT;
		s->n++;
	}
	for (size_t i = 0; i < b->n; i++)
		if (b->items[i].rec.role == ROLE_CODES && b->items[i].rec.type == REC_TENSOR &&
		    block_find(s, b->items[i].slot, ROLE_WEIGHT) == NULL)
			return err_set(e, ERR_DATA, b->items[i].rec.name, "codes, and no reference "
				       "weight; quantize with --keep-ref, or give --ref=MODEL");
	return 0;
}

/* ---- fitting --------------------------------------------------------------------- */

struct verdict {
	double r2, before, after; /* weighted sums of squares over the sequences that judge */
	const char *reason;       /* NULL: taken */
	bool unclamped;
};

static size_t fitted_tokens(const struct qwt *q)
{
	const struct runner *r = &q->run[QUANTIZED];
	const size_t n = r->hidden.tokens / r->seqlen;
	const double out = q->opt.compat ? 0 : q->opt.holdout;
	size_t held = (size_t)ceil(out * (double)n);

	if (held >= n)
		held = n - 1;
	return (n - held) * r->seqlen;
}

/* Of those held out, the tokens behind the fitted ones that choose the ridge: half the windows, or
 * of one window half.  The others judge. */
static size_t choosing_tokens(const struct qwt *q)
{
	const size_t len = q->run[QUANTIZED].seqlen;
	const size_t held = q->run[QUANTIZED].hidden.tokens - fitted_tokens(q);

	return !chooses(q) ? 0 : held > len ? (held / len + 1) / 2 * len : held / 2;
}

static const double ridges[] = { 1e-4, 1e-3, 1e-2, 1e-1, 1, 10, 100 };

/* That with the least error over the windows that choose, which then join the fit. */
static int choose_ridge(struct qwt *q, struct err *e)
{
	double least = INFINITY;

	for (size_t i = 0; i < sizeof(ridges) / sizeof(*ridges); i++) {
		double err;

		if (qwt_solve(q->be->pool, &q->sums, ridges[i], q->w, q->bias, e) < 0)
			return -1;
		if (qwt_misfit(q->be, &q->held, q->w, q->bias, &err, e) < 0)
			return -1;
		if (i > 0 && !(err < least))
			continue;
		least = err;
		q->ridge = ridges[i];
	}
	qwt_sums_merge(&q->sums, &q->held);
	return 0;
}

static int solve(struct qwt *q, struct err *e)
{
	const size_t d = q->sums.d, r = (size_t)q->opt.rank;

	q->ridge = q->opt.ridge < 0 ? 0.01 : q->opt.ridge;
	if (q->opt.form == FORM_DIAGONAL) {
		qwt_solve_diagonal(&q->sums, q->ridge, q->w, q->bias);
		return 0;
	}
	if (q->opt.compat)
		return qwt_solve_compat(&q->sums, q->w, q->bias, e);
	if ((q->held.n > 0 && choose_ridge(q, e) < 0) ||
	    qwt_solve(q->be->pool, &q->sums, q->ridge, q->w, q->bias, e) < 0)
		return -1;
	return q->opt.form != FORM_LOW_RANK ? 0 :
	       qwt_low_rank(q->be, &q->sums, q->w, r, q->low, q->low + d * r, q->bias, e);
}

static int add_part(struct qwt *q, struct block *b, int place, enum run_part part,
		    const double *v, int rank, size_t rows, size_t cols, struct err *e)
{
	const size_t n = rows * (rank == 2 ? cols : 1);
	struct record r = { .rank = -1 };
	struct item *it;
	char name[256];
	float *wide = malloc(n * sizeof(*wide));

	run_part_name(b->model, place, part, b->layer, name);
	if (wide == NULL)
		return err_nomem(e, name, n * sizeof(*wide));
	for (size_t i = 0; i < n; i++)
		wide[i] = (float)v[i];
	record_init(&r, REC_TENSOR, name);
	r.role = ROLE_COMP;
	r.dtype = q->opt.dtype;
	r.rank = rank;
	r.shape[0] = (int64_t)rows;
	r.shape[1] = (int64_t)cols;
	it = block_add(b, &r, e);
	record_clear(&r);
	if (it != NULL)
		dtype_from_f32(it->data, q->opt.dtype, wide, n);
	free(wide);
	return it == NULL ? -1 : dtype_first_nonfinite(it->data, q->opt.dtype, n) < 0 ? 0 :
	       err_set(e, ERR_DATA, name, "a value is too large for %s; try --dtype=bf16",
		       dtype_name(q->opt.dtype));
}

static int add_records(struct qwt *q, struct block *b, int place, struct err *e)
{
	const size_t d = q->sums.d, r = (size_t)q->opt.rank;
	int ret = run_add_affine(b, place, q->opt.form, e);

	if (ret == 0 && q->opt.form == FORM_LOW_RANK) {
		ret = add_part(q, b, place, PART_UP, q->low, 2, d, r, e);
		if (ret == 0)
			ret = add_part(q, b, place, PART_DOWN, q->low + d * r, 2, r, d, e);
	} else if (ret == 0) {
		ret = add_part(q, b, place, PART_WEIGHT, q->w,
			       q->opt.form == FORM_FULL ? 2 : 1, d, d, e);
	}
	return ret == 0 ? add_part(q, b, place, PART_BIAS, q->bias, 1, d, 0, e) : -1;
}

static void drop_records(struct block *b, int place)
{
	char name[256];
	size_t n;

	run_place_name(b->model, place, b->layer, name);
	n = strlen(name);
	for (size_t i = 0; i < b->n; i++) {
		struct record *r = &b->items[i].rec;
		char kind[16] = "";
		const bool run = r->type == REC_RUN && strcmp(r->name, name) == 0 &&
				 record_get_str(r, "kind", kind, sizeof(kind)) == 1 &&
				 strcmp(kind, "affine") == 0;

		if (run || (r->role == ROLE_COMP && strncmp(r->name, name, n) == 0))
			b->items[i].drop = true;
	}
}

/* Sums over tokens [from, to) of v |e|^2, before, and of v |e - mean e|^2, the return value; mean
 * [d] is room. */
static double spread(const struct qwt *q, size_t from, size_t to, double *mean, double *before)
{
	const size_t d = q->sums.d;
	double sum = 0, n = 0;

	memset(mean, 0, d * sizeof(*mean));
	for (size_t i = from; i < to; i++) {
		const float *y = q->run[REFERENCE].hidden.x + i * d;
		const float *z = q->run[QUANTIZED].hidden.x + i * d;
		const double weight = q->opt.compat ? 1 : qwt_weight(y, d);

		n += weight;
		for (size_t j = 0; j < d; j++) {
			const double v = (double)y[j] - (double)z[j];

			mean[j] += weight * v;
			sum += weight * v * v;
		}
	}
	*before = sum;
	for (size_t j = 0; j < d && n > 0; j++)
		sum -= mean[j] * mean[j] / n;
	return sum > 0 || isnan(sum) ? sum : 0;
}

static int note(struct block *b, const struct qwt *q, int place, const struct verdict *v,
		struct err *e)
{
	struct item *it;
	char name[256];
	bool bad;

	run_place_name(b->model, place, b->layer, name);
	it = block_note(b, name, "compensation", e);
	if (it == NULL)
		return -1;
	bad = record_set_str(&it->rec, "by", "qwt-fit") < 0 ||
	      record_set_bool(&it->rec, "taken", v->reason == NULL) < 0 ||
	      (isfinite(v->r2) && record_set_double(&it->rec, "r2", v->r2) < 0) ||
	      (v->reason != NULL && record_set_str(&it->rec, "reason", v->reason) < 0) ||
	      (v->reason == NULL &&
	       record_set_double(&it->rec, "rel_err", v->after / v->before) < 0) ||
	      (isfinite(v->r2) && !q->opt.compat &&
	       record_set_double(&it->rec, "ridge", q->ridge) < 0) ||
	      (v->unclamped && record_set_bool(&it->rec, "unclamped", true) < 0) ||
	      record_set_str(&it->rec, "form", run_form_name(q->opt.form)) < 0;
	return bad ? err_nomem(e, name, 256) : 0;
}

/* The stage anew from where it began, with the block's records as they are now. */
static int again(struct qwt *q, struct block *b, enum stage stage, struct err *e)
{
	struct runner *r = &q->run[QUANTIZED];

	memcpy(r->hidden.x, q->before.x, r->hidden.tokens * r->hidden.width * sizeof(float));
	return forward_load(r->f, b, e) < 0 ? -1 : advance(q, QUANTIZED, stage, e);
}

/* What is not compensated is not clamped either; the stage anew. */
static int fall_back(struct qwt *q, struct block *b, enum stage stage, bool *unclamped,
		     struct err *e)
{
	size_t n = 0;

	if (!q->opt.keep_clamp &&
	    clamp_drop(b, stage != STAGE_MLP, stage != STAGE_ATTENTION, &n, e) < 0)
		return -1;
	*unclamped = n > 0;
	return again(q, b, stage, e);
}

/* Fit, apply, judge; what does not pass is taken back. */
static int fit(struct qwt *q, struct block *b, enum stage stage, int place, struct err *e)
{
	const struct runner *r = &q->run[QUANTIZED], *ref = &q->run[REFERENCE];
	const size_t all = r->hidden.tokens, n = fitted_tokens(q), choosing = choosing_tokens(q);
	const size_t from = n < all ? n + choosing : 0;
	struct verdict v = { .r2 = NAN };
	double total;

	qwt_sums_zero(&q->sums);
	qwt_sums_add(&q->sums, q->be->pool, q->before.x, ref->hidden.x, r->hidden.x, n,
		     !q->opt.compat);
	if (chooses(q)) {
		const size_t skip = n * q->sums.d;

		qwt_sums_zero(&q->held);
		qwt_sums_add(&q->held, q->be->pool, q->before.x + skip, ref->hidden.x + skip,
			     r->hidden.x + skip, choosing, true);
	}
	total = spread(q, from, all, q->bias, &v.before);
	q->n.tried++;
	if (total == 0 || !isfinite(total)) {
		v.reason = total == 0 ? "no residual: R^2 is not defined" : "residual not finite";
		return total != 0 && fall_back(q, b, stage, &v.unclamped, e) < 0 ? -1 :
		       note(b, q, place, &v, e);
	}
	if (solve(q, e) < 0 || add_records(q, b, place, e) < 0 || again(q, b, stage, e) < 0)
		return -1;
	spread(q, from, all, q->bias, &v.after);
	v.r2 = 1 - v.after / total;
	if (!(v.r2 > 0))
		v.reason = "R^2 is not above 0";
	else if (!(v.after < v.before))
		v.reason = "the error is not smaller";
	else
		q->n.taken++;
	if (v.reason != NULL) {
		drop_records(b, place);
		if (fall_back(q, b, stage, &v.unclamped, e) < 0)
			return -1;
	}
	return note(b, q, place, &v, e);
}

/* A block that is left out: a note only if it was clamped. */
static int leave(struct qwt *q, struct block *b, enum stage stage, int place, struct err *e)
{
	struct verdict v = { .r2 = NAN, .reason = "left out" };

	if (q->opt.keep_clamp || clamp_count(b) == 0)
		return 0;
	if (fall_back(q, b, stage, &v.unclamped, e) < 0)
		return -1;
	return v.unclamped ? note(b, q, place, &v, e) : 0;
}

static int one_stage(struct qwt *q, struct block *b, enum stage stage, int place, struct err *e)
{
	struct runner *r = &q->run[QUANTIZED];

	memcpy(q->before.x, r->hidden.x, r->hidden.tokens * r->hidden.width * sizeof(float));
	if (advance(q, REFERENCE, stage, e) < 0 || advance(q, QUANTIZED, stage, e) < 0)
		return -1;
	return excepted(&q->opt, b->layer) ? leave(q, b, stage, place, e) :
	       fit(q, b, stage, place, e);
}

static int all_stages(struct qwt *q, struct block *b, struct err *e)
{
	if (!q->opt.sublayers)
		return one_stage(q, b, STAGE_BLOCK, PLACE_OUT, e);
	return one_stage(q, b, STAGE_ATTENTION, PLACE_ATTN_RESID, e) < 0 ? -1 :
	       one_stage(q, b, STAGE_MLP, PLACE_MLP_RESID, e);
}

int qwt_block(struct qwt *q, struct block *b, struct block *ref, struct err *e)
{
	const bool clamped = clamp_count(b) > 0, first = !q->ready;

	if (runner_load(&q->run[QUANTIZED], b, e) < 0 || (!q->ready && start(q, e) < 0))
		return -1;
	if (ref == NULL) {
		if (borrow(q, b, e) < 0)
			return -1;
		ref = &q->shadow;
	}
	if (runner_load(&q->run[REFERENCE], ref, e) < 0 ||
	    (first && q->own && same_start(q, e) < 0) || all_stages(q, b, e) < 0)
		return -1;
	q->n.were += clamped;
	q->n.clamped += clamp_count(b) > 0;
	return 0;
}
