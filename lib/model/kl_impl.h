/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kl_impl.h - between kl.c and kl_base.c: positions in slices, and what is gathered of them
 */
#ifndef QP_KL_IMPL_H
#define QP_KL_IMPL_H

#include <stdbool.h>

#include "lib/model/hidden.h"
#include "lib/model/kl.h"
#include "lib/model/ppl.h"

/* Scored positions of s, some at a time; logits of one or two models are made of them. */
struct kl_slice {
	const struct ppl_set *s;
	size_t next;          /* place in s->target */
	size_t max, n;        /* rows of a slice; of this one */
	size_t *row;          /* [max] places in s->target */
	float *stage;         /* [max, widest] hidden states */
	float *logits[2];     /* [max, vocab] */
};

int kl_slice_init(struct kl_slice *c, const struct ppl_set *s, const struct kl_model *q,
		  const struct kl_model *p, struct err *e) MUST_USE;
void kl_slice_release(struct kl_slice *c);
/* The next scored positions, at most max and none beyond place `end`; false: there are none. */
bool kl_slice_next(struct kl_slice *c, size_t max, size_t end);
/* logits[which] of the slice's rows. */
int kl_slice_logits(struct kl_slice *c, int which, const struct kl_model *m,
		    struct err *e) MUST_USE;

/* What a position gives. */
struct kl_row {
	double kl, nll; /* the reference's, of the target */
	bool agree;     /* on the most likely token */
};

/* log(sum exp(x[i])) */
double kl_logsumexp(const float *x, size_t n);
size_t kl_argmax(const float *x, size_t n); /* the first of equals */

/* rows [positions], in order. */
int kl_summary(struct kl_result *r, const struct ppl_set *s, const struct kl_row *rows,
	       struct err *e) MUST_USE;

#endif
