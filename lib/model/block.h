/* SPDX-License-Identifier: Apache-2.0 */
/*
 * block.h - one transformer block in memory, read from and written to a stream
 *
 * The unit of work of every filter.  A block is the list of its records, in order,
 * known ones indexed by slot, edge and role; records nobody knows travel along.  Buffers
 * are kept from block to block, so that a filter touches new pages only for the first.
 */
#ifndef QP_BLOCK_H
#define QP_BLOCK_H

#include "lib/data/stream.h"
#include "lib/model/family.h"

enum stat { STAT_ABSMAX, STAT_ABSMEAN, STAT_MIN, STAT_MAX, STAT_HESSIAN, STAT_SAMPLES,
	    STAT_COUNT };
const char *stat_name(enum stat s); /* "absmax" ...: the value of key "stat" */
/* ERR_DATA if r is a statistic that names another calibration set than calib, the fingerprint of
 * the stream's ("": it has none). */
int stat_check_calib(const struct record *r, const char *calib, struct err *e) MUST_USE;

struct item {
	struct record rec;
	void *data;      /* rec.nbytes, 64-byte aligned, NULL when it has no payload */
	size_t cap;
	enum slot slot;  /* of a tensor with a checkpoint's name, else SLOT_NONE */
	int edge, stat;  /* of a statistic, else -1 */
	bool drop;       /* not written */
	bool passed;     /* written already (flow.h) */
};

struct block;
struct codes;

/*
 * What a program that works on one tensor at a time puts between reading and keeping: may be
 * NULL, as may each of them.  wants: false before a payload is read leaves it unread, its item
 * without data and dropped.  ahead: its header has been read, and its payload is being read by
 * another thread meanwhile (of the stream nothing may be taken).  each: an item has been read and
 * checked; it may be written and its data given back (block_give), so that the block never stands
 * in memory as a whole.
 */
struct block_hook {
	bool (*wants)(struct block *b, const struct item *it);
	int (*ahead)(void *ctx, struct block *b, const struct item *it, struct err *e);
	int (*each)(void *ctx, struct block *b, struct item *it, struct err *e);
	void *ctx;
};

struct block {
	const struct model *model;
	const struct block_hook *hook;
	long layer;      /* -1 before the first */
	struct item *items;
	size_t n, cap;
	struct record begin, end; /* "block" and "block-end" as they came */
	struct spare *spare;      /* buffers of the block before, by what they held */
	size_t n_spare, cap_spare;
};

/*
 * Read on until a whole block is there.
 *   1: *b holds the records between "block" and "block-end" (both excluded).
 *   0: END was seen and verified.   -1: *e.
 * Records outside blocks are handed to other(ctx, in, rec, e) as they come (0, or -1 with
 * *e set); it may take the payload by stream_payload or pass it on by stream_copy.
 * A block out of order, nested, unfinished, with a tensor twice or of the wrong shape, or with
 * values that are not finite is ERR_DATA with the tensor's name.
 */
int block_read(struct block *b, struct stream_in *in,
	       int (*other)(void *ctx, struct stream_in *in, struct record *rec, struct err *e),
	       void *ctx, struct err *e) MUST_USE;
int block_write(struct block *b, struct stream_out *out, struct err *e) MUST_USE;
void block_init(struct block *b, const struct model *m);
void block_release(struct block *b);

/* The item of a slot and role (weight or bias: ROLE_WEIGHT stands for both), or NULL. */
struct item *block_find(struct block *b, enum slot s, enum role role);
struct item *block_stat(struct block *b, enum edge e, enum stat s);
/* A statistic of a place that no linear reads (run.h), as its name says; nothing has been checked
 * but that it stands in this block. */
struct item *block_stat_of(struct block *b, const char *name, enum stat s);

/* A new item after the last of the same slot or edge, but of a linear in the order codes, scale,
 * zero, weight, ref; data is allocated, not cleared.  The pointer is good until the next item is
 * added. */
struct item *block_add(struct block *b, const struct record *rec, struct err *e);
/* The item's data is needed no more: its buffer serves the next item that comes.  The record
 * stays. */
int block_give(struct block *b, struct item *it, struct err *e) MUST_USE;
/* Buffers that were given back go to the system instead of to the next block. */
void block_trim(struct block *b);
/* Remove every statistic. */
int block_drop_stats(struct block *b, struct err *e);
/* A new note, kind being its key "kind". */
struct item *block_note(struct block *b, const char *name, const char *kind, struct err *e);

/*
 * A tensor outside the blocks (embedding, final norm, head): its payload, held to the model's
 * table and finite like those of a block.  it: zeroed, or used before (its buffer is reused).
 */
/* The same without the payload, which is the caller's to take: it->data is nothing. */
int item_head(struct item *it, const struct model *m, const struct record *rec,
	      struct err *e) MUST_USE;
int item_read(struct item *it, const struct model *m, struct stream_in *in,
	      const struct record *rec, struct err *e) MUST_USE;
void item_release(struct item *it);

/*
 * Linears in front of the blocks (the patch embedding): their statistics, weight and codes make a
 * block of its own, front, of layer -1, so that what works on a block's linears works on them.
 *
 * block_take_front: 1, the record at hand is such a one and has been taken; 0, it is another.
 * block_write_front: the items, in order; the block is empty then.
 * block_pass_front: for filters, each record outside the blocks: when a linear has come whole,
 * make(ctx, front, e), and it is written; 1, 0 as above.  Then block_write_front before the first
 * block, for what is left.
 */
int block_take_front(struct block *front, struct stream_in *in, const struct record *rec,
		     struct err *e) MUST_USE;
int block_write_front(struct block *front, struct stream_out *out, struct err *e) MUST_USE;
int block_pass_front(struct block *front, struct stream_in *in, const struct record *rec,
		     struct stream_out *out, int (*make)(void *ctx, struct block *b, struct err *e),
		     void *ctx, struct err *e) MUST_USE;

/*
 * The f32 weight of a linear, [rows, cols], wherever it comes from: a weight record (converted
 * in place to F32 and kept so) or, if there is none, codes, scale and zero dequantized into a
 * new weight item marked drop.  NULL and *e when the block has neither.
 */
float *block_weight_f32(struct block *b, enum slot s, struct err *e);
/* The codes of a linear dequantized into w [rows, cols]; the block is not changed. */
int block_dequantize(struct block *b, enum slot s, float *w, struct err *e) MUST_USE;
/* The codes of slot s, which are there, with the scale and zero that fit them (codes.h). */
int block_codes(struct block *b, enum slot s, struct codes *c, struct err *e) MUST_USE;
/* Any float item converted in place to F32 (its record too). */
float *item_f32(struct item *it, struct err *e);

/*
 * H of an edge: packed upper triangle, row by row, h[i][j], j >= i, at tri_index(i, j, K).
 * In the stream it is F32 [K(K+1)/2] with keys stat="hessian", width=K, tokens; the values
 * are sums over tokens of x_i x_j (not averaged), so that shards add up.
 */
static inline size_t tri_index(size_t i, size_t j, size_t k)
{
	return i * k - i * (i + 1) / 2 + j; /* j >= i */
}

#endif
