/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gguf_write.c - a GGUF file, its head last
 */
#include "formats/gguf_write.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "formats/ggml.h"
#include "lib/data/behind.h"

enum { ALIGNMENT = 32, VERSION = 3, HEAD = 4 + 4 + 8 + 8 };
/* Types of values, by number. */
enum { VALUE_U32 = 4, VALUE_F32 = 6, VALUE_BOOL = 7, VALUE_STR = 8, VALUE_ARRAY = 9 };

static void put_le(struct buf *b, uint64_t v, int bytes)
{
	for (int i = 0; i < bytes; i++)
		buf_byte(b, (int)(v >> 8 * i & 0xff));
}

static void put_text(struct buf *b, const char *s, size_t n)
{
	put_le(b, n, 8);
	buf_add(b, s, n);
}

static uint64_t padded(uint64_t n)
{
	return (n + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

void gguf_writer_release(struct gguf_writer *w)
{
	behind_free(w->behind);
	buf_release(&w->kv);
	free(w->t);
	memset(w, 0, sizeof(*w));
}

/* ---- keys ------------------------------------------------------------------------------- */

static void put_key(struct gguf_writer *w, const char *key, unsigned type)
{
	put_text(&w->kv, key, strlen(key));
	put_le(&w->kv, type, 4);
	w->n_kv++;
}

void gguf_put_u32(struct gguf_writer *w, const char *key, uint32_t v)
{
	put_key(w, key, VALUE_U32);
	put_le(&w->kv, v, 4);
}

void gguf_put_f32(struct gguf_writer *w, const char *key, float v)
{
	uint32_t bits;

	memcpy(&bits, &v, sizeof(bits));
	put_key(w, key, VALUE_F32);
	put_le(&w->kv, bits, 4);
}

void gguf_put_bool(struct gguf_writer *w, const char *key, bool v)
{
	put_key(w, key, VALUE_BOOL);
	put_le(&w->kv, v, 1);
}

void gguf_put_str(struct gguf_writer *w, const char *key, const char *s, size_t n)
{
	put_key(w, key, VALUE_STR);
	put_text(&w->kv, s, n);
}

void gguf_put_array(struct gguf_writer *w, const char *key, enum gguf_elem type, uint64_t n)
{
	put_key(w, key, VALUE_ARRAY);
	put_le(&w->kv, type, 4);
	put_le(&w->kv, n, 8);
}

void gguf_put_elem(struct gguf_writer *w, const void *four_bytes)
{
	uint32_t bits;

	memcpy(&bits, four_bytes, sizeof(bits));
	put_le(&w->kv, bits, 4);
}

void gguf_put_elem_str(struct gguf_writer *w, const char *s, size_t n)
{
	put_text(&w->kv, s, n);
}

void gguf_change_u32(struct gguf_writer *w, const char *key, uint32_t v)
{
	struct buf head = { 0 };
	char *at;

	put_text(&head, key, strlen(key));
	put_le(&head, VALUE_U32, 4);
	at = head.failed || w->kv.failed ? NULL : memmem(w->kv.p, w->kv.n, head.p, head.n);
	for (int i = 0; at && i < 4; i++)
		at[head.n + (size_t)i] = (char)(v >> 8 * i & 0xff);
	if (head.failed)
		w->kv.failed = true;
	buf_release(&head);
}

/* ---- tensors ---------------------------------------------------------------------------- */

uint64_t gguf_writer_listed(const char *name, int rank)
{
	return 8 + strlen(name) + 4 + 8 * (uint64_t)rank + 4 + 8;
}

int gguf_writer_begin(struct gguf_writer *w, size_t n, uint64_t listed, struct err *e)
{
	if (buf_failed(&w->kv, w->out->name, e))
		return -1;
	w->t = calloc(n + 1, sizeof(*w->t));
	if (!w->t)
		return err_nomem(e, w->out->name, n * sizeof(*w->t));
	w->cap = n;
	w->room = listed;
	w->data = padded(HEAD + w->kv.n + listed);
	return behind_new(&w->behind, e);
}

long gguf_writer_tensor(struct gguf_writer *w, const char *name, uint32_t type, int rank,
			const int64_t *ne, struct err *e)
{
	const struct ggml_type *t = ggml_type(type);
	struct gguf_written *to = &w->t[w->n];
	uint64_t n = 1;

	if (strlen(name) >= sizeof(to->name))
		return err_set(e, ERR_DATA, name, "is too long a name for a GGUF file");
	if (w->n == w->cap || rank < 1 || rank > 4 || !t || ne[0] % t->block)
		return err_set(e, ERR_BUG, name, "BUG: a tensor that was not announced, or does "
			       "not fit its type");
	memcpy(to->name, name, strlen(name) + 1);
	for (int i = 0; i < rank; i++) {
		to->ne[i] = ne[i];
		n *= (uint64_t)ne[i];
	}
	to->rank = rank;
	to->type = type;
	to->offset = w->end;
	to->nbytes = n / t->block * t->bytes;
	w->end += padded(to->nbytes);
	w->info += gguf_writer_listed(name, rank);
	return (long)w->n++;
}

static int write_at(const struct gguf_writer *w, const void *p, size_t n, uint64_t at,
		    struct err *e)
{
	const char *from = p;

	while (n > 0) {
		ssize_t got = pwrite(w->out->fd, from, n, (off_t)at);

		if (got < 0 && errno == EINTR)
			continue;
		if (got == 0)
			errno = ENOSPC;
		if (got <= 0)
			return err_errno(e, ERR_IO, w->out->name, "%s", "");
		from += got;
		at += (uint64_t)got;
		n -= (size_t)got;
	}
	return 0;
}

int gguf_writer_put(struct gguf_writer *w, long i, uint64_t from, const void *p, size_t n,
		    struct err *e)
{
	struct gguf_written *t = &w->t[i];

	if (from + n > t->nbytes)
		return err_set(e, ERR_BUG, t->name, "BUG: written beyond its end");
	t->have += n;
	return behind_write(w->behind, w->out->fd, p, n, w->data + t->offset + from, w->out->name,
			    e);
}

int gguf_writer_sync(struct gguf_writer *w, struct err *e)
{
	return behind_drain(w->behind, e);
}

int gguf_writer_end(struct gguf_writer *w, struct err *e)
{
	struct buf b = { 0 };
	int ret;

	buf_puts(&b, "GGUF");
	put_le(&b, VERSION, 4);
	put_le(&b, w->n, 8);
	put_le(&b, w->n_kv, 8);
	buf_add(&b, w->kv.p, w->kv.n);
	for (size_t i = 0; i < w->n; i++) {
		const struct gguf_written *t = &w->t[i];

		put_text(&b, t->name, strlen(t->name));
		put_le(&b, (uint64_t)t->rank, 4);
		for (int k = 0; k < t->rank; k++)
			put_le(&b, (uint64_t)t->ne[k], 8);
		put_le(&b, t->type, 4);
		put_le(&b, t->offset, 8);
		if (t->have != t->nbytes) {
			buf_release(&b);
			return err_set(e, ERR_BUG, t->name, "BUG: not written as a whole");
		}
	}
	ret = buf_failed(&b, w->out->name, e) || gguf_writer_sync(w, e) ? -1 : 0;
	if (!ret && (w->n != w->cap || w->info != w->room || padded(b.n) != w->data))
		ret = err_set(e, ERR_BUG, w->out->name, "BUG: tensors are not those announced");
	if (!ret)
		ret = write_at(w, b.p, b.n, 0, e);
	buf_release(&b);
	/* The padding behind the last tensor, and that behind the head, are zeros. */
	if (!ret && ftruncate(w->out->fd, (off_t)(w->data + w->end)) != 0)
		ret = err_errno(e, ERR_IO, w->out->name, "%s", "");
	return ret;
}
