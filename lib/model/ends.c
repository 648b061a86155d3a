/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ends.c - embedding, final norm and head
 */
#include "lib/model/ends.h"

#include <stdlib.h>
#include <string.h>

static struct item *place(struct ends *n, enum slot s)
{
	switch (s) {
	case SLOT_EMBED:
		return &n->embed;
	case SLOT_NORM_F:
		return &n->norm_f;
	case SLOT_NORM_F_B:
		return &n->norm_f_bias;
	case SLOT_HEAD:
		return &n->head;
	default:
		return NULL;
	}
}

/* A tied head: the alias must say so of the embedding, and the configuration too. */
static int take_alias(const struct model *m, const struct record *rec, struct err *e)
{
	char of[STREAM_MAX_NAME + 1], embed[256];

	model_tensor_name(m, SLOT_EMBED, -1, embed);
	if (!m->cfg.tied || record_get_str(rec, "of", of, sizeof(of)) != 1 ||
	    strcmp(of, embed) != 0)
		return err_set(e, ERR_DATA, rec->name, "alias of something else than %s", embed);
	return 1;
}

int ends_take(struct ends *n, const struct model *m, struct stream_in *in,
	      const struct record *rec, struct err *e)
{
	long layer;
	enum slot s;
	struct item *it;

	if (rec->type == REC_ALIAS)
		return strcmp(rec->name, model_row(m, SLOT_HEAD)->name) == 0 ?
			       take_alias(m, rec, e) : 0;
	if (rec->type != REC_TENSOR)
		return 0;
	s = model_slot(m, rec->name, &layer);
	it = s == SLOT_NONE ? NULL : place(n, s);
	if (it == NULL)
		return 0;
	if (rec->role != ROLE_WEIGHT && rec->role != ROLE_BIAS)
		return err_set(e, ERR_DATA, rec->name, "%s: only weights are understood here",
			       rec->role_name);
	if (it->rec.type == REC_TENSOR)
		return err_set(e, ERR_DATA, rec->name, "twice");
	return item_read(it, m, in, rec, e) < 0 ? -1 : 1;
}

static int need(const struct item *it, const struct model *m, enum slot s, struct err *e)
{
	char name[256];

	if (it->rec.type == REC_TENSOR)
		return 0;
	model_tensor_name(m, s, -1, name);
	return err_set(e, ERR_DATA, name, "missing, or not where it was expected");
}

void ends_drop_embed(struct ends *n)
{
	free(n->embed.data);
	n->embed.data = NULL;
	n->embed.cap = 0;
}

int ends_need_embed(const struct ends *n, const struct model *m, struct err *e)
{
	return need(&n->embed, m, SLOT_EMBED, e);
}

int ends_load_head(struct ends *n, const struct model *m, struct backend *be, struct head **h,
		   struct err *e)
{
	struct item *head = m->cfg.tied ? &n->embed : &n->head;
	const bool bias = model_has(m, SLOT_NORM_F_B);

	if (need(&n->norm_f, m, SLOT_NORM_F, e) < 0 ||
	    (bias && need(&n->norm_f_bias, m, SLOT_NORM_F_B, e) < 0) ||
	    need(head, m, m->cfg.tied ? SLOT_EMBED : SLOT_HEAD, e) < 0)
		return -1;
	return head_load(h, m, be, &n->norm_f, bias ? &n->norm_f_bias : NULL, head, e);
}

void ends_release(struct ends *n)
{
	item_release(&n->embed);
	item_release(&n->norm_f);
	item_release(&n->norm_f_bias);
	item_release(&n->head);
}
