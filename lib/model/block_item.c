/* SPDX-License-Identifier: Apache-2.0 */
/*
 * block_item.c - one record of a block and its payload in memory
 */
#include "lib/model/block_impl.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define STAT_KEYS (1 << 24) /* above those of slots */
#define HUGE_PAGE ((size_t)2 << 20)

static const char *const stat_names[STAT_COUNT] = {
	"absmax", "absmean", "min", "max", "hessian", "samples",
};

const char *stat_name(enum stat s)
{
	return stat_names[s];
}

int stat_from_name(const char *s)
{
	for (int i = 0; i < STAT_COUNT; i++)
		if (strcmp(s, stat_names[i]) == 0)
			return i;
	return -1;
}

static void *buffer_new(size_t nbytes)
{
	void *p;

	if (nbytes < 4 * HUGE_PAGE)
		return aligned_alloc(64, (nbytes + 63) / 64 * 64);
	if (posix_memalign(&p, HUGE_PAGE, nbytes) != 0)
		return NULL;
	/* Advice only: without huge pages the buffer works as well, more slowly. */
	(void)madvise(p, nbytes, MADV_HUGEPAGE);
	return p;
}

int item_reserve(struct item *it, size_t nbytes, struct err *e)
{
	if (it->data != NULL && it->cap >= nbytes)
		return 0;
	free(it->data);
	it->cap = 0;
	it->data = buffer_new(nbytes);
	if (it->data == NULL)
		return err_nomem(e, it->rec.name, nbytes);
	it->cap = nbytes;
	return 0;
}

void item_release(struct item *it)
{
	record_clear(&it->rec);
	free(it->data);
	memset(it, 0, sizeof(*it));
}

int item_key(const struct item *it)
{
	if (it->slot != SLOT_NONE && it->rec.role != ROLE_OTHER)
		return (int)it->slot * 16 + (int)it->rec.role;
	if (it->slot == SLOT_NONE && it->edge >= 0 && it->stat >= 0)
		return STAT_KEYS + it->edge * STAT_COUNT + it->stat;
	return -1;
}

int item_head(struct item *it, const struct model *m, const struct record *rec, struct err *e)
{
	it->drop = false;
	return record_dup(&it->rec, rec, e) < 0 || item_classify(it, m, -1, e) < 0 ? -1 : 0;
}

int item_read(struct item *it, const struct model *m, struct stream_in *in,
	      const struct record *rec, struct err *e)
{
	if (item_head(it, m, rec, e) < 0 ||
	    stat_check_calib(&it->rec, stream_calib(in), e) < 0 ||
	    item_reserve(it, rec->nbytes > 0 ? rec->nbytes : 1, e) < 0 ||
	    stream_payload(in, it->data, e) < 0)
		return -1;
	return item_check_finite(it, e);
}

/* Widen n 2-byte floats at p to f32 over themselves, from the end: each source element lies
 * below where its result goes. */
static int widen_in_place(void *p, enum dtype t, size_t n)
{
	uint16_t tmp[2048];

	for (size_t end = n; end > 0;) {
		const size_t start = (end - 1) / 2048 * 2048;

		memcpy(tmp, (const uint16_t *)p + start, (end - start) * 2);
		if (dtype_to_f32((float *)p + start, tmp, t, end - start) < 0)
			return -1;
		end = start;
	}
	return 0;
}

float *item_f32(struct item *it, struct err *e)
{
	const enum dtype t = it->rec.dtype;
	const size_t n = (size_t)it->rec.nbytes / 2;
	void *wide;

	if (t == DT_F32)
		return it->data;
	if (t != DT_F16 && t != DT_BF16) {
		err_set(e, ERR_DATA, it->rec.name, "%s is not a floating-point type of weights",
			dtype_name(t));
		return NULL;
	}
	if (it->cap < n * 4) {
		wide = buffer_new(n * 4);
		if (wide == NULL) {
			err_nomem(e, it->rec.name, n * 4);
			return NULL;
		}
		memcpy(wide, it->data, n * 2);
		free(it->data);
		it->data = wide;
		it->cap = n * 4;
	}
	if (widen_in_place(it->data, t, n) < 0) {
		err_set(e, ERR_BUG, it->rec.name, "%s cannot be converted", dtype_name(t));
		return NULL;
	}
	it->rec.dtype = DT_F32;
	it->rec.nbytes = (uint64_t)n * 4;
	return it->data;
}
