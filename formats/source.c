/* SPDX-License-Identifier: Apache-2.0 */
/*
 * source.c - anything that is a model, as a stream of records
 */
#include "formats/source.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "formats/file.h"
#include "formats/hf.h"
#include "formats/tokenizer_json.h"
#include "lib/data/tokenizer.h"
#include "lib/model/family.h"

#define TOKENIZER "tokenizer.json"

/* What the next record of a directory is. */
enum step { STEP_HEAD, STEP_FILES, STEP_TENSORS, STEP_ALIAS, STEP_END };

struct dir_source {
	struct hf *hf;
	enum step step;
	int file;       /* next file; those before it are out */
	size_t tensor;  /* next of the plan */
	long layer;     /* of the block that is open, -1: none */

	char *text;     /* the current file's payload, or NULL */
	size_t text_len;
	char name[256]; /* the current tensor, or "" */
};

static enum dtype plan_dtype(void *ctx, enum slot s, long layer)
{
	const struct hf *h = ctx;
	struct hf_tensor t = { .dtype = DT_NONE };
	char name[256];

	model_tensor_name(hf_model(h), s, layer, name);
	return hf_tensor(h, name, &t) ? DT_NONE : t.dtype;
}

static bool ends_in(const char *name, const char *suffix)
{
	size_t n = strlen(name), k = strlen(suffix);

	return n >= k && strcmp(name + n - k, suffix) == 0;
}

static int next_head(struct dir_source *d, struct record *r, struct err *e)
{
	record_init(r, REC_STREAM, NULL);
	if (model_to_head(hf_model(d->hf), plan_dtype, d->hf, r, e))
		return -1;
	d->step = STEP_FILES;
	return 1;
}

static int next_file(struct dir_source *d, struct record *r, struct err *e)
{
	if (hf_file_read(d->hf, d->file, &d->text, &d->text_len, e))
		return -1;
	record_init(r, REC_FILE, hf_file(d->hf, d->file++));
	r->nbytes = d->text_len;
	return 1;
}

static int block_edge(struct record *r, enum rec_type type, long layer, struct err *e)
{
	record_init(r, type, NULL);
	return record_set_int(r, "index", layer) ? err_nomem(e, "block", sizeof(layer)) : 1;
}

static int next_tensor(struct dir_source *d, struct record *r, struct err *e)
{
	const struct model *m = hf_model(d->hf);
	struct hf_tensor t;
	enum slot s;
	long layer;

	if (!model_nth(m, d->tensor, &s, &layer))
		layer = -1, s = SLOT_NONE;
	if (d->layer >= 0 && layer != d->layer) {
		layer = d->layer;
		d->layer = -1;
		return block_edge(r, REC_BLOCK_END, layer, e);
	}
	if (s == SLOT_NONE) {
		d->step = m->cfg.tied ? STEP_ALIAS : STEP_END;
		return 0;
	}
	if (layer != d->layer) {
		d->layer = layer;
		hf_readahead(d->hf, layer);
		return block_edge(r, REC_BLOCK, layer, e);
	}
	model_tensor_name(m, s, layer, d->name);
	if (hf_tensor(d->hf, d->name, &t))
		return err_set(e, ERR_BUG, d->name, "BUG: in the plan but not in the model");
	record_init(r, REC_TENSOR, d->name);
	r->role = ends_in(d->name, ".bias") ? ROLE_BIAS : ROLE_WEIGHT;
	snprintf(r->role_name, sizeof(r->role_name), "%s", role_name(r->role));
	r->dtype = t.dtype;
	r->rank = t.rank;
	memcpy(r->shape, t.shape, sizeof(t.shape));
	r->nbytes = t.nbytes;
	d->tensor++;
	return 1;
}

static int next_alias(struct dir_source *d, struct record *r, struct err *e)
{
	const struct tensor_row *head = model_row(hf_model(d->hf), SLOT_HEAD);
	const struct tensor_row *embed = model_row(hf_model(d->hf), SLOT_EMBED);

	record_init(r, REC_ALIAS, head->name);
	if (record_set_str(r, "of", embed->name))
		return err_nomem(e, head->name, strlen(embed->name));
	d->step = STEP_END;
	return 1;
}

static int dir_next(void *self, struct record *r, struct err *e)
{
	struct dir_source *d = self;
	int got;

	free(d->text);
	d->text = NULL;
	d->name[0] = '\0';
	switch (d->step) {
	case STEP_HEAD:
		return next_head(d, r, e);
	case STEP_FILES:
		if (hf_file(d->hf, d->file))
			return next_file(d, r, e);
		d->step = STEP_TENSORS;
		/* fall through */
	case STEP_TENSORS:
		got = next_tensor(d, r, e);
		if (got || d->step == STEP_END)
			return got;
		/* fall through */
	case STEP_ALIAS:
		return next_alias(d, r, e);
	case STEP_END:
		break;
	}
	return 0;
}

static int dir_payload(void *self, void *dst, struct err *e)
{
	struct dir_source *d = self;

	if (d->text) {
		memcpy(dst, d->text, d->text_len);
		return 0;
	}
	if (d->name[0])
		return hf_read(d->hf, d->name, dst, e);
	return 0;
}

static void dir_close(void *self)
{
	struct dir_source *d = self;

	hf_close(d->hf);
	free(d->text);
	free(d);
}

static int open_dir(struct stream_in **in, const char *path, struct err *e)
{
	static const struct stream_in_ops ops = { dir_next, dir_payload, dir_close };
	struct dir_source *d = calloc(1, sizeof(*d));

	if (!d)
		return err_nomem(e, path, sizeof(*d));
	d->layer = -1;
	if (hf_open(&d->hf, path, e)) {
		free(d);
		return -1;
	}
	if (stream_in_from(in, &ops, d, e)) {
		dir_close(d);
		return -1;
	}
	return 0;
}

static bool is_dir(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static bool is_stdin(const char *path)
{
	return !path || strcmp(path, "-") == 0;
}

int source_open(struct stream_in **in, const char *path, struct err *e)
{
	if (!is_stdin(path) && is_dir(path))
		return open_dir(in, path, e);
	if (!is_stdin(path) && ends_in(path, ".safetensors"))
		return err_set(e, ERR_DATA, path, "is a part of a model: name the directory");
	return stream_open_in(in, path, e);
}

int source_take_file(struct tokenizer **t, struct stream_in *in, struct record *rec,
		     struct stream_out *out, struct err *e)
{
	char *text;
	int ret = -1;

	if (strcmp(rec->name, TOKENIZER))
		return out ? stream_copy(out, in, rec, e) : 0;
	if (rec->nbytes > FILE_MAX_WHOLE)
		return err_set(e, ERR_DATA, rec->name, "%llu bytes are too many (at most %zu)",
			       (unsigned long long)rec->nbytes, FILE_MAX_WHOLE);
	if (*t)
		return err_set(e, ERR_DATA, rec->name, "is there twice");
	text = malloc((size_t)rec->nbytes + 1);
	if (!text)
		return err_nomem(e, rec->name, rec->nbytes + 1);
	if (!stream_payload(in, text, e) &&
	    !tokenizer_from_json(t, text, (size_t)rec->nbytes, rec->name, e) &&
	    (!out || !stream_write(out, rec, text, e)))
		ret = 0;
	free(text);
	return ret;
}

/* The tokenizer.json of a stream; the rest of it is not read. */
static int stream_tokenizer(struct tokenizer **t, const char *path, struct err *e)
{
	struct stream_in *in;
	struct record rec = { .rank = -1 };
	int got, ret = -1;

	if (stream_open_in(&in, path, e))
		return -1;
	while ((got = stream_next(in, &rec, e)) == 1)
		if (rec.type == REC_FILE && strcmp(rec.name, TOKENIZER) == 0) {
			ret = source_take_file(t, in, &rec, NULL, e);
			break;
		}
	if (got == 0)
		err_set(e, ERR_DATA, is_stdin(path) ? "standard input" : path,
			"carries no " TOKENIZER);
	record_clear(&rec);
	stream_close_in(in);
	return ret;
}

static int file_tokenizer(struct tokenizer **t, const char *path, struct err *e)
{
	char *text;
	size_t n;
	int ret;

	if (file_read(path, path, FILE_MAX_WHOLE, &text, &n, e))
		return -1;
	ret = tokenizer_from_json(t, text, n, path, e);
	free(text);
	return ret;
}

/* A stream begins with a msgpack map or a zstd frame, JSON with '{', perhaps after blanks. */
static bool looks_like_json(const char *path)
{
	struct err ignored;
	uint64_t size;
	char c = 0;
	int fd = file_open(path, path, &size, &ignored);

	for (off_t i = 0; fd >= 0 && pread(fd, &c, 1, i) == 1 && i < 4096; i++)
		if (!memchr(" \t\r\n", c, 4))
			break;
	if (fd >= 0)
		close(fd);
	return c == '{';
}

int source_tokenizer(struct tokenizer **t, const char *path, struct err *e)
{
	char *file;
	size_t n;
	int ret;

	*t = NULL;
	if (is_stdin(path))
		return stream_tokenizer(t, path, e);
	if (!is_dir(path))
		return looks_like_json(path) ? file_tokenizer(t, path, e) :
		       stream_tokenizer(t, path, e);
	n = strlen(path) + sizeof("/" TOKENIZER);
	file = malloc(n);
	if (!file)
		return err_nomem(e, path, n);
	snprintf(file, n, "%s/" TOKENIZER, path);
	ret = file_tokenizer(t, file, e);
	free(file);
	return ret;
}
