/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stream_payload.c - the chunks after a header: taken, skipped or passed on, always verified
 */
#include <stdlib.h>
#include <string.h>

#include "lib/base/aside.h"
#include "lib/base/hash.h"
#include "lib/data/mpwalk.h"
#include "lib/data/stream_impl.h"
#include "lib/data/zslice.h"

static int cut_short(const struct stream_in *in, struct err *e)
{
	return err_set(e, ERR_DATA, in->label, "stream ends here without an END record");
}

/* The prefix of the next bin; *n bytes of it follow. */
static int next_chunk(struct stream_in *in, size_t *n, stream_sink *sink, void *ctx,
		      struct err *e)
{
	struct input *s = &in->input;
	struct token t;
	int got = input_need(s, 2, e);

	if (got > 0 && s->buf[s->pos] >= 0xc4 && s->buf[s->pos] <= 0xc6)
		got = input_need(s, 1 + ((size_t)1 << (s->buf[s->pos] - 0xc4)), e);
	if (got <= 0)
		return got < 0 ? -1 : cut_short(in, e);
	token_read(&t, s->buf + s->pos, s->len - s->pos); /* the body need not be there */
	if (t.type != TOKEN_BIN || t.n > ZSLICE_MAX)
		return err_set(e, ERR_DATA, in->label, "damaged payload: no chunk begins here");
	size_t prefix = t.size - (size_t)t.n;
	hash_add(in->sum, s->buf + s->pos, prefix);
	if (sink && sink(ctx, s->buf + s->pos, prefix, true, e) != 0)
		return -1;
	s->pos += prefix;
	*n = (size_t)t.n;
	return 0;
}

static int wrong_length(const struct stream_in *in, size_t n, struct err *e)
{
	return err_set(e, ERR_DATA, in->label, "damaged payload: a chunk of %zu bytes", n);
}

/* n bytes into dst, hashed while they are in the cache. */
static int read_bytes(struct stream_in *in, unsigned char *dst, size_t n, struct err *e)
{
	size_t got;

	while (n > 0) {
		if (input_some(&in->input, dst, n < STREAM_PIECE ? n : STREAM_PIECE, &got, e) != 0)
			return -1;
		if (got == 0)
			return cut_short(in, e);
		hash_add(in->payload, dst, got);
		dst += got;
		n -= got;
	}
	return 0;
}

static int verify(struct stream_in *in, struct err *e)
{
	in->taken = true;
	if (hash_get64(in->payload) != in->rec.xxh)
		return err_set(e, ERR_DATA, in->label, "checksum of the payload differs: damaged");
	return 0;
}

int stream_in_drain(struct stream_in *in, stream_sink *sink, void *ctx, struct err *e)
{
	bool plain = in->rec.enc[0] == 0;
	size_t n, got;

	hash_reset(in->payload);
	for (uint64_t i = 0; i < in->rec.chunks; i++) {
		if (next_chunk(in, &n, sink, ctx, e) != 0)
			return -1;
		if (plain && n != record_slice(in->rec.nbytes, i))
			return wrong_length(in, n, e);
		for (; n > 0; n -= got) {
			size_t want = n < STREAM_PIECE ? n : STREAM_PIECE;

			if (input_some(&in->input, in->piece, want, &got, e) != 0)
				return -1;
			if (got == 0)
				return cut_short(in, e);
			hash_add(in->payload, in->piece, got);
			if (sink && sink(ctx, in->piece, got, false, e) != 0)
				return -1;
		}
	}
	return verify(in, e);
}

static int take_plain(struct stream_in *in, unsigned char *dst, struct err *e)
{
	size_t n;

	for (uint64_t i = 0; i < in->rec.chunks; i++) {
		size_t slice = record_slice(in->rec.nbytes, i);

		if (next_chunk(in, &n, NULL, NULL, e) != 0)
			return -1;
		if (n != slice)
			return wrong_length(in, n, e);
		if (read_bytes(in, dst + i * STREAM_CHUNK, n, e) != 0)
			return -1;
	}
	return verify(in, e);
}

/* The checksum covers the compressed bytes and is known only after the last of them, so damage
 * may show as a frame that does not decode. */
static int take_zstd(struct stream_in *in, unsigned char *dst, bool planes, struct err *e)
{
	size_t n;

	for (uint64_t i = 0; i < in->rec.chunks; i++) {
		unsigned char *frame;

		if (next_chunk(in, &n, NULL, NULL, e) != 0)
			return -1;
		frame = zslice_buffer(in->z, n, e);
		if (!frame || read_bytes(in, frame, n, e) != 0)
			return -1;
		if (zslice_decode(in->z, dst + i * STREAM_CHUNK, record_slice(in->rec.nbytes, i),
				  frame, n, planes, e) != 0)
			return err_set(e, e->cls, in->label, "%s", e->what);
	}
	return verify(in, e);
}

static int take(struct stream_in *in, void *dst, struct err *e)
{
	const char *enc = in->rec.enc;

	if (in->taken)
		return in->rec.nbytes == 0 ? 0 :
			err_set(e, ERR_BUG, in->label, "BUG: payload taken twice");
	hash_reset(in->payload);
	if (enc[0] == 0)
		return take_plain(in, dst, e);
	if (strcmp(enc, "zstd") == 0)
		return take_zstd(in, dst, false, e);
	if (strcmp(enc, "zstd-planes") == 0)
		return take_zstd(in, dst, true, e);
	return err_set(e, ERR_VERSION, in->label,
		       "payload encoding '%s' is not known to this program", enc);
}

int stream_payload(struct stream_in *in, void *dst, struct err *e)
{
	double t = stream_clock();
	int ret = in->ops ? in->ops->payload(in->self, dst, e) : take(in, dst, e);

	in->seconds += stream_clock() - t;
	return ret;
}

/* ---- while the caller does something else ----------------------------------------------- */

/* Below this, waking a thread costs more than it saves. */
#define ASIDE ((uint64_t)1 << 20)

static int take_ahead(void *ctx, struct err *e)
{
	struct stream_in *in = ctx;

	return stream_payload(in, in->ahead, e);
}

int stream_payload_begin(struct stream_in *in, void *dst, uint64_t nbytes, struct err *e)
{
	if (nbytes < ASIDE)
		return stream_payload(in, dst, e);
	if (!in->aside && aside_new(&in->aside, e) < 0)
		return -1;
	in->ahead = dst;
	aside_start(in->aside, take_ahead, in);
	return 0;
}

int stream_await(struct stream_in *in, struct err *e)
{
	int ret;

	if (!in->ahead)
		return 0;
	ret = aside_wait(in->aside, e);
	in->ahead = NULL;
	return ret;
}

/* ---- in pieces ------------------------------------------------------------------------- */

static int whole(struct stream_in *in, uint64_t nbytes, stream_take *to, void *ctx, struct err *e)
{
	if (nbytes > in->whole_cap) {
		free(in->whole);
		in->whole_cap = 0;
		in->whole = malloc((size_t)nbytes);
		if (!in->whole)
			return err_nomem(e, in->label, nbytes);
		in->whole_cap = (size_t)nbytes;
	}
	return stream_payload(in, in->whole, e) < 0 ? -1 : to(ctx, in->whole, (size_t)nbytes, e);
}

int stream_in_pieces(struct stream_in *in, uint64_t nbytes, stream_take *to, void *ctx,
		     struct err *e)
{
	int ret = in->ops->piece ? 0 : 1;

	if (!ret && !in->piece && !(in->piece = malloc(STREAM_PIECE)))
		return err_nomem(e, in->label, STREAM_PIECE);
	for (uint64_t at = 0; at < nbytes && !ret; at += STREAM_PIECE) {
		const uint64_t left = nbytes - at;
		const size_t n = left < STREAM_PIECE ? (size_t)left : STREAM_PIECE;

		const double t = stream_clock();

		ret = in->ops->piece(in->self, at, in->piece, n, e);
		in->seconds += stream_clock() - t;
		if (!ret)
			ret = to(ctx, in->piece, n, e);
	}
	return ret;
}

static int own_pieces(struct stream_in *in, stream_take *to, void *ctx, struct err *e)
{
	hash_reset(in->payload);
	for (uint64_t i = 0; i < in->rec.chunks; i++) {
		size_t n, some;

		if (next_chunk(in, &n, NULL, NULL, e) != 0)
			return -1;
		if (n != record_slice(in->rec.nbytes, i))
			return wrong_length(in, n, e);
		for (; n > 0; n -= some) {
			const double t = stream_clock();
			int ret;

			some = n < STREAM_PIECE ? n : STREAM_PIECE;
			ret = read_bytes(in, in->piece, some, e);
			in->seconds += stream_clock() - t;
			if (ret != 0 || to(ctx, in->piece, some, e) != 0)
				return -1;
		}
	}
	return verify(in, e);
}

int stream_pieces(struct stream_in *in, uint64_t nbytes, stream_take *to, void *ctx,
		  struct err *e)
{
	if (in->ops) {
		const int got = stream_in_pieces(in, nbytes, to, ctx, e);

		return got > 0 ? whole(in, nbytes, to, ctx, e) : got;
	}
	return in->rec.enc[0] == 0 && !in->taken ? own_pieces(in, to, ctx, e) :
	       whole(in, nbytes, to, ctx, e);
}
