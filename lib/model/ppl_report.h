/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ppl_report.h - a perplexity and a divergence as lines for people, or as JSON
 */
#ifndef QP_PPL_REPORT_H
#define QP_PPL_REPORT_H

#include "lib/base/buf.h"
#include "lib/model/kl.h"
#include "lib/model/ppl.h"

struct ppl_report {
	const struct ppl_set *set;
	const struct ppl_result *ppl;
	const struct kl_result *kl;   /* NULL: not asked for */
	const struct kl_saved *saved; /* NULL: nothing saved */
};

void ppl_text(struct buf *out, const struct ppl_report *r);
void ppl_json(struct buf *out, const struct ppl_report *r);

#endif
