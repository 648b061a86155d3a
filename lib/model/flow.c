/* SPDX-License-Identifier: Apache-2.0 */
/*
 * flow.c - blocks on their way through a model, a tensor at a time (flow.h)
 */
#include "lib/model/flow.h"

#include "lib/model/experts.h"

static bool wants(struct block *b, const struct item *it)
{
	const struct flow *f = b->hook->ctx;

	if (it->rec.type == REC_TENSOR && it->rec.role == ROLE_STAT)
		return false;
	if (it->rec.type == REC_TENSOR && it->rec.role == ROLE_REF)
		return f->out != NULL;
	return f->run == NULL || !experts_is_note(&it->rec);
}

/* What a forward pass may still want to see when the block is there. */
static bool wanted_later(const struct item *it)
{
	if (it->rec.type != REC_TENSOR)
		return true;
	if (it->rec.role == ROLE_STAT || it->rec.role == ROLE_REF)
		return false;
	return it->slot == SLOT_NONE ||
	       (it->rec.role != ROLE_WEIGHT && it->rec.role != ROLE_BIAS &&
		it->rec.role != ROLE_CODES && it->rec.role != ROLE_SCALE &&
		it->rec.role != ROLE_ZERO);
}

/* Everything that has not been is written, and its memory given back. */
static int pass(struct flow *f, struct block *b, struct err *e)
{
	if (!f->begun && f->out != NULL && stream_write(f->out, &b->begin, NULL, e) < 0)
		return -1;
	f->begun = true;
	for (size_t i = 0; i < b->n; i++) {
		struct item *it = &b->items[i];

		if (it->drop || it->passed)
			continue;
		if (f->out != NULL && stream_write(f->out, &it->rec, it->data, e) < 0)
			return -1;
		it->passed = true;
		if ((f->run == NULL || !wanted_later(it)) && block_give(b, it, e) < 0)
			return -1;
	}
	return 0;
}

/* Codes with all that makes a weight of them. */
static bool complete(struct block *b, enum slot s)
{
	const struct item *q = block_find(b, s, ROLE_CODES);
	bool sym = false;

	return q != NULL && block_find(b, s, ROLE_SCALE) != NULL &&
	       (block_find(b, s, ROLE_ZERO) != NULL ||
		(record_get_bool(&q->rec, "sym", &sym) == 1 && sym));
}

/* The item that has come, and codes that it shows to be all there, get ready to be run. */
static int ready(struct flow *f, struct block *b, const struct item *it, struct err *e)
{
	const enum slot held = f->held;
	const enum role role = it->rec.role;

	f->keep |= f->run->be->integers; /* they want all of a block's codes with its run records */
	if (held != SLOT_NONE && it->slot != held) {
		f->held = SLOT_NONE;
		f->keep |= !complete(b, held);
		if (!f->keep && runner_preload(f->run, b, held, e) < 0)
			return -1;
	}
	if (it->rec.type != REC_TENSOR || it->slot == SLOT_NONE || f->keep)
		return 0;
	if (role == ROLE_WEIGHT || role == ROLE_BIAS) {
		f->held = SLOT_NONE;
		f->last = it->slot;
		return runner_preload(f->run, b, it->slot, e);
	}
	if ((role == ROLE_CODES || role == ROLE_SCALE || role == ROLE_ZERO) &&
	    it->slot != f->last)
		f->held = it->slot;
	return 0;
}

static int each(void *ctx, struct block *b, struct item *it, struct err *e)
{
	struct flow *f = ctx;

	if (f->layer != b->layer) {
		f->layer = b->layer;
		f->begun = f->keep = false;
		f->held = f->last = SLOT_NONE;
	}
	/* One that is read is not wanted: it has been made of the block, which has been run. */
	if (it->rec.role == ROLE_STAT)
		return pass(f, b, e);
	if (f->run != NULL && ready(f, b, it, e) < 0)
		return -1;
	return f->held != SLOT_NONE || f->keep ? 0 : pass(f, b, e);
}

void flow_init(struct flow *f, struct block *b, struct runner *run, struct stream_out *out)
{
	*f = (struct flow){ .hook = { .wants = wants, .each = each, .ctx = f }, .run = run,
			    .out = out, .layer = -1, .held = SLOT_NONE, .last = SLOT_NONE };
	b->hook = &f->hook;
}

int flow_end(struct flow *f, struct block *b, struct err *e)
{
	if (f->layer != b->layer) { /* nothing of it was read */
		f->layer = b->layer;
		f->begun = false;
	}
	if (pass(f, b, e) < 0)
		return -1;
	if (f->run != NULL) /* a triangle's buffer is not to stand beside the next block's slices */
		block_trim(b);
	return f->out != NULL ? stream_write(f->out, &b->end, NULL, e) : 0;
}
