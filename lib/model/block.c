/* SPDX-License-Identifier: Apache-2.0 */
/*
 * block.c - one transformer block in memory
 *
 * Buffers stay with what they held: the q_proj of block i + 1 is read to where the q_proj of
 * block i was, so that memory is touched for the first time once, and its sum is that of the
 * largest of each kind, whatever the order in which records are added and dropped.
 */
#include "lib/model/block.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "lib/model/codes.h"

#define HUGE_PAGE ((size_t)2 << 20)

/* A buffer without an item; key tells what it was for, -1: anything. */
struct spare {
	int key;
	void *p;
	size_t cap;
};

static const char *const stat_names[STAT_COUNT] = {
	"absmax", "absmean", "min", "max", "hessian", "samples",
};

const char *stat_name(enum stat s)
{
	return stat_names[s];
}

static int stat_from_name(const char *s)
{
	for (int i = 0; i < STAT_COUNT; i++)
		if (strcmp(s, stat_names[i]) == 0)
			return i;
	return -1;
}

/* ---- buffers -------------------------------------------------------------------- */

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

static int item_key(const struct item *it)
{
	if (it->slot != SLOT_NONE && it->rec.role != ROLE_OTHER)
		return (int)it->slot * 16 + (int)it->rec.role;
	if (it->slot == SLOT_NONE && it->edge >= 0 && it->stat >= 0)
		return 4096 + it->edge * STAT_COUNT + it->stat;
	return -1;
}

/* Give it a buffer of at least nbytes, contents undefined; nothing if it has one. */
static int item_reserve(struct item *it, size_t nbytes, struct err *e)
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

/* The same, from the spare buffers first. */
static int block_reserve(struct block *b, struct item *it, size_t nbytes, struct err *e)
{
	const int key = item_key(it);

	for (size_t i = 0; nbytes > 0 && i < b->n_spare; i++) {
		struct spare *s = &b->spare[i];

		if (s->key != key)
			continue;
		it->data = s->p;
		it->cap = s->cap;
		*s = b->spare[--b->n_spare];
		break;
	}
	return nbytes == 0 ? 0 : item_reserve(it, nbytes, e);
}

/* Take the item apart: its buffer becomes a spare one. */
static int block_retire(struct block *b, struct item *it, struct err *e)
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
		b->spare[b->n_spare++] = (struct spare){ item_key(it), it->data, it->cap };
	record_clear(&it->rec);
	memset(it, 0, sizeof(*it));
	return 0;
}

/* Room for one more item at the end, zeroed; it does not count yet. */
static struct item *block_slot(struct block *b, struct err *e)
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

void block_init(struct block *b, const struct model *m)
{
	memset(b, 0, sizeof(*b));
	b->model = m;
	b->layer = -1;
}

void item_release(struct item *it)
{
	record_clear(&it->rec);
	free(it->data);
	memset(it, 0, sizeof(*it));
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

/* ---- what a record has to be ---------------------------------------------------- */

static bool is_float(enum dtype t)
{
	return t == DT_F32 || t == DT_F16 || t == DT_BF16;
}

static int check_finite(const struct item *it, struct err *e)
{
	const struct record *r = &it->rec;
	const long cols = r->rank > 0 ? (long)r->shape[r->rank - 1] : 1;
	const int bits = dtype_bits(r->dtype);
	const size_t n = bits > 0 ? (size_t)r->nbytes * 8 / (size_t)bits : 0;
	const int64_t at = dtype_first_nonfinite(it->data, r->dtype, n);

	if (at < 0)
		return 0;
	if (it->edge >= 0 && it->stat >= 0)
		return err_set(e, ERR_DATA, r->name, "%s: value %ld is not finite",
			       stat_name(it->stat), (long)at);
	return err_set(e, ERR_DATA, r->name, "value at row %ld column %ld is not finite",
		       r->rank > 1 ? (long)at / cols : (long)at, r->rank > 1 ? (long)at % cols : 0);
}

static int check_shape(const struct record *r, int rank, const int64_t *shape, struct err *e)
{
	bool same = r->rank == rank;

	for (int i = 0; same && i < rank; i++)
		same = r->shape[i] == shape[i];
	if (same)
		return 0;
	if (rank == 1)
		return err_set(e, ERR_DATA, r->name, "%s: expected shape [%ld]",
			       role_name(r->role), (long)shape[0]);
	return err_set(e, ERR_DATA, r->name, "%s: expected shape [%ld, %ld]", role_name(r->role),
		       (long)shape[0], (long)shape[1]);
}

/* A tensor of the checkpoint against the model's table; shapes of other roles follow from it. */
static int check_tensor(const struct record *r, const struct model *m, enum slot s, struct err *e)
{
	int64_t shape[2] = { 0, 0 };
	const int rank = model_shape(m, s, shape);

	if (!model_has(m, s))
		return err_set(e, ERR_DATA, r->name,
			       "this model's configuration has no such tensor");
	switch (r->role) {
	case ROLE_WEIGHT:
	case ROLE_BIAS:
	case ROLE_REF:
		if (!is_float(r->dtype))
			return err_set(e, ERR_DATA, r->name, "%s of type %s", role_name(r->role),
				       dtype_name(r->dtype));
		return check_shape(r, rank, shape, e);
	case ROLE_CODES:
		if (rank != 2)
			return err_set(e, ERR_DATA, r->name, "codes of a tensor that is a vector");
		return check_shape(r, 2, shape, e);
	default:
		return 0; /* scales follow from the codes (check_complete); others are not ours */
	}
}

static int check_stat(const struct item *it, const struct model *m, struct err *e)
{
	const struct record *r = &it->rec;
	const int64_t k = model_edge_width(m, it->edge), tri = k * (k + 1) / 2;
	int64_t tokens, width = k, rows[2] = { r->rank == 2 ? r->shape[0] : 0, k };

	if (r->dtype != DT_F32)
		return err_set(e, ERR_DATA, r->name, "%s of type %s", stat_name(it->stat),
			       dtype_name(r->dtype));
	if (record_get_int(r, "tokens", &tokens) != 1 || tokens < 0)
		return err_set(e, ERR_DATA, r->name, "%s without the number of tokens",
			       stat_name(it->stat));
	switch (it->stat) {
	case STAT_HESSIAN:
		if (record_get_int(r, "width", &width) != 1 || width != k)
			return err_set(e, ERR_DATA, r->name, "hessian: width %ld, expected %ld",
				       (long)width, (long)k);
		return check_shape(r, 1, &tri, e);
	case STAT_SAMPLES:
		return check_shape(r, 2, rows, e);
	default:
		return check_shape(r, 1, &k, e);
	}
}

/* Fill slot, edge and stat from the record, and hold it to the model. */
static int classify(struct item *it, const struct model *m, long layer, struct err *e)
{
	const struct record *r = &it->rec;
	char name[32];
	long at = -1;

	it->slot = SLOT_NONE;
	it->edge = it->stat = -1;
	if (r->type != REC_TENSOR)
		return 0;
	if (r->role == ROLE_STAT) {
		it->edge = model_edge(m, r->name, &at);
		if (it->edge < 0 || record_get_str(r, "stat", name, sizeof(name)) != 1) {
			it->edge = -1;
			return 0;
		}
		if (at != layer)
			return err_set(e, ERR_DATA, r->name, "statistic in block %ld", layer);
		it->stat = stat_from_name(name);
		return it->stat < 0 ? 0 : check_stat(it, m, e);
	}
	it->slot = model_slot(m, r->name, &at);
	if (it->slot == SLOT_NONE)
		return 0;
	if (at != layer)
		return err_set(e, ERR_DATA, r->name, layer < 0 ? "tensor of block %ld outside it" :
			       "tensor in block %ld", layer < 0 ? at : layer);
	return check_tensor(r, m, it->slot, e);
}

/* Statistics of a kind we do not know may share a name: their key "stat" tells them apart. */
static bool same_tensor(const struct item *a, const struct item *b)
{
	const int key = item_key(a);

	if (key >= 0 || item_key(b) >= 0)
		return key == item_key(b);
	return a->rec.type == REC_TENSOR && b->rec.type == REC_TENSOR &&
	       a->rec.role != ROLE_STAT && strcmp(a->rec.name, b->rec.name) == 0 &&
	       strcmp(a->rec.role_name, b->rec.role_name) == 0;
}

static int check_twice(const struct block *b, const struct item *it, struct err *e)
{
	for (size_t i = 0; i < b->n; i++)
		if (same_tensor(&b->items[i], it))
			return err_set(e, ERR_DATA, it->rec.name, "%s twice in block %ld",
				       it->stat >= 0 ? stat_name(it->stat) :
				       it->rec.role == ROLE_OTHER ? it->rec.role_name :
				       role_name(it->rec.role),
				       b->layer);
	return 0;
}

static int fit_codes(struct block *b, enum slot s, struct codes *c, struct err *e)
{
	const struct item *codes = block_find(b, s, ROLE_CODES);
	const struct item *scale = block_find(b, s, ROLE_SCALE);
	const struct item *zero = block_find(b, s, ROLE_ZERO);

	if (codes_init(c, &codes->rec, e) < 0)
		return -1;
	return codes_fit(c, scale != NULL ? &scale->rec : NULL, zero != NULL ? &zero->rec : NULL,
			 e);
}

/* Every tensor of the table is there, as a weight or as codes with what belongs to them. */
static int check_complete(struct block *b, struct err *e)
{
	struct codes c;
	char name[256];

	for (int s = 0; s < SLOT_BLOCK_COUNT; s++) {
		if (!model_has(b->model, s))
			continue;
		if (block_find(b, s, ROLE_CODES) != NULL) {
			if (fit_codes(b, s, &c, e) < 0)
				return -1;
			continue;
		}
		if (block_find(b, s, ROLE_WEIGHT) != NULL)
			continue;
		model_tensor_name(b->model, s, b->layer, name);
		return err_set(e, ERR_DATA, name, "missing from block %ld", b->layer);
	}
	return 0;
}

/* ---- reading and writing -------------------------------------------------------- */

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
	if (check_complete(b, e) < 0)
		return -1;
	return record_dup(&b->end, r, e);
}

/* One record inside a block: its header has been read into items[n]. */
static int read_item(struct block *b, struct stream_in *in, struct err *e)
{
	struct item *it = &b->items[b->n];

	it->drop = false;
	if (it->rec.type == REC_BLOCK || it->rec.type == REC_STREAM)
		return err_set(e, ERR_DATA, "block", "%s record inside block %ld",
			       it->rec.type_name, b->layer);
	if (classify(it, b->model, b->layer, e) < 0 || check_twice(b, it, e) < 0 ||
	    block_reserve(b, it, it->rec.nbytes, e) < 0)
		return -1;
	if (it->rec.nbytes > 0 && stream_payload(in, it->data, e) < 0)
		return -1;
	if (item_key(it) >= 0 && check_finite(it, e) < 0)
		return -1;
	b->n++;
	return 0;
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

/* A record between blocks must not be a piece of one. */
static int check_outside(const struct block *b, struct record *r, struct err *e)
{
	long at;

	if (r->type == REC_BLOCK_END || r->type == REC_STREAM)
		return err_set(e, ERR_DATA, r->type_name, "out of place after block %ld", b->layer);
	if (r->type == REC_TENSOR && model_slot(b->model, r->name, &at) != SLOT_NONE && at >= 0)
		return err_set(e, ERR_DATA, r->name, "tensor of block %ld outside it", at);
	return 0;
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
		if (check_outside(b, &it->rec, e) < 0 || other(ctx, in, &it->rec, e) < 0)
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

int item_read(struct item *it, const struct model *m, struct stream_in *in,
	      const struct record *rec, struct err *e)
{
	it->drop = false;
	if (record_dup(&it->rec, rec, e) < 0 || classify(it, m, -1, e) < 0 ||
	    item_reserve(it, rec->nbytes > 0 ? rec->nbytes : 1, e) < 0 ||
	    stream_payload(in, it->data, e) < 0)
		return -1;
	return check_finite(it, e);
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

/* Where a new item about slot s or edge g goes: behind the last of its kind, else the end. */
static size_t place(const struct block *b, const char *name)
{
	long at;
	const enum slot s = model_slot(b->model, name, &at);
	const int g = s == SLOT_NONE ? model_edge(b->model, name, &at) : -1;

	for (size_t i = b->n; i > 0 && (s != SLOT_NONE || g >= 0); i--)
		if (strcmp(b->items[i - 1].rec.name, name) == 0)
			return i;
	return b->n;
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
	it->drop = false;
	if (classify(it, b->model, b->layer, e) < 0 || check_twice(b, it, e) < 0) {
		e->cls = ERR_BUG; /* a record of our own making that does not fit */
		return NULL;
	}
	if (block_reserve(b, it, nbytes, e) < 0)
		return NULL;
	at = place(b, rec->name);
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

/* ---- weights as f32 ------------------------------------------------------------- */

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
	if (fit_codes(b, s, &c, e) < 0)
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
