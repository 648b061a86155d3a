/* SPDX-License-Identifier: Apache-2.0 */
/*
 * quant_acts.h - quantizers put at the places of a block, as run records
 *
 * Dynamic grids need nothing.  A static one is made from the block's statistics at the edge (of
 * keys, of values): min and max, or absmax where it is symmetric; the rules are those of
 * lib/compute/quant.h.  clip narrows the range [m, M] of a grid before the rule sees it:
 *     ratio       to [r m, r M], dynamic or static
 *     percentile  to what so many percent of the samples' values do not exceed, in |x| if
 *                 symmetric, else a half of the rest cut off at either end
 *     mse         to [p m, p M], p = 1 - i / 100, i = 0 .. 79, with the least sum of squares of
 *                 x - x~ over the samples
 */
#ifndef QP_QUANT_ACTS_H
#define QP_QUANT_ACTS_H

#include "lib/model/run.h"

enum quant_clip { CLIP_NONE, CLIP_RATIO, CLIP_PERCENTILE, CLIP_MSE };

struct quant_acts {
	struct quant q;        /* of inputs of linears; q.clip: CLIP_RATIO's */
	bool heads;            /* q.group is to be a head's */
	bool fixed;            /* static */
	enum quant_clip clip;
	double percent;        /* CLIP_PERCENTILE */
	bool told;             /* some of this was asked for: it must be of use */
	unsigned edges;        /* bits 1 << EDGE_..., up to EDGE_MLP_MID; experts' go along */
	const char *skip;      /* "mlp.mid,layers.0,layers.3.attn.in", or NULL */
	int kv, probs, resid;  /* bits, 0: not quantized */
	enum quant_format kv_format;
	bool kv_fixed;         /* static: a range a head, or one for all of e4m3 */
	bool kv_raw;           /* keys before RoPE */
	long kv_window;        /* tokens that stay as they are */
	double kv_clip;
};

/* "attn.in,mlp.mid", all or none -> bits; ERR_USAGE. */
int quant_acts_edges(const char *list, unsigned *edges, struct err *e) MUST_USE;
/* "0.9", "99.9%", "mse" into a->clip and what belongs to it; ERR_USAGE. */
int quant_acts_clip(const char *arg, struct quant_acts *a, struct err *e) MUST_USE;
/* "quarot", "gptq" ... into a->q.rule; ERR_USAGE. */
int quant_acts_rule(const char *name, struct quant_acts *a, struct err *e) MUST_USE;
/* "4", "e4m3" into a->kv and a->kv_format; ERR_USAGE. */
int quant_acts_kv(const char *arg, struct quant_acts *a, struct err *e) MUST_USE;
/* One of w8a8 w4a8 w4a4 w4a4kv4 fp8 (the half that is not the weights'); ERR_USAGE. */
int quant_acts_preset(const char *name, struct quant_acts *a, struct err *e) MUST_USE;
/* ERR_USAGE for options that contradict each other; ERR_DATA for what the model cannot, and for
 * a name in skip that no place has. */
int quant_acts_check(const struct quant_acts *a, const struct model *m, struct err *e) MUST_USE;
/* The block's records.  ERR_DATA: no statistics for a static range (the message says which program
 * makes them), a range of no width, a place that has a quantizer. */
int quant_acts_block(struct block *b, const struct quant_acts *a, struct err *e) MUST_USE;

#endif
