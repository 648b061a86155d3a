/* SPDX-License-Identifier: Apache-2.0 */
/*
 * block.c - blocks out of a stream and back, and everything that is refused on the way
 */
#include <unistd.h>

#include "lib/data/bits.h"
#include "lib/model/block.h"
#include "tests/unit/tap.h"
#include "tests/unit/tiny.h"

static struct err e;
static struct model m;
static char path[] = "/tmp/qp-block-XXXXXX";

/* ---- streams to read: both blocks of a model, spoiled by `spoil` ----------------------- */

static enum dtype plan(void *ctx, enum slot s, long layer)
{
	(void)ctx, (void)s, (void)layer;
	return DT_F32;
}

static struct stream_out *begin(void)
{
	const struct stream_out_options opt = { .path = path };
	const struct provenance prov = { .program = "test", .version = "0" };
	struct record head = { .rank = -1 };
	struct stream_out *out = NULL;

	record_init(&head, REC_STREAM, "");
	if (model_to_head(&m, plan, NULL, &head, &e) < 0 || stream_open_out(&out, &opt, &e) < 0 ||
	    stream_write_head(out, &head, &prov, &e) < 0)
		printf("# %s: %s\n", e.where, e.what);
	record_clear(&head);
	return out;
}

static void finish(struct stream_out *out)
{
	if (stream_commit(out, &e) < 0)
		printf("# %s: %s\n", e.where, e.what);
	stream_close_out(out);
}

static void mark(struct record *r, enum rec_type t, long index)
{
	record_init(r, t, "");
	record_set_int(r, "index", index);
}

static void make(struct block *b, long layer)
{
	block_init(b, &m);
	tiny_state = 99 + (uint64_t)layer;
	tiny_block(b, layer, &e);
	mark(&b->begin, REC_BLOCK, layer);
	mark(&b->end, REC_BLOCK_END, layer);
}

static void write_stream(void (*spoil)(struct block *b))
{
	struct stream_out *out = begin();

	for (long l = 0; l < m.cfg.layers; l++) {
		struct block b;

		make(&b, l);
		if (spoil != NULL)
			spoil(&b);
		if (block_write(&b, out, &e) < 0)
			printf("# %s: %s\n", e.where, e.what);
		block_release(&b);
	}
	finish(out);
}

/* ---- reading ------------------------------------------------------------------------- */

static int others;

static int count_other(void *ctx, struct stream_in *in, struct record *rec, struct err *err)
{
	(void)ctx, (void)in, (void)rec, (void)err;
	others++;
	return 0;
}

/* Blocks read before it ended; *ret is what ended it. */
static int read_stream(int *ret)
{
	struct record head = { .rank = -1 };
	struct stream_in *in;
	struct block b;
	int n = 0;

	*ret = -1;
	if (stream_open_in(&in, path, &e) < 0 || stream_next(in, &head, &e) < 0)
		return -1;
	block_init(&b, &m);
	while ((*ret = block_read(&b, in, count_other, NULL, &e)) > 0)
		n++;
	block_release(&b);
	record_clear(&head);
	stream_close_in(in);
	return n;
}

static void refused(void (*spoil)(struct block *b), const char *where, const char *what)
{
	int ret;

	write_stream(spoil);
	read_stream(&ret);
	ok(ret < 0 && e.cls == ERR_DATA && strstr(e.where, where) && strstr(e.what, what),
	   "refused: %s: %s", where, what);
	if (ret >= 0 || !strstr(e.where, where) || !strstr(e.what, what))
		printf("#   %d %d %s: %s\n", ret, e.cls, e.where, e.what);
}

static struct item *find(struct block *b, enum slot s)
{
	return block_find(b, s, ROLE_WEIGHT);
}

static void missing(struct block *b) { find(b, SLOT_UP)->drop = b->layer == 1; }
static void wrong_shape(struct block *b)
{
	struct record *r = &find(b, SLOT_DOWN)->rec;

	r->shape[0] = 12, r->shape[1] = 8;
}
static void wrong_type(struct block *b)
{
	struct record *r = &find(b, SLOT_K)->rec;

	r->dtype = DT_I32;
}
static void wrong_layer(struct block *b)
{
	snprintf(find(b, SLOT_V)->rec.name, 64, "model.layers.%ld.self_attn.v_proj.weight",
		 1 - b->layer);
}
static void nan_f32(struct block *b)
{
	((float *)find(b, SLOT_O)->data)[24 * 3 + 5] = NAN;
}
static void inf_bf16(struct block *b)
{
	struct item *it = find(b, SLOT_NORM2);
	uint16_t *h = it->data;

	for (int i = 0; i < 8; i++)
		h[i] = i == 6 ? 0xff80 : 0x3f80;
	it->rec.dtype = DT_BF16;
	it->rec.nbytes = 16;
}
static void order(struct block *b) { mark(&b->begin, REC_BLOCK, 1 - b->layer); }
static void end_of_other(struct block *b) { mark(&b->end, REC_BLOCK_END, b->layer + 1); }
static void no_end(struct block *b) { record_init(&b->end, REC_NOTE, "x"); }
static void no_begin(struct block *b) { record_init(&b->begin, REC_NOTE, "x"); }
static void unfinished(struct block *b)
{
	if (b->layer == 1)
		record_init(&b->end, REC_NOTE, "x");
}
static void nested(struct block *b)
{
	record_init(&b->begin, REC_BLOCK, "");
	record_set_int(&b->begin, "index", 0);
	mark(&find(b, SLOT_Q)->rec, REC_BLOCK, 1);
}
static void only_one(struct block *b)
{
	if (b->layer == 1) { /* nothing of it is left but notes */
		for (size_t i = 0; i < b->n; i++)
			b->items[i].drop = true;
		record_init(&b->begin, REC_NOTE, "x");
		record_init(&b->end, REC_NOTE, "y");
	}
}

/* A second copy of q, by hand: block_add would not let it in. */
static void twice(struct block *b)
{
	struct item *it = find(b, SLOT_K);

	snprintf(it->rec.name, 64, "model.layers.%ld.self_attn.q_proj.weight", b->layer);
	it->rec.shape[0] = 24;
	it->rec.nbytes = 24 * 8 * 4;
	free(it->data);
	it->data = calloc(24 * 8, 4);
}

static struct item *add_stat(struct block *b, const char *kind, int64_t n, int64_t width)
{
	struct record r = { .rank = 1, .type = REC_TENSOR };
	struct item *it;

	record_init(&r, REC_TENSOR, b->layer == 0 ? "layers.0.mlp.in" : "layers.1.mlp.in");
	r.role = ROLE_STAT;
	r.dtype = DT_F32;
	r.rank = 1;
	r.shape[0] = n;
	record_set_str(&r, "stat", kind);
	record_set_int(&r, "tokens", 7);
	if (width > 0)
		record_set_int(&r, "width", width);
	it = block_add(b, &r, &e);
	record_clear(&r);
	if (it != NULL)
		memset(it->data, 0, it->rec.nbytes);
	return it;
}

static void stat_nan(struct block *b)
{
	((float *)add_stat(b, "absmax", 8, 0)->data)[2] = INFINITY;
}
static void stat_width(struct block *b)
{
	record_set_int(&add_stat(b, "hessian", 36, 8)->rec, "width", 9);
}
static void stat_shape(struct block *b)
{
	struct item *it = add_stat(b, "hessian", 36, 8);

	it->rec.shape[0] = 35;
	it->rec.nbytes = 140;
}
static void stat_tokens(struct block *b)
{
	record_unset(&add_stat(b, "absmax", 8, 0)->rec, "tokens");
}

static void test_refusals(void)
{
	refused(missing, "layers.1.mlp.up_proj", "missing from block 1");
	refused(wrong_shape, "layers.0.mlp.down_proj", "expected shape [8, 12]");
	refused(wrong_type, "k_proj", "type I32");
	refused(wrong_layer, "layers.1.self_attn.v_proj", "in block 0");
	refused(nan_f32, "o_proj", "row 3 column 5");
	refused(inf_bf16, "post_attention_layernorm", "row 6");
	refused(order, "block", "block 1 where 0");
	refused(end_of_other, "block-end", "does not end block 0");
	refused(no_end, "block", "inside block 0");
	refused(no_begin, "layers.0.", "outside it");
	refused(unfinished, "block", "ends inside block 1");
	refused(nested, "block", "inside block 0");
	refused(only_one, "stream", "1 of 2 blocks");
	refused(twice, "q_proj", "twice");
	refused(stat_nan, "layers.0.mlp.in", "absmax: value 2");
	refused(stat_width, "layers.0.mlp.in", "width 9");
	refused(stat_shape, "layers.0.mlp.in", "expected shape [36]");
	refused(stat_tokens, "layers.0.mlp.in", "number of tokens");
}

/* ---- what comes through ---------------------------------------------------------------- */

static void add_extras(struct block *b)
{
	struct record r = { .rank = -1 };
	struct item *it;

	record_set_str(&b->begin, "later", "kept");
	add_stat(b, "absmax", 8, 0);
	add_stat(b, "kurtosis", 3, 0);
	record_init(&r, REC_TENSOR, "model.layers.9.something");
	r.dtype = DT_U8;
	r.rank = 1;
	r.shape[0] = 5;
	it = block_add(b, &r, &e);
	memcpy(it->data, "hello", 5);
	record_clear(&r);
	record_set_double(&block_note(b, "layers.0.mlp.in", "fact", &e)->rec, "x", 0.5);
}

static void test_through(void)
{
	struct record head = { .rank = -1 };
	struct stream_out *out;
	struct stream_in *in;
	struct block b;
	const void *q0;
	size_t n;
	char copy[] = "/tmp/qp-block-XXXXXX", kind[16];
	int fd = mkstemp(copy);

	close(fd);
	write_stream(add_extras);
	rename(path, copy);
	if (!ok(stream_open_in(&in, copy, &e) == 0 && stream_next(in, &head, &e) == 1, "opened"))
		return;
	out = begin();
	block_init(&b, &m);
	ok(block_read(&b, in, count_other, NULL, &e) == 1 && b.layer == 0, "block 0");
	n = b.n;
	q0 = block_find(&b, SLOT_Q, ROLE_WEIGHT)->data;
	ok(block_find(&b, SLOT_Q, ROLE_CODES) == NULL &&
	   block_find(&b, SLOT_Q_B, ROLE_BIAS) == NULL, "what is not there is not found");
	ok(block_stat(&b, EDGE_MLP_IN, STAT_ABSMAX) != NULL &&
	   block_stat(&b, EDGE_MLP_MID, STAT_ABSMAX) == NULL, "statistics by edge");
	ok(strcmp(b.items[n - 1].rec.name, "model.layers.9.something") == 0 &&
	   memcmp(b.items[n - 1].data, "hello", 5) == 0, "records nobody knows travel along");
	ok(b.items[n - 2].rec.type == REC_NOTE && b.items[n - 3].stat < 0,
	   "a note stands behind the last record of its edge");
	ok(block_write(&b, out, &e) == 0, "block 0 written");
	ok(block_read(&b, in, count_other, NULL, &e) == 1 && b.layer == 1, "block 1");
	ok(block_find(&b, SLOT_Q, ROLE_WEIGHT)->data == q0 && b.n == n,
	   "its buffers are block 0's");
	ok(block_write(&b, out, &e) == 0, "block 1 written");
	ok(block_read(&b, in, count_other, NULL, &e) == 0, "the end");
	finish(out);
	ok(record_get_str(&b.begin, "later", kind, sizeof(kind)) == 1,
	   "keys of the block's header");
	block_release(&b);
	record_clear(&head);
	stream_close_in(in);
	/* Byte for byte the same. */
	FILE *f = fopen(copy, "rb"), *g = fopen(path, "rb");
	int c, d;
	do {
		c = getc(f);
		d = getc(g);
	} while (c == d && c != EOF);
	ok(c == d, "written back byte for byte");
	fclose(f);
	fclose(g);
	remove(copy);
}

static void test_drop_stats(void)
{
	struct block b;
	size_t n;

	make(&b, 0);
	n = b.n;
	add_extras(&b);
	ok(b.n == n + 4, "two statistics, a tensor, a note");
	ok(block_drop_stats(&b, &e) == 0 && b.n == n + 2 &&
	   block_stat(&b, EDGE_MLP_IN, STAT_ABSMAX) == NULL, "statistics dropped, known or not");
	ok(add_stat(&b, "absmax", 8, 0) != NULL && add_stat(&b, "absmax", 8, 0) == NULL &&
	   e.cls == ERR_BUG, "a second statistic of a kind is a bug of the caller");
	block_release(&b);
}

/* ---- weights as f32 ------------------------------------------------------------------ */

static void test_widen(void)
{
	enum { N = 24 * 8 };
	struct block b;
	struct item *it;
	uint16_t half[N];
	float *w;
	bool same = true;

	make(&b, 0);
	it = find(&b, SLOT_Q);
	for (int i = 0; i < N; i++)
		half[i] = f32_to_bf16((float)(i - 90) * 0.25f);
	memcpy(it->data, half, sizeof(half));
	it->rec.dtype = DT_BF16;
	it->rec.nbytes = sizeof(half);
	w = block_weight_f32(&b, SLOT_Q, &e);
	for (int i = 0; i < N && w != NULL; i++)
		same = same && w[i] == (float)(i - 90) * 0.25f;
	ok(w != NULL && same && it->rec.dtype == DT_F32 && it->rec.nbytes == N * 4,
	   "bf16 widened in place");
	ok(block_weight_f32(&b, SLOT_Q, &e) == w, "once");
	/* A long one, in a buffer that must grow, across the chunks of the conversion. */
	struct item big = { .rec = { .dtype = DT_F16, .nbytes = 5000 * 2 } };
	uint16_t *src = big.data = malloc(5000 * 2);
	for (int i = 0; i < 5000; i++)
		src[i] = f32_to_f16((float)(i % 2048));
	big.cap = 5000 * 2;
	w = item_f32(&big, &e);
	same = w != NULL;
	for (int i = 0; i < 5000 && same; i++)
		same = w[i] == (float)(i % 2048);
	ok(same, "f16 widened into a larger buffer");
	item_release(&big);
	block_release(&b);
}

static struct item *add_tensor(struct block *b, enum role role, enum dtype t, int64_t rows,
			       int64_t cols, const void *data, size_t n)
{
	struct record r = { .rank = -1 };
	struct item *it;

	record_init(&r, REC_TENSOR, "model.layers.0.mlp.up_proj.weight");
	r.role = role;
	r.dtype = t;
	r.rank = 2;
	r.shape[0] = rows, r.shape[1] = cols;
	if (role == ROLE_CODES) {
		record_set_int(&r, "bits", t == DT_U8 ? 3 : dtype_bits(t));
		record_set_int(&r, "group", 4);
		record_set_bool(&r, "sym", false);
	}
	it = block_add(b, &r, &e);
	record_clear(&r);
	if (it != NULL)
		memcpy(it->data, data, n);
	return it;
}

/* up_proj [12, 8] in groups of 4: codes, zeros and scales small enough to be exact. */
static void test_codes(enum dtype t)
{
	const int bits = t == DT_U8 ? 3 : dtype_bits(t);
	uint8_t codes[12 * 8], packed[12 * 8], zero[24];
	uint16_t scale[24];
	struct block b;
	struct item *it;
	const float *w;
	bool same = true;
	size_t row = t == DT_U8 ? 8 : bits_row_bytes(8, bits);

	make(&b, 0);
	it = find(&b, SLOT_UP);
	block_find(&b, SLOT_UP, ROLE_WEIGHT)->rec.role = ROLE_REF; /* the weight itself is gone */
	for (int i = 0; i < 96; i++)
		codes[i] = (uint8_t)((i * 7 + i / 8) % (1 << bits));
	for (int i = 0; i < 24; i++) {
		zero[i] = (uint8_t)(i % (1 << bits));
		scale[i] = f32_to_f16(0.25f * (float)(i + 1));
	}
	for (size_t r = 0; r < 12; r++)
		if (t == DT_U8)
			memcpy(packed + r * 8, codes + r * 8, 8);
		else
			bits_pack_row(packed + r * row, codes + r * 8, 8, bits);
	add_tensor(&b, ROLE_CODES, t, 12, 8, packed, 12 * row);
	add_tensor(&b, ROLE_SCALE, DT_F16, 12, 2, scale, sizeof(scale));
	add_tensor(&b, ROLE_ZERO, DT_U8, 12, 2, zero, sizeof(zero));
	w = block_weight_f32(&b, SLOT_UP, &e);
	for (int i = 0; i < 96 && w != NULL; i++) {
		const int g = i / 8 * 2 + i % 8 / 4;

		same = same && w[i] == 0.25f * (float)(g + 1) * (float)(codes[i] - zero[g]);
	}
	ok(w != NULL && same, "%s codes become weights", dtype_name(t));
	it = block_find(&b, SLOT_UP, ROLE_WEIGHT);
	ok(it != NULL && it->drop, "which are not written");
	it->rec.role = ROLE_OTHER;
	((uint8_t *)block_find(&b, SLOT_UP, ROLE_CODES)->data)[17] |= 0x80;
	if (t == DT_U8)
		ok(block_weight_f32(&b, SLOT_UP, &e) == NULL && e.cls == ERR_DATA &&
		   strstr(e.what, "row 2 column 1"), "a code that does not fit is named");
	block_find(&b, SLOT_UP, ROLE_SCALE)->rec.role = ROLE_OTHER;
	ok(block_weight_f32(&b, SLOT_UP, &e) == NULL && strstr(e.what, "without scale"),
	   "codes without scale");
	block_release(&b);
}

/* ---- bit streams -------------------------------------------------------------------- */

static void test_bits(void)
{
	const uint8_t codes[] = { 1, 2, 3, 4, 5, 6, 7, 0, 5 };
	uint8_t packed[8] = { 0 }, back[9];

	bits_pack_row(packed, codes, 9, 3);
	ok(packed[0] == 0xd1 && packed[1] == 0x58 && packed[2] == 0x1f && packed[3] == 5,
	   "3 bits: a stream, low bits first, padded to a byte");
	bits_unpack_row(back, packed, 9, 3);
	ok(memcmp(back, codes, 9) == 0 && bits_row_bytes(9, 3) == 4, "and back");
}

int main(void)
{
	struct model_config c = tiny_config();
	int ret, fd = mkstemp(path);

	close(fd);
	m = tiny_model(&c);
	write_stream(NULL);
	others = 0;
	ok(read_stream(&ret) == 2 && ret == 0 && others == 0, "two blocks, then the end");
	test_refusals();
	test_through();
	test_drop_stats();
	test_widen();
	test_codes(DT_U8);
	test_codes(DT_U2);
	test_codes(DT_U3);
	test_codes(DT_U4);
	test_bits();
	remove(path);
	return done();
}
