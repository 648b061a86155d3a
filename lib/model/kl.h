/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kl.h - how far a model's predictions are from a reference's, position by position
 *
 *     KL = sum_i p_i (log p_i - log q_i)      p the reference, q the model; natural logarithm
 *
 * from f32 logits, sums in f64, over the positions that a perplexity scores.  Reported are mean
 * and standard error, the 99th percentile (between ranks linear, as llama.cpp and numpy do it),
 * the largest, and how often both have the same most likely token.
 *
 * A base is a reference kept in a file: at each position the k most likely tokens with their
 * log-probabilities, and the mass r of all others.  Those count as one outcome,
 *
 *     KL_k = sum_top p_i (log p_i - log q_i) + r (log r - log(1 - sum_top q_i)) <= KL
 *
 * which is what can be known without their single probabilities: never above KL (the log sum
 * inequality), and KL itself where p/q is the same for all of them, or k is the vocabulary.
 */
#ifndef QP_KL_H
#define QP_KL_H

#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"

struct head;
struct hidden;
struct pool;
struct ppl_set;
struct record;
struct stream_in;
struct stream_out;

/* Hidden states behind the last block, and what makes logits of them. */
struct kl_model {
	struct head *head;
	const struct hidden *hidden;
	size_t vocab;
};

struct kl_result {
	size_t positions;
	double mean, error, p99, max;
	double top1, top1_error;
	double ref_nll; /* mean over s->units, as ppl_result.nll */
	double rest;    /* mean mass outside of a base's top; 0 without a base */
};

/* q against p on the positions that s scores.  Both have s's windows and one vocabulary
 * (ERR_DATA).  Results do not depend on the number of threads.  ERR_DATA, naming window and
 * position, for logits that are not finite. */
int kl_between(struct kl_result *r, const struct ppl_set *s, const struct kl_model *q,
	       const struct kl_model *p, struct pool *pool, struct err *e) MUST_USE;

/* What a base holds: its size in bytes, and the mass outside of its tops. */
struct kl_saved {
	size_t positions, top;
	uint64_t bytes;
	double rest, rest_max;
};

/* The header's keys, before stream_write_head: "top" (k, at most vocab), "vocab", "tokenizer". */
int kl_base_head(struct record *head, size_t top, size_t vocab, const char *fingerprint,
		 struct err *e) MUST_USE;
/* Everything behind the header. */
int kl_base_save(struct kl_saved *what, struct stream_out *out, const struct ppl_set *s,
		 const struct kl_model *p, size_t top, struct pool *pool,
		 struct err *e) MUST_USE;
/* Is this the header of a base? */
int kl_base_is(const struct record *head);
/* The base whose header has been read, up to its windows; vocab is the model's, *top the base's.
 * ERR_DATA when it was made of other windows or another vocabulary, or is damaged. */
int kl_base_open(struct stream_in *in, const struct record *head, const struct ppl_set *s,
		 size_t vocab, size_t *top, struct err *e) MUST_USE;
/* q against a base that is open, to its end.  ERR_DATA when it is damaged; naming tensor and row,
 * when its values cannot be: ids are distinct tokens, logarithms of probabilities finite, not
 * positive and in order, and with the rest they sum to 1. */
int kl_against_base(struct kl_result *r, const struct ppl_set *s, const struct kl_model *q,
		    struct stream_in *in, size_t top, struct pool *pool,
		    struct err *e) MUST_USE;

#endif
