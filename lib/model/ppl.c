/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ppl.c - windows of a text and what they score, in three dialects
 */
#include "lib/model/ppl.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/data/tokenizer.h"
#include "lib/model/family.h"
#include "lib/model/wikitext.h"

static const char *const names[] = { "gptq", "llama.cpp", "harness" };

const char *ppl_dialect_name(enum ppl_dialect d)
{
	return names[d];
}

void ppl_release(struct ppl_set *s)
{
	free(s->ids);
	free(s->target);
	memset(s, 0, sizeof(*s));
}

static int alloc_windows(struct ppl_set *s, struct err *e)
{
	const size_t n = s->windows * s->seqlen;

	s->ids = calloc(n, sizeof(*s->ids));
	s->target = malloc(n * sizeof(*s->target));
	if (s->ids == NULL || s->target == NULL)
		return err_nomem(e, "windows", n * 2 * sizeof(*s->ids));
	for (size_t i = 0; i < n; i++)
		s->target[i] = -1;
	return 0;
}

/* ---- gptq, llama.cpp: windows of one long text ---------------------------------------- */

static int check_count(const struct ppl_set *s, size_t tokens, struct err *e)
{
	const size_t need = s->dialect == PPL_LLAMA_CPP ? 2 : 1;

	if (s->windows >= need)
		return 0;
	return err_set(e, ERR_DATA, "text", "%zu tokens, too short for %s of %zu (--ctx)", tokens,
		       need == 2 ? "two windows" : "a window", s->ctx);
}

static int cut_windows(struct ppl_set *s, const struct ids *ids, int32_t bos,
		       const struct ppl_options *opt, struct err *e)
{
	const bool llama = s->dialect == PPL_LLAMA_CPP;
	const size_t first = llama ? s->ctx / 2 : 0; /* the first position that predicts */

	s->seqlen = s->ctx;
	s->windows = ids->n / s->ctx;
	if (check_count(s, ids->n, e) < 0)
		return -1;
	if (opt->windows > 0 && s->windows > (size_t)opt->windows)
		s->windows = (size_t)opt->windows;
	if (alloc_windows(s, e) < 0)
		return -1;
	memcpy(s->ids, ids->id, s->windows * s->ctx * sizeof(*s->ids));
	for (size_t w = 0; w < s->windows; w++) {
		for (size_t t = first; t + 1 < s->ctx; t++)
			s->target[w * s->ctx + t] = s->ids[w * s->ctx + t + 1];
		if (llama && bos >= 0)
			s->ids[w * s->ctx] = bos;
	}
	s->scored = s->units = s->windows * (s->ctx - 1 - first);
	snprintf(s->bos, sizeof(s->bos), "%s", bos < 0 ? "none" : llama ? "window" : "stream");
	return 0;
}

/* ---- harness: documents, rolling windows ---------------------------------------------- */

/* The documents' tokens, one after the other; where each ends. */
struct corpus {
	struct ids ids;
	size_t *end;
	size_t n, cap, words;
};

static int push_end(struct corpus *c, struct err *e)
{
	if (c->n == c->cap) {
		const size_t cap = c->cap == 0 ? 64 : 2 * c->cap;
		size_t *p = realloc(c->end, cap * sizeof(*p));

		if (p == NULL)
			return err_nomem(e, "documents", cap * sizeof(*p));
		c->end = p;
		c->cap = cap;
	}
	c->end[c->n++] = c->ids.n;
	return 0;
}

static int read_documents(struct corpus *c, const struct tokenizer *t, const char *text, size_t n,
			  struct err *e)
{
	struct buf page = { 0 };
	int ret = 0;

	for (size_t skip = 1; skip > 0 && ret == 0; text += skip, n -= skip) {
		const size_t len = wikitext_page(text, n, &skip);

		if (wikitext_blank(text, len))
			continue;
		buf_clear(&page);
		wikitext_detokenize(&page, text, len);
		ret = buf_failed(&page, "text", e);
		if (ret == 0)
			ret = tokenizer_encode(t, page.p, page.n, false, &c->ids, e);
		if (ret == 0)
			ret = push_end(c, e);
		c->words += wikitext_words(text, len);
	}
	buf_release(&page);
	return ret;
}

/*
 * Windows of the document [from, end): the k-th predicts tokens k ctx .. of it.  The first reads
 * the prefix token and what it predicts but the last; the others read the seqlen tokens before
 * the last that they predict.  Returns the next free window.
 */
static size_t roll(struct ppl_set *s, const int32_t *ids, size_t n, int32_t prefix, size_t w)
{
	for (size_t done = 0; done < n; w++) {
		const size_t some = n - done < s->ctx ? n - done : s->ctx, end = done + some;
		int32_t *in = s->ids + w * s->seqlen, *want = s->target + w * s->seqlen;
		/* Inputs are the tokens begin .. end - 2, the prefix standing at -1. */
		const size_t len = done == 0 ? some : s->ctx;
		const size_t before = done == 0 ? 0 : end - 1 - len;

		for (size_t t = 0; t < len; t++)
			in[t] = done > 0 ? ids[before + t] : t == 0 ? prefix : ids[t - 1];
		for (size_t t = len - some; t < len; t++)
			want[t] = ids[done + t - (len - some)];
		done = end;
	}
	return w;
}

static int roll_documents(struct ppl_set *s, const struct corpus *c, int32_t prefix,
			  struct err *e)
{
	size_t w = 0, longest = 0;

	for (size_t d = 0; d < c->n; d++) {
		const size_t n = c->end[d] - (d > 0 ? c->end[d - 1] : 0);

		s->windows += (n + s->ctx - 1) / s->ctx;
		longest = n > longest ? n : longest;
	}
	s->seqlen = longest < s->ctx ? longest : s->ctx;
	if (s->windows == 0)
		return err_set(e, ERR_DATA, "text", "empty");
	if (alloc_windows(s, e) < 0)
		return -1;
	for (size_t d = 0; d < c->n; d++) {
		const size_t from = d > 0 ? c->end[d - 1] : 0;

		w = roll(s, c->ids.id + from, c->end[d] - from, prefix, w);
	}
	s->scored = c->ids.n;
	s->units = c->words;
	s->documents = c->n;
	snprintf(s->bos, sizeof(s->bos), "prefix");
	return 0;
}

static int prepare_harness(struct ppl_set *s, const struct tokenizer *t, const struct model *m,
			   const char *text, size_t n, struct err *e)
{
	const int32_t bos = tokenizer_prefix_id(t);
	const long prefix = bos >= 0 ? bos : m->cfg.bos >= 0 ? m->cfg.bos : m->cfg.eos;
	struct corpus c = { 0 };
	int ret;

	if (prefix < 0)
		return err_set(e, ERR_DATA, "model", "neither a beginning- nor an end-of-text "
			       "token, one of which the harness puts in front");
	ret = read_documents(&c, t, text, n, e);
	if (ret == 0)
		ret = roll_documents(s, &c, (int32_t)prefix, e);
	ids_release(&c.ids);
	free(c.end);
	return ret;
}

/* ---- all --------------------------------------------------------------------------- */

static int choose_ctx(struct ppl_set *s, const struct model *m, const struct ppl_options *opt,
		      struct err *e)
{
	const long max = m->cfg.max_positions;
	long ctx = opt->ctx;

	if (ctx == 0) {
		ctx = s->dialect == PPL_HARNESS ? max : s->dialect == PPL_LLAMA_CPP ? 512 : 2048;
		ctx = ctx < max ? ctx : max;
	}
	if (ctx > max)
		return err_set(e, ERR_DATA, "--ctx", "%ld, but the model has %ld positions", ctx,
			       max);
	if (ctx < 2)
		return err_set(e, ERR_DATA, "--ctx", "%ld leaves nothing to predict", ctx);
	s->ctx = (size_t)ctx;
	return 0;
}

int ppl_prepare(struct ppl_set *s, const struct tokenizer *t, const struct model *m,
		const char *text, size_t n, const struct ppl_options *opt, struct err *e)
{
	struct ids ids = { 0 };
	int ret;

	memset(s, 0, sizeof(*s));
	s->dialect = opt->dialect;
	if (choose_ctx(s, m, opt, e) < 0 || tokenizer_fits(t, m->cfg.vocab, e) < 0)
		return -1;
	if (n == 0)
		return err_set(e, ERR_DATA, "text", "empty");
	if (s->dialect == PPL_HARNESS)
		return prepare_harness(s, t, m, text, n, e);
	ret = tokenizer_encode(t, text, n, true, &ids, e);
	if (ret == 0)
		ret = cut_windows(s, &ids, tokenizer_prefix_id(t), opt, e);
	ids_release(&ids);
	return ret;
}

int ppl_score(const struct ppl_set *s, const double *nll, struct ppl_result *r, struct err *e)
{
	const double n = (double)s->scored;
	double sum = 0, spread = 0, mean;

	for (size_t i = 0; i < s->windows * s->seqlen; i++)
		sum += s->target[i] >= 0 ? nll[i] : 0;
	mean = sum / n;
	for (size_t i = 0; i < s->windows * s->seqlen; i++) {
		if (s->target[i] < 0)
			continue;
		if (!isfinite(nll[i]))
			return err_set(e, ERR_DATA, "model", "window %zu, position %zu: the "
				       "logits are not finite", i / s->seqlen, i % s->seqlen);
		spread += (nll[i] - mean) * (nll[i] - mean);
	}
	r->nll = sum / (double)s->units;
	r->ppl = exp(r->nll);
	if (!isfinite(r->ppl))
		return err_set(e, ERR_DATA, "model", "perplexity exp(%g) is out of range", r->nll);
	/* Standard error of the sum, sqrt(n) deviations, brought to units. */
	r->error = n > 1 ? r->ppl * sqrt(spread / (n - 1) * n) / (double)s->units : 0;
	return 0;
}
