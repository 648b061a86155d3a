/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hf_write.h - a stream as a Hugging Face model directory of plain weights
 */
#ifndef QP_HF_WRITE_H
#define QP_HF_WRITE_H

#include "formats/export.h"

struct hf_write_options {
	enum dtype dtype;     /* of all weights; DT_NONE: each the type it had in the checkpoint */
	bool dequantize;      /* codes become weights; else they are refused */
	uint64_t max_shard;
	void (*progress)(uint64_t blocks);
};

/*
 * The stream that export_open has opened into dir, which the caller has opened and commits.  When
 * it returns, all files have been written and read back.  ERR_DATA naming a linear in codes, a
 * value too large for the type, a record of what the run time must do (plain weights cannot say
 * it).
 */
int hf_write(struct outdir *dir, struct stream_in *in, struct export *x,
	     const struct hf_write_options *o, struct err *e) MUST_USE;

#endif
