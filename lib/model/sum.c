/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sum.c - the statistics of several streams of one model added up
 */
#include "lib/model/sum.h"

#include <stdlib.h>
#include <string.h>

#include "lib/data/calib.h"
#include "lib/data/mpwalk.h"
#include "lib/data/pipeline.h"
#include "lib/model/block.h"

struct sum {
	struct stream_in *const *in;
	const char *const *names;
	int n;
	struct record *rec;  /* [n], the records at hand */
	void *data, *other;  /* payloads */
	size_t data_cap, other_cap;
	bool added;          /* there was a statistic */
	char calib[40];      /* fingerprint of the set that is written, or "" */
};

struct sum *sum_new(struct stream_in *const *in, const char *const *names, int n, struct err *e)
{
	struct sum *s = calloc(1, sizeof(*s));

	if (s)
		s->rec = calloc((size_t)n, sizeof(*s->rec));
	if (!s || !s->rec) {
		err_nomem(e, "", (size_t)n * sizeof(*s->rec));
		free(s);
		return NULL;
	}
	s->in = in;
	s->names = names;
	s->n = n;
	for (int i = 0; i < n; i++)
		record_init(&s->rec[i], REC_OTHER, "");
	return s;
}

void sum_free(struct sum *s)
{
	if (!s)
		return;
	for (int i = 0; i < s->n; i++)
		record_clear(&s->rec[i]);
	free(s->rec);
	free(s->data);
	free(s->other);
	free(s);
}

static const char *label(const struct record *r)
{
	return r->name[0] ? r->name : r->type == REC_STREAM ? "header" : r->type_name;
}

static int differs(const struct sum *s, int i, const char *what, struct err *e)
{
	return err_set(e, ERR_DATA, label(&s->rec[0]), "%s in %s is not that of %s", what,
		       s->names[i], s->names[0]);
}

static int grow(void **p, size_t *cap, uint64_t need, const char *name, struct err *e)
{
	if (need <= *cap)
		return 0;
	free(*p);
	*cap = 0;
	*p = need > SIZE_MAX / 2 ? NULL : malloc((size_t)need);
	if (!*p)
		return err_nomem(e, name, need);
	*cap = (size_t)need;
	return 0;
}

static bool same_extra(const struct record *a, const struct record *b)
{
	return a->n_extra == b->n_extra && a->extra_len == b->extra_len &&
	       (a->extra_len == 0 || memcmp(a->extra, b->extra, a->extra_len) == 0);
}

/* The named fields, but for the first dimension and the size. */
static bool same_fields(const struct record *a, const struct record *b)
{
	return strcmp(a->type_name, b->type_name) == 0 && strcmp(a->name, b->name) == 0 &&
	       strcmp(a->role_name, b->role_name) == 0 && a->dtype == b->dtype &&
	       a->rank == b->rank && a->must == b->must &&
	       (a->rank < 2 || memcmp(a->shape + 1, b->shape + 1,
				      (size_t)(a->rank - 1) * sizeof(a->shape[0])) == 0);
}

static bool same_size(const struct record *a, const struct record *b)
{
	return a->nbytes == b->nbytes && (a->rank < 1 || a->shape[0] == b->shape[0]);
}

/* ---- the header ------------------------------------------------------------------ */

int sum_head(struct sum *s, struct record *head, struct err *e)
{
	struct record rest = { .rank = -1 };
	char family[64];
	int r = 0;

	for (int i = 0; i < s->n; i++) {
		int got = stream_next(s->in[i], &s->rec[i], e);

		if (got < 0)
			return -1;
		if (got == 0 || s->rec[i].type != REC_STREAM)
			return err_set(e, ERR_DATA, s->names[i], "does not begin with a header");
		if (!record_get_str(&s->rec[i], "family", family, sizeof(family)))
			return err_set(e, ERR_DATA, s->names[i],
				       "carries no model (no key 'family')");
	}
	if (record_dup(head, &s->rec[0], e) < 0)
		return -1;
	for (int i = 1; i < s->n && r == 0; i++) {
		if (!pipeline_agree(head, &s->rec[i]))
			r = differs(s, i, "the provenance", e);
		record_unset(&s->rec[i], "prov");
	}
	if (r == 0)
		r = record_dup(&rest, head, e);
	record_unset(&rest, "prov");
	for (int i = 1; i < s->n && r == 0; i++)
		if (!same_extra(&rest, &s->rec[i]))
			r = differs(s, i, "the model", e);
	record_clear(&rest);
	return r;
}

/* ---- records that are the same in all streams ------------------------------------ */

/* Payloads of the same bytes as they are stored are equal; compressed ones may be in spite. */
static bool same_stored(const struct sum *s)
{
	for (int i = 1; i < s->n; i++)
		if (strcmp(s->rec[0].enc, s->rec[i].enc) != 0 || s->rec[0].xxh != s->rec[i].xxh)
			return false;
	return true;
}

static int same_record(struct sum *s, struct stream_out *out, struct err *e)
{
	const struct record *a = &s->rec[0];

	for (int i = 1; i < s->n; i++)
		if (!same_fields(a, &s->rec[i]) || !same_size(a, &s->rec[i]) ||
		    !same_extra(a, &s->rec[i]))
			return differs(s, i, "the record", e);
	if (a->nbytes == 0 || same_stored(s))
		return stream_copy(out, s->in[0], a, e);
	if (grow(&s->data, &s->data_cap, a->nbytes, label(a), e) < 0 ||
	    grow(&s->other, &s->other_cap, a->nbytes, label(a), e) < 0 ||
	    stream_payload(s->in[0], s->data, e) < 0)
		return -1;
	for (int i = 1; i < s->n; i++) {
		if (stream_payload(s->in[i], s->other, e) < 0)
			return -1;
		if (memcmp(s->data, s->other, (size_t)a->nbytes) != 0)
			return differs(s, i, "the content", e);
	}
	return stream_write(out, a, s->data, e);
}

/* ---- statistics ------------------------------------------------------------------ */

/* Header checks, and the sum of the tokens; what else may differ is left to the caller. */
static int add_tokens(struct sum *s, int64_t *tokens, struct err *e)
{
	int64_t t;

	for (int i = 0; i < s->n; i++) {
		struct record *r = &s->rec[i];

		if (r->dtype != DT_F32)
			return err_set(e, ERR_DATA, label(r), "a statistic is F32, not %s",
				       dtype_name(r->dtype));
		if (!record_get_int(r, "tokens", &t) || t < 0)
			return err_set(e, ERR_DATA, label(r), "no key tokens in %s", s->names[i]);
		if (__builtin_add_overflow(i > 0 ? *tokens : 0, t, tokens))
			return err_set(e, ERR_DATA, label(r), "more tokens than 2^63");
		/* For the comparison of the other keys. */
		record_unset(r, "calib");
		if (record_set_int(r, "tokens", 0) < 0)
			return err_nomem(e, label(r), 16);
		if (i > 0 && (!same_fields(&s->rec[0], r) || !same_extra(&s->rec[0], r)))
			return differs(s, i, "the statistic", e);
	}
	return 0;
}

static int check_finite(const struct sum *s, int i, const float *x, size_t n, struct err *e)
{
	int64_t bad = f32_first_nonfinite(x, n);

	if (bad < 0)
		return 0;
	return err_set(e, ERR_DATA, label(&s->rec[i]), "value %lld in %s is not finite",
		       (long long)bad, s->names[i]);
}

static void accumulate(double *sum, const float *x, size_t n, enum stat kind, double weight)
{
	switch (kind) {
	case STAT_MIN:
		for (size_t j = 0; j < n; j++)
			sum[j] = x[j] < sum[j] ? x[j] : sum[j];
		break;
	case STAT_MAX: case STAT_ABSMAX:
		for (size_t j = 0; j < n; j++)
			sum[j] = x[j] > sum[j] ? x[j] : sum[j];
		break;
	default:
		for (size_t j = 0; j < n; j++)
			sum[j] += weight * x[j];
	}
}

/* shares: the tokens of each stream. */
static int add_stat(struct sum *s, struct stream_out *out, enum stat kind, const int64_t *shares,
		    int64_t tokens, struct err *e)
{
	struct record *a = &s->rec[0];
	size_t n = (size_t)(a->nbytes / sizeof(float));
	bool extreme = kind == STAT_MIN || kind == STAT_MAX || kind == STAT_ABSMAX;
	double *sum;
	float *x;

	if (grow(&s->data, &s->data_cap, n * sizeof(*sum), label(a), e) < 0 ||
	    grow(&s->other, &s->other_cap, n * sizeof(*x), label(a), e) < 0)
		return -1;
	sum = s->data;
	x = s->other;
	for (int i = 0; i < s->n; i++) {
		/* A mean over no tokens at all is passed on as it stands. */
		double weight = kind != STAT_ABSMEAN ? 1 : tokens == 0 ? 1.0 / s->n :
				(double)shares[i] / (double)tokens;

		if (!same_size(a, &s->rec[i]))
			return differs(s, i, "the shape", e);
		if (n > 0 && stream_payload(s->in[i], x, e) < 0)
			return -1;
		if (check_finite(s, i, x, n, e) < 0)
			return -1;
		for (size_t j = 0; i == 0 && j < n; j++)
			sum[j] = extreme ? x[j] : 0;
		accumulate(sum, x, n, kind, weight);
	}
	for (size_t j = 0; j < n; j++)
		x[j] = (float)sum[j];
	if (f32_first_nonfinite(x, n) >= 0)
		return err_set(e, ERR_DATA, label(a), "the sum does not fit F32");
	return stream_write(out, a, x, e);
}

/* Rows of stream after stream. */
static int add_samples(struct sum *s, struct stream_out *out, struct err *e)
{
	struct record *a = &s->rec[0];
	uint64_t total = 0, at = 0;
	int64_t rows = 0;

	for (int i = 0; i < s->n; i++) {
		if (s->rec[i].rank != 2)
			return err_set(e, ERR_DATA, label(a), "samples are rows, [rows, width]");
		total += s->rec[i].nbytes;
		rows += s->rec[i].shape[0];
	}
	if (grow(&s->data, &s->data_cap, total, label(a), e) < 0)
		return -1;
	for (int i = 0; i < s->n; i++) {
		float *to = (float *)((char *)s->data + at);

		if (s->rec[i].nbytes == 0)
			continue;
		if (stream_payload(s->in[i], to, e) < 0 ||
		    check_finite(s, i, to, (size_t)s->rec[i].nbytes / sizeof(*to), e) < 0)
			return -1;
		at += s->rec[i].nbytes;
	}
	a->shape[0] = rows;
	a->nbytes = total;
	return stream_write(out, a, s->data, e);
}

static int sum_stat(struct sum *s, struct stream_out *out, struct err *e)
{
	struct record *a = &s->rec[0];
	int64_t tokens = 0, *shares;
	bool named = true; /* all say whose they are */
	const void *set;
	size_t len;
	char name[32];
	int kind = 0, r;

	if (!record_get_str(a, "stat", name, sizeof(name)))
		return err_set(e, ERR_DATA, label(a), "a statistic without its key stat");
	while (kind < STAT_COUNT && strcmp(name, stat_name((enum stat)kind)) != 0)
		kind++;
	if (kind == STAT_COUNT)
		return err_set(e, ERR_DATA, label(a), "statistics of kind %s do not add up", name);
	shares = calloc((size_t)s->n, sizeof(*shares));
	if (!shares)
		return err_nomem(e, label(a), (size_t)s->n * sizeof(*shares));
	for (int i = 0; i < s->n; i++) {
		record_get_int(&s->rec[i], "tokens", &shares[i]);
		named = named && record_get_raw(&s->rec[i], "calib", &set, &len);
	}
	r = add_tokens(s, &tokens, e);
	if (r == 0 && (record_set_int(a, "tokens", tokens) < 0 ||
		       (named && s->calib[0] && record_set_str(a, "calib", s->calib) < 0)))
		r = err_nomem(e, label(a), 16);
	if (r == 0)
		r = kind == STAT_SAMPLES ? add_samples(s, out, e) :
		    add_stat(s, out, (enum stat)kind, shares, tokens, e);
	free(shares);
	return r;
}

/* ---- the calibration set --------------------------------------------------------- */

/* Keys of a whose value is another in b are dropped; the fingerprint will be made anew. */
static void drop_different(struct record *a, const struct record *b)
{
	char key[STREAM_MAX_NAME + 1];
	const void *va, *vb;
	size_t na, nb, pos = 0;
	struct token t;
	uint64_t n;

	while (pos < a->extra_len && token_read(&t, a->extra + pos, a->extra_len - pos) == 1) {
		if (t.type != TOKEN_STR || t.n >= sizeof(key))
			return;
		memcpy(key, t.body, (size_t)t.n);
		key[t.n] = '\0';
		if (strcmp(key, "fingerprint") != 0 && record_get_raw(a, key, &va, &na) &&
		    (!record_get_raw(b, key, &vb, &nb) || na != nb || memcmp(va, vb, na) != 0)) {
			record_unset(a, key);
			continue;
		}
		if (token_extent(a->extra + pos + t.size, a->extra_len - pos - t.size, &n) != 1)
			return;
		pos += t.size + (size_t)n;
	}
}

/* Are the tokens of stream i those of another before it? */
static int check_distinct(const struct sum *s, int i, struct err *e)
{
	char a[40], b[40];

	if (!record_get_str(&s->rec[i], "fingerprint", a, sizeof(a)))
		return 0;
	for (int k = 0; k < i; k++)
		if (record_get_str(&s->rec[k], "fingerprint", b, sizeof(b)) && strcmp(a, b) == 0)
			return err_set(e, ERR_DATA, label(&s->rec[i]), "the set in %s is that of "
				       "%s: its tokens would count twice", s->names[i],
				       s->names[k]);
	return 0;
}

/* Sets that are to be one have samples of one kind and size. */
static int check_alike(const struct sum *s, int i, const struct calib *all,
		       const struct calib *one, struct err *e)
{
	const char *where = label(&s->rec[0]);

	if (calib_images(one) != calib_images(all))
		return err_set(e, ERR_DATA, where, "%s in %s, %s in %s",
			       calib_images(one) ? "images" : "tokens", s->names[i],
			       calib_images(all) ? "images" : "tokens", s->names[0]);
	if (one->seqlen != all->seqlen)
		return err_set(e, ERR_DATA, where, "windows of %zu tokens in %s, of %zu in %s",
			       one->seqlen, s->names[i], all->seqlen, s->names[0]);
	if (one->channels != all->channels || one->height != all->height ||
	    one->width != all->width)
		return err_set(e, ERR_DATA, where, "images of %zu x %zu x %zu in %s, of %zu x %zu "
			       "x %zu in %s", one->channels, one->height, one->width, s->names[i],
			       all->channels, all->height, all->width, s->names[0]);
	return 0;
}

static int sum_calib(struct sum *s, struct stream_out *out, struct err *e)
{
	struct calib all = { 0 }, one = { 0 };
	struct record *a = &s->rec[0];
	size_t total = 0, n = 0;
	char *payload;
	int r = 0;

	for (int i = 0; i < s->n; i++)
		total += (size_t)s->rec[i].nbytes;
	payload = malloc(total + 1);
	if (!payload)
		return err_nomem(e, label(a), total);
	for (int i = 0; i < s->n && r == 0; i++) {
		r = check_distinct(s, i, e);
		if (r == 0)
			r = calib_read(&one, s->in[i], &s->rec[i], e);
		if (r == 0 && i > 0)
			r = check_alike(s, i, &all, &one, e);
		if (r == 0) {
			memcpy(payload + n, calib_payload(&one), calib_nbytes(&one));
			n += calib_nbytes(&one);
			one.nsamples += all.nsamples;
			all = one;
			all.ids = calib_images(&one) ? NULL : (int32_t *)(void *)payload;
			all.pixels = calib_images(&one) ? (float *)(void *)payload : NULL;
		}
		calib_release(&one);
		if (i > 0)
			drop_different(a, &s->rec[i]);
	}
	if (r == 0) {
		calib_fingerprint(&all);
		a->shape[0] = (int64_t)all.nsamples;
		a->nbytes = n;
		memcpy(s->calib, all.fingerprint, sizeof(s->calib));
		if (record_set_str(a, "fingerprint", all.fingerprint) < 0)
			r = err_nomem(e, label(a), sizeof(all.fingerprint));
	}
	if (r == 0)
		r = stream_write(out, a, payload, e);
	free(payload);
	return r;
}

/* ---- records --------------------------------------------------------------------- */

int sum_next(struct sum *s, struct stream_out *out, struct err *e)
{
	const struct record *a = &s->rec[0];
	int got[2] = { 0, 0 };

	for (int i = 0; i < s->n; i++) {
		got[i > 0] = stream_next(s->in[i], &s->rec[i], e);
		if (got[i > 0] < 0)
			return -1;
		if (i > 0 && got[0] != got[1])
			return err_set(e, ERR_DATA, got[0] ? label(a) : label(&s->rec[i]),
				       "is in %s, but %s has ended", s->names[got[0] ? 0 : i],
				       s->names[got[0] ? i : 0]);
		if (i > 0 && got[0] && (strcmp(a->type_name, s->rec[i].type_name) != 0 ||
					strcmp(a->name, s->rec[i].name) != 0))
			return err_set(e, ERR_DATA, label(a), "%s has %s there", s->names[i],
				       label(&s->rec[i]));
	}
	if (got[0] == 0)
		return s->added ? 0 : err_set(e, ERR_DATA, s->names[0], "has no statistics to add");
	if (a->type == REC_CALIB)
		return sum_calib(s, out, e) < 0 ? -1 : 1;
	s->added = s->added || (a->type == REC_TENSOR && a->role == ROLE_STAT);
	if (a->type == REC_TENSOR && a->role == ROLE_STAT)
		return sum_stat(s, out, e) < 0 ? -1 : 1;
	return same_record(s, out, e) < 0 ? -1 : 1;
}
