/* SPDX-License-Identifier: Apache-2.0 */
/*
 * smooth_impl.h - what smooth.c and search.c share: one edge at work
 */
#ifndef QP_SMOOTH_IMPL_H
#define QP_SMOOTH_IMPL_H

#include "lib/method/smooth.h"

/* s over the producer's n channels; consumers' columns over width. */
struct smoothing {
	struct block *b;
	struct edge_row row;
	char name[256];
	size_t n, width;
	size_t group, head; /* see smoothing_channel */
	double *s, *x, *w;  /* factors; a statistic of the activations, one of the weights */
};

/* *m: the edge with s, x and w zeroed; to be closed unless this fails. */
int smoothing_open(struct smoothing *m, struct block *b, enum edge g, struct err *e) MUST_USE;
void smoothing_close(struct smoothing *m);

/* The producer's channel that column c of a consumer reads. */
static inline size_t smoothing_channel(const struct smoothing *m, size_t c)
{
	return c / m->head / m->group * m->head + c % m->head;
}

/* The next linear that reads the vector, from the *n-th of the layer on: all of its tokens, or, an
 * expert's, some. */
bool smoothing_consumer(const struct smoothing *m, size_t *n, struct linear_row *row);
/* Weight, bias or norm as F32; refused once it is codes. */
float *smoothing_weight(const struct smoothing *m, enum slot slot, struct err *e);
size_t smoothing_rows(const struct smoothing *m, enum slot slot);

/* s onto consumers, 1 / s onto the producer, and the statistics; ERR_DATA when a value leaves the
 * range of F32. */
int smoothing_apply(const struct smoothing *m, struct err *e) MUST_USE;

/* Whether the options name the edge: those of experts go with mlp.mid. */
bool smooth_chosen(const struct smooth_options *opt, enum edge g);

#endif
