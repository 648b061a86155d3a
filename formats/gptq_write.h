/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gptq_write.h - a stream as a model directory of GPTQ's or AWQ's layout
 *
 * Of a linear [N, K] with codes of b bits in G groups, words being 32 bits, lowest bits first:
 *              GPTQ                                      AWQ (version gemm, 4 bits)
 *     qweight  [K b / 32, N], codes down the columns     [K, N / 8], eight rows a word
 *     qzeros   [G, N b / 32], zero - 1; v2: zero         [G, N / 8], zero
 *     scales   F16 [G, N]                                F16 [G, N]
 *     g_idx    I32 [K], k / group                        -
 * AWQ's i-th nibble of word c is row 8 c + { 0, 2, 4, 6, 1, 3, 5, 7 }[i].
 */
#ifndef QP_GPTQ_WRITE_H
#define QP_GPTQ_WRITE_H

#include "formats/export.h"

struct gptq_write_options {
	bool awq, v2;
	bool requantize;       /* what the layout cannot hold is made to fit, and said */
	enum dtype dtype;      /* of what has no codes; DT_NONE: what it had in the checkpoint */
	uint64_t max_shard;
	void (*progress)(uint64_t blocks);
};

/*
 * The stream that export_open has opened into dir, which the caller has opened and commits; all is
 * read back before it returns.  ERR_DATA naming what the layout cannot hold: codes of other bits,
 * scales that are no F16, a zero of 0 in v1, widths that do not fill words, linears that differ
 * in bits, group or symmetry; no codes at all.
 */
int gptq_write(struct outdir *dir, struct stream_in *in, struct export *x,
	       const struct gptq_write_options *o, struct err *e) MUST_USE;

#endif
