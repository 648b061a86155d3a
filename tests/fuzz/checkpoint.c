/* SPDX-License-Identifier: Apache-2.0 */
/*
 * checkpoint.c - fuzz target: a config.json (if it begins with '{') or a safetensors file
 *
 *     clang -g -O1 -std=c11 -D_GNU_SOURCE -I. -fsanitize=fuzzer,address,undefined \
 *         -o /tmp/fuzz tests/fuzz/checkpoint.c formats/{json,file,safetensors,hf_config}.c \
 *         lib/model/family*.c lib/data/{mp,mpwalk,record,header,dtype}.c lib/base/{err,buf}.c \
 *         -ljansson -lmsgpackc -lm && /tmp/fuzz -max_total_time=60 CORPUS
 *
 * What is accepted must hold what its header promises: every tensor is read, every model has
 * names and shapes and goes through a stream's head unchanged.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "formats/hf.h"
#include "formats/safetensors.h"
#include "lib/data/stream.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void must(int condition)
{
	if (!condition)
		abort();
}

static void weights(const uint8_t *data, size_t n)
{
	struct safetensors s;
	struct err e = { .cls = ERR_NONE };
	int fd = memfd_create("fuzz", 0);
	char path[64];

	must(fd >= 0 && write(fd, data, n) == (ssize_t)n);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (safetensors_open(&s, path, &e)) {
		must(e.cls == ERR_DATA && e.what[0]);
	} else {
		for (size_t i = 0; i < s.n; i++) {
			must(s.t[i].nbytes <= n && safetensors_find(&s, s.t[i].name) == &s.t[i]);
			void *p = malloc(s.t[i].nbytes + 1);
			must(p && safetensors_read(&s, &s.t[i], p, &e) == 0);
			free(p);
		}
		safetensors_close(&s);
	}
	close(fd);
}

static enum dtype bf16(void *ctx, enum slot s, long layer)
{
	(void)ctx, (void)s, (void)layer;
	return DT_BF16;
}

static void config(const char *text, size_t n)
{
	struct record head = { .rank = -1 };
	struct model_config c;
	struct model m, back;
	struct err e = { .cls = ERR_NONE };

	if (hf_config_parse(&c, text, n, &e)) {
		must(e.cls == ERR_DATA && e.what[0]);
		return;
	}
	must(model_init(&m, &c, &e) == 0);
	record_init(&head, REC_STREAM, NULL);
	/* Thousands of layers do not fit a header. */
	if (c.layers < 100) {
		must(model_to_head(&m, bf16, NULL, &head, &e) == 0);
		must(model_from_head(&back, &head, &e) == 0);
		must(m.cfg.hidden == back.cfg.hidden && m.cfg.rope_theta == back.cfg.rope_theta &&
		     m.cfg.tied == back.cfg.tied && m.cfg.eos == back.cfg.eos);
	}
	record_clear(&head);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	if (n > 0 && data[0] == '{')
		config((const char *)data, n);
	else
		weights(data, n);
	return 0;
}
