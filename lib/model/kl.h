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
 * log-probabilities, the mass r of all others, and n tokens drawn from these in proportion to
 * their probability.  Those stand for all of them,
 *
 *     KL^ = sum_top p_i (log p_i - log q_i) + r / n sum_drawn (log p_i - log q_i)
 *
 * which over draws has the mean KL; the spread over positions, and so the standard error, has that
 * of the draws in it.  They are drawn in order of id at even distances of cumulative mass from a
 * start that is random at each position.  Without draws the others count as one outcome,
 *
 *     KL_k = sum_top p_i (log p_i - log q_i) + r (log r - log(1 - sum_top q_i)) <= KL
 *
 * never above KL (the log sum inequality), and KL itself where p/q is the same for all of them.
 * Where k is the vocabulary both are KL, and nothing is drawn.
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
	size_t drawn;   /* tokens that stand for it at each position */
};

/* What a base keeps of each position: its most likely tokens, and so many of the others. */
struct kl_keep {
	size_t top, drawn; /* drawn: 65536 at most */
};

/* q against p on the positions that s scores.  Both have s's windows and one vocabulary
 * (ERR_DATA).  Results do not depend on the number of threads.  ERR_DATA, naming window and
 * position, for logits that are not finite. */
int kl_between(struct kl_result *r, const struct ppl_set *s, const struct kl_model *q,
	       const struct kl_model *p, struct pool *pool, struct err *e) MUST_USE;

/* What a base holds: its size in bytes, and the mass outside of its tops. */
struct kl_saved {
	size_t positions;
	struct kl_keep keep;
	uint64_t bytes;
	double rest, rest_max;
};

/* The header's keys, before stream_write_head: "top" (k, at most vocab), "drawn" (unless 0),
 * "vocab", "tokenizer". */
int kl_base_head(struct record *head, struct kl_keep keep, size_t vocab, const char *fingerprint,
		 struct err *e) MUST_USE;
/* Everything behind the header. */
int kl_base_save(struct kl_saved *what, struct stream_out *out, const struct ppl_set *s,
		 const struct kl_model *p, struct kl_keep keep, struct pool *pool,
		 struct err *e) MUST_USE;
/* Is this the header of a base? */
int kl_base_is(const struct record *head);
/* The base whose header has been read, up to its windows; vocab is the model's, *keep the base's.
 * ERR_DATA when it was made of other windows or another vocabulary, or is damaged. */
int kl_base_open(struct stream_in *in, const struct record *head, const struct ppl_set *s,
		 size_t vocab, struct kl_keep *keep, struct err *e) MUST_USE;
/* q against a base that is open, to its end.  ERR_DATA when it is damaged; naming tensor and row,
 * when its values cannot be: ids are distinct tokens, those drawn none of them, logarithms of
 * probabilities finite, not positive and in order, and with the rest they sum to 1. */
int kl_against_base(struct kl_result *r, const struct ppl_set *s, const struct kl_model *q,
		    struct stream_in *in, struct kl_keep keep, struct pool *pool,
		    struct err *e) MUST_USE;

#endif
