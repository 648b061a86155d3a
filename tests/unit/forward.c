/* SPDX-License-Identifier: Apache-2.0 */
/*
 * forward.c - the forward pass against the textbook in f64, and against itself in pieces
 */
#include "lib/model/embed.h"
#include "lib/model/forward.h"
#include "lib/model/head.h"
#include "lib/model/rope.h"
#include "tests/unit/tap.h"
#include "tests/unit/tiny.h"

static struct err e;

/* ---- the textbook, one sequence, everything in f64, no cleverness ----------------------- */

struct naive {
	double attn_in[2048], attn_mid[8192], mlp_in[2048], mlp_mid[8192]; /* at the edges */
};

static void naive_linear(double *y, const double *x, size_t t, const float *w, const float *bias,
			 size_t n, size_t k)
{
	for (size_t r = 0; r < t; r++)
		for (size_t i = 0; i < n; i++) {
			double sum = bias != NULL ? bias[i] : 0;

			for (size_t j = 0; j < k; j++)
				sum += x[r * k + j] * w[i * k + j];
			y[r * n + i] = sum;
		}
}

static void naive_norm(double *y, const double *x, size_t t, const float *w, size_t d, double eps)
{
	for (size_t r = 0; r < t; r++) {
		double ss = 0;

		for (size_t j = 0; j < d; j++)
			ss += x[r * d + j] * x[r * d + j];
		for (size_t j = 0; j < d; j++)
			y[r * d + j] = x[r * d + j] / sqrt(ss / (double)d + eps) * w[j];
	}
}

static void naive_rope(const struct model_config *c, double *x, size_t t, long heads)
{
	const long dim = c->head_dim, half = dim / 2;

	for (size_t p = 0; p < t; p++)
		for (long h = 0; h < heads; h++)
			for (long i = 0; i < half; i++) {
				double f = pow(c->rope_theta, -2.0 * (double)i / (double)dim);
				double *a = x + (p * (size_t)heads + (size_t)h) * (size_t)dim + i;
				double re = a[0], im = a[half], w;

				if (c->rope == ROPE_LINEAR)
					f /= c->rope_factor;
				w = (double)p * f;
				a[0] = re * cos(w) - im * sin(w);
				a[half] = im * cos(w) + re * sin(w);
			}
}

static void naive_attention(const struct model_config *c, double *o, const double *q,
			    const double *k, const double *v, size_t t)
{
	const size_t d = (size_t)c->head_dim, hq = (size_t)c->heads, hk = (size_t)c->kv_heads;
	double s[64];

	for (size_t h = 0; h < hq; h++)
		for (size_t i = 0; i < t; i++) {
			const size_t g = h / (hq / hk);
			double sum = 0;

			for (size_t j = 0; j <= i; j++) {
				s[j] = 0;
				for (size_t l = 0; l < d; l++)
					s[j] += q[(i * hq + h) * d + l] * k[(j * hk + g) * d + l];
				s[j] = exp(s[j] / sqrt((double)d));
				sum += s[j];
			}
			for (size_t l = 0; l < d; l++) {
				double y = 0;

				for (size_t j = 0; j <= i; j++)
					y += s[j] / sum * v[(j * hk + g) * d + l];
				o[(i * hq + h) * d + l] = y;
			}
		}
}

/* x [t, hidden] is replaced by the block's output. */
static void naive_block(struct block *b, double *x, size_t t, struct naive *n)
{
	const struct model_config *c = &b->model->cfg;
	const size_t d = (size_t)c->hidden, dq = (size_t)(c->heads * c->head_dim);
	const size_t dk = (size_t)(c->kv_heads * c->head_dim), f = (size_t)c->ffn;
	static double q[8192], k[8192], v[8192], y[8192];

	naive_norm(n->attn_in, x, t, tiny_weight(b, SLOT_NORM1), d, c->norm_eps);
	naive_linear(q, n->attn_in, t, tiny_weight(b, SLOT_Q), tiny_weight(b, SLOT_Q_B), dq, d);
	naive_linear(k, n->attn_in, t, tiny_weight(b, SLOT_K), tiny_weight(b, SLOT_K_B), dk, d);
	naive_linear(v, n->attn_in, t, tiny_weight(b, SLOT_V), tiny_weight(b, SLOT_V_B), dk, d);
	naive_rope(c, q, t, c->heads);
	naive_rope(c, k, t, c->kv_heads);
	naive_attention(c, n->attn_mid, q, k, v, t);
	naive_linear(y, n->attn_mid, t, tiny_weight(b, SLOT_O), tiny_weight(b, SLOT_O_B), d, dq);
	for (size_t i = 0; i < t * d; i++)
		x[i] += y[i];
	naive_norm(n->mlp_in, x, t, tiny_weight(b, SLOT_NORM2), d, c->norm_eps);
	naive_linear(q, n->mlp_in, t, tiny_weight(b, SLOT_GATE), tiny_weight(b, SLOT_GATE_B), f, d);
	naive_linear(k, n->mlp_in, t, tiny_weight(b, SLOT_UP), tiny_weight(b, SLOT_UP_B), f, d);
	for (size_t i = 0; i < t * f; i++)
		n->mlp_mid[i] = q[i] / (1 + exp(-q[i])) * k[i];
	naive_linear(y, n->mlp_mid, t, tiny_weight(b, SLOT_DOWN), tiny_weight(b, SLOT_DOWN_B), d,
		     f);
	for (size_t i = 0; i < t * d; i++)
		x[i] += y[i];
}

/* ---- comparisons ---------------------------------------------------------------------- */

/* Largest difference over largest magnitude. */
static double distance(const float *got, const double *want, size_t n)
{
	double diff = 0, size = 0;

	for (size_t i = 0; i < n; i++) {
		diff = fmax(diff, isnan(got[i]) ? INFINITY : fabs((double)got[i] - want[i]));
		size = fmax(size, fabs(want[i]));
	}
	return diff / size;
}

struct seen {
	const struct naive *want;
	const struct model *m;
	int order[8], n;
	double worst;
};

static int compare_edges(void *ctx, enum edge g, const float *x, size_t t, struct err *err)
{
	struct seen *s = ctx;
	const double *want[] = { s->want->attn_in, s->want->attn_mid, s->want->mlp_in,
				 s->want->mlp_mid };

	(void)err;
	s->order[s->n++ % 8] = (int)g;
	s->worst = fmax(s->worst, distance(x, want[g], t * (size_t)model_edge_width(s->m, g)));
	return 0;
}

static int refuse_mlp(void *ctx, enum edge g, const float *x, size_t t, struct err *err)
{
	(void)ctx, (void)x, (void)t;
	return g == EDGE_MLP_IN ? err_set(err, ERR_DATA, "hook", "no") : 0;
}

static void test_block(struct backend *be, struct model_config c, const char *what)
{
	enum { T = 11 };
	const size_t n = T * (size_t)c.hidden;
	struct naive *want = calloc(1, sizeof(*want));
	struct model m;
	struct block b;
	struct forward *f;
	float x[512];
	double y[512];

	m = tiny_model(&c);
	block_init(&b, &m);
	tiny_block(&b, 0, &e);
	f = forward_new(&m, be, T, &e);
	if (!ok(f != NULL && forward_load(f, &b, &e) == 0, "%s: weights load", what))
		return;
	tiny_fill(x, n, 0, 2);
	for (size_t i = 0; i < n; i++)
		y[i] = x[i];
	naive_block(&b, y, T, want);
	struct seen s = { .want = want, .m = &m };
	ok(forward_block(f, x, 1, T, compare_edges, &s, &e) == 0, "%s: runs", what);
	ok_near(distance(x, y, n), 0, 2e-6, "%s: output as the textbook's", what);
	ok(s.n == 4 && s.order[0] == EDGE_ATTN_IN && s.order[1] == EDGE_ATTN_MID &&
	   s.order[2] == EDGE_MLP_IN && s.order[3] == EDGE_MLP_MID, "%s: hooks in order", what);
	ok_near(s.worst, 0, 2e-6, "%s: hooks see the textbook's edges", what);
	ok(forward_block(f, x, 1, T, refuse_mlp, NULL, &e) < 0 && strcmp(e.where, "hook") == 0,
	   "%s: a hook's error ends the pass", what);
	ok(forward_block(f, x, 1, T + 1, NULL, NULL, &e) < 0 && e.cls == ERR_BUG,
	   "%s: a longer sequence than announced", what);
	forward_free(f);
	block_release(&b);
	free(want);
}

/* Many sequences at once, one at a time, in thirds, on one thread: the same bits. */
static void test_pieces(struct backend *be, struct backend *one)
{
	enum { S = 300, L = 7, T = S * L, D = 8 };
	struct model_config c = tiny_config();
	struct model m;
	struct block b;
	struct forward *f, *g;
	float *x = malloc(T * D * sizeof(*x)), *y = malloc(T * D * sizeof(*y));
	float *z = malloc(T * D * sizeof(*z)), *ctx = malloc(T * 24 * sizeof(*ctx));
	struct hidden h = { .x = z, .tokens = T, .width = D };

	m = tiny_model(&c);
	block_init(&b, &m);
	tiny_block(&b, 1, &e);
	f = forward_new(&m, be, L, &e);
	g = forward_new(&m, one, L, &e);
	ok(f != NULL && g != NULL && forward_load(f, &b, &e) == 0 && forward_load(g, &b, &e) == 0,
	   "pieces: weights load");
	tiny_fill(x, T * D, 0, 1);
	memcpy(y, x, T * D * sizeof(*x));
	memcpy(z, x, T * D * sizeof(*x));
	ok(forward_block(f, x, S, L, NULL, NULL, &e) == 0, "pieces: %d sequences at once", S);
	for (size_t i = 0; i < S; i++)
		if (forward_block(g, y + i * L * D, 1, L, NULL, NULL, &e) < 0)
			ok(false, "pieces: sequence %zu", i);
	double worst = 0;
	for (size_t i = 0; i < T * D; i++)
		worst = fmax(worst, fabs((double)x[i] - (double)y[i]));
	ok_near(worst, 0, 1e-5, "pieces: sequence by sequence is the same");
	memcpy(y, z, T * D * sizeof(*x));
	ok(forward_block(g, y, S, L, NULL, NULL, &e) == 0 &&
	   memcmp(x, y, T * D * sizeof(*x)) == 0, "pieces: one thread gives the same bits");
	memcpy(y, z, T * D * sizeof(*x));
	ok(forward_all(f, &h, L, NULL, NULL, NULL, NULL, &e) == 0 &&
	   memcmp(x, z, T * D * sizeof(*x)) == 0, "pieces: forward_all gives the same bits");
	ok(forward_attention(f, y, ctx, S, L, NULL, NULL, &e) == 0 &&
	   forward_attention_out(f, y, ctx, T, &e) == 0, "pieces: attention, its output");
	memcpy(z, y, T * D * sizeof(*x));
	ok(forward_mlp(f, y, T, false, NULL, NULL, &e) == 0 &&
	   memcmp(z, y, T * D * sizeof(*x)) == 0, "pieces: the MLP adds nothing unless asked");
	ok(forward_mlp(f, y, T, true, NULL, NULL, &e) == 0, "pieces: the MLP");
	worst = 0;
	for (size_t i = 0; i < T * D; i++)
		worst = fmax(worst, fabs((double)x[i] - (double)y[i]));
	ok_near(worst, 0, 1e-5, "pieces: the thirds make the whole");
	memset(block_find(&b, SLOT_DOWN, ROLE_WEIGHT)->data, 0, 8 * 12 * 4);
	memcpy(y, z, T * D * sizeof(*x));
	ok(forward_reload(f, &b, SLOT_DOWN, &e) == 0 &&
	   forward_mlp(f, y, T, true, NULL, NULL, &e) == 0 &&
	   memcmp(z, y, T * D * sizeof(*x)) == 0, "pieces: a reloaded linear is the one used");
	forward_free(f);
	forward_free(g);
	block_release(&b);
	free(x), free(y), free(z), free(ctx);
}

static void test_refusals(struct backend *be)
{
	struct model_config c = tiny_config();
	struct record r = { .rank = -1 };
	struct model m;
	struct block b;
	struct forward *f;
	struct item *it;

	m = tiny_model(&c);
	block_init(&b, &m);
	tiny_block(&b, 0, &e);
	f = forward_new(&m, be, 4, &e);
	record_init(&r, REC_TENSOR, "model.layers.0.self_attn.q_proj.bias");
	r.role = ROLE_BIAS;
	r.dtype = DT_F32;
	r.rank = 1;
	r.shape[0] = 24;
	it = block_add(&b, &r, &e);
	ok(it != NULL && forward_load(f, &b, &e) < 0 && e.cls == ERR_DATA &&
	   strstr(e.where, "q_proj.bias") != NULL, "a bias the configuration denies is refused");
	it->rec.role = ROLE_COMP;
	ok(forward_load(f, &b, &e) < 0 && e.cls == ERR_VERSION, "a compensation is refused");
	it->rec.role = ROLE_OTHER;
	ok(forward_load(f, &b, &e) == 0, "a role nobody knows is passed over");
	it->rec.type = REC_RUN;
	record_set_str(&it->rec, "kind", "unheard-of");
	ok(forward_load(f, &b, &e) < 0 && e.cls == ERR_VERSION, "a run record is refused");
	record_clear(&r);
	forward_free(f);
	block_release(&b);
}

/* ---- embedding, head, positions --------------------------------------------------------- */

static void test_embed(struct backend *be)
{
	static const uint16_t half[] = { 0x3f80, 0xc000, 0x0000, 0x3f00, 0x4040, 0xbf80 };
	struct model_config c = tiny_config();
	struct ends n = { 0 };
	struct item *it = ends_item(&n, SLOT_EMBED);
	struct embed *em;
	struct model m;
	const int32_t ids[] = { 2, 0 }, bad[] = { 1, 3 }, minus[] = { -1 };
	float x[4];

	it->data = (void *)half;
	it->rec.role = ROLE_WEIGHT;
	it->rec.dtype = DT_BF16;
	c.hidden = c.embed_dim = 2;
	c.vocab = 3;
	m = tiny_model(&c);
	ok(embed_new(&em, &m, be, &n, &e) == 0, "embed: a table");
	ok(embed_tokens(em, ids, NULL, 0, 2, 2, x, &e) == 0 && x[0] == 3 && x[1] == -1 &&
	   x[2] == 1 && x[3] == -2, "embed: rows of a bf16 table");
	ok(embed_tokens(em, bad, NULL, 0, 2, 2, x, &e) < 0 && e.cls == ERR_DATA &&
	   strstr(e.what, "id 3 at position 1") != NULL, "embed: an id beyond the vocabulary");
	ok(embed_tokens(em, minus, NULL, 0, 1, 1, x, &e) < 0, "embed: a negative id");
	embed_free(em);
}

static struct item make_item(const struct model *m, enum slot s, float *data)
{
	struct item it = { .data = data };

	tiny_record(m, s, -1, &it.rec);
	return it;
}

static void test_head(struct backend *be)
{
	enum { N = 2500, D = 8, V = 20 };
	struct model_config c = tiny_config();
	struct model m;
	struct ends n = { 0 };
	struct item *norm = ends_item(&n, SLOT_NORM_F), *w = ends_item(&n, SLOT_HEAD);
	struct head *h;
	static float x[N * D], gain[D], table[V * D], logits[N * V], normed[N * D];
	static double nll[N], y[N * D], z[N * V], want;
	static int32_t target[N];
	double worst = 0;

	m = tiny_model(&c);
	tiny_fill(x, N * D, 0, 3);
	tiny_fill(gain, D, 1, 0.5f);
	tiny_fill(table, V * D, 0, 1);
	*norm = make_item(&m, SLOT_NORM_F, gain);
	*w = make_item(&m, SLOT_HEAD, table);
	ok(head_load(&h, &m, be, &n, &e) == 0, "head: loads");
	for (size_t i = 0; i < N * D; i++)
		y[i] = x[i];
	naive_norm(y, y, N, gain, D, c.norm_eps);
	naive_linear(z, y, N, table, NULL, V, D);
	for (size_t i = 0; i < N; i++) {
		target[i] = i % 3 == 0 ? -1 : (int32_t)(i % V);
		nll[i] = NAN;
	}
	ok(head_nll(h, x, N, target, nll, &e) == 0, "head: scores");
	for (size_t i = 0; i < N; i++) {
		double sum = 0;

		for (size_t j = 0; j < V; j++)
			sum += exp(z[i * V + j]);
		want = target[i] < 0 ? 0 : log(sum) - z[i * V + (size_t)target[i]];
		worst = isnan(nll[i]) ? INFINITY : fmax(worst, fabs(nll[i] - want));
	}
	ok_near(worst, 0, 1e-5, "head: scores as the textbook's, rows without target 0");
	ok(head_logits(h, x, N, logits, &e) == 0, "head: logits");
	ok_near(distance(logits, z, N * V), 0, 2e-6, "head: logits as the textbook's");
	ok(head_norm(h, x, N, normed, &e) == 0, "head: norm");
	ok_near(distance(normed, y, N * D), 0, 1e-6, "head: norm as the textbook's");
	target[N - 1] = V;
	ok(head_nll(h, x, N, target, nll, &e) < 0 && e.cls == ERR_DATA,
	   "head: a target beyond the vocabulary");
	head_free(h);
	memset(table, 0, sizeof(table));
	ok(head_load(&h, &m, be, &n, &e) == 0, "head: of zeros");
	target[0] = 3;
	ok(head_nll(h, x, 1, target, nll, &e) == 0, "head: of zeros scores");
	ok_near(nll[0], log(V), 1e-6, "head: equal logits cost log(vocabulary)");
	head_free(h);
	norm->rec.shape[0] = 9;
	ok(head_load(&h, &m, be, &n, &e) < 0 && h == NULL,
	   "head: a norm that is wider");
	record_clear(&norm->rec);
	record_clear(&w->rec);
}

static void test_hidden(void)
{
	enum { T = 3000, W = 7 }; /* rows that straddle pages */
	struct hidden h;
	bool same = true;

	ok(hidden_open(&h, T, W, "/tmp", &e) == 0, "hidden: spilled");
	for (size_t i = 0; i < T * W; i++)
		h.x[i] = (float)i;
	for (size_t i = 0; i < T; i += 100)
		hidden_drop(&h, i, 100);
	for (size_t i = 0; i < T * W; i++)
		same = same && h.x[i] == (float)i;
	ok(same, "hidden: what is dropped comes back");
	hidden_close(&h);
	ok(hidden_open(&h, T, W, NULL, &e) == 0, "hidden: in memory");
	h.x[5] = 5;
	hidden_drop(&h, 0, T);
	ok(h.x[5] == 5 && h.x[T * W - 1] == 0, "hidden: dropping does nothing there");
	hidden_close(&h);
	ok(hidden_open(&h, T, W, "/nowhere", &e) < 0 && e.cls == ERR_CANTCREAT,
	   "hidden: no such directory");
	ok(hidden_open(&h, SIZE_MAX / 8, W, NULL, &e) < 0, "hidden: more than there can be");
	ok(hidden_open(&h, (size_t)1 << 44, W, "/tmp", &e) < 0 && e.cls == ERR_IO,
	   "hidden: more than the disk has");
}

/* Llama 3.1's settings; wavelengths 2 pi 500000^(2i/128) against 8192 / 4 and 8192 / 1. */
static void test_rope(void)
{
	struct model_config c = tiny_config();
	double f[64], plain[64];
	float co[3 * 3], si[3 * 3];

	c.head_dim = 128;
	c.rope_theta = 500000;
	rope_frequencies(&c, plain);
	c.rope = ROPE_LLAMA3;
	c.rope_factor = 8;
	c.rope_low_freq = 1;
	c.rope_high_freq = 4;
	c.rope_original_positions = 8192;
	rope_frequencies(&c, f);
	ok(f[0] == 1 && f[28] == plain[28], "rope llama3: short waves stay");
	ok(f[35] == plain[35] / 8 && f[63] == plain[63] / 8,
	   "rope llama3: long waves are 8 times longer");
	/* i = 32: wavelength 2 pi 707.1 = 4442.9, s = (8192 / 4442.9 - 1) / 3 = 0.281280 */
	ok_near(f[32] / plain[32], 0.281280 + 0.718720 / 8, 1e-5, "rope llama3: a mix between");
	c.rope = ROPE_LINEAR;
	c.rope_factor = 4;
	rope_frequencies(&c, f);
	ok(f[0] == 0.25 && f[9] == plain[9] / 4, "rope linear: all by the factor");
	c = tiny_config();
	ok(rope_tables(&c, 3, co, si, &e) == 0 && co[0] == 1 && si[0] == 0, "rope: position 0");
	ok_near(co[2 * 3 + 1], cos(2 * pow(10000, -2.0 / 6)), 1e-7, "rope: position 2, pair 1");
	ok_near(si[3], sin(1.0), 1e-7, "rope: position 1, pair 0");
}

int main(void)
{
	struct model_config c = tiny_config();
	struct backend be, one;

	if (!ok(backend_open(&be, "cpu", 2, &e) == 0 && backend_open(&one, "cpu", 1, &e) == 0,
		"backend"))
		return done();
	test_block(&be, c, "gqa");
	c.kv_heads = 4;
	c.qkv_bias = c.o_bias = c.mlp_bias = true;
	c.norm_eps = 0.1;
	test_block(&be, c, "biases");
	c.kv_heads = 1;
	c.rope = ROPE_LINEAR;
	c.rope_factor = 3;
	c.mlp_bias = false;
	test_block(&be, c, "mqa, linear rope");
	c.hidden = 40; /* wider than attention's output */
	c.head_dim = 2;
	test_block(&be, c, "wide residual");
	test_pieces(&be, &one);
	test_refusals(&be);
	test_embed(&be);
	test_head(&be);
	test_hidden();
	test_rope();
	backend_close(&be);
	backend_close(&one);
	return done();
}
