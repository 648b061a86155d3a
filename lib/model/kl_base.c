/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kl_base.c - a reference's most likely tokens in a stream (man 5 quantpipe-stream)
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/pool.h"
#include "lib/data/stream.h"
#include "lib/model/kl_impl.h"

/* The tensors of a window of n scored positions. */
struct tops {
	int32_t *id;  /* [n, top], the most likely first */
	float *logp;  /* [n, top] */
	float *rest;  /* [n] mass of all others */
	float *nll;   /* [n] of the target */
	size_t n, top;
};

static void tops_release(struct tops *t)
{
	free(t->id);
	free(t->logp);
	free(t->rest);
	free(t->nll);
}

static int tops_init(struct tops *t, size_t n, size_t top, struct err *e)
{
	*t = (struct tops){ .n = n, .top = top };
	t->id = malloc(n * top * sizeof(*t->id));
	t->logp = malloc(n * top * sizeof(*t->logp));
	t->rest = malloc(n * sizeof(*t->rest));
	t->nll = malloc(n * sizeof(*t->nll));
	if (t->id != NULL && t->logp != NULL && t->rest != NULL && t->nll != NULL)
		return 0;
	tops_release(t);
	return err_nomem(e, "base", n * (top + 1) * 8);
}

static size_t scored(const struct ppl_set *s, size_t window)
{
	size_t n = 0;

	for (size_t i = 0; i < s->seqlen; i++)
		n += s->target[window * s->seqlen + i] >= 0;
	return n;
}

/* ---- header -------------------------------------------------------------------------- */

int kl_base_head(struct record *head, size_t top, size_t vocab, const char *fingerprint,
		 struct err *e)
{
	if (record_set_int(head, "top", (int64_t)top) < 0 ||
	    record_set_int(head, "vocab", (int64_t)vocab) < 0 ||
	    record_set_str(head, "tokenizer", fingerprint) < 0)
		return err_nomem(e, "base", 64);
	return 0;
}

int kl_base_is(const struct record *head)
{
	int64_t top;

	return record_get_int(head, "top", &top) == 1;
}

/* ---- writing ------------------------------------------------------------------------- */

struct saving {
	const struct kl_slice *c;
	size_t vocab;
	struct tops *t;
	size_t at; /* of the window's positions, the first of the slice */
};

/* a is less likely than b, or equally and of a larger id: what falls out first. */
static bool below(const float *x, int32_t a, int32_t b)
{
	return x[a] < x[b] || (x[a] == x[b] && a > b);
}

/* Restore the heap of n ids, the least likely at its top, from place i down. */
static void sift(const float *x, int32_t *id, size_t n, size_t i)
{
	for (;;) {
		size_t least = i;

		for (size_t k = 2 * i + 1; k <= 2 * i + 2 && k < n; k++)
			least = below(x, id[k], id[least]) ? k : least;
		if (least == i)
			return;
		const int32_t t = id[i];

		id[i] = id[least];
		id[least] = t;
		i = least;
	}
}

/* id [top]: the most likely of x [n], in order. */
static void select_top(const float *x, size_t n, int32_t *id, size_t top)
{
	for (size_t i = 0; i < top; i++)
		id[i] = (int32_t)i;
	for (size_t i = top; i-- > 0;)
		sift(x, id, top, i);
	for (size_t i = top; i < n; i++)
		if (below(x, id[0], (int32_t)i)) {
			id[0] = (int32_t)i;
			sift(x, id, top, 0);
		}
	for (size_t left = top; left > 1;) {
		const int32_t t = id[0];

		left--;
		id[0] = id[left];
		id[left] = t;
		sift(x, id, left, 0);
	}
}

/* Mass of all tokens but those of id; the logits of these are lost. */
static double rest_of(float *x, size_t n, const int32_t *id, size_t top, double lse)
{
	double sum = 0;

	for (size_t k = 0; k < top; k++)
		x[id[k]] = -INFINITY;
	for (size_t i = 0; i < n && top < n; i++)
		sum += exp((double)x[i] - lse);
	return sum;
}

static void save_row(void *ctx, size_t i, int thread)
{
	const struct saving *j = ctx;
	float *x = j->c->logits[0] + i * j->vocab;
	struct tops *t = j->t;
	const size_t at = j->at + i;
	int32_t *id = t->id + at * t->top;
	const double lse = kl_logsumexp(x, j->vocab);

	(void)thread;
	t->nll[at] = (float)(lse - (double)x[j->c->s->target[j->c->row[i]]]);
	select_top(x, j->vocab, id, t->top);
	for (size_t k = 0; k < t->top; k++)
		t->logp[at * t->top + k] = (float)((double)x[id[k]] - lse);
	t->rest[at] = (float)rest_of(x, j->vocab, id, t->top, lse);
}

static int put(struct stream_out *out, struct kl_saved *what, const char *name, enum dtype type,
	       size_t rows, size_t cols, const void *data, struct err *e)
{
	struct record r = { .rank = -1 };
	int ret;

	record_init(&r, REC_TENSOR, name);
	r.dtype = type;
	r.rank = cols > 0 ? 2 : 1;
	r.shape[0] = (int64_t)rows;
	r.shape[1] = (int64_t)cols;
	r.nbytes = rows * (cols > 0 ? cols : 1) * 4;
	what->bytes += r.nbytes;
	ret = stream_write(out, &r, data, e);
	record_clear(&r);
	return ret;
}

static int put_window(struct stream_out *out, struct kl_saved *what, size_t w,
		      const struct tops *t, struct err *e)
{
	char name[4][48];

	snprintf(name[0], sizeof(name[0]), "top.%zu.ids", w);
	snprintf(name[1], sizeof(name[1]), "top.%zu.logp", w);
	snprintf(name[2], sizeof(name[2]), "top.%zu.rest", w);
	snprintf(name[3], sizeof(name[3]), "top.%zu.nll", w);
	for (size_t i = 0; i < t->n; i++) {
		what->rest += (double)t->rest[i];
		what->rest_max = fmax(what->rest_max, (double)t->rest[i]);
	}
	what->positions += t->n;
	if (put(out, what, name[0], DT_I32, t->n, t->top, t->id, e) < 0 ||
	    put(out, what, name[1], DT_F32, t->n, t->top, t->logp, e) < 0 ||
	    put(out, what, name[2], DT_F32, t->n, 0, t->rest, e) < 0)
		return -1;
	return put(out, what, name[3], DT_F32, t->n, 0, t->nll, e);
}

static int save_window(struct stream_out *out, struct kl_saved *what, struct kl_slice *c,
		       const struct kl_model *p, size_t w, struct pool *pool, struct err *e)
{
	struct tops t;
	int ret = 0;

	if (tops_init(&t, scored(c->s, w), what->top, e) < 0)
		return -1;
	for (size_t at = 0; ret == 0 && kl_slice_next(c, SIZE_MAX, (w + 1) * c->s->seqlen);
	     at += c->n) {
		struct saving j = { c, p->vocab, &t, at };

		ret = kl_slice_logits(c, 0, p, e);
		if (ret == 0)
			pool_run(pool, c->n, save_row, &j);
	}
	if (ret == 0 && t.n > 0)
		ret = put_window(out, what, w, &t, e);
	tops_release(&t);
	return ret;
}

int kl_base_save(struct kl_saved *what, struct stream_out *out, const struct ppl_set *s,
		 const struct kl_model *p, size_t top, struct pool *pool, struct err *e)
{
	struct kl_slice c;
	int ret;

	*what = (struct kl_saved){ .top = top };
	if (put(out, what, "tokens", DT_I32, s->windows, s->seqlen, s->ids, e) < 0 ||
	    put(out, what, "targets", DT_I32, s->windows, s->seqlen, s->target, e) < 0 ||
	    kl_slice_init(&c, s, p, NULL, e) < 0)
		return -1;
	ret = 0;
	for (size_t w = 0; w < s->windows && ret == 0; w++)
		ret = save_window(out, what, &c, p, w, pool, e);
	kl_slice_release(&c);
	what->rest /= what->positions > 0 ? (double)what->positions : 1;
	return ret;
}

/* ---- reading ------------------------------------------------------------------------- */

struct comparing {
	const struct kl_slice *c;
	size_t vocab, at;
	const struct tops *t;
	struct kl_row *rows;
};

static void base_row(void *ctx, size_t i, int thread)
{
	const struct comparing *j = ctx;
	float *q = j->c->logits[0] + i * j->vocab;
	const struct tops *t = j->t;
	const size_t at = j->at + i;
	const int32_t *id = t->id + at * t->top;
	const double lse = kl_logsumexp(q, j->vocab), rest = (double)t->rest[at];
	struct kl_row *r = &j->rows[i];

	(void)thread;
	r->nll = (double)t->nll[at];
	r->agree = kl_argmax(q, j->vocab) == (size_t)id[0];
	r->kl = 0;
	for (size_t k = 0; k < t->top; k++) {
		const double log_p = (double)t->logp[at * t->top + k];

		r->kl += exp(log_p) * (log_p - ((double)q[id[k]] - lse));
	}
	if (rest > 0) {
		/* not the sum of their probabilities, which may be too small for a double */
		for (size_t k = 0; k < t->top; k++)
			q[id[k]] = -INFINITY;
		r->kl += rest * (log(rest) - (kl_logsumexp(q, j->vocab) - lse));
	}
}

/* The next record must be the tensor `name` of rows x cols elements of 4 bytes. */
static int take(struct stream_in *in, const char *name, enum dtype type, size_t rows, size_t cols,
		void *dst, struct err *e)
{
	struct record r = { .rank = -1 };
	int got = stream_next(in, &r, e);

	if (got == 0)
		got = err_set(e, ERR_DATA, "--kl", "the base ends before %s", name);
	else if (got > 0 && r.type == REC_TENSOR && strcmp(name, "tokens") == 0 &&
		 strcmp(r.name, name) == 0 && r.rank == 2 &&
		 (r.shape[0] != (int64_t)rows || r.shape[1] != (int64_t)cols))
		got = err_set(e, ERR_DATA, "--kl", "the base has %lld windows of %lld tokens, this "
			      "run %zu of %zu: --ctx, --windows, --dialect and the text must be "
			      "the same", (long long)r.shape[0], (long long)r.shape[1], rows, cols);
	else if (got > 0 && (r.type != REC_TENSOR || strcmp(r.name, name) != 0 ||
			     r.dtype != type || r.nbytes != rows * (cols > 0 ? cols : 1) * 4))
		got = err_set(e, ERR_DATA, "--kl", "the base is of another text, window length "
			      "or dialect: %s where %s of %zu rows was expected",
			      r.name[0] != '\0' ? r.name : "a record", name, rows);
	else if (got > 0)
		got = stream_payload(in, dst, e);
	record_clear(&r);
	return got < 0 ? -1 : 0;
}

/* Distinct tokens of the vocabulary in each row; seen [vocab] is ours. */
static int check_ids(const struct tops *t, const char *name, size_t *seen, size_t vocab,
		     struct err *e)
{
	memset(seen, 0, vocab * sizeof(*seen));
	for (size_t i = 0; i < t->n * t->top; i++) {
		const size_t row = i / t->top;
		const int32_t id = t->id[i];

		if (id < 0 || (size_t)id >= vocab)
			return err_set(e, ERR_DATA, name, "row %zu: id %ld is outside the "
				       "vocabulary of %zu", row, (long)id, vocab);
		if (seen[id] == row + 1)
			return err_set(e, ERR_DATA, name, "row %zu: id %ld is there twice", row,
				       (long)id);
		seen[id] = row + 1;
	}
	return 0;
}

/* Logarithms of probabilities, the most likely first. */
static int check_logp(const struct tops *t, const char *name, struct err *e)
{
	for (size_t i = 0; i < t->n * t->top; i++) {
		const double v = (double)t->logp[i];

		if (!isfinite(v) || v > 0)
			return err_set(e, ERR_DATA, name, "row %zu: %g is not the logarithm of a "
				       "probability", i / t->top, v);
		if (i % t->top > 0 && t->logp[i] > t->logp[i - 1])
			return err_set(e, ERR_DATA, name, "row %zu: the most likely do not come "
				       "first", i / t->top);
	}
	return 0;
}

/* What a row's tops leave of 1, but for rounding to F32. */
static int check_rest(const struct tops *t, const char *name, size_t vocab, struct err *e)
{
	for (size_t i = 0; i < t->n; i++) {
		const double rest = (double)t->rest[i];
		double sum = 0;

		if (!(rest >= 0 && rest <= (t->top < vocab ? 1 : 0)))
			return err_set(e, ERR_DATA, name, "row %zu: %g is not the probability of "
				       "all others", i, rest);
		for (size_t k = 0; k < t->top; k++)
			sum += exp((double)t->logp[i * t->top + k]);
		if (fabs(sum + rest - 1) > 1e-4)
			return err_set(e, ERR_DATA, name, "row %zu: %g and the %g of its tops do "
				       "not sum to 1", i, rest, sum);
	}
	return 0;
}

static int check_nll(const struct tops *t, const char *name, struct err *e)
{
	for (size_t i = 0; i < t->n; i++)
		if (!isfinite((double)t->nll[i]) || t->nll[i] < 0)
			return err_set(e, ERR_DATA, name, "row %zu: %g is not the negative "
				       "logarithm of a probability", i, (double)t->nll[i]);
	return 0;
}

/* seen [vocab] is for check_ids. */
static int take_window(struct stream_in *in, size_t w, struct tops *t, size_t *seen, size_t vocab,
		       struct err *e)
{
	char name[48];

	snprintf(name, sizeof(name), "top.%zu.ids", w);
	if (take(in, name, DT_I32, t->n, t->top, t->id, e) < 0 ||
	    check_ids(t, name, seen, vocab, e) < 0)
		return -1;
	snprintf(name, sizeof(name), "top.%zu.logp", w);
	if (take(in, name, DT_F32, t->n, t->top, t->logp, e) < 0 || check_logp(t, name, e) < 0)
		return -1;
	snprintf(name, sizeof(name), "top.%zu.rest", w);
	if (take(in, name, DT_F32, t->n, 0, t->rest, e) < 0 || check_rest(t, name, vocab, e) < 0)
		return -1;
	snprintf(name, sizeof(name), "top.%zu.nll", w);
	return take(in, name, DT_F32, t->n, 0, t->nll, e) < 0 ? -1 : check_nll(t, name, e);
}

/* The base's windows must be ours. */
static int check_windows(struct stream_in *in, const struct ppl_set *s, struct err *e)
{
	const char *const names[] = { "tokens", "targets" };
	const int32_t *const ours[] = { s->ids, s->target };
	const size_t n = s->windows * s->seqlen;
	int32_t *theirs = malloc(n * sizeof(*theirs));
	int ret = theirs != NULL ? 0 : err_nomem(e, "base", n * sizeof(*theirs));

	for (int i = 0; i < 2 && ret == 0; i++) {
		ret = take(in, names[i], DT_I32, s->windows, s->seqlen, theirs, e);
		if (ret == 0 && memcmp(theirs, ours[i], n * sizeof(*theirs)) != 0)
			ret = err_set(e, ERR_DATA, "--kl", "the base is of another text, or of "
				      "one tokenized otherwise (%s differ)", names[i]);
	}
	free(theirs);
	return ret;
}

static int compare_window(struct kl_row *rows, struct kl_slice *c, const struct kl_model *q,
			  struct stream_in *in, size_t w, struct tops *t, size_t *seen,
			  struct pool *pool, struct err *e)
{
	int ret = t->n > 0 ? take_window(in, w, t, seen, q->vocab, e) : 0;

	for (size_t at = 0; ret == 0 && kl_slice_next(c, SIZE_MAX, (w + 1) * c->s->seqlen);
	     at += c->n) {
		struct comparing j = { c, q->vocab, at, t, rows + at };

		ret = kl_slice_logits(c, 0, q, e);
		if (ret == 0)
			pool_run(pool, c->n, base_row, &j);
	}
	return ret;
}

static int compare_windows(struct kl_row *rows, const struct ppl_set *s, const struct kl_model *q,
			   struct stream_in *in, size_t top, struct pool *pool, double *rest,
			   struct err *e)
{
	struct kl_slice c;
	struct tops t;
	size_t *seen, done = 0;
	int ret = 0;

	if (kl_slice_init(&c, s, q, NULL, e) < 0)
		return -1;
	seen = malloc(q->vocab * sizeof(*seen));
	if (seen == NULL)
		ret = err_nomem(e, "base", q->vocab * sizeof(*seen));
	for (size_t w = 0; w < s->windows && ret == 0; w++) {
		ret = tops_init(&t, scored(s, w), top, e);
		if (ret < 0)
			break;
		ret = compare_window(rows + done, &c, q, in, w, &t, seen, pool, e);
		for (size_t i = 0; i < t.n && ret == 0; i++)
			*rest += (double)t.rest[i];
		done += t.n;
		tops_release(&t);
	}
	free(seen);
	kl_slice_release(&c);
	return ret;
}

int kl_base_open(struct stream_in *in, const struct record *head, const struct ppl_set *s,
		 size_t vocab, size_t *top, struct err *e)
{
	int64_t k = 0, theirs = 0;

	if (record_get_int(head, "top", &k) != 1 || record_get_int(head, "vocab", &theirs) != 1 ||
	    k < 1 || k > theirs)
		return err_set(e, ERR_DATA, "--kl", "not a base: its header lacks top and vocab");
	if ((size_t)theirs != vocab)
		return err_set(e, ERR_DATA, "--kl", "a vocabulary of %lld, the model's has %zu",
			       (long long)theirs, vocab);
	*top = (size_t)k;
	return check_windows(in, s, e);
}

int kl_against_base(struct kl_result *r, const struct ppl_set *s, const struct kl_model *q,
		    struct stream_in *in, size_t top, struct pool *pool, struct err *e)
{
	struct record end = { .rank = -1 };
	struct kl_row *rows;
	double rest = 0;
	int ret;

	rows = malloc(s->scored * sizeof(*rows));
	if (rows == NULL)
		return err_nomem(e, "scores", s->scored * sizeof(*rows));
	ret = compare_windows(rows, s, q, in, top, pool, &rest, e);
	while (ret == 0 && (ret = stream_next(in, &end, e)) > 0)
		ret = end.type != REC_TENSOR ? 0 : err_set(e, ERR_DATA, "--kl", "the base has "
							   "more windows: %s", end.name);
	if (ret == 0)
		ret = kl_summary(r, s, rows, e);
	r->rest = ret == 0 ? rest / (double)s->scored : 0;
	record_clear(&end);
	free(rows);
	return ret;
}
