/* SPDX-License-Identifier: Apache-2.0 */
/*
 * alloc.h - how many bits each linear gets, so that all together lose least within a size
 *
 * Each linear is quantized, for trial, at every width by its Hessian; E_b = tr (W-Q) Hs (W-Q)' is
 * its error there, Hs = H + shrink diag H as of the solve (rounding: H), P = tr W H W' the energy
 * of its output.  What it costs the model is taken
 * to be c E_b / P with c by what the linear is (alloc_weight), and the widths are those with the
 * least sum of costs among all choices of at most the size asked for: a multiple-choice knapsack,
 * solved exactly.  The experts of a layer have one P, the sum of theirs, for each of gate, up and
 * down: a token goes to few of them, so that all together are to the model what one dense linear
 * is, each by the tokens that it gets.
 *
 * Sizes are bits: codes, rows padded to bytes as pack-int4 does, scales, and zeros of 8 bits.
 */
#ifndef QP_ALLOC_H
#define QP_ALLOC_H

#include "lib/method/gptq.h"

#define ALLOC_WIDTHS 7 /* 2 .. 8 bits */

struct alloc_choice {
	uint64_t size; /* bits */
	double cost;   /* finite, >= 0 */
};

struct alloc_item {
	size_t n;      /* choices, 1 or more, in any order */
	struct alloc_choice choice[ALLOC_WIDTHS];
};

/*
 * pick[i]: the choice of each item, so that the costs' sum is least among all with sizes' sum at
 * most budget; of equal costs the smaller size.  Exact: partial solutions (size, cost) that no
 * other beats in both are kept, item by item (Nemhauser and Ullmann 1969).
 * ERR_DATA when the smallest choices already exceed the budget (*least: their size);
 * ERR_UNAVAIL when more than 2^26 partial solutions would have to be held.
 */
int alloc_solve(const struct alloc_item *items, size_t n, uint64_t budget, uint8_t *pick,
		uint64_t *least, struct err *e) MUST_USE;

enum alloc_fuse {
	FUSE_NONE,  /* each linear by itself */
	FUSE_EDGE,  /* q, k, v alike; gate, up alike; all experts of a layer alike */
};

struct alloc_options {
	struct layer_options layers; /* quantizer without its bits; what to pass over */
	struct gptq_options gptq;    /* for the trial */
	bool rtn;                    /* the trial rounds to nearest instead */
	unsigned widths;             /* bits 1 << b */
	enum alloc_fuse fuse;
	bool alike;                  /* c = 1 for all */
	double bits;                 /* of a weight on average, scales counted; 0: bytes */
	uint64_t bytes;
};

enum alloc_engine { ENGINE_ANY, ENGINE_VLLM, ENGINE_LLAMA_CPP };

/*
 * Options for what an engine runs from codes as they are, widths chosen if there are none:
 *     vllm       4 and 8 bits, groups of 32, 64, 128 or a row; q k v alike, gate and up alike
 *     llama.cpp  4, 5 and 8 bits (Q4_0, Q5_0, Q8_0), symmetric, groups of 32 or a multiple
 * ERR_USAGE for options that contradict it.
 */
int alloc_suit_engine(struct alloc_options *o, enum alloc_engine engine, struct err *e) MUST_USE;
/* And the model: ERR_DATA if llama.cpp's blocks do not divide a linear that is not passed over. */
int alloc_suit_rows(const struct alloc_options *o, enum alloc_engine engine,
		    const struct model *m, struct err *e) MUST_USE;

struct alloc;

/*
 * c: how much of a relative error of a linear's output arrives: 3/2 for k and down, 1 for gate and
 * up, 3/4 for q and o, 1/2 for v.  Round numbers from the divergence of two small models with all
 * linears of one kind, or one of them, at 3 bits; quantpipe-methods(7) has them, and what plans by
 * them gain.
 */
double alloc_weight(enum slot weight);

/* "2,4,8" -> bits; ERR_USAGE. */
int alloc_parse_widths(const char *list, unsigned *widths, struct err *e) MUST_USE;

struct alloc *alloc_new(struct backend *be, const struct alloc_options *o, struct err *e);
void alloc_free(struct alloc *a);

/* The linears of a block; the block's weights stay.  ERR_DATA for an edge without H, or codes. */
int alloc_block(struct alloc *a, struct block *b, struct err *e) MUST_USE;

struct alloc_sum {
	double bits;         /* of a weight, scales counted */
	double cost;         /* of the plan */
	double uniform_cost; /* of the widest width that fits everywhere */
	int uniform;         /* that width; 0: none does */
};

/* After the last block: the plan, and what it comes to.  ERR_DATA when the budget cannot be met:
 * says the least that can. */
int alloc_plan(struct alloc *a, const struct model *m, struct buf *out, struct alloc_sum *sum,
	       struct err *e) MUST_USE;
/* Errors of all linears at all widths, as a table: name, rows, cols, energy, error at each. */
void alloc_table(const struct alloc *a, struct buf *out);

#endif
