/* SPDX-License-Identifier: Apache-2.0 */
/*
 * block_read.c - a block out of a stream and into one
 */
#include "lib/model/block_impl.h"

static int begin_block(struct block *b, struct record *r, struct err *e)
{
	int64_t index;

	if (record_get_int(r, "index", &index) != 1)
		return err_set(e, ERR_DATA, "block", "record without an index");
	if (index != b->layer + 1 || index >= b->model->cfg.layers)
		return err_set(e, ERR_DATA, "block", "block %ld where %ld was expected",
			       (long)index, b->layer + 1);
	b->layer = (long)index;
	return record_dup(&b->begin, r, e);
}

static int end_block(struct block *b, const struct record *r, struct err *e)
{
	int64_t index;

	if (record_get_int(r, "index", &index) != 1 || index != b->layer)
		return err_set(e, ERR_DATA, "block-end", "does not end block %ld", b->layer);
	if (block_check_complete(b, e) < 0)
		return -1;
	return record_dup(&b->end, r, e);
}

/* What the hook does with the items before it goes on while the payload comes.  An error of the
 * hook's is about what stands before it in the stream, and is the one that is told. */
static int take_payload(struct block *b, struct item *it, struct stream_in *in, struct err *e)
{
	const bool ahead = b->hook != NULL && b->hook->ahead != NULL;
	struct err late;
	int ret, came;

	if (block_reserve(b, it, it->rec.nbytes, e) < 0)
		return -1;
	if (it->rec.nbytes == 0)
		return ahead ? b->hook->ahead(b->hook->ctx, b, it, e) : 0;
	if (!ahead)
		return stream_payload(in, it->data, e);
	came = stream_payload_begin(in, it->data, it->rec.nbytes, &late);
	ret = b->hook->ahead(b->hook->ctx, b, it, e);
	if (came == 0)
		came = stream_await(in, &late);
	if (ret == 0 && came < 0)
		*e = late;
	return ret < 0 || came < 0 ? -1 : 0;
}

/* One record inside a block: its header has been read into items[n]. */
static int read_item(struct block *b, struct stream_in *in, struct err *e)
{
	struct item *it = &b->items[b->n];

	it->drop = it->passed = false;
	if (it->rec.type == REC_BLOCK || it->rec.type == REC_STREAM)
		return err_set(e, ERR_DATA, "block", "%s record inside block %ld",
			       it->rec.type_name, b->layer);
	if (item_classify(it, b->model, b->layer, e) < 0 || block_check_twice(b, it, e) < 0 ||
	    stat_check_calib(&it->rec, stream_calib(in), e) < 0)
		return -1;
	if (b->hook != NULL && b->hook->wants != NULL && !b->hook->wants(b, it)) {
		it->drop = true;
		b->n++;
		return 0;
	}
	if (take_payload(b, it, in, e) < 0 || (item_key(it) >= 0 && item_check_finite(it, e) < 0))
		return -1;
	b->n++;
	return b->hook != NULL && b->hook->each != NULL ?
	       b->hook->each(b->hook->ctx, b, it, e) : 0;
}

/* Records up to block-end. */
static int read_inside(struct block *b, struct stream_in *in, struct err *e)
{
	for (;;) {
		struct item *it = block_slot(b, e);
		int got;

		if (it == NULL)
			return -1;
		got = stream_next(in, &it->rec, e);
		if (got < 0)
			return -1;
		if (got == 0)
			return err_set(e, ERR_DATA, "block", "stream ends inside block %ld",
				       b->layer);
		if (it->rec.type != REC_BLOCK_END) {
			if (read_item(b, in, e) < 0)
				return -1;
			continue;
		}
		return end_block(b, &it->rec, e);
	}
}

int block_read(struct block *b, struct stream_in *in,
	       int (*other)(void *ctx, struct stream_in *in, struct record *rec, struct err *e),
	       void *ctx, struct err *e)
{
	for (size_t i = 0; i < b->n; i++)
		if (block_retire(b, &b->items[i], e) < 0)
			return -1;
	b->n = 0;
	for (;;) {
		struct item *it = block_slot(b, e);
		int got;

		if (it == NULL)
			return -1;
		got = stream_next(in, &it->rec, e);
		if (got < 0)
			return -1;
		if (got == 0)
			break;
		if (it->rec.type == REC_BLOCK)
			return begin_block(b, &it->rec, e) < 0 || read_inside(b, in, e) < 0 ?
				       -1 : 1;
		if (block_check_outside(b, &it->rec, e) < 0 || other(ctx, in, &it->rec, e) < 0)
			return -1;
	}
	if (b->layer + 1 != b->model->cfg.layers)
		return err_set(e, ERR_DATA, "stream", "%ld of %ld blocks", b->layer + 1,
			       b->model->cfg.layers);
	return 0;
}

int block_write(struct block *b, struct stream_out *out, struct err *e)
{
	if (stream_write(out, &b->begin, NULL, e) < 0)
		return -1;
	for (size_t i = 0; i < b->n; i++) {
		const struct item *it = &b->items[i];

		if (!it->drop && stream_write(out, &it->rec, it->data, e) < 0)
			return -1;
	}
	return stream_write(out, &b->end, NULL, e);
}
