/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stuff.c - a stream with records of a type that nobody knows, for timing how they pass
 *
 *     stuff N < IN > OUT      N records of 16 MiB each before the first block
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/data/stream.h"

static int stuff(struct stream_out *out, long n, unsigned char *payload, struct err *e)
{
	struct record r = { .rank = -1 };

	for (long i = 0; i < n; i++) {
		record_init(&r, REC_OTHER, "ballast");
		snprintf(r.type_name, sizeof(r.type_name), "ballast");
		r.nbytes = STREAM_CHUNK;
		memset(payload, (int)i, 64);
		if (stream_write(out, &r, payload, e) < 0)
			return -1;
	}
	record_clear(&r);
	return 0;
}

int main(int argc, char **argv)
{
	const struct provenance prov = { .program = "stuff", .version = QP_VERSION };
	const struct stream_out_options opt = { .path = NULL };
	long n = argc > 1 ? strtol(argv[1], NULL, 10) : 1;
	unsigned char *payload = calloc(1, STREAM_CHUNK);
	struct stream_out *out = NULL;
	struct stream_in *in = NULL;
	struct record r = { .rank = -1 };
	struct err e = { .cls = ERR_NONE };
	int got = -1, done = 0;

	for (size_t i = 0; payload && i < STREAM_CHUNK; i++)
		payload[i] = (unsigned char)(i * 2654435761u >> 13);
	if (!payload || stream_open_in(&in, NULL, &e) < 0 || stream_open_out(&out, &opt, &e) < 0)
		goto failed;
	while ((got = stream_next(in, &r, &e)) == 1) {
		if (r.type == REC_BLOCK && !done++ && stuff(out, n, payload, &e) < 0)
			goto failed;
		if (r.type == REC_STREAM ? stream_write_head(out, &r, &prov, &e) < 0 :
		    stream_copy(out, in, &r, &e) < 0)
			goto failed;
	}
	if (got < 0 || stream_commit(out, &e) < 0)
		goto failed;
	record_clear(&r);
	stream_close_in(in);
	stream_close_out(out);
	free(payload);
	return 0;
failed:
	fprintf(stderr, "stuff: %s: %s\n", e.where, e.what);
	return 1;
}
