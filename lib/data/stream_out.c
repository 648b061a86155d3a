/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stream_out.c - records out
 *
 * Every record leaves in full before a call returns: the next stage may need it long before the
 * next one is ready.  Small parts wait only for the payload behind them (one writev).
 */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/hash.h"
#include "lib/base/pool.h"
#include "lib/data/mp.h"
#include "lib/data/mpwalk.h"
#include "lib/data/output.h"
#include "lib/data/stream_impl.h"
#include "lib/data/zslice.h"

#define LARGE ((uint64_t)4 << 20) /* bytes that are read twice rather than kept */

struct stream_out {
	struct output output;
	int level;             /* of zstd, 0: none */
	struct hash *sum;      /* of headers and bin prefixes so far */
	uint64_t records;
	struct buf pending;    /* a header, a prefix: written with what follows */
	struct pool *pool;     /* for payloads of several slices, from the first of them on */
	int threads;           /* in it, or 1 */
	struct zslice **z;     /* [threads] */
	struct buf frames;     /* a compressed payload */
	struct record head;    /* scratch: the header as it is written */
	void *whole;           /* a payload on its way from a source that is no stream file */
	size_t whole_cap;
	bool committed;
	double seconds;
};

int stream_open_out(struct stream_out **p, const struct stream_out_options *opt, struct err *e)
{
	struct stream_out *out = calloc(1, sizeof(*out));

	*p = NULL;
	if (!out)
		return err_nomem(e, "output", sizeof(*out));
	out->output.fd = -1;
	out->level = opt->zstd_level;
	out->sum = hash_new(64);
	out->threads = 1;
	out->z = calloc(1, sizeof(*out->z));
	if (!out->sum || !out->z || !(out->z[0] = zslice_new())) {
		err_nomem(e, "output", sizeof(*out));
		stream_close_out(out);
		return -1;
	}
	if (output_open(&out->output, opt->path, e) != 0) {
		stream_close_out(out);
		return -1;
	}
	*p = out;
	return 0;
}

void stream_close_out(struct stream_out *out)
{
	if (!out)
		return;
	output_close(&out->output);
	hash_free(out->sum);
	for (int i = 0; out->z && i < out->threads; i++)
		zslice_free(out->z[i]);
	free(out->z);
	pool_free(out->pool);
	buf_release(&out->pending);
	buf_release(&out->frames);
	record_clear(&out->head);
	free(out->whole);
	free(out);
}

const char *stream_out_temp(const struct stream_out *out)
{
	return out->output.temp;
}

double stream_out_seconds(const struct stream_out *out)
{
	return out->seconds;
}

/* What is pending, then n bytes at p. */
static int flush(struct stream_out *out, const void *p, size_t n, struct err *e)
{
	struct iovec v[2] = { { out->pending.p, out->pending.n }, { (void *)(uintptr_t)p, n } };

	if (buf_failed(&out->pending, out->output.name, e) != 0 ||
	    output_write(&out->output, v, 2, e) != 0)
		return -1;
	buf_clear(&out->pending);
	return 0;
}

/* A part of the stream that the sum covers. */
static void put(struct stream_out *out, const void *p, size_t n)
{
	hash_add(out->sum, p, n);
	buf_add(&out->pending, p, n);
}

static int put_header(struct stream_out *out, const struct record *r, struct err *e)
{
	size_t at = out->pending.n;
	char label[320];

	record_encode(r, &out->pending);
	record_label(r, label, sizeof(label));
	if (buf_failed(&out->pending, label, e) != 0)
		return -1;
	if (out->pending.n - at > STREAM_MAX_HEADER)
		return err_set(e, ERR_DATA, label, "a header of %zu bytes; at most %u are allowed",
			       out->pending.n - at, STREAM_MAX_HEADER);
	hash_add(out->sum, out->pending.p + at, out->pending.n - at);
	out->records++;
	return 0;
}

static int put_chunk(struct stream_out *out, const void *p, size_t n, struct err *e)
{
	unsigned char prefix[5];

	put(out, prefix, bin_prefix(prefix, (uint32_t)n));
	return flush(out, p, n, e);
}

/* ---- compression */

/* Codes do not compress (a tenth at best), nor do a few bytes. */
static bool worth_zstd(const struct stream_out *out, const struct record *r)
{
	return out->level > 0 && r->nbytes >= 256 && r->role != ROLE_CODES;
}

/* Slices of a payload on their way into frames, each behind the four bytes of its length. */
struct slices {
	struct stream_out *out;
	const unsigned char *p;
	unsigned char *frames;
	uint64_t nbytes;
	bool planes;
	atomic_flag failed;
	struct err *e; /* of the first that failed */
};

static size_t frame_space(void)
{
	return zslice_bound(STREAM_CHUNK) + sizeof(uint32_t);
}

static void compress_slice(void *ctx, size_t i, int thread)
{
	struct slices *s = ctx;
	unsigned char *to = s->frames + i * frame_space();
	size_t n = record_slice(s->nbytes, i), len = 0;
	struct err e;

	if (zslice_encode(s->out->z[thread], to + sizeof(uint32_t), zslice_bound(n),
			  s->p + i * STREAM_CHUNK, n, s->planes, s->out->level, &len, &e) != 0 &&
	    !atomic_flag_test_and_set(&s->failed))
		*s->e = e;
	memcpy(to, &(uint32_t){ (uint32_t)len }, sizeof(uint32_t));
}

/* Worker threads, when the first payload comes that has work for them.  Where they cannot be
 * had the caller's thread does it all: the bytes are the same. */
static void hire(struct stream_out *out)
{
	int n = pool_cores();
	struct zslice **z;
	struct err e;

	if (out->pool || n < 2 || !(z = calloc((size_t)n, sizeof(*z))))
		return;
	z[0] = out->z[0];
	for (int i = 1; i < n; i++)
		if (!(z[i] = zslice_new()))
			n = i;
	free(out->z);
	out->z = z;
	out->threads = n;
	out->pool = pool_new(n, &e);
	if (out->pool && pool_share(out->pool, &e) < 0)
		return; /* then it works with all its threads */
}

/*
 * Compress the payload of out->head into out->frames: 1, or 0 if that does not make it smaller.
 * The header that comes before the chunks carries their checksum, so they are all made first.
 */
static int compress(struct stream_out *out, const unsigned char *p, struct err *e)
{
	struct record *r = &out->head;
	size_t n = (size_t)record_chunks(r->nbytes), at = 0;
	struct slices s = { out, p, NULL, r->nbytes, dtype_bits(r->dtype) == 16,
			    ATOMIC_FLAG_INIT, e };
	struct hash *h = hash_new(64);

	buf_clear(&out->frames);
	s.frames = buf_room(&out->frames, n > 1 ? n * frame_space() :
			    zslice_bound(r->nbytes) + sizeof(uint32_t));
	if (!h || !s.frames) {
		hash_free(h);
		return err_nomem(e, r->name, r->nbytes);
	}
	if (n > 1)
		hire(out);
	if (n > 1 && out->pool)
		pool_run(out->pool, n, compress_slice, &s);
	else
		for (size_t i = 0; i < n; i++)
			compress_slice(&s, i, 0);
	for (size_t i = 0; i < n; i++) {
		unsigned char *from = s.frames + i * frame_space();
		uint32_t len;

		memcpy(&len, from, sizeof(len));
		hash_add(h, from + sizeof(len), len);
		memmove(s.frames + at, from, sizeof(len) + len);
		at += sizeof(len) + len;
	}
	out->frames.n = at;
	r->xxh = hash_get64(h);
	hash_free(h);
	if (atomic_flag_test_and_set(&s.failed))
		return -1;
	if (at >= r->nbytes)
		return 0;
	memcpy(r->enc, s.planes ? "zstd-planes" : "zstd", s.planes ? 12 : 5);
	return 1;
}

static int put_frames(struct stream_out *out, struct err *e)
{
	size_t at = 0;
	uint32_t len;

	while (at < out->frames.n) {
		memcpy(&len, out->frames.p + at, sizeof(len));
		at += sizeof(len);
		if (put_chunk(out, out->frames.p + at, len, e) != 0)
			return -1;
		at += len;
	}
	return 0;
}

/* ---- records */

/* out->head and its payload. */
static int write_head(struct stream_out *out, const unsigned char *payload, struct err *e)
{
	struct record *r = &out->head;
	int packed = 0;

	r->enc[0] = 0;
	r->chunks = record_chunks(r->nbytes);
	if (r->nbytes > 0 && worth_zstd(out, r)) {
		packed = compress(out, payload, e);
		if (packed < 0)
			return -1;
	}
	if (!packed)
		r->xxh = hash64(payload, r->nbytes);
	if (put_header(out, r, e) != 0)
		return -1;
	if (packed)
		return put_frames(out, e);
	for (uint64_t i = 0; i < r->chunks; i++)
		if (put_chunk(out, payload + i * STREAM_CHUNK, record_slice(r->nbytes, i), e) != 0)
			return -1;
	return flush(out, NULL, 0, e);
}

static int check(const struct stream_out *out, const struct record *r, const void *payload,
		 struct err *e)
{
	const char *bug = NULL;
	uint64_t want;

	if (out->committed)
		bug = "after the end of the stream";
	else if (r->type == REC_END || (r->type == REC_STREAM) != (out->records == 0))
		bug = "header and END are written by their own functions";
	else if (r->nbytes > 0 && !payload)
		bug = "no payload";
	else if (r->type != REC_OTHER && r->dtype != DT_NONE && r->rank >= 0 &&
		 (dtype_nbytes(r->dtype, r->rank, r->shape, &want) != 0 || want != r->nbytes))
		bug = "nbytes is not what dtype and shape make";
	return bug ? err_set(e, ERR_BUG, r->name[0] ? r->name : r->type_name,
			     "BUG: record written wrongly: %s", bug) : 0;
}

int stream_write(struct stream_out *out, const struct record *r, const void *payload,
		 struct err *e)
{
	double t = stream_clock();
	int ret = check(out, r, payload, e);

	if (ret == 0)
		ret = record_dup(&out->head, r, e);
	if (ret == 0)
		ret = write_head(out, payload, e);
	out->seconds += stream_clock() - t;
	return ret;
}

/* A stream_sink: what was read from another stream, as it lay there. */
static int pass_on(void *ctx, const void *p, size_t n, bool prefix, struct err *e)
{
	struct stream_out *out = ctx;

	if (!prefix)
		return flush(out, p, n, e);
	put(out, p, n);
	return 0;
}

/* A record of a source that is no stream file, or one that is to be compressed. */
static int copy_whole(struct stream_out *out, struct stream_in *in, const struct record *r,
		      struct err *e)
{
	if (r->nbytes > out->whole_cap) {
		free(out->whole);
		out->whole_cap = 0;
		out->whole = malloc(r->nbytes);
		if (!out->whole)
			return err_nomem(e, in->label, r->nbytes);
		out->whole_cap = r->nbytes;
	}
	if (r->nbytes > 0 && stream_payload(in, out->whole, e) != 0)
		return -1;
	return stream_write(out, r, out->whole, e);
}

struct first_look {
	struct hash *h;
	enum dtype dtype;
	bool sound;
};

static int look(void *ctx, const void *p, size_t n, struct err *e)
{
	struct first_look *f = ctx;
	const size_t bits = (size_t)dtype_bits(f->dtype);

	(void)e;
	hash_add(f->h, p, n);
	if (bits > 0 && dtype_first_nonfinite(p, f->dtype, n * 8 / bits) >= 0)
		f->sound = false;
	return 0;
}

/* Pieces that come on their way to chunks. */
struct passing {
	struct stream_out *out;
	uint64_t at, nbytes;
};

/* STREAM_CHUNK is a multiple of STREAM_PIECE: a piece is never in two chunks. */
static int pass_piece(void *ctx, const void *p, size_t n, struct err *e)
{
	struct passing *w = ctx;
	unsigned char prefix[5];

	if (w->at % STREAM_CHUNK == 0)
		put(w->out, prefix, bin_prefix(prefix, (uint32_t)
					       record_slice(w->nbytes, w->at / STREAM_CHUNK)));
	w->at += n;
	return flush(w->out, p, n, e);
}

/* A large record of a source that is read in pieces, twice: for its sum, which comes first, and for
 * itself.  That takes less time than new pages for all of it, and no memory.  1: it must be taken
 * as a whole, which also says what is wrong with its values. */
static int copy_pieces(struct stream_out *out, struct stream_in *in, const struct record *r,
		       struct err *e)
{
	struct first_look f = { hash_new(64), r->dtype, true };
	struct passing w = { .out = out, .nbytes = r->nbytes };
	const double t = stream_clock(), before = stream_in_seconds(in);
	int ret;

	if (!f.h)
		return err_nomem(e, in->label, r->nbytes);
	ret = check(out, r, f.h, e);
	if (ret == 0)
		ret = stream_in_pieces(in, r->nbytes, look, &f, e);
	if (ret == 0 && !f.sound)
		ret = 1;
	if (ret == 0)
		ret = record_dup(&out->head, r, e);
	if (ret == 0) {
		out->head.enc[0] = 0;
		out->head.chunks = record_chunks(r->nbytes);
		out->head.xxh = hash_get64(f.h);
		ret = put_header(out, &out->head, e);
	}
	hash_free(f.h);
	if (ret == 0)
		ret = stream_in_pieces(in, r->nbytes, pass_piece, &w, e);
	out->seconds += stream_clock() - t - (stream_in_seconds(in) - before);
	return ret;
}

int stream_copy(struct stream_out *out, struct stream_in *in, const struct record *r,
		struct err *e)
{
	double t;
	int ret;

	if (in->ops && in->ops->piece && r->nbytes > LARGE && !worth_zstd(out, r)) {
		ret = copy_pieces(out, in, r, e);
		if (ret <= 0)
			return ret;
	}
	if (in->ops || (r->type != REC_OTHER && r->enc[0] == 0 && worth_zstd(out, r)))
		return copy_whole(out, in, r, e);
	if (in->rec.chunks > 0 && in->taken)
		return err_set(e, ERR_BUG, in->label, "BUG: payload already taken");
	if (out->records == 0 || out->committed)
		return err_set(e, ERR_BUG, in->label, "BUG: record copied before the header");
	t = stream_clock();
	put(out, in->header.p, in->header.n);
	out->records++;
	ret = in->taken ? 0 : stream_in_drain(in, pass_on, out, e);
	if (ret == 0)
		ret = flush(out, NULL, 0, e);
	out->seconds += stream_clock() - t;
	return ret;
}

/* ---- beginning and end */

/* [major, minor]; what passes through may be of a newer minor version, so that is kept. */
static void put_version(struct buf *b, const struct record *head)
{
	struct token list, major, minor;
	const unsigned char *p;
	const void *v;
	size_t n;

	if (record_get_raw(head, "v", &v, &n) && token_read(&list, v, n) == 1 &&
	    list.type == TOKEN_ARRAY && list.n == 2) {
		p = v;
		if (token_read(&major, p + list.size, n - list.size) == 1 &&
		    major.type == TOKEN_INT && major.i == STREAM_MAJOR &&
		    token_read(&minor, p + list.size + major.size,
			       n - list.size - major.size) == 1 &&
		    minor.type == TOKEN_INT && minor.i > STREAM_MINOR) {
			buf_add(b, v, n);
			return;
		}
	}
	mp_put_array(b, 2);
	mp_put_int(b, STREAM_MAJOR);
	mp_put_int(b, STREAM_MINOR);
}

static void put_program(struct buf *b, const struct provenance *prov)
{
	mp_put_map(b, prov->backend ? 4 : 3);
	mp_put_str(b, "program");
	mp_put_str(b, prov->program);
	mp_put_str(b, "version");
	mp_put_str(b, prov->version);
	mp_put_str(b, "options");
	mp_put_array(b, (size_t)prov->n);
	for (int i = 0; i < prov->n; i++)
		mp_put_str(b, prov->options[i]);
	if (prov->backend) {
		mp_put_str(b, "backend");
		mp_put_str(b, prov->backend);
	}
}

/* The list so far and one more. */
static int put_provenance(struct buf *b, const struct record *head, const struct provenance *prov,
			  struct err *e)
{
	struct token list = { .n = 0, .size = 0 };
	const void *v = "";
	size_t n = 0;

	if (record_get_raw(head, "prov", &v, &n) &&
	    (token_read(&list, v, n) != 1 || list.type != TOKEN_ARRAY))
		return err_set(e, ERR_DATA, "header", "key 'prov': expected an array");
	mp_put_array(b, (size_t)list.n + (prov != NULL));
	buf_add(b, (const char *)v + list.size, n - list.size);
	if (prov)
		put_program(b, prov);
	return 0;
}

/* The extra keys of the header: v first, prov last, the others as they were. */
static int make_head(struct record *to, const struct record *head, const struct provenance *prov,
		     struct buf *v, struct buf *list, struct err *e)
{
	size_t n = head->extra_len;

	put_version(v, head);
	if (put_provenance(list, head, prov, e) != 0 || record_dup(to, head, e) != 0)
		return -1;
	record_unset(to, "v");
	record_unset(to, "prov");
	struct record rest = { 0 };
	int ret = record_dup(&rest, to, e);
	if (ret == 0) {
		to->extra_len = to->n_extra = 0;
		if (v->failed || list->failed || record_set_raw(to, "v", v->p, v->n) != 0 ||
		    record_append(to, &rest) != 0 ||
		    record_set_raw(to, "prov", list->p, list->n) != 0)
			ret = err_nomem(e, "header", n);
	}
	record_clear(&rest);
	return ret;
}

int stream_write_head(struct stream_out *out, struct record *head, const struct provenance *prov,
		      struct err *e)
{
	struct buf v = { 0 }, list = { 0 };
	double t = stream_clock();
	int ret = -1;

	if (head->type != REC_STREAM || out->records != 0 || head->nbytes != 0)
		err_set(e, ERR_BUG, "header", "BUG: not the first record, or with a payload");
	else
		ret = make_head(&out->head, head, prov, &v, &list, e);
	buf_release(&v);
	buf_release(&list);
	if (ret == 0)
		ret = write_head(out, NULL, e);
	out->seconds += stream_clock() - t;
	return ret;
}

int stream_commit(struct stream_out *out, struct err *e)
{
	struct record *r = &out->head;
	uint64_t sum = hash_get64(out->sum), records = out->records;
	int ret = -1;

	if (records == 0 || out->committed)
		return err_set(e, ERR_BUG, "end", "BUG: a stream without a header");
	record_init(r, REC_END, NULL);
	if (record_set_int(r, "records", (int64_t)records) != 0 ||
	    record_set_uint(r, "sum", sum) != 0)
		return err_nomem(e, "end", sizeof(*r));
	out->committed = true;
	if (put_header(out, r, e) == 0 && flush(out, NULL, 0, e) == 0)
		ret = output_commit(&out->output, e);
	return ret;
}
