/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gguf_export.c - the tensors of a stream into a GGUF file
 */
#include "formats/gguf_export.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "formats/file.h"
#include "formats/ggml.h"
#include "formats/gguf_rows.h"
#include "formats/gguf_tokens.h"
#include "formats/json.h"
#include "lib/base/pool.h"
#include "lib/data/tokenizer.h"

#define TEMPLATE "chat_template.jinja"
#define FACTORS "rope_freqs.weight"
enum { STACKS = EXPERT_SLOTS };

struct state {
	struct export *x;
	const struct gguf_export_options *o;
	const struct model *m;
	const char *arch;
	struct output *out;
	struct gguf_writer w;
	struct tokenizer_files files;
	struct tokenizer *tok;
	struct gguf_tokens tokens;
	char *chat;             /* the chat template as a file, or NULL */
	size_t chat_len;
	bool begun;             /* the keys are complete */
	struct gguf_expected *v;
	size_t n, cap;
	long stack[STACKS];     /* of the block at hand: the tensor, -1: not yet */
	long linears[64];       /* by type: linears of it, for general.file_type */
	long packed;
};

/* ---- the head --------------------------------------------------------------------------- */

/* Every expert of a stack is in one tensor; a tied head is none, but for qwen2moe, which wants
 * one. */
static void announce(const struct state *s, size_t *n, uint64_t *listed)
{
	char name[64];
	int64_t dims[MODEL_MAX_RANK];
	enum slot slot;
	long layer;

	*n = 0;
	*listed = 0;
	for (size_t i = 0; model_nth(s->m, i, &slot, &layer); i++) {
		int rank = model_dims(s->m, slot, dims);

		if (slot_expert(slot) > 0)
			continue;
		rank = slot_kind(slot) == SLOT_SHARED_SWITCH ? 1 : slot_expert(slot) == 0 ? 3 :
		       rank;
		gguf_export_name(name, slot, layer);
		*listed += gguf_writer_listed(name, rank);
		(*n)++;
	}
	if (s->m->cfg.rope == ROPE_LLAMA3) {
		*listed += gguf_writer_listed(FACTORS, 1);
		(*n)++;
	}
	if (s->m->cfg.tied && s->m->cfg.experts) {
		gguf_export_name(name, SLOT_HEAD, -1);
		*listed += gguf_writer_listed(name, 2);
		(*n)++;
	}
}

/* tokenizer_config.json's, if there is no file of its own. */
static int put_chat(struct state *s, struct err *e)
{
	const struct json *v;
	struct json_doc *doc;
	const char *text = s->chat;
	size_t n = s->chat_len;

	if (text) {
		gguf_put_str(&s->w, "tokenizer.chat_template", text, n);
		return 0;
	}
	if (!s->files.file[TOKF_CONFIG].text)
		return 0;
	if (json_parse(&doc, s->files.file[TOKF_CONFIG].text, s->files.file[TOKF_CONFIG].n,
		       "tokenizer_config.json", e))
		return -1;
	v = json_get(json_root(doc), "chat_template");
	text = json_str(v, &n);
	if (text)
		gguf_put_str(&s->w, "tokenizer.chat_template", text, n);
	json_free(doc);
	return 0;
}

static int put_tokenizer(struct state *s, struct err *e)
{
	const struct gguf_tokens_model m = { s->m->cfg.vocab, s->m->cfg.bos, s->m->cfg.eos };

	if (s->o->no_vocab) {
		gguf_put_str(&s->w, "tokenizer.ggml.model", "no_vocab", strlen("no_vocab"));
		return 0;
	}
	if (!tokenizer_files_any(&s->files))
		return err_set(e, ERR_DATA, "tokenizer", "the stream carries none: --no-vocab "
			       "writes a file without, for programs that bring their own");
	if (tokenizer_files_build(&s->tok, &s->files, NULL, e) ||
	    gguf_tokens_make(&s->tokens, &s->files, s->tok, &m, s->o->pre, e))
		return -1;
	gguf_tokens_put(&s->tokens, &s->w);
	return put_chat(s, e);
}

static int put_factors(struct state *s, struct err *e)
{
	const int64_t n = s->m->cfg.head_dim / 2;
	float *f = malloc((size_t)n * sizeof(*f) + 1);
	long i;
	int ret = f ? gguf_export_factors(s->m, f, e) : err_nomem(e, FACTORS, (uint64_t)n * 4);

	if (ret > 0) {
		i = gguf_writer_tensor(&s->w, FACTORS, GGML_F32, 1, &n, e);
		ret = i < 0 ? -1 : gguf_writer_put(&s->w, i, 0, f, (size_t)n * sizeof(*f), e);
	}
	free(f);
	return ret;
}

/* The first tensor is here: no file comes any more. */
static int begin(struct state *s, struct err *e)
{
	uint64_t listed;
	size_t n;

	if (s->begun)
		return 0;
	s->begun = true;
	gguf_export_keys(&s->w, s->m, s->arch, s->o->name);
	if (put_tokenizer(s, e))
		return -1;
	announce(s, &n, &listed);
	return gguf_writer_begin(&s->w, n, listed, e) || put_factors(s, e) ? -1 : 0;
}

/* ---- tensors ---------------------------------------------------------------------------- */

static int expect(struct state *s, const struct gguf_rows *r, struct err *e)
{
	struct gguf_expected *x;

	if (s->n == s->cap) {
		const size_t cap = s->cap ? 2 * s->cap : 512;

		x = realloc(s->v, cap * sizeof(*x));
		if (!x)
			return err_nomem(e, r->name, cap * sizeof(*x));
		s->v = x;
		s->cap = cap;
	}
	x = &s->v[s->n++];
	memset(x, 0, sizeof(*x));
	snprintf(x->name, sizeof(x->name), "%s", r->name);
	x->rows = r->rows;
	x->cols = r->cols;
	x->hash[0] = r->hash[0];
	x->hash[1] = r->hash[1];
	return 0;
}

/* The tensor of the file that holds this one, and from which byte on.  type: it has, or gets. */
static long place(struct state *s, enum slot slot, long layer, uint32_t type, uint64_t *at,
		  struct err *e)
{
	const long expert = slot_expert(slot);
	int64_t dims[MODEL_MAX_RANK], ne[4];
	char name[64];
	int rank = model_dims(s->m, slot, dims);
	long *stack = expert < 0 ? NULL : &s->stack[slot_kind(slot) - SLOT_X_GATE], i;

	gguf_export_name(name, slot, layer);
	if (slot_kind(slot) == SLOT_SHARED_SWITCH)
		dims[0] = dims[--rank];
	for (int k = 0; k < rank; k++)
		ne[k] = dims[rank - 1 - k];
	if (stack)
		ne[rank++] = s->m->cfg.experts;
	i = stack && *stack >= 0 ? *stack : gguf_writer_tensor(&s->w, name, type, rank, ne, e);
	if (i < 0)
		return -1;
	if (stack)
		*stack = i;
	if (s->w.t[i].type != type)
		return err_set(e, ERR_DATA, name, "experts of one stack must be of one type: "
			       "expert %ld needs %s, those before it are %s; --type=%s", expert,
			       ggml_type(type)->name, ggml_type(s->w.t[i].type)->name,
			       ggml_type(type)->name);
	*at = stack ? (uint64_t)expert * (s->w.t[i].nbytes / (uint64_t)s->m->cfg.experts) : 0;
	return i;
}

/* Rows of a head that are permuted, 0: none. */
static size_t head_rows(const struct state *s, enum slot slot)
{
	const bool turned = slot == SLOT_Q || slot == SLOT_Q_B || slot == SLOT_K ||
			    slot == SLOT_K_B;

	return turned && strcmp(s->arch, "llama") == 0 ? (size_t)s->m->cfg.head_dim : 0;
}

static int put(struct state *s, struct gguf_rows *r, enum slot slot, long layer, uint32_t type,
	       struct err *e)
{
	uint64_t at = 0;
	long i;

	r->head = head_rows(s, slot);
	r->pool = s->o->pool;
	i = place(s, slot, layer, type, &at, e);
	return i < 0 || gguf_rows_write(r, &s->w, i, at, e) || expect(s, r, e) ? -1 : 0;
}

static int put_codes(void *ctx, const struct export_codes *q, struct err *e)
{
	struct state *s = ctx;
	const struct gguf_codes g = { q->c, q->codes, q->scale, q->zero };
	struct gguf_rows r = { .name = q->name, .rows = q->c.rows, .cols = q->c.cols,
			       .codes = &g };
	char what[160];

	if (begin(s, e) || gguf_pack_choose(&r.packing, &g, s->o->type, s->o->requantize, e) ||
	    put(s, &r, q->slot, q->layer, r.packing.type, e))
		return -1;
	s->packed++;
	s->linears[r.packing.type]++;
	snprintf(what, sizeof(what), "%s as %s",
		 r.packing.how == GGUF_PACK_ANEW ? "quantized anew" : "scales rounded",
		 ggml_type(r.packing.type)->name);
	export_lost(s->x, q->name, what, r.error, r.norm);
	return 0;
}

static uint32_t float_type(enum dtype t)
{
	return t == DT_F32 ? GGML_F32 : t == DT_F16 ? GGML_F16 : GGML_BF16;
}

/* Norms, biases and routers are F32 in such files: llama.cpp computes with them as they are. */
static bool always_f32(enum slot slot, int rank)
{
	return rank == 1 || slot == SLOT_ROUTER || slot == SLOT_SHARED_SWITCH;
}

static int put_weight(void *ctx, const struct record *rec, const void *data, struct err *e)
{
	struct state *s = ctx;
	long layer;
	const enum slot slot = model_slot(s->m, rec->name, &layer);
	struct gguf_rows r = { .name = rec->name, .data = data, .from = rec->dtype };
	char what[160];

	if (begin(s, e))
		return -1;
	/* A vector is a column, so that its values can be permuted. */
	r.rows = (size_t)rec->shape[0];
	r.cols = rec->rank > 1 ? (size_t)rec->shape[1] : 1;
	r.to = always_f32(slot, rec->rank) ? DT_F32 : s->o->dtype ? s->o->dtype : rec->dtype;
	if (put(s, &r, slot, layer, float_type(r.to), e))
		return -1;
	if (slot_in_block(slot) && rec->rank > 1)
		s->linears[float_type(r.to)]++;
	snprintf(what, sizeof(what), "rounded to %s", dtype_name(r.to));
	export_lost(s->x, rec->name, what, r.error, r.norm);
	return 0;
}

static int pass_weight(void *ctx, const struct record *rec, struct stream_in *in, struct err *e)
{
	struct state *s = ctx;
	long layer, i;
	const enum slot slot = model_slot(s->m, rec->name, &layer);
	struct gguf_rows r = { .name = rec->name, .from = rec->dtype };
	uint64_t at;

	if (rec->rank != 2 || always_f32(slot, rec->rank) || head_rows(s, slot) ||
	    (s->o->dtype && s->o->dtype != rec->dtype))
		return 0;
	r.rows = (size_t)rec->shape[0];
	r.cols = (size_t)rec->shape[1];
	if (begin(s, e))
		return -1;
	i = place(s, slot, layer, float_type(rec->dtype), &at, e);
	return i < 0 || gguf_rows_pass(&r, &s->w, i, in, e) || expect(s, &r, e) ? -1 : 1;
}

static int put_file(void *ctx, const char *name, const char *text, size_t n, struct err *e)
{
	struct state *s = ctx;
	const enum tokenizer_file kind = tokenizer_file_kind(name);
	char *copy;

	if (kind == TOKF_COUNT && strcmp(name, TEMPLATE))
		return 0;
	if (s->begun)
		return err_set(e, ERR_DATA, name, "comes behind the first tensor");
	copy = malloc(n + 1);
	if (!copy)
		return err_nomem(e, name, n);
	memcpy(copy, text, n);
	copy[n] = '\0';
	if (kind != TOKF_COUNT)
		return tokenizer_files_put(&s->files, kind, copy, n, e);
	free(s->chat);
	s->chat = copy;
	s->chat_len = n;
	return 0;
}

static int refuse_run(void *ctx, const struct record *rec, struct err *e)
{
	char kind[64] = "?";

	(void)ctx;
	record_get_str(rec, "kind", kind, sizeof(kind));
	return err_set(e, ERR_DATA, rec->name, "what is to be done at run time (%s) is nothing "
		       "that a GGUF file can say", kind);
}

static int end_block(void *ctx, long layer, struct err *e)
{
	struct state *s = ctx;

	(void)layer;
	(void)e;
	for (int i = 0; i < STACKS; i++)
		s->stack[i] = -1;
	return 0;
}

/* ---- the end ---------------------------------------------------------------------------- */

/* qwen2moe has no tied head: the embedding once more, from the file. */
static int copy_head(struct state *s, struct err *e)
{
	enum { PIECE = 1 << 22 };
	const struct gguf_written *t = s->w.t;
	char name[64], embed[64], *buf;
	struct gguf_expected *x = s->v;
	uint64_t from, size;
	int fd, ret = 0;
	long i;

	gguf_export_name(embed, SLOT_EMBED, -1);
	gguf_export_name(name, SLOT_HEAD, -1);
	while (strcmp(t->name, embed))
		t++;
	from = s->w.data + t->offset;
	while (strcmp(x->name, model_row(s->m, SLOT_EMBED)->name))
		x++;
	const struct gguf_rows r = { .name = model_row(s->m, SLOT_HEAD)->name, .rows = x->rows,
				     .cols = x->cols, .hash = { x->hash[0], x->hash[1] } };
	i = gguf_writer_tensor(&s->w, name, t->type, t->rank, t->ne, e);
	buf = malloc(PIECE);
	fd = i < 0 || gguf_writer_sync(&s->w, e) ? -1 :
	     file_open(s->out->temp, s->out->name, &size, e);
	if (fd < 0 || !buf)
		ret = buf ? -1 : err_nomem(e, name, PIECE);
	for (uint64_t at = 0; !ret && at < s->w.t[i].nbytes; at += PIECE) {
		const uint64_t left = s->w.t[i].nbytes - at, n = left < PIECE ? left : PIECE;

		ret = file_pread(fd, buf, n, from + at, s->out->name, e) ||
		      gguf_writer_put(&s->w, i, at, buf, (size_t)n, e) ? -1 : 0;
	}
	if (fd >= 0)
		close(fd);
	free(buf);
	return ret ? ret : expect(s, &r, e);
}

/* general.file_type: by the type that most linears have. */
static uint32_t file_type(const struct state *s)
{
	static const struct {
		uint32_t type, file;
	} of[] = {
		{ GGML_F32, 0 }, { GGML_F16, 1 }, { GGML_Q4_0, 2 }, { GGML_Q4_1, 3 },
		{ GGML_Q8_0, 7 }, { GGML_Q5_0, 8 }, { GGML_Q5_1, 9 }, { GGML_Q4_K, 14 },
		{ GGML_Q6_K, 18 }, { GGML_BF16, 32 },
	};
	uint32_t best = 0;

	for (size_t i = 1; i < sizeof(of) / sizeof(of[0]); i++)
		if (s->linears[of[i].type] > s->linears[of[best].type])
			best = (uint32_t)i;
	return of[best].file;
}

static int finish(struct state *s, struct err *e)
{
	if (s->m->cfg.tied && s->m->cfg.experts && copy_head(s, e))
		return -1;
	if (s->o->type != GGUF_PACK_AUTO && s->packed == 0)
		return err_set(e, ERR_DATA, "", "no codes in the stream, which --type is about; "
			       "put rtn or gptq before to-gguf");
	gguf_change_u32(&s->w, "general.file_type", file_type(s));
	return gguf_writer_end(&s->w, e);
}

static void release(struct state *s)
{
	gguf_writer_release(&s->w);
	gguf_tokens_release(&s->tokens);
	tokenizer_free(s->tok);
	tokenizer_files_release(&s->files);
	free(s->chat);
	free(s->v);
}

int gguf_export(struct output *out, struct stream_in *in, struct export *x,
		const struct gguf_export_options *o, struct err *e)
{
	static const struct export_ops ops = { put_file, put_codes, put_weight, pass_weight,
					       refuse_run, end_block };
	struct state s = { .x = x, .o = o, .m = &x->model, .out = out, .w = { .out = out } };
	int ret;

	x->ops = &ops;
	x->ctx = &s;
	end_block(&s, -1, e);
	ret = gguf_export_arch(&s.arch, s.m, e) || export_read(x, in, e) || finish(&s, e) ? -1 : 0;
	/* The stream's buffers would stand beside those of the reader. */
	item_release(&x->item);
	block_release(&x->block);
	block_init(&x->block, s.m);
	if (!ret)
		ret = gguf_export_check(out->temp, s.m, s.v, s.n, o->pre ? NULL : s.tok,
					pool_threads(o->pool), e);
	release(&s);
	return ret;
}
