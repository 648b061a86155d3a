/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tasks.c - samples to tokens, and tokens to rows of hidden states
 */
#include "lib/model/tasks.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/data/pystr.h"

void tasks_release(struct tasks *t)
{
	free(t->task);
	free(t->sample);
	free(t->request);
	free(t->tree);
	free(t->length);
	free(t->row_id);
	free(t->row_position);
	ids_release(&t->ids);
	memset(t, 0, sizeof(*t));
}

/* Room for one more; the new array, or NULL. */
static void *grow(void *p, size_t n, size_t *cap, size_t size, struct err *e)
{
	const size_t more = *cap == 0 ? 64 : 2 * *cap;
	void *q;

	if (n < *cap)
		return p;
	q = realloc(p, more * size);
	if (q == NULL)
		err_nomem(e, "tasks", more * size);
	else
		*cap = more;
	return q;
}

int tasks_begin(struct tasks *t, const char *name, struct err *e)
{
	struct task *p;

	for (size_t i = 0; i < t->n_task; i++)
		if (strcmp(t->task[i].name, name) == 0)
			return err_set(e, ERR_USAGE, "--task", "'%s' is there twice", name);
	p = grow(t->task, t->n_task, &t->cap_task, sizeof(*p), e);
	if (p == NULL)
		return -1;
	t->task = p;
	p += t->n_task++;
	memset(p, 0, sizeof(*p));
	snprintf(p->name, sizeof(p->name), "%s", name);
	p->first = t->n_sample;
	return 0;
}

/* ---- tokens -------------------------------------------------------------------------- */

static int32_t bos_id(const struct tasks *t)
{
	const int32_t id = tokenizer_prefix_id(t->tok);

	return id >= 0 ? id : (int32_t)t->model->cfg.bos;
}

/* Appended to out, with a first token as the options say. */
static int encode(const struct tasks *t, const char *p, size_t n, struct ids *out, struct err *e)
{
	const size_t before = out->n;
	const int32_t bos = bos_id(t);

	if (t->bos != TASK_BOS_ALWAYS)
		return tokenizer_encode(t->tok, p, n, t->bos == TASK_BOS_AUTO, out, e);
	if (bos < 0)
		return err_set(e, ERR_DATA, "--bos", "the model has no token that begins a text");
	if (tokenizer_encode(t->tok, p, n, true, out, e) < 0)
		return -1;
	if (out->n > before && out->id[before] == bos)
		return 0;
	if (ids_push(out, bos, e) < 0)
		return -1;
	memmove(out->id + before + 1, out->id + before,
		(out->n - 1 - before) * sizeof(*out->id));
	out->id[before] = bos;
	return 0;
}

/* No context: the prefix token is one, unless the continuation begins with it. */
static int encode_alone(struct tasks *t, const char *p, size_t n, size_t *context, struct err *e)
{
	const size_t at = t->ids.n;
	int32_t prefix = bos_id(t);

	prefix = prefix >= 0 ? prefix : (int32_t)t->model->cfg.eos;
	if (prefix < 0)
		return err_set(e, ERR_DATA, "tasks", "an empty context, and the model has no "
			       "token that begins or ends a text");
	*context = 1;
	if (ids_push(&t->ids, prefix, e) < 0 ||
	    tokenizer_encode(t->tok, p, n, false, &t->ids, e) < 0)
		return -1;
	if (t->ids.n > at + 1 && t->ids.id[at + 1] == prefix) {
		memmove(t->ids.id + at, t->ids.id + at + 1,
			(t->ids.n - at - 1) * sizeof(*t->ids.id));
		t->ids.n--;
	}
	return 0;
}

/* Tokens that the context alone and both together begin with, at least one: the context where
 * merges across its end make the two no longer than it alone. */
static size_t agree(const int32_t *context, const int32_t *both, size_t n)
{
	size_t k = 0;

	while (k < n && context[k] == both[k])
		k++;
	return k > 0 ? k : 1;
}

/* Tokens of context and continuation, appended to t->ids; *context: how many are the former's. */
static int encode_pair(struct tasks *t, const struct task_text *context,
		       const struct task_text *continuation, size_t *n, struct err *e)
{
	const size_t at = t->ids.n;
	size_t kept = pystr_trailing(context->p, context->n);
	struct buf whole = { 0 };
	struct ids both = { 0 };
	int ret;

	buf_add(&whole, context->p, context->n);
	buf_add(&whole, continuation->p, continuation->n);
	ret = buf_failed(&whole, "tasks", e);
	if (ret == 0 && kept > 0)
		ret = encode(t, whole.p, kept, &t->ids, e);
	*n = t->ids.n - at;
	if (ret == 0 && *n == 0) {
		ret = encode_alone(t, whole.p, whole.n, n, e);
	} else if (ret == 0) {
		ret = encode(t, whole.p, whole.n, &both, e);
		if (ret == 0 && both.n <= *n)
			*n = agree(t->ids.id + at, both.id, both.n);
		t->ids.n = at + *n;
		for (size_t i = *n; ret == 0 && i < both.n; i++)
			ret = ids_push(&t->ids, both.id[i], e);
	}
	ids_release(&both);
	buf_release(&whole);
	return ret;
}

static int add_request(struct tasks *t, const struct task_query *q, size_t i, struct err *e)
{
	const long positions = t->model->cfg.max_positions;
	const size_t ctx = (size_t)(t->ctx > 0 ? t->ctx : positions);
	struct task_request *r;
	size_t context = 0, all;

	r = grow(t->request, t->n_request, &t->cap_request, sizeof(*r), e);
	if (r == NULL)
		return -1;
	t->request = r;
	r += t->n_request;
	memset(r, 0, sizeof(*r));
	r->at = t->ids.n;
	if (encode_pair(t, &q->context[i], &q->continuation[i], &context, e) < 0)
		return -1;
	all = t->ids.n - r->at;
	if (all <= context)
		return err_set(e, ERR_DATA, "tasks", "continuation %zu has no token of its own",
			       i + 1);
	if (all - context > ctx)
		return err_set(e, ERR_DATA, "tasks", "continuation %zu has %zu tokens, more than "
			       "the %zu that go into the model", i + 1, all - context, ctx);
	if (all > ctx + 1) {
		memmove(t->ids.id + r->at, t->ids.id + r->at + all - (ctx + 1),
			(ctx + 1) * sizeof(*t->ids.id));
		t->ids.n = r->at + ctx + 1;
		t->truncated++;
	}
	r->n = (uint32_t)(t->ids.n - r->at);
	r->scored = (uint32_t)(all - context);
	r->chars = (uint32_t)pystr_length(q->choice[i].p, q->choice[i].n);
	r->bytes = (uint32_t)q->choice[i].n;
	t->n_request++;
	return 0;
}

int tasks_add(struct tasks *t, const struct task_query *q, struct err *e)
{
	struct task *k = &t->task[t->n_task - 1];
	struct task_sample *s;

	if (k->n > 0 && k->kind != q->kind)
		return err_set(e, ERR_DATA, "tasks", "another form than the samples before it");
	k->kind = q->kind;
	s = grow(t->sample, t->n_sample, &t->cap_sample, sizeof(*s), e);
	if (s == NULL)
		return -1;
	t->sample = s;
	s += t->n_sample;
	*s = (struct task_sample){ .first = t->n_request, .n = q->n, .gold = q->gold };
	for (size_t i = 0; i < q->n; i++)
		if (add_request(t, q, i, e) < 0)
			return -1;
	t->n_sample++;
	k->n++;
	return 0;
}

/* ---- rows ---------------------------------------------------------------------------- */

/* Inputs that all requests of s begin with. */
static size_t common(const struct tasks *t, const struct task_sample *s)
{
	const struct task_request *first = &t->request[s->first];
	size_t n = first->n - 1;

	for (size_t i = 1; i < s->n; i++) {
		const struct task_request *r = first + i;
		size_t k = 0;

		n = r->n - 1 < n ? r->n - 1 : n;
		while (k < n && t->ids.id[first->at + k] == t->ids.id[r->at + k])
			k++;
		n = k;
	}
	return n;
}

static void put_rows(struct tasks *t, size_t row, const int32_t *id, size_t position, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		t->row_id[row + i] = id[i];
		t->row_position[row + i] = (int32_t)(position + i);
	}
}

static void lay_tree(struct tasks *t, const struct task_sample *s, size_t *lengths)
{
	struct task_tree *tree = &t->tree[t->n_tree++];
	const size_t stem = common(t, s);

	*tree = (struct task_tree){ .row = t->rows, .stem = stem, .first = *lengths };
	put_rows(t, t->rows, t->ids.id + t->request[s->first].at, 0, stem);
	t->rows += stem;
	for (size_t i = 0; i < s->n; i++) {
		struct task_request *r = &t->request[s->first + i];
		const size_t own = r->n - 1 - stem;

		r->stem = stem;
		r->row = tree->row;
		r->own = t->rows;
		if (own == 0)
			continue;
		put_rows(t, t->rows, t->ids.id + r->at + stem, stem, own);
		t->length[(*lengths)++] = own;
		tree->branches++;
		t->rows += own;
	}
}

int tasks_layout(struct tasks *t, struct err *e)
{
	size_t lengths = 0, most = t->ids.n;

	for (size_t i = 0; i < t->n_task; i++)
		if (t->task[i].n == 0)
			return err_set(e, ERR_DATA, t->task[i].name, "no samples");
	t->row_id = malloc(most * sizeof(*t->row_id));
	t->row_position = malloc(most * sizeof(*t->row_position));
	t->tree = malloc(t->n_sample * sizeof(*t->tree));
	t->length = malloc(t->n_request * sizeof(*t->length));
	if (t->row_id == NULL || t->row_position == NULL || t->tree == NULL || t->length == NULL)
		return err_nomem(e, "tasks", 2 * most * sizeof(*t->row_id));
	for (size_t i = 0; i < t->n_request; i++)
		t->longest = t->request[i].n - 1 > t->longest ? t->request[i].n - 1 : t->longest;
	for (size_t i = 0; i < t->n_sample; i++)
		lay_tree(t, &t->sample[i], &lengths);
	return 0;
}
