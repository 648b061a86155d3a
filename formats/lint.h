/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lint.h - will a model directory, or a GGUF file, load where it is to be served?
 *
 * A table of rules, each with the loaders it is about, the date of their state and the source it
 * was read in (lint_rules.c).  Headers and configuration are read, and of
 * weights the zeros of GPTQ.
 */
#ifndef QP_LINT_H
#define QP_LINT_H

#include <stdbool.h>

#include "lib/base/buf.h"
#include "lib/base/err.h"

enum { LINT_VLLM = 1, LINT_SGLANG = 2, LINT_TRANSFORMERS = 4, LINT_LLAMA_CPP = 8, LINT_ALL = 15 };

struct lint_options {
	unsigned loaders; /* LINT_ of those asked for */
	long tp;          /* ranks that linears are split over, 1: none */
};

/* Problems as lines "RULE: LOADERS: where: what", appended to out; *n of them.  ERR_NOINPUT if path
 * is not there, or a directory of something else; what of a model cannot be read is a problem, not
 * an error. */
int lint(struct buf *out, long *n, const char *path, const struct lint_options *o,
	 struct err *e) MUST_USE;
/* The rules as a table: name, loaders, date, source, what it says. */
void lint_list(struct buf *out);
/* "vllm,sglang" to a set; 0: a name that is not known. */
unsigned lint_loaders(const char *text);

#endif
