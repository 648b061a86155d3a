/* SPDX-License-Identifier: Apache-2.0 */
/* json.c - views of a JSON document, and what is no JSON */
#include <stdlib.h>

#include "formats/json.h"
#include "tests/unit/files.h"
#include "tests/unit/tap.h"

static void views(void)
{
	static const char text[] = "{\"z\": 1, \"a\": [2.5, null, true, \"x\\u0000y\"], \"m\": {},"
				   " \"big\": 9223372036854775807, \"neg\": -3}";
	struct json_doc *d;
	struct err e;
	const struct json *root, *v, *a;
	const char *key, *s;
	void *it = NULL;
	char keys[64] = "";
	size_t n;

	if (!ok(!json_parse(&d, text, sizeof(text) - 1, "t", &e), "a document is parsed"))
		return;
	root = json_root(d);
	a = json_get(root, "a");
	while ((it = json_iter(root, it, &key, &v)))
		strcat(strcat(keys, key), " ");
	ok_str(keys, "z a m big neg ", "an object is walked in file order");
	ok(json_type_of(root) == JSON_OBJECT && json_len(root) == 5,
	   "type and length of an object");
	ok(json_type_of(a) == JSON_ARRAY && json_len(a) == 4, "type and length of an array");
	ok(json_type_of(json_at(a, 0)) == JSON_REAL && json_num(json_at(a, 0), 0) == 2.5, "a real");
	ok(json_type_of(json_at(a, 1)) == JSON_NULL, "null");
	ok(json_type_of(json_at(a, 2)) == JSON_BOOL && json_bool(json_at(a, 2), false), "true");
	s = json_str(json_at(a, 3), &n);
	ok(s && n == 3 && !memcmp(s, "x\0y", 3), "a string with a NUL keeps its length");
	ok(json_int(json_get(root, "big"), 0) == INT64_MAX, "the largest integer");
	ok(json_int(json_get(root, "neg"), 0) == -3 && json_num(json_get(root, "neg"), 0) == -3,
	   "a negative integer, also as a number");
	ok(json_int(json_at(a, 0), 7) == 7, "a real is not taken for an integer");
	ok(!json_get(root, "none") && json_type_of(NULL) == JSON_NONE && json_len(NULL) == 0 &&
	   !json_get(NULL, "x") && !json_at(NULL, 0) && !json_str(NULL, NULL) &&
	   json_int(NULL, 5) == 5 && json_bool(NULL, true) && !json_at(a, 4) && !json_get(a, "x"),
	   "what is absent gives the value for absent things");
	ok(!json_iter(a, NULL, &key, &v), "an array has no keys to walk");
	json_free(d);
	json_free(NULL);
}

static void refused(void)
{
	static const struct {
		const char *text, *what;
	} bad[] = {
		{ "", "not JSON" },
		{ "{\"a\": 1, \"b\": 2, \"a\": 3}", "duplicate" },
		{ "{\"hidden\": 1,}", "byte" },
		{ "[1] 2", "end of file expected" },
		{ "[99999999999999999999, 1e999]", "overflow" },
		{ "{\"max\": 99999999999999999999,\n \"a\" 2}", "line 2, byte 36, after" },
		{ "[1e999]", "overflow" },
		{ "[NaN]", "not JSON" },
		{ "[\"\xff\"]", "unable to decode byte 0xff" },
		{ "{\"a\\u0000b\": 1}", "NUL" },
		{ "[\"\\ud800\"]", "invalid Unicode" },
		{ "{\n\"a\": 1,\n\"b\" 2}", "line 3" },
	};
	struct json_doc *d;
	struct err e;
	char *deep = malloc(100001);

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		int r = json_parse(&d, bad[i].text, strlen(bad[i].text), "x.json", &e);

		ok(r == -1 && e.cls == ERR_DATA && !strcmp(e.where, "x.json") &&
		   strstr(e.what, bad[i].what), "refused, naming file and fault: %s", bad[i].what);
	}
	memset(deep, '[', 100000);
	ok(json_parse(&d, deep, 100000, "x.json", &e) == -1 && strstr(e.what, "depth"),
	   "refused: nesting 100,000 deep");
	free(deep);
	ok(json_parse(&d, "[\"a\nb\x1b[31m\"]", 13, "x.json", &e) == -1 && !strchr(e.what, '\n') &&
	   !strchr(e.what, '\x1b'), "a message is one line without control characters");
}

/* Such as the model_max_length of 10^30 in tokenizer_config.json of many a model. */
static void wide(void)
{
	static const char text[] = "{\"len\": 1000000000000000019884624838656, \"n\": 7, "
		"\"list\": [18446744073709551615,-9223372036854775809,9223372036854775807,"
		"-9223372036854775808,1e3], \"18446744073709551615 \\\"18446744073709551615\": "
		"\"99999999999999999999\"}";
	struct json_doc *d;
	const struct json *root, *list;
	struct err e;

	if (!ok(!json_parse(&d, text, sizeof(text) - 1, "t", &e), "integers beyond 64 bits"))
		return;
	root = json_root(d);
	list = json_get(root, "list");
	ok(json_type_of(json_get(root, "len")) == JSON_REAL &&
	   json_num(json_get(root, "len"), 0) == 1e30 && json_int(json_get(root, "len"), -1) == -1,
	   "one is a real, and not to be taken for an integer");
	ok(json_int(json_get(root, "n"), 0) == 7, "the others stay integers");
	ok(json_num(json_at(list, 0), 0) == 18446744073709551616. &&
	   json_type_of(json_at(list, 0)) == JSON_REAL &&
	   json_type_of(json_at(list, 1)) == JSON_REAL, "2^64 - 1 and -2^63 - 1 are reals");
	ok(json_int(json_at(list, 2), 0) == INT64_MAX && json_int(json_at(list, 3), 0) == INT64_MIN,
	   "2^63 - 1 and -2^63 are not");
	ok_str(json_str(json_get(root, "18446744073709551615 \"18446744073709551615"), NULL),
	       "99999999999999999999", "strings are left alone");
	json_free(d);
	ok(!json_parse(&d, "99999999999999999999", 20, "t", &e) &&
	   json_num(json_root(d), 0) == 1e20, "one that is the whole text");
	json_free(d);
}

static void files(void)
{
	struct json_doc *d;
	struct err e;
	const char *path = file_path("a.json");

	file_write(path, " [1]\n", 5);
	ok(!json_parse_file(&d, path, &e), "a file is parsed");
	ok(json_int(json_at(json_root(d), 0), 0) == 1, "and has what was written");
	json_free(d);
	ok(json_parse_file(&d, file_path("none.json"), &e) == -1 && e.cls == ERR_NOINPUT,
	   "a file that is not there is no input");
	ok(json_parse_file(&d, files_in(), &e) == -1 && e.cls == ERR_NOINPUT &&
	   strstr(e.what, "directory"), "a directory is no input");
	ok(truncate(path, (off_t)300 << 20) == 0 && json_parse_file(&d, path, &e) == -1 &&
	   e.cls == ERR_DATA && strstr(e.what, "too large"), "a file of 300 MiB is refused unread");
	files_remove();
}

int main(void)
{
	views();
	refused();
	wide();
	files();
	return done();
}
