/* SPDX-License-Identifier: Apache-2.0 */
/* family.c - the Llama table: names, shapes, order, edges, and the way through a stream's head */
#include "lib/data/mp.h"
#include "lib/data/stream.h"
#include "lib/model/family.h"
#include "tests/unit/tap.h"

static struct model_config config(void)
{
	return (struct model_config){
		.model_type = "llama", .hidden = 64, .layers = 12, .heads = 6, .kv_heads = 2,
		.head_dim = 24, .ffn = 172, .vocab = 320, .max_positions = 128, .norm_eps = 1e-5,
		.rope = ROPE_LLAMA3, .rope_theta = 500000, .rope_factor = 8, .rope_low_freq = 1,
		.rope_high_freq = 4, .rope_original_positions = 16, .qkv_bias = true, .bos = 1,
		.eos = -1,
	};
}

static struct model model(void)
{
	struct model_config c = config();
	struct model m;
	struct err e;

	ok(!model_init(&m, &c, &e), "a model of 12 layers");
	return m;
}

static void names(const struct model *m)
{
	static const char *const foreign[] = {
		"model.layers.12.mlp.up_proj.weight",
			"model.layers.99999999999999999999.mlp.up_proj.weight",
		"model.layers.01.mlp.up_proj.weight", "model.layers.+1.mlp.up_proj.weight",
		"model.layers.-1.mlp.up_proj.weight", "model.layers..mlp.up_proj.weight",
		"model.layers.1mlp.up_proj.weight", "model.layers.1.mlp.up_proj.weight2",
		"model.layers.1.mlp.up_proj", "model.layers.1.", "model.layers.", "",
		"layers.1.mlp.up_proj.weight", "model.layers.1.self_attn.o_proj.bias",
		"model.layers.1.mlp.up_proj.bias", "model.layers.1.model.norm.weight",
		"mlp.up_proj.weight", "model.norm.bias",
	};
	char name[256];
	enum slot s, back;
	long layer, l;
	size_t n = 0, wrong = 0;

	for (; model_nth(m, n, &s, &layer); n++) {
		model_tensor_name(m, s, layer, name);
		back = model_slot(m, name, &l);
		wrong += back != s || l != layer || !model_has(m, s, layer);
	}
	ok(n == 1 + 12 * 12 + 2, "an untied model with q, k, v biases has 147 tensors (%zu)", n);
	ok(wrong == 0, "every name leads back to its slot and layer");
	model_tensor_name(m, SLOT_K_B, 11, name);
	ok_str(name, "model.layers.11.self_attn.k_proj.bias", "a name in a block");
	model_tensor_name(m, SLOT_NORM_F, 3, name);
	ok_str(name, "model.norm.weight", "a name outside of the blocks");
	for (size_t i = 0; i < sizeof(foreign) / sizeof(foreign[0]); i++)
		ok(model_slot(m, foreign[i], &l) == SLOT_NONE, "no tensor of it: '%s'", foreign[i]);
}

static void order(const struct model *m)
{
	enum slot s;
	long layer, last = -1;
	size_t n = 0;
	bool ascending = true;

	ok(model_nth(m, 0, &s, &layer) && s == SLOT_EMBED && layer == -1, "the embedding is first");
	ok(model_nth(m, 1, &s, &layer) && s == SLOT_NORM1 && layer == 0, "then the first block");
	ok(model_nth(m, 12, &s, &layer) && s == SLOT_DOWN && layer == 0,
	   "which ends with down_proj");
	for (n = 1; model_nth(m, n, &s, &layer) && layer >= 0; n++) {
		ascending &= layer == last || layer == last + 1;
		last = layer;
	}
	ok(ascending && last == 11, "blocks come in order");
	ok(s == SLOT_NORM_F && model_nth(m, n + 1, &s, &layer) && s == SLOT_HEAD && layer == -1,
	   "final norm and head come last");
	ok(!model_nth(m, n + 2, &s, &layer) && !model_nth(m, SIZE_MAX, &s, &layer), "and no more");
}

static void shapes(const struct model *m)
{
	static const struct {
		enum slot s;
		int rank;
		int64_t rows, cols;
	} list[] = {
		{ SLOT_Q, 2, 144, 64 }, { SLOT_K, 2, 48, 64 }, { SLOT_V, 2, 48, 64 },
		{ SLOT_O, 2, 64, 144 }, { SLOT_GATE, 2, 172, 64 }, { SLOT_UP, 2, 172, 64 },
		{ SLOT_DOWN, 2, 64, 172 }, { SLOT_NORM1, 1, 64, 1 }, { SLOT_Q_B, 1, 144, 1 },
		{ SLOT_V_B, 1, 48, 1 }, { SLOT_DOWN_B, 1, 64, 1 }, { SLOT_EMBED, 2, 320, 64 },
		{ SLOT_HEAD, 2, 320, 64 },
	};
	struct linear_row l;
	int64_t shape[2];
	size_t wrong = 0;

	for (size_t i = 0; i < sizeof(list) / sizeof(list[0]); i++)
		ok(model_shape(m, list[i].s, shape) == list[i].rank && shape[0] == list[i].rows &&
		   shape[1] == list[i].cols, "shape of %s", model_row(m, list[i].s)->name);
	/* The tables agree with one another: a linear is as wide as its edge. */
	for (size_t n = 0; model_linear(m, 3, n, &l); n++) {
		int64_t bias[2];

		model_shape(m, l.weight, shape);
		wrong += shape[1] != model_edge_width(m, l.in) || !model_has_edge(m, l.in, 3);
		wrong += l.bias != SLOT_NONE && (model_shape(m, l.bias, bias) != 1 ||
						 bias[0] != shape[0]);
	}
	for (int i = 0; i <= EDGE_MLP_MID; i++) {
		const struct edge_row row = model_edge_row(m, i);

		wrong += row.edge != (enum edge)i || row.of != row.edge;
		model_shape(m, row.producer, shape);
		wrong += shape[0] != (row.kv_grouped ? model_dim(m, DIM_KV) :
				      model_edge_width(m, row.edge));
	}
	ok(wrong == 0, "linears, edges and tensors of the table agree");
}

static void edges(const struct model *m)
{
	static const char *const foreign[] = { "layers.12.mlp.in", "layers.3.mlp", "layers.3mlp.in",
					       "layers.3.mlp.in2", "model.layers.3.mlp.in",
					       "layers.", "layers.3.mlp.shared.mid",
					       "layers.3.mlp.experts.0.in", "" };
	char name[256];
	long layer;

	model_edge_name(m, EDGE_MLP_MID, 7, name);
	ok_str(name, "layers.7.mlp.mid", "the name of an edge");
	for (int i = 0; i <= EDGE_MLP_MID; i++) {
		model_edge_name(m, (enum edge)i, 10, name);
		ok(model_edge(m, name, &layer) == i && layer == 10, "%s leads back", name);
	}
	for (size_t i = 0; i < sizeof(foreign) / sizeof(foreign[0]); i++)
		ok(model_edge(m, foreign[i], &layer) == -1, "no edge: '%s'", foreign[i]);
}

static void refused(void)
{
	struct model m;
	struct err e;
#define REFUSED(change, key, text) do { \
	struct model_config c = config(); \
	c.change; \
	ok(model_init(&m, &c, &e) == -1 && e.cls == ERR_DATA && !strcmp(e.where, key) && \
	   strstr(e.what, text), "refused: %s: %s", e.where, e.what); \
} while (0)
	REFUSED(hidden = 0, "hidden_size", "0 is not in 1");
	REFUSED(layers = 1L << 31, "num_hidden_layers", "2147483648 is not in");
	REFUSED(heads = -6, "num_attention_heads", "-6");
	REFUSED(kv_heads = 4, "num_key_value_heads", "4 does not divide num_attention_heads 6");
	REFUSED(kv_heads = 12, "num_key_value_heads", "does not divide");
	REFUSED(head_dim = 23, "head_dim", "23 is odd");
	REFUSED(head_dim = 1 << 24, "head_dim", "too wide");
	REFUSED(ffn = 0, "intermediate_size", "0");
	REFUSED(vocab = 1L << 40, "vocab_size", "1099511627776");
	REFUSED(max_positions = 0, "max_position_embeddings", "0");
	REFUSED(norm_eps = 0, "norm_eps", "0");
	REFUSED(norm_eps = NAN, "norm_eps", "nan");
	REFUSED(rope = ROPE_NONE, "rope_type", "needs rotary");
	REFUSED(rope_theta = INFINITY, "rope_theta", "inf");
	REFUSED(rope_factor = 0, "factor", "0");
	REFUSED(rope_low_freq = -1, "low_freq_factor", "-1");
	REFUSED(rope_high_freq = 1, "high_freq_factor", "1 is not above low_freq_factor 1");
	REFUSED(rope_original_positions = 0, "original_max_position_embeddings", "0");
	REFUSED(bos = -2, "bos_token_id", "-2");
	REFUSED(eos = 1L << 31, "eos_token_id", "2147483648");
	REFUSED(model_type[0] = 'L', "model_type", "'Llama' is not supported (known: llama");
#undef REFUSED
}

static enum dtype f16_norms(void *ctx, enum slot s, long layer)
{
	(void)ctx;
	return s == SLOT_NORM1 && layer == 3 ? DT_F16 : DT_BF16;
}

static void check_plan(const struct record *head)
{
	const void *p;
	size_t n, len;
	struct mp_doc *d;
	const struct mp *row;
	const char *s;
	int64_t v = 0;
	struct err e;

	if (!ok(record_get_raw(head, "plan", &p, &n) == 1 && !mp_parse(&d, p, n, "plan", &e),
		"the plan is a value"))
		return;
	ok(mp_len(mp_root(d)) == 147, "with a row for every tensor");
	row = mp_at(mp_root(d), 1 + 3 * 12);
	ok(mp_str(mp_at(row, 0), &s, &len) && len == 37 &&
	   !memcmp(s, "model.layers.3.input_layernorm.weight", len), "a name");
	ok(mp_str(mp_at(row, 1), &s, &len) && len == 3 && !memcmp(s, "F16", 3), "its type");
	ok(mp_len(mp_at(row, 2)) == 1 && mp_int(mp_at(mp_at(row, 2), 0), &v) && v == 64,
	   "its shape");
	mp_free(d);
}

/* Put one more pair into the map of "config". */
static void with_key(struct record *head, const char *key)
{
	const void *p;
	size_t n;
	struct buf b = { 0 };
	int rc = record_get_raw(head, "config", &p, &n);

	ok(rc == 1 && ((const unsigned char *)p)[0] == 0xde, "config is a map of 16 pairs or more");
	buf_byte(&b, 0xde);
	buf_byte(&b, ((const unsigned char *)p)[1]);
	buf_byte(&b, ((const unsigned char *)p)[2] + 1);
	buf_add(&b, (const char *)p + 3, n - 3);
	mp_put_str(&b, key);
	mp_put_int(&b, 4);
	ok(record_set_raw(head, "config", b.p, b.n) == 0, "%s is added to config", key);
	buf_release(&b);
}

static void head(const struct model *m)
{
	struct record r = { .rank = -1 }, t = { .rank = -1 };
	struct model back;
	struct err e;

	record_init(&r, REC_STREAM, NULL);
	ok(!model_to_head(m, f16_norms, NULL, &r, &e), "a model goes into a head");
	memset(&back, 0xa5, sizeof(back));
	ok(!model_from_head(&back, &r, &e), "and comes out");
	ok(back.family == m->family && back.cfg.hidden == 64 && back.cfg.layers == 12 &&
	   back.cfg.heads == 6 && back.cfg.kv_heads == 2 && back.cfg.head_dim == 24 &&
	   back.cfg.ffn == 172 && back.cfg.vocab == 320 && back.cfg.max_positions == 128 &&
	   back.cfg.norm_eps == 1e-5 && back.cfg.rope == ROPE_LLAMA3 &&
	   back.cfg.rope_theta == 500000 && back.cfg.rope_factor == 8 &&
	   back.cfg.rope_low_freq == 1 && back.cfg.rope_high_freq == 4 &&
	   back.cfg.rope_original_positions == 16 && !back.cfg.tied && back.cfg.qkv_bias &&
	   !back.cfg.o_bias && !back.cfg.mlp_bias && back.cfg.bos == 1 && back.cfg.eos == -1 &&
	   !strcmp(back.cfg.model_type, "llama"), "as it was");
	check_plan(&r);

	ok(!record_dup(&t, &r, &e), "a copy");
	with_key(&t, "logit_softcap");
	ok(model_from_head(&back, &t, &e) == -1 && e.cls == ERR_VERSION &&
	   strstr(e.what, "logit_softcap"), "a key of the future is refused as too new, by name");
	record_clear(&t);
	ok(!record_dup(&t, &r, &e), "a copy");
	with_key(&t, "hidden_size");
	ok(model_from_head(&back, &t, &e) == -1 && e.cls == ERR_DATA &&
	   strstr(e.what, "hidden_size is there twice"), "a key twice is refused");
	record_clear(&t);
	ok(!record_dup(&t, &r, &e), "a copy");
	record_set_str(&t, "family", "mamba");
	ok(model_from_head(&back, &t, &e) == -1 && e.cls == ERR_DATA && strstr(e.what, "mamba"),
	   "an unknown family is refused by name");
	record_set_int(&t, "config", 5);
	record_set_str(&t, "family", "llama");
	ok(model_from_head(&back, &t, &e) == -1 && e.cls == ERR_DATA && strstr(e.what, "map"),
	   "a config that is no map is refused");
	record_set_raw(&t, "config", "\x81\xabhidden_size\xa2xx", 15);
	ok(model_from_head(&back, &t, &e) == -1 && strstr(e.what, "hidden_size has an unusable"),
	   "a value of another type is refused");
	record_set_raw(&t, "config", "\x80", 1);
	ok(model_from_head(&back, &t, &e) == -1 && e.cls == ERR_DATA,
	   "an empty config is refused: %s: %s", e.where, e.what);
	record_unset(&t, "config");
	ok(model_from_head(&back, &t, &e) == -1 && strstr(e.what, "no model"), "none as well");
	record_clear(&t);
	record_clear(&r);
}

static void biases(void)
{
	struct model_config c = config();
	struct model m;
	struct err e;
	enum slot s;
	long layer;
	size_t n = 0;

	c.o_bias = c.mlp_bias = c.tied = true;
	ok(!model_init(&m, &c, &e), "all biases, tied");
	while (model_nth(&m, n, &s, &layer))
		n++;
	ok(n == 1 + 12 * 16 + 1, "16 tensors a block, no head (%zu)", n);
	ok(!model_has(&m, SLOT_HEAD, -1) && model_has(&m, SLOT_O_B, 0) &&
	   !model_has(&m, SLOT_NORM1_B, 0),
	   "has what it should");
	ok(model_slot(&m, "lm_head.weight", &layer) == SLOT_NONE, "a tied head is no tensor of it");
}

/* A small configuration of each family, experts and all. */
static struct model_config small(const char *type)
{
	struct model_config c = {
		.hidden = 24, .layers = 4, .heads = 4, .kv_heads = 4, .head_dim = 6, .ffn = 40,
		.vocab = 32, .max_positions = 17, .norm_eps = 1e-5, .bos = -1, .eos = -1,
	};

	snprintf(c.model_type, sizeof(c.model_type), "%s", type);
	if (family_find(type)->rotary) {
		c.rope = ROPE_PLAIN;
		c.rope_theta = 10000;
	}
	if (!strcmp(type, "opt")) {
		c.act = ACT_RELU;
		c.embed_dim = 10;
		c.qkv_bias = c.o_bias = c.mlp_bias = c.tied = true;
	}
	if (!strcmp(type, "qwen3"))
		c.qk_norm = true;
	if (!strcmp(type, "qwen2_moe")) {
		c.experts = 11;
		c.experts_per_token = 2;
		c.expert_ffn = 8;
		c.shared_ffn = 12;
		c.sparse_step = 2; /* layers 1 and 3 */
		c.dense[c.n_dense++] = 3;
	}
	if (!strcmp(type, "vit")) {
		c.act = ACT_GELU;
		c.image_size = 32;
		c.patch = 8;
		c.channels = 3;
		c.qkv_bias = c.o_bias = c.mlp_bias = true;
	}
	return c;
}

/* What the table says of linears and edges hangs together, in every layer. */
static size_t disagreements(const struct model *m)
{
	struct linear_row l;
	int64_t shape[2], bias[2];
	char name[256];
	long layer;
	size_t wrong = 0;

	for (long i = 0; i < m->cfg.layers; i++) {
		for (size_t n = 0; model_linear(m, i, n, &l); n++) {
			wrong += !model_has(m, l.weight, i) || !model_has_edge(m, l.in, i) ||
				 model_shape(m, l.weight, shape) != 2 ||
				 shape[1] != model_edge_width(m, l.in);
			if (l.bias != SLOT_NONE && model_has(m, l.bias, i))
				wrong += model_shape(m, l.bias, bias) != 1 || bias[0] != shape[0];
		}
		for (int g = 0; g < model_edges(m); g++) {
			const struct edge_row row = model_edge_row(m, g);

			if (!model_has_edge(m, g, i))
				continue;
			model_edge_name(m, g, i, name);
			wrong += model_edge(m, name, &layer) != g || layer != i;
			if (row.producer == SLOT_NONE)
				continue;
			model_shape(m, row.producer, shape);
			wrong += !model_has(m, row.producer, i) ||
				 shape[0] != (row.kv_grouped ? model_dim(m, DIM_KV) :
					      model_edge_width(m, g));
		}
	}
	return wrong;
}

static void all_families(void)
{
	static const struct {
		const char *type;
		size_t tensors;
	} list[] = {
		/* front, 4 layers, back */
		{ "llama", 1 + 4 * 9 + 2 }, { "mistral", 1 + 4 * 9 + 2 },
		{ "qwen2", 1 + 4 * 9 + 2 }, { "qwen3", 1 + 4 * 11 + 2 },
		{ "qwen2_moe", 1 + 3 * 9 + (6 + 1 + 3 * 11 + 4) + 2 },
		{ "opt", 3 + 4 * 16 + 3 }, { "vit", 4 + 4 * 16 + 4 },
	};
	char name[256];
	struct err e;

	for (size_t i = 0; i < sizeof(list) / sizeof(list[0]); i++) {
		struct model_config c = small(list[i].type);
		struct model m;
		size_t n = 0, wrong = 0;
		long layer, l;
		enum slot s;

		if (!ok(!model_init(&m, &c, &e), "%s: a small model", list[i].type))
			continue;
		for (; model_nth(&m, n, &s, &layer); n++) {
			model_tensor_name(&m, s, layer, name);
			wrong += model_slot(&m, name, &l) != s || l != layer ||
				 !model_has(&m, s, layer);
		}
		ok(n == list[i].tensors, "%s: %zu tensors (%zu)", list[i].type, list[i].tensors, n);
		ok(wrong == 0, "%s: every name leads back", list[i].type);
		ok(disagreements(&m) == 0, "%s: linears, edges and tensors agree", list[i].type);
	}
}

static void experts(void)
{
	struct model_config c = small("qwen2_moe");
	struct linear_row l;
	struct model m;
	struct err e;
	size_t n = 0, kept = 0;
	char name[256];

	ok(!model_init(&m, &c, &e), "experts: a model");
	ok(!model_is_sparse(&m, 0) && model_is_sparse(&m, 1) && !model_is_sparse(&m, 2) &&
	   !model_is_sparse(&m, 3), "experts: every second layer, but for those named dense");
	for (; model_linear(&m, 1, n, &l); n++)
		kept += l.keep;
	ok(n == 4 + 1 + 33 + 4 && kept == 2, "experts: 42 linears, two of which stay in float");
	ok(model_has(&m, SLOT_GATE, 0) && !model_has(&m, SLOT_GATE, 1) &&
	   model_has(&m, slot_of_expert(SLOT_X_UP, 10), 1) &&
	   !model_has(&m, slot_of_expert(SLOT_X_UP, 10), 0) &&
	   !model_has(&m, slot_of_expert(SLOT_X_UP, 11), 1), "experts: which layer has what");
	model_tensor_name(&m, slot_of_expert(SLOT_X_DOWN, 10), 1, name);
	ok_str(name, "model.layers.1.mlp.experts.10.down_proj.weight", "experts: a name");
	model_edge_name(&m, edge_of_expert(EDGE_X_MID, 7), 1, name);
	ok_str(name, "layers.1.mlp.experts.7.mid", "experts: an edge");
	ok(model_edge_row(&m, edge_of_expert(EDGE_X_IN, 7)).of == EDGE_MLP_IN &&
	   model_edge_row(&m, edge_of_expert(EDGE_X_MID, 7)).producer ==
	   slot_of_expert(SLOT_X_UP, 7), "experts: whose tokens an edge carries, who makes them");
	c.experts_per_token = 12;
	ok(model_init(&m, &c, &e) == -1 && !strcmp(e.where, "num_experts_per_tok"),
	   "experts: more a token than there are");
}

static void edges_without_maps(void)
{
	struct model_config c = small("opt");
	struct model m;
	struct err e;

	ok(!model_init(&m, &c, &e) && model_edge_row(&m, EDGE_MLP_MID).producer == SLOT_UP &&
	   model_edge_row(&m, EDGE_ATTN_IN).producer_bias == SLOT_NORM1_B,
	   "maps: through ReLU, and on norms with biases");
	c.post_norm = true;
	ok(!model_init(&m, &c, &e) && model_edge_row(&m, EDGE_ATTN_IN).producer == SLOT_NONE &&
	   model_edge_row(&m, EDGE_MLP_IN).producer == SLOT_NONE && !model_has(&m, SLOT_NORM_F, -1),
	   "maps: none where the normed vector is also the residual");
	c.act = ACT_GELU;
	ok(!model_init(&m, &c, &e) && model_edge_row(&m, EDGE_MLP_MID).producer == SLOT_NONE,
	   "maps: none through GELU");
}

int main(void)
{
	struct model m = model();

	names(&m);
	order(&m);
	shapes(&m);
	edges(&m);
	refused();
	head(&m);
	biases();
	all_families();
	experts();
	edges_without_maps();
	return done();
}
