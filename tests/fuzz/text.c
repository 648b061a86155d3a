/* SPDX-License-Identifier: Apache-2.0 */
/*
 * text.c - fuzz target: the text form of streams, as qp-make reads it
 *
 *     clang -g -O1 -std=c11 -D_GNU_SOURCE -I. -fsanitize=fuzzer,address,undefined \
 *         -o /tmp/fuzz tests/fuzz/text.c \
 *         lib/data/{text,text_scan,value,value_scan,element,mp,mpwalk,record,header,dtype}.c \
 *         lib/base/{err,buf}.c -lmsgpackc -lm && /tmp/fuzz -max_total_time=60 CORPUS
 *
 * A corpus to start from: tests/data/streams.  A record that is accepted must come back from its
 * own text the same: header, payload, and text.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/buf.h"
#include "lib/data/record.h"
#include "lib/data/text.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void must(int condition)
{
	if (!condition)
		abort();
}

static char *write_text(const struct record *r, const void *payload, size_t *n)
{
	char *text = NULL;
	FILE *f = open_memstream(&text, n);
	struct err e;

	must(f != NULL);
	if (r->type != REC_STREAM)
		fputs("stream v=[1,0]\n", f);
	must(text_write(f, r, payload, &e) == 0);
	fputs("end\n", f);
	fclose(f);
	return text;
}

static void encode(struct buf *b, const struct record *r)
{
	buf_clear(b);
	record_encode(r, b);
	must(!b->failed);
}

/* r and its payload from their own text. */
static void round_trip(const struct record *r, const void *payload)
{
	struct record back = { .rank = -1 };
	struct buf a = { 0 }, b = { 0 };
	const void *data = NULL;
	struct text_in *in;
	size_t n, n2;
	char *text = write_text(r, payload, &n), *text2;
	struct err e;
	FILE *f = fmemopen(text, n, "r");

	in = text_open(f, &e);
	must(in && text_next(in, &back, &data, &e) == 1);
	if (r->type != REC_STREAM)
		must(text_next(in, &back, &data, &e) == 1);
	encode(&a, r);
	encode(&b, &back);
	must(a.n == b.n && memcmp(a.p, b.p, a.n) == 0);
	must(r->nbytes == 0 || memcmp(payload, data, (size_t)r->nbytes) == 0);
	text2 = write_text(&back, data, &n2);
	must(n == n2 && memcmp(text, text2, n) == 0);
	must(text_next(in, &back, &data, &e) == 0);
	text_close(in);
	fclose(f);
	free(text);
	free(text2);
	buf_release(&a);
	buf_release(&b);
	record_clear(&back);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct record r = { .rank = -1 };
	const void *payload;
	struct text_in *in;
	struct err e = { .cls = ERR_NONE };
	FILE *f;
	int got;

	if (n == 0)
		return 0;
	f = fmemopen((void *)(uintptr_t)data, n, "r");
	must(f != NULL);
	in = text_open(f, &e);
	must(in != NULL);
	while ((got = text_next(in, &r, &payload, &e)) > 0)
		if (r.nbytes < 1 << 20)
			round_trip(&r, payload);
	must(got == 0 || (e.cls == ERR_DATA && e.what[0]) || e.cls == ERR_NOMEM);
	text_close(in);
	fclose(f);
	record_clear(&r);
	return 0;
}
