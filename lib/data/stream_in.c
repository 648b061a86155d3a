/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stream_in.c - records in
 *
 * Nothing a header says is believed before it was compared with a limit, with the other keys of
 * the header and, of a file, with what is left of it; payload memory is the caller's.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lib/base/aside.h"
#include "lib/base/hash.h"
#include "lib/data/mpwalk.h"
#include "lib/data/stream_impl.h"
#include "lib/data/zslice.h"

double stream_clock(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static struct stream_in *in_new(struct err *e)
{
	struct stream_in *in = calloc(1, sizeof(*in));

	if (!in) {
		err_nomem(e, "stream", sizeof(*in));
		return NULL;
	}
	in->input.fd = -1;
	in->taken = true;
	snprintf(in->label, sizeof(in->label), "header");
	return in;
}

int stream_open_in(struct stream_in **out, const char *path, struct err *e)
{
	struct stream_in *in = in_new(e);

	*out = NULL;
	if (!in)
		return -1;
	if (input_open(&in->input, path, e) != 0)
		goto fail;
	in->sum = hash_new(64);
	in->payload = hash_new(64);
	in->z = zslice_new();
	in->piece = malloc(STREAM_PIECE);
	if (!in->sum || !in->payload || !in->z || !in->piece) {
		err_nomem(e, in->input.name, STREAM_PIECE);
		goto fail;
	}
	*out = in;
	return 0;
fail:
	stream_close_in(in);
	return -1;
}

int stream_in_from(struct stream_in **out, const struct stream_in_ops *ops, void *self,
		   struct err *e)
{
	struct stream_in *in = in_new(e);

	*out = in;
	if (!in)
		return -1;
	in->ops = ops;
	in->self = self;
	return 0;
}

void stream_close_in(struct stream_in *in)
{
	if (!in)
		return;
	aside_free(in->aside);
	if (in->ops)
		in->ops->close(in->self);
	else
		input_close(&in->input);
	hash_free(in->sum);
	hash_free(in->payload);
	zslice_free(in->z);
	record_clear(&in->rec);
	buf_release(&in->header);
	free(in->piece);
	free(in->whole);
	free(in);
}

uint64_t stream_offset(const struct stream_in *in)
{
	return in->input.taken;
}

uint64_t stream_size_hint(const struct stream_in *in)
{
	return in->input.size;
}

double stream_in_seconds(const struct stream_in *in)
{
	return in->seconds;
}

static int cut_short(const struct stream_in *in, struct err *e)
{
	return err_set(e, ERR_DATA, in->label, "stream ends here without an END record");
}

/* ---- headers */

/* The bytes of the next value, at buf + pos of the input: 1, *size; 0: the input is at its end. */
static int next_value(struct stream_in *in, size_t *size, struct err *e)
{
	struct input *s = &in->input;
	uint64_t need = 1;
	int got;

	got = input_need(s, 1, e);
	if (got <= 0)
		return got;
	for (;;) {
		int whole = token_extent(s->buf + s->pos, s->len - s->pos, &need);

		if (whole < 0)
			return err_set(e, ERR_DATA, in->label, in->records ?
				       "what follows is not a record" : "not a quantpipe stream");
		if (need > STREAM_MAX_HEADER)
			return err_set(e, ERR_DATA, in->label, "%s (header of %llu bytes or more)",
				       in->records ? "what follows is not a record" :
				       "not a quantpipe stream", (unsigned long long)need);
		if (whole) {
			*size = (size_t)need;
			return 1;
		}
		got = input_need(s, (size_t)need, e);
		if (got <= 0)
			return got < 0 ? -1 : cut_short(in, e);
	}
}

/* The first record: a stream of a version that this program reads. */
static int check_version(const struct stream_in *in, const struct record *r, struct err *e)
{
	struct token list, major, minor;
	const void *p;
	size_t n;

	if (r->type != REC_STREAM)
		return err_set(e, ERR_DATA, in->input.name,
			       "not a quantpipe stream: the first record is '%s'", r->type_name);
	if (!record_get_raw(r, "v", &p, &n) || token_read(&list, p, n) != 1 ||
	    list.type != TOKEN_ARRAY || list.n != 2 ||
	    token_read(&major, (const char *)p + list.size, n - list.size) != 1 ||
	    token_read(&minor, (const char *)p + list.size + major.size,
		       n - list.size - major.size) != 1 ||
	    major.type != TOKEN_INT || minor.type != TOKEN_INT || major.i < 1 || minor.i < 0)
		return err_set(e, ERR_DATA, "header", "no version: key 'v' is not [major, minor]");
	if (major.i > STREAM_MAJOR)
		return err_set(e, ERR_VERSION, "header",
			       "stream version %lld.%lld, this program reads version %d",
			       (long long)major.i, (long long)minor.i, STREAM_MAJOR);
	return 0;
}

/* The payload that r announces must fit into what is left of a file: so a damaged length makes
 * nobody allocate. */
static int check_left(const struct stream_in *in, const struct record *r, struct err *e)
{
	uint64_t left = input_left(&in->input);
	uint64_t least = r->enc[0] ? 2 * r->chunks : r->nbytes;

	if (least > left)
		return err_set(e, ERR_DATA, in->label,
			       "stream ends here without an END record (payload of %llu bytes, "
			       "%llu are left)", (unsigned long long)least,
			       (unsigned long long)left);
	return 0;
}

static int check_end(struct stream_in *in, const struct record *r, uint64_t sum, struct err *e)
{
	struct token t;
	int64_t records;
	const void *p;
	size_t n, got;
	char byte;

	if (!record_get_int(r, "records", &records) || !record_get_raw(r, "sum", &p, &n) ||
	    token_read(&t, p, n) != 1 || (t.type != TOKEN_INT && t.type != TOKEN_UINT) ||
	    r->chunks > 0)
		return err_set(e, ERR_DATA, "end", "damaged END record");
	if ((uint64_t)records != in->records)
		return err_set(e, ERR_DATA, "end", "%llu records were read, END says %lld",
			       (unsigned long long)in->records, (long long)records);
	if (t.u != sum || (t.type == TOKEN_INT && t.i < 0))
		return err_set(e, ERR_DATA, "end", "checksum of the headers differs: damaged");
	if (input_some(&in->input, &byte, 1, &got, e) != 0)
		return -1;
	if (got != 0)
		return err_set(e, ERR_DATA, "end", "bytes follow the END record");
	in->ended = true;
	return 0;
}

/* Keep of the header what the payload and stream_copy need. */
static int remember(struct stream_in *in, const struct record *r, size_t size, struct err *e)
{
	unsigned char *extra = in->rec.extra;
	size_t cap = in->rec.extra_cap;

	in->rec = *r;
	in->rec.extra = extra;
	in->rec.extra_cap = cap;
	in->rec.extra_len = in->rec.n_extra = 0;
	record_label(r, in->label, sizeof(in->label));
	buf_clear(&in->header);
	buf_add(&in->header, in->input.buf + in->input.pos, size);
	in->taken = r->chunks == 0;
	return buf_failed(&in->header, in->label, e);
}

static int read_record(struct stream_in *in, struct record *r, struct err *e)
{
	uint64_t sum = hash_get64(in->sum);
	size_t size = 0;
	int got = next_value(in, &size, e);

	if (got < 0)
		return -1;
	if (got == 0)
		return in->records ? cut_short(in, e) :
			err_set(e, ERR_DATA, in->input.name, "empty, not a quantpipe stream");
	const unsigned char *p = in->input.buf + in->input.pos;
	if (in->records == 0 && (p[0] & 0xf0) != 0x80 && p[0] != 0xde && p[0] != 0xdf)
		return err_set(e, ERR_DATA, in->input.name, "not a quantpipe stream; record-acts "
			       "makes one of a model");
	if (record_decode(r, p, size, e) != 0 ||
	    (in->records == 0 && check_version(in, r, e) != 0) || remember(in, r, size, e) != 0)
		return -1;
	hash_add(in->sum, p, size);
	in->input.pos += size;
	if (r->type == REC_END)
		return check_end(in, r, sum, e);
	if (r->type == REC_STREAM && in->records > 0)
		return err_set(e, ERR_DATA, in->label, "a second header in the stream");
	if (r->must && (r->type == REC_OTHER || r->role == ROLE_OTHER))
		return err_set(e, ERR_VERSION, in->label,
			       "%s '%s' must be understood, and this program does not know it",
			       r->type == REC_OTHER ? "record type" : "role",
			       r->type == REC_OTHER ? r->type_name : r->role_name);
	in->records++;
	return check_left(in, r, e) != 0 ? -1 : 1;
}

const char *stream_calib(const struct stream_in *in)
{
	return in->calib;
}

int stream_next(struct stream_in *in, struct record *r, struct err *e)
{
	double t = stream_clock();
	int got;

	if (in->ended)
		return 0;
	if (in->ops) {
		got = in->ops->next(in->self, r, e);
		in->ended = got == 0;
		if (got == 1)
			record_label(r, in->label, sizeof(in->label));
	} else if (!in->taken && stream_in_drain(in, NULL, NULL, e) != 0) {
		got = -1;
	} else {
		got = read_record(in, r, e);
	}
	if (got == 1 && r->type == REC_CALIB &&
	    !record_get_str(r, "fingerprint", in->calib, sizeof(in->calib)))
		in->calib[0] = '\0';
	in->seconds += stream_clock() - t;
	return got;
}
