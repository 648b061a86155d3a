/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stats.h - statistics of what flows over the edges of one block
 *
 * Sums or maxima, so that shards add up (qp-sum):
 *     absmax[j] = max_t |x_tj|       absmean: sum_t |x_tj| and the number of tokens
 *     min[j], max[j]                 hessian: H = sum_t x_t x_t', f64 accumulation
 *     samples: every n-th token's row, up to a limit
 * Of keys and values as the cache gets them, if asked for: min and max.
 * Stored as F32 (absmean as the mean, with key tokens to weight it by).
 */
#ifndef QP_STATS_H
#define QP_STATS_H

#include "lib/compute/backend.h"
#include "lib/model/block.h"

struct stats;

#define STATS_CACHE (1u << STAT_COUNT) /* beside the bits of statistics: keys and values too */

/* which: bits 1 << STAT_..., STATS_CACHE; samples: rows kept an edge (0: 128),
 * spread evenly over total_tokens.  front: of the edges in front of the blocks, else of theirs.
 * calib: fingerprint of the set that the tokens are from, kept by reference; "": not known. */
struct stats *stats_new(const struct model *m, struct backend *be, unsigned which, long samples,
			size_t total_tokens, const char *calib, bool front, struct err *e);
void stats_free(struct stats *s);
int stats_reset(struct stats *s, struct err *e) MUST_USE;
/* An edge_hook with ctx = struct stats *. */
int stats_hook(void *ctx, enum edge e, const float *x, size_t t, struct err *err);
/* A cache_hook with the same. */
int stats_cache_hook(void *ctx, bool values, const float *x, size_t t, struct err *err);
/* Add the records to b (all statistics that were there go); ERR_DATA naming the edge if a value
 * is not finite.  A hook of the block gets each as if it had been read. */
int stats_store(struct stats *s, struct block *b, struct err *e) MUST_USE;

/* "absmax,hessian" -> bits, of those in *which STATS_CACHE staying; "all"; "none", alone.  -1 and
 * *e (ERR_USAGE) for an unknown word, or none beside another. */
int stats_parse(const char *list, unsigned *which, struct err *e);

#endif
