/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gguf.c - fuzz target: GGUF files, as containers, as models and as tokenizers
 *
 * What is accepted must hold what it promises: every tensor lies in the file and is read, every key
 * is looked at, and a model's stream goes through to its end.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "formats/gguf_model.h"
#include "lib/data/stream.h"
#include "lib/data/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void must(int condition)
{
	if (!condition)
		abort();
}

static void refused(const struct err *e)
{
	must((e->cls == ERR_DATA || e->cls == ERR_NOMEM) && e->what[0]);
}

static void tensor(const struct gguf *g, const struct gguf_tensor *t, size_t n)
{
	struct err e;
	void *p;

	must(t->at <= n && t->nbytes <= n - t->at && gguf_tensor(g, t->name) == t);
	p = malloc((size_t)t->nbytes + 1);
	must(p && gguf_read(g, t, 0, p, t->nbytes, &e) == 0);
	if (t->type->dequantize) {
		size_t blocks = (size_t)t->nbytes / t->type->bytes;
		float *y = malloc(blocks * t->type->block * sizeof(*y) + 1);

		must(y != NULL);
		t->type->dequantize(y, p, blocks);
		free(y);
	}
	free(p);
}

static void container(const uint8_t *data, size_t n)
{
	struct err e = { .cls = ERR_NONE };
	struct gguf g;
	const char *s;
	uint64_t at;
	int64_t i;
	size_t len;
	double v;

	if (gguf_parse(&g, data, n, "fuzz", &e)) {
		refused(&e);
		return;
	}
	for (size_t k = 0; k < g.n_kv; k++) {
		const struct gguf_kv *kv = gguf_find(&g, g.kv[k].key);

		must(kv == &g.kv[k]);
		for (at = 0; gguf_str(&g, kv, &at, &s, &len);)
			must(len == 0 || s[0] + s[len - 1] < 256);
		for (uint64_t j = 0; j < kv->n; j++)
			must(!(gguf_int(&g, kv, j, &i) && gguf_real(&g, kv, j, &v)));
	}
	for (size_t k = 0; k < g.n; k++)
		tensor(&g, &g.t[k], n);
	gguf_close(&g);
}

static void model(const char *path)
{
	struct err e = { .cls = ERR_NONE };
	struct record r = { .rank = -1 };
	struct stream_in *in;
	int got;

	if (gguf_model_open(&in, path, &e)) {
		refused(&e);
		return;
	}
	while ((got = stream_next(in, &r, &e)) == 1) {
		void *p = malloc((size_t)r.nbytes + 1);

		must(p != NULL);
		got = stream_payload(in, p, &e);
		free(p);
		if (got)
			break;
	}
	if (got)
		refused(&e);
	record_clear(&r);
	stream_close_in(in);
}

static void tokenizer(const char *path)
{
	static const char text[] = "Once upon a time \xe6\x97\xa5\n 12";
	struct tokenizer *t;
	struct ids ids = { 0 };
	struct err e = { .cls = ERR_NONE };

	if (gguf_model_tokenizer(&t, path, &e)) {
		refused(&e);
		return;
	}
	if (tokenizer_encode(t, text, strlen(text), true, &ids, &e))
		refused(&e);
	ids_release(&ids);
	tokenizer_free(t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	int fd = memfd_create("fuzz", 0);
	char path[64];

	must(fd >= 0 && write(fd, data, n) == (ssize_t)n);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	container(data, n);
	model(path);
	tokenizer(path);
	close(fd);
	return 0;
}
