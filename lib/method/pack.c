/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pack.c - codes of a few bits, side by side (pack.h)
 */
#include <string.h>

#include "lib/base/clones.h"
#include "lib/data/bits.h"
#include "lib/method/pack.h"

/* All bits that any of n codes has. */
CLONES
static unsigned all_bits(const uint8_t *codes, size_t n)
{
	uint8_t all = 0;

	for (size_t i = 0; i < n; i++)
		all |= codes[i];
	return all;
}

/* n pairs of 4 bits.  dst may be where codes begin: pairs are taken up PAIRS at a time. */
CLONES
static void pack_pairs(uint8_t *dst, const uint8_t *codes, size_t n)
{
	enum { PAIRS = 64 };
	uint8_t out[PAIRS];

	for (; n >= PAIRS; n -= PAIRS, dst += PAIRS, codes += 2 * PAIRS) {
		for (size_t i = 0; i < PAIRS; i++)
			out[i] = (uint8_t)(codes[2 * i] | codes[2 * i + 1] << 4);
		memcpy(dst, out, sizeof(out));
	}
	bits_pack_row(dst, codes, 2 * n, 4);
}

int pack_codes(uint8_t *dst, const uint8_t *codes, size_t rows, size_t cols, int bits, size_t *bad)
{
	const size_t stride = bits_row_bytes(cols, bits);

	if (all_bits(codes, rows * cols) >> bits) {
		for (*bad = 0; codes[*bad] >> bits == 0; ++*bad)
			;
		return -1;
	}
	/* A byte is written only after the codes in it were read, so that dst may be codes. */
	if (bits == 4 && cols % 2 == 0)
		pack_pairs(dst, codes, rows * cols / 2);
	for (size_t r = 0; r < rows && (bits != 4 || cols % 2); r++)
		bits_pack_row(dst + r * stride, codes + r * cols, cols, bits);
	return 0;
}

int pack_calib(struct record *note, const struct record *calib, const char *by, struct err *e)
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
	      record_set_str(note, "by", by) ||
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

static int check_codes(const uint8_t *codes, size_t n, int bits, const char *where, struct err *e)
{
	for (size_t i = 0; i < n; i++)
		if (codes[i] >> (bits - 1) > 1)
			return err_set(e, ERR_DATA, where, "code %zu does not fit %d bits", i,
				       bits);
	return 0;
}

/* A float that stays, rounded once more. */
static int round_float(const struct packer *p, struct item *it, struct err *e)
{
	struct record *r = &it->rec;
	size_t n;
	float *x;

	if (p->to == DT_NONE || r->type != REC_TENSOR || r->dtype == p->to ||
	    (r->role != ROLE_WEIGHT && r->role != ROLE_BIAS))
		return 0;
	n = (size_t)r->nbytes * 8 / (size_t)dtype_bits(r->dtype);
	x = item_f32(it, e);
	if (x == NULL)
		return -1;
	if (p->to == DT_F32)
		return 0;
	/* half as wide: over itself, from the front */
	for (size_t i = 0; i < n; i++) {
		const uint16_t h = p->to == DT_BF16 ? f32_to_bf16(x[i]) : f32_to_f16(x[i]);

		memcpy((char *)it->data + 2 * i, &h, sizeof(h));
	}
	r->dtype = p->to;
	r->nbytes = 2 * (uint64_t)n;
	if (dtype_first_nonfinite(it->data, p->to, n) >= 0)
		return err_set(e, ERR_DATA, r->name, "a value is beyond the range of %s",
			       dtype_name(p->to));
	return 0;
}

/* Codes as they came, side by side in place. */
static int pack_item(const struct packer *p, struct item *it, struct err *e)
{
	struct record *r = &it->rec;
	int64_t bits = 0;
	size_t bad, cols;

	if (r->dtype == DT_U2 || r->dtype == DT_U3 || r->dtype == DT_U4)
		return err_set(e, ERR_DATA, r->name, "its codes are packed already");
	if (r->dtype == DT_F8_E4M3 && p->max_bits == 8)
		return 0;
	if (r->dtype != DT_U8 || r->rank != 2 || record_get_int(r, "bits", &bits) != 1 ||
	    bits < 1 || bits > 8)
		return err_set(e, ERR_DATA, r->name, "codes whose type, shape or key bits is not "
			       "that of a quantized linear");
	if (bits < 2 || bits > p->max_bits)
		return err_set(e, ERR_DATA, r->name, "codes of %d bits; pack-int4 packs those of "
			       "2, 3 and 4%s", (int)bits, bits > 4 ? ", pack-int8 these" : "");
	cols = (size_t)r->shape[1];
	if (bits > 4)
		return check_codes(it->data, (size_t)r->shape[0] * cols, (int)bits, r->name, e);
	if (pack_codes(it->data, it->data, (size_t)r->shape[0], cols, (int)bits, &bad) < 0)
		return err_set(e, ERR_DATA, r->name, "code at row %zu column %zu does not fit %d "
			       "bits", bad / cols, bad % cols, (int)bits);
	r->dtype = bits == 2 ? DT_U2 : bits == 3 ? DT_U3 : DT_U4;
	r->nbytes = (uint64_t)r->shape[0] * bits_row_bytes(cols, (int)bits);
	return 0;
}

static bool is_weight(const struct item *it)
{
	return it->slot != SLOT_NONE && it->rec.type == REC_TENSOR &&
	       it->rec.role == ROLE_WEIGHT;
}

/* Items up to end go out, but for a weight that codes stand for. */
static int flush(struct packer *p, struct block *b, size_t end, struct err *e)
{
	if (p->next == 0 && end > 0 && stream_write(p->out, &b->begin, NULL, e) < 0)
		return -1;
	for (; p->next < end; p->next++) {
		struct item *it = &b->items[p->next];

		if (is_weight(it) && block_find(b, it->slot, ROLE_CODES))
			it->drop = true;
		if (!it->drop && round_float(p, it, e) < 0)
			return -1;
		if ((!it->drop && stream_write(p->out, &it->rec, it->data, e) < 0) ||
		    block_give(b, it, e) < 0)
			return -1;
	}
	return 0;
}

/* Only codes are packed; what they replace, and what only quantizers want, is not read if that can
 * be told. */
static bool wants(struct block *b, const struct item *it)
{
	return it->rec.type != REC_TENSOR ||
	       (it->rec.role != ROLE_STAT && it->rec.role != ROLE_REF &&
		!(is_weight(it) && block_find(b, it->slot, ROLE_CODES)));
}

static int each(void *ctx, struct block *b, struct item *it, struct err *e)
{
	struct packer *p = ctx;

	if (it->rec.type == REC_TENSOR && it->rec.role == ROLE_CODES) {
		if (pack_item(p, it, e) < 0)
			return -1;
		p->packed++;
	}
	/* Whether codes stand for a weight is known before it or, in files of earlier versions,
	 * by what follows it. */
	return flush(p, b, b->n - is_weight(it), e);
}

void pack_init(struct packer *p, struct stream_out *out, int max_bits, enum dtype to)
{
	*p = (struct packer){ .hook = { .wants = wants, .each = each, .ctx = p }, .out = out,
			      .max_bits = max_bits, .to = to, .coded = SLOT_NONE };
}

void pack_release(struct packer *p)
{
	item_release(&p->end);
}

int pack_end_tensor(struct packer *p, const struct model *m, struct stream_in *in,
		    struct record *rec, struct err *e)
{
	long layer;

	const enum slot s = rec->type == REC_TENSOR ? model_slot(m, rec->name, &layer) : SLOT_NONE;

	if (s != SLOT_NONE && rec->role == ROLE_CODES) {
		if (item_read(&p->end, m, in, rec, e) < 0 || pack_item(p, &p->end, e) < 0)
			return -1;
		p->coded = s;
		p->packed++;
		return stream_write(p->out, &p->end.rec, p->end.data, e);
	}
	if (s != SLOT_NONE && s == p->coded &&
	    (rec->role == ROLE_WEIGHT || rec->role == ROLE_REF))
		return 0; /* codes stand for it */
	if (p->to == DT_NONE || rec->type != REC_TENSOR ||
	    (rec->role != ROLE_WEIGHT && rec->role != ROLE_BIAS) || s == SLOT_NONE)
		return stream_copy(p->out, in, rec, e);
	if (item_read(&p->end, m, in, rec, e) < 0 || round_float(p, &p->end, e) < 0)
		return -1;
	return stream_write(p->out, &p->end.rec, p->end.data, e);
}

int pack_end(struct packer *p, struct block *b, struct err *e)
{
	if (b->n == 0 && stream_write(p->out, &b->begin, NULL, e) < 0)
		return -1;
	if (flush(p, b, b->n, e) < 0)
		return -1;
	p->next = 0;
	return stream_write(p->out, &b->end, NULL, e);
}
