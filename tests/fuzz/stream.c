/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stream.c - fuzz target: a stream, from its header to END
 *
 * Record by record through qp-check's eyes, then block by block as filters read it, a model's
 * linears dequantized.  What is refused must say why.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib/model/block.h"
#include "lib/model/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void must(int condition)
{
	if (!condition)
		abort();
}

static void refused(const struct err *e)
{
	must((e->cls == ERR_DATA || e->cls == ERR_VERSION || e->cls == ERR_NOMEM ||
	      e->cls == ERR_IO) && e->what[0]);
}

/* A header may announce more than an input of this size can hold: nothing is read that is not
 * there, but room would be made for it. */
static bool too_much(const struct record *r)
{
	return r->nbytes > (uint64_t)1 << 24;
}

static void records(const char *path)
{
	struct record r = { .rank = -1 };
	struct stream_in *in;
	struct check *c;
	struct err e;
	int got = -1;

	if (stream_open_in(&in, path, &e) < 0) {
		refused(&e);
		return;
	}
	c = check_new(&e);
	must(c != NULL);
	while ((got = stream_next(in, &r, &e)) > 0 && !too_much(&r))
		if (check_record(c, in, &r, &e) < 0) {
			got = -1;
			break;
		}
	if (got < 0 || (got == 0 && check_end(c, &e) < 0))
		refused(&e);
	check_free(c);
	record_clear(&r);
	stream_close_in(in);
}

static int other(void *ctx, struct stream_in *in, struct record *rec, struct err *e)
{
	(void)ctx, (void)in;
	return too_much(rec) ? err_set(e, ERR_DATA, rec->name, "too much for a test") : 0;
}

static bool small(struct block *b, const struct item *it)
{
	(void)b;
	return !too_much(&it->rec);
}

static void blocks(const char *path)
{
	const struct block_hook hook = { .wants = small };
	struct record head = { .rank = -1 };
	struct stream_in *in;
	struct model m;
	struct block b;
	struct err e;
	int got;

	if (stream_open_in(&in, path, &e) < 0)
		return;
	got = stream_next(in, &head, &e);
	if (got > 0 && model_from_head(&m, &head, &e) == 0) {
		block_init(&b, &m);
		b.hook = &hook;
		while ((got = block_read(&b, in, other, NULL, &e)) > 0) {
			struct linear_row row;

			for (size_t i = 0; model_linear(&m, b.layer, i, &row) && i < 100; i++) {
				const struct item *it = block_find(&b, row.weight, ROLE_WEIGHT);

				if (it != NULL && it->drop)
					continue;
				if (block_weight_f32(&b, row.weight, &e) == NULL)
					refused(&e);
			}
		}
		if (got < 0)
			refused(&e);
		block_release(&b);
	} else if (got != 0) {
		refused(&e);
	}
	record_clear(&head);
	stream_close_in(in);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	int fd = memfd_create("fuzz", 0);
	char path[64];

	must(fd >= 0 && write(fd, data, n) == (ssize_t)n);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	records(path);
	blocks(path);
	close(fd);
	return 0;
}
