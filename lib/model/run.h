/* SPDX-License-Identifier: Apache-2.0 */
/*
 * run.h - run records: what run time must do beside the weights, place by place of a block
 *
 * A place is a vector that flows through a block: the input of linears (an edge) or one of those
 * below.  An op is what one record says about one place.  A record nobody here knows, or a key of
 * one, is refused (ERR_VERSION): a model evaluated without it would be another model.  Ops at one
 * place are done in the order of their records.  In the stream they stand in their block, before
 * its tensors (man 5 quantpipe-stream).
 *
 * To add a kind: a row in run.c's table, which says how it is read, and the work it does, in
 * forward_run.c.
 */
#ifndef QP_RUN_H
#define QP_RUN_H

#include "lib/compute/quant.h"
#include "lib/model/block.h"

/* In the order of computation; PLACE_EDGES + g is the input of the linears that read edge g. */
enum run_place {
	PLACE_Q,          /* "attn.q"      queries, rotated */
	PLACE_K_RAW,      /* "attn.k.raw"  keys before RoPE */
	PLACE_K,          /* "attn.k"      keys as the cache holds them, rotated */
	PLACE_V,          /* "attn.v"      values */
	PLACE_P,          /* "attn.p"      attention probabilities of one query */
	PLACE_ATTN_RESID, /* "attn.resid"  the residual stream behind attention */
	PLACE_MLP_RESID,  /* "mlp.resid"   and behind the MLP */
	PLACE_OUT,        /* "out"         the block's output */
	PLACE_EDGES
};

enum run_kind {
	RUN_QUANT,  /* "act-quant": values to a grid and back */
	RUN_AFFINE, /* "affine": + W x + b, x the input of what ends here (compensation) */
	RUN_HADAMARD, /* "hadamard": every `order` values x become x H / sqrt(order) (hadamard.h) */
	RUN_KINDS
};

/* What is added at PLACE_ATTN_RESID, PLACE_MLP_RESID (x: the residual stream before attention, the
 * MLP) or PLACE_OUT (x: the block's input).  Of the items, role comp, those that are not there
 * are NULL. */
enum run_form { FORM_FULL, FORM_LOW_RANK, FORM_DIAGONAL };
enum run_part { PART_WEIGHT, PART_UP, PART_DOWN, PART_BIAS, PART_COUNT };
const char *run_form_name(enum run_form f);

struct run_op {
	enum run_kind kind;
	int place;
	struct quant quant;           /* RUN_QUANT; quant.fixed is grids, or NULL */
	size_t recent;                /* at K_RAW, K, V: the last ones stay as they are */
	struct quant_grid *grids;
	size_t order;                 /* RUN_HADAMARD */
	enum run_form form;           /* RUN_AFFINE; the items are the block's */
	const struct item *part[PART_COUNT];
};

struct run_list {
	struct run_op *op;
	size_t n, cap;
};

/* The run records of a block, checked against its model.  The list is zeroed, or of the block
 * before.  ERR_VERSION for what this version does not know, ERR_DATA for what makes no sense. */
int run_read(struct run_list *l, struct block *b, struct err *e) MUST_USE;
void run_release(struct run_list *l);

/* The next op of a place from index i on, or NULL. */
const struct run_op *run_at(const struct run_list *l, int place, size_t *i);

/* "layers.3.attn.k" and back; -1 for what this model does not have; buf[256]. */
int run_place_find(const struct model *m, const char *name, long *layer);
void run_place_name(const struct model *m, int place, long layer, char *buf);
/* "attn.k" alone, without a layer; experts' edges: "mlp.experts.N.in".  buf[256] */
void run_place_label(const struct model *m, int place, char *buf);
/* Width of a place; 0: PLACE_P, whose rows differ in length. */
size_t run_place_width(const struct model *m, int place);

/* A record of kind act-quant into a block, behind the run records it has.  ERR_DATA if the place
 * has a quantizer already, or q does not suit it. */
int run_add_quant(struct block *b, int place, const struct quant *q, size_t recent,
		  struct err *e) MUST_USE;
/* A record of kind affine; its tensors are the caller's to add, by run_part_name. */
int run_add_affine(struct block *b, int place, enum run_form form, struct err *e) MUST_USE;
/* A record of kind hadamard, before any quantizer's: ERR_DATA if the place has either. */
int run_add_hadamard(struct block *b, int place, size_t order, struct err *e) MUST_USE;
/* "layers.3.out.weight"; buf[256] */
void run_part_name(const struct model *m, int place, enum run_part part, long layer, char *buf);

/* Before a program changes what flows over edges: ERR_DATA if a quantizer of the block has ranges
 * that were found before, or it has a compensation; the message says to put `who` first.
 * ERR_VERSION for a record that run_read does not know: who knows what it wants to see. */
int run_refuse_fitted(struct block *b, const char *who, struct err *e) MUST_USE;
/* Before a program scales the channels of an edge: ERR_DATA if they are turned at run time. */
int run_refuse_turned(struct block *b, enum edge g, struct err *e) MUST_USE;

#endif
