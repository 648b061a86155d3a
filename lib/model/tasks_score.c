/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tasks_score.c - from hidden states to log-likelihoods, answers and their means
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "lib/model/head.h"
#include "lib/model/hidden.h"
#include "lib/model/tasks.h"

#define STAGE_ROWS 1024

/* Predictions of some requests, gathered: a row of hidden states and the token it is to have. */
struct stage {
	struct tasks *t;
	struct head *head;
	const struct hidden *h;
	float *x;                     /* [STAGE_ROWS, width] */
	int32_t target[STAGE_ROWS];
	size_t request[STAGE_ROWS], n;
	bool greedy;                  /* the task at hand wants to know */
};

static int flush(struct stage *s, struct err *e)
{
	double nll[STAGE_ROWS];
	bool top[STAGE_ROWS];

	if (s->n == 0)
		return 0;
	if (head_nll(s->head, s->x, s->n, s->target, nll, e) < 0 ||
	    (s->greedy && head_top(s->head, s->x, s->n, s->target, top, e) < 0))
		return -1;
	for (size_t i = 0; i < s->n; i++) {
		struct task_request *r = &s->t->request[s->request[i]];

		r->ll -= nll[i];
		r->greedy = r->greedy && s->greedy && top[i];
	}
	s->n = 0;
	return 0;
}

static int stage_request(struct stage *s, size_t k, struct err *e)
{
	struct task_request *r = &s->t->request[k];
	const size_t width = s->h->width;

	r->ll = 0;
	r->greedy = true;
	for (size_t i = r->n - 1 - r->scored; i + 1 < r->n; i++) {
		const size_t row = i < r->stem ? r->row + i : r->own + (i - r->stem);

		if (s->n == STAGE_ROWS && flush(s, e) < 0)
			return -1;
		memcpy(s->x + s->n * width, s->h->x + row * width, width * sizeof(float));
		s->target[s->n] = s->t->ids.id[r->at + i + 1];
		s->request[s->n++] = k;
	}
	return 0;
}

static int check(const struct tasks *t, const struct task *k, struct err *e)
{
	for (size_t i = k->first; i < k->first + k->n; i++)
		for (size_t j = 0; j < t->sample[i].n; j++)
			if (!isfinite(t->request[t->sample[i].first + j].ll))
				return err_set(e, ERR_DATA, k->name, "sample %zu: the logits are "
					       "not finite", i - k->first + 1);
	return 0;
}

int tasks_score(struct tasks *t, struct head *head, const struct hidden *h, struct err *e)
{
	struct stage s = { .t = t, .head = head, .h = h };
	int ret = 0;

	s.x = malloc(STAGE_ROWS * h->width * sizeof(*s.x));
	if (s.x == NULL)
		return err_nomem(e, "tasks", STAGE_ROWS * h->width * sizeof(*s.x));
	for (size_t k = 0; k < t->n_task && ret == 0; k++) {
		const struct task *task = &t->task[k];

		s.greedy = task->kind == TASK_CLOZE;
		for (size_t i = task->first; i < task->first + task->n; i++)
			for (size_t j = 0; j < t->sample[i].n && ret == 0; j++)
				ret = stage_request(&s, t->sample[i].first + j, e);
		if (ret == 0)
			ret = flush(&s, e);
		if (ret == 0)
			ret = check(t, task, e);
	}
	free(s.x);
	return ret;
}

/* ---- answers ------------------------------------------------------------------------- */

static double per(double ll, uint32_t length)
{
	return ll / (double)length; /* of nothing: -infinity, which wins nothing */
}

struct task_answer task_answer(const struct tasks *t, const struct task *k, size_t sample)
{
	const struct task_sample *s = &t->sample[k->first + sample];
	const struct task_request *r = &t->request[s->first];
	size_t best = 0, norm = 0, bytes = 0;

	if (k->kind == TASK_CLOZE)
		return (struct task_answer){ .acc = r->greedy };
	for (size_t i = 1; i < s->n; i++) {
		best = r[i].ll > r[best].ll ? i : best;
		norm = per(r[i].ll, r[i].chars) > per(r[norm].ll, r[norm].chars) ? i : norm;
		bytes = per(r[i].ll, r[i].bytes) > per(r[bytes].ll, r[bytes].bytes) ? i : bytes;
	}
	return (struct task_answer){ best == s->gold, norm == s->gold, bytes == s->gold };
}

static double proportion(size_t right, size_t n, double *error)
{
	const double p = (double)right / (double)n;

	*error = sqrt(p * (1 - p) / (double)n);
	return p;
}

/* exp(-mean ll) of a cloze task. */
static void perplexity(struct task_result *r, const struct tasks *t, const struct task *k)
{
	const double n = (double)k->n;
	double mean = 0, spread = 0;

	for (size_t i = k->first; i < k->first + k->n; i++)
		mean += t->request[t->sample[i].first].ll / n;
	for (size_t i = k->first; i < k->first + k->n; i++) {
		const double d = t->request[t->sample[i].first].ll - mean;

		spread += d * d;
	}
	r->ppl = exp(-mean);
	r->ppl_error = k->n > 1 ? r->ppl * sqrt(spread / (n - 1) / n) : 0;
}

void task_result(struct task_result *r, const struct tasks *t, const struct task *k)
{
	size_t acc = 0, norm = 0, bytes = 0;

	*r = (struct task_result){ k->n, NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN };
	for (size_t i = 0; i < k->n; i++) {
		const struct task_answer a = task_answer(t, k, i);

		acc += a.acc;
		norm += a.acc_norm;
		bytes += a.acc_bytes;
	}
	r->acc = proportion(acc, k->n, &r->acc_error);
	if (k->kind == TASK_CLOZE)
		perplexity(r, t, k);
	if (k->kind != TASK_CHOICE)
		return;
	r->norm = proportion(norm, k->n, &r->norm_error);
	r->bytes = proportion(bytes, k->n, &r->bytes_error);
}

void task_mean(struct task_result *r, const struct task_result *of, size_t n)
{
	double acc = 0, norm = 0, bytes = 0;

	*r = (struct task_result){ .ppl = NAN, .ppl_error = NAN };
	for (size_t i = 0; i < n; i++) {
		const bool plain = isnan(of[i].norm);
		const double norm_error = plain ? of[i].acc_error : of[i].norm_error;
		const double bytes_error = plain ? of[i].acc_error : of[i].bytes_error;

		r->n += of[i].n;
		r->acc += of[i].acc / (double)n;
		r->norm += (plain ? of[i].acc : of[i].norm) / (double)n;
		r->bytes += (plain ? of[i].acc : of[i].bytes) / (double)n;
		acc += of[i].acc_error * of[i].acc_error;
		norm += norm_error * norm_error;
		bytes += bytes_error * bytes_error;
	}
	r->acc_error = sqrt(acc) / (double)n;
	r->norm_error = sqrt(norm) / (double)n;
	r->bytes_error = sqrt(bytes) / (double)n;
}
