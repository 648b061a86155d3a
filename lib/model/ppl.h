/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ppl.h - perplexity of a text in the three dialects people compare by
 *
 *   gptq       the text is tokenized once (with the special tokens the tokenizer adds) and cut
 *              into windows of ctx tokens, the tail dropped; positions 1 .. ctx-1 of each are
 *              scored given those before them.  (GPTQ's code; the tables of most papers.)
 *   llama.cpp  the same windows, but the first token of each is replaced by the beginning-of-
 *              text token if the tokenizer adds one, and only positions ctx/2+1 .. ctx-1 are
 *              scored.  At least two windows.
 *   harness    lm-evaluation-harness's task wikitext: the text is split into documents at
 *              level-1 headings, each is detokenized, tokenized without special tokens and scored
 *              whole in windows of at most ctx predictions, the first after the prefix token,
 *              the last with as much context before it as fits.  The sum is divided by the number
 *              of words (runs of non-space) of the documents as they were.
 *
 * ppl = exp(nll), nll the mean over what is scored (harness: over words).  The standard error is
 * that of a mean of independent terms, times ppl, as llama.cpp prints it.
 */
#ifndef QP_PPL_H
#define QP_PPL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"

struct tokenizer;
struct model;

enum ppl_dialect { PPL_GPTQ, PPL_LLAMA_CPP, PPL_HARNESS };

struct ppl_options {
	enum ppl_dialect dialect;
	long ctx;      /* 0: gptq 2048, llama.cpp 512, but no more than the model's positions;
			* harness as many as those */
	long windows;  /* the first so many at most; 0: all */
};

/* What to run and what to score. */
struct ppl_set {
	enum ppl_dialect dialect;
	size_t ctx;       /* as asked for; reported */
	size_t seqlen;    /* tokens of each sequence: ctx, or less if none is as long */
	size_t windows;
	int32_t *ids;     /* [windows, seqlen]; zeros behind a short one: they change nothing */
	int32_t *target;  /* [windows, seqlen]: what the position is to predict; -1: not scored */
	size_t scored;    /* targets >= 0 */
	size_t units;     /* what the sum is divided by: scored, or words */
	size_t documents; /* harness, else 0 */
	char bos[16];     /* "none", "stream", "window", "prefix" */
};

struct ppl_result {
	double ppl, nll, error;
};

const char *ppl_dialect_name(enum ppl_dialect d);

/* ERR_DATA for text that is empty, not UTF-8, or too short for a window; ctx beyond the model's
 * positions; a tokenizer with more ids than its vocabulary; harness without a token to start
 * from. */
int ppl_prepare(struct ppl_set *s, const struct tokenizer *t, const struct model *m,
		const char *text, size_t n, const struct ppl_options *opt, struct err *e) MUST_USE;
void ppl_release(struct ppl_set *s);

/* nll [windows * seqlen], of head_nll.  ERR_DATA if one is not finite: the window is named. */
int ppl_score(const struct ppl_set *s, const double *nll, struct ppl_result *r,
	      struct err *e) MUST_USE;

#endif
