/* SPDX-License-Identifier: Apache-2.0 */
/*
 * source.c - anything that is a model, as a stream of records
 */
#include "formats/source.h"

#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "formats/checkpoint.h"
#include "formats/file.h"
#include "formats/gguf_model.h"
#include "formats/hf.h"
#include "formats/llama2c.h"

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

static const struct hf_codes *dir_codes(const void *self, const char *name)
{
	return hf_codes(self, name);
}

static int dir_codes_read(void *self, const char *name, enum role role, void *dst,
			  struct err *e)
{
	return hf_codes_read(self, name, role, dst, e);
}

static int dir_read_piece(void *self, const char *name, uint64_t from, void *dst, size_t n,
			  struct err *e)
{
	return hf_read_piece(self, name, from, dst, n, e);
}

static int dir_run(const void *self, long layer, size_t i, struct hf_run *r, struct err *e)
{
	return hf_run(self, layer, i, r, e);
}

static int open_dir(struct stream_in **in, const char *path, struct err *e)
{
	static const struct checkpoint_ops ops = {
		dir_model, dir_tensor, dir_read, dir_readahead, dir_file, dir_file_read, dir_close,
		dir_codes, dir_codes_read, dir_read_piece, dir_run,
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

/* A stream begins with a msgpack map whose first key is "t", or with a zstd frame. */
static bool is_stream(const unsigned char *first, size_t n)
{
	static const unsigned char zstd[4] = { 0x28, 0xb5, 0x2f, 0xfd };
	size_t map = n && first[0] == 0xde ? 3 : n && first[0] == 0xdf ? 5 : 1;

	return (n >= 4 && memcmp(first, zstd, 4) == 0) ||
	       (n >= map + 2 && first[0] >= 0x80 && first[map] == 0xa1 && first[map + 1] == 't');
}

enum source_kind source_kind(const char *path)
{
	unsigned char first[LLAMA2C_HEADER];
	struct err ignored;
	uint64_t size;
	size_t n = 0;
	int fd;

	if (is_stdin(path))
		return SOURCE_STREAM;
	if (is_dir(path))
		return SOURCE_DIR;
	if (ends_in(path, ".gguf"))
		return SOURCE_GGUF; /* it may be an empty one, or none at all */
	/* What is no regular file is a stream: looking at it would take bytes from it. */
	fd = file_open(path, path, &size, &ignored);
	if (fd < 0)
		return SOURCE_STREAM;
	n = size < sizeof(first) ? (size_t)size : sizeof(first);
	if (file_pread(fd, first, n, 0, path, &ignored))
		n = 0;
	close(fd);
	if (n >= 4 && gguf_magic(first))
		return SOURCE_GGUF;
	return !is_stream(first, n) && llama2c_looks(first, n) ? SOURCE_LLAMA2C : SOURCE_STREAM;
}

int source_open(struct stream_in **in, const char *path, struct err *e)
{
	switch (source_kind(path)) {
	case SOURCE_DIR:
		return open_dir(in, path, e);
	case SOURCE_GGUF:
		return gguf_model_open(in, path, e);
	case SOURCE_LLAMA2C:
		return llama2c_open(in, path, e);
	case SOURCE_STREAM:
		break;
	}
	if (!is_stdin(path) && ends_in(path, ".safetensors"))
		return err_set(e, ERR_DATA, path, "is a part of a model: name the directory");
	return stream_open_in(in, path, e);
}
