/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tasks.h - zero-shot tasks: likelihoods of continuations, as lm-evaluation-harness has them
 *
 * A sample asks how likely a model finds continuations after contexts:
 *
 *     ll(continuation | context) = sum over its tokens of log softmax(logits)[token]
 *
 * Context and continuation are tokenized as the harness does it: white space at the context's end
 * goes to the continuation; the context's tokens are those of the context alone, the
 * continuation's are those of both together behind as many (if there are none, for a merge across
 * its end, the context is what both begin with); an empty context is the prefix token (BOS, else
 * EOS).  Of all tokens the last ctx + 1 are taken, the last of which is only predicted.
 *
 * For n continuations with lengths c_i (of the choice's text, without what joins it):
 *     acc        argmax ll_i is the right one (the first of equal ones)
 *     acc_norm   argmax ll_i / c_i, c_i in characters;  acc_bytes: in bytes of UTF-8
 *     cloze      acc: every token of the one continuation is the most likely; ppl = exp(-mean ll)
 * Standard errors: sqrt(p (1 - p) / n) of proportions, that of the mean of ll times ppl for ppl.
 */
#ifndef QP_TASKS_H
#define QP_TASKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/data/tokenizer.h"
#include "lib/model/family.h"

struct head;
struct hidden;

enum task_kind {
	TASK_CHOICE, /* one context, several continuations */
	TASK_SCHEMA, /* several contexts, one continuation (partial scoring): acc only */
	TASK_CLOZE,  /* one of each */
};

enum task_bos { TASK_BOS_AUTO, TASK_BOS_NEVER, TASK_BOS_ALWAYS };

#define TASK_MAX_CHOICES 64

struct task_text {
	const char *p;
	size_t n;
};

/* A sample as a template made it.  With TASK_CHOICE all contexts are the same. */
struct task_query {
	enum task_kind kind;
	size_t n, gold; /* gold < n */
	struct task_text context[TASK_MAX_CHOICES], continuation[TASK_MAX_CHOICES];
	struct task_text choice[TASK_MAX_CHOICES]; /* what c_i counts */
};

/* One continuation after one context. */
struct task_request {
	size_t at;            /* tasks.ids.id[at .. at + n): what goes in, and one more */
	uint32_t n, scored;   /* the last `scored` of them are the continuation */
	uint32_t chars, bytes;
	size_t stem, row, own; /* inputs [0, stem) are rows from `row`, the others from `own` */
	double ll;
	bool greedy;          /* each token is the argmax; only known of TASK_CLOZE */
};

struct task_sample {
	size_t first, n, gold; /* requests */
};

struct task {
	char name[64];
	enum task_kind kind;
	size_t first, n;      /* samples */
};

/*
 * Rows of hidden states, so that what several inputs of a sample begin with is computed once:
 * `stem` rows, then `branches` continuations of it, lengths from tasks.length[first] on.
 */
struct task_tree {
	size_t row, stem, first, branches;
};

struct tasks {
	/* set by the caller */
	const struct tokenizer *tok;
	const struct model *model;
	enum task_bos bos;
	long ctx;             /* 0: as many as the model has positions */
	/* kept here */
	struct task *task;
	struct task_sample *sample;
	struct task_request *request;
	struct task_tree *tree;
	size_t n_task, n_sample, n_request, n_tree;
	size_t cap_task, cap_sample, cap_request;
	size_t *length;       /* of branches */
	size_t truncated;     /* requests that lost tokens on the left */
	struct ids ids;
	size_t rows, longest; /* of the layout; longest: positions of an input */
	int32_t *row_id;      /* [rows] */
	int32_t *row_position;
};

void tasks_release(struct tasks *t);

/* A new task; samples that are added belong to it.  ERR_USAGE for a name that is there already. */
int tasks_begin(struct tasks *t, const char *name, struct err *e) MUST_USE;
/* ERR_DATA: another kind than the task's samples before, a continuation without a token or longer
 * than ctx, no token to start from, text that is not UTF-8. */
int tasks_add(struct tasks *t, const struct task_query *q, struct err *e) MUST_USE;

/*
 * All samples are there: which row each input is in.  What all inputs of a sample begin with (the
 * context, or what its contexts have in common) is there once, each one's rest behind it.
 * ERR_DATA if a task has no sample.
 */
int tasks_layout(struct tasks *t, struct err *e) MUST_USE;

/* The whole model has gone by, h [rows]: fills ll and greedy.  ERR_DATA for logits that are not
 * finite, naming task and sample. */
int tasks_score(struct tasks *t, struct head *head, const struct hidden *h,
		struct err *e) MUST_USE;

/* What a sample's answer was. */
struct task_answer {
	bool acc, acc_norm, acc_bytes;
};

struct task_answer task_answer(const struct tasks *t, const struct task *k, size_t sample);

/* NAN: not defined for this kind of task. */
struct task_result {
	size_t n;
	double acc, acc_error, norm, norm_error, bytes, bytes_error, ppl, ppl_error;
};

void task_result(struct task_result *r, const struct tasks *t, const struct task *k);
/* Unweighted means over tasks, their errors sqrt(sum of squares) / tasks; norm and bytes take acc
 * where a task has none.  ppl is NAN. */
void task_mean(struct task_result *r, const struct task_result *of, size_t n);

#endif
