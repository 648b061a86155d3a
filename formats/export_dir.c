/* SPDX-License-Identifier: Apache-2.0 */
/*
 * export_dir.c - weights and config.json of a model directory that is being written
 */
#include "formats/export.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/json.h"
#include "lib/base/buf.h"

#define CONFIG "config.json"
#define PIECE 16384 /* values that are converted at a time */

uint64_t export_header_room(const struct model *m, int per_linear)
{
	char name[256 + 25];
	uint64_t room = 0;
	enum slot s;
	long layer;

	for (size_t i = 0; model_nth(m, i, &s, &layer); i++) {
		const bool matrix = model_dims(m, s, (int64_t[MODEL_MAX_RANK]){ 0 }) == 2;

		size_t n;

		model_tensor_name(m, s, layer, name);
		n = strlen(name);
		memset(name + n, ' ', 24);
		name[n + 24] = '\0';
		room += st_header_room(name) * (slot_in_block(s) && matrix ?
						(unsigned)per_linear : 1u);
	}
	return room;
}

static int convert(struct export *note, struct st_writer *w, struct readback *b,
		   const struct record *rec, const void *data, enum dtype dtype, const char *hint,
		   struct err *e)
{
	const size_t from = (size_t)dtype_bits(rec->dtype) / 8, to = (size_t)dtype_bits(dtype) / 8;
	const size_t n = (size_t)rec->nbytes / from;
	double sums[2] = { 0, 0 };
	float x[PIECE];
	uint32_t y[PIECE];

	for (size_t i = 0; i < n; i += PIECE) {
		const size_t k = n - i < PIECE ? n - i : PIECE;

		if (dtype_to_f32(x, (const char *)data + i * from, rec->dtype, k) ||
		    dtype_from_f32(y, dtype, x, k))
			return err_set(e, ERR_BUG, rec->name, "BUG: cannot be converted");
		if (dtype_first_nonfinite(y, dtype, k) >= 0)
			return err_set(e, ERR_DATA, rec->name, "value %g is too large for %s%s",
				       (double)x[dtype_first_nonfinite(y, dtype, k)],
				       dtype_name(dtype), hint);
		if (note && dtype != DT_F32)
			export_squares(sums, x, y, dtype, k);
		readback_bytes(b, y, k * to);
		if (st_writer_bytes(w, y, k * to, e))
			return -1;
	}
	if (note)
		export_note_rounded(note, rec->name, dtype, sums);
	return 0;
}

int export_weight(struct export *x, struct st_writer *w, struct readback *b,
		  const struct record *rec, const void *data, enum dtype dtype, const char *hint,
		  struct err *e)
{
	if (dtype == DT_NONE)
		dtype = rec->dtype;
	if (readback_begin(b, rec->name, rec->role, dtype, rec->rank, rec->shape, e) ||
	    st_writer_begin(w, rec->name, dtype, rec->rank, rec->shape, e))
		return -1;
	if (dtype != rec->dtype)
		return convert(x, w, b, rec, data, dtype, hint, e);
	readback_bytes(b, data, (size_t)rec->nbytes);
	return st_writer_bytes(w, data, (size_t)rec->nbytes, e);
}

struct passing {
	struct st_writer *w;
	struct readback *b;
	const struct record *rec;
	uint64_t at;
};

static int pass_piece(void *ctx, const void *p, size_t n, struct err *e)
{
	struct passing *t = ctx;
	const struct record *r = t->rec;
	const size_t width = (size_t)dtype_bits(r->dtype) / 8;
	const int64_t bad = dtype_first_nonfinite(p, r->dtype, n / width);
	const int64_t cols = r->rank > 1 ? r->shape[r->rank - 1] : 1;

	if (bad >= 0) {
		const int64_t i = (int64_t)(t->at / width) + bad;

		return err_set(e, ERR_DATA, r->name, "value at row %lld column %lld is not finite",
			       (long long)(i / cols), (long long)(i % cols));
	}
	t->at += n;
	readback_bytes(t->b, p, n);
	return st_writer_bytes(t->w, p, n, e);
}

int export_pass(struct st_writer *w, struct readback *b, const struct record *rec,
		struct stream_in *in, struct err *e)
{
	struct passing t = { w, b, rec, 0 };

	if (readback_begin(b, rec->name, rec->role, rec->dtype, rec->rank, rec->shape, e) ||
	    st_writer_begin(w, rec->name, rec->dtype, rec->rank, rec->shape, e))
		return -1;
	return stream_pieces(in, rec->nbytes, pass_piece, &t, e);
}

static const char *const dtype_words[][2] = {
	{ "F32", "float32" }, { "F16", "float16" }, { "BF16", "bfloat16" },
};
enum { N_WORDS = sizeof(dtype_words) / sizeof(dtype_words[0]) };

static const char *dtype_key(const struct json *root)
{
	return json_get(root, "dtype") && !json_get(root, "torch_dtype") ? "dtype" : "torch_dtype";
}

enum dtype export_config_dtype(const struct export *x)
{
	struct json_doc *d;
	enum dtype t = DT_NONE;
	const char *word;
	struct err ignored;

	if (!x->config || json_parse(&d, x->config, x->config_len, CONFIG, &ignored))
		return DT_NONE;
	word = json_str(json_get(json_root(d), dtype_key(json_root(d))), NULL);
	for (int i = 0; word && i < N_WORDS; i++)
		if (strcmp(word, dtype_words[i][1]) == 0)
			t = dtype_from_name(dtype_words[i][0]);
	json_free(d);
	return t;
}

static int set_dtype(struct json_doc *d, enum dtype dtype, struct err *e)
{
	char text[32];

	for (int i = 0; i < N_WORDS; i++)
		if (dtype == dtype_from_name(dtype_words[i][0])) {
			snprintf(text, sizeof(text), "\"%s\"", dtype_words[i][1]);
			return json_set(d, dtype_key(json_root(d)), text, e);
		}
	return 0;
}

int export_config(struct export *x, enum dtype dtype, const char *quantization, struct err *e)
{
	struct buf b = { 0 };
	struct json_doc *d;
	const bool tied = x->model.cfg.tied;
	int ret = 0;

	if (json_parse(&d, x->config, x->config_len, CONFIG, e))
		return -1;
	if (json_type_of(json_root(d)) != JSON_OBJECT)
		ret = err_set(e, ERR_DATA, CONFIG, "is not an object");
	/* Of classifiers of images, and where it says so already, nothing is said. */
	if (!ret && json_bool(json_get(json_root(d), "tie_word_embeddings"), !tied) != tied &&
	    !x->model.family->images)
		ret = json_set(d, "tie_word_embeddings", tied ? "true" : "false", e);
	if (!ret)
		ret = set_dtype(d, dtype, e);
	if (!ret) {
		json_remove(d, "quantization_config");
		json_remove(d, "compression_config");
	}
	if (!ret && quantization)
		ret = json_set(d, "quantization_config", quantization, e);
	if (!ret)
		ret = json_print(d, &b, e);
	if (!ret)
		ret = outdir_put(x->dir, CONFIG, b.p, b.n, e);
	buf_release(&b);
	json_free(d);
	return ret;
}

uint64_t export_shard_size(const char *text)
{
	static const struct {
		const char *unit;
		uint64_t times;
	} units[] = {
		{ "", 1 }, { "K", 1000 }, { "KB", 1000 }, { "M", 1000000 }, { "MB", 1000000 },
		{ "G", 1000000000 }, { "GB", 1000000000 },
	};
	char *end;
	unsigned long long n;

	if (!isdigit((unsigned char)*text))
		return 0;
	errno = 0;
	n = strtoull(text, &end, 10);
	for (size_t i = 0; errno == 0 && i < sizeof(units) / sizeof(units[0]); i++)
		if (strcmp(end, units[i].unit) == 0 && n <= UINT64_MAX / units[i].times)
			return n * units[i].times;
	return 0;
}
