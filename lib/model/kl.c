/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kl.c - divergence of a model from another
 */
#include "lib/model/kl_impl.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/pool.h"
#include "lib/model/head.h"

#define SLICE_FLOATS ((size_t)4 << 20) /* logits of a slice and model: 16 MiB */
#define SLICE_ROWS_MIN 16
#define SLICE_ROWS_MAX 1024

/* ---- slices -------------------------------------------------------------------------- */

int kl_slice_init(struct kl_slice *c, const struct ppl_set *s, const struct kl_model *q,
		  const struct kl_model *p, struct err *e)
{
	const size_t wide = p != NULL && p->hidden->width > q->hidden->width ? p->hidden->width :
									      q->hidden->width;
	size_t n = SLICE_FLOATS / q->vocab;

	n = n < SLICE_ROWS_MIN ? SLICE_ROWS_MIN : n > SLICE_ROWS_MAX ? SLICE_ROWS_MAX : n;
	*c = (struct kl_slice){ .s = s, .max = n };
	c->row = malloc(n * sizeof(*c->row));
	c->stage = malloc(n * wide * sizeof(*c->stage));
	c->logits[0] = malloc(n * q->vocab * sizeof(float));
	c->logits[1] = p != NULL ? malloc(n * p->vocab * sizeof(float)) : NULL;
	if (c->row != NULL && c->stage != NULL && c->logits[0] != NULL &&
	    (p == NULL || c->logits[1] != NULL))
		return 0;
	kl_slice_release(c);
	return err_nomem(e, "logits", n * (wide + 2 * q->vocab) * sizeof(float));
}

void kl_slice_release(struct kl_slice *c)
{
	free(c->row);
	free(c->stage);
	free(c->logits[0]);
	free(c->logits[1]);
	memset(c, 0, sizeof(*c));
}

bool kl_slice_next(struct kl_slice *c, size_t max, size_t end)
{
	max = max < c->max ? max : c->max;
	for (c->n = 0; c->next < end && c->n < max; c->next++)
		if (c->s->target[c->next] >= 0)
			c->row[c->n++] = c->next;
	return c->n > 0;
}

int kl_slice_logits(struct kl_slice *c, int which, const struct kl_model *m, struct err *e)
{
	const size_t width = m->hidden->width;
	int64_t bad;

	for (size_t i = 0; i < c->n; i++)
		memcpy(c->stage + i * width, m->hidden->x + c->row[i] * width,
		       width * sizeof(float));
	if (head_logits(m->head, c->stage, c->n, c->logits[which], e) < 0)
		return -1;
	bad = f32_first_nonfinite(c->logits[which], c->n * m->vocab);
	if (bad < 0)
		return 0;
	bad = (int64_t)c->row[(size_t)bad / m->vocab];
	return err_set(e, ERR_DATA, "model", "window %zu, position %zu: the logits are not finite",
		       (size_t)bad / c->s->seqlen, (size_t)bad % c->s->seqlen);
}

/* ---- rows ---------------------------------------------------------------------------- */

size_t kl_argmax(const float *x, size_t n)
{
	size_t best = 0;

	for (size_t i = 1; i < n; i++)
		best = x[i] > x[best] ? i : best;
	return best;
}

double kl_logsumexp(const float *x, size_t n)
{
	const double max = x[kl_argmax(x, n)];
	double sum = 0;

	for (size_t i = 0; i < n; i++)
		sum += exp((double)x[i] - max);
	return max + log(sum);
}

struct full {
	const struct kl_slice *c;
	size_t vocab;
	struct kl_row *rows;
};

static void full_row(void *ctx, size_t i, int thread)
{
	const struct full *j = ctx;
	const float *q = j->c->logits[0] + i * j->vocab, *p = j->c->logits[1] + i * j->vocab;
	const double lq = kl_logsumexp(q, j->vocab), lp = kl_logsumexp(p, j->vocab);
	struct kl_row *r = &j->rows[i];

	(void)thread;
	r->kl = 0;
	for (size_t v = 0; v < j->vocab; v++) {
		const double log_p = (double)p[v] - lp, log_q = (double)q[v] - lq;

		r->kl += exp(log_p) * (log_p - log_q);
	}
	r->nll = lp - (double)p[j->c->s->target[j->c->row[i]]];
	r->agree = kl_argmax(q, j->vocab) == kl_argmax(p, j->vocab);
}

int kl_between(struct kl_result *r, const struct ppl_set *s, const struct kl_model *q,
	       const struct kl_model *p, struct pool *pool, struct err *e)
{
	struct kl_row *rows = malloc(s->scored * sizeof(*rows));
	struct kl_slice c;
	size_t done = 0;
	int ret = 0;

	if (rows == NULL)
		return err_nomem(e, "scores", s->scored * sizeof(*rows));
	if (q->vocab != p->vocab || kl_slice_init(&c, s, q, p, e) < 0) {
		free(rows);
		return q->vocab == p->vocab ? -1 :
		       err_set(e, ERR_DATA, "--kl", "a vocabulary of %zu, the model's has %zu",
			       p->vocab, q->vocab);
	}
	while (ret == 0 && kl_slice_next(&c, SIZE_MAX, s->windows * s->seqlen)) {
		struct full j = { &c, q->vocab, rows + done };

		if (kl_slice_logits(&c, 0, q, e) < 0 || kl_slice_logits(&c, 1, p, e) < 0)
			ret = -1;
		else
			pool_run(pool, c.n, full_row, &j);
		done += c.n;
	}
	kl_slice_release(&c);
	if (ret == 0)
		ret = kl_summary(r, s, rows, e);
	free(rows);
	return ret;
}

/* ---- all rows ------------------------------------------------------------------------ */

static int ascending(const void *a, const void *b)
{
	const double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

/* Linear between the two ranks around. */
static double percentile(const double *sorted, size_t n, double part)
{
	const double at = part * (double)(n - 1);
	const size_t i = (size_t)at;
	const double above = sorted[i + 1 < n ? i + 1 : i];

	return sorted[i] + (at - (double)i) * (above - sorted[i]);
}

int kl_summary(struct kl_result *r, const struct ppl_set *s, const struct kl_row *rows,
	       struct err *e)
{
	const size_t n = s->scored;
	double *kl = malloc(n * sizeof(*kl)), spread = 0;
	size_t agree = 0;

	*r = (struct kl_result){ .positions = n };
	if (kl == NULL)
		return err_nomem(e, "scores", n * sizeof(*kl));
	for (size_t i = 0; i < n; i++) {
		kl[i] = rows[i].kl;
		r->mean += kl[i];
		r->ref_nll += rows[i].nll;
		agree += rows[i].agree;
	}
	r->mean /= (double)n;
	r->ref_nll /= (double)s->units;
	for (size_t i = 0; i < n; i++)
		spread += (kl[i] - r->mean) * (kl[i] - r->mean);
	r->error = n > 1 ? sqrt(spread / (double)(n - 1) / (double)n) : 0;
	r->top1 = (double)agree / (double)n;
	r->top1_error = sqrt(r->top1 * (1 - r->top1) / (double)n);
	qsort(kl, n, sizeof(*kl), ascending);
	r->p99 = percentile(kl, n, 0.99);
	r->max = kl[n - 1];
	free(kl);
	return 0;
}
