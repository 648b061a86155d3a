/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layer.h - the linears of a block as quantizers take them up and put them back
 *
 * What rtn and gptq share: which linears are passed over, the weight as it came (kept on
 * demand), the records that codes are stored in, and the note on the error made:
 *
 *     rel_err = tr (W-Q) H (W-Q)' / tr W H W'      against W as it came, H undamped
 *     w_rel_err = |W-Q|^2 / |W|^2                  where the stream has no H
 *
 * Both are ratios of squares; their roots are ratios of norms.
 */
#ifndef QP_LAYER_H
#define QP_LAYER_H

#include <regex.h>

#include "lib/method/plan.h"
#include "lib/method/quantizer.h"
#include "lib/model/block.h"

struct backend;
struct gptq_result;

#define LAYER_MAX_SKIP 32

struct layer_options {
	const char *by;        /* the program, for notes */
	struct quantizer q;    /* of linears that are not in the plan */
	const char *plan_path; /* the caller's, or NULL */
	struct plan plan;      /* what it held; empty: none */
	struct layer_skip {    /* linears whose tensor's name matches one pass untouched */
		const char *text; /* the caller's */
		regex_t regex;
	} skip[LAYER_MAX_SKIP];
	size_t n_skip;
	bool ends;             /* linears outside the blocks too: the patch embedding */
	bool keep_ref;         /* the weight as it came goes along as role ref */
	bool keep_stats;       /* Hessians are not dropped after use */
	bool codes_only;       /* the weights that codes stand for are left out (rtn) */
	bool timing;           /* notes get the key seconds */
};

/* One linear at work. */
struct layer {
	struct linear_row row;
	char name[256];        /* of the tensor */
	char where[256];       /* the same without "model." and ".weight": for messages */
	float *w;              /* [rows, cols], the block's own */
	size_t rows, cols;
	struct quantizer q;    /* its own */
	double energy;         /* tr W H W', or |W|^2 if there is no H: see layer_weigh */
	const char *starved;   /* for the note: what was done for want of tokens, or NULL */
	int64_t tokens;        /* that there were */
};

/* One more POSIX extended regular expression; ERR_USAGE if it is none. */
int layer_add_skip(struct layer_options *o, const char *text, struct err *e) MUST_USE;
void layer_options_release(struct layer_options *o);

bool layer_skipped(const struct layer_options *o, const struct model *m,
		   const struct linear_row *row, long layer);

/* The first of the skip patterns that no linear's name matches, or NULL. */
const char *layer_idle_skip(const struct layer_options *o, const struct model *m);

/* The quantizer of a linear by its tensor's name: the options', with bits and group of the plan. */
struct quantizer layer_quantizer(const struct layer_options *o, const char *name);

/* Every linear that is not passed over can be cut into groups, and the plan is for this model:
 * before anything is read.  ERR_DATA naming the first that cannot, with the sizes that do for all
 * of them; ERR_DATA for a plan that gives linears of one edge, which share a factor, several
 * groups. */
int layer_check_groups(const struct layer_options *o, const struct model *m, struct err *e)
	MUST_USE;

/* ERR_DATA if a linear that reads the edge, and is not passed over, is quantized already. */
int layer_refuse_quantized(const struct layer_options *o, struct block *b, enum edge edge,
			   struct err *e) MUST_USE;

/* 1: *l is the linear, its weight converted to F32 and copied as ref if that is asked for.
 * 0: passed over, with a note of kind "skipped" unless its kind is never quantized (routers).
 * ERR_DATA if it is quantized already. */
int layer_take(struct layer *l, struct block *b, const struct linear_row *row,
	       const struct layer_options *o, struct err *e) MUST_USE;

/* The same, but the weight stays of the type it came in, and l->w is NULL. */
int layer_pick(struct layer *l, struct block *b, const struct linear_row *row,
	       const struct layer_options *o, struct err *e) MUST_USE;

/* The packed triangle of H at the linear's edge, or NULL. */
const float *layer_hessian(struct block *b, enum edge edge);
void layer_drop_hessian(struct block *b, enum edge edge);

/* Fill l->energy.  tri NULL: there is no H. */
int layer_weigh(struct layer *l, struct backend *be, const float *tri, struct err *e) MUST_USE;

/* Codes, scales and, if asymmetric, zeros as new records before the weight's. */
int layer_store(const struct layer *l, struct block *b, const struct quantized *z,
		const struct layer_options *o, struct err *e) MUST_USE;

/* The note of kind "layer-error".  energy: of W - Q.  has_h: which of the two errors it is.
 * res: gptq's damping and dead columns, or NULL. */
int layer_note(const struct layer *l, struct block *b, const struct layer_options *o,
	       double energy, bool has_h, const struct gptq_result *res, double seconds,
	       struct err *e) MUST_USE;

#endif
