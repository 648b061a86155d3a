/* SPDX-License-Identifier: Apache-2.0 */
/*
 * head.c - final norm, projection and head, in slices of rows: never [tokens, vocabulary] at once
 */
#include <stdlib.h>
#include <string.h>

#include "lib/model/device.h"
#include "lib/model/head.h"

#define HEAD_FLOATS ((size_t)8 << 20) /* logits of a slice: 32 MiB */
#define HEAD_ROWS_MIN 32
#define HEAD_ROWS_MAX 1024

struct head {
	const struct model *m;
	struct backend *be;
	struct packed *mat, *project;
	float *norm, *norm_bias, *bias;
	size_t hidden, width, vocab, rows;
	float *stage;            /* host [rows, hidden]: rows to score, gathered */
	float *x, *y, *logits;   /* device [rows, hidden], [rows, width], [rows, vocab] */
};

void head_free(struct head *h)
{
	float *device[6];

	if (h == NULL)
		return;
	memcpy(device, (float *[]){ h->norm, h->norm_bias, h->bias, h->x, h->logits,
				    h->project != NULL ? h->y : NULL }, sizeof(device));
	if (h->mat != NULL)
		h->be->ops->pack_free(h->be, h->mat);
	if (h->project != NULL)
		h->be->ops->pack_free(h->be, h->project);
	for (size_t i = 0; i < sizeof(device) / sizeof(*device); i++)
		if (device[i] != NULL)
			h->be->ops->free(h->be, device[i]);
	free(h->stage);
	free(h);
}

static bool has_norm(const struct model *m)
{
	return !m->cfg.post_norm && !m->cfg.no_final_norm;
}

static int fill_norm(struct head *h, struct ends *n, struct err *e)
{
	struct backend *be = h->be;

	if (!has_norm(h->m))
		return 0;
	if (h->m->cfg.norm_plain)
		return device_constants(be, &h->norm, &h->norm_bias, h->hidden, e);
	if (device_vector(be, &h->norm, ends_item(n, SLOT_NORM_F), h->hidden, e) < 0)
		return -1;
	return !model_has(h->m, SLOT_NORM_F_B, -1) ? 0 :
	       device_vector(be, &h->norm_bias, ends_item(n, SLOT_NORM_F_B), h->hidden, e);
}

static int fill(struct head *h, struct ends *n, struct err *e)
{
	struct backend *be = h->be;
	const enum slot head = h->m->cfg.tied ? SLOT_EMBED : SLOT_HEAD;

	if (fill_norm(h, n, e) < 0 || device_matrix(be, &h->mat, ends_item(n, head), e) < 0 ||
	    (model_has(h->m, SLOT_HEAD_B, -1) &&
	     device_vector(be, &h->bias, ends_item(n, SLOT_HEAD_B), h->vocab, e) < 0) ||
	    (model_has(h->m, SLOT_PROJECT_OUT, -1) &&
	     device_matrix(be, &h->project, ends_item(n, SLOT_PROJECT_OUT), e) < 0))
		return -1;
	h->stage = malloc(h->rows * h->hidden * sizeof(*h->stage));
	if (h->stage == NULL)
		return err_nomem(e, "head", h->rows * h->hidden * sizeof(*h->stage));
	h->x = be->ops->alloc(be, h->rows * h->hidden * sizeof(float), e);
	if (h->x == NULL)
		return -1;
	h->y = h->project == NULL ? h->x : be->ops->alloc(be, h->rows * h->width * sizeof(float),
							  e);
	if (h->y == NULL)
		return -1;
	h->logits = be->ops->alloc(be, h->rows * h->vocab * sizeof(float), e);
	return h->logits != NULL ? 0 : -1;
}

int head_load(struct head **h, const struct model *m, struct backend *be, struct ends *n,
	      struct err *e)
{
	size_t rows;

	*h = calloc(1, sizeof(**h));
	if (*h == NULL)
		return err_nomem(e, "head", sizeof(**h));
	(*h)->m = m;
	(*h)->be = be;
	(*h)->hidden = (size_t)m->cfg.hidden;
	(*h)->width = (size_t)m->cfg.embed_dim;
	(*h)->vocab = (size_t)m->cfg.vocab;
	rows = HEAD_FLOATS / (*h)->vocab;
	rows = rows < HEAD_ROWS_MIN ? HEAD_ROWS_MIN : rows;
	(*h)->rows = rows > HEAD_ROWS_MAX ? HEAD_ROWS_MAX : rows;
	if (fill(*h, n, e) < 0) {
		head_free(*h);
		*h = NULL;
		return -1;
	}
	return 0;
}

size_t head_width(const struct head *h)
{
	return h->width;
}

/* h->y = what the head reads of x [n, hidden] (host), n <= rows. */
static int slice_norm(struct head *h, const float *x, size_t n, struct err *e)
{
	const struct backend_ops *ops = h->be->ops;
	const float eps = (float)h->m->cfg.norm_eps;
	int ret = ops->upload(h->be, h->x, x, n * h->hidden * sizeof(*x), e);

	if (ret == 0 && has_norm(h->m))
		ret = h->m->family->norm == NORM_RMS ?
		      ops->rmsnorm(h->be, h->x, h->x, h->norm, n, h->hidden, eps, e) :
		      ops->layernorm(h->be, h->x, h->x, h->norm, h->norm_bias, n, h->hidden, eps,
				     e);
	if (ret == 0 && h->project != NULL)
		ret = ops->linear(h->be, h->y, h->width, h->x, h->hidden, n, h->project, NULL, 0,
				  e);
	return ret;
}

/* h->logits [n, vocab], on the device, of x [n, hidden] (host). */
static int slice_logits(struct head *h, const float *x, size_t n, struct err *e)
{
	if (slice_norm(h, x, n, e) < 0)
		return -1;
	return h->be->ops->linear(h->be, h->logits, h->vocab, h->y, h->width, n, h->mat, h->bias,
				  0, e);
}

int head_nll(struct head *h, const float *x, size_t n, const int32_t *target, double *nll,
	     struct err *e)
{
	size_t from[HEAD_ROWS_MAX];
	int32_t want[HEAD_ROWS_MAX];
	double got[HEAD_ROWS_MAX];
	size_t i = 0;

	while (i < n) {
		size_t m = 0;

		for (; i < n && m < h->rows; i++) {
			nll[i] = 0;
			if (target[i] < 0)
				continue;
			if ((size_t)target[i] >= h->vocab)
				return err_set(e, ERR_DATA, "token ids",
					       "id %ld is outside the vocabulary of %zu",
					       (long)target[i], h->vocab);
			memcpy(h->stage + m * h->hidden, x + i * h->hidden,
			       h->hidden * sizeof(*x));
			from[m] = i;
			want[m++] = target[i];
		}
		if (m == 0)
			break;
		if (slice_logits(h, h->stage, m, e) < 0 ||
		    h->be->ops->nll(h->be, got, h->logits, m, h->vocab, want, e) < 0)
			return -1;
		for (size_t j = 0; j < m; j++)
			nll[from[j]] = got[j];
	}
	return 0;
}

int head_logits(struct head *h, const float *x, size_t n, float *logits, struct err *e)
{
	for (size_t i = 0; i < n; i += h->rows) {
		const size_t m = h->rows < n - i ? h->rows : n - i;

		if (slice_logits(h, x + i * h->hidden, m, e) < 0 ||
		    h->be->ops->download(h->be, logits + i * h->vocab, h->logits,
					 m * h->vocab * sizeof(*logits), e) < 0)
			return -1;
	}
	return 0;
}

int head_norm(struct head *h, const float *x, size_t n, float *y, struct err *e)
{
	for (size_t i = 0; i < n; i += h->rows) {
		const size_t m = h->rows < n - i ? h->rows : n - i;

		if (slice_norm(h, x + i * h->hidden, m, e) < 0 ||
		    h->be->ops->download(h->be, y + i * h->width, h->y,
					 m * h->width * sizeof(*y), e) < 0)
			return -1;
	}
	return 0;
}

/* argmax(x) == target, the first of equal ones. */
static bool is_top(const float *x, size_t n, size_t target)
{
	bool less = false;

	for (size_t i = 0; i < target; i++)
		less |= !(x[i] < x[target]);
	for (size_t i = target + 1; i < n; i++)
		less |= !(x[i] <= x[target]);
	return !less;
}

int head_top(struct head *h, const float *x, size_t n, const int32_t *target, bool *top,
	     struct err *e)
{
	float *logits = malloc(h->rows * h->vocab * sizeof(*logits));
	int ret = 0;

	if (logits == NULL)
		return err_nomem(e, "head", h->rows * h->vocab * sizeof(*logits));
	for (size_t i = 0; i < n && ret == 0; i += h->rows) {
		const size_t m = h->rows < n - i ? h->rows : n - i;

		ret = head_logits(h, x + i * h->hidden, m, logits, e);
		for (size_t j = 0; j < m && ret == 0; j++)
			top[i + j] = is_top(logits + j * h->vocab, h->vocab,
					    (size_t)target[i + j]);
	}
	free(logits);
	return ret;
}
