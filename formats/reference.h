/* SPDX-License-Identifier: Apache-2.0 */
/*
 * reference.h - a model held against a reference: another model that streams by, or a base
 */
#ifndef QP_REFERENCE_H
#define QP_REFERENCE_H

#include "formats/carry.h"
#include "lib/data/stream.h"
#include "lib/model/kl.h"

struct provenance;

struct reference {
	const char *path;
	struct stream_in *base; /* NULL: path is a model */
	struct kl_keep keep;    /* of the base */
};

/*
 * path is anything that carries a model, or a base.  It is held against model, whose tokenizer is
 * at hand, and the windows of s, before anything is computed: ERR_DATA when tokenizer, vocabulary
 * or windows are others.  A base stays open.
 */
int reference_open(struct reference *ref, const char *path, const struct carry *model,
		   const struct ppl_set *s, struct err *e) MUST_USE;
void reference_close(struct reference *ref);

/*
 * model has gone through (its head is at hand) with the windows of s.  A reference that is a model
 * now goes through with the same windows, model's backend, spill folder and progress.
 */
int reference_compare(struct kl_result *r, struct reference *ref, const struct carry *model,
		      struct head *head, const struct ppl_set *s, struct err *e) MUST_USE;

/* The model's predictions as a base; out is committed.  Where keep asks for more tokens than there
 * are, all are kept. */
int reference_save(struct kl_saved *what, struct stream_out *out, const struct provenance *prov,
		   const struct carry *model, struct head *head, const struct ppl_set *s,
		   struct kl_keep keep, struct err *e) MUST_USE;

#endif
