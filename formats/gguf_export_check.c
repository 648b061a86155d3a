/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gguf_export_check.c - a GGUF file that was just written, read as any model and compared
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/gguf_export.h"
#include "formats/gguf_model.h"
#include "formats/gguf_rows.h"
#include "formats/gguf_tokens.h"
#include "formats/readers.h"
#include "lib/data/tokenizer.h"
#include "lib/model/rope.h"

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct gguf_expected *)a)->name,
		      ((const struct gguf_expected *)b)->name);
}

static int wrong(const char *name, const char *what, struct err *e)
{
	return err_set(e, ERR_BUG, name, "BUG: read back, it %s", what);
}

static bool near(double a, double b)
{
	return fabs(a - b) <= 1e-5 * fabs(b);
}

static int same_rope(const struct model *a, const struct model *b, struct err *e)
{
	const long n = a->cfg.head_dim / 2;
	double *f = malloc(2 * (size_t)n * sizeof(*f) + 1);
	bool same = true;

	if (!f)
		return err_nomem(e, "rope", 2 * (size_t)n * sizeof(*f));
	rope_frequencies(&a->cfg, f);
	rope_frequencies(&b->cfg, f + n);
	for (long i = 0; i < n; i++)
		same = same && near(f[i], f[i + n]);
	free(f);
	return same ? 0 : wrong("rope", "turns otherwise", e);
}

/* What shapes do not tell.  F32 keeps 7 digits of a number. */
static int same_config(const struct model *a, const struct model *b, struct err *e)
{
	const struct model_config *x = &a->cfg, *y = &b->cfg;

	if (x->layers != y->layers || x->heads != y->heads || x->kv_heads != y->kv_heads ||
	    x->head_dim != y->head_dim || x->experts != y->experts ||
	    x->experts_per_token != y->experts_per_token || x->norm_topk != y->norm_topk ||
	    x->act != y->act || x->qk_norm != y->qk_norm || !near(x->norm_eps, y->norm_eps))
		return wrong("config", "is another", e);
	return same_rope(a, b, e);
}

static int add_piece(void *ctx, const void *p, size_t n, struct err *e)
{
	(void)e;
	gguf_rows_sum_add(ctx, p, n);
	return 0;
}

static int same_tensor(struct gguf_expected *v, size_t n, const struct record *r,
		       struct stream_in *in, struct gguf_rows_sum *sum, struct err *e)
{
	struct gguf_expected key, *x;
	uint64_t hash[2];

	memset(&key, 0, sizeof(key));
	memcpy(key.name, r->name, strnlen(r->name, sizeof(key.name) - 1));
	x = bsearch(&key, v, n, sizeof(*v), by_name);
	if (!x || __atomic_exchange_n(&x->seen, true, __ATOMIC_RELAXED))
		return wrong(r->name, "is there, but was not written", e);
	if (r->nbytes % x->rows)
		return wrong(r->name, "has another shape", e);
	if (gguf_rows_sum_begin(sum, r->name, x->rows, (size_t)r->nbytes / x->rows, e) ||
	    stream_pieces(in, r->nbytes, add_piece, sum, e))
		return -1;
	gguf_rows_sum_end(sum, hash);
	return hash[0] == x->hash[0] && hash[1] == x->hash[1] ? 0 :
	       wrong(r->name, "has other values than the stream", e);
}

struct check {
	const struct model *m;
	struct gguf_expected *v;
	size_t n;
	struct gguf_rows_sum sum[READERS_MAX];
};

static int check_record(void *ctx, struct record *r, struct stream_in *in, int reader,
			struct err *e)
{
	struct check *c = ctx;
	struct model got;

	if (r->type == REC_STREAM)
		return model_from_head(&got, r, e) < 0 || same_config(c->m, &got, e) ? -1 : 0;
	return r->type == REC_TENSOR ? same_tensor(c->v, c->n, r, in, &c->sum[reader], e) : 0;
}

static int check_records(const char *path, struct check *c, int threads, struct err *e)
{
	const struct readers rs = { gguf_model_open, check_record, c };
	int ret = readers_run(&rs, path, threads, e);

	for (int i = 0; i < READERS_MAX; i++)
		gguf_rows_sum_release(&c->sum[i]);
	for (size_t i = 0; !ret && i < c->n; i++)
		if (!c->v[i].seen)
			ret = wrong(c->v[i].name, "is missing", e);
	return ret;
}

/* What the reader says of a file of ours is not the input's fault. */
static int blame(struct err *e)
{
	char where[sizeof(e->where)];

	if (e->cls != ERR_DATA && e->cls != ERR_VERSION && e->cls != ERR_NOINPUT)
		return -1;
	snprintf(where, sizeof(where), "%s", e->where);
	snprintf(e->where, sizeof(e->where), "read back: %.300s", where);
	e->cls = ERR_IO;
	return -1;
}

int gguf_export_check(const char *path, const struct model *m, struct gguf_expected *v, size_t n,
		      const struct tokenizer *t, int threads, struct err *e)
{
	struct check c = { .m = m, .v = v, .n = n };
	struct tokenizer *back = NULL;
	bool same = true;
	int ret;

	qsort(v, n, sizeof(*v), by_name);
	ret = check_records(path, &c, threads, e);
	if (!ret && t) {
		ret = gguf_model_tokenizer(&back, path, e) ||
		      gguf_tokens_same(&same, t, back, e) ? -1 : 0;
		tokenizer_free(back);
	}
	if (!ret && !same)
		ret = wrong("tokenizer", "cuts text otherwise", e);
	return ret ? blame(e) : 0;
}
