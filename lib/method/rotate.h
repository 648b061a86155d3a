/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rotate.h - orthogonal maps on the residual stream and inside a block, folded into the weights
 *
 * QuaRot (Ashkboos et al., arXiv:2404.00456) and SpinQuant (Liu et al., arXiv:2405.16406).  With
 * vectors as rows and W [out, in]:
 *
 *     R1  residual stream  x -> x R: tables and linears that write it (o, down): R' W, b R;
 *                          those that read it through a norm of gain g: W diag(g) R, gain 1
 *     R2  v -> o, a head   v: R' W_v, b_v R of every head;  o: W_o R of every head
 *     R3  q, k after RoPE  run time: q H, k H of every head; q H (k H)' = q k'
 *     R4  down's input     run time: m H;  W_down H
 *
 * An RMS norm without gain commutes with every rotation.  A layer norm takes the mean out first: it
 * commutes with those that leave the vector of ones where it is, so R1 of such families is one of
 * those (rotation.h) and the model remains one of its family.  (QuaRot subtracts the mean from all
 * that writes and has another norm afterwards.)  A bias c of the norm goes into the biases of the
 * linears that read it, b += W c, or where one of them has none becomes (c / g) R.
 *
 * A tied head gets g and R, the embedding R: the head is written as a tensor of its own.
 *
 * Products in f64, one rounding to F32 on store.  Statistics of an edge that is rotated: Hessians
 * become R' diag(1/g) H diag(1/g) R, samples x diag(1/g) R; maxima, means and minima cannot
 * follow, nor can anything where g has a 0 or a norm's bias went elsewhere: they are
 * dropped, and a note names them.
 */
#ifndef QP_ROTATE_H
#define QP_ROTATE_H

#include "lib/method/rotation.h"
#include "lib/model/block.h"
#include "lib/model/ends.h"

enum { ROTATE_R1 = 1, ROTATE_R2 = 2, ROTATE_R3 = 4, ROTATE_R4 = 8 };

struct rotate_options {
	unsigned which;		   /* ROTATE_* */
	enum rotation_kind kind;   /* R3 and R4 are Hadamard matrices, whatever this says */
	uint64_t seed;
	long block;		   /* order of R1 and R4, 0: the whole width */
	const char *file;	   /* a stream with tensors R1, R2; NULL: none */
	bool keep_tied;		   /* refuse rather than untie the head */
	bool matrix_given, seed_given; /* for rotate_check */
};

struct rotate;

/* Before anything is read.  ERR_DATA for what cannot be: norms that stand behind (OPT-350m), R3
 * without rotary positions, widths without a matrix.  *out is m, its head untied if need be. */
int rotate_new(struct rotate **r, const struct model *m, struct model *out,
	       const struct rotate_options *opt, struct pool *pool, struct err *e) MUST_USE;
void rotate_free(struct rotate *r);

/* A record outside the blocks: written to out, rotated if R1 touches it. */
int rotate_other(struct rotate *r, struct stream_in *in, struct record *rec,
		 struct stream_out *out, struct err *e) MUST_USE;
int rotate_block(struct rotate *r, struct block *b, struct err *e) MUST_USE;
/* Edges whose Hessians were dropped until now. */
long rotate_lost(const struct rotate *r);
/* All records have come.  ERR_DATA if a tied head has not. */
int rotate_finish(struct rotate *r, struct stream_out *out, struct err *e) MUST_USE;

/* ERR_USAGE for a matrix, seed or block that no rotation asked for has; none may have any. */
int rotate_check(const struct rotate_options *o, struct err *e) MUST_USE;
/* "r1,r2" -> bits; "none" is none.  ERR_USAGE for other words. */
int rotate_parse(const char *list, unsigned *which, struct err *e) MUST_USE;

#endif
