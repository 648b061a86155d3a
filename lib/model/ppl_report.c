/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ppl_report.c - a perplexity and a divergence in words
 */
#include "lib/model/ppl_report.h"

#include <math.h>

void ppl_text(struct buf *out, const struct ppl_report *r)
{
	const struct ppl_set *s = r->set;

	buf_printf(out, r->ppl->ppl < 1e6 ? "ppl %.4f +/- %.4f" : "ppl %.4g +/- %.4g",
		   r->ppl->ppl, r->ppl->error);
	buf_printf(out, "  nll %.6f  tokens %zu  windows %zu  ctx %zu  dialect %s  bos %s",
		   r->ppl->nll, s->scored, s->windows, s->ctx, ppl_dialect_name(s->dialect),
		   s->bos);
	if (s->dialect == PPL_HARNESS)
		buf_printf(out, "  words %zu  documents %zu", s->units, s->documents);
	buf_byte(out, '\n');
	if (r->kl != NULL) {
		buf_printf(out, "kl %.6g +/- %.2g  99%% %.6g  max %.6g  top-1 %.4f +/- %.4f  "
			   "reference ppl %.6g", r->kl->mean, r->kl->error, r->kl->p99, r->kl->max,
			   r->kl->top1, r->kl->top1_error, exp(r->kl->ref_nll));
		if (r->kl->rest > 0)
			buf_printf(out, "  outside the base %.3g", r->kl->rest);
		if (r->kl->rest > 0 && r->kl->drawn == 0)
			buf_puts(out, ", as one: a lower bound");
		buf_byte(out, '\n');
	}
	if (r->saved != NULL)
		buf_printf(out, "base: %zu positions, top %zu, drawn %zu, %llu bytes, outside of "
			   "it %.3g of the mass, at most %.3g\n", r->saved->positions,
			   r->saved->keep.top, r->saved->keep.drawn,
			   (unsigned long long)r->saved->bytes, r->saved->rest,
			   r->saved->rest_max);
}

void ppl_json(struct buf *out, const struct ppl_report *r)
{
	const struct ppl_set *s = r->set;

	buf_printf(out, "{\"ppl\": %.10g, \"stderr\": %.10g, \"nll\": %.10g, \"tokens\": %zu, "
		   "\"windows\": %zu, \"ctx\": %zu, \"dialect\": \"%s\", \"bos\": \"%s\"",
		   r->ppl->ppl, r->ppl->error, r->ppl->nll, s->scored, s->windows, s->ctx,
		   ppl_dialect_name(s->dialect), s->bos);
	if (s->dialect == PPL_HARNESS)
		buf_printf(out, ", \"words\": %zu, \"documents\": %zu", s->units, s->documents);
	if (r->kl != NULL)
		buf_printf(out, ", \"kl\": %.10g, \"kl_stderr\": %.10g, \"kl_p99\": %.10g, "
			   "\"kl_max\": %.10g, \"top1\": %.10g, \"top1_stderr\": %.10g, "
			   "\"ppl_ref\": %.10g, \"kl_outside\": %.10g, "
			   "\"kl_drawn\": %zu",
			   r->kl->mean, r->kl->error, r->kl->p99, r->kl->max, r->kl->top1,
			   r->kl->top1_error, exp(r->kl->ref_nll), r->kl->rest, r->kl->drawn);
	if (r->saved != NULL)
		buf_printf(out, ", \"base_top\": %zu, \"base_drawn\": %zu, \"base_bytes\": "
			   "%llu, \"base_outside\": %.10g, \"base_outside_max\": %.10g",
			   r->saved->keep.top, r->saved->keep.drawn,
			   (unsigned long long)r->saved->bytes, r->saved->rest,
			   r->saved->rest_max);
	buf_puts(out, "}\n");
}
