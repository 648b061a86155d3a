/* SPDX-License-Identifier: Apache-2.0 */
/*
 * forward_run.c - what run records ask for, done at the places of a slice
 */
#include <stdlib.h>
#include <string.h>

#include "lib/compute/hadamard.h"
#include "lib/model/device.h"
#include "lib/model/forward_impl.h"

/* The compensation of one place, ready for the device. */
struct affine {
	struct packed *mat[PART_BIAS]; /* by enum run_part; NULL: not of this form */
	float *bias, *diagonal;
	size_t rank;                   /* of the low-rank form */
};

/* ---- loading --------------------------------------------------------------------- */

static int which_sum(int place)
{
	return place - PLACE_ATTN_RESID;
}

/* A part's values in f32, on the host; the caller frees them. */
static float *wide(const struct item *it, struct err *e)
{
	const size_t n = (size_t)it->rec.nbytes * 8 / (size_t)dtype_bits(it->rec.dtype);
	float *p = malloc(n * sizeof(*p));

	if (p == NULL)
		err_nomem(e, it->rec.name, n * sizeof(*p));
	else
		dtype_to_f32(p, it->data, it->rec.dtype, n);
	return p;
}

static int load_vector(struct forward *f, float **dst, const struct item *it, struct err *e)
{
	const size_t nbytes = f->hidden * sizeof(float);
	float *host = wide(it, e);
	int ret = -1;

	if (host == NULL)
		return -1;
	if (*dst == NULL)
		*dst = f->be->ops->alloc(f->be, nbytes, e);
	if (*dst != NULL)
		ret = f->be->ops->upload(f->be, *dst, host, nbytes, e);
	free(host);
	return ret;
}

static void drop_affine(struct forward *f, struct affine *a)
{
	if (a == NULL)
		return;
	for (int i = 0; i < PART_BIAS; i++)
		if (a->mat[i] != NULL)
			f->be->ops->pack_free(f->be, a->mat[i]);
	if (a->bias != NULL)
		f->be->ops->free(f->be, a->bias);
	if (a->diagonal != NULL)
		f->be->ops->free(f->be, a->diagonal);
	free(a);
}

static int load_affine(struct forward *f, const struct run_op *op, struct err *e)
{
	struct affine *a = calloc(1, sizeof(*a));

	if (a == NULL)
		return err_nomem(e, "compensation", sizeof(*a));
	f->affine[which_sum(op->place)] = a;
	if (load_vector(f, &a->bias, op->part[PART_BIAS], e) < 0)
		return -1;
	if (op->form == FORM_DIAGONAL)
		return load_vector(f, &a->diagonal, op->part[PART_WEIGHT], e);
	if (op->form == FORM_LOW_RANK)
		a->rank = (size_t)op->part[PART_DOWN]->rec.shape[0];
	for (int i = 0; i < PART_BIAS; i++) {
		const struct item *it = op->part[i];

		if (it != NULL && f->be->ops->pack(f->be, &a->mat[i], it->data, it->rec.dtype,
						   (size_t)it->rec.shape[0],
						   (size_t)it->rec.shape[1], e) < 0)
			return -1;
	}
	return 0;
}

static const struct hadamard *turn_of(const struct forward *f, size_t order)
{
	for (size_t i = 0; i < f->n_turns; i++)
		if (hadamard_order(f->turns[i]) == order)
			return f->turns[i];
	return NULL;
}

static int load_turn(struct forward *f, size_t order, struct err *e)
{
	struct hadamard **p;

	if (turn_of(f, order) != NULL)
		return 0;
	p = realloc(f->turns, (f->n_turns + 1) * sizeof(*p));
	if (p == NULL)
		return err_nomem(e, "hadamard", (f->n_turns + 1) * sizeof(*p));
	f->turns = p;
	if (hadamard_new(&p[f->n_turns], order, e) < 0)
		return -1;
	f->n_turns++;
	return 0;
}

/* What attention is to know of quantized keys, values and probabilities. */
static void note_attention(struct forward *f)
{
	memset(&f->extra, 0, sizeof(f->extra));
	for (size_t i = 0; i < f->run.n; i++) {
		const struct run_op *op = &f->run.op[i];

		if (op->kind != RUN_QUANT)
			continue;
		if (op->place == PLACE_P)
			f->extra.probs = &op->quant;
		if (op->recent > f->extra.recent)
			f->extra.recent = op->recent;
	}
}

static void clear(struct forward *f)
{
	for (int i = 0; i < FORWARD_SUMS; i++) {
		drop_affine(f, f->affine[i]);
		f->affine[i] = NULL;
	}
}

int forward_run_load(struct forward *f, struct block *b, struct err *e)
{
	size_t recent = 0;

	clear(f);
	if (run_read(&f->run, b, e) < 0)
		return -1;
	for (size_t i = 0; i < f->run.n; i++) {
		const struct run_op *op = &f->run.op[i];

		if ((op->kind == RUN_AFFINE && load_affine(f, op, e) < 0) ||
		    (op->kind == RUN_HADAMARD && load_turn(f, op->order, e) < 0))
			return -1;
		if (op->recent > 0 && recent > 0 && op->recent != recent)
			return err_set(e, ERR_DATA, "attention", "layer %ld: keys and values of "
				       "which %zu and %zu tokens stay as they are", b->layer,
				       recent, op->recent);
		recent = op->recent > 0 ? op->recent : recent;
	}
	note_attention(f);
	return 0;
}

void forward_run_release(struct forward *f)
{
	clear(f);
	run_release(&f->run);
	for (size_t i = 0; i < f->n_turns; i++)
		hadamard_free(f->turns[i]);
	free(f->turns);
	if (f->kept != NULL)
		f->be->ops->free(f->be, f->kept);
	if (f->before != NULL)
		f->be->ops->free(f->be, f->before);
}

/* ---- doing ----------------------------------------------------------------------- */

bool forward_run_has(const struct forward *f, int place)
{
	size_t i = 0;

	return run_at(&f->run, place, &i) != NULL;
}

static int quantize(struct forward *f, const struct run_op *op, float *y, const float *x, size_t t,
		    struct err *e)
{
	const struct quant *q = &op->quant;
	const size_t width = run_place_width(f->m, op->place);
	const bool keep = f->integers && op->place >= PLACE_EDGES && quant_has_codes(q);

	if (keep && int_input_reserve(&f->in, t, width, quant_groups(q, width), e) < 0)
		return -1;
	if (q->per == QUANT_TENSOR && q->fixed == NULL && f->seqlen == 0)
		err_set(e, ERR_DATA, "", "a dynamic grid for all tokens of a sequence; sequences "
			"that share what they begin with have none: use static ranges, or a grid "
			"a token");
	else if (f->be->ops->quantize(f->be, y, x, t, width, f->seqlen, q,
				      keep ? &f->in.codes : NULL, e) == 0) {
		f->in.x = keep ? y : f->in.x;
		return 0;
	}
	run_place_name(f->m, op->place, f->layer, e->where);
	return -1;
}

/* y = x, if it is not, turned. */
static int turn(struct forward *f, const struct run_op *op, float *y, const float *x, size_t t,
		struct err *e)
{
	const size_t width = run_place_width(f->m, op->place);
	const struct backend_ops *ops = f->be->ops;

	if (y != x && ops->gather(f->be, y, x, NULL, t, width, e) < 0)
		return -1;
	f->in.x = NULL;
	return ops->hadamard(f->be, y, t * width, turn_of(f, op->order), e);
}

/* exact: not to a grid; but what else stands there is done. */
static int run_ops(struct forward *f, int place, bool exact, float *y, const float *x, size_t t,
		   struct err *e)
{
	const struct run_op *op;

	for (size_t i = 0; (op = run_at(&f->run, place, &i)) != NULL; x = y)
		if ((op->kind == RUN_QUANT && !exact && quantize(f, op, y, x, t, e) < 0) ||
		    (op->kind == RUN_HADAMARD && turn(f, op, y, x, t, e) < 0))
			return -1;
	return 0;
}

int forward_run(struct forward *f, int place, float *y, const float *x, size_t t, struct err *e)
{
	return run_ops(f, place, false, y, x, t, e);
}

const float *forward_input(struct forward *f, enum edge g, float *own, const float *x, size_t t,
			   const struct hook *h, struct err *e)
{
	const int place = PLACE_EDGES + (int)g;

	f->in.x = NULL;
	if (forward_run_has(f, place)) {
		if (forward_run(f, place, own, x, t, e) < 0)
			return NULL;
		x = own;
	}
	return hook_call(h, g, x, t, e) < 0 ? NULL : x;
}

static int put_aside(struct forward *f, size_t t, struct err *e)
{
	const size_t n = f->arena_tokens * f->kv_dim;
	const struct backend_ops *ops = f->be->ops;

	if (f->kept_tokens < f->arena_tokens) {
		if (f->kept != NULL)
			ops->free(f->be, f->kept);
		f->kept_tokens = 0;
		f->kept = ops->alloc(f->be, 2 * n * sizeof(float), e);
		if (f->kept == NULL)
			return -1;
		f->kept_tokens = f->arena_tokens;
	}
	f->extra.k = f->kept;
	f->extra.v = f->kept + n;
	return ops->gather(f->be, f->kept, f->k, NULL, t, f->kv_dim, e) < 0 ? -1 :
	       ops->gather(f->be, f->kept + n, f->v, NULL, t, f->kv_dim, e);
}

int forward_keep(struct forward *f, size_t t, struct err *e)
{
	if (f->extra.recent > 0 &&
	    (put_aside(f, t, e) < 0 || run_ops(f, PLACE_K_RAW, true, f->kept, f->kept, t, e) < 0))
		return -1;
	return forward_run(f, PLACE_K_RAW, f->k, f->k, t, e);
}

int forward_cache(struct forward *f, size_t t, struct err *e)
{
	float *v = f->kept + f->arena_tokens * f->kv_dim;

	if (f->extra.recent > 0 &&
	    (run_ops(f, PLACE_K, true, f->kept, f->kept, t, e) < 0 ||
	     run_ops(f, PLACE_V, true, v, v, t, e) < 0))
		return -1;
	if (forward_run(f, PLACE_Q, f->q, f->q, t, e) < 0 ||
	    forward_run(f, PLACE_K, f->k, f->k, t, e) < 0 ||
	    forward_run(f, PLACE_V, f->v, f->v, t, e) < 0)
		return -1;
	if (f->watch == NULL)
		return 0;
	return f->watch(f->watch_ctx, false, f->k, t, e) < 0 ? -1 :
	       f->watch(f->watch_ctx, true, f->v, t, e);
}

void forward_watch_cache(struct forward *f, cache_hook hook, void *ctx)
{
	f->watch = hook;
	f->watch_ctx = ctx;
}

const struct attention_extra *forward_extra(const struct forward *f)
{
	return f->extra.probs != NULL || f->extra.recent > 0 ? &f->extra : NULL;
}

/* ---- sums ------------------------------------------------------------------------ */

/* Where the input of a sum is kept: the block's, and that of the third at hand. */
static float *kept_input(struct forward *f, int place)
{
	return f->before + (place == PLACE_OUT ? 0 : f->before_tokens * f->hidden);
}

int forward_sum_begin(struct forward *f, int place, size_t t, struct err *e)
{
	if (f->affine[which_sum(place)] == NULL)
		return 0;
	if (f->before_tokens < f->arena_tokens) {
		if (f->before != NULL)
			f->be->ops->free(f->be, f->before);
		f->before_tokens = 0;
		f->before = f->be->ops->alloc(f->be, 2 * f->arena_tokens * f->hidden *
					      sizeof(float), e);
		if (f->before == NULL)
			return -1;
		f->before_tokens = f->arena_tokens;
	}
	return f->be->ops->gather(f->be, kept_input(f, place), f->x, NULL, t, f->hidden, e);
}

static int add_affine(struct forward *f, const struct affine *a, const float *x, size_t t,
		      struct err *e)
{
	const struct backend_ops *ops = f->be->ops;
	const struct packed *up = a->mat[PART_UP], *down = a->mat[PART_DOWN];
	const size_t rank = a->rank;

	if (a->diagonal != NULL)
		return ops->affine(f->be, f->x, x, a->diagonal, a->bias, t, f->hidden, e);
	if (up == NULL)
		return ops->linear(f->be, f->x, f->hidden, x, f->hidden, t, a->mat[PART_WEIGHT],
				   a->bias, 1, e);
	return ops->linear(f->be, f->a, rank, x, f->hidden, t, down, NULL, 0, e) < 0 ? -1 :
	       ops->linear(f->be, f->x, f->hidden, f->a, rank, t, up, a->bias, 1, e);
}

int forward_sum_end(struct forward *f, int place, size_t t, struct err *e)
{
	const struct affine *a = f->affine[which_sum(place)];

	if (a != NULL && add_affine(f, a, kept_input(f, place), t, e) < 0)
		return -1;
	return forward_run(f, place, f->x, f->x, t, e);
}
