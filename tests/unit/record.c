/* SPDX-License-Identifier: Apache-2.0 */
/*
 * record.c - headers: extra keys, encoding in the order of the manual, and what is refused
 *
 * msgpack-c writes the headers that the decoder is tested with, and reads what the encoder wrote.
 */
#include "lib/data/record.h"

#include <msgpack.h>
#include <stdlib.h>

#include "lib/data/mpwalk.h"
#include "tests/unit/tap.h"

static void extras(void)
{
	struct record r = { 0 }, copy = { 0 };
	unsigned char nil = 0xc0;
	char s[8];
	int64_t i = 0;
	double d = 0;
	bool b = false;
	const void *p;
	size_t n;
	struct err e;

	record_init(&r, REC_NOTE, "layers.3.mlp.in");
	ok(!record_get_int(&r, "bits", &i), "an absent key");
	ok(!record_set_int(&r, "bits", 4) && !record_set_double(&r, "err", 0.25) &&
	   !record_set_bool(&r, "sym", true) && !record_set_str(&r, "by", "gptq") &&
	   !record_set_raw(&r, "none", &nil, 1), "five keys are set");
	ok(r.n_extra == 5, "and counted");
	ok(record_get_int(&r, "bits", &i) && i == 4, "an integer");
	ok(record_get_double(&r, "err", &d) && d == 0.25, "a float");
	ok(record_get_double(&r, "bits", &d) && d == 4, "an integer as a float");
	ok(record_get_bool(&r, "sym", &b) && b, "a bool");
	ok(record_get_str(&r, "by", s, sizeof(s)) && strcmp(s, "gptq") == 0, "a string");
	ok(!record_get_str(&r, "by", s, 4), "not a string that does not fit");
	ok(record_get_raw(&r, "none", &p, &n) && n == 1 && *(const unsigned char *)p == 0xc0,
	   "raw bytes");
	ok(!record_get_int(&r, "err", &i) && !record_get_str(&r, "bits", s, sizeof(s)) &&
	   !record_get_bool(&r, "bits", &b) && !record_get_double(&r, "by", &d),
	   "another type is absent");
	ok(!record_set_str(&r, "bits", "a much longer value than before") &&
	   !record_set_int(&r, "err", -70000) && r.n_extra == 5, "values are replaced");
	ok(record_get_int(&r, "err", &i) && i == -70000 &&
	   record_get_str(&r, "by", s, sizeof(s)) && strcmp(s, "gptq") == 0, "the others stay");
	ok(record_dup(&copy, &r, &e) == 0 && copy.extra != r.extra &&
	   record_get_int(&copy, "err", &i) && i == -70000, "a copy has its own memory");
	record_unset(&r, "err");
	record_unset(&r, "nothing");
	ok(r.n_extra == 4 && !record_get_int(&r, "err", &i) && record_get_bool(&r, "sym", &b) &&
	   record_get_int(&copy, "err", &i), "a key is taken away");
	record_init(&r, REC_RUN, NULL);
	ok(r.n_extra == 0 && r.rank == -1 && !record_get_bool(&r, "sym", &b), "init clears");
	record_clear(&r);
	record_clear(&copy);
	ok(!r.extra && r.rank == -1, "clear frees");
}

static void names(void)
{
	static const char *const roles[] = { "weight", "bias", "stat", "ref", "codes", "scale",
					     "zero", "perm", "comp" };
	struct record r = { 0 };
	char label[64];
	int wrong = 0;

	for (int i = 0; i < 9; i++)
		wrong += role_from_name(roles[i]) != (enum role)(i + 1) ||
			 strcmp(role_name((enum role)(i + 1)), roles[i]) != 0;
	ok(wrong == 0, "roles");
	ok(role_from_name("") == ROLE_NONE && role_from_name("Weight") == ROLE_OTHER &&
	   strcmp(role_name(ROLE_OTHER), "") == 0, "no role, another role");
	record_init(&r, REC_TENSOR, "model.layers.3.mlp.down_proj.weight");
	record_label(&r, label, sizeof(label));
	ok_str(label, "layers.3.mlp.down_proj", "the label of a tensor");
	record_init(&r, REC_STREAM, NULL);
	record_label(&r, label, sizeof(label));
	ok_str(label, "header", "of the header");
	record_init(&r, REC_BLOCK, NULL);
	record_set_int(&r, "index", 7);
	record_label(&r, label, sizeof(label));
	ok_str(label, "block 7", "of a block");
	record_init(&r, REC_TENSOR, ".weight");
	record_label(&r, label, sizeof(label));
	ok_str(label, ".weight", "a name that is all suffix stays");
	record_clear(&r);
}

/* ---- encoding, read by msgpack-c */

static void encoding(void)
{
	static const char *const keys[] = { "t", "name", "role", "dtype", "shape", "nbytes",
					    "chunks", "enc", "xxh", "must", "bits" };
	struct record r = { 0 }, back = { 0 };
	msgpack_unpacked u;
	struct buf b = { 0 };
	struct err e;
	size_t off = 0;
	int wrong = 0;

	record_init(&r, REC_TENSOR, "x.weight");
	r.role = ROLE_WEIGHT;
	r.dtype = DT_BF16;
	r.rank = 2;
	r.shape[0] = 70000;
	r.shape[1] = 300;
	r.nbytes = 42000000;
	r.chunks = 3;
	r.xxh = UINT64_C(0xfedcba9876543210);
	memcpy(r.enc, "zstd-planes", 12);
	r.must = true;
	record_set_int(&r, "bits", 4);
	record_encode(&r, &b);

	msgpack_unpacked_init(&u);
	ok(msgpack_unpack_next(&u, b.p, b.n, &off) == MSGPACK_UNPACK_SUCCESS && off == b.n &&
	   u.data.type == MSGPACK_OBJECT_MAP && u.data.via.map.size == 11, "a map of 11 keys");
	for (size_t i = 0; i < 11 && i < u.data.via.map.size; i++) {
		const msgpack_object *k = &u.data.via.map.ptr[i].key;

		wrong += k->via.str.size != strlen(keys[i]) ||
			 memcmp(k->via.str.ptr, keys[i], k->via.str.size) != 0;
	}
	ok(wrong == 0, "keys in the order of the manual");
	ok(u.data.via.map.ptr[8].val.via.u64 == r.xxh, "all 64 bits of xxh");
	ok(u.data.via.map.ptr[4].val.via.array.ptr[0].via.u64 == 70000, "the shape");
	msgpack_unpacked_destroy(&u);

	ok(record_decode(&back, b.p, b.n, &e) == 0, "it decodes");
	ok(back.type == REC_TENSOR && strcmp(back.name, r.name) == 0 && back.role == r.role &&
	   back.dtype == r.dtype && back.rank == 2 && back.shape[0] == 70000 &&
	   back.shape[1] == 300 && back.nbytes == r.nbytes && back.chunks == 3 &&
	   back.xxh == r.xxh && strcmp(back.enc, r.enc) == 0 && back.must && back.n_extra == 1,
	   "to the same");
	buf_release(&b);
	record_clear(&r);
	record_clear(&back);
}

/* ---- what is refused; headers as text: "t=tensor name=x shape=[1,2]" */

static void put_str(msgpack_packer *pk, const char *s, size_t n)
{
	msgpack_pack_str(pk, n);
	msgpack_pack_str_body(pk, s, n);
}

/* A word: true, false, nil, a number, [numbers], #N for N letters x, or else a string. */
static void put_value(msgpack_packer *pk, const char *s, size_t n)
{
	static char many[400];
	char *end;
	long v = strtol(s, &end, 10);

	if (*s == '[') {
		int count = n > 2;

		for (size_t i = 0; i < n; i++)
			count += s[i] == ',';
		msgpack_pack_array(pk, (size_t)count);
		for (s++; count > 0; count--, s = end + 1)
			msgpack_pack_int64(pk, strtoll(s, &end, 10));
	} else if (n == 4 && memcmp(s, "true", 4) == 0) {
		msgpack_pack_true(pk);
	} else if (n == 3 && memcmp(s, "nil", 3) == 0) {
		msgpack_pack_nil(pk);
	} else if (*s == '#') {
		memset(many, 'x', sizeof(many));
		put_str(pk, many, (size_t)strtol(s + 1, NULL, 10));
	} else if (end == s + n && n > 0) {
		msgpack_pack_int64(pk, v);
	} else {
		put_str(pk, s, n);
	}
}

static size_t make(msgpack_sbuffer *b, const char *text)
{
	msgpack_packer pk;
	size_t pairs = 0;

	for (const char *s = text; *s; s++)
		pairs += *s == '=';
	msgpack_sbuffer_clear(b);
	msgpack_packer_init(&pk, b, msgpack_sbuffer_write);
	msgpack_pack_map(&pk, pairs);
	for (const char *s = text; *s;) {
		size_t key = strcspn(s, "="), value = strcspn(s + key + 1, " ");

		if (key == 1 && *s == '9')
			msgpack_pack_int(&pk, 9);
		else
			put_str(&pk, s, key);
		put_value(&pk, s + key + 1, value);
		s += key + 1 + value;
		s += *s == ' ';
	}
	return b->size;
}

static const struct { const char *header, *what; } bad[] = {
	{ "", "a record without a type" },
	{ "name=x", "without a type" },
	{ "t=5", "'t': expected a string" },
	{ "t=#32", "'t': longer than 31 bytes" },
	{ "t=note name=#256", "'name': longer than 255 bytes" },
	{ "t=note name=7", "'name': expected a string" },
	{ "t=note name=a\tb", "control character" },
	{ "t=note t=note", "'t': there twice" },
	{ "t=note shape=[] shape=[]", "'shape': there twice" },
	{ "t=note 9=5", "a key of the header is not a string" },
	{ "t=note shape=[1,1,1,1,1,1,1,1,1]", "more than 8 dimensions" },
	{ "t=note shape=4", "'shape': expected an array" },
	{ "t=note shape=[-1]", "'shape': expected whole numbers" },
	{ "t=note must=1", "'must': expected true or false" },
	{ "t=note role=#32", "'role': longer than 31" },
	{ "t=note enc=#16", "'enc': longer than 15" },
	{ "t=note nbytes=-1 chunks=1", "'nbytes': expected a whole number" },
	{ "t=note nbytes=281474976710657 chunks=16777217 xxh=1", "'nbytes': too large" },
	{ "t=note nbytes=5 xxh=1", "needs both chunks and nbytes" },
	{ "t=note chunks=1 xxh=1", "needs both chunks and nbytes" },
	{ "t=note nbytes=5 chunks=2 xxh=1", "not the number of chunks" },
	{ "t=note nbytes=16777217 chunks=1 xxh=1", "not the number of chunks" },
	{ "t=note nbytes=5 chunks=2 enc=zstd xxh=1", "not the number of chunks" },
	{ "t=note nbytes=5 chunks=1", "needs its checksum" },
	{ "t=note nbytes=5 chunks=1 xxh=-1", "'xxh': expected a whole number" },
	{ "t=tensor name=x dtype=F32 shape=[2,2] nbytes=15 chunks=1 xxh=1",
	  "not what dtype and shape make" },
	{ "t=tensor name=x dtype=U4 shape=[2,3] nbytes=3 chunks=1 xxh=1",
	  "not what dtype and shape make" },
	{ "t=tensor name=x dtype=F32 shape=[2,2]", "not what dtype and shape make" },
	{ "t=tensor name=x dtype=F32 shape=[1099511627776,1099511627776]",
	  "'shape': too large" },
	{ "t=tensor name=x shape=[1]", "needs a name, a dtype and a shape" },
	{ "t=tensor name=x dtype=F32", "needs a name, a dtype and a shape" },
	{ "t=tensor dtype=F32 shape=[0]", "needs a name, a dtype and a shape" },
	{ "t=tensor name= dtype=F32 shape=[0]", "'name': empty" },
	{ "t=tensor name=x dtype=F32 shape=[2] nbytes=8 chunks=1 enc=zstd-planes xxh=1",
	  "zstd-planes is for elements of two bytes" },
	{ "t=stream nbytes=5 chunks=1 xxh=1", "this type of record has no payload" },
	{ "t=block-end nbytes=5 chunks=1 xxh=1", "this type of record has no payload" },
	{ "t=end nbytes=5 chunks=1 xxh=1", "this type of record has no payload" },
	{ "t=file", "not the plain name of a file" },
	{ "t=file name=../x", "not the plain name of a file" },
	{ "t=file name=a/b", "not the plain name of a file" },
};
static const char *const good[] = {
	"t=note", "t=sparkle", "t=note name=#255", "t=#31", "t=tensor name=x dtype=F32 shape=[]"
	" nbytes=4 chunks=1 xxh=1", "t=tensor name=x dtype=F32 shape=[0,5] nbytes=0",
	"t=tensor name=x dtype=U3 shape=[2,3] nbytes=4 chunks=1 xxh=1",
	"t=note nbytes=16777217 chunks=2 xxh=0", "t=note nbytes=5 chunks=9 enc=new xxh=1",
	"t=sparkle dtype=F32 shape=[2] nbytes=5 chunks=1 xxh=1", "t=note other=nil more=[1,2]",
	"t=file name=config.json", "t=note shape=[1,1,1,1,1,1,1,1]",
	"t=tensor name=x dtype=F4_NEW shape=[7] nbytes=5 chunks=1 xxh=1",
};

static void refused(void)
{
	msgpack_sbuffer b;
	struct record r = { 0 };
	struct err e;

	msgpack_sbuffer_init(&b);
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		size_t n = make(&b, bad[i].header);

		memset(&e, 0, sizeof(e));
		ok(record_decode(&r, b.data, n, &e) == -1 && e.cls == ERR_DATA &&
		   strstr(e.what, bad[i].what), "refused: %s (%s)", bad[i].header, e.what);
	}
	for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++) {
		size_t n = make(&b, good[i]);

		memset(&e, 0, sizeof(e));
		ok(record_decode(&r, b.data, n, &e) == 0, "taken: %s %s", good[i], e.what);
	}
	ok(record_decode(&r, "\x93\x01\x02\x03", 4, &e) == -1 && e.cls == ERR_DATA,
	   "refused: an array");
	record_clear(&r);
	msgpack_sbuffer_destroy(&b);
}

/* A type, role or dtype from the future comes out as it went in. */
static void unknown_names(void)
{
	static const char *const text[] = {
		"t=sparkle name=x role=glitter other=1",
		"t=tensor name=x role=glitter dtype=F4_NEW shape=[7] nbytes=5 chunks=1 xxh=1",
	};
	struct record r = { 0 }, back = { 0 };
	msgpack_sbuffer b;
	struct buf again = { 0 };
	struct err e;
	char s[16];

	msgpack_sbuffer_init(&b);
	for (int i = 0; i < 2; i++) {
		ok(record_decode(&r, b.data, make(&b, text[i]), &e) == 0 && r.role == ROLE_OTHER &&
		   r.type == (i ? REC_TENSOR : REC_OTHER), "read: %s", text[i]);
		buf_clear(&again);
		record_encode(&r, &again);
		ok(record_decode(&back, again.p, again.n, &e) == 0 &&
		   strcmp(r.type_name, back.type_name) == 0 &&
		   strcmp(back.role_name, "glitter") == 0 &&
		   r.extra_len == back.extra_len &&
		   memcmp(r.extra, back.extra, r.extra_len) == 0, "and written again");
	}
	ok(record_get_str(&back, "dtype", s, sizeof(s)) && strcmp(s, "F4_NEW") == 0,
	   "an unknown dtype is an extra key");
	buf_release(&again);
	record_clear(&r);
	record_clear(&back);
	msgpack_sbuffer_destroy(&b);
}

/* ---- the walker, beside msgpack-c, on random values */

static uint64_t state = 88172645463325252u;

static uint64_t next(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

static void random_value(msgpack_packer *pk, int depth)
{
	static const char text[70000];
	size_t n = next() % 8 == 0 ? next() % 70000 : next() % 40;
	uint64_t v = next() >> next() % 64;

	switch (next() % (depth > 0 ? 11 : 9)) {
	case 0: msgpack_pack_nil(pk); break;
	case 1: msgpack_pack_true(pk); break;
	case 2: msgpack_pack_uint64(pk, v); break;
	case 3: msgpack_pack_int64(pk, -(int64_t)(v >> 1)); break;
	case 4: msgpack_pack_double(pk, (double)v); break;
	case 5: msgpack_pack_float(pk, (float)v); break;
	case 6: put_str(pk, text, n); break;
	case 7: msgpack_pack_bin(pk, n); msgpack_pack_bin_body(pk, text, n); break;
	case 8: msgpack_pack_ext(pk, n, 5); msgpack_pack_ext_body(pk, text, n); break;
	case 9:
		n = next() % 20;
		msgpack_pack_array(pk, n);
		while (n--)
			random_value(pk, depth - 1);
		break;
	default:
		n = next() % 20;
		msgpack_pack_map(pk, n);
		for (n *= 2; n > 0; n--)
			random_value(pk, depth - 1);
	}
}

static bool same_scalar(const struct token *t, const msgpack_object *o)
{
	switch (o->type) {
	case MSGPACK_OBJECT_NIL:
		return t->type == TOKEN_NIL;
	case MSGPACK_OBJECT_BOOLEAN:
		return t->type == TOKEN_BOOL && t->b == o->via.boolean;
	case MSGPACK_OBJECT_POSITIVE_INTEGER:
		return (t->type == TOKEN_INT || t->type == TOKEN_UINT) && t->u == o->via.u64;
	case MSGPACK_OBJECT_NEGATIVE_INTEGER:
		return t->type == TOKEN_INT && t->i == o->via.i64;
	case MSGPACK_OBJECT_FLOAT32:
	case MSGPACK_OBJECT_FLOAT64:
		return t->type == TOKEN_REAL && t->d == o->via.f64;
	case MSGPACK_OBJECT_STR:
		return t->type == TOKEN_STR && t->n == o->via.str.size;
	case MSGPACK_OBJECT_BIN:
		return t->type == TOKEN_BIN && t->n == o->via.bin.size;
	case MSGPACK_OBJECT_EXT:
		return t->type == TOKEN_EXT && t->n == o->via.ext.size + 1;
	case MSGPACK_OBJECT_ARRAY:
		return t->type == TOKEN_ARRAY && t->n == o->via.array.size;
	default:
		return t->type == TOKEN_MAP && t->n == o->via.map.size;
	}
}

static void walker(void)
{
	int wrong_size = 0, wrong_value = 0, wrong_prefix = 0;
	msgpack_sbuffer b;
	msgpack_packer pk;
	msgpack_unpacked u;
	struct token t;
	uint64_t size;

	msgpack_sbuffer_init(&b);
	msgpack_packer_init(&pk, &b, msgpack_sbuffer_write);
	msgpack_unpacked_init(&u);
	for (int i = 0; i < 3000; i++) {
		size_t off = 0;

		msgpack_sbuffer_clear(&b);
		random_value(&pk, 3);
		wrong_size += token_extent(b.data, b.size, &size) != 1 || size != b.size;
		for (size_t n = 0; n < b.size; n += 1 + n / 8)
			wrong_prefix += token_extent(b.data, n, &size) != 0 || size <= n ||
					size > b.size;
		if (msgpack_unpack_next(&u, b.data, b.size, &off) != MSGPACK_UNPACK_SUCCESS ||
		    token_read(&t, b.data, b.size) != 1 || !same_scalar(&t, &u.data))
			wrong_value++;
	}
	ok(wrong_size == 0, "3000 random values have the extent that msgpack-c gave them");
	ok(wrong_value == 0, "and mean the same");
	ok(wrong_prefix == 0, "their prefixes want more, but not more than there is");
	msgpack_unpacked_destroy(&u);
	msgpack_sbuffer_destroy(&b);

	ok(token_extent("\xdd\xff\xff\xff\xff", 5, &size) == 0 && size > UINT32_MAX,
	   "an array of 2^32 - 1 wants as many bytes");
	ok(token_extent("\xc1", 1, &size) == -1, "c1 is nothing");
	ok(token_extent("\xdf\xff\xff\xff\xff\xdf\xff\xff\xff\xff\xdf\xff\xff\xff\xff", 15,
			&size) == 0 && size > 3ull * UINT32_MAX, "maps in maps do not wrap");
	char deep[40];
	memset(deep, 0x91, sizeof(deep));
	deep[30] = 1;
	ok(token_extent(deep, 31, &size) == 1 && size == 31, "30 arrays within one another");
	deep[30] = (char)0x91;
	ok(token_extent(deep, 40, &size) == -1, "31 are too deep");
	ok(token_extent(deep, 0, &size) == 0 && size == 1, "nothing wants a byte");
}

int main(void)
{
	extras();
	names();
	encoding();
	refused();
	unknown_names();
	walker();
	return done();
}
