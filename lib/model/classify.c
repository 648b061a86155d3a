/* SPDX-License-Identifier: Apache-2.0 */
/*
 * classify.c - logits of images to ranks of their labels, and these to figures
 */
#include "lib/model/classify.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "lib/data/dtype.h"
#include "lib/data/value.h"

#define WHERE "images"

int classify_init(struct classify *c, const int32_t *label, size_t n, size_t classes,
		  struct err *e)
{
	*c = (struct classify){ .n = n, .classes = classes, .label = label };
	c->rank = calloc(n, sizeof(*c->rank));
	c->first = calloc(n, CLASSIFY_TOP * sizeof(*c->first));
	c->nll = calloc(n, sizeof(*c->nll));
	if (c->rank && c->first && c->nll)
		return 0;
	classify_release(c);
	return err_nomem(e, WHERE, n * (sizeof(*c->rank) + CLASSIFY_TOP * sizeof(*c->first) +
					sizeof(*c->nll)));
}

void classify_release(struct classify *c)
{
	free(c->rank);
	free(c->first);
	free(c->nll);
	memset(c, 0, sizeof(*c));
}

/* Does class a come before class b? */
static bool before(const float *x, size_t a, size_t b)
{
	return x[a] > x[b] || (x[a] == x[b] && a < b);
}

static int32_t rank_of(const float *x, size_t classes, size_t label)
{
	int32_t rank = 0;

	for (size_t i = 0; i < classes; i++)
		rank += before(x, i, label);
	return rank;
}

/* Each class in turn finds its place among the first so far. */
static void first_of(const float *x, size_t classes, int32_t *first)
{
	for (size_t i = 0; i < CLASSIFY_TOP; i++)
		first[i] = -1;
	for (size_t i = 0; i < classes; i++) {
		size_t at = CLASSIFY_TOP;

		while (at > 0 && (first[at - 1] < 0 || before(x, i, (size_t)first[at - 1])))
			at--;
		if (at == CLASSIFY_TOP)
			continue;
		memmove(first + at + 1, first + at, (CLASSIFY_TOP - 1 - at) * sizeof(*first));
		first[at] = (int32_t)i;
	}
}

static double nll_of(const float *x, size_t classes, size_t label, float largest)
{
	double sum = 0;

	for (size_t i = 0; i < classes; i++)
		sum += exp((double)x[i] - largest);
	return log(sum) - ((double)x[label] - largest);
}

int classify_logits(struct classify *c, size_t begin, size_t count, const float *logits,
		    struct err *e)
{
	for (size_t i = 0; i < count; i++) {
		const float *x = logits + i * c->classes;
		const int64_t bad = f32_first_nonfinite(x, c->classes);
		const size_t at = begin + i, label = (size_t)c->label[at];
		int32_t *first = c->first + at * CLASSIFY_TOP;

		if (bad >= 0)
			return err_set(e, ERR_DATA, WHERE, "image %zu: the logit of class %lld is "
				       "not finite", at, (long long)bad);
		c->rank[at] = rank_of(x, c->classes, label);
		first_of(x, c->classes, first);
		c->nll[at] = nll_of(x, c->classes, label, x[first[0]]);
	}
	return 0;
}

/* ---- figures ----------------------------------------------------------------------------- */

void classify_result(struct classify_result *r, const struct classify *c)
{
	const double n = (double)c->n;
	size_t five = 0;

	*r = (struct classify_result){ .n = c->n };
	for (size_t i = 0; i < c->n; i++) {
		r->right += c->rank[i] == 0;
		five += c->rank[i] < CLASSIFY_TOP;
		r->nll += c->nll[i];
	}
	r->top1 = (double)r->right / n;
	r->top1_error = sqrt(r->top1 * (1 - r->top1) / n);
	r->top5 = (double)five / n;
	r->top5_error = sqrt(r->top5 * (1 - r->top5) / n);
	r->nll /= n;
}

int classify_table(struct buf *out, const struct classify *c, const char *name, struct err *e)
{
	const int width = strlen(name) > 4 ? (int)strlen(name) : 4;
	struct classify_result r;

	classify_result(&r, c);
	buf_printf(out, "%-*s %7s  %9s %9s  %9s\n", width, "task", "samples", "top1", "", "top5");
	buf_printf(out, "%-*s %7zu  %9.4f +-%7.4f  %9.4f +-%7.4f\n", width, name, r.n, r.top1,
		   r.top1_error, r.top5, r.top5_error);
	return buf_failed(out, WHERE, e);
}

int classify_json(struct buf *out, const struct classify *c, const char *name, struct err *e)
{
	struct classify_result r;

	classify_result(&r, c);
	buf_puts(out, "{\"tasks\": {");
	value_quote_json(out, name, strlen(name));
	buf_printf(out, ": {\"samples\": %zu, \"right\": %zu, \"top1\": %.10g, "
		   "\"top1_stderr\": %.10g, \"top5\": %.10g, \"top5_stderr\": %.10g, "
		   "\"nll\": %.10g}}, \"classes\": %zu}\n", r.n, r.right, r.top1, r.top1_error,
		   r.top5, r.top5_error, r.nll, c->classes);
	return buf_failed(out, WHERE, e);
}

int classify_log(struct buf *out, const struct classify *c, const char *name, struct err *e)
{
	for (size_t i = 0; i < c->n; i++) {
		buf_puts(out, "{\"task\": ");
		value_quote_json(out, name, strlen(name));
		buf_printf(out, ", \"sample\": %zu, \"gold\": %d, \"acc\": %d, \"acc_top5\": %d, "
			   "\"ll\": %.12g, \"first\": [", i, (int)c->label[i], c->rank[i] == 0,
			   c->rank[i] < CLASSIFY_TOP, -c->nll[i]);
		for (size_t k = 0; k < CLASSIFY_TOP; k++)
			if (c->first[i * CLASSIFY_TOP + k] >= 0)
				buf_printf(out, "%s%d", k ? "," : "",
					   (int)c->first[i * CLASSIFY_TOP + k]);
		buf_puts(out, "]}\n");
	}
	return buf_failed(out, WHERE, e);
}
