/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stream_impl.h - what stream_in.c and stream_out.c know about each other: a record that is
 * passed on goes from one to the other as it lies in the stream
 */
#ifndef QP_STREAM_IMPL_H
#define QP_STREAM_IMPL_H

#include "lib/base/buf.h"
#include "lib/data/input.h"
#include "lib/data/record.h"
#include "lib/data/stream.h"

struct aside;
struct hash;
struct zslice;

/* Payload bytes are moved and hashed in pieces that stay in a core's cache. */
#define STREAM_PIECE ((size_t)256 << 10)

struct stream_in {
	const struct stream_in_ops *ops; /* NULL: a stream file */
	void *self;

	struct input input;
	struct hash *sum;       /* of headers and bin prefixes so far */
	struct hash *payload;   /* of the current payload */
	struct zslice *z;
	uint64_t records;       /* headers so far */
	bool ended;
	double seconds;

	/* the current record */
	struct record rec;      /* its known keys; extra keys are not kept here */
	char calib[40];         /* stream_calib */
	char label[320];
	struct buf header;      /* as it lies in the stream */
	bool taken;             /* its payload was read */
	unsigned char *piece;   /* scratch for payloads nobody wants, or in pieces */
	struct aside *aside;    /* takes a payload while the caller goes on; NULL: none yet */
	void *ahead;            /* where to; NULL: nothing is being taken */
	void *whole;            /* of stream_pieces, for what cannot be had so */
	size_t whole_cap;
};

/* The parts of a payload, as it lies in the stream, are handed to this: each bin's prefix, then
 * its bytes in pieces. */
typedef int stream_sink(void *ctx, const void *p, size_t n, bool prefix, struct err *e);

/* Read the rest of the current record's payload, verified; sink may be NULL. */
int stream_in_drain(struct stream_in *in, stream_sink *sink, void *ctx, struct err *e) MUST_USE;

/* The payload of a source that is no stream file, nbytes, in pieces, as often as one likes; not
 * looked at.  1: it cannot be had so. */
int stream_in_pieces(struct stream_in *in, uint64_t nbytes, stream_take *to, void *ctx,
		     struct err *e) MUST_USE;

/* CPU time of this thread, in seconds. */
double stream_clock(void);

#endif
