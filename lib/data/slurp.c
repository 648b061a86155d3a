/* SPDX-License-Identifier: Apache-2.0 */
/*
 * slurp.c - a whole text from a file or standard input
 */
#include "lib/data/slurp.h"

#include "lib/data/input.h"

#define PIECE ((size_t)1 << 16)

static int read_pieces(struct buf *out, struct input *in, size_t max, struct err *e)
{
	const size_t start = out->n;
	size_t got = 0;

	do {
		void *p = buf_room(out, PIECE);

		if (p == NULL)
			return buf_failed(out, in->name, e);
		if (input_some(in, p, PIECE, &got, e) < 0)
			return -1;
		out->n += got;
		if (out->n - start > max)
			return err_set(e, ERR_DATA, in->name, "more than %zu bytes", max);
	} while (got > 0);
	return 0;
}

int slurp(struct buf *out, const char *path, size_t max, struct err *e)
{
	struct input in;
	int ret;

	if (input_open(&in, path, e) < 0)
		return -1;
	ret = read_pieces(out, &in, max, e);
	input_close(&in);
	return ret;
}
