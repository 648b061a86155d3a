/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qwt.h - affine compensation of quantized blocks, fitted in closed form
 *
 * Two hidden streams start from the same embeddings: one goes through the reference blocks, one
 * through the quantized ones, with what run records ask for and with the compensation found so
 * far.  At a place (a block, or attention and the MLP by themselves) with input x of the quantized
 * stream and the two streams' outputs y and y~,
 *     y~ += W x + b        W, b: least squares for e = y - y~ (qwt_solve.h)
 * (QwT, arXiv:2411.13918; QwT-LLM fits to the reference's own stream, as here).  A token counts
 * v = 1 / mean(y^2): the norms behind divide by that, and a few massive tokens would decide for
 * all others.  The sequences of the calibration set are cut in two: the last `holdout` of them
 * judge what the others fitted.  Where the ridge is to be chosen, the first half of those does that
 * and then joins the fit, so that no window judges what it has chosen.  On those that judge, e^
 * being what W and b, rounded to how they are stored, say of e,
 *     R^2 = 1 - sum v |e - e^|^2 / sum v |e - mean e|^2
 * A place is compensated if R^2 > 0 and sum v |e - e^|^2 < sum v |e|^2; else it stays as it is, and
 * a note of kind "compensation" says why.
 *
 * Where activations are clamped (lib/compute/clamp.h), what is left without a compensation is left
 * without a clamp too, as published: then the note has "unclamped" true.
 */
#ifndef QP_QWT_H
#define QP_QWT_H

#include "lib/compute/backend.h"
#include "lib/data/calib.h"
#include "lib/model/run.h"

struct qwt_options {
	bool sublayers;      /* attention and the MLP, each by itself */
	enum run_form form;
	long rank;           /* FORM_LOW_RANK */
	double ridge;        /* times each channel's variance; below 0: of 1e-4, 1e-3 ... 100 the
			      * one with the least error, or 0.01 where windows do not choose */
	bool compat;         /* as published: f32 inverse, no ridge, tokens count alike, judged on
			      * what was fitted */
	double holdout;      /* of the sequences, 0: judged on what was fitted */
	long begin;          /* blocks before it stay */
	const char *except;  /* "0,3": these too; or NULL */
	enum dtype dtype;    /* of W and b: F32, F16, BF16 */
	bool keep_clamp;     /* what is not compensated stays clamped */
};

/* "0,3" into o->except; ERR_USAGE. */
int qwt_except(struct qwt_options *o, const char *list, struct err *e) MUST_USE;
/* All options are there: a rank makes the form FORM_LOW_RANK, a holdout below 0 (not given) is
 * 0.2.  ERR_USAGE for what contradicts. */
int qwt_check(struct qwt_options *o, struct err *e) MUST_USE;
/* ERR_DATA if ref is no reference for m: its streams have other shapes. */
int qwt_same(const struct model *m, const struct model *ref, struct err *e) MUST_USE;

struct qwt;

/* ERR_DATA for a block in except that the model has not, and when begin and except leave none. */
struct qwt *qwt_new(const struct qwt_options *opt, const struct model *m, struct backend *be,
		    struct err *e);
void qwt_free(struct qwt *q);
/* The set that the streams carry; kept by reference.  Before the first tensor. */
int qwt_calib(struct qwt *q, const struct calib *c, struct err *e) MUST_USE;
/* A tensor in front of the blocks: 1, taken, to be written as *it; 0: another record. */
int qwt_front(struct qwt *q, struct stream_in *in, const struct record *rec, struct item **it,
	      struct err *e) MUST_USE;
/* The same of a reference's own stream, after qwt_calib: it starts from its own embeddings. */
int qwt_ref_front(struct qwt *q, struct stream_in *in, const struct record *rec,
		  struct err *e) MUST_USE;
/* Fit the block; records are added to it.  ref: the reference's same block, or NULL: the `ref`
 * records in b; ERR_DATA if it has codes without, or if a reference's embeddings are not those of
 * the stream but for rounding: one of the two was rotated. */
int qwt_block(struct qwt *q, struct block *b, struct block *ref, struct err *e) MUST_USE;
/* Of places and of blocks. */
struct qwt_counts {
	long taken, tried;      /* places compensated, and all that were tried */
	long clamped, were;     /* blocks with a clamp, and all that came with one */
};
struct qwt_counts qwt_count(const struct qwt *q);

#endif
