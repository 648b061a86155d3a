/* SPDX-License-Identifier: Apache-2.0 */
/* hf.c - config.json of both generations, model directories good and bad */
#include <stdlib.h>

#include "formats/hf.h"
#include "formats/safetensors.h"
#include "tests/unit/files.h"
#include "tests/unit/tap.h"

/* ---- config.json ----------------------------------------------------------------- */

#define SIZES "'model_type':'llama','hidden_size':8,'num_hidden_layers':2," \
	"'num_attention_heads':2,'intermediate_size':6,'vocab_size':10"
#define CONFIG(more) "{" SIZES more "}"

static int parse(struct model_config *c, const char *json, struct err *e)
{
	memset(e, 0, sizeof(*e));
	json = quoted(json);
	return hf_config_parse(c, json, strlen(json), e);
}

static void config_read(void)
{
	struct model_config c;
	struct err e;

	ok(!parse(&c, CONFIG(""), &e), "a config with nothing but sizes: %s", e.what);
	ok(c.hidden == 8 && c.layers == 2 && c.heads == 2 && c.ffn == 6 && c.vocab == 10, "sizes");
	ok(c.kv_heads == 2 && c.head_dim == 4 && c.max_positions == 2048 && c.norm_eps == 1e-6 &&
	   c.rope == ROPE_PLAIN && c.rope_theta == 10000 && !c.tied && !c.qkv_bias && !c.o_bias &&
	   !c.mlp_bias && c.bos == 1 && c.eos == 2, "what LlamaConfig takes for absent keys");
	ok(!parse(&c, CONFIG(",'num_key_value_heads':1,'head_dim':6,'rms_norm_eps':1e-5,"
			     "'max_position_embeddings':64,'attention_bias':true,"
			     "'tie_word_embeddings':true,'mlp_bias':true,'torch_dtype':'x',"
			     "'pretraining_tp':2,'hidden_act':'silu','sliding_window':null"),
		  &e) && c.kv_heads == 1 && c.head_dim == 6 && c.norm_eps == 1e-5 &&
	   c.max_positions == 64 && c.qkv_bias && c.o_bias && c.mlp_bias && c.tied,
	   "what it reads when they are there");
	ok(!parse(&c, CONFIG(",'num_key_value_heads':null,'head_dim':null,"
			     "'rope_scaling':null"), &e) && c.kv_heads == 2 && c.head_dim == 4,
	   "null is absent");
	ok(!parse(&c, CONFIG(",'bos_token_id':null,'eos_token_id':[7,8]"), &e) && c.bos == -1 &&
	   c.eos == 7, "token ids: null is none, the first of a list");
	ok(!parse(&c, CONFIG(",'eos_token_id':[]"), &e) && c.eos == -1, "an empty list is none");
}

static void config_rope(void)
{
	static const struct {
		const char *json, *what;
		enum rope_kind kind;
		double theta, factor;
	} list[] = {
		{ CONFIG(",'rope_theta':5e5"), "4: rope_theta", ROPE_PLAIN, 5e5, 0 },
		{ CONFIG(",'rope_theta':500000,'rope_scaling':{'type':'linear','factor':2}"),
		  "4: linear by its old key", ROPE_LINEAR, 5e5, 2 },
		{ CONFIG(",'rope_scaling':{'rope_type':'linear','type':'x','factor':4.0}"),
		  "4: rope_type goes before type", ROPE_LINEAR, 1e4, 4 },
		{ CONFIG(",'rope_scaling':{'rope_type':'default'}"), "4: default", ROPE_PLAIN,
		  1e4, 0 },
		{ CONFIG(",'rope_theta':5e5,'rope_scaling':{'rope_type':'llama3','factor':8,"
			 "'low_freq_factor':1,'high_freq_factor':4,"
			 "'original_max_position_embeddings':16}"), "4: llama3", ROPE_LLAMA3, 5e5,
			 8 },
		{ CONFIG(",'rope_parameters':{'rope_theta':5e5,'rope_type':'default'}"),
		  "5: default", ROPE_PLAIN, 5e5, 0 },
		{ CONFIG(",'rope_parameters':{'rope_theta':7e4}"), "5: no type", ROPE_PLAIN, 7e4,
		  0 },
		{ CONFIG(",'rope_parameters':{'rope_theta':5e5,'rope_type':'linear','factor':3,"
			 "'partial_rotary_factor':1.0}"), "5: linear", ROPE_LINEAR, 5e5, 3 },
		{ CONFIG(",'original_max_position_embeddings':16,'rope_parameters':{'rope_theta':"
			 "5e5,'rope_type':'llama3','factor':32.0,'low_freq_factor':1.0,"
			 "'high_freq_factor':4.0}"), "5: llama3, its positions outside",
			 ROPE_LLAMA3,
		  5e5, 32 },
		{ CONFIG(",'rope_theta':5e5,'rope_scaling':{'type':'linear','factor':2},"
			 "'rope_parameters':{'rope_theta':5e5,'rope_type':'linear','factor':2}"),
		  "both, and they agree", ROPE_LINEAR, 5e5, 2 },
		{ CONFIG(",'rope_parameters':{'full_attention':{'rope_theta':5e5,'rope_type':"
			 "'linear','factor':2},'sliding_attention':{'rope_theta':5e5,'rope_type':"
			 "'linear','factor':2}}"),
		  "5: the same for each type of layers", ROPE_LINEAR, 5e5, 2 },
		{ CONFIG(",'rope_parameters':{'full_attention':{'rope_theta':7e4,'rope_type':"
			 "'default'}}"), "5: one type of layers", ROPE_PLAIN, 7e4, 0 },
	};
	struct model_config c;
	struct err e;

	for (size_t i = 0; i < sizeof(list) / sizeof(list[0]); i++) {
		ok(!parse(&c, list[i].json, &e) && c.rope == list[i].kind &&
		   c.rope_theta == list[i].theta && c.rope_factor == list[i].factor, "rope, %s: %s",
		   list[i].what, e.what);
		if (c.rope == ROPE_LLAMA3)
			ok(c.rope_low_freq == 1 && c.rope_high_freq == 4 &&
			   c.rope_original_positions == 16, "its frequencies and positions");
	}
}

static const struct {
	const char *json, *where, *what;
} no_config[] = {
	{ "[]", "", "expected an object" },
	{ "{'a':1,}", "", "not JSON" },
	{ "{}", ": model_type", "is missing" },
	{ "{'model_type':'mystery9'}", ": model_type",
	  "'mystery9' is not supported (known: " },
	{ "{'model_type':'llama','hidden_size':8}", ": num_hidden_layers", "is missing" },
	{ "{'model_type':'llama','hidden_size':'8'}", ": hidden_size",
	  "expected an integer from 1 up, got \"8\"" },
	{ "{'model_type':'llama','hidden_size':8.0}", ": hidden_size",
	  "expected an integer" },
	{ "{'model_type':'llama','hidden_size':-8}", ": hidden_size", "got -8" },
	{ CONFIG(",'num_key_value_heads':0"), ": num_key_value_heads", "got 0" },
	{ CONFIG(",'num_key_value_heads':3"), ": num_key_value_heads",
	  "3 does not divide" },
	{ CONFIG(",'head_dim':3"), ": head_dim", "odd" },
	{ "{'model_type':'llama','hidden_size':9,'num_hidden_layers':2,"
	  "'num_attention_heads':2,'intermediate_size':6,'vocab_size':10}", ": hidden_size",
	  "9 is not a multiple of num_attention_heads 2" },
	{ CONFIG(",'rms_norm_eps':0"), ": rms_norm_eps", "above 0" },
	{ CONFIG(",'rms_norm_eps':'1e-5'"), ": rms_norm_eps", "above 0" },
	{ CONFIG(",'attention_bias':1"), ": attention_bias", "true or false" },
	{ CONFIG(",'bos_token_id':'<s>'"), ": bos_token_id", "token id" },
	{ CONFIG(",'eos_token_id':[[1]]"), ": eos_token_id", "token id" },
	{ CONFIG(",'hidden_act':'gelu'"), ": hidden_act",
	  "'gelu' is not supported (only silu" },
	{ CONFIG(",'hidden_act':null"), ": hidden_act", "'null'" },
	{ CONFIG(",'sliding_window':4096"), ": sliding_window", "'4096' is not supported" },
	{ CONFIG(",'layer_types':['full_attention','sliding_attention']"), ": layer_types",
	  "'sliding_attention'" },
	{ CONFIG(",'partial_rotary_factor':0.5"), ": partial_rotary_factor", "got 0.5" },
	{ CONFIG(",'rope_theta':-1"), ": rope_theta", "above 0" },
	{ CONFIG(",'rope_scaling':{'type':'dynamic','factor':2}"), ": rope_scaling",
	  "rope_type 'dynamic' is not supported" },
	{ CONFIG(",'rope_scaling':{'type':'yarn','factor':2}"), ": rope_scaling",
	  "'yarn'" },
	{ CONFIG(",'rope_parameters':{'rope_type':'longrope'}"), ": rope_parameters",
	  "'longrope'" },
	{ CONFIG(",'rope_scaling':{'factor':2}"), ": rope_scaling", "no rope_type" },
	{ CONFIG(",'rope_scaling':{'type':'linear'}"), ": rope_scaling",
	  "factor is missing" },
	{ CONFIG(",'rope_scaling':{'type':'linear','factor':0}"), ": rope_scaling: factor",
	  "above 0" },
	{ CONFIG(",'rope_scaling':{'type':'linear','factor':2,'beta':1}"), ": rope_scaling",
	  "key 'beta'" },
	{ CONFIG(",'rope_scaling':[1]"), ": rope_scaling", "expected an object" },
	{ CONFIG(",'rope_scaling':{'rope_type':'llama3','factor':8,'low_freq_factor':1,"
		 "'high_freq_factor':4}"), ": rope_scaling",
	  "original_max_position_embeddings is missing" },
	{ CONFIG(",'rope_scaling':{'rope_type':'llama3','factor':8,'low_freq_factor':4,"
		 "'high_freq_factor':4,'original_max_position_embeddings':8}"),
	  ": high_freq_factor", "not above" },
	{ CONFIG(",'rope_parameters':{'full_attention':{'rope_theta':5e5,'rope_type':'default'},"
		 "'sliding_attention':{'rope_theta':1e4,'rope_type':'default'}}"),
	  ": rope_parameters: sliding_attention", "turn otherwise" },
	{ CONFIG(",'rope_parameters':{'full_attention':{'rope_type':'linear','factor':2},"
		 "'sliding_attention':{'rope_type':'default'}}"),
	  ": rope_parameters: sliding_attention", "turn otherwise" },
	{ CONFIG(",'rope_parameters':{'full_attention':{'rope_type':'default'},'factor':2}"),
	  ": rope_parameters", "key 'factor' is not supported beside" },
	{ CONFIG(",'rope_parameters':{'full_attention':{'rope_type':'yarn','factor':2}}"),
	  ": rope_parameters: full_attention", "'yarn'" },
	{ CONFIG(",'rope_scaling':{'type':'linear','factor':2},"
		 "'rope_parameters':{'rope_type':'default'}"), "", "disagree" },
	{ CONFIG(",'rope_theta':1e4,'rope_parameters':{'rope_theta':5e5}"), ": rope_theta",
	  "500000 in rope_parameters" },
	{ CONFIG(",'quantization_config':{'quant_method':'bitsandbytes'}"),
	  ": quantization_config", "(quant_method 'bitsandbytes')" },
	{ CONFIG(",'num_hidden_layers':3"), "", "duplicate" },
};

#define SIX "'hidden_size':8,'num_hidden_layers':6,'num_attention_heads':2," \
	"'num_key_value_heads':2,'head_dim':4,'intermediate_size':6,'vocab_size':10"
#define ON "'use_sliding_window':true,'sliding_window':7,'max_window_layers':4"
#define FULL "'full_attention'"
#define SLIDING "'sliding_attention'"

/* Which of six layers has a window of how many tokens, as transformers' classes would have it. */
static void config_windows(void)
{
	static const struct {
		const char *json, *layers; /* layers: a digit each, 1: it has the window */
		long window;
	} list[] = {
		{ "'model_type':'mistral'", "111111", 4096 },
		{ "'model_type':'mistral','sliding_window':9", "111111", 9 },
		{ "'model_type':'mistral','sliding_window':null", "000000", 0 },
		{ "'model_type':'qwen2'", "000000", 0 },
		{ "'model_type':'qwen2','sliding_window':7", "000000", 0 },
		{ "'model_type':'qwen2'," ON, "000011", 7 },
		{ "'model_type':'qwen3','use_sliding_window':true", "000000", 0 },
		{ "'model_type':'qwen3','use_sliding_window':true,'max_window_layers':5",
		  "000001", 4096 },
		{ "'model_type':'qwen2_moe'," ON, "101000", 7 },
		{ "'model_type':'qwen2_moe'", "000000", 0 },
		{ "'model_type':'qwen2'," ON ",'layer_types':[" FULL "," SLIDING "," FULL "," FULL
		  "," SLIDING "," FULL "]", "010010", 7 },
		{ "'model_type':'qwen2','layer_types':[" FULL "," FULL "," FULL "," FULL "," FULL
		  "," FULL "]", "000000", 0 },
	};
	struct model_config c;
	struct model m;
	struct err e;

	for (size_t i = 0; i < sizeof(list) / sizeof(list[0]); i++) {
		char json[640], got[7] = "";
		bool same = true;

		snprintf(json, sizeof(json), "{" SIX ",%s}", list[i].json);
		if (!ok(!parse(&c, json, &e) && !model_init(&m, &c, &e), "%s", list[i].json))
			continue;
		for (long l = 0; l < 6; l++) {
			got[l] = model_window(&m, l) ? '1' : '0';
			same &= !model_window(&m, l) || model_window(&m, l) == list[i].window;
		}
		ok_str(got, list[i].layers, "its windows");
		ok(same, "of %ld tokens", list[i].window);
	}
	ok(parse(&c, "{" SIX ",'model_type':'qwen2','layer_types':[" SLIDING "," FULL "," FULL
		 "," FULL "," FULL "," FULL "]}", &e) && strstr(e.where, "layer_types"),
	   "a window in a list but none to have: %s", e.what);
}

static void config_refused(void)
{
	struct model_config c;
	struct err e;
	char where[128];

	for (size_t i = 0; i < sizeof(no_config) / sizeof(no_config[0]); i++) {
		int r = parse(&c, no_config[i].json, &e);

		snprintf(where, sizeof(where), "config.json%s", no_config[i].where);
		if (!ok(r == -1 && e.cls == ERR_DATA && !strcmp(e.where, where) &&
			strstr(e.what, no_config[i].what), "refused%s: %s", no_config[i].where,
			no_config[i].what))
			printf("#   %s: %s\n", r ? e.where : "accepted", r ? e.what : "");
	}
}

/* ---- directories ----------------------------------------------------------------- */

/* How a directory differs from a good one. */
struct twist {
	const char *config;      /* more keys: ",\"a\":1" */
	const char *leave_out;   /* a tensor's name */
	const char *extra;       /* one more tensor, [2] F32 */
	const char *odd;         /* this tensor has */
	const char *odd_dtype, *odd_shape; /* this type or shape, if given, */
	long bad_value;          /* or this element, counted from 1, */
	float bad;               /* of this value */
	bool head_too, head_differs; /* a tied model: the head is there as well */
	const char *dtype;       /* of all: "F32" unless given */
};

struct text {
	char p[1 << 16];
	size_t n;
};

__attribute__((format(printf, 2, 3)))
static void say(struct text *t, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	t->n += (size_t)vsnprintf(t->p + t->n, sizeof(t->p) - t->n, fmt, ap);
	va_end(ap);
}

static struct text header;
static unsigned char data[1 << 18];
static size_t data_len;

/* Element i of the k-th tensor. */
static float element(size_t k, size_t i)
{
	return (float)((double)(k + 1) + (double)i / 256);
}

static void add(const char *name, const char *dtype, const char *shape, size_t k, size_t n,
		const struct twist *w)
{
	enum dtype t = dtype_from_name(dtype);
	size_t bytes = n * (size_t)dtype_bits(t) / 8;
	float *v = calloc(n + 1, sizeof(*v));

	for (size_t i = 0; i < n; i++)
		v[i] = element(k, i);
	if (w->odd && !strcmp(w->odd, name) && w->bad_value)
		v[w->bad_value - 1] = w->bad;
	if (dtype_from_f32(data + data_len, t, v, n))
		memset(data + data_len, 0, bytes);
	say(&header, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":%s,\"data_offsets\":[%zu,%zu]}",
	    header.n > 1 ? "," : "", name, dtype, shape, data_len, data_len + bytes);
	data_len += bytes;
	free(v);
}

static void add_slot(const struct model *m, enum slot s, long layer, size_t k,
		     const struct twist *w)
{
	char name[256], text[64];
	const char *dtype = w->dtype ? w->dtype : "F32", *shape = text;
	int64_t d[2];
	int rank = model_shape(m, s, d);

	model_tensor_name(m, s, layer, name);
	if (w->leave_out && !strcmp(w->leave_out, name))
		return;
	snprintf(text, sizeof(text), rank == 2 ? "[%d,%d]" : "[%d]", (int)d[0], (int)d[1]);
	if (w->odd && !strcmp(w->odd, name)) {
		dtype = w->odd_dtype ? w->odd_dtype : dtype;
		shape = w->odd_shape ? w->odd_shape : shape;
	}
	add(name, dtype, shape, k, (size_t)(d[0] * d[1]), w);
}

/* The directory NAME in the test's folder. */
static void write_dir(const char *name, const struct twist *w)
{
	char config[2048];
	struct model_config c;
	struct model m;
	struct err e;
	enum slot s;
	long layer;

	snprintf(config, sizeof(config), CONFIG("%s"), w->config ? w->config : "");
	mkdir(file_path("%s", name), 0777);
	file_write(file_path("%s/config.json", name), quoted(config), strlen(config));
	if (parse(&c, config, &e) || model_init(&m, &c, &e))
		exit(3);
	header.n = data_len = 0;
	say(&header, "{");
	for (size_t k = 0; model_nth(&m, k, &s, &layer); k++)
		add_slot(&m, s, layer, k, w);
	if (w->extra)
		add(w->extra, "F32", "[2]", 99, 2, w);
	if (w->head_too)
		add_slot(&m, SLOT_HEAD, -1, w->head_differs, w);
	say(&header, "}");
	file_write_st(file_path("%s/model.safetensors", name), header.p, 0, data, data_len);
}

static void dir_good(void)
{
	static const char *const types[] = { "F32", "F16", "BF16" };
	struct twist w = { .config = ",'num_key_value_heads':1,'attention_bias':true" };
	struct hf_tensor t;
	struct err e;
	struct hf *h;
	float v[96];
	uint16_t raw[96];

	for (int i = 0; i < 3; i++) {
		w.dtype = types[i];
		write_dir("good", &w);
		if (!ok(!hf_open(&h, file_path("good"), &e), "a model of %s", types[i]))
			continue;
		ok(hf_model(h)->cfg.kv_heads == 1 && hf_model(h)->cfg.qkv_bias, "its config");
		ok(!hf_tensor(h, "model.layers.1.self_attn.k_proj.weight", &t) && t.rank == 2 &&
		   t.shape[0] == 4 && t.shape[1] == 8 && t.dtype == dtype_from_name(types[i]) &&
		   t.nbytes == 32 * (uint64_t)dtype_bits(t.dtype) / 8, "a tensor's shape and type");
		ok(!hf_read(h, t.name, i ? (void *)raw : v, &e) &&
		   (i == 0 || !dtype_to_f32(v, raw, t.dtype, 32)) && v[0] == element(17, 0) &&
		   v[31] == (i ? v[31] : element(17, 31)), "its values");
		ok(hf_tensor(h, "model.layers.2.self_attn.k_proj.weight", &t) == -1 &&
		   hf_tensor(h, "x", &t) == -1, "what is not there is not found");
		for (long l = -1; l < 4; l++)
			hf_readahead(h, l);
		hf_close(h);
	}
	hf_close(NULL);
}

static void dir_files(void)
{
	struct twist w = { NULL };
	struct err e;
	struct hf *h;
	char *text;
	size_t n;

	write_dir("files", &w);
	file_write(file_path("files/merges.txt"), "a b", 3);
	file_write(file_path("files/tokenizer.json"), "{}", 2);
	file_write(file_path("files/README.md"), "#", 1);
	if (!ok(!hf_open(&h, file_path("files/"), &e), "a directory with files"))
		return;
	ok_str(hf_file(h, 0), "config.json", "config.json goes first");
	ok_str(hf_file(h, 1), "tokenizer.json", "then tokenizer.json");
	ok_str(hf_file(h, 2), "merges.txt", "then merges.txt");
	ok(!hf_file(h, 3) && !hf_file(h, -1) && !hf_file(h, 1000), "and no other");
	ok(!hf_file_read(h, 2, &text, &n, &e) && n == 3 && !memcmp(text, "a b", 3),
	   "bytes of a file");
	free(text);
	hf_close(h);
}

static void dir_tied(void)
{
	static const char embed[] = "model.embed_tokens.weight";
	struct twist w = { .config = ",'tie_word_embeddings':true" };
	struct hf_tensor t;
	struct err e;
	struct hf *h;
	float v[80];

	write_dir("tied", &w);
	ok(!hf_open(&h, file_path("tied"), &e), "tied, stored as the embedding");
	hf_close(h);
	w.head_too = true;
	w.leave_out = embed;
	w.head_differs = true; /* values of another tensor: seen below */
	write_dir("tied", &w);
	if (ok(!hf_open(&h, file_path("tied"), &e), "tied, stored as the head: %s", e.what)) {
		ok(!hf_tensor(h, embed, &t) && t.shape[0] == 10 && !strcmp(t.name, embed),
		   "goes by the embedding's name");
		ok(!hf_read(h, embed, v, &e) && v[79] == element(1, 79),
		   "and has the head's values");
		ok(hf_tensor(h, "lm_head.weight", &t) == -1, "there is no head");
		hf_close(h);
	}
	w.leave_out = NULL;
	w.head_differs = false;
	write_dir("tied", &w);
	ok(!hf_open(&h, file_path("tied"), &e), "tied, stored twice and equal");
	hf_close(h);
	w.head_differs = true;
	write_dir("tied", &w);
	ok(hf_open(&h, file_path("tied"), &e) == -1 && e.cls == ERR_DATA &&
	   !strcmp(e.where, "lm_head.weight") && strstr(e.what, "tie_word_embeddings"),
	   "tied, stored twice and different: refused");
	w.head_differs = false;
	w.odd = "lm_head.weight";
	w.odd_shape = "[8,10]";
	write_dir("tied", &w);
	ok(hf_open(&h, file_path("tied"), &e) == -1 && strstr(e.what, "has shape [8, 10]"),
	   "tied, stored twice in different shapes: refused");
}

static void dir_refused(void)
{
	static const struct {
		struct twist w;
		const char *where, *what;
	} list[] = {
		{ { .leave_out = "model.layers.1.mlp.up_proj.weight" },
		  "model.layers.1.mlp.up_proj.weight", "is missing" },
		{ { .leave_out = "model.embed_tokens.weight" }, "model.embed_tokens.weight",
		  "missing" },
		{ { .leave_out = "lm_head.weight" }, "lm_head.weight", "tie_word_embeddings" },
		{ { .extra = "model.layers.2.mlp.up_proj.weight" },
		  "model.layers.2.mlp.up_proj.weight",
		  "no tensor of a llama model" },
		{ { .extra = "model.layers.0.self_attn.q_proj.bias" },
		  "model.layers.0.self_attn.q_proj.bias", "no tensor of" },
		{ { .extra = "model.layers.0.self_attn.q_norm.weight" },
		  "model.layers.0.self_attn.q_norm.weight", "no tensor of" },
		{ { .odd = "model.norm.weight", .odd_dtype = "I8" }, "model.norm.weight",
		  "dtype I8 is not supported" },
		{ { .odd = "model.norm.weight", .odd_dtype = "F64" }, "model.norm.weight",
		  "dtype F64" },
		{ { .odd = "model.layers.0.mlp.gate_proj.weight", .odd_shape = "[8,6]" },
		  "model.layers.0.mlp.gate_proj.weight", "[8, 6], config.json makes it [6, 8]" },
		{ { .odd = "model.layers.0.mlp.gate_proj.weight", .odd_shape = "[48]" },
		  "model.layers.0.mlp.gate_proj.weight", "[48], config.json makes it [6, 8]" },
		{ { .odd = "model.norm.weight", .odd_shape = "[8,1]" }, "model.norm.weight",
		  "[8, 1]" },
	};
	struct twist w = { .extra = "model.layers.0.self_attn.rotary_emb.inv_freq" };
	struct err e;
	struct hf *h;

	for (size_t i = 0; i < sizeof(list) / sizeof(list[0]); i++) {
		int r;

		write_dir("bad", &list[i].w);
		r = hf_open(&h, file_path("bad"), &e);
		if (!ok(r == -1 && e.cls == ERR_DATA && !strcmp(e.where, list[i].where) &&
			strstr(e.what, list[i].what), "refused: %s: %s", list[i].where,
				list[i].what))
			printf("#   %s: %s\n", r ? e.where : "accepted", r ? e.what : "");
		if (!r)
			hf_close(h);
	}
	write_dir("bad", &w);
	ok(!hf_open(&h, file_path("bad"), &e),
	   "rotary_emb.inv_freq of old converters is passed over");
	hf_close(h);
	unlink(file_path("bad/model.safetensors"));
	ok(hf_open(&h, file_path("bad"), &e) == -1 && e.cls == ERR_NOINPUT &&
	   strstr(e.what, "neither"), "no weights: no input");
	file_write(file_path("bad/pytorch_model.bin"), "x", 1);
	ok(hf_open(&h, file_path("bad"), &e) == -1 && strstr(e.what,
	   "pytorch_model.bin is not read"),
	   "pytorch_model.bin is not read, and the message says so");
	unlink(file_path("bad/config.json"));
	ok(hf_open(&h, file_path("bad"), &e) == -1 && e.cls == ERR_NOINPUT &&
	   strstr(e.where, "bad/config.json"), "no config.json: no input");
	ok(hf_open(&h, file_path("none"), &e) == -1 && e.cls == ERR_NOINPUT,
	   "no directory: no input");
}

static void dir_values(void)
{
	struct twist w = { .odd = "model.layers.1.mlp.down_proj.weight" };
	static const struct {
		long at;
		float v;
		const char *dtype, *what;
	} list[] = {
		{ 48, NAN, "F32", "row 7 column 5 is nan" }, { 1, INFINITY, "BF16",
		  "row 0 column 0 is inf" },
		{ 9, -INFINITY, "F16", "row 1 column 2 is -inf" }, { 7, 1e30f, "F16",
		  "row 1 column 0 is inf" },
		{ 48, NAN, "BF16", "row 7 column 5 is nan" },
	};
	struct err e;
	struct hf *h;
	float v[96];

	for (size_t i = 0; i < sizeof(list) / sizeof(list[0]); i++) {
		w.bad_value = list[i].at;
		w.bad = list[i].v;
		w.dtype = list[i].dtype;
		write_dir("nan", &w);
		if (!ok(!hf_open(&h, file_path("nan"), &e), "opened: values are seen when read"))
			continue;
		ok(hf_read(h, w.odd, v, &e) == -1 && e.cls == ERR_DATA && !strcmp(e.where, w.odd) &&
		   strstr(e.what, list[i].what), "%s: %s", list[i].dtype, list[i].what);
		ok(!hf_read(h, "model.norm.weight", v, &e), "other tensors can be read");
		hf_close(h);
	}
	w = (struct twist){ .odd = "model.norm.weight", .bad_value = 3, .bad = NAN };
	write_dir("nan", &w);
	ok(!hf_open(&h, file_path("nan"), &e) && hf_read(h, w.odd, v, &e) == -1 &&
	   strstr(e.what, "value 2 is nan"), "in a vector: its place");
	hf_close(h);
}

/* The good directory cut into two shards: the first tensor, and the rest. */
static void write_shards(const char *index)
{
	struct twist w = { NULL };
	size_t first = 10 * 8 * sizeof(float);
	char *cut, part[1 << 15], *p;

	write_dir("shards", &w);
	unlink(file_path("shards/model.safetensors"));
	cut = strstr(header.p, "},\"") + 1;
	snprintf(part, sizeof(part), "%.*s}", (int)(cut - header.p), header.p);
	file_write_st(file_path("shards/m-1.safetensors"), part, 0, data, first);
	/* Offsets of the second shard start at 0 again. */
	p = part + snprintf(part, sizeof(part), "{");
	for (char *q = cut + 1; *q;) {
		char *o = strstr(q, "\"data_offsets\":[");
		unsigned long a, b;

		if (!o || sscanf(o, "\"data_offsets\":[%lu,%lu]", &a, &b) != 2) {
			p += sprintf(p, "%s", q);
			break;
		}
		p += sprintf(p, "%.*s\"data_offsets\":[%lu,%lu]", (int)(o - q), q, a - first,
			b - first);
		q = strchr(o, ']') + 1;
	}
	file_write_st(file_path("shards/m-2.safetensors"), part, 0, data + first, data_len - first);
	file_write(file_path("shards/model.safetensors.index.json"), index, strlen(index));
}

static const char *weight_map(const char *first, const char *norm, const char *more)
{
	static struct text t;
	const char *sep = "";
	struct model_config c;
	struct model m;
	struct err e;
	enum slot s;
	long layer;
	char name[256];

	t.n = 0;
	if (parse(&c, CONFIG(""), &e) || model_init(&m, &c, &e))
		exit(3);
	say(&t, "{\"metadata\":{\"total_size\":1},\"weight_map\":{");
	for (size_t k = 0; model_nth(&m, k, &s, &layer); k++) {
		const char *file = k == 0 ? first : s == SLOT_NORM_F ? norm : "m-2.safetensors";

		model_tensor_name(&m, s, layer, name);
		if (!*file)
			continue;
		say(&t, "%s\"%s\":\"%s\"", sep, name, file);
		sep = ",";
	}
	say(&t, "%s}}", more);
	return t.p;
}

static void dir_shards(void)
{
	static const struct {
		const char *first, *norm, *more, *where, *what;
		enum err_class cls;
	} list[] = {
		{ "m-3.safetensors", "m-2.safetensors", "", "m-3.safetensors", "cannot open",
		  ERR_NOINPUT },
		{ "m-2.safetensors", "m-2.safetensors", "", "model.embed_tokens.weight",
		  "is not in m-2.safetensors, where model.safetensors.index.json puts it",
		  ERR_DATA },
		{ "m-1.safetensors", "", "", "model.norm.weight",
		  "is in m-2.safetensors but not in model.safetensors.index.json", ERR_DATA },
		{ "m-1.safetensors", "m-2.safetensors", ",\"x\":\"m-1.safetensors\"", "x",
		  "is not in m-1.safetensors", ERR_DATA },
		{ "../shards/m-1.safetensors", "m-2.safetensors", "",
		  "model.safetensors.index.json",
		  "'../shards/m-1.safetensors' is not the name of a file in this directory",
		  ERR_DATA },
		{ "/etc/passwd", "m-2.safetensors", "", "model.safetensors.index.json",
		  "'/etc/passwd'",
		  ERR_DATA },
		{ "..", "m-2.safetensors", "", "model.safetensors.index.json", "'..'", ERR_DATA },
		{ "config.json", "m-2.safetensors", "", "config.json", "header", ERR_DATA },
		{ "m-1.safetensors", "m-2.safetensors", ",\"y\":3", "model.safetensors.index.json",
		  "y: ''", ERR_DATA },
	};
	struct hf_tensor t;
	struct err e;
	struct hf *h;
	float v[8];

	write_shards(weight_map("m-1.safetensors", "m-2.safetensors", ""));
	if (ok(!hf_open(&h, file_path("shards"), &e), "a model in two shards: %s: %s", e.where,
	       e.what)) {
		ok(!hf_tensor(h, "model.norm.weight", &t) && !hf_read(h, t.name, v, &e) &&
		   v[7] == element(19, 7), "a tensor of the second");
		hf_close(h);
	}
	for (size_t i = 0; i < sizeof(list) / sizeof(list[0]); i++) {
		int r;

		write_shards(weight_map(list[i].first, list[i].norm, list[i].more));
		r = hf_open(&h, file_path("shards"), &e);
		if (!ok(r == -1 && e.cls == list[i].cls && strstr(e.where, list[i].where) &&
			strstr(e.what, list[i].what), "refused: %s: %s", list[i].where,
				list[i].what))
			printf("#   %s: %s\n", r ? e.where : "accepted", r ? e.what : "");
		if (!r)
			hf_close(h);
	}
	write_shards("{\"weight_map\":[]}");
	ok(hf_open(&h, file_path("shards"), &e) == -1 && strstr(e.what, "weight_map"), "no map");
	write_shards("{\"weight_map\":{}}");
	ok(hf_open(&h, file_path("shards"), &e) == -1 && !strcmp(e.where,
	   "model.embed_tokens.weight"),
	   "an empty map: the first tensor is missing");
	write_shards("{\"weight_map\":");
	ok(hf_open(&h, file_path("shards"), &e) == -1 &&
	   !strcmp(e.where, "model.safetensors.index.json") && strstr(e.what, "not JSON"),
	   "cut map");
}

/* Thousands of damaged configs and indexes: refused, or a model that makes sense. */
static void mutations(void)
{
	static const char chars[] = "0123456789-{}[]\",:.enut\\ \xff";
	static const char config[] = CONFIG(
		",'num_key_value_heads':1,'head_dim':6,'rms_norm_eps':1e-5,'bos_token_id':[1],"
		"'rope_theta':5e5,'rope_scaling':{'rope_type':'llama3','factor':8.0,"
		"'low_freq_factor':1.0,'high_freq_factor':4.0,"
		"'original_max_position_embeddings':16},'tie_word_embeddings':false");
	size_t wrong = 0, accepted = 0;
	uint64_t x = 88172645463325252u;
	struct model_config c;
	struct model m;
	struct err e, e2;
	char s[sizeof(config)];

	for (int round = 0; round < 20000; round++) {
		memcpy(s, quoted(config), sizeof(s));
		for (int k = 0; k <= round % 4; k++) {
			x ^= x << 13, x ^= x >> 7, x ^= x << 17;
			s[x % (sizeof(s) - 1)] = chars[(x >> 32) % (sizeof(chars) - 1)];
		}
		if (hf_config_parse(&c, s, sizeof(s) - 1, &e)) {
			wrong += e.cls != ERR_DATA || !e.what[0];
		} else {
			accepted++;
			wrong += model_init(&m, &c, &e2) != 0;
		}
	}
	ok(wrong == 0, "20,000 damaged configs: refused as data, or sound");
	ok(accepted > 0 && accepted < 10000, "some of them were still sound (%zu)", accepted);
}

/* ---- models that others wrote ---------------------------------------------------- */

static void shared_models(void)
{
	static const char *const good[] = {
		"models/TinyStories-656K", "models/TinyStories-656K-f32", "models/stories260K-hf",
		"families/llama-gqa", "families/llama-headdim-bias", "families/llama3-rope",
		"interop/st-f16", "interop/st-sharded-bf16", "interop/st-sharded3-f32",
	};
	struct err e;
	struct hf *h;

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		const char *dir = shared_path(good[i]);
		size_t n = 0, bad = 0;
		struct hf_tensor t;
		char name[256];
		enum slot s;
		long layer;

		if (!*dir) {
			skip("no %s", good[i]);
			continue;
		}
		if (hf_open(&h, dir, &e)) {
			/* Another family than those this build knows is refused by name. */
			if (strstr(e.what, "is not supported (known:"))
				skip("%s: %s", good[i], e.what);
			else
				ok(false, "%s: %s: %s", good[i], e.where, e.what);
			continue;
		}
		for (; model_nth(hf_model(h), n, &s, &layer); n++) {
			void *p;

			model_tensor_name(hf_model(h), s, layer, name);
			if (hf_tensor(h, name, &t)) {
				bad++;
				continue;
			}
			p = malloc(t.nbytes);
			bad += hf_read(h, name, p, &e) != 0;
			free(p);
		}
		ok(bad == 0 && n > 10, "%s: all of its %zu tensors are read", good[i], n);
		hf_close(h);
	}
}

/* Every file of broken/ that LIST.json says to refuse, by the prefix of its name. */
static void shared_broken(void)
{
	const char *dir = shared_path("interop/broken");
	char path[1300], base[1024];
	struct dirent *d;
	DIR *list = *dir ? opendir(dir) : NULL;
	struct safetensors s;
	struct model_config c;
	struct err e;
	size_t n;

	if (!list) {
		skip("no interop/broken");
		return;
	}
	snprintf(base, sizeof(base), "%s", dir);
	while ((d = readdir(list))) {
		snprintf(path, sizeof(path), "%s/%s", base, d->d_name);
		if (!strncmp(d->d_name, "st-", 3)) {
			int r = safetensors_open(&s, path, &e);

			if (!r)
				safetensors_close(&s);
			ok((r == 0) == !strncmp(d->d_name, "st-00", 5) && (!r || e.cls == ERR_DATA),
			   "%s is %s", d->d_name, r ? e.what : "accepted");
		} else if (!strncmp(d->d_name, "config-", 7)) {
			char *text = file_slurp(path, &n);

			ok(text && hf_config_parse(&c, text, n, &e) == -1 && e.cls == ERR_DATA,
			   "%s is refused: %s: %s", d->d_name, e.where, e.what);
			free(text);
		}
	}
	closedir(list);
}

int main(void)
{
	config_read();
	config_rope();
	config_windows();
	config_refused();
	dir_good();
	dir_files();
	dir_tied();
	dir_refused();
	dir_values();
	dir_shards();
	mutations();
	shared_models();
	shared_broken();
	files_remove();
	return done();
}
