/* SPDX-License-Identifier: Apache-2.0 */
/*
 * run.c - run records: written, read, refused, and obeyed by the forward pass
 */
#include <math.h>

#include "lib/model/forward.h"
#include "lib/model/run.h"
#include "tests/unit/tap.h"
#include "tests/unit/tiny.h"

enum { T = 40, D = 8, F = 12 };

static struct err e;
static const struct quant a8 = { .bits = 8, .sym = true, .clip = 1, .per = QUANT_TOKEN };

static int add(struct block *b, int place, struct quant q, size_t recent)
{
	return run_add_quant(b, place, &q, recent, &e);
}

static int forward(struct block *b, struct backend *be, float *x, edge_hook hook, void *ctx)
{
	struct forward *f = forward_new(b->model, be, T, &e);
	const int ret = f == NULL || forward_load(f, b, &e) < 0 ? -1 :
			forward_block(f, x, 1, T, hook, ctx, &e);

	forward_free(f);
	return ret;
}

static double apart(const float *a, const float *b, size_t n)
{
	double d = 0;

	for (size_t i = 0; i < n; i++)
		d = fmax(d, fabs((double)a[i] - (double)b[i]));
	return d;
}

static void test_records(const struct model *m)
{
	const struct quant_grid grids[2] = { { .scale = 0.5f }, { .scale = 2, .zero = 3 } };
	const struct quant fixed = { .bits = 4, .per = QUANT_GROUP, .group = 4, .clip = 1,
				     .rule = QUANT_GPTQ, .fixed = grids };
	struct run_list l = { 0 };
	const struct run_op *op;
	struct block b;
	size_t i = 0;

	block_init(&b, m);
	tiny_block(&b, 0, &e);
	ok(add(&b, PLACE_EDGES + EDGE_ATTN_IN, fixed, 0) == 0 && add(&b, PLACE_K, a8, 9) == 0 &&
	   b.items[0].rec.type == REC_RUN && b.items[1].rec.type == REC_RUN &&
	   strcmp(b.items[0].rec.name, "layers.0.attn.in") == 0 &&
	   strcmp(b.items[1].rec.name, "layers.0.attn.k") == 0, "records stand in front, in order");
	ok(run_read(&l, &b, &e) == 0 && l.n == 2, "and are read: %s", e.what);
	op = run_at(&l, PLACE_EDGES + EDGE_ATTN_IN, &i);
	ok(op != NULL && op->quant.bits == 4 && !op->quant.sym && op->quant.group == 4 &&
	   op->quant.rule == QUANT_GPTQ && op->quant.fixed != NULL &&
	   op->quant.fixed[1].scale == 2 && op->quant.fixed[1].zero == 3, "what was written");
	i = 0;
	op = run_at(&l, PLACE_K, &i);
	ok(op != NULL && op->recent == 9 && op->quant.fixed == NULL && run_at(&l, PLACE_K, &i) ==
	   NULL, "keys");
	ok(add(&b, PLACE_K, a8, 0) < 0 && e.cls == ERR_DATA, "a second quantizer at a place");
	ok(run_refuse_fitted(&b, "smooth", &e) < 0 && strstr(e.what, "smooth") != NULL,
	   "fixed ranges refuse what changes edges");
	record_set_int(&b.items[1].rec, "flavour", 3);
	ok(run_read(&l, &b, &e) < 0 && e.cls == ERR_VERSION && strstr(e.what, "flavour") != NULL,
	   "a key nobody knows: %s", e.what);
	record_unset(&b.items[1].rec, "flavour");
	record_set_str(&b.items[1].rec, "kind", "smell");
	ok(run_read(&l, &b, &e) < 0 && e.cls == ERR_VERSION, "a kind nobody knows");
	record_set_str(&b.items[1].rec, "kind", "act-quant");
	record_set_str(&b.items[1].rec, "rule", "thumb");
	ok(run_read(&l, &b, &e) < 0 && e.cls == ERR_VERSION, "a rule nobody knows");
	record_set_str(&b.items[1].rec, "rule", "awq");
	snprintf(b.items[1].rec.name, sizeof(b.items[1].rec.name), "layers.0.attn.z");
	ok(run_read(&l, &b, &e) < 0 && e.cls == ERR_VERSION, "a place nobody knows");
	snprintf(b.items[1].rec.name, sizeof(b.items[1].rec.name), "layers.1.attn.k");
	ok(run_read(&l, &b, &e) < 0 && e.cls == ERR_DATA, "another block's");
	((float *)b.items[0].data)[2] = -1;
	ok(run_read(&l, &b, &e) < 0 && e.cls == ERR_DATA, "a scale below 0: %s", e.what);
	run_release(&l);
	block_release(&b);
}

/* Each edge's values, as the hooks see them. */
static int on_grid(void *ctx, enum edge g, const float *x, size_t t, struct err *err)
{
	const size_t n = g == EDGE_MLP_MID ? F : g == EDGE_ATTN_MID ? 24 : D;
	double *worst = ctx;

	(void)err;
	for (size_t i = 0; i < t; i++) {
		float most = 0;

		for (size_t j = 0; j < n; j++)
			most = fmaxf(most, fabsf(x[i * n + j]));
		for (size_t j = 0; j < n; j++) {
			const double v = (double)x[i * n + j] / (double)most * 127;

			*worst = fmax(*worst, fabs(v - rint(v)));
		}
	}
	return 0;
}

static void test_forward(const struct model *m, struct backend *be)
{
	static float x[T * D], y[T * D], z[T * D];
	struct quant p = a8, k = a8;
	struct block b;
	double worst = 0;

	k.per = QUANT_GROUP;
	k.group = 6;
	k.bits = 2;
	block_init(&b, m);
	tiny_block(&b, 0, &e);
	tiny_fill(x, T * D, 0, 1);
	memcpy(y, x, sizeof(x));
	ok(forward(&b, be, y, NULL, NULL) == 0, "without");
	add(&b, PLACE_K, k, T);
	add(&b, PLACE_V, k, T);
	memcpy(z, x, sizeof(x));
	ok(forward(&b, be, z, NULL, NULL) == 0, "all keys and values are recent");
	ok_near(apart(y, z, T * D), 0, 1e-5, "the same as without");
	b.items[0].drop = b.items[1].drop = true;
	memset(&b.items[0].rec.name, 'x', 1);
	memset(&b.items[1].rec.name, 'x', 1);
	add(&b, PLACE_K, k, 0);
	add(&b, PLACE_V, k, 0);
	memcpy(z, x, sizeof(x));
	ok(forward(&b, be, z, NULL, NULL) == 0 && apart(y, z, T * D) > 1e-3,
	   "2 bits change something: %g", apart(y, z, T * D));
	for (int g = EDGE_ATTN_IN; g <= EDGE_MLP_MID; g++)
		add(&b, PLACE_EDGES + g, a8, 0);
	p.sym = false;
	p.rule = QUANT_GPTQ;
	add(&b, PLACE_P, p, 0);
	add(&b, PLACE_MLP_RESID, a8, 0);
	memcpy(z, x, sizeof(x));
	ok(forward(&b, be, z, on_grid, &worst) == 0, "quantizers everywhere: %s", e.what);
	ok_near(worst, 0, 1e-3, "hooks see what the linears read, 127 steps");
	worst = 0;
	for (size_t i = 0; i < T; i++) {
		float most = 0;

		for (size_t j = 0; j < D; j++)
			most = fmaxf(most, fabsf(z[i * D + j]));
		for (size_t j = 0; j < D; j++) {
			const double v = (double)z[i * D + j] / (double)most * 127;

			worst = fmax(worst, fabs(v - rint(v)));
		}
	}
	ok_near(worst, 0, 1e-3, "and so does the residual stream");
	block_release(&b);
}

/* Stems and branches as whole sequences, with everything quantized and some keys recent. */
static void test_trees(const struct model *m, struct backend *be)
{
	enum { STEM = 9, A = 5, B = 7 };
	static float x[(STEM + A + B) * D], y[(STEM + A) * D], z[(STEM + B) * D];
	const struct forward_tree tree = { STEM, 2, (const size_t[]){ A, B } };
	struct quant k = a8, p = a8;
	struct forward *f;
	struct block b;

	k.per = QUANT_GROUP;
	k.group = 6;
	k.bits = 3;
	p.bits = 4;
	block_init(&b, m);
	tiny_block(&b, 1, &e);
	add(&b, PLACE_K_RAW, k, 4);
	add(&b, PLACE_V, k, 4);
	add(&b, PLACE_P, p, 0);
	add(&b, PLACE_EDGES + EDGE_ATTN_MID, a8, 0);
	tiny_fill(x, (STEM + A + B) * D, 0, 1);
	memcpy(y, x, sizeof(y));
	memcpy(z, x, STEM * D * sizeof(*x));
	memcpy(z + STEM * D, x + (STEM + A) * D, B * D * sizeof(*x));
	f = forward_new(m, be, T, &e);
	ok(f != NULL && forward_load(f, &b, &e) == 0 &&
	   forward_block(f, y, 1, STEM + A, NULL, NULL, &e) == 0 &&
	   forward_block(f, z, 1, STEM + B, NULL, NULL, &e) == 0 &&
	   forward_trees(f, x, &tree, 1, &e) == 0, "trees run: %s", e.what);
	ok_near(apart(x, y, (STEM + A) * D), 0, 1e-5, "a stem and its first branch");
	ok_near(apart(x + (STEM + A) * D, z + STEM * D, B * D), 0, 1e-5, "its second branch");
	forward_free(f);
	block_release(&b);
}

static float *comp(struct block *b, enum run_part part, int rank, int64_t rows, int64_t cols)
{
	struct record r = { .rank = -1 };
	struct item *it;
	char name[256];

	run_part_name(b->model, PLACE_OUT, part, b->layer, name);
	record_init(&r, REC_TENSOR, name);
	r.role = ROLE_COMP;
	r.dtype = DT_F32;
	r.rank = rank;
	r.shape[0] = rows;
	r.shape[1] = cols;
	it = block_add(b, &r, &e);
	record_clear(&r);
	tiny_fill(it->data, it->rec.nbytes / 4, 0, 1);
	return it->data;
}

static void test_affine(const struct model *m, struct backend *be)
{
	static float x[T * D], y[T * D], z[T * D];

	tiny_fill(x, T * D, 0, 1);
	for (int form = FORM_FULL; form <= FORM_DIAGONAL; form++) {
		float *w, *bias, *up;
		double worst = 0;
		struct block b;

		block_init(&b, m);
		tiny_block(&b, 0, &e);
		memcpy(y, x, sizeof(x));
		memcpy(z, x, sizeof(x));
		ok(forward(&b, be, y, NULL, NULL) == 0, "plain");
		ok(run_add_affine(&b, PLACE_OUT, form, &e) == 0, "a record");
		ok(forward(&b, be, z, NULL, NULL) < 0 && e.cls == ERR_DATA, "no tensors yet");
		bias = comp(&b, PART_BIAS, 1, D, 0);
		up = form == FORM_LOW_RANK ? comp(&b, PART_UP, 2, D, 3) : NULL;
		w = form == FORM_LOW_RANK ? comp(&b, PART_DOWN, 2, 3, D) :
		    comp(&b, PART_WEIGHT, form == FORM_FULL ? 2 : 1, D, D);
		ok(forward(&b, be, z, NULL, NULL) == 0, "%s: %s", run_form_name(form), e.what);
		for (size_t i = 0; i < T * D; i++) {
			const float *row = x + i / D * D;
			const size_t n = i % D;
			double want = y[i] + bias[n];

			for (size_t j = 0; j < D; j++)
				if (form == FORM_FULL)
					want += w[n * D + j] * row[j];
				else if (form == FORM_DIAGONAL)
					want += j == n ? w[n] * row[n] : 0;
				else
					for (size_t r = 0; r < 3; r++)
						want += up[n * 3 + r] * w[r * D + j] * row[j];
			worst = fmax(worst, fabs(want - z[i]));
		}
		ok_near(worst, 0, 1e-5, "%s: W x + b of the block's input", run_form_name(form));
		block_release(&b);
	}
}

/* Every linear of the block gets codes of its own weight, a scale a group. */
static void quantize_weights(struct block *b, int bits, size_t groups, bool sym)
{
	static const enum slot slots[] = { SLOT_Q, SLOT_K, SLOT_V, SLOT_O, SLOT_GATE, SLOT_UP,
					   SLOT_DOWN };

	for (size_t s = 0; s < 7; s++) {
		struct item *w = block_find(b, slots[s], ROLE_WEIGHT), *c, *k, *z;
		struct record r = { .rank = -1 };
		size_t rows, cols;

		record_dup(&r, &w->rec, &e);
		rows = (size_t)r.shape[0];
		cols = (size_t)r.shape[1];
		w->rec.role = ROLE_REF;
		r.role = ROLE_CODES;
		r.dtype = DT_U8;
		record_set_int(&r, "bits", bits);
		record_set_int(&r, "group", (int64_t)(cols / groups));
		record_set_bool(&r, "sym", sym);
		c = block_add(b, &r, &e);
		for (size_t i = 0; i < rows * cols; i++)
			((uint8_t *)c->data)[i] = (uint8_t)((tiny_random() + 1) / 2 *
							    (float)((1 << bits) - 1));
		r.role = ROLE_SCALE;
		r.dtype = DT_F32;
		r.shape[1] = (int64_t)groups;
		k = block_add(b, &r, &e);
		tiny_fill(k->data, rows * groups, 0.01f, 0.005f);
		r.role = ROLE_ZERO;
		r.dtype = DT_U8;
		z = sym ? NULL : block_add(b, &r, &e);
		for (size_t i = 0; z != NULL && i < rows * groups; i++)
			((uint8_t *)z->data)[i] = (uint8_t)((1 << bits) * (1 + (int)(i % 3)) / 4);
		record_clear(&r);
	}
}

static void test_integers(const struct model *m, struct backend *be)
{
	static float x[T * D], y[T * D], z[T * D];
	static const struct quant acts[] = {
		{ .bits = 8, .sym = true, .clip = 1, .per = QUANT_TOKEN },
		{ .bits = 8, .rule = QUANT_AWQ, .clip = 1, .per = QUANT_TOKEN },
		{ .bits = 4, .rule = QUANT_GPTQ, .clip = 1, .per = QUANT_GROUP, .group = 4 },
		{ .bits = 8, .sym = true, .rule = QUANT_GPTQ, .clip = 1, .per = QUANT_TENSOR },
	};

	tiny_fill(x, T * D, 0, 1);
	for (size_t i = 0; i < 16; i++) {
		const struct quant q = acts[i % 4];
		const int bits = i / 4 % 2 ? 8 : 4;
		struct forward *f;
		struct block b;

		block_init(&b, m);
		tiny_block(&b, 0, &e);
		quantize_weights(&b, bits, i / 8 ? 2 : 1, i % 2);
		for (int g = EDGE_ATTN_IN; g <= EDGE_MLP_MID; g++)
			add(&b, PLACE_EDGES + g, q, 0);
		memcpy(y, x, sizeof(x));
		memcpy(z, x, sizeof(x));
		f = forward_new(m, be, T, &e);
		ok(forward(&b, be, y, NULL, NULL) == 0, "W%dA%d: fake: %s", bits, q.bits, e.what);
		forward_integers(f, true);
		ok(forward_load(f, &b, &e) == 0 &&
		   forward_block(f, z, 1, T, NULL, NULL, &e) == 0, "integers");
		/* groups of 4 and of 6 have no common runs: down stays in f32 */
		ok(forward_integer_linears(f) == (q.group == 4 && i / 8 ? 6 : 7), "in %zu linears",
		   forward_integer_linears(f));
		memset(x, 0, sizeof(x));
		ok(apart(y, z, T * D) < 1e-6 * apart(y, x, T * D), "as dequantized: %g of %g",
		   apart(y, z, T * D), apart(y, x, T * D));
		tiny_fill(x, T * D, 0, 1);
		forward_free(f);
		block_release(&b);
	}
}

int main(void)
{
	const struct model_config c = tiny_config();
	const struct model m = tiny_model(&c);
	struct backend be;

	if (backend_open(&be, "cpu", 2, &e) < 0)
		return 1;
	test_records(&m);
	test_forward(&m, &be);
	test_trees(&m, &be);
	test_affine(&m, &be);
	test_integers(&m, &be);
	backend_close(&be);
	return done();
}
