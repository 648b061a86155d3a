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

#include "formats/checkpoint.h"
#include "formats/file.h"
#include "formats/hf.h"
#include "formats/tokenizer_json.h"
#include "lib/data/tokenizer.h"

#define TOKENIZER "tokenizer.json"

static const struct model *dir_model(const void *self)
{
	return hf_model(self);
}

static int dir_tensor(const void *self, const char *name, struct checkpoint_tensor *t)
{
	struct hf_tensor h;

	if (hf_tensor(self, name, &h))
		return -1;
	t->dtype = h.dtype;
	t->rank = h.rank;
	memcpy(t->shape, h.shape, sizeof(t->shape));
	t->nbytes = h.nbytes;
	return 0;
}

static int dir_read(void *self, const char *name, void *dst, struct err *e)
{
	return hf_read(self, name, dst, e);
}

static void dir_readahead(const void *self, long layer)
{
	hf_readahead(self, layer);
}

static const char *dir_file(const void *self, int i)
{
	return hf_file(self, i);
}

static int dir_file_read(const void *self, int i, char **text, size_t *n, struct err *e)
{
	return hf_file_read(self, i, text, n, e);
}

static void dir_close(void *self)
{
	hf_close(self);
}

static int open_dir(struct stream_in **in, const char *path, struct err *e)
{
	static const struct checkpoint_ops ops = {
		dir_model, dir_tensor, dir_read, dir_readahead, dir_file, dir_file_read, dir_close,
	};
	struct hf *h;

	if (hf_open(&h, path, e))
		return -1;
	return checkpoint_stream(in, &ops, h, e);
}

static bool ends_in(const char *name, const char *suffix)
{
	size_t n = strlen(name), k = strlen(suffix);

	return n >= k && strcmp(name + n - k, suffix) == 0;
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
