/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pipeline.h - the provenance of a stream as a pipeline that can be run again
 *
 *     record-acts "$MODEL" --calib="$CALIB" | smooth --alpha=0.5 | gptq --bits=4
 *
 * What was read is not in a stream, so it stands as a shell variable: "$MODEL" for the operand of
 * the first program (of calib-pack "$TEXT" or "$IMAGES"), and the name of the option for files
 * that options name.  record-acts further on reads what comes down the pipe: "-".
 */
#ifndef QP_PIPELINE_H
#define QP_PIPELINE_H

#include <stdbool.h>

#include "lib/base/buf.h"

struct record;

/* Append the pipeline, one line without its end; nothing if head has no key "prov".  ERR_DATA
 * when prov is not a list of maps with program and options. */
int pipeline_text(struct buf *out, const struct record *head, struct err *e) MUST_USE;

/* True if two streams were made in the same way: programs, versions and options; the backends
 * may differ.  False also when a prov is not what it should be. */
bool pipeline_agree(const struct record *a, const struct record *b);

#endif
