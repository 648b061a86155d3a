/* SPDX-License-Identifier: Apache-2.0 */
/*
 * families.h - the list of families: family_NAME.c defines family_NAME
 */
#ifndef QP_FAMILIES_H
#define QP_FAMILIES_H

#include "lib/model/family.h"

#define FAMILIES(X) \
	X(llama) \
	X(mistral) \
	X(opt) \
	X(qwen2) \
	X(qwen2_moe) \
	X(qwen3) \
	X(vit)

#define X(name) extern const struct family family_##name;
FAMILIES(X)
#undef X

/* family_gated.c: what Llama and its relatives have in common; which rows hold is up to the
 * configuration. */
extern const struct tensor_row gated_tensors[];
extern const struct linear_row gated_linears[];
extern const struct edge_row gated_edges[EDGE_COUNT];
extern const char *const gated_ignored[];
/* family_plain.c: what families without a gate have in common */
extern const struct linear_row plain_linears[];
extern const struct edge_row plain_edges[EDGE_COUNT];

#endif
