/* SPDX-License-Identifier: Apache-2.0 */
/*
 * zslice.c - zstd for payloads
 */
#include "lib/data/zslice.h"

#include <stdlib.h>
#include <string.h>
#include <zstd.h>

struct space {
	unsigned char *p;
	size_t cap;
};

struct zslice {
	ZSTD_CCtx *c;
	ZSTD_DCtx *d;
	struct space frame, planes;
};

struct zslice *zslice_new(void)
{
	return calloc(1, sizeof(struct zslice));
}

void zslice_free(struct zslice *z)
{
	if (!z)
		return;
	ZSTD_freeCCtx(z->c);
	ZSTD_freeDCtx(z->d);
	free(z->frame.p);
	free(z->planes.p);
	free(z);
}

static void *space(struct space *s, size_t n, struct err *e)
{
	if (n > s->cap) {
		free(s->p);
		s->p = malloc(n);
		s->cap = s->p ? n : 0;
	}
	if (!s->p)
		err_nomem(e, "zstd", n);
	return s->p;
}

void *zslice_buffer(struct zslice *z, size_t n, struct err *e)
{
	return space(&z->frame, n > 0 ? n : 1, e);
}

size_t zslice_bound(size_t n)
{
	return ZSTD_compressBound(n);
}

int zslice_encode(struct zslice *z, void *dst, size_t cap, const void *src, size_t n, bool planes,
		  int level, size_t *out, struct err *e)
{
	if (!z->c && !(z->c = ZSTD_createCCtx()))
		return err_nomem(e, "zstd", n);
	if (planes) {
		unsigned char *low = space(&z->planes, n, e);
		const unsigned char *from = src;

		if (!low)
			return -1;
		for (size_t i = 0; i < n / 2; i++) {
			low[i] = from[2 * i];
			low[n / 2 + i] = from[2 * i + 1];
		}
		src = low;
	}
	*out = ZSTD_compressCCtx(z->c, dst, cap, src, n, level);
	if (ZSTD_isError(*out))
		return err_set(e, ERR_BUG, "zstd", "BUG: %s", ZSTD_getErrorName(*out));
	return 0;
}

int zslice_decode(struct zslice *z, void *dst, size_t n, const void *src, size_t len, bool planes,
		  struct err *e)
{
	unsigned char *low = dst, *to = dst;
	size_t got;

	if (!z->d && !(z->d = ZSTD_createDCtx()))
		return err_nomem(e, "zstd", n);
	if (planes && !(low = space(&z->planes, n, e)))
		return -1;
	if (ZSTD_findFrameCompressedSize(src, len) != len)
		return err_set(e, ERR_DATA, "zstd", "a chunk is not one zstd frame");
	got = ZSTD_decompressDCtx(z->d, low, n, src, len);
	if (ZSTD_isError(got))
		return err_set(e, ERR_DATA, "zstd", "damaged zstd data: %s",
			       ZSTD_getErrorName(got));
	if (got != n)
		return err_set(e, ERR_DATA, "zstd", "a chunk of %zu bytes, expected %zu", got, n);
	if (planes)
		for (size_t i = 0; i < n / 2; i++) {
			to[2 * i] = low[i];
			to[2 * i + 1] = low[n / 2 + i];
		}
	return 0;
}
