/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ends.c - embedding and what goes with it, final norm and head
 */
#include "lib/model/ends.h"

#include <stdlib.h>
#include <string.h>

struct item *ends_item(struct ends *n, enum slot s)
{
	return &n->item[s - SLOT_BLOCK_COUNT];
}

bool ends_in_front(enum slot s)
{
	return s >= SLOT_BLOCK_COUNT && s < SLOT_NORM_F;
}

enum slot ends_slot(const struct model *m, const struct record *rec)
{
	long layer;
	enum slot s = rec->type == REC_TENSOR ? model_slot(m, rec->name, &layer) : SLOT_NONE;

	return s >= SLOT_BLOCK_COUNT && s < SLOT_COUNT ? s : SLOT_NONE;
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
	const enum slot s = ends_slot(m, rec);
	struct item *it;
	int got;

	if (rec->type == REC_ALIAS)
		return strcmp(rec->name, model_row(m, SLOT_HEAD)->name) == 0 ?
			       take_alias(m, rec, e) : 0;
	if (s == SLOT_NONE)
		return 0;
	it = ends_item(n, s);
	if (rec->role == ROLE_CODES || rec->role == ROLE_SCALE || rec->role == ROLE_ZERO) {
		if (n->front.model == NULL)
			block_init(&n->front, m);
		got = block_take_front(&n->front, in, rec, e);
		if (got != 0)
			return got;
	}
	if (rec->role != ROLE_WEIGHT && rec->role != ROLE_BIAS)
		return err_set(e, ERR_DATA, rec->name, "%s: only weights are understood here",
			       rec->role_name);
	if (it->rec.type == REC_TENSOR)
		return err_set(e, ERR_DATA, rec->name, "twice");
	return item_read(it, m, in, rec, e) < 0 ? -1 : 1;
}

static int need(struct ends *n, const struct model *m, bool front, struct err *e)
{
	char name[256];

	for (int s = SLOT_BLOCK_COUNT; s < SLOT_COUNT; s++) {
		if (ends_in_front(s) != front || !model_has(m, s, -1) ||
		    ends_item(n, s)->rec.type == REC_TENSOR)
			continue;
		model_tensor_name(m, s, -1, name);
		return err_set(e, ERR_DATA, name, "missing, or not where it was expected");
	}
	return 0;
}

/* A weight of which only codes have come. */
static int dequantize(struct ends *n, enum slot s, struct err *e)
{
	const struct model *m = n->front.model;
	struct item *it = ends_item(n, s);
	struct record *r = &it->rec;
	size_t values = 1;
	char name[256];

	if (r->type == REC_TENSOR || block_find(&n->front, s, ROLE_CODES) == NULL)
		return 0;
	model_tensor_name(m, s, -1, name);
	record_init(r, REC_TENSOR, name);
	r->role = ROLE_WEIGHT;
	r->dtype = DT_F32;
	r->rank = model_dims(m, s, r->shape);
	for (int i = 0; i < r->rank; i++)
		values *= (size_t)r->shape[i];
	r->nbytes = values * sizeof(float);
	it->slot = s;
	it->edge = it->stat = -1;
	it->data = malloc(r->nbytes);
	it->cap = r->nbytes;
	return it->data == NULL ? err_nomem(e, name, r->nbytes) :
	       block_dequantize(&n->front, s, it->data, e);
}

int ends_need_front(struct ends *n, const struct model *m, struct err *e)
{
	struct linear_row row;

	for (size_t i = 0; n->front.n > 0 && model_linear(m, -1, i, &row); i++)
		if (dequantize(n, row.weight, e) < 0)
			return -1;
	return need(n, m, true, e);
}

int ends_need_back(struct ends *n, const struct model *m, struct err *e)
{
	return need(n, m, false, e);
}

void ends_drop_front(struct ends *n, bool keep_embed)
{
	for (int s = SLOT_BLOCK_COUNT; ends_in_front(s); s++) {
		struct item *it = ends_item(n, s);

		if (s == SLOT_EMBED && keep_embed)
			continue;
		free(it->data);
		it->data = NULL;
		it->cap = 0;
	}
}

void ends_release(struct ends *n)
{
	for (int s = SLOT_BLOCK_COUNT; s < SLOT_COUNT; s++)
		item_release(ends_item(n, s));
	if (n->front.model != NULL)
		block_release(&n->front);
}
