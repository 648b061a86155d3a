/* SPDX-License-Identifier: Apache-2.0 */
/*
 * llama2c.c - llama2.c's .bin files as models
 */
#include "formats/llama2c.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "formats/checkpoint.h"
#include "formats/checkpoint_files.h"
#include "formats/file.h"
#include "lib/base/buf.h"

#define MAGIC 0x616b3432u
#define PIECE ((size_t)1 << 20)
enum { DIM, HIDDEN_DIM, LAYERS, HEADS, KV_HEADS, VOCAB, SEQ_LEN, N_NUMBERS };
enum { LEGACY_BYTES = 4 * N_NUMBERS, V1_BYTES = 256 };

/* What follows in a file.  In blocks: after the block's prefix, for all blocks. */
struct part {
	const char *name; /* NULL: rotary tables, seq_len x head width */
	bool block, turned; /* turned: rows of heads in pairs */
};

static const struct part legacy[] = {
	{ "model.embed_tokens.weight", false, false },
	{ "input_layernorm.weight", true, false },
	{ "self_attn.q_proj.weight", true, true },
	{ "self_attn.k_proj.weight", true, true },
	{ "self_attn.v_proj.weight", true, false },
	{ "self_attn.o_proj.weight", true, false },
	{ "post_attention_layernorm.weight", true, false },
	{ "mlp.gate_proj.weight", true, false },
	{ "mlp.down_proj.weight", true, false },
	{ "mlp.up_proj.weight", true, false },
	{ "model.norm.weight", false, false },
	{ NULL, false, false },
	{ "lm_head.weight", false, false },
};

static const struct part version1[] = {
	{ "input_layernorm.weight", true, false },
	{ "post_attention_layernorm.weight", true, false },
	{ "model.norm.weight", false, false },
	{ "model.embed_tokens.weight", false, false },
	{ "self_attn.q_proj.weight", true, true },
	{ "self_attn.k_proj.weight", true, true },
	{ "self_attn.v_proj.weight", true, false },
	{ "self_attn.o_proj.weight", true, false },
	{ "mlp.gate_proj.weight", true, false },
	{ "mlp.down_proj.weight", true, false },
	{ "mlp.up_proj.weight", true, false },
	{ "lm_head.weight", false, false },
};
enum { N_LEGACY = sizeof(legacy) / sizeof(legacy[0]) };
enum { N_VERSION1 = sizeof(version1) / sizeof(version1[0]) };

struct llama2c {
	char *path; /* for messages: the base name */
	int fd;
	uint64_t size, base; /* of the file; where the weights begin */
	int32_t number[N_NUMBERS];
	bool shared;         /* the head is the embedding */
	const struct part *parts;
	size_t n_parts;
	struct model model;
	struct checkpoint_files files;
};

static uint32_t word(const unsigned char *p)
{
	return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

bool llama2c_looks(const unsigned char *first, size_t n)
{
	if (n >= 4 && word(first) == MAGIC)
		return true;
	if (n < LEGACY_BYTES)
		return false;
	for (int i = 0; i < N_NUMBERS; i++) {
		int32_t v = (int32_t)word(first + 4 * i);

		if (i == VOCAB && v < 0 && v != INT32_MIN)
			v = -v;
		if (v < 1 || v >= 1 << 24)
			return false;
	}
	return true;
}

/* ---- the header ---------------------------------------------------------------------------- */

static int take_header(struct llama2c *l, struct err *e)
{
	unsigned char b[LLAMA2C_HEADER + 1] = { 0 };
	const unsigned char *p = b;
	uint64_t n = l->size < sizeof(b) ? l->size : sizeof(b);

	if (file_pread(l->fd, b, n, 0, l->path, e))
		return -1;
	l->parts = legacy;
	l->n_parts = N_LEGACY;
	l->base = LEGACY_BYTES;
	if (word(b) == MAGIC) {
		if (word(b + 4) != 1)
			return err_set(e, ERR_DATA, l->path, "llama2.c version %lu is not "
				       "supported (only the legacy one and 1, both f32)",
				       (unsigned long)word(b + 4));
		p = b + 8;
		l->parts = version1;
		l->n_parts = N_VERSION1;
		l->base = V1_BYTES;
	}
	if (l->size < l->base)
		return err_set(e, ERR_DATA, l->path, "%llu bytes end inside the header",
			       (unsigned long long)l->size);
	for (int i = 0; i < N_NUMBERS; i++)
		l->number[i] = (int32_t)word(p + 4 * i);
	l->shared = l->parts == legacy ? l->number[VOCAB] > 0 : p[4 * N_NUMBERS] != 0;
	if (l->parts == legacy && l->number[VOCAB] < 0 && l->number[VOCAB] != INT32_MIN)
		l->number[VOCAB] = -l->number[VOCAB];
	return 0;
}

static int take_config(struct llama2c *l, struct err *e)
{
	static const char *const keys[N_NUMBERS] = {
		"hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
		"num_key_value_heads", "vocab_size", "max_position_embeddings",
	};
	struct buf b = { 0 };

	buf_puts(&b, "{\n \"architectures\": [\"LlamaForCausalLM\"],\n"
		 " \"model_type\": \"llama\",\n");
	for (int i = 0; i < N_NUMBERS; i++)
		buf_printf(&b, " \"%s\": %ld,\n", keys[i], (long)l->number[i]);
	buf_printf(&b, " \"rms_norm_eps\": 1e-05,\n \"rope_theta\": 10000.0,\n"
		   " \"tie_word_embeddings\": %s,\n \"attention_bias\": false,\n"
		   " \"mlp_bias\": false,\n \"bos_token_id\": 1,\n \"eos_token_id\": 2,\n"
		   " \"hidden_act\": \"silu\",\n \"torch_dtype\": \"float32\"\n}\n",
		   l->shared ? "true" : "false");
	if (buf_failed(&b, l->path, e)) {
		buf_release(&b);
		return -1;
	}
	return checkpoint_files_config(&l->files, &l->model, b.p, b.n, l->path, e);
}

/* ---- weights -------------------------------------------------------------------------------- */

/* Bytes of a part, of one block where it is in blocks.  0: the model has none such. */
static uint64_t part_bytes(const struct llama2c *l, const struct part *p)
{
	const struct model_config *c = &l->model.cfg;
	char name[256];
	int64_t shape[2] = { 0, 0 };
	enum slot s;
	long layer;
	int rank;

	if (!p->name)
		return (uint64_t)c->max_positions * (uint64_t)c->head_dim * sizeof(float);
	snprintf(name, sizeof(name), "%s%s", p->block ? "model.layers.0." : "", p->name);
	s = model_slot(&l->model, name, &layer);
	if (s == SLOT_NONE)
		return 0;
	rank = model_shape(&l->model, s, shape);
	return (uint64_t)shape[0] * (uint64_t)(rank == 2 ? shape[1] : 1) * sizeof(float);
}

static int check_size(const struct llama2c *l, struct err *e)
{
	uint64_t want = l->base, bytes;

	for (size_t i = 0; i < l->n_parts; i++) {
		bytes = part_bytes(l, &l->parts[i]);
		if (__builtin_mul_overflow(bytes, l->parts[i].block ?
					   (uint64_t)l->model.cfg.layers : 1, &bytes) ||
		    __builtin_add_overflow(want, bytes, &want))
			return err_set(e, ERR_DATA, l->path, "its header makes it too large");
	}
	if (want == l->size)
		return 0;
	return err_set(e, ERR_DATA, l->path, "has %llu bytes, its header makes it %llu",
		       (unsigned long long)l->size, (unsigned long long)want);
}

/* The part that a tensor is, and its offset; NULL: none. */
static const struct part *find(const struct llama2c *l, const char *name, uint64_t *at)
{
	const char *prefix = "model.layers.", *rest = name;
	uint64_t layer = 0, bytes;
	bool block = strncmp(name, prefix, strlen(prefix)) == 0;

	if (block) {
		rest += strlen(prefix);
		layer = strtoul(rest, NULL, 10);
		rest += strcspn(rest, ".");
		rest += *rest == '.';
	}
	*at = l->base;
	for (const struct part *p = l->parts; p < l->parts + l->n_parts; p++) {
		bytes = part_bytes(l, p);
		if (p->name && p->block == block && strcmp(p->name, rest) == 0) {
			*at += layer * bytes;
			return p;
		}
		*at += bytes * (p->block ? (uint64_t)l->model.cfg.layers : 1);
	}
	return NULL;
}

static const struct model *model_of(const void *self)
{
	return &((const struct llama2c *)self)->model;
}

static int model_tensor(const void *self, const char *name, struct checkpoint_tensor *t)
{
	const struct llama2c *l = self;
	long layer;
	enum slot s = model_slot(&l->model, name, &layer);

	if (s == SLOT_NONE)
		return -1;
	t->dtype = DT_F32;
	t->rank = model_shape(&l->model, s, t->shape);
	return dtype_nbytes(t->dtype, t->rank, t->shape, &t->nbytes);
}

/* Rows of heads of d: pairs (j, j + d/2) one after the other become two halves. */
static int read_turned(const struct llama2c *l, const struct checkpoint_tensor *t, uint64_t at,
		       char *dst, const char *name, struct err *e)
{
	const uint64_t d = (uint64_t)l->model.cfg.head_dim, rows = (uint64_t)t->shape[0];
	const size_t row = (size_t)t->shape[1] * sizeof(float);
	const uint64_t per = PIECE / row ? PIECE / row : 1;
	char *buf = malloc((size_t)per * row);
	int ret = buf ? 0 : err_nomem(e, name, per * row);

	for (uint64_t i = 0; !ret && i < rows; i += per) {
		uint64_t n = rows - i < per ? rows - i : per;

		ret = file_pread(l->fd, buf, n * row, at + i * row, name, e);
		for (uint64_t k = 0; !ret && k < n; k++)
			memcpy(dst + ((i + k) / d * d + (i + k) % 2 * (d / 2) + (i + k) % d / 2) *
			       row, buf + k * row, row);
	}
	free(buf);
	return ret;
}

static int model_read(void *self, const char *name, void *dst, struct err *e)
{
	const struct llama2c *l = self;
	struct checkpoint_tensor t;
	const struct part *p;
	uint64_t at;
	int ret;

	p = find(l, name, &at);
	if (!p || model_tensor(l, name, &t))
		return err_set(e, ERR_BUG, name, "BUG: the model has no such tensor");
	ret = p->turned ? read_turned(l, &t, at, dst, name, e) :
	      file_pread(l->fd, dst, t.nbytes, at, name, e);
	return ret ? ret : checkpoint_check_finite(&t, dst, name, e);
}

static const char *model_file(const void *self, int i)
{
	return checkpoint_files_name(&((const struct llama2c *)self)->files, i);
}

static int model_file_read(const void *self, int i, char **text, size_t *n, struct err *e)
{
	return checkpoint_files_read(&((const struct llama2c *)self)->files, i, text, n, e);
}

static void model_close(void *self)
{
	struct llama2c *l = self;

	if (l->fd >= 0)
		close(l->fd);
	checkpoint_files_release(&l->files);
	free(l->path);
	free(l);
}

/* ---- the whole ------------------------------------------------------------------------------- */

/* tokenizer.bin beside the model, else tokN.bin; 0 as well if there is neither. */
static int take_tokenizer(struct llama2c *l, const char *path, struct err *e)
{
	const size_t dir = (size_t)(file_base(path) - path), room = dir + 40;
	const size_t vocab = (size_t)l->model.cfg.vocab;
	struct tokenizer_files f = { 0 };
	char *name = malloc(room), *data = NULL;
	size_t n;
	int ret = 0;

	if (!name)
		return err_nomem(e, path, room);
	snprintf(name, room, "%.*stokenizer.bin", (int)dir, path);
	if (access(name, F_OK))
		snprintf(name, room, "%.*stok%zu.bin", (int)dir, path, vocab);
	if (access(name, F_OK) == 0)
		ret = file_read(name, name, FILE_MAX_WHOLE, &data, &n, e) ||
		      llama2c_tokenizer(&f, data, n, vocab, name, e) ? -1 : 0;
	checkpoint_files_tokenizer(&l->files, &f);
	free(data);
	free(name);
	return ret;
}

int llama2c_open(struct stream_in **in, const char *path, struct err *e)
{
	static const struct checkpoint_ops ops = {
		model_of, model_tensor, model_read, NULL, model_file, model_file_read, model_close,
		NULL, NULL, NULL, NULL,
	};
	struct llama2c *l = calloc(1, sizeof(*l));

	if (!l)
		return err_nomem(e, path, sizeof(*l));
	l->fd = -1;
	l->path = strdup(file_base(path));
	if (!l->path)
		err_nomem(e, path, strlen(path));
	else
		l->fd = file_open(path, path, &l->size, e);
	if (l->fd < 0 || take_header(l, e) || take_config(l, e) || check_size(l, e) ||
	    take_tokenizer(l, path, e)) {
		model_close(l);
		return -1;
	}
	return checkpoint_stream(in, &ops, l, e);
}
