/* SPDX-License-Identifier: Apache-2.0 */
/*
 * forward_experts.c - a mixture of experts: tokens sent to the experts that the router picks
 *
 * As Qwen2-MoE does it: p = softmax(router x) in f32; the k largest are the token's weights, made
 * to sum to 1 if the model says so; x += sum_e p_e expert_e(a) + sigmoid(switch a) shared(a).
 * Experts go one after the other, each over its tokens gathered, so that what must be held is one
 * slice's worth whatever the number of experts.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "lib/model/forward_impl.h"

struct route {
	const struct model *m;
	size_t cap;          /* tokens there is room for */
	float *score;        /* host [cap, experts]: logits, then weights (0: not picked) */
	uint32_t *token;     /* host [cap]: an expert's tokens */
	float *weight;       /* host [cap] */
	float *open;         /* host [cap]: how far the shared expert's switch is */
	uint64_t *count;     /* [experts]: tokens routed since route_reset */
};

int route_new(struct route **r, const struct model *m, struct err *e)
{
	const size_t n = (size_t)m->cfg.experts;

	*r = calloc(1, sizeof(**r));
	if (*r != NULL)
		(*r)->count = calloc(n, sizeof(*(*r)->count));
	if (*r == NULL || (*r)->count == NULL)
		return err_nomem(e, "experts", n * sizeof(*(*r)->count));
	(*r)->m = m;
	return 0;
}

void route_free(struct route *r)
{
	if (r == NULL)
		return;
	free(r->score);
	free(r->token);
	free(r->weight);
	free(r->open);
	free(r->count);
	free(r);
}

void route_reset(struct route *r)
{
	memset(r->count, 0, (size_t)r->m->cfg.experts * sizeof(*r->count));
}

const uint64_t *forward_routed(const struct forward *f)
{
	return f->route != NULL ? f->route->count : NULL;
}

static int reserve(struct route *r, size_t t, struct err *e)
{
	const size_t n = (size_t)r->m->cfg.experts;

	if (t <= r->cap)
		return 0;
	free(r->score);
	free(r->token);
	free(r->weight);
	free(r->open);
	r->cap = 0;
	r->score = malloc(t * n * sizeof(*r->score));
	r->token = malloc(t * sizeof(*r->token));
	r->weight = malloc(t * sizeof(*r->weight));
	r->open = malloc(t * sizeof(*r->open));
	if (r->score == NULL || r->token == NULL || r->weight == NULL || r->open == NULL)
		return err_nomem(e, "experts", t * (n + 3) * sizeof(*r->score));
	r->cap = t;
	return 0;
}

/* p [n], logits, becomes softmax of which all but the k largest are 0; ties: the first wins. */
static void pick(float *p, size_t n, size_t k, bool normalise)
{
	float most = p[0];
	double sum = 0, kept = 0;

	for (size_t i = 1; i < n; i++)
		most = p[i] > most ? p[i] : most;
	for (size_t i = 0; i < n; i++)
		sum += exp((double)p[i] - most);
	for (size_t i = 0; i < n; i++)
		p[i] = (float)(exp((double)p[i] - most) / sum);
	/* The k largest become negative, the rest 0, then the sign goes. */
	for (size_t j = 0; j < k; j++) {
		size_t best = n;

		for (size_t i = 0; i < n; i++)
			if (!signbit(p[i]) && (best == n || p[i] > p[best]))
				best = i;
		kept += p[best];
		p[best] = -p[best];
	}
	for (size_t i = 0; i < n; i++)
		p[i] = !signbit(p[i]) ? 0 : normalise ? (float)(-p[i] / kept) : -p[i];
}

static int score(struct forward *f, size_t t, const float *x, struct err *e)
{
	const size_t n = (size_t)f->m->cfg.experts;
	struct route *r = f->route;

	if (reserve(r, t, e) < 0 ||
	    forward_linear(f, f->scores, n, x, f->hidden, t, SLOT_ROUTER, SLOT_NONE, 0, e) < 0 ||
	    f->be->ops->download(f->be, r->score, f->scores, t * n * sizeof(*r->score), e) < 0)
		return -1;
	for (size_t i = 0; i < t; i++) {
		for (size_t j = 0; j < n; j++)
			if (!isfinite(r->score[i * n + j]))
				return err_set(e, ERR_DATA, "router", "layer %ld: the score of "
					       "expert %zu is not finite", f->layer, j);
		pick(r->score + i * n, n, (size_t)f->m->cfg.experts_per_token,
		     f->m->cfg.norm_topk);
	}
	return 0;
}

/* The tokens of one expert, and their weights; returns how many. */
static size_t collect(struct route *r, size_t expert, size_t t)
{
	const size_t n = (size_t)r->m->cfg.experts;
	size_t k = 0;

	for (size_t i = 0; i < t; i++) {
		const float w = r->score[i * n + expert];

		if (w == 0)
			continue;
		r->token[k] = (uint32_t)i;
		r->weight[k++] = w;
	}
	return k;
}

/* One expert over its tokens, or, for statistics, over all: those not routed weigh nothing. */
static int run_expert(struct forward *f, long expert, const float *x, size_t t, bool add,
		      const struct hook *h, struct err *e)
{
	const struct backend_ops *ops = f->be->ops;
	const size_t n = (size_t)f->m->cfg.expert_ffn;
	struct route *r = f->route;
	size_t k = collect(r, (size_t)expert, t);

	r->count[expert] += k;
	if (f->all_experts) {
		for (size_t i = 0; i < t; i++)
			r->weight[i] = r->score[i * (size_t)f->m->cfg.experts + (size_t)expert];
		k = t;
	} else if (k > 0) {
		if (ops->gather(f->be, f->picked, x, r->token, k, f->hidden, e) < 0)
			return -1;
		x = f->picked;
	}
	if (k == 0)
		return 0;
	x = forward_input(f, edge_of_expert(EDGE_X_IN, expert), f->picked, x, k, h, e);
	if (x == NULL ||
	    forward_mid(f, x, k, n, slot_of_expert(SLOT_X_GATE, expert),
			slot_of_expert(SLOT_X_UP, expert), edge_of_expert(EDGE_X_MID, expert), h,
			e) < 0)
		return -1;
	if (!add)
		return 0;
	if (forward_linear(f, f->made, f->hidden, f->up, n, k, slot_of_expert(SLOT_X_DOWN, expert),
			   SLOT_NONE, 0, e) < 0)
		return -1;
	return ops->scatter_add(f->be, f->x, f->made, f->all_experts ? NULL : r->token, r->weight,
				k, f->hidden, e);
}

/* How much of the shared expert each token gets. */
static int switch_shared(struct forward *f, size_t t, const float *x, struct err *e)
{
	float *w = f->route->open;

	if (forward_linear(f, f->scores, 1, x, f->hidden, t, SLOT_SHARED_SWITCH, SLOT_NONE, 0,
			   e) < 0 ||
	    f->be->ops->download(f->be, w, f->scores, t * sizeof(*w), e) < 0)
		return -1;
	for (size_t i = 0; i < t; i++)
		w[i] = (float)(1 / (1 + exp(-(double)w[i])));
	return 0;
}

static int run_shared(struct forward *f, const float *x, size_t t, bool add, const struct hook *h,
		      struct err *e)
{
	const size_t n = (size_t)f->m->cfg.shared_ffn;

	if (forward_mid(f, x, t, n, SLOT_SHARED_GATE, SLOT_SHARED_UP, EDGE_SHARED_MID, h, e) < 0)
		return -1;
	if (!add)
		return 0;
	if (forward_linear(f, f->made, f->hidden, f->up, n, t, SLOT_SHARED_DOWN, SLOT_NONE, 0,
			   e) < 0)
		return -1;
	return f->be->ops->scatter_add(f->be, f->x, f->made, NULL, f->route->open, t, f->hidden,
				       e);
}

/* Router and switch read a as it is; what run records say of mlp.in is done to what the shared
 * expert reads, and to the experts' inputs what they say of those. */
int forward_experts(struct forward *f, size_t t, bool add, const struct hook *h, struct err *e)
{
	const float *x = f->a;

	if (score(f, t, x, e) < 0 || (add && switch_shared(f, t, x, e) < 0))
		return -1;
	for (long i = 0; i < f->m->cfg.experts; i++)
		if (run_expert(f, i, x, t, add, h, e) < 0)
			return -1;
	x = forward_input(f, EDGE_MLP_IN, f->a, x, t, h, e);
	return x == NULL ? -1 : run_shared(f, x, t, add, h, e);
}
