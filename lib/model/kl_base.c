/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kl_base.c - a reference's most likely tokens in a stream (man 5 quantpipe-stream)
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/pool.h"
#include "lib/data/rng.h"
#include "lib/data/stream.h"
#include "lib/model/kl_impl.h"

/* The tensors of a window of n scored positions. */
struct tops {
	int32_t *id;  /* [n, top], the most likely first */
	float *logp;  /* [n, top] */
	float *rest;  /* [n] mass of all others */
	float *nll;   /* [n] of the target */
	int32_t *drawn;     /* [n, drawn] of the others */
	float *drawn_logp;
	size_t n;
	struct kl_keep keep;
};

static void tops_release(struct tops *t)
{
	free(t->id);
	free(t->logp);
	free(t->rest);
	free(t->nll);
	free(t->drawn);
	free(t->drawn_logp);
}

static int tops_init(struct tops *t, size_t n, struct kl_keep keep, struct err *e)
{
	const size_t top = keep.top, drawn = n * keep.drawn + 1;

	*t = (struct tops){ .n = n, .keep = keep };
	t->id = malloc(n * top * sizeof(*t->id));
	t->logp = malloc(n * top * sizeof(*t->logp));
	t->rest = malloc(n * sizeof(*t->rest));
	t->nll = malloc(n * sizeof(*t->nll));
	t->drawn = malloc(drawn * sizeof(*t->drawn));
	t->drawn_logp = malloc(drawn * sizeof(*t->drawn_logp));
	if (t->id != NULL && t->logp != NULL && t->rest != NULL && t->nll != NULL &&
	    t->drawn != NULL && t->drawn_logp != NULL)
		return 0;
	tops_release(t);
	return err_nomem(e, "base", n * (top + keep.drawn + 1) * 8);
}

static size_t scored(const struct ppl_set *s, size_t window)
{
	size_t n = 0;

	for (size_t i = 0; i < s->seqlen; i++)
		n += s->target[window * s->seqlen + i] >= 0;
	return n;
}

/* ---- header -------------------------------------------------------------------------- */

int kl_base_head(struct record *head, struct kl_keep keep, size_t vocab, const char *fingerprint,
		 struct err *e)
{
	if (record_set_int(head, "top", (int64_t)keep.top) < 0 ||
	    (keep.drawn > 0 && record_set_int(head, "drawn", (int64_t)keep.drawn) < 0) ||
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

/* Ids of tokens of x [n], whose tops are -inf: at even distances of cumulative mass, which is
 * `rest` in all. */
static void draw(const float *x, size_t n, double lse, double rest, uint64_t seed, int32_t *id,
		 size_t count)
{
	const double step = rest / (double)count;
	double sum = 0, next = (double)(splitmix64(&seed) >> 11) * 0x1p-53 * step;
	size_t done = 0;
	int32_t last = 0;

	for (size_t i = 0; i < n && done < count; i++) {
		if (x[i] == -INFINITY)
			continue;
		last = (int32_t)i;
		for (sum += exp((double)x[i] - lse); sum > next && done < count; next += step)
			id[done++] = last;
	}
	while (done < count) /* a mass of 0 */
		id[done++] = last;
}

static void save_row(void *ctx, size_t i, int thread)
{
	const struct saving *j = ctx;
	float *x = j->c->logits[0] + i * j->vocab;
	struct tops *t = j->t;
	const size_t at = j->at + i;
	const size_t top = t->keep.top, drawn = t->keep.drawn;
	int32_t *id = t->id + at * top, *others = t->drawn + at * drawn;
	const double lse = kl_logsumexp(x, j->vocab);
	double rest;

	(void)thread;
	t->nll[at] = (float)(lse - (double)x[j->c->s->target[j->c->row[i]]]);
	select_top(x, j->vocab, id, top);
	for (size_t k = 0; k < top; k++)
		t->logp[at * top + k] = (float)((double)x[id[k]] - lse);
	rest = rest_of(x, j->vocab, id, top, lse);
	t->rest[at] = (float)rest;
	if (drawn > 0)
		draw(x, j->vocab, lse, rest, j->c->row[i], others, drawn);
	for (size_t k = 0; k < drawn; k++)
		t->drawn_logp[at * drawn + k] = (float)((double)x[others[k]] - lse);
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
	const struct kl_keep keep = t->keep;
	char name[6][48];

	snprintf(name[0], sizeof(name[0]), "top.%zu.ids", w);
	snprintf(name[1], sizeof(name[1]), "top.%zu.logp", w);
	snprintf(name[2], sizeof(name[2]), "top.%zu.rest", w);
	snprintf(name[3], sizeof(name[3]), "top.%zu.nll", w);
	snprintf(name[4], sizeof(name[4]), "top.%zu.drawn", w);
	snprintf(name[5], sizeof(name[5]), "top.%zu.drawn_logp", w);
	for (size_t i = 0; i < t->n; i++) {
		what->rest += (double)t->rest[i];
		what->rest_max = fmax(what->rest_max, (double)t->rest[i]);
	}
	what->positions += t->n;
	if (put(out, what, name[0], DT_I32, t->n, keep.top, t->id, e) < 0 ||
	    put(out, what, name[1], DT_F32, t->n, keep.top, t->logp, e) < 0 ||
	    put(out, what, name[2], DT_F32, t->n, 0, t->rest, e) < 0 ||
	    put(out, what, name[3], DT_F32, t->n, 0, t->nll, e) < 0)
		return -1;
	if (keep.drawn == 0)
		return 0;
	return put(out, what, name[4], DT_I32, t->n, keep.drawn, t->drawn, e) < 0 ? -1 :
	       put(out, what, name[5], DT_F32, t->n, keep.drawn, t->drawn_logp, e);
}

static int save_window(struct stream_out *out, struct kl_saved *what, struct kl_slice *c,
		       const struct kl_model *p, size_t w, struct pool *pool, struct err *e)
{
	struct tops t;
	int ret = 0;

	if (tops_init(&t, scored(c->s, w), what->keep, e) < 0)
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
		 const struct kl_model *p, struct kl_keep keep, struct pool *pool, struct err *e)
{
	struct kl_slice c;
	int ret;

	*what = (struct kl_saved){ .keep = keep };
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

/* What the others add, of which each drawn one stands for the same mass. */
static double drawn_part(const struct tops *t, size_t at, const float *q, double lse)
{
	const size_t n = t->keep.drawn;
	double sum = 0;

	for (size_t k = at * n; k < (at + 1) * n; k++)
		sum += (double)t->drawn_logp[k] - ((double)q[t->drawn[k]] - lse);
	return (double)t->rest[at] / (double)n * sum;
}

static void base_row(void *ctx, size_t i, int thread)
{
	const struct comparing *j = ctx;
	float *q = j->c->logits[0] + i * j->vocab;
	const struct tops *t = j->t;
	const size_t at = j->at + i, top = t->keep.top;
	const int32_t *id = t->id + at * top;
	const double lse = kl_logsumexp(q, j->vocab), rest = (double)t->rest[at];
	struct kl_row *r = &j->rows[i];

	(void)thread;
	r->nll = (double)t->nll[at];
	r->agree = kl_argmax(q, j->vocab) == (size_t)id[0];
	r->kl = 0;
	for (size_t k = 0; k < top; k++) {
		const double log_p = (double)t->logp[at * top + k];

		r->kl += exp(log_p) * (log_p - ((double)q[id[k]] - lse));
	}
	if (rest > 0 && t->keep.drawn > 0) {
		r->kl += drawn_part(t, at, q, lse);
	} else if (rest > 0) {
		/* not the sum of their probabilities, which may be too small for a double */
		for (size_t k = 0; k < top; k++)
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
	for (size_t i = 0; i < t->n * t->keep.top; i++) {
		const size_t row = i / t->keep.top;
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

/* Tokens of the vocabulary that are none of the row's tops. */
static int check_drawn(const struct tops *t, const char *name, size_t *seen, size_t vocab,
		       struct err *e)
{
	const struct kl_keep k = t->keep;

	memset(seen, 0, vocab * sizeof(*seen));
	for (size_t i = 0; i < t->n * k.drawn; i++) {
		const size_t row = i / k.drawn;
		const int32_t id = t->drawn[i];

		for (size_t j = 0; i % k.drawn == 0 && j < k.top; j++)
			seen[t->id[row * k.top + j]] = row + 1;
		if (id < 0 || (size_t)id >= vocab)
			return err_set(e, ERR_DATA, name, "row %zu: id %ld is outside the "
				       "vocabulary of %zu", row, (long)id, vocab);
		if (seen[id] == row + 1)
			return err_set(e, ERR_DATA, name, "row %zu: id %ld is one of the most "
				       "likely", row, (long)id);
	}
	return 0;
}

/* Logarithms of probabilities, [n, cols]; ordered: the most likely first. */
static int check_logp(const float *logp, size_t n, size_t cols, bool ordered, const char *name,
		      struct err *e)
{
	for (size_t i = 0; i < n * cols; i++) {
		const double v = (double)logp[i];

		if (!isfinite(v) || v > 0)
			return err_set(e, ERR_DATA, name, "row %zu: %g is not the logarithm of a "
				       "probability", i / cols, v);
		if (ordered && i % cols > 0 && logp[i] > logp[i - 1])
			return err_set(e, ERR_DATA, name, "row %zu: the most likely do not come "
				       "first", i / cols);
	}
	return 0;
}

/* What a row's tops leave of 1, but for rounding to F32. */
static int check_rest(const struct tops *t, const char *name, size_t vocab, struct err *e)
{
	const size_t top = t->keep.top;

	for (size_t i = 0; i < t->n; i++) {
		const double rest = (double)t->rest[i];
		double sum = 0;

		if (!(rest >= 0 && rest <= (top < vocab ? 1 : 0)))
			return err_set(e, ERR_DATA, name, "row %zu: %g is not the probability of "
				       "all others", i, rest);
		for (size_t k = 0; k < top; k++)
			sum += exp((double)t->logp[i * top + k]);
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

static int take_drawn(struct stream_in *in, size_t w, struct tops *t, size_t *seen, size_t vocab,
		      struct err *e)
{
	const size_t n = t->keep.drawn;
	char name[48];

	if (n == 0)
		return 0;
	snprintf(name, sizeof(name), "top.%zu.drawn", w);
	if (take(in, name, DT_I32, t->n, n, t->drawn, e) < 0 ||
	    check_drawn(t, name, seen, vocab, e) < 0)
		return -1;
	snprintf(name, sizeof(name), "top.%zu.drawn_logp", w);
	return take(in, name, DT_F32, t->n, n, t->drawn_logp, e) < 0 ? -1 :
	       check_logp(t->drawn_logp, t->n, n, false, name, e);
}

/* seen [vocab] is for check_ids and check_drawn. */
static int take_window(struct stream_in *in, size_t w, struct tops *t, size_t *seen, size_t vocab,
		       struct err *e)
{
	const size_t top = t->keep.top;
	char name[48];

	snprintf(name, sizeof(name), "top.%zu.ids", w);
	if (take(in, name, DT_I32, t->n, top, t->id, e) < 0 ||
	    check_ids(t, name, seen, vocab, e) < 0)
		return -1;
	snprintf(name, sizeof(name), "top.%zu.logp", w);
	if (take(in, name, DT_F32, t->n, top, t->logp, e) < 0 ||
	    check_logp(t->logp, t->n, top, true, name, e) < 0)
		return -1;
	snprintf(name, sizeof(name), "top.%zu.rest", w);
	if (take(in, name, DT_F32, t->n, 0, t->rest, e) < 0 || check_rest(t, name, vocab, e) < 0)
		return -1;
	snprintf(name, sizeof(name), "top.%zu.nll", w);
	return take(in, name, DT_F32, t->n, 0, t->nll, e) < 0 || check_nll(t, name, e) < 0 ? -1 :
	       take_drawn(in, w, t, seen, vocab, e);
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
			   struct stream_in *in, struct kl_keep keep, struct pool *pool,
			   double *rest, struct err *e)
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
		ret = tops_init(&t, scored(s, w), keep, e);
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
		 size_t vocab, struct kl_keep *keep, struct err *e)
{
	int64_t k = 0, drawn = 0, theirs = 0;

	if (record_get_int(head, "top", &k) != 1 || record_get_int(head, "vocab", &theirs) != 1 ||
	    k < 1 || k > theirs || record_get_int(head, "drawn", &drawn) < 0 || drawn < 0 ||
	    drawn > 65536 || (drawn > 0 && k == theirs))
		return err_set(e, ERR_DATA, "--kl", "not a base: its header lacks top and "
			       "vocab, or they cannot be");
	if ((size_t)theirs != vocab)
		return err_set(e, ERR_DATA, "--kl", "a vocabulary of %lld, the model's has %zu",
			       (long long)theirs, vocab);
	*keep = (struct kl_keep){ (size_t)k, (size_t)drawn };
	return check_windows(in, s, e);
}

int kl_against_base(struct kl_result *r, const struct ppl_set *s, const struct kl_model *q,
		    struct stream_in *in, struct kl_keep keep, struct pool *pool, struct err *e)
{
	struct record end = { .rank = -1 };
	struct kl_row *rows;
	double rest = 0;
	int ret;

	rows = malloc(s->scored * sizeof(*rows));
	if (rows == NULL)
		return err_nomem(e, "scores", s->scored * sizeof(*rows));
	ret = compare_windows(rows, s, q, in, keep, pool, &rest, e);
	while (ret == 0 && (ret = stream_next(in, &end, e)) > 0)
		ret = end.type != REC_TENSOR ? 0 : err_set(e, ERR_DATA, "--kl", "the base has "
							   "more windows: %s", end.name);
	if (ret == 0)
		ret = kl_summary(r, s, rows, e);
	r->rest = ret == 0 ? rest / (double)s->scored : 0;
	r->drawn = keep.drawn;
	record_clear(&end);
	free(rows);
	return ret;
}
