/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pack.c - codes of a few bits, side by side (pack.h)
 */
#include "lib/data/bits.h"
#include "lib/method/pack.h"

int pack_codes(uint8_t *dst, const uint8_t *codes, size_t rows, size_t cols, int bits, size_t *bad)
{
	const size_t stride = bits_row_bytes(cols, bits);

	for (size_t i = 0; i < rows * cols; i++)
		if (codes[i] >> bits) {
			*bad = i;
			return -1;
		}
	/* A byte is written only after the codes in it were read, so that dst may be codes. */
	for (size_t r = 0; r < rows; r++)
		bits_pack_row(dst + r * stride, codes + r * cols, cols, bits);
	return 0;
}

int pack_calib(struct record *note, const struct record *calib, struct err *e)
{
	static const char *const keys[] = { "fingerprint", "sampling", "tokenizer", "processor" };
	char text[64];
	int64_t seed;
	int bad;

	const bool images = calib->rank == 4;

	if (calib->rank != 2 && !images)
		return err_set(e, ERR_DATA, "calib", "its shape is not [windows, tokens of each] "
			       "nor [images, channels, height, width]");
	record_init(note, REC_NOTE, "calib");
	bad = record_set_str(note, "kind", "calibration") ||
	      record_set_str(note, "by", "pack-int4") ||
	      record_set_int(note, "nsamples", calib->shape[0]) ||
	      record_set_int(note, images ? "channels" : "seqlen", calib->shape[1]) ||
	      (images && (record_set_int(note, "height", calib->shape[2]) ||
			  record_set_int(note, "width", calib->shape[3])));
	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]) && !bad; i++)
		if (record_get_str(calib, keys[i], text, sizeof(text)))
			bad = record_set_str(note, keys[i], text);
	if (!bad && record_get_int(calib, "seed", &seed))
		bad = record_set_int(note, "seed", seed);
	return bad ? err_nomem(e, "calib", 256) : 0;
}

int pack_block(struct block *b, long *packed, struct err *e)
{
	for (size_t i = 0; i < b->n; i++) {
		struct item *it = &b->items[i];
		struct item *codes = it->slot == SLOT_NONE ? NULL :
				     block_find(b, it->slot, ROLE_CODES);

		/* What packed codes replace, and what only quantizers want. */
		it->drop = it->drop || (it->rec.type == REC_TENSOR &&
			   (it->rec.role == ROLE_STAT || it->rec.role == ROLE_REF ||
			    (it->rec.role == ROLE_WEIGHT && codes)));
	}
	for (size_t i = 0; i < b->n; i++) {
		struct record *r = &b->items[i].rec;
		int64_t bits = 0;
		size_t bad, cols;

		if (r->type != REC_TENSOR || r->role != ROLE_CODES || b->items[i].drop)
			continue;
		if (r->dtype == DT_U2 || r->dtype == DT_U3 || r->dtype == DT_U4)
			return err_set(e, ERR_DATA, r->name, "its codes are packed already");
		if (r->dtype != DT_U8 || r->rank != 2 || record_get_int(r, "bits", &bits) != 1 ||
		    bits < 1 || bits > 8)
			return err_set(e, ERR_DATA, r->name,
				       "codes whose type, shape or key bits is "
				       "not that of a quantized linear");
		if (bits < 2 || bits > 4)
			return err_set(e, ERR_DATA, r->name, "codes of %d bits; "
				       "pack-int4 packs those of 2, 3 and 4", (int)bits);
		cols = (size_t)r->shape[1];
		if (pack_codes(b->items[i].data, b->items[i].data, (size_t)r->shape[0], cols,
			       (int)bits, &bad) < 0)
			return err_set(e, ERR_DATA, r->name,
				       "code at row %zu column %zu does not fit "
				       "%d bits", bad / cols, bad % cols, (int)bits);
		r->dtype = bits == 2 ? DT_U2 : bits == 3 ? DT_U3 : DT_U4;
		r->nbytes = (uint64_t)r->shape[0] * bits_row_bytes(cols, (int)bits);
		++*packed;
	}
	return 0;
}
