/* SPDX-License-Identifier: Apache-2.0 */
/*
 * reference.h - a model held against a reference: another model that streams by, or a base
 */
#ifndef QP_REFERENCE_H
#define QP_REFERENCE_H

#include "formats/carry.h"
#include "lib/model/kl.h"

struct provenance;

/*
 * model has gone through (its head is at hand) with the windows of s.  path is anything that
 * carries a model, which then goes through with the same windows, model's backend, spill folder
 * and progress; or a base.  ERR_DATA when tokenizer or vocabulary are others.
 */
int reference_compare(struct kl_result *r, const char *path, const struct carry *model,
		      struct head *head, const struct ppl_set *s, struct err *e) MUST_USE;

/* The model's predictions as a base of the `top` most likely tokens; out is committed. */
int reference_save(struct kl_saved *what, struct stream_out *out, const struct provenance *prov,
		   const struct carry *model, struct head *head, const struct ppl_set *s,
		   size_t top, struct err *e) MUST_USE;

#endif
