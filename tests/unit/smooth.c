/* SPDX-License-Identifier: Apache-2.0 */
/*
 * smooth.c - scales by hand; a block whose products must not change, statistics included
 */
#include <stdlib.h>

#include "lib/method/smooth.h"
#include "tests/unit/tap.h"

#define HIDDEN 8
#define FFN 6
#define HEADS 4
#define KV 2
#define DIM 2
#define TOKENS 5

static uint64_t state = 3;

static float uniform(void)
{
	state = state * 6364136223846793005u + 1442695040888963407u;
	return (float)(state >> 40) * 0x1p-23f - 1;
}

static void scales(void)
{
	/* Powers of two, alpha 3/4: s = A^(3/4) / w^(1/4). */
	static const double a[] = { 16, 1, 0, 0x1p-40, 81 }, w[] = { 16, 0x1p-4, 2, 16, 0 };
	double s[5];

	smooth_scales(s, a, w, 5, 0.75);
	ok(s[0] == 4, "alpha 0.75: 16^(3/4) / 16^(1/4) = 4");
	ok(s[1] == 2, "1 / (1/16)^(1/4) = 2");
	ok(s[2] == 1, "a dead channel is left alone");
	ok(s[3] == 1e-5, "s is never below 1e-5");
	ok_near(s[4], 27 / pow(1e-5, 0.25), 1e-9, "a column of zero weights counts as 1e-5");
	smooth_scales(s, a, w, 2, 0);
	ok(s[0] == 1.0 / 16 && s[1] == 16, "alpha 0: s = 1 / max |W|");
	smooth_scales(s, a, w, 2, 1);
	ok(s[0] == 16 && s[1] == 1, "alpha 1: s = max |x|");
}

static void parsing(void)
{
	unsigned bits;
	struct err e = { 0 };

	ok(smooth_parse_edges("attn.in", &bits, &e) == 0 && bits == 1u << EDGE_ATTN_IN, "one edge");
	ok(smooth_parse_edges("mlp.mid,attn.mid", &bits, &e) == 0 &&
	   bits == (1u << EDGE_MLP_MID | 1u << EDGE_ATTN_MID), "two");
	ok(smooth_parse_edges("all", &bits, &e) == 0 && (bits & SMOOTH_ALL), "all");
	for (int i = 0; i < 5; i++) {
		static const char *const bad[] = { "", "attn", "attn.in,", "attn.in;mlp.in",
						  "all,mlp.in" };

		ok(smooth_parse_edges(bad[i], &bits, &e) < 0 && e.cls == ERR_USAGE,
		   "'%s' is refused",
		   bad[i]);
	}
}

/* ---- a block ------------------------------------------------------------------------ */

static struct item *add(struct block *b, const char *name, enum role role, int rank, int64_t d0,
			int64_t d1)
{
	struct record r = { .rank = -1 };
	struct err e = { 0 };
	struct item *it;
	float *x;

	record_init(&r, REC_TENSOR, name);
	r.role = role;
	r.dtype = DT_F32;
	r.rank = rank;
	r.shape[0] = d0;
	r.shape[1] = d1;
	if (role == ROLE_STAT) {
		record_set_str(&r, "stat", rank == 2 ? "samples" : d1 == 1 ? "absmax" : "hessian");
		record_set_int(&r, "tokens", TOKENS);
		if (rank == 1 && d1 != 1)
			record_set_int(&r, "width", d1);
	}
	it = block_add(b, &r, &e);
	record_clear(&r);
	if (!it) {
		printf("# %s: %s: %s\n", name, e.where, e.what);
		exit(1);
	}
	x = it->data;
	for (size_t i = 0; i < it->rec.nbytes / sizeof(*x); i++)
		x[i] = uniform();
	return it;
}

static float *weight(struct block *b, enum slot s)
{
	return block_find(b, s, ROLE_WEIGHT)->data;
}

/* x [TOKENS, k] at an edge, with outliers; its statistics go into the block. */
static void statistics(struct block *b, const char *edge, const float *x, int64_t k)
{
	float *top = add(b, edge, ROLE_STAT, 1, k, 1)->data, *h, *rows;

	for (int64_t j = 0; j < k; j++) {
		top[j] = 0;
		for (int t = 0; t < TOKENS; t++)
			top[j] = fmaxf(top[j], fabsf(x[t * k + j]));
	}
	h = add(b, edge, ROLE_STAT, 1, k * (k + 1) / 2, k)->data;
	for (int64_t i = 0; i < k; i++)
		for (int64_t j = i; j < k; j++, h++) {
			*h = 0;
			for (int t = 0; t < TOKENS; t++)
				*h += x[t * k + i] * x[t * k + j];
		}
	rows = add(b, edge, ROLE_STAT, 2, TOKENS, k)->data;
	memcpy(rows, x, (size_t)(TOKENS * k) * sizeof(*x));
}

static void make_block(struct block *b, const struct model *m)
{
	static const struct { enum slot s; int rank; int64_t d0, d1; } t[] = {
		{ SLOT_NORM1, 1, HIDDEN, 1 }, { SLOT_Q, 2, HEADS * DIM, HIDDEN },
		{ SLOT_K, 2, KV * DIM, HIDDEN }, { SLOT_V, 2, KV * DIM, HIDDEN },
		{ SLOT_V_B, 1, KV * DIM, 1 }, { SLOT_O, 2, HIDDEN, HEADS * DIM },
		{ SLOT_NORM2, 1, HIDDEN, 1 }, { SLOT_GATE, 2, FFN, HIDDEN },
		{ SLOT_UP, 2, FFN, HIDDEN }, { SLOT_DOWN, 2, HIDDEN, FFN },
	};
	float x[TOKENS * HIDDEN];

	block_init(b, m);
	b->layer = 0;
	for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
		char name[256];

		model_tensor_name(m, t[i].s, 0, name);
		add(b, name, t[i].s == SLOT_V_B ? ROLE_BIAS : ROLE_WEIGHT, t[i].rank, t[i].d0,
		    t[i].d1);
	}
	for (int i = 0; i < TOKENS * HIDDEN; i++)
		x[i] = uniform() * (i % HIDDEN == 3 ? 40 : 1) * (i % HIDDEN != 5);
	statistics(b, "layers.0.attn.in", x, HIDDEN);
	statistics(b, "layers.0.attn.mid", x, HEADS * DIM);
	statistics(b, "layers.0.mlp.in", x, HIDDEN);
	statistics(b, "layers.0.mlp.mid", x, FFN);
}

/* What leaves the edge: consumers applied to what the producer makes of fixed inputs. */
struct outputs {
	double q[HEADS * DIM], v[KV * DIM], o[HIDDEN], up[FFN], gate[FFN], down[HIDDEN];
};

static void multiply(double *y, const float *w, const double *x, int n, int k)
{
	for (int i = 0; i < n; i++) {
		y[i] = 0;
		for (int j = 0; j < k; j++)
			y[i] += (double)w[i * k + j] * x[j];
	}
}

/* One token: attention is the identity on v, spread over the query heads of its group. */
static void run(struct block *b, struct outputs *r)
{
	double x[HIDDEN], spread[HEADS * DIM], mid[FFN];

	for (int j = 0; j < HIDDEN; j++)
		x[j] = (0.1 * j - 0.3) * weight(b, SLOT_NORM1)[j];
	multiply(r->q, weight(b, SLOT_Q), x, HEADS * DIM, HIDDEN);
	multiply(r->v, weight(b, SLOT_V), x, KV * DIM, HIDDEN);
	for (int c = 0; c < KV * DIM; c++)
		r->v[c] += weight(b, SLOT_V_B)[c];
	for (int c = 0; c < HEADS * DIM; c++)
		spread[c] = r->v[c / DIM / (HEADS / KV) * DIM + c % DIM];
	multiply(r->o, weight(b, SLOT_O), spread, HIDDEN, HEADS * DIM);
	for (int j = 0; j < HIDDEN; j++)
		x[j] = (0.2 * j - 0.5) * weight(b, SLOT_NORM2)[j];
	multiply(r->gate, weight(b, SLOT_GATE), x, FFN, HIDDEN);
	multiply(r->up, weight(b, SLOT_UP), x, FFN, HIDDEN);
	for (int j = 0; j < FFN; j++)
		mid[j] = r->gate[j] / (1 + exp(-r->gate[j])) * r->up[j];
	multiply(r->down, weight(b, SLOT_DOWN), mid, HIDDEN, FFN);
}

static bool close_to(const double *a, const double *b, int n)
{
	bool same = true;

	for (int i = 0; i < n; i++)
		same = same && fabs(a[i] - b[i]) <= 1e-6 * (1 + fabs(a[i]));
	return same;
}

/* w of the consumer times statistics: W H W' and W x, which a map must leave alone. */
static double energy(struct block *b, enum slot s, enum edge edge, int n, int k)
{
	const float *w = weight(b, s), *h = block_stat(b, edge, STAT_HESSIAN)->data;
	double sum = 0;

	for (int r = 0; r < n; r++)
		for (int i = 0; i < k; i++)
			for (int j = 0; j < k; j++)
				sum += (double)w[r * k + i] * w[r * k + j] *
				       h[i < j ? tri_index((size_t)i, (size_t)j, (size_t)k) :
						 tri_index((size_t)j, (size_t)i, (size_t)k)];
	return sum;
}

static void blocks(const struct model *m, const char *edges, double alpha, bool mid)
{
	struct smooth_options opt = { .alpha = alpha };
	struct block b;
	struct outputs before, after;
	struct err e = { 0 };
	double h0, h1;
	const float *top, *rows;
	bool agree = true, moved = false;

	make_block(&b, m);
	run(&b, &before);
	h0 = energy(&b, SLOT_DOWN, EDGE_MLP_MID, HIDDEN, FFN);
	ok(smooth_parse_edges(edges, &opt.edges, &e) == 0 && smooth_block(&b, &opt, &e) == 0,
	   "--edges=%s -a %g %s", edges, alpha, e.what);
	run(&b, &after);
	h1 = energy(&b, SLOT_DOWN, EDGE_MLP_MID, HIDDEN, FFN);
	ok(close_to(before.q, after.q, HEADS * DIM) && close_to(before.o, after.o, HIDDEN) &&
	   close_to(before.gate, after.gate, FFN) && close_to(before.down, after.down, HIDDEN),
	   "the block computes what it did");
	ok(close_to(before.up, after.up, FFN) != mid &&
	   close_to(before.v, after.v, KV * DIM) != mid,
	   mid ? "up and v are divided" : "up and v are not touched");
	ok_near(h1 / h0, 1, 1e-6, "tr W H W' is the same");
	top = block_stat(&b, EDGE_ATTN_IN, STAT_ABSMAX)->data;
	rows = block_stat(&b, EDGE_ATTN_IN, STAT_SAMPLES)->data;
	for (int j = 0; j < HIDDEN; j++) {
		float largest = 0;

		for (int t = 0; t < TOKENS; t++)
			largest = fmaxf(largest, fabsf(rows[t * HIDDEN + j]));
		agree = agree && fabsf(largest - top[j]) <= 1e-6f * largest;
		moved |= alpha == 1 && j != 5 && fabsf(top[j] - 1) > 1e-6f;
	}
	ok(agree, "absmax is that of the samples still");
	ok(!moved, "alpha 1 makes every maximum 1");
	block_release(&b);
}

int main(void)
{
	struct model_config cfg = {
		.model_type = "llama", .hidden = HIDDEN, .layers = 1,
		.heads = HEADS, .kv_heads = KV,
		.head_dim = DIM, .ffn = FFN, .vocab = 16, .max_positions = 64, .norm_eps = 1e-5,
		.rope = ROPE_PLAIN, .rope_theta = 10000, .tied = true, .qkv_bias = true,
		.bos = -1, .eos = -1,
	};
	struct smooth_options opt = { .alpha = 0.5, .edges = SMOOTH_PUBLISHED };
	struct model m;
	struct block b;
	struct err e = { 0 };

	scales();
	parsing();
	if (!ok(model_init(&m, &cfg, &e) == 0, "a model %s %s", e.where, e.what))
		return done();
	blocks(&m, "attn.in,mlp.in", 0.5, false);
	blocks(&m, "attn.in,mlp.in", 0.8, false);
	blocks(&m, "all", 0.3, true);
	blocks(&m, "all", 1, true);
	blocks(&m, "all", 0, true);

	make_block(&b, &m);
	block_stat(&b, EDGE_MLP_IN, STAT_ABSMAX)->edge = -1;
	ok(smooth_block(&b, &opt, &e) < 0 && e.cls == ERR_DATA, "no maxima");
	ok_str(e.where, "layers.0.mlp.in", "the edge is named");
	ok(strstr(e.what, "put \"record-acts -\" before smooth") != NULL, "%s", e.what);
	block_release(&b);

	make_block(&b, &m);
	weight(&b, SLOT_NORM1)[2] = 3e38f;
	((float *)block_stat(&b, EDGE_ATTN_IN, STAT_ABSMAX)->data)[2] = 1e-9f;
	ok(smooth_block(&b, &opt, &e) < 0 && strstr(e.what, "out of range"), "%s: %s", e.where,
	   e.what);
	block_release(&b);
	return done();
}
