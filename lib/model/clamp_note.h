/* SPDX-License-Identifier: Apache-2.0 */
/*
 * clamp_note.h - what a clamp (lib/compute/clamp.h) would make of an edge's samples, as a note
 */
#ifndef QP_CLAMP_NOTE_H
#define QP_CLAMP_NOTE_H

#include "lib/base/buf.h"
#include "lib/model/block.h"
#include "lib/compute/quant.h"

/*
 * A note of kind "clamp", named "layers.3.mlp.in", if the block has samples of the edge; one that
 * was there is replaced.  Keys: group; tokens, the samples; int4, int5_6, int7_8: fractions of the
 * groups by what they need; packed: bytes of the codes as clamp_pack stores them, part of those
 * they have without.  q is the quantizer, with its clamp; a dynamic grid for a whole tensor is made
 * from all samples.  ERR_DATA: a sample that no grid holds.
 */
int clamp_note(struct block *b, enum edge g, const struct quant *q, struct err *e) MUST_USE;

/* Inputs of the block's linears whose quantizers have a clamp. */
size_t clamp_count(const struct block *b);
/* Takes the clamps of attention's inputs, of the MLP's, or of both from their quantizers; notes on
 * them then say so: "off" true, packed 1.  *n: how many had one. */
int clamp_drop(struct block *b, bool attention, bool mlp, size_t *n, struct err *e) MUST_USE;

/* The means of a table of such notes, and how many are not off. */
struct clamp_table {
	double sum[4], edges; /* int4, int5_6, int7_8, packed */
	long on, blocks, blocks_on;
	char block[64];       /* "layers.3." of the last note */
	bool block_is_on;
};

/* Head of the table, a note's line, the lines of the means and counts.  1: r is such a note; 0: it
 * is not; -1: ERR_DATA. */
void clamp_table_head(struct buf *out);
int clamp_table_row(struct clamp_table *t, struct buf *out, const struct record *r,
		    struct err *e) MUST_USE;
void clamp_table_mean(const struct clamp_table *t, struct buf *out);

#endif
