/* SPDX-License-Identifier: Apache-2.0 */
/*
 * llama2c.c - fuzz target: .bin files of llama2.c, and their tokenizers
 *
 * The input is a model; or, if it does not look like one, the text of a tokenizer.bin.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "formats/llama2c.h"
#include "formats/tokenizer_files.h"
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
	must((e->cls == ERR_DATA || e->cls == ERR_NOMEM) && e->where[0] && e->what[0]);
}

static void model(const char *path)
{
	struct err e = { .cls = ERR_NONE };
	struct record r = { .rank = -1 };
	struct stream_in *in;
	int got;

	if (llama2c_open(&in, path, &e)) {
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

static void tokenizer(const char *data, size_t n)
{
	struct tokenizer_files f = { 0 };
	struct err e = { .cls = ERR_NONE };
	struct tokenizer *t;

	/* tests/data/stories260K/tok512.bin is one of 512. */
	if (llama2c_tokenizer(&f, data, n, 512, "tokenizer.bin", &e)) {
		refused(&e);
	} else if (tokenizer_files_build(&t, &f, NULL, &e)) {
		refused(&e);
	} else {
		tokenizer_free(t);
	}
	tokenizer_files_release(&f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	char path[64];
	int fd;

	if (!llama2c_looks(data, n)) {
		tokenizer((const char *)data, n);
		return 0;
	}
	fd = memfd_create("fuzz", 0);
	must(fd >= 0 && write(fd, data, n) == (ssize_t)n);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	model(path);
	close(fd);
	return 0;
}
