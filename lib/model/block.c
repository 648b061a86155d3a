/* SPDX-License-Identifier: Apache-2.0 */
/*
 * block.c - one transformer block in memory: a list of items, found and added to
 *
 * Buffers stay with what they held: the q_proj of block i + 1 is read to where the q_proj of
 * block i was, so that memory is touched for the first time once, and its sum is that of the
 * largest of each kind, whatever the order in which records are added and dropped.
 */
#include "lib/model/block_impl.h"

#include <stdlib.h>
#include <string.h>

#define ANYTHING (-1)

/* A buffer without an item; key tells what it was for. */
struct spare {
	int key;
	void *p;
	size_t cap;
};

void block_init(struct block *b, const struct model *m)
{
	memset(b, 0, sizeof(*b));
	b->model = m;
	b->layer = -1;
}

void block_release(struct block *b)
{
	/* Beyond n there may be one that was being read when an error came. */
	for (size_t i = 0; i < b->cap; i++)
		item_release(&b->items[i]);
	for (size_t i = 0; i < b->n_spare; i++)
		free(b->spare[i].p);
	free(b->items);
	free(b->spare);
	record_clear(&b->begin);
	record_clear(&b->end);
	memset(b, 0, sizeof(*b));
	b->layer = -1;
}

/* ---- the list and its buffers --------------------------------------------------- */

/* The smallest that is large enough; else the largest, to be replaced. */
static bool fits_better(const struct spare *a, const struct spare *b, size_t nbytes)
{
	if (a->cap >= nbytes && b->cap >= nbytes)
		return a->cap < b->cap;
	return a->cap > b->cap;
}

int block_reserve(struct block *b, struct item *it, size_t nbytes, struct err *e)
{
	const int key = item_key(it);
	struct spare *best = NULL;

	for (size_t i = 0; nbytes > 0 && i < b->n_spare; i++) {
		struct spare *s = &b->spare[i];

		if (s->key == key && key != ANYTHING) {
			best = s;
			break;
		}
		if (s->key == ANYTHING && (best == NULL || fits_better(s, best, nbytes)))
			best = s;
	}
	if (best != NULL) {
		it->data = best->p;
		it->cap = best->cap;
		*best = b->spare[--b->n_spare];
	}
	return nbytes == 0 ? 0 : item_reserve(it, nbytes, e);
}

static int keep_buffer(struct block *b, struct item *it, int key, struct err *e)
{
	if (it->data != NULL && b->n_spare == b->cap_spare) {
		const size_t cap = b->cap_spare == 0 ? 32 : 2 * b->cap_spare;
		struct spare *p = realloc(b->spare, cap * sizeof(*p));

		if (p == NULL)
			return err_nomem(e, it->rec.name, cap * sizeof(*p));
		b->spare = p;
		b->cap_spare = cap;
	}
	if (it->data != NULL)
		b->spare[b->n_spare++] = (struct spare){ key, it->data, it->cap };
	it->data = NULL;
	it->cap = 0;
	return 0;
}

int block_give(struct block *b, struct item *it, struct err *e)
{
	return keep_buffer(b, it, ANYTHING, e);
}

void block_trim(struct block *b)
{
	while (b->n_spare > 0)
		free(b->spare[--b->n_spare].p);
}

int block_retire(struct block *b, struct item *it, struct err *e)
{
	if (keep_buffer(b, it, item_key(it), e) < 0)
		return -1;
	record_clear(&it->rec);
	memset(it, 0, sizeof(*it));
	return 0;
}

struct item *block_slot(struct block *b, struct err *e)
{
	if (b->n == b->cap) {
		const size_t cap = b->cap == 0 ? 32 : 2 * b->cap;
		struct item *p = realloc(b->items, cap * sizeof(*p));

		if (p == NULL) {
			err_nomem(e, "block", cap * sizeof(*p));
			return NULL;
		}
		memset(p + b->cap, 0, (cap - b->cap) * sizeof(*p));
		b->items = p;
		b->cap = cap;
	}
	return &b->items[b->n];
}

/* ---- finding and adding --------------------------------------------------------- */

struct item *block_find(struct block *b, enum slot s, enum role role)
{
	for (size_t i = 0; i < b->n; i++) {
		struct item *it = &b->items[i];

		if (it->slot == s && it->rec.type == REC_TENSOR &&
		    (it->rec.role == role ||
		     (role == ROLE_WEIGHT && it->rec.role == ROLE_BIAS)))
			return it;
	}
	return NULL;
}

struct item *block_stat(struct block *b, enum edge e, enum stat s)
{
	for (size_t i = 0; i < b->n; i++)
		if (b->items[i].edge == (int)e && b->items[i].stat == (int)s)
			return &b->items[i];
	return NULL;
}

struct item *block_stat_of(struct block *b, const char *name, enum stat s)
{
	char kind[32];

	for (size_t i = 0; i < b->n; i++) {
		const struct record *r = &b->items[i].rec;

		if (r->type == REC_TENSOR && r->role == ROLE_STAT && strcmp(r->name, name) == 0 &&
		    record_get_str(r, "stat", kind, sizeof(kind)) == 1 &&
		    strcmp(kind, stat_name(s)) == 0)
			return &b->items[i];
	}
	return NULL;
}

/* Behind the last run record, or the front. */
static size_t place_run(const struct block *b)
{
	size_t i = b->n;

	while (i > 0 && b->items[i - 1].rec.type != REC_RUN)
		i--;
	return i;
}

/* The order of what stands for one linear: who wants only codes need not hold weights. */
static int rank(const struct record *r)
{
	static const enum role order[] = {
		ROLE_CODES, ROLE_SCALE, ROLE_ZERO, ROLE_WEIGHT, ROLE_REF,
	};
	const int n = sizeof(order) / sizeof(*order);
	int i = 0;

	while (i < n && (r->type != REC_TENSOR || r->role != order[i]))
		i++;
	return i;
}

/* Where a new item about a slot or an edge goes: behind the last of its name that does not belong
 * behind it, before those that do; else the end. */
static size_t place(const struct block *b, const struct record *rec)
{
	long at;
	size_t first = b->n;

	if (model_slot(b->model, rec->name, &at) == SLOT_NONE &&
	    model_edge(b->model, rec->name, &at) < 0)
		return b->n;
	for (size_t i = b->n; i > 0; i--) {
		if (b->items[i - 1].rec.type == REC_RUN ||
		    strcmp(b->items[i - 1].rec.name, rec->name) != 0)
			continue;
		if (rank(&b->items[i - 1].rec) <= rank(rec))
			return i;
		first = i - 1;
	}
	return first;
}

struct item *block_add(struct block *b, const struct record *rec, struct err *e)
{
	struct item *it = block_slot(b, e);
	uint64_t nbytes = rec->nbytes;
	struct item fresh;
	size_t at;

	if (it == NULL || record_dup(&it->rec, rec, e) < 0)
		return NULL;
	if (rec->dtype != DT_NONE && dtype_nbytes(rec->dtype, rec->rank, rec->shape, &nbytes) < 0) {
		err_set(e, ERR_BUG, rec->name, "shape of a new record is too large");
		return NULL;
	}
	it->rec.nbytes = nbytes;
	it->drop = it->passed = false;
	if (item_classify(it, b->model, b->layer, e) < 0 || block_check_twice(b, it, e) < 0) {
		e->cls = ERR_BUG; /* a record of our own making that does not fit */
		return NULL;
	}
	if (block_reserve(b, it, nbytes, e) < 0)
		return NULL;
	at = rec->type == REC_RUN ? place_run(b) : place(b, rec);
	fresh = *it;
	memmove(&b->items[at + 1], &b->items[at], (b->n - at) * sizeof(*it));
	b->items[at] = fresh;
	b->n++;
	return &b->items[at];
}

int block_drop_stats(struct block *b, struct err *e)
{
	size_t kept = 0;

	for (size_t i = 0; i < b->n; i++) {
		const bool stat = b->items[i].rec.type == REC_TENSOR &&
				  b->items[i].rec.role == ROLE_STAT;

		if (stat && block_retire(b, &b->items[i], e) < 0)
			return -1;
		if (!stat && kept++ != i) {
			b->items[kept - 1] = b->items[i];
			memset(&b->items[i], 0, sizeof(b->items[i]));
		}
	}
	b->n = kept;
	return 0;
}

struct item *block_note(struct block *b, const char *name, const char *kind, struct err *e)
{
	struct record r = { .rank = -1 };
	struct item *it = NULL;

	record_init(&r, REC_NOTE, name);
	if (record_set_str(&r, "kind", kind) < 0)
		err_nomem(e, name, strlen(kind));
	else
		it = block_add(b, &r, e);
	record_clear(&r);
	return it;
}

/* ---- codes as weights ----------------------------------------------------------- */

static int no_weight(const struct block *b, enum slot s, struct err *e)
{
	char name[256];

	model_tensor_name(b->model, s, b->layer, name);
	return err_set(e, ERR_DATA, name, "neither a weight nor codes with a scale");
}

int block_dequantize(struct block *b, enum slot s, float *w, struct err *e)
{
	const struct item *q = block_find(b, s, ROLE_CODES), *z = block_find(b, s, ROLE_ZERO);
	const struct item *scale = block_find(b, s, ROLE_SCALE);
	struct codes c;
	uint8_t *buf;
	int ret = 0;

	if (q == NULL)
		return no_weight(b, s, e);
	if (block_codes(b, s, &c, e) < 0)
		return -1;
	buf = malloc(c.cols);
	if (buf == NULL)
		return err_nomem(e, q->rec.name, c.cols);
	for (size_t i = 0; i < c.rows && ret == 0; i++)
		ret = codes_row(&c, w + i * c.cols, i, q->data, scale->data,
				z != NULL ? z->data : NULL, buf, e);
	free(buf);
	return ret;
}

static float *weight_from_codes(struct block *b, enum slot s, struct err *e)
{
	const struct record *codes = &block_find(b, s, ROLE_CODES)->rec;
	struct record r = { .rank = -1 };
	struct item *w;

	record_init(&r, REC_TENSOR, codes->name);
	r.role = ROLE_WEIGHT;
	r.dtype = DT_F32;
	r.rank = 2;
	memcpy(r.shape, codes->shape, 2 * sizeof(r.shape[0]));
	w = block_add(b, &r, e);
	record_clear(&r);
	if (w == NULL)
		return NULL;
	w->drop = true;
	if (block_dequantize(b, s, w->data, e) == 0)
		return w->data;
	item_release(w); /* no half-made weight is left behind */
	b->n--;
	memmove(w, w + 1, (size_t)(&b->items[b->n] - w) * sizeof(*w));
	memset(&b->items[b->n], 0, sizeof(*w));
	return NULL;
}

float *block_weight_f32(struct block *b, enum slot s, struct err *e)
{
	struct item *it = block_find(b, s, ROLE_WEIGHT);

	if (it != NULL)
		return item_f32(it, e);
	if (block_find(b, s, ROLE_CODES) != NULL)
		return weight_from_codes(b, s, e);
	no_weight(b, s, e);
	return NULL;
}
