/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gptq.h - GPTQ: columns quantized one after the other, each one's error pushed into the rest
 *
 * Frantar et al., arXiv:2210.17323.  For y = x W', W [N, K] (rows are output channels) and
 * H = sum_t x_t x_t' (any positive multiple) minimises tr (W - Q) H (W - Q)' greedily:
 *
 *     Hd = H + shrink diag H + damp mean(diag H) I
 *     Hd^-1 = U' U,  U upper triangular (eq. 3, Cholesky form)
 *     for j = 0 .. K-1:   q_j = Q(w_j);  e = (w_j - q_j) / U_jj;  w_k -= e U_jk  for k > j
 *
 * With U = R^-1 that is (W - Q) R = E, E = [e_0 e_1 ..]: the solver updates by e and U within a
 * panel of columns (block), and by W - Q and R from panel to panel (gptq_solve.c), so that of
 * U only the panels' diagonal blocks are needed.
 *
 * shrink, which is not in the paper, leaves 1 / (1 + shrink) of every correlation, as if each input
 * had errors of its own of so much of its energy.  A channel that a few massive tokens rule has a
 * diagonal hundreds of times the mean, beside which damp is nothing: its error would be made up for
 * by other columns to the last digit in which those few tokens, but no others, are alike.
 *
 * mean(diag H) is over live columns.  Dead columns (H_jj = 0) get H_jj = 1 and weight 0, also
 * for the fit of ranges.  act_order processes columns by falling H_jj.  Group parameters: static
 * (fitted on the weights as they came, before any column is processed; required with act_order,
 * so that g_idx stays k / g), else fitted when the group's first column is reached, on the
 * weights with every update up to that column.  Factorization in f64; the column updates in f32;
 * scales are rounded to their stored type first (quantizer.h).
 *
 * The solver works in host memory; of the backend it uses panel_factor, gemm and the pool.
 */
#ifndef QP_GPTQ_H
#define QP_GPTQ_H

#include "lib/compute/backend.h"
#include "lib/method/layer.h"
#include "lib/method/quantizer.h"

/* What is done with an expert that fewer tokens than min_tokens were routed to: refuse it by name;
 * round to nearest; or borrow, for gate and up, the Hessian of all tokens of the layer (down is
 * rounded: nothing else has its input).  The layer's note gets keys "starved" and "tokens". */
enum gptq_starved { STARVED_STOP, STARVED_RTN, STARVED_BORROW };

struct gptq_options {
	struct quantizer q;
	long min_tokens;     /* of an expert */
	enum gptq_starved starved;
	bool act_order;
	bool static_groups;  /* implied by act_order */
	double damp;         /* 0.01: fraction of mean diag H */
	double shrink;       /* 0 as published: fraction of each H_jj */
	bool damp_auto;      /* on failure multiply damp by 10 up to 1 (0 starts at 1e-4) */
	long sweeps;         /* of coordinate descent after the columns */
	bool target;         /* of --sequential: W' of gptq_target.h instead of W */
	bool refit;          /* scales (and zeros) by least squares before each sweep */
	long block;          /* columns a panel, changes the order of sums only; 0: 128, or
			      * 256 from K = 2048 on */
};

/* What gptq does unless it is told otherwise. */
#define GPTQ_DEFAULTS \
	{ .damp = 0.01, .shrink = 0.2, .damp_auto = true, .min_tokens = 128, .sweeps = 2 }

/* Which of two candidates a linear kept, and why (gptq_guard.h). */
struct gptq_verdict {
	bool judged;         /* were there two? */
	bool keep_plain, unsure;
	double options, plain; /* J of each, in units of tr W Hv W' */
	size_t rows;         /* in which */
};

struct gptq_result {
	double damp, shrink; /* used */
	int damp_raised;     /* how often */
	long dead;           /* dead columns */
	double energy;       /* tr (W-Q) H (W-Q)', with H undamped and W as it came */
	double shrunk;       /* the same with H + shrink diag H */
	size_t sample;       /* the caller's: of how many rows the next is wanted */
	double sample_shrunk; /* shrunk of gptq_sampled's rows alone */
	bool moved;          /* was there another target than W? */
	double step;         /* how far W went there: a of gptq_target.h */
	double seconds;
	int64_t tokens_short; /* tokens in H where they are fewer than columns, else 0: for the
			       * note; gptq_quantize leaves it */
	int64_t tokens_aside; /* in Hv of gptq_guard.h; 0: none were set aside */
	struct gptq_verdict guard; /* these two too */
};

/* A factorized Hessian, shared by the linears that read one edge, and the solver's scratch. */
struct gptq_hessian;

/* tri: packed upper triangle, F32 sums (block.h), width k; kept by reference until the next call.
 * *h is made if it is NULL, else reused with its memory.  ERR_DATA if tri has a negative or
 * non-finite diagonal, is zero, or is not positive definite with the damping allowed:
 * "H is not positive definite with damp 0.01 (smallest pivot -3e-07 at 112); try --damp=0.05". */
int gptq_hessian_new(struct gptq_hessian **h, struct backend *be, const float *tri, size_t k,
		     const struct gptq_options *opt, const char *where, struct err *e) MUST_USE;
void gptq_hessian_free(struct gptq_hessian *h);

/* The i-th of n rows at even distances. */
static inline size_t gptq_sampled(size_t i, size_t n, size_t rows)
{
	return i * rows / n;
}

/* w [rows, k] in: weights; out: dequantized.  The energy comes from the solve itself: the sum of
 * all e^2 is tr (W-Q) Hd (W-Q)', less what was added to H. */
int gptq_quantize(struct quantized *z, struct gptq_result *res, struct gptq_hessian *h, float *w,
		  size_t rows, const struct gptq_options *opt, const char *where,
		  struct err *e) MUST_USE;

/* tr D H D' for D [rows, k], H packed upper triangle: the squared output of D summed over the
 * tokens in H.  N K^2 operations in f32, f64 across; scratch of 128 (k + 512) floats at most. */
int output_energy(struct backend *be, const float *d, size_t rows, size_t k, const float *tri,
		  double *energy, struct err *e) MUST_USE;

/*
 * A stage of blocks: linears of an edge share one factor; each gets its codes, scales, zeros, the
 * dequantized weight and a note.  Used Hessians are dropped unless they are kept.
 */
struct gptq;

struct gptq *gptq_new(struct backend *be, const struct gptq_options *opt,
		      const struct layer_options *layers, struct err *e);
void gptq_free(struct gptq *g);
/* By the Hessians in the stream; ERR_DATA naming an edge that has none. */
int gptq_block(struct gptq *g, struct block *b, struct err *e) MUST_USE;
/* A record outside the blocks, written: as it is but for linears that are quantized with --ends,
 * which front (block_pass_front) gathers. */
int gptq_other(struct gptq *g, struct block *front, struct stream_in *in, struct record *rec,
	       struct stream_out *out, struct err *e) MUST_USE;
/* What is known of an edge's input. */
struct gptq_input {
	const float *tri;    /* H, packed triangle, F32 */
	int64_t tokens;      /* in it */
	const float *whole;  /* an expert's: H of all tokens of the layer, or NULL */
	struct gptq_target *target; /* the full stream, or NULL */
	const float *aside;  /* H of windows set aside, which are in tri too, or NULL */
	int64_t tokens_aside;
};
/* The linears that read one edge. */
int gptq_edge(struct gptq *g, struct block *b, enum edge edge, const struct gptq_input *in,
	      struct err *e) MUST_USE;
/* Does any linear of the edge want a Hessian, or are all passed over? */
bool gptq_wants(const struct gptq *g, const struct block *b, enum edge edge);
/* Are windows set aside to judge options by (gptq_guard.h)? */
bool gptq_guarded(const struct gptq *g);
/* Is the full stream asked for? */
bool gptq_wants_target(const struct gptq *g);
/* Linears so far whose H had fewer tokens than they have columns. */
long gptq_short(const struct gptq *g);
/* Seconds in factors and in column solves so far. */
void gptq_seconds(const struct gptq *g, double *factor, double *solve);

/*
 * True sequence (--sequential): the calibration set runs through the blocks as they are
 * quantized, and within a block H of q, k, v comes first, then that of o, of gate and up, of
 * down, each from inputs that the linears before it, quantized, have made.  The stream's own
 * Hessians are not read.  Holds the hidden states and attention's output of all tokens, in memory
 * or in unlinked files below spill.  Experts: gate and up of all, shared ones too, from one pass,
 * then all down; the Hessians of a pass are held together.
 */
struct gptq_sequence;

struct gptq_sequence *gptq_sequence_new(struct gptq *g, const struct model *m, struct backend *be,
					const char *spill, struct err *e);
void gptq_sequence_free(struct gptq_sequence *s);
/* A record outside the blocks: copied to out; the calibration set and the embedding are taken on
 * the way.  ERR_DATA if the embedding comes and no set has, or if its ids or the length of its
 * windows are not for this model; ERR_VERSION for what this version cannot run. */
int gptq_sequence_other(struct gptq_sequence *s, struct stream_in *in, struct record *rec,
			struct stream_out *out, struct err *e) MUST_USE;
/* For the blocks that are read: the stream's own Hessians are not. */
extern const struct block_hook gptq_sequence_hook;
/* ERR_DATA if no embedding came before the first block. */
int gptq_sequence_block(struct gptq_sequence *s, struct block *b, struct err *e) MUST_USE;

#endif
