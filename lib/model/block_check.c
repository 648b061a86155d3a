/* SPDX-License-Identifier: Apache-2.0 */
/*
 * block_check.c - what a record of a block has to be, and a block as a whole
 */
#include "lib/model/block_impl.h"

#include <stdio.h>
#include <string.h>

static bool is_float(enum dtype t)
{
	return t == DT_F32 || t == DT_F16 || t == DT_BF16;
}

int item_check_finite(const struct item *it, struct err *e)
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
	char text[128] = "";
	bool same = r->rank == rank;

	for (int i = 0; same && i < rank; i++)
		same = r->shape[i] == shape[i];
	if (same)
		return 0;
	for (int i = 0; i < rank; i++) {
		const size_t n = strlen(text);

		snprintf(text + n, sizeof(text) - n, "%s%ld", i > 0 ? ", " : "", (long)shape[i]);
	}
	return err_set(e, ERR_DATA, r->name, "%s: expected shape [%s]", role_name(r->role), text);
}

/* A tensor of the checkpoint against the model's table; shapes of other roles follow from it. */
static int check_tensor(const struct record *r, const struct model *m, enum slot s, long layer,
			struct err *e)
{
	int64_t shape[MODEL_MAX_RANK] = { 0 };
	const int rank = model_dims(m, s, shape);

	if (!model_has(m, s, layer))
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
		if (rank < 2)
			return err_set(e, ERR_DATA, r->name, "codes of a tensor that is a vector");
		model_shape(m, s, shape);
		return check_shape(r, 2, shape, e);
	default:
		return 0; /* scales follow from the codes (block_codes); others are not ours */
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

int stat_check_calib(const struct record *r, const char *calib, struct err *e)
{
	char of[40];

	if (r->role != ROLE_STAT || !calib[0] || !record_get_str(r, "calib", of, sizeof(of)) ||
	    strcmp(of, calib) == 0)
		return 0;
	return err_set(e, ERR_DATA, r->name, "from the calibration set %s, but the stream's is "
		       "%s: record its statistics anew", of, calib);
}

int item_classify(struct item *it, const struct model *m, long layer, struct err *e)
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
	return check_tensor(r, m, it->slot, layer, e);
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

int block_check_twice(const struct block *b, const struct item *it, struct err *e)
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

int block_codes(struct block *b, enum slot s, struct codes *c, struct err *e)
{
	const struct item *codes = block_find(b, s, ROLE_CODES);
	const struct item *scale = block_find(b, s, ROLE_SCALE);
	const struct item *zero = block_find(b, s, ROLE_ZERO);

	if (codes_init(c, &codes->rec, e) < 0)
		return -1;
	return codes_fit(c, scale != NULL ? &scale->rec : NULL, zero != NULL ? &zero->rec : NULL,
			 e);
}

int block_check_complete(struct block *b, struct err *e)
{
	struct codes c;
	char name[256];

	for (int s = 0; s < model_slots(b->model); s++) {
		if (!slot_in_block(s) || !model_has(b->model, s, b->layer))
			continue;
		if (block_find(b, s, ROLE_CODES) != NULL) {
			if (block_codes(b, s, &c, e) < 0)
				return -1;
			continue;
		}
		model_tensor_name(b->model, s, b->layer, name);
		if (block_find(b, s, ROLE_SCALE) != NULL || block_find(b, s, ROLE_ZERO) != NULL)
			return err_set(e, ERR_DATA, name, "scale or zero without codes");
		if (block_find(b, s, ROLE_WEIGHT) == NULL)
			return err_set(e, ERR_DATA, name, "missing from block %ld", b->layer);
	}
	return 0;
}

int block_check_outside(const struct block *b, struct record *r, struct err *e)
{
	long at;

	if (r->type == REC_BLOCK_END || r->type == REC_STREAM)
		return err_set(e, ERR_DATA, r->type_name, "out of place after block %ld", b->layer);
	if (r->type == REC_TENSOR && model_slot(b->model, r->name, &at) != SLOT_NONE && at >= 0)
		return err_set(e, ERR_DATA, r->name, "tensor of block %ld outside it", at);
	return 0;
}
