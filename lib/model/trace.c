/* SPDX-License-Identifier: Apache-2.0 */
/*
 * trace.c - hidden states and logits as tensors
 */
#include "lib/model/trace.h"

#include <stdio.h>
#include <stdlib.h>

static int write_rows(struct stream_out *out, const char *name, const float *x, size_t rows,
		      size_t cols, struct err *e)
{
	const int64_t at = f32_first_nonfinite(x, rows * cols);
	struct record r = { .rank = -1 };
	int ret;

	if (at >= 0)
		return err_set(e, ERR_DATA, name, "the value of token %ld, column %ld is not "
			       "finite", (long)at / (long)cols, (long)at % (long)cols);
	record_init(&r, REC_TENSOR, name);
	r.dtype = DT_F32;
	r.rank = 2;
	r.shape[0] = (int64_t)rows;
	r.shape[1] = (int64_t)cols;
	r.nbytes = rows * cols * sizeof(*x);
	ret = stream_write(out, &r, x, e);
	record_clear(&r);
	return ret;
}

static size_t length(const struct trace *t, size_t n)
{
	return t->len != NULL ? t->len[n] : t->run->seqlen;
}

static int write_all(const struct trace *t, const char *what, size_t width, struct err *e)
{
	const float *x = t->run->hidden.x;
	char name[64];

	for (size_t n = 0; n < t->n; x += length(t, n++) * width) {
		snprintf(name, sizeof(name), "hidden.%zu.%s", n, what);
		if (write_rows(t->out, name, x, length(t, n), width, e) < 0)
			return -1;
	}
	return 0;
}

int trace_hidden(const struct trace *t, const char *what, struct err *e)
{
	return write_all(t, what, t->run->hidden.width, e);
}

int trace_logits(const struct trace *t, struct head *head, struct err *e)
{
	const size_t d = t->run->hidden.width, vocab = (size_t)t->run->model.cfg.vocab;
	const float *x = t->run->hidden.x;
	float *logits = malloc(t->run->seqlen * vocab * sizeof(*logits));
	char name[32];
	int ret = 0;

	if (logits == NULL)
		return err_nomem(e, "logits", t->run->seqlen * vocab * sizeof(*logits));
	for (size_t n = 0; ret == 0 && n < t->n; x += length(t, n++) * d) {
		const size_t rows = t->run->model.family->images ? 1 : length(t, n);

		snprintf(name, sizeof(name), "logits.%zu", n);
		ret = head_logits(head, x, rows, logits, e);
		if (ret == 0)
			ret = write_rows(t->out, name, logits, rows, vocab, e);
	}
	free(logits);
	return ret;
}

int trace_norm(const struct trace *t, struct head *head, struct err *e)
{
	float *x = t->run->hidden.x;

	if (head_width(head) > t->run->hidden.width)
		return err_set(e, ERR_DATA, "model", "the head reads wider rows than the blocks "
			       "make");
	return head_norm(head, x, t->run->hidden.tokens, x, e) < 0 ? -1 :
	       write_all(t, "norm", head_width(head), e);
}
