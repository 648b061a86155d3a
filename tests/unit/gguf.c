/* SPDX-License-Identifier: Apache-2.0 */
/* gguf.c - GGUF files good and bad, ggml's blocks by hand, Llama 3's factors and back */
#include <stdlib.h>

#include "formats/gguf.h"
#include "formats/gguf_model.h"
#include "lib/base/buf.h"
#include "lib/model/family.h"
#include "lib/model/rope.h"
#include "tests/unit/files.h"
#include "tests/unit/tap.h"

/* ---- a file piece by piece --------------------------------------------------------- */

static void put(struct buf *b, uint64_t v, int bytes)
{
	for (int i = 0; i < bytes; i++)
		buf_byte(b, (int)(v >> 8 * i & 255));
}

static void put_str(struct buf *b, const char *s)
{
	put(b, strlen(s), 8);
	buf_puts(b, s);
}

static void put_key(struct buf *b, const char *key, unsigned type)
{
	put_str(b, key);
	put(b, type, 4);
}

static void put_tensor(struct buf *b, const char *name, uint64_t ne0, uint64_t ne1, unsigned type,
		       uint64_t offset)
{
	put_str(b, name);
	put(b, ne1 ? 2 : 1, 4);
	put(b, ne0, 8);
	if (ne1)
		put(b, ne1, 8);
	put(b, type, 4);
	put(b, offset, 8);
}

static void pad(struct buf *b, size_t to)
{
	while (b->n % to)
		buf_byte(b, 0);
}

static void put_start(struct buf *b, unsigned version, uint64_t tensors, uint64_t keys)
{
	buf_clear(b);
	buf_puts(b, "GGUF");
	put(b, version, 4);
	put(b, tensors, 8);
	put(b, keys, 8);
}

/* a: F32 [2, 3] = 0 .. 5, b: Q8_0 [32], and a key. */
static void small(struct buf *b)
{
	put_start(b, 3, 2, 1);
	put_key(b, "x.y", GGUF_U32);
	put(b, 7, 4);
	put_tensor(b, "a", 3, 2, 0, 0);
	put_tensor(b, "b", 32, 0, 8, 32);
	pad(b, 32);
	for (int i = 0; i < 6; i++) {
		float f = (float)i;
		uint32_t w;

		memcpy(&w, &f, sizeof(w));
		put(b, w, 4);
	}
	pad(b, 32);
	put(b, 0x3c00, 2);
	for (int i = 0; i < 32; i++)
		buf_byte(b, i);
}

/* Memory of exactly that size, so that a sanitizer sees what reads beyond. */
static int parse(struct gguf *g, const struct buf *b, size_t n, void **copy, struct err *e)
{
	memset(e, 0, sizeof(*e));
	*copy = malloc(n ? n : 1);
	memcpy(*copy, b->p, n);
	return gguf_parse(g, *copy, n, "t.gguf", e);
}

static bool refused(const struct buf *b, const char *where, const char *what)
{
	struct gguf g;
	struct err e;
	void *copy;
	int ret = parse(&g, b, b->n, &copy, &e);
	bool good = ret == -1 && e.cls == ERR_DATA && strcmp(e.where, where) == 0 &&
		    strstr(e.what, what);

	if (!good)
		printf("# %d, %d: '%s': '%s'\n", ret, e.cls, e.where, e.what);
	if (!ret)
		gguf_close(&g);
	free(copy);
	return good;
}

static void containers(void)
{
	const struct gguf_tensor *t;
	struct buf b = { 0 };
	float x[6], y[32];
	struct gguf g;
	struct err e;
	void *copy;
	bool all = true;

	small(&b);
	if (!ok(!parse(&g, &b, b.n, &copy, &e), "a small file: %s", e.what))
		return;
	ok(g.n == 2 && g.n_kv == 1 && g.version == 3, "two tensors, a key");
	t = gguf_tensor(&g, "a");
	ok(t && t->rank == 2 && t->ne[0] == 3 && t->ne[1] == 2 && t->nbytes == 24, "a");
	ok(!gguf_read(&g, t, 0, x, 24, &e) && x[0] == 0 && x[5] == 5, "its values");
	t = gguf_tensor(&g, "b");
	ok(t && t->rank == 1 && t->nbytes == 34 && t->at % 32 == 0, "b");
	ok(!gguf_read(&g, t, 0, x, 2, &e) && !gguf_tensor(&g, "c"), "no c");
	t->type->dequantize(y, (const unsigned char *)copy + t->at, 1);
	ok(y[0] == 0 && y[31] == 31, "its values");
	gguf_close(&g);
	free(copy);

	file_write(file_path("t.gguf"), b.p, b.n);
	ok(!gguf_open(&g, file_path("t.gguf"), &e) && gguf_tensor(&g, "a"), "from a file");
	ok(!gguf_read(&g, gguf_tensor(&g, "a"), 4, x, 8, &e) && x[0] == 1 && x[1] == 2,
	   "a piece of a tensor");
	gguf_close(&g);
	gguf_close(&g);
	ok(gguf_open(&g, file_path("none.gguf"), &e) && e.cls == ERR_NOINPUT, "no such file");

	for (size_t n = 0; n < b.n; n++) {
		if (!parse(&g, &b, n, &copy, &e)) {
			printf("# %zu of %zu bytes were accepted\n", n, b.n);
			gguf_close(&g);
			all = false;
		}
		all = all && e.cls == ERR_DATA && e.what[0];
		free(copy);
	}
	ok(all, "every prefix is refused");
	for (size_t i = 0; i < 8 * b.n; i++) {
		b.p[i / 8] ^= (char)(1 << i % 8);
		if (!parse(&g, &b, b.n, &copy, &e))
			gguf_close(&g);
		else
			all = all && e.cls == ERR_DATA && e.what[0];
		b.p[i / 8] ^= (char)(1 << i % 8);
		free(copy);
	}
	ok(all, "a flipped bit is refused, or harmless");
	buf_release(&b);
}

/* ---- keys ------------------------------------------------------------------------------ */

static void keys(void)
{
	static const struct {
		unsigned type;
		uint64_t bits;
		int bytes;
		int64_t want;
	} ints[] = {
		{ GGUF_U8, 200, 1, 200 }, { GGUF_I8, 0xfe, 1, -2 }, { GGUF_U16, 60000, 2, 60000 },
		{ GGUF_I16, 0xfffe, 2, -2 }, { GGUF_U32, 4000000000u, 4, 4000000000 },
		{ GGUF_I32, 0xfffffffe, 4, -2 }, { GGUF_U64, INT64_MAX, 8, INT64_MAX },
		{ GGUF_I64, UINT64_MAX, 8, -1 },
	};
	enum { N = sizeof(ints) / sizeof(ints[0]) };
	struct buf b = { 0 };
	const struct gguf_kv *kv;
	const char *s;
	struct gguf g;
	struct err e;
	uint64_t at = 0;
	int64_t i;
	double v;
	size_t n;
	bool yes;
	void *copy;
	char key[8];

	put_start(&b, 2, 0, N + 6);
	for (int k = 0; k < N; k++) {
		snprintf(key, sizeof(key), "i%d", k);
		put_key(&b, key, ints[k].type);
		put(&b, ints[k].bits, ints[k].bytes);
	}
	put_key(&b, "f32", GGUF_F32), put(&b, 0x3fc00000, 4);
	put_key(&b, "f64", GGUF_F64), put(&b, UINT64_C(0x4004000000000000), 8);
	put_key(&b, "yes", GGUF_BOOL), put(&b, 1, 1);
	put_key(&b, "str", GGUF_STRING), put_str(&b, "text");
	put_key(&b, "strs", GGUF_ARRAY), put(&b, GGUF_STRING, 4), put(&b, 2, 8);
	put_str(&b, ""), put_str(&b, "xy");
	put_key(&b, "u8s", GGUF_ARRAY), put(&b, GGUF_U8, 4), put(&b, 3, 8), put(&b, 0x030201, 3);
	if (!ok(!parse(&g, &b, b.n, &copy, &e), "version 2, no tensors: %s %s", e.where, e.what))
		return;
	for (int k = 0; k < N; k++) {
		snprintf(key, sizeof(key), "i%d", k);
		kv = gguf_find(&g, key);
		ok(gguf_int(&g, kv, 0, &i) && i == ints[k].want && !gguf_real(&g, kv, 0, &v) &&
		   !gguf_bool(&g, kv, &yes), "%s", gguf_type_name(ints[k].type));
	}
	ok(gguf_real(&g, gguf_find(&g, "f32"), 0, &v) && v == 1.5, "f32");
	ok(gguf_real(&g, gguf_find(&g, "f64"), 0, &v) && v == 2.5, "f64");
	ok(!gguf_int(&g, gguf_find(&g, "f64"), 0, &i), "f64 is no integer");
	ok(gguf_bool(&g, gguf_find(&g, "yes"), &yes) && yes, "bool");
	ok(gguf_str(&g, gguf_find(&g, "str"), &at, &s, &n) && n == 4 && !memcmp(s, "text", 4) &&
	   !gguf_str(&g, gguf_find(&g, "str"), &at, &s, &n), "a string, and no second");
	at = 0;
	kv = gguf_find(&g, "strs");
	ok(gguf_str(&g, kv, &at, &s, &n) && n == 0 && gguf_str(&g, kv, &at, &s, &n) && n == 2 &&
	   !memcmp(s, "xy", 2) && !gguf_str(&g, kv, &at, &s, &n), "strings");
	kv = gguf_find(&g, "u8s");
	ok(kv->n == 3 && gguf_int(&g, kv, 2, &i) && i == 3 && !gguf_int(&g, kv, 3, &i),
	   "an array, and its end");
	ok(!gguf_find(&g, "none") && !gguf_int(&g, NULL, 0, &i) && !gguf_str(&g, NULL, &at, &s, &n),
	   "an absent key has no value");
	gguf_close(&g);
	free(copy);
	buf_release(&b);
}

/* ---- what is refused --------------------------------------------------------------------- */

static void headers(void)
{
	struct buf b = { 0 };

	put_start(&b, 1, 0, 0);
	ok(refused(&b, "t.gguf", "version 1 is not supported"), "version 1");
	put_start(&b, 0x03000000, 0, 0);
	ok(refused(&b, "t.gguf", "big-endian"), "big-endian");
	small(&b);
	b.p[3] = 'X';
	ok(refused(&b, "t.gguf", "is not a GGUF file"), "another magic");
	for (int n = 0; n < 6; n++) {
		small(&b);
		b.p[8] = (char)n; /* tensors: there are 2 */
		if (n != 2)
			ok(refused(&b, "t.gguf", ""), "%d of 2 tensors", n);
	}
	small(&b);
	b.p[15] = 1;
	ok(refused(&b, "t.gguf", "tensors: 72057594037927938 do not fit"), "2^56 tensors");
	small(&b);
	b.p[23] = (char)0x80;
	ok(refused(&b, "t.gguf", "keys: 9223372036854775809 do not fit"), "2^63 keys");
	small(&b);
	b.p[16] = 0;
	ok(refused(&b, "t.gguf: x.y", ""), "no keys, but one is there");
	small(&b);
	buf_puts(&b, "0123456789012345678901234567890123456789");
	ok(refused(&b, "t.gguf", "bytes after the last tensor"), "more behind the last tensor");
	buf_release(&b);
}

static void bad_keys(void)
{
	struct buf b = { 0 };

	put_start(&b, 3, 0, 1);
	put_key(&b, "k", 13);
	put(&b, 0, 8);
	ok(refused(&b, "t.gguf: k", "value type 13"), "a value of no type");
	put_start(&b, 3, 0, 1);
	put_key(&b, "k", GGUF_ARRAY), put(&b, GGUF_ARRAY, 4), put(&b, 0, 8);
	ok(refused(&b, "t.gguf: k", "array of arrays"), "nested arrays");
	put_start(&b, 3, 0, 1);
	put_key(&b, "k", GGUF_ARRAY), put(&b, GGUF_F64, 4), put(&b, UINT64_C(1) << 61, 8);
	put(&b, 0, 8);
	ok(refused(&b, "t.gguf: k", "elements: 2305843009213693952 do not fit"),
	   "an array whose bytes wrap");
	put_start(&b, 3, 0, 1);
	put_key(&b, "k", GGUF_STRING), put(&b, UINT64_MAX, 8), put(&b, 0, 8);
	ok(refused(&b, "t.gguf: k", "string: 18446744073709551615 bytes"), "a string that wraps");
	put_start(&b, 3, 0, 1);
	put_key(&b, "k", GGUF_BOOL), put(&b, 2, 1);
	ok(refused(&b, "t.gguf: k", "a bool is 2"), "a bool of 2");
	put_start(&b, 3, 0, 1);
	put_key(&b, "k", GGUF_ARRAY), put(&b, GGUF_BOOL, 4), put(&b, 2, 8), put(&b, 0x0301, 2);
	ok(refused(&b, "t.gguf: k", "a bool is 3"), "a bool of 3 in an array");
	put_start(&b, 3, 0, 1);
	put_key(&b, "", GGUF_U8), put(&b, 2, 1);
	ok(refused(&b, "t.gguf", "key of 0 bytes"), "an empty key");
	put_start(&b, 3, 0, 1);
	put_key(&b, "a\033[2J", GGUF_U8), put(&b, 2, 1);
	ok(refused(&b, "t.gguf", "key is not plain text: byte 0x1b"), "a key with an escape");
	put_start(&b, 3, 0, 2);
	put_key(&b, "k", GGUF_U8), put(&b, 2, 1);
	put_key(&b, "k", GGUF_U8), put(&b, 2, 1);
	ok(refused(&b, "t.gguf: k", "twice"), "a key twice");
	for (unsigned v = 0; v < 49; v += 24) {
		put_start(&b, 3, 0, 1);
		put_key(&b, "general.alignment", GGUF_U32), put(&b, v, 4);
		ok(refused(&b, "t.gguf: general.alignment", "not a power of two"), "alignment %u",
		   v);
	}
	put_start(&b, 3, 0, 1);
	put_key(&b, "general.alignment", GGUF_U64), put(&b, 32, 8);
	ok(refused(&b, "t.gguf: general.alignment", "of type u64"), "alignment of another type");
	buf_release(&b);
}

/* One tensor, 64 bytes of data. */
static bool bad_tensor(const char *name, uint64_t ne0, uint64_t ne1, unsigned type,
		       uint64_t offset, const char *where, const char *what)
{
	struct buf b = { 0 };
	bool good;

	put_start(&b, 3, 1, 0);
	put_tensor(&b, name, ne0, ne1, type, offset);
	pad(&b, 32);
	for (int i = 0; i < 8; i++)
		put(&b, 0, 8);
	good = refused(&b, where, what);
	buf_release(&b);
	return good;
}

static void bad_tensors(void)
{
	static const char long_name[] =
		"0123456789012345678901234567890123456789012345678901234567890123";
	struct buf b = { 0 };

	ok(bad_tensor("t", 4, 0, 250, 0, "t.gguf: t", "type 250 is not"), "a type of no name");
	ok(bad_tensor("t", 4, 0, 4, 0, "t.gguf: t", "type 4 is not"), "a type that was removed");
	ok(bad_tensor("t", 33, 0, 2, 0, "t.gguf: t", "rows of 33"), "rows that are no blocks");
	ok(bad_tensor("t", 0, 3, 0, 0, "t.gguf: t", "dimension 0 is 0"), "a dimension of 0");
	ok(bad_tensor("t", UINT64_C(1) << 63, 0, 0, 0, "t.gguf: t", "dimension 0 is"), "2^63");
	ok(bad_tensor("t", UINT64_C(1) << 32, UINT64_C(1) << 32, 0, 0, "t.gguf: t", "too many"),
	   "2^32 by 2^32");
	ok(bad_tensor("t", UINT64_C(1) << 62, 0, 0, 0, "t.gguf: t", "too many bytes"),
	   "bytes that wrap");
	ok(bad_tensor("t", 17, 0, 0, 0, "t.gguf: t", "its data end at"), "more than the file has");
	ok(bad_tensor("t", 16, 0, 0, 7, "t.gguf: t", "not a multiple"), "misaligned");
	ok(bad_tensor("t", 8, 0, 0, 32, "t.gguf: t", "its data begin at 32"), "a hole");
	ok(bad_tensor("t", 8, 0, 0, -UINT64_C(32), "t.gguf: t", "its data begin at"), "it wraps");
	ok(bad_tensor("", 8, 0, 0, 0, "t.gguf", "of 0 bytes"), "no name");
	ok(bad_tensor(long_name, 8, 0, 0, 0, "t.gguf", "of 64 bytes (1 to 63)"), "a long name");
	put_start(&b, 3, 1, 0);
	put_str(&b, "t");
	put(&b, 5, 4);
	for (int i = 0; i < 20; i++)
		put(&b, 1, 8);
	ok(refused(&b, "t.gguf: t", "5 dimensions (1 to 4)"), "five dimensions");
	put_start(&b, 3, 2, 0);
	put_tensor(&b, "t", 8, 0, 0, 0), put_tensor(&b, "t", 8, 0, 0, 32);
	pad(&b, 32);
	for (int i = 0; i < 8; i++)
		put(&b, 0, 8);
	ok(refused(&b, "t.gguf: t", "twice"), "a name twice");
	put_start(&b, 3, 2, 0);
	put_tensor(&b, "t", 8, 0, 0, 0), put_tensor(&b, "u", 8, 0, 0, 0);
	pad(&b, 32);
	for (int i = 0; i < 8; i++)
		put(&b, 0, 8);
	ok(refused(&b, "t.gguf: u", "begin at 0, those before it end at 32"), "an overlap");
	buf_release(&b);
}

/* ---- blocks --------------------------------------------------------------------------- */

/* Halves: 0.5, 0.25, 2. */
#define HALF 0x00, 0x38
#define QUARTER 0x00, 0x34
#define TWO 0x00, 0x40

/* y of the one block whose first bytes are given, the others zero. */
static const float *block(uint32_t type, const unsigned char *bytes, size_t n)
{
	static float y[256];
	unsigned char b[256] = { 0 };

	memcpy(b, bytes, n);
	ggml_type(type)->dequantize(y, b, 1);
	return y;
}

static void small_blocks(void)
{
	const unsigned char q4_0[] = { HALF, 0x90, 0x0f }, q4_1[] = { HALF, TWO, 0x90, 0x0f };
	const unsigned char q5_0[] = { HALF, 0x01, 0, 0x02, 0x80, 0x93, 0x1f };
	const unsigned char q5_1[] = { HALF, TWO, 0x01, 0, 0x02, 0x80, 0x93, 0x1f };
	const unsigned char q8_0[] = { HALF, 0x80, 0x7f };
	const float *y;

	y = block(2, q4_0, sizeof(q4_0));
	ok(y[0] == -4 && y[16] == 0.5f && y[1] == 3.5f && y[17] == -4 && y[2] == -4, "Q4_0");
	y = block(3, q4_1, sizeof(q4_1));
	ok(y[0] == 2 && y[16] == 6.5f && y[1] == 9.5f && y[17] == 2, "Q4_1");
	/* Fifth bits of weights 0, 17 and 31. */
	y = block(6, q5_0, sizeof(q5_0));
	ok(y[0] == 1.5f && y[16] == -3.5f && y[1] == -0.5f && y[17] == 0.5f && y[31] == 0,
	   "Q5_0");
	y = block(7, q5_1, sizeof(q5_1));
	ok(y[0] == 11.5f && y[16] == 6.5f && y[1] == 9.5f && y[17] == 10.5f && y[31] == 10,
	   "Q5_1");
	y = block(8, q8_0, sizeof(q8_0));
	ok(y[0] == -64 && y[1] == 63.5f && y[2] == 0, "Q8_0");
}

static void k_blocks(void)
{
	const unsigned char half[] = { HALF }, quarter[] = { QUARTER };
	unsigned char b[210];
	const float *y;

	/* Group 9 is weights 144-159: bytes 32+16.. of the weights, bits 0-1. */
	memset(b, 0, sizeof(b));
	b[9] = 0x3a, b[16 + 32 + 16] = 0xe4 | 3, b[16 + 32 + 15] = 0xff;
	memcpy(b + 80, half, 2), memcpy(b + 82, quarter, 2);
	y = block(10, b, 84);
	ok(y[144] == 0.5f * 10 * 3 - 0.25f * 3 && y[145] == -0.25f * 3 && y[143] == 0, "Q2_K");

	/* Its scale: high nibble of byte 1 of twelve, and bits 4-5 of byte 9. */
	memset(b, 0, sizeof(b));
	b[96 + 1] = 0x50, b[96 + 9] = 0x20, memcpy(b + 108, half, 2);
	b[32 + 32 + 16] = 2, b[16] = 0x10;
	y = block(11, b, 110);
	ok(y[144] == 0.5f * (37 - 32) * 2 && y[145] == 0.5f * 5 * -4 && y[0] == 0.5f * -32 * -4,
	   "Q3_K");

	/* Group 5 is weights 160-191: high nibbles of bytes 64-95; its scale is 4 bits of byte 9
	 * and 2 of byte 1, its minimum the other 4 and 2 of byte 5. */
	memset(b, 0, sizeof(b));
	memcpy(b, half, 2), memcpy(b + 2, quarter, 2);
	b[4 + 9] = 0x73, b[4 + 1] = 0x80, b[4 + 5] = 0x40, b[16 + 64 + 1] = 0xd1;
	y = block(12, b, 144);
	ok(y[161] == 0.5f * 35 * 13 - 0.25f * 23 && y[160] == -0.25f * 23, "Q4_K");
	ok(y[33] == 0 && y[32 + 128 - 1] == 0, "Q4_K: other groups");
	memmove(b + 48 + 64, b + 16 + 64, 32), memset(b + 16, 0, 96);
	b[16 + 1] = 0x20;
	y = block(13, b, 176);
	ok(y[161] == 0.5f * 35 * 29 - 0.25f * 23 && y[160] == -0.25f * 23, "Q5_K");

	/* Weight 100 of the second half: low nibble high of byte 64+36, bits 6-7 of byte 128+32+4,
	 * scale 192 + 8 + 6. */
	memset(b, 0, sizeof(b));
	b[64 + 36] = 0x95, b[128 + 32 + 4] = 0xc0, b[192 + 14] = 0xfd, memcpy(b + 208, half, 2);
	y = block(14, b, 210);
	ok(y[128 + 100] == 0.5f * -3 * (57 - 32) && y[128 + 36] == 0, "Q6_K");
}

static void types(void)
{
	int supported = 0;

	for (uint32_t i = 0; i < 300; i++) {
		const struct ggml_type *t = ggml_type(i);

		supported += t && t->dtype;
		if (t && !(t->block && t->bytes && t->name[0] && (t->block == 1 || !t->dtype ||
								 t->dequantize)))
			ok(false, "type %u", (unsigned)i);
	}
	ok(supported == 13, "13 types are supported, not %d", supported);
	ok(!ggml_type(4) && !ggml_type(5) && !ggml_type(31) && !ggml_type(UINT32_MAX),
	   "numbers without a type");
	ok_str(ggml_type(20)->name, "IQ4_NL", "a type that is known by name only");
}

/* ---- Llama 3's scaling ------------------------------------------------------------------- */

static void factors_of(const struct model_config *c, float *factor)
{
	struct model_config p = *c;
	double plain[128], scaled[128];

	p.rope = ROPE_PLAIN;
	rope_frequencies(&p, plain);
	rope_frequencies(c, scaled);
	for (long i = 0; i < c->head_dim / 2; i++)
		factor[i] = (float)(plain[i] / scaled[i]);
}

static void rope(void)
{
	static const struct {
		double theta, factor, low, high;
		long positions, dim;
		bool same; /* the parameters themselves come back */
	} list[] = {
		{ 5e5, 8, 1, 4, 8192, 128, true },   /* Llama 3.1 */
		{ 5e5, 32, 1, 4, 8192, 64, true },   /* Llama 3.2 */
		{ 5e5, 8, 1, 4, 16, 16, true },
		{ 5e5, 4, 1, 4, 4096, 128, true },
		{ 1e4, 16, 1, 8, 2000, 256, true },
		{ 1e4, 2.5, 2, 8, 4096, 64, false }, /* half of each does as well */
		{ 1e6, 8, 1.5, 5, 1000, 128, false },
		{ 5e5, 8, 1, 1.1, 300, 16, false },  /* no factor between 1 and 8 */
		{ 5e5, 8, 1, 6, 30, 8, false },
	};
	struct model_config want = { .rope = ROPE_LLAMA3 }, got;
	float factor[128], back[128];
	double worst;

	for (size_t k = 0; k < sizeof(list) / sizeof(list[0]); k++) {
		want.rope_theta = list[k].theta, want.head_dim = list[k].dim;
		want.rope_factor = list[k].factor, want.rope_original_positions =
			list[k].positions;
		want.rope_low_freq = list[k].low, want.rope_high_freq = list[k].high;
		factors_of(&want, factor);
		got = (struct model_config){ .rope_theta = list[k].theta,
					     .head_dim = list[k].dim };
		if (!ok(!gguf_rope_llama3(&got, factor), "llama3 %g %g %g %ld, %ld wide",
			list[k].factor, list[k].low, list[k].high, list[k].positions,
			list[k].dim))
			continue;
		factors_of(&got, back);
		worst = 0;
		for (long i = 0; i < list[k].dim / 2; i++)
			worst = fmax(worst, fabs((double)back[i] / (double)factor[i] - 1));
		ok_near(worst, 0, 1e-5, "its factors again");
		if (list[k].same)
			ok(got.rope_low_freq == list[k].low && got.rope_high_freq == list[k].high &&
			   got.rope_original_positions == list[k].positions, "its parameters");
	}
	factor[3] *= 1.01f;
	ok(gguf_rope_llama3(&got, factor) == -1, "a factor more than they make");
	for (int i = 0; i < 64; i++)
		factor[i] = 1 + (float)(i * i);
	got.head_dim = 128;
	ok(gguf_rope_llama3(&got, factor) == -1, "factors of another kind (longrope)");
	for (int i = 0; i < 64; i++)
		factor[i] = 64 - (float)i;
	ok(gguf_rope_llama3(&got, factor) == -1, "factors that fall");
}

int main(void)
{
	containers();
	keys();
	headers();
	bad_keys();
	bad_tensors();
	small_blocks();
	k_blocks();
	types();
	rope();
	files_remove();
	return done();
}
