/* SPDX-License-Identifier: Apache-2.0 */
/*
 * trace.h - what a model makes of sequences, written as tensors: hidden states and logits
 */
#ifndef QP_TRACE_H
#define QP_TRACE_H

#include "lib/data/stream.h"
#include "lib/model/runner.h"

struct trace {
	struct runner *run;
	struct stream_out *out;
	size_t n;          /* sequences */
	const size_t *len; /* [n], or NULL: all have run->seqlen tokens */
};

/* hidden.N.WHAT [tokens, width], F32, of every sequence N; ERR_DATA naming the first value that is
 * not finite, here and below. */
int trace_hidden(const struct trace *t, const char *what, struct err *e) MUST_USE;
/* Behind the last block: logits.N [tokens, vocabulary]; of an image, [1, classes], those of its
 * class token, the first. */
int trace_logits(const struct trace *t, struct head *head, struct err *e) MUST_USE;
/* And hidden.N.norm: what the head reads.  The hidden states are used up. */
int trace_norm(const struct trace *t, struct head *head, struct err *e) MUST_USE;

#endif
