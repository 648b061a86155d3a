/* SPDX-License-Identifier: Apache-2.0 */
/* safetensors.c - reading safetensors: good files, lying ones, and thousands of damaged ones */
#include <stdlib.h>

#include "formats/safetensors.h"
#include "tests/unit/files.h"
#include "tests/unit/tap.h"

#define A "'a':{'dtype':'F32','shape':[2,3],'data_offsets':[0,24]}"
#define B "'b':{'dtype':'F32','shape':[4],'data_offsets':[24,40]}"
#define GOOD "{'__metadata__':{'format':'pt'}," A "," B "}   "

static const float values[10] = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 };

static void good(void)
{
	struct safetensors s;
	const struct st_tensor *t;
	float got[6];
	struct err e;
	const char *path = file_path("good.safetensors");

	file_write_st(path, quoted(GOOD), 0, values, sizeof(values));
	if (!ok(!safetensors_open(&s, path, &e), "a good file is opened"))
		return;
	ok_str(s.path, "good.safetensors", "it goes by its base name");
	ok(s.n == 2, "two tensors");
	t = safetensors_find(&s, "a");
	ok(t && t->dtype == DT_F32 && t->rank == 2 && t->shape[0] == 2 && t->shape[1] == 3 &&
	   t->nbytes == 24, "dtype, shape and length of the first");
	ok(t && !safetensors_read(&s, t, got, &e) && !memcmp(got, values, 24), "its bytes");
	t = safetensors_find(&s, "b");
	ok(t && t->rank == 1 && !safetensors_read(&s, t, got, &e) && !memcmp(got, values + 6, 16),
	   "the bytes of the second");
	ok(!safetensors_find(&s, "c"), "a name that is not there is not found");
	ok(truncate(path, 8 + (off_t)strlen(GOOD) + 30) == 0 && safetensors_read(&s, t, got,
	   &e) == -1 && e.cls == ERR_DATA &&
	   strstr(e.where, "good.safetensors: b"),
	   "a file cut while open: an error, no short data");
	safetensors_close(&s);
	safetensors_close(&s);
	ok(s.n == 0 && !safetensors_find(&s, "a"),
	   "a closed one is empty, and may be closed again");
}

static void odd_but_good(void)
{
	static const struct {
		const char *header;
		size_t n;
		const char *what;
	} list[] = {
		{ "{}", 0, "no tensor at all" },
		{ "{'s':{'dtype':'F32','shape':[],'data_offsets':[0,4]}}", 4, "a scalar" },
		{ "{'a':{'dtype':'F32','shape':[0,4],'data_offsets':[0,0]},'b':{'dtype':"
		  "'U8','shape':[3],'data_offsets':[0,3]},'c':{'dtype':'F32','shape':[0],"
		  "'data_offsets':[3,3]}}", 3, "empty tensors at both ends" },
		{ "{'b':{'dtype':'BF16','shape':[1],'data_offsets':[2,4]},'a':{'dtype':"
		  "'F16','shape':[1],'data_offsets':[0,2]}}", 4, "tensors out of order" },
		{ "{'x':{'dtype':'F4','shape':[2,3],'data_offsets':[0,3]}}", 3,
		  "a 4-bit type of the format" },
		{ "{'x':{'dtype':'F8_E8M0','shape':[3],'data_offsets':[0,3]}}", 3,
		  "a type that this build does not know" },
	};
	struct safetensors s;
	struct err e;

	for (size_t i = 0; i < sizeof(list) / sizeof(list[0]); i++) {
		file_write_st(file_path("odd"), quoted(list[i].header), 0, values, list[i].n);
		if (ok(!safetensors_open(&s, file_path("odd"), &e), "accepted: %s", list[i].what)) {
			if (i == 5)
				ok(s.t[0].dtype == DT_NONE && !strcmp(s.t[0].dtype_name, "F8_E8M0"),
				   "the unknown type keeps its name");
			safetensors_close(&s);
		}
	}
}

#define T(dtype, shape, offsets) \
	"{'a':{'dtype':'" dtype "','shape':" shape ",'data_offsets':" offsets "}}"
static const struct {
	const char *header;
	uint64_t length;
	size_t n;
	const char *where, *what;
} lies[] = {
	{ "{" A ",'b':{'dtype':'F32','shape':[4],'data_offsets':[16,32]}}", 0, 32,
	  "f: b", "begin at 16, inside another tensor, which ends at 24" },
	{ "{" A ",'b':{'dtype':'F32','shape':[4],'data_offsets':[32,48]}}", 0, 48,
	  "f: b", "begin at 32, but the tensor before it ends at 24" },
	{ "{'b':{'dtype':'F32','shape':[4],'data_offsets':[8,24]}}", 0, 24,
	  "f: b", "begin at 8, but" },
	{ GOOD, 0, 39, "f: b", "[24, 40] end outside the file (39 bytes of data)" },
	{ GOOD, 0, 43 - 1, "f", "2 bytes after the last tensor" },
	{ "{}", 0, 1, "f", "1 bytes after the last tensor" },
	{ T("F32", "[2,3]", "[24,0]"), 0, 24, "f: a", "0 <= begin <= end" },
	{ T("F32", "[2,3]", "[-24,0]"), 0, 24, "f: a", "0 <= begin <= end" },
	{ T("F32", "[2,3]", "[0.0,24.0]"), 0, 24, "f: a", "0 <= begin <= end" },
	{ T("F32", "[2,3]", "[0]"), 0, 24, "f: a", "expected [begin, end]" },
	{ T("F32", "[2,3]", "'0,24'"), 0, 24, "f: a", "expected [begin, end]" },
	{ T("F32", "[2,3]", "[0,18446744073709551640]"), 0, 24, "f: a", "0 <= begin <= end" },
	{ T("F32", "[2,3]", "[0,20]"), 0, 20, "f: a",
	  "hold 20 bytes, dtype and shape need 24" },
	{ T("F32", "[4294967296,4294967296]", "[0,0]"), 0, 0, "f: a", "too many elements" },
	{ T("F32", "[1099511627776,1099511627776,0]", "[0,0]"), 0, 0, "f: a",
	  "too many elements" },
	{ T("F32", "[4611686018427387904]", "[0,0]"), 0, 0, "f: a", "too many elements" },
	{ T("F64", "[2305843009213693952]", "[0,0]"), 0, 0, "f: a", "too many elements" },
	{ T("F32", "[-2,-3]", "[0,24]"), 0, 24, "f: a", "dimension 0" },
	{ T("F32", "[2,3.0]", "[0,24]"), 0, 24, "f: a", "dimension 1" },
	{ T("F32", "6", "[0,24]"), 0, 24, "f: a", "shape: expected an array" },
	{ T("F32", "[1,1,1,1,1,1,1,1,6]", "[0,24]"), 0, 24, "f: a", "9 dimensions" },
	{ T("F4", "[3]", "[0,1]"), 0, 1, "f: a", "whole bytes" },
	{ T("F31", "[2,3]", "[0,24]"), 0, 24, "f: a", "'F31'" },
	{ T("U4", "[2,3]", "[0,3]"), 0, 3, "f: a", "'U4'" },
	{ "{'a':{'dtype':5,'shape':[1],'data_offsets':[0,4]}}", 0, 4, "f: a",
	  "dtype: expected a string" },
	{ "{'a':{'dtype':'F32','data_offsets':[0,4]}}", 0, 4, "f: a", "has no shape" },
	{ "{'a':{'shape':[1],'data_offsets':[0,4]}}", 0, 4, "f: a", "has no dtype" },
	{ "{'a':{'dtype':'F32','shape':[1]}}", 0, 4, "f: a", "has no data_offsets" },
	{ "{'a':{'dtype':'F32','shape':[1],'data_offsets':[0,4],'scale':2}}", 0, 4,
	  "f: a", "unknown key 'scale'" },
	{ "{'a':[]}", 0, 0, "f: a", "expected an object" },
	{ "{" A "," A "}", 0, 24, "f", "duplicate" },
	{ "{'__metadata__':{'n':1}}", 0, 0, "f", "n: expected a string" },
	{ "{'__metadata__':7}", 0, 0, "f", "__metadata__: expected an object" },
	{ "[]", 0, 0, "f", "does not begin with '{'" },
	{ " {}", 0, 0, "f", "does not begin with '{'" },
	{ GOOD, 4096, 40, "f", "header of 4096 bytes is longer than the file" },
	{ GOOD, 100000001, 40, "f", "too large" },
	{ GOOD, UINT64_MAX, 40, "f", "too large" },
	{ GOOD, UINT64_C(1) << 60, 40, "f", "too large" },
	{ GOOD, 20, 40, "f", "not JSON" },
	{ "{'a':{'dtype':'F32','shape':[1],'data_offsets':[0,4]},}", 0, 4, "f",
	  "not JSON" },
};
#undef T

static void lying(void)
{
	static const char data[64];
	struct safetensors s;
	struct err e;

	for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
		int r;

		file_write_st(file_path("f"), quoted(lies[i].header), lies[i].length, data,
			lies[i].n);
		r = safetensors_open(&s, file_path("f"), &e);
		if (!ok(r == -1 && e.cls == ERR_DATA && !strcmp(e.where, lies[i].where) &&
			strstr(e.what, lies[i].what), "refused: %s", lies[i].what))
			printf("#   %s: %s\n", r ? e.where : "accepted", r ? e.what : "");
		if (r == 0)
			safetensors_close(&s);
	}
	ok(safetensors_open(&s, file_path("none"), &e) == -1 && e.cls == ERR_NOINPUT,
	   "a file that is not there is no input");
	ok(safetensors_open(&s, files_in(), &e) == -1 && e.cls == ERR_NOINPUT,
	   "a directory is no input");
}

static void every_prefix(void)
{
	const char *path = file_path("prefix");
	struct safetensors s;
	struct err e;
	size_t n, bad = 0;
	char *whole;

	file_write_st(path, quoted(GOOD), 0, values, sizeof(values));
	whole = file_slurp(path, &n);
	for (size_t i = 0; i < n; i++) {
		file_write(path, whole, i);
		if (safetensors_open(&s, path, &e) == 0) {
			safetensors_close(&s);
			bad++;
		} else {
			bad += e.cls != ERR_DATA;
		}
	}
	ok(bad == 0, "every prefix of a file is refused (%zu of %zu were not)", bad, n);
	free(whole);
}

static uint64_t state = 88172645463325252u;

static uint64_t next(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	return state ^= state << 17;
}

/* Whatever happens to a header: refused as data, or every tensor lies inside the file. */
static void mutations(void)
{
	static const char chars[] = "0123456789-{}[]\",:.eabFU\\ \0\xff";
	static char got[4096];
	const char *path = file_path("mutant");
	struct safetensors s;
	struct err e;
	size_t n, wrong = 0, accepted = 0, header = strlen(GOOD);
	char *whole, *m;

	file_write_st(path, quoted(GOOD), 0, values, sizeof(values));
	whole = file_slurp(path, &n);
	m = malloc(n);
	for (int round = 0; round < 20000; round++) {
		memcpy(m, whole, n);
		for (uint64_t k = next() % 4 + 1; k-- > 0;) {
			size_t at = next() % 8 == 0 ? next() % 8 : 8 + next() % header;

			m[at] = at < 8 ? (char)next() : chars[next() % (sizeof(chars) - 1)];
		}
		file_write(path, m, n);
		if (safetensors_open(&s, path, &e)) {
			wrong += e.cls != ERR_DATA || !e.what[0];
			continue;
		}
		accepted++;
		for (size_t i = 0; i < s.n; i++)
			wrong += s.t[i].begin + s.t[i].nbytes > n || s.t[i].nbytes > sizeof(got) ||
				 safetensors_read(&s, &s.t[i], got, &e);
		safetensors_close(&s);
	}
	ok(wrong == 0, "20,000 damaged headers: refused as data or read inside the file");
	ok(accepted > 0 && accepted < 10000, "some of them were still well-formed (%zu)", accepted);
	free(m);
	free(whole);
}

int main(void)
{
	good();
	odd_but_good();
	lying();
	every_prefix();
	mutations();
	files_remove();
	return done();
}
