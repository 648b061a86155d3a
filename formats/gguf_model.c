/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gguf_model.c - the tensors of a GGUF file under the names and in the form of the family's table
 */
#include "formats/gguf_model.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/checkpoint.h"
#include "formats/checkpoint_files.h"
#include "formats/gguf_split.h"
#include "lib/model/family.h"

#define PIECE ((size_t)1 << 20) /* bytes read at once, or a row if that is longer */

/* Modules: blk.N.gguf and the block's prefix with ours.  "%ld" is the expert, one of a stack. */
static const struct row {
	const char *gguf, *ours;
	bool heads; /* rows are of heads that a permuted architecture turns */
} rows[] = {
	{ "attn_norm", "input_layernorm", false },
	{ "attn_q", "self_attn.q_proj", true },
	{ "attn_k", "self_attn.k_proj", true },
	{ "attn_v", "self_attn.v_proj", false },
	{ "attn_output", "self_attn.o_proj", false },
	{ "attn_q_norm", "self_attn.q_norm", false },
	{ "attn_k_norm", "self_attn.k_norm", false },
	{ "ffn_norm", "post_attention_layernorm", false },
	{ "ffn_gate", "mlp.gate_proj", false },
	{ "ffn_up", "mlp.up_proj", false },
	{ "ffn_down", "mlp.down_proj", false },
	{ "ffn_gate_inp", "mlp.gate", false },
	{ "ffn_gate_exps", "mlp.experts.%ld.gate_proj", false },
	{ "ffn_up_exps", "mlp.experts.%ld.up_proj", false },
	{ "ffn_down_exps", "mlp.experts.%ld.down_proj", false },
	{ "ffn_gate_inp_shexp", "mlp.shared_expert_gate", false },
	{ "ffn_gate_shexp", "mlp.shared_expert.gate_proj", false },
	{ "ffn_up_shexp", "mlp.shared_expert.up_proj", false },
	{ "ffn_down_shexp", "mlp.shared_expert.down_proj", false },
	{ NULL, NULL, false },
};

/* And those outside of blocks. */
static const struct row outside[] = {
	{ "token_embd", "model.embed_tokens", false },
	{ "output_norm", "model.norm", false },
	{ "output", "lm_head", false },
	{ NULL, NULL, false },
};

struct gguf_model {
	struct gguf g;
	const struct gguf_arch *arch;
	struct model model;
	struct checkpoint_files files;
	/* rows of a head as they lie in the file, of which pieces are asked for one by one */
	struct {
		const struct gguf_tensor *t; /* NULL: none */
		uint64_t first;              /* row */
		unsigned char *p;
		size_t cap;
	} head;
};

/* Where a tensor of ours lies: in t, or in the expert-th slice of it. */
struct place {
	const struct gguf_tensor *t;
	const struct row *row;
	long expert; /* -1: all of t is it */
	char name[96]; /* in the file */
};

/* ---- names ------------------------------------------------------------------------------ */

/* Does module, n long, read as pattern?  Then *expert is its number, -1 if it has none. */
static bool matches(const char *module, size_t n, const char *pattern, long *expert)
{
	const char *number = strstr(pattern, "%ld");
	size_t before = number ? (size_t)(number - pattern) : strlen(pattern);
	size_t after = number ? strlen(number + 3) : 0;
	long v = 0;

	*expert = -1;
	if (n < before + after || memcmp(module, pattern, before))
		return false;
	if (!number)
		return n == before;
	if (memcmp(module + n - after, number + 3, after) || n - before - after > 6 ||
	    n == before + after)
		return false;
	for (size_t i = before; i < n - after; i++) {
		if (module[i] < '0' || module[i] > '9')
			return false;
		v = 10 * v + (module[i] - '0');
	}
	*expert = v;
	return true;
}

/* "model.layers.3.mlp.up_proj.weight" -> blk.3.ffn_up.weight; p->t stays NULL if the file has none
 * such. */
static void find(const struct gguf_model *m, const char *ours, struct place *p)
{
	const char *prefix = m->model.family->block_prefix, *end = strrchr(ours, '.');
	size_t before = strcspn(prefix, "%"), n, digits;
	char block[32] = "";

	memset(p, 0, sizeof(*p));
	p->expert = -1;
	p->row = outside;
	if (strncmp(ours, prefix, before) == 0) {
		ours += before;
		digits = strcspn(ours, ".");
		snprintf(block, sizeof(block), "blk.%.*s.", digits > 20 ? 20 : (int)digits, ours);
		ours += digits + (ours[digits] == '.');
		p->row = rows;
	}
	if (!end || end < ours)
		return;
	n = (size_t)(end - ours);
	while (p->row->gguf && !matches(ours, n, p->row->ours, &p->expert))
		p->row++;
	if (!p->row->gguf)
		return;
	snprintf(p->name, sizeof(p->name), "%s%s%.16s", block, p->row->gguf, end);
	p->t = gguf_tensor(&m->g, p->name);
}

/* ---- the file against the family's table --------------------------------------------- */

static int refuse(const struct gguf_model *m, const char *name, const char *what, struct err *e)
{
	char where[320];

	snprintf(where, sizeof(where), "%s: %.128s", m->g.path, name);
	return err_set(e, ERR_DATA, where, "%s", what);
}

static void shape_text(char *buf, size_t cap, int rank, const int64_t *shape, bool reversed)
{
	size_t n = (size_t)snprintf(buf, cap, "[");

	for (int i = 0; i < rank && n < cap; i++)
		n += (size_t)snprintf(buf + n, cap - n, "%s%lld", i ? ", " : "",
				      (long long)shape[reversed ? rank - 1 - i : i]);
	if (n < cap)
		snprintf(buf + n, cap - n, "]");
}

/* The shape that the file gives a tensor of ours, slowest first, without leading ones: the
 * converter drops and adds them. */
static int bare_shape(const int64_t *in, int rank, int64_t *out)
{
	int n = 0;

	for (int i = 0; i < rank; i++)
		if (n || in[i] != 1)
			out[n++] = in[i];
	return n;
}

static int check_shape(const struct gguf_model *m, const struct place *p, const int64_t *shape,
		       int rank, struct err *e)
{
	const int stack = p->expert >= 0;
	int64_t file[4], got[4], want[8];
	char what[320], a[120], b[120];
	int n, k;

	for (int i = 0; i < p->t->rank; i++)
		file[i] = p->t->ne[p->t->rank - 1 - i];
	if (!p->t->type->dtype) {
		snprintf(what, sizeof(what), "type %s is not supported (only F32, F16, BF16, "
			 "Q4_0, Q4_1, Q5_0, Q5_1, Q8_0 and Q2_K to Q6_K)", p->t->type->name);
		return refuse(m, p->t->name, what, e);
	}
	if (rank == 1 && p->row->heads && p->t->type->block > 1) {
		snprintf(what, sizeof(what), "type %s of a vector whose values are permuted is not "
			 "supported", p->t->type->name);
		return refuse(m, p->t->name, what, e);
	}
	if (stack && (p->t->rank != 3 || p->expert >= file[0])) {
		snprintf(what, sizeof(what), "has no slice for expert %ld", p->expert);
		return refuse(m, p->t->name, what, e);
	}
	n = bare_shape(file + stack, p->t->rank - stack, got);
	k = bare_shape(shape, rank, want);
	if (n == k && !memcmp(got, want, (size_t)n * sizeof(*got)))
		return 0;
	shape_text(a, sizeof(a), p->t->rank, file, false);
	shape_text(b, sizeof(b), rank, shape, false);
	snprintf(what, sizeof(what), "has shape %s, the keys make it %s%s", a, b,
		 stack ? " for each expert" : "");
	return refuse(m, p->t->name, what, e);
}

/* Every tensor of the model is there and fits. */
static int check_all(const struct gguf_model *m, bool *used, struct err *e)
{
	char name[256], what[320];
	struct place p;
	int64_t shape[2];
	enum slot s;
	long layer;

	for (size_t i = 0; model_nth(&m->model, i, &s, &layer); i++) {
		model_tensor_name(&m->model, s, layer, name);
		find(m, name, &p);
		snprintf(what, sizeof(what), "is missing (%s)", name);
		if (!p.t)
			return refuse(m, p.name[0] ? p.name : name, what, e);
		if (check_shape(m, &p, shape, model_shape(&m->model, s, shape), e))
			return -1;
		used[p.t - m->g.t] = true;
	}
	return 0;
}

/* And no other, but the rotary factors, which gguf_config has read. */
static int check_tensors(const struct gguf_model *m, struct err *e)
{
	bool *used = calloc(m->g.n + 1, sizeof(*used));
	int ret = used ? check_all(m, used, e) : err_nomem(e, m->g.path, m->g.n);

	for (size_t i = 0; !ret && i < m->g.n; i++)
		if (!used[i] && strcmp(m->g.t[i].name, "rope_freqs.weight"))
			ret = refuse(m, m->g.t[i].name, "is no tensor of this architecture with "
				     "these keys", e);
	free(used);
	return ret;
}

/* ---- files that travel ------------------------------------------------------------------ */

static int take_config(struct gguf_model *m, struct err *e)
{
	char *json;
	size_t n;

	return gguf_config(&m->g, m->arch, &json, &n, e) ? -1 :
	       checkpoint_files_config(&m->files, &m->model, json, n, m->g.path, e);
}

static int take_template(struct gguf_model *m, struct err *e)
{
	const struct gguf_kv *kv = gguf_find(&m->g, "tokenizer.chat_template");
	uint64_t at = 0;
	const char *s;
	char *text;
	size_t n;

	if (!kv || kv->type != GGUF_STRING || !gguf_str(&m->g, kv, &at, &s, &n))
		return 0;
	text = malloc(n + 1);
	if (!text)
		return err_nomem(e, kv->key, n);
	memcpy(text, s, n);
	checkpoint_files_put(&m->files, "chat_template.jinja", text, n);
	return 0;
}

static int take_files(struct gguf_model *m, struct err *e)
{
	struct tokenizer_files f = { 0 };

	if (gguf_tokenizer(&m->g, &f, e)) {
		tokenizer_files_release(&f);
		return -1;
	}
	checkpoint_files_tokenizer(&m->files, &f);
	return take_template(m, e);
}

/* ---- as a checkpoint ---------------------------------------------------------------------- */

static void model_close(void *self)
{
	struct gguf_model *m = self;

	checkpoint_files_release(&m->files);
	gguf_close(&m->g);
	free(m->head.p);
	free(m);
}

static const struct model *model_of(const void *self)
{
	return &((const struct gguf_model *)self)->model;
}

static int model_tensor(const void *self, const char *name, struct checkpoint_tensor *t)
{
	const struct gguf_model *m = self;
	struct place p;
	long layer;
	enum slot s = model_slot(&m->model, name, &layer);

	find(m, name, &p);
	if (s == SLOT_NONE || !p.t)
		return -1;
	t->dtype = p.t->type->dtype;
	t->rank = model_shape(&m->model, s, t->shape);
	return dtype_nbytes(t->dtype, t->rank, t->shape, &t->nbytes);
}

/* Where row i of the file goes: in the file each head's rows are pairs (j, j + d/2), one after the
 * other, d the width of a head. */
static uint64_t unpermuted(uint64_t i, uint64_t d)
{
	return i / d * d + i % 2 * (d / 2) + i % d / 2;
}

/* n rows from the first-th on, in buf, to their places in dst. */
static void put_rows(const struct gguf_model *m, const struct place *p, void *dst, uint64_t first,
		     uint64_t n, size_t width, const unsigned char *buf)
{
	const struct ggml_type *type = p->t->type;
	const size_t blocks = width / type->block, in = blocks * type->bytes;
	const size_t out = width * (size_t)dtype_bits(type->dtype) / 8;
	const bool turn = m->arch->permuted && p->row->heads;

	for (uint64_t i = 0; i < n; i++) {
		uint64_t to = turn ? unpermuted(first + i, (uint64_t)m->model.cfg.head_dim) :
			      first + i;
		char *at = (char *)dst + to * out;

		if (type->dequantize)
			type->dequantize((float *)(void *)at, buf + i * in, blocks);
		else
			memcpy(at, buf + i * in, in);
	}
}

static int model_read(void *self, const char *name, void *dst, struct err *e)
{
	const struct gguf_model *m = self;
	const struct ggml_type *type;
	struct checkpoint_tensor t;
	struct place p;
	uint64_t rows_all = 1, per, row, base;
	size_t width;
	unsigned char *buf;
	int ret = 0;

	find(m, name, &p);
	if (model_tensor(m, name, &t))
		return err_set(e, ERR_BUG, name, "BUG: the model has no such tensor");
	type = p.t->type;
	/* A permuted bias is turned value by value. */
	width = t.rank == 1 && p.row->heads ? 1 :
		(size_t)t.shape[t.rank - 1];
	for (int i = 0; i < t.rank; i++)
		rows_all *= (uint64_t)t.shape[i];
	rows_all /= width;
	row = width / type->block * type->bytes;
	base = p.expert < 0 ? 0 : (uint64_t)p.expert * rows_all * row;
	per = PIECE / row ? PIECE / row : 1;
	buf = malloc((size_t)(per * row));
	if (!buf)
		return err_nomem(e, name, per * row);
	for (uint64_t i = 0; !ret && i < rows_all; i += per) {
		uint64_t n = rows_all - i < per ? rows_all - i : per;

		ret = gguf_read(&m->g, p.t, base + i * row, buf, n * row, e);
		if (!ret)
			put_rows(m, &p, dst, i, n, width, buf);
	}
	free(buf);
	return ret ? ret : checkpoint_check_finite(&t, dst, name, e);
}

/* unpermuted, the other way. */
static uint64_t permuted(uint64_t i, uint64_t d)
{
	return i / d * d + i % d % (d / 2) * 2 + i % d / (d / 2);
}

/* n bytes of type's values, which begin at byte `from` of its blocks. */
static int read_blocks(const struct gguf_model *m, const struct place *p, uint64_t from, void *dst,
		       size_t n, struct err *e)
{
	const struct ggml_type *type = p->t->type;
	const size_t blocks = n / ((size_t)dtype_bits(type->dtype) / 8) / type->block;
	unsigned char *buf;
	int ret;

	if (!type->dequantize)
		return gguf_read(&m->g, p->t, from, dst, n, e);
	buf = malloc(blocks * type->bytes);
	if (!buf)
		return err_nomem(e, p->name, blocks * type->bytes);
	ret = gguf_read(&m->g, p->t, from, buf, blocks * type->bytes, e);
	if (!ret)
		type->dequantize(dst, buf, blocks);
	free(buf);
	return ret;
}

/* The head whose row `first` is its first: d rows of so many bytes. */
static int take_head(struct gguf_model *m, const struct place *p, uint64_t first, uint64_t d,
		     size_t bytes, struct err *e)
{
	const size_t n = (size_t)d * bytes;

	if (m->head.t == p->t && m->head.first == first)
		return 0;
	m->head.t = NULL;
	if (n > m->head.cap) {
		free(m->head.p);
		m->head.p = malloc(n);
		m->head.cap = m->head.p ? n : 0;
		if (!m->head.p)
			return err_nomem(e, p->name, n);
	}
	if (gguf_read(&m->g, p->t, first * bytes, m->head.p, n, e))
		return -1;
	m->head.t = p->t;
	m->head.first = first;
	return 0;
}

/* Rows of a matrix whose heads are turned: 1: no whole rows were asked for. */
static int permuted_piece(struct gguf_model *m, const struct place *p, uint64_t from, void *dst,
			  size_t n, struct err *e)
{
	const struct ggml_type *type = p->t->type;
	const size_t cols = (size_t)p->t->ne[0], row = cols * (size_t)dtype_bits(type->dtype) / 8;
	const uint64_t d = (uint64_t)m->model.cfg.head_dim;
	const size_t blocks = cols / type->block, bytes = blocks * type->bytes;

	if (p->t->rank < 2 || from % row || n % row)
		return 1;
	for (size_t i = 0; i < n / row; i++) {
		const uint64_t r = from / row + i, first = r / d * d;
		const unsigned char *src;

		if (take_head(m, p, first, d, bytes, e))
			return -1;
		src = m->head.p + (permuted(r, d) - first) * bytes;
		if (type->dequantize)
			type->dequantize((float *)(void *)((char *)dst + i * row), src, blocks);
		else
			memcpy((char *)dst + i * row, src, bytes);
	}
	return 0;
}

/* Values as they lie in the file: of whole blocks, when they are asked for so. */
static int model_piece(void *self, const char *name, uint64_t from, void *dst, size_t n,
		       struct err *e)
{
	struct gguf_model *m = self;
	const struct ggml_type *type;
	struct place p;
	uint64_t base = 0;
	size_t width;

	find(m, name, &p);
	type = p.t ? p.t->type : NULL;
	if (!type)
		return 1;
	if (m->arch->permuted && p.row->heads)
		return permuted_piece(m, &p, from, dst, n, e);
	width = (size_t)dtype_bits(type->dtype) / 8;
	if (from / width % type->block || n / width % type->block)
		return 1;
	if (p.expert >= 0)
		base = p.t->nbytes / (uint64_t)p.t->ne[2] * (uint64_t)p.expert;
	return read_blocks(m, &p, base + from / width / type->block * type->bytes, dst, n, e);
}

/* The tensors are sorted by name: a block's are neighbours. */
static void model_readahead(const void *self, long layer)
{
	const struct gguf_model *m = self;
	char prefix[32];
	int n = snprintf(prefix, sizeof(prefix), "blk.%ld.", layer);

	for (size_t i = 0; i < m->g.n; i++)
		/* Only advice: what it answers does not matter. */
		if (strncmp(m->g.t[i].name, prefix, (size_t)n) == 0)
			(void)posix_fadvise(gguf_fd(&m->g, &m->g.t[i]), (off_t)m->g.t[i].at,
					    (off_t)m->g.t[i].nbytes, POSIX_FADV_WILLNEED);
}

static const char *model_file(const void *self, int i)
{
	return checkpoint_files_name(&((const struct gguf_model *)self)->files, i);
}

static int model_file_read(const void *self, int i, char **text, size_t *n, struct err *e)
{
	return checkpoint_files_read(&((const struct gguf_model *)self)->files, i, text, n, e);
}

int gguf_model_open(struct stream_in **in, const char *path, struct err *e)
{
	static const struct checkpoint_ops ops = {
		model_of, model_tensor, model_read, model_readahead, model_file,
		model_file_read, model_close,
		NULL, NULL, model_piece, NULL,
	};
	struct gguf_model *m = calloc(1, sizeof(*m));

	if (!m)
		return err_nomem(e, path, sizeof(*m));
	if (gguf_open(&m->g, path, e)) {
		free(m);
		return -1;
	}
	if (gguf_join(&m->g, path, e) || gguf_arch(&m->arch, &m->g, e) || take_config(m, e) ||
	    check_tensors(m, e) || take_files(m, e)) {
		model_close(m);
		return -1;
	}
	return checkpoint_stream(in, &ops, m, e);
}

int gguf_model_tokenizer(struct tokenizer **t, const char *path, struct err *e)
{
	struct tokenizer_files f = { 0 };
	struct gguf g;
	int ret = -1;

	if (gguf_open(&g, path, e))
		return -1;
	if (!gguf_tokenizer(&g, &f, e))
		ret = tokenizer_files_any(&f) ? tokenizer_files_build(t, &f, NULL, e) :
		      err_set(e, ERR_DATA, g.path, "carries no tokenizer");
	tokenizer_files_release(&f);
	gguf_close(&g);
	return ret;
}
