/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gptq_target.h - the full-precision stream beside the quantized one, and what it asks of weights
 *
 * With x the input of a linear in the model as it came and x^ that behind what is quantized
 * already, both as columns over the tokens of the calibration set,
 *
 *     M = X X^',  H = X^ X^',   C = (M - H) (H + d mean(diag H) I)^-1,   W' = W + a W C
 *
 * W' with a = 1, d = 0 makes |W X - W' X^|^2 least: what the layer was to give, from what it gets.
 * That is a fit, and with few tokens mostly one to their chance errors.  So every eighth window is
 * set aside (of fewer than eight, the last); with M, H of the others in C, and Mv, Hv of these,
 *
 *     a = tr W (Mv - Hv) (W C)' / tr W C Hv (W C)'     between 0 and 1, for each linear
 *
 * is the step that makes the error of the output least where nothing was fitted; 0: W stays.
 */
#ifndef QP_GPTQ_TARGET_H
#define QP_GPTQ_TARGET_H

#include "lib/compute/backend.h"
#include "lib/model/forward.h"

struct gptq_target;

struct gptq_target *gptq_target_new(const struct model *m, struct backend *be, const char *spill,
				    struct err *e);
void gptq_target_free(struct gptq_target *t);
/* The states of the quantized stream before the first block.  ERR_DATA for a single window. */
int gptq_target_start(struct gptq_target *t, const struct hidden *from, size_t seqlen,
		      struct err *e) MUST_USE;
/* The block's weights, as they came. */
int gptq_target_load(struct gptq_target *t, struct block *b, struct err *e) MUST_USE;

/* M of edges begins at 0. */
int gptq_target_zero(struct gptq_target *t, enum edge edge, struct err *e) MUST_USE;
/* The third of a block that comes next, for n sequences from token at on: keeps the inputs of
 * edges that want says.  attention: the inputs of attention; 1: attention's output, from before;
 * 2: the MLP's inputs; 3: its middle, and the block is done. */
int gptq_target_slice(struct gptq_target *t, int phase, size_t at, size_t n, struct err *e)
	MUST_USE;
/* The same tokens in the quantized stream: x^ [t, k] in the backend's memory. */
int gptq_target_add(struct gptq_target *t, enum edge edge, const float *x, size_t n,
		    struct err *e) MUST_USE;
/* C of the edge.  tri: H of all windows. */
int gptq_target_shift(struct gptq_target *t, enum edge edge, const float *tri, double damp,
		      const char *where, struct err *e) MUST_USE;
/* w [rows, k] of a linear that reads that edge becomes W'; *step: a. */
int gptq_target_move(struct gptq_target *t, float *w, size_t rows, double *step, struct err *e)
	MUST_USE;
/* tr D (Mv - Hv)' W' of rows as they came and their distance from what they became, d = w - q. */
int gptq_target_cross(struct gptq_target *t, const float *w, const float *d, size_t rows,
		      double *cross, struct err *e) MUST_USE;
/* Hv, until the next shift. */
const float *gptq_target_aside(const struct gptq_target *t);

#endif
