/* SPDX-License-Identifier: Apache-2.0 */
/*
 * block_front.c - linears in front of the blocks, as a block of layer -1 (block.h)
 */
#include "lib/model/block_impl.h"

static bool is_front(const struct model *m, const struct record *rec)
{
	struct linear_row row;
	long at = 0;
	enum slot s;

	if (rec->type != REC_TENSOR)
		return false;
	if (rec->role == ROLE_STAT)
		return model_edge(m, rec->name, &at) >= 0 && at < 0;
	if (rec->role != ROLE_WEIGHT && rec->role != ROLE_REF && rec->role != ROLE_CODES &&
	    rec->role != ROLE_SCALE && rec->role != ROLE_ZERO)
		return false;
	s = model_slot(m, rec->name, &at);
	for (size_t n = 0; s != SLOT_NONE && model_linear(m, -1, n, &row); n++)
		if (row.weight == s)
			return true;
	return false;
}

int block_take_front(struct block *front, struct stream_in *in, const struct record *rec,
		     struct err *e)
{
	struct item *it;

	if (!is_front(front->model, rec))
		return 0;
	it = block_slot(front, e);
	if (it == NULL || item_read(it, front->model, in, rec, e) < 0 ||
	    block_check_twice(front, it, e) < 0)
		return -1;
	front->n++;
	return 1;
}

int block_write_front(struct block *front, struct stream_out *out, struct err *e)
{
	for (size_t i = 0; i < front->n; i++) {
		struct item *it = &front->items[i];

		if (!it->drop && stream_write(out, &it->rec, it->data, e) < 0)
			return -1;
	}
	for (size_t i = 0; i < front->n; i++)
		item_release(&front->items[i]);
	front->n = 0;
	return 0;
}

int block_pass_front(struct block *front, struct stream_in *in, const struct record *rec,
		     struct stream_out *out, int (*make)(void *ctx, struct block *b, struct err *e),
		     void *ctx, struct err *e)
{
	const int got = block_take_front(front, in, rec, e);

	if (got < 0)
		return -1;
	if (got == 0)
		return front->n > 0 ? block_write_front(front, out, e) : 0;
	if (rec->role == ROLE_WEIGHT &&
	    (make(ctx, front, e) < 0 || block_write_front(front, out, e) < 0))
		return -1;
	return 1;
}
