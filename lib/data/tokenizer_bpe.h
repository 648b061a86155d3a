/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tokenizer_bpe.h - tables of pairs of symbols, for tokenizer_bpe.c and tokenizer_merge.c
 */
#ifndef QP_TOKENIZER_BPE_H
#define QP_TOKENIZER_BPE_H

#include "lib/data/tokenizer_impl.h"

#define BPE_FREE UINT64_MAX /* no pair of ids */

static inline uint64_t pair_key(int32_t left, int32_t right)
{
	return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

static inline size_t pair_hash(uint64_t key)
{
	key *= 0x9e3779b97f4a7c15u;
	return (size_t)(key ^ key >> 32);
}

/* The merge of a pair, or the free slot where it would be. */
static inline struct tok_merge *merge_slot(const struct tok_bpe *b, int32_t left, int32_t right)
{
	uint64_t key = pair_key(left, right);
	size_t i = pair_hash(key) & b->merge_mask;

	while (b->merge[i].key != BPE_FREE && b->merge[i].key != key)
		i = (i + 1) & b->merge_mask;
	return &b->merge[i];
}

/* The same in the set of pairs that may stand side by side inside a token. */
static inline uint64_t *near_slot(const struct tok_bpe *b, int32_t left, int32_t right)
{
	uint64_t key = pair_key(left, right);
	size_t i = pair_hash(key) & b->near_mask;

	while (b->near[i] != BPE_FREE && b->near[i] != key)
		i = (i + 1) & b->near_mask;
	return &b->near[i];
}

#endif
