/* SPDX-License-Identifier: Apache-2.0 */
/*
 * safetensors_write.c - tensors into the safetensors files of a directory, as they come
 */
#include "formats/safetensors_write.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "formats/file.h"
#include "lib/base/buf.h"
#include "lib/data/behind.h"

#define METADATA "{\"__metadata__\":{\"format\":\"pt\"}"
#define COPY ((size_t)1 << 20)

struct out_tensor {
	char *name;
	enum dtype dtype;
	int rank;
	int64_t shape[8];
	uint64_t nbytes;
	uint64_t begin;         /* in the data of its file; of an odd one, in the side file */
	bool odd;               /* bytes are no multiple of 8 */
	int shard;
};

struct st_writer {
	struct outdir *dir;
	uint64_t max_shard;
	uint64_t room;            /* of a file's header, with the 8 bytes before it */
	struct out_tensor *t;
	size_t n, cap;
	size_t first;             /* of the file that is open */
	int shard;                /* from 0; -1: none yet */
	int fd, side;             /* side: of the odd ones; -1: none is open */
	uint64_t even_bytes, odd_bytes, total;
	uint64_t left;            /* bytes of the tensor that is being written */
	struct behind *behind;    /* writes tensors */
};

size_t st_header_room(const char *name)
{
	/* quotes, keys, a type, up to 8 dimensions and two offsets of at most 20 digits */
	return 6 * strlen(name) + 96 + 10 * 21;
}

static void shard_name(char *buf, size_t cap, int shard, int of)
{
	if (of == 1)
		snprintf(buf, cap, "model.safetensors");
	else if (of > 1)
		snprintf(buf, cap, "model-%05d-of-%05d.safetensors", shard + 1, of);
	else
		snprintf(buf, cap, "shard-%05d", shard + 1);
}

int st_writer_new(struct st_writer **out, struct outdir *dir, uint64_t max_shard, uint64_t header,
		  struct err *e)
{
	struct st_writer *w = calloc(1, sizeof(*w));

	*out = NULL;
	if (!w)
		return err_nomem(e, dir->name, sizeof(*w));
	w->dir = dir;
	w->max_shard = max_shard;
	w->room = (8 + sizeof(METADATA) + header + 7) / 8 * 8;
	w->shard = w->fd = w->side = -1;
	*out = w;
	return behind_new(&w->behind, e);
}

void st_writer_free(struct st_writer *w)
{
	if (!w)
		return;
	behind_free(w->behind);
	for (size_t i = 0; i < w->n; i++)
		free(w->t[i].name);
	if (w->fd >= 0)
		close(w->fd);
	if (w->side >= 0)
		close(w->side);
	free(w->t);
	free(w);
}

/* ---- a file's end ---------------------------------------------------------------- */

static int by_size(const void *a, const void *b)
{
	const struct out_tensor *x = *(const struct out_tensor *const *)a;
	const struct out_tensor *y = *(const struct out_tensor *const *)b;
	int i = dtype_bits(x->dtype), k = dtype_bits(y->dtype);

	return i != k ? k - i : x < y ? -1 : 1;
}

/* Bytes of the side file, behind the others. */
static int append(struct st_writer *w, const struct out_tensor *t, char *buf, struct err *e)
{
	for (uint64_t i = 0; i < t->nbytes;) {
		uint64_t n = t->nbytes - i < COPY ? t->nbytes - i : COPY;

		if (file_pread(w->side, buf, n, t->begin + i, t->name, e) ||
		    outdir_write(w->fd, buf, n, t->name, e))
			return -1;
		i += n;
	}
	return 0;
}

static int append_odd(struct st_writer *w, struct err *e)
{
	struct out_tensor **odd = calloc(w->n - w->first + 1, sizeof(struct out_tensor *));
	uint64_t at = w->even_bytes;
	char *buf = malloc(COPY);
	size_t n = 0;
	int ret = odd && buf ? 0 : err_nomem(e, w->dir->name, COPY);

	if (!ret && lseek(w->fd, (off_t)(w->room + w->even_bytes), SEEK_SET) < 0)
		ret = err_errno(e, ERR_IO, w->dir->name, "%s", "");
	for (size_t i = w->first; !ret && i < w->n; i++)
		if (w->t[i].odd)
			odd[n++] = &w->t[i];
	if (n > 1)
		qsort(odd, n, sizeof(struct out_tensor *), by_size);
	for (size_t i = 0; !ret && i < n; i++) {
		ret = append(w, odd[i], buf, e);
		odd[i]->begin = at;
		at += odd[i]->nbytes;
	}
	free(buf);
	free(odd);
	return ret;
}

static void print_string(struct buf *b, const char *s)
{
	buf_byte(b, '"');
	for (; *s; s++)
		if (*s == '"' || *s == '\\')
			buf_printf(b, "\\%c", *s);
		else if ((unsigned char)*s < 0x20)
			buf_printf(b, "\\u%04x", (unsigned)*s);
		else
			buf_byte(b, *s);
	buf_byte(b, '"');
}

static void print_tensor(struct buf *b, const struct out_tensor *t)
{
	buf_puts(b, ",");
	print_string(b, t->name);
	buf_printf(b, ":{\"dtype\":\"%s\",\"shape\":[", dtype_name(t->dtype));
	for (int i = 0; i < t->rank; i++)
		buf_printf(b, "%s%lld", i ? "," : "", (long long)t->shape[i]);
	buf_printf(b, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)t->begin,
		   (unsigned long long)(t->begin + t->nbytes));
}

/* Length and text, padded to the room that was left. */
static int write_header(struct st_writer *w, struct err *e)
{
	struct buf b = { 0 };
	int ret;

	for (int i = 0; i < 8; i++)
		buf_byte(&b, (int)((w->room - 8) >> (8 * i) & 0xff));
	buf_puts(&b, METADATA);
	for (size_t i = w->first; i < w->n; i++)
		print_tensor(&b, &w->t[i]);
	buf_puts(&b, "}");
	while (!b.failed && b.n < w->room)
		buf_byte(&b, ' ');
	ret = buf_failed(&b, w->dir->name, e);
	if (!ret && b.n > w->room)
		ret = err_set(e, ERR_BUG, w->dir->name, "BUG: no room for a header of %zu", b.n);
	if (!ret && lseek(w->fd, 0, SEEK_SET) != 0)
		ret = err_errno(e, ERR_IO, w->dir->name, "%s", "");
	if (!ret)
		ret = outdir_write(w->fd, b.p, b.n, w->dir->name, e);
	buf_release(&b);
	return ret;
}

static int close_shard(struct st_writer *w, struct err *e)
{
	int fd = w->fd;

	if (w->shard < 0)
		return 0;
	if (behind_drain(w->behind, e) || (w->odd_bytes && append_odd(w, e)) || write_header(w, e))
		return -1;
	w->fd = -1;
	if (w->side >= 0 && ftruncate(w->side, 0)) {
		err_errno(e, ERR_IO, w->dir->name, "%s", "");
		close(fd);
		return -1;
	}
	return outdir_finish(fd, w->dir->name, e);
}

static int open_shard(struct st_writer *w, struct err *e)
{
	char name[64];

	w->shard++;
	w->first = w->n;
	w->even_bytes = w->odd_bytes = 0;
	shard_name(name, sizeof(name), w->shard, 0);
	w->fd = outdir_create(w->dir, name, e);
	return w->fd < 0 ? -1 : 0;
}

/* ---- tensors ---------------------------------------------------------------------- */

static struct out_tensor *add(struct st_writer *w, const char *name, struct err *e)
{
	struct out_tensor *t;

	if (w->n == w->cap) {
		const size_t cap = w->cap ? 2 * w->cap : 256;

		t = realloc(w->t, cap * sizeof(*t));
		if (!t) {
			err_nomem(e, name, cap * sizeof(*t));
			return NULL;
		}
		w->t = t;
		w->cap = cap;
	}
	t = &w->t[w->n];
	memset(t, 0, sizeof(*t));
	t->name = strdup(name);
	if (!t->name) {
		err_nomem(e, name, strlen(name));
		return NULL;
	}
	return t;
}

static int place(struct st_writer *w, struct out_tensor *t, struct err *e)
{
	const uint64_t held = w->even_bytes + w->odd_bytes;

	if (w->shard < 0 || (held && held + t->nbytes > w->max_shard))
		if (close_shard(w, e) || open_shard(w, e))
			return -1;
	t->odd = t->nbytes % 8 != 0;
	t->shard = w->shard;
	t->begin = t->odd ? w->odd_bytes : w->even_bytes;
	*(t->odd ? &w->odd_bytes : &w->even_bytes) += t->nbytes;
	if (!t->odd)
		return 0;
	if (w->side < 0)
		w->side = outdir_create(w->dir, "side", e);
	return w->side < 0 ? -1 : 0;
}

int st_writer_begin(struct st_writer *w, const char *name, enum dtype dtype, int rank,
		    const int64_t *shape, struct err *e)
{
	struct out_tensor *t;
	int ret;

	if (w->left)
		return err_set(e, ERR_BUG, w->t[w->n - 1].name, "BUG: %llu bytes are missing",
			       (unsigned long long)w->left);
	t = add(w, name, e);
	if (!t)
		return -1;
	t->dtype = dtype;
	t->rank = rank;
	memcpy(t->shape, shape, (size_t)rank * sizeof(*shape));
	ret = dtype_nbytes(dtype, rank, shape, &t->nbytes) ?
	      err_set(e, ERR_BUG, name, "BUG: too large") : place(w, t, e);
	if (ret) {
		free(t->name);
		return ret;
	}
	w->n++;
	w->left = t->nbytes;
	w->total += t->nbytes;
	return 0;
}

int st_writer_bytes(struct st_writer *w, const void *p, size_t n, struct err *e)
{
	const struct out_tensor *t = &w->t[w->n - 1];

	const uint64_t at = (t->odd ? 0 : w->room) + t->begin + (t->nbytes - w->left);

	if (n > w->left)
		return err_set(e, ERR_BUG, t->name, "BUG: too many bytes");
	w->left -= n;
	return behind_write(w->behind, t->odd ? w->side : w->fd, p, n, at, t->name, e);
}

int st_writer_put(struct st_writer *w, const char *name, enum dtype dtype, int rank,
		  const int64_t *shape, const void *p, struct err *e)
{
	if (st_writer_begin(w, name, dtype, rank, shape, e))
		return -1;
	return st_writer_bytes(w, p, (size_t)w->left, e);
}

uint64_t st_writer_total(const struct st_writer *w)
{
	return w->total;
}

/* ---- the end ---------------------------------------------------------------------- */

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct out_tensor *)a)->name, ((const struct out_tensor *)b)->name);
}

static int write_index(struct st_writer *w, struct err *e)
{
	struct buf b = { 0 };
	char name[64];
	int ret;

	buf_printf(&b, "{\n  \"metadata\": {\n    \"total_size\": %llu\n  },\n  \"weight_map\": {",
		   (unsigned long long)w->total);
	for (size_t i = 0; i < w->n; i++) {
		shard_name(name, sizeof(name), w->t[i].shard, w->shard + 1);
		buf_puts(&b, i ? ",\n    " : "\n    ");
		print_string(&b, w->t[i].name);
		buf_printf(&b, ": \"%s\"", name);
	}
	buf_puts(&b, "\n  }\n}\n");
	ret = buf_failed(&b, w->dir->name, e);
	if (!ret)
		ret = outdir_put(w->dir, "model.safetensors.index.json", b.p, b.n, e);
	buf_release(&b);
	return ret;
}

int st_writer_finish(struct st_writer *w, struct err *e)
{
	char from[64], to[64];

	if (w->left)
		return err_set(e, ERR_BUG, w->t[w->n - 1].name, "BUG: %llu bytes are missing",
			       (unsigned long long)w->left);
	if (w->shard < 0 && open_shard(w, e))
		return -1;
	if (close_shard(w, e))
		return -1;
	if (w->side >= 0) {
		close(w->side);
		w->side = -1;
		if (unlinkat(w->dir->fd, "side", 0))
			return err_errno(e, ERR_IO, w->dir->name, "%s", "");
	}
	for (int i = 0; i <= w->shard; i++) {
		shard_name(from, sizeof(from), i, 0);
		shard_name(to, sizeof(to), i, w->shard + 1);
		if (outdir_rename(w->dir, from, to, e))
			return -1;
	}
	qsort(w->t, w->n, sizeof(*w->t), by_name);
	for (size_t i = 1; i < w->n; i++)
		if (strcmp(w->t[i - 1].name, w->t[i].name) == 0)
			return err_set(e, ERR_BUG, w->t[i].name, "BUG: written twice");
	return w->shard > 0 ? write_index(w, e) : 0;
}
