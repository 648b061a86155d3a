/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hop.c - T12: one hop of the stream between two processes, beside a bare pipe
 *
 * The same bytes, first through a pipe of 1 MiB by plain write and read, then as records of one
 * 16 MiB chunk, hashed on both sides, through lib/data/stream.h; five pairs, the median of the
 * ratios.  Prints a line of TSV for bench.sh.  With operands it runs only if T12 is one of them.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "lib/data/stream.h"

#define PAIRS 5
#define RECORDS 64 /* of 16 MiB: 1 GiB */

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Up to 1 MiB at a time, from and to the places where the stream has its payloads: 1 MiB used
 * again and again would stay in a core's cache, which no tensor does. */
static size_t next_piece(size_t done)
{
	return (1 << 20) - done % (1 << 20);
}

static int bare_write(unsigned char *buf)
{
	for (size_t done = 0; done < (size_t)RECORDS * STREAM_CHUNK;) {
		ssize_t n = write(1, buf + done % STREAM_CHUNK, next_piece(done));

		if (n <= 0)
			return 1;
		done += (size_t)n;
	}
	return 0;
}

static int bare_read(unsigned char *buf)
{
	size_t got = 0;
	ssize_t n;

	while ((n = read(0, buf + got % STREAM_CHUNK, next_piece(got))) > 0)
		got += (size_t)n;
	return n < 0 || got != (size_t)RECORDS * STREAM_CHUNK;
}

static int stream_side_write(unsigned char *buf)
{
	const struct provenance prov = { .program = "hop", .version = QP_VERSION };
	const struct stream_out_options opt = { .path = NULL };
	struct stream_out *out = NULL;
	struct record r = { .rank = -1 };
	struct err e;

	record_init(&r, REC_STREAM, NULL);
	if (stream_open_out(&out, &opt, &e) < 0 || stream_write_head(out, &r, &prov, &e) < 0)
		return 1;
	for (int i = 0; i < RECORDS; i++) {
		record_init(&r, REC_TENSOR, "t");
		r.role = ROLE_WEIGHT;
		snprintf(r.role_name, sizeof(r.role_name), "weight");
		r.dtype = DT_F32;
		r.rank = 1;
		r.shape[0] = STREAM_CHUNK / 4;
		r.nbytes = STREAM_CHUNK;
		if (stream_write(out, &r, buf, &e) < 0)
			return 1;
	}
	record_clear(&r);
	return stream_commit(out, &e) < 0;
}

static int stream_side_read(unsigned char *buf)
{
	struct stream_in *in = NULL;
	struct record r = { .rank = -1 };
	struct err e;
	int got, n = 0;

	if (stream_open_in(&in, NULL, &e) < 0)
		return 1;
	while ((got = stream_next(in, &r, &e)) == 1)
		if (r.type == REC_TENSOR && (n++, stream_payload(in, buf, &e) < 0))
			return 1;
	return got < 0 || n != RECORDS;
}

/* Seconds that writer | reader took, or -1. */
static double hop(int (*writer)(unsigned char *), int (*reader)(unsigned char *),
		  unsigned char *buf)
{
	int p[2], status = 0, bad = 0;
	double start = now();
	pid_t pid[2];

	if (pipe(p) < 0)
		return -1;
	fcntl(p[1], F_SETPIPE_SZ, 1 << 20);
	for (int side = 0; side < 2; side++) {
		pid[side] = fork();
		if (pid[side] == 0) {
			dup2(p[!side], !side); /* side 0 writes: descriptor 1 */
			close(p[0]);
			close(p[1]);
			_exit(side ? reader(buf) : writer(buf));
		}
	}
	close(p[0]);
	close(p[1]);
	for (int side = 0; side < 2; side++)
		bad |= waitpid(pid[side], &status, 0) < 0 || status != 0;
	return bad ? -1 : now() - start;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
	unsigned char *buf = malloc(STREAM_CHUNK);
	double ratio[PAIRS], rate[PAIRS], bare, ours;
	int wanted = argc == 1;

	for (int i = 1; i < argc; i++)
		wanted |= strcmp(argv[i], "T12") == 0;
	if (!wanted)
		return 0;
	if (!buf)
		return 71;
	for (size_t i = 0; i < STREAM_CHUNK; i++)
		buf[i] = (unsigned char)(i * 2654435761u >> 13);
	for (int i = -1; i < PAIRS; i++) {
		bare = hop(bare_write, bare_read, buf);
		ours = hop(stream_side_write, stream_side_read, buf);
		if (bare < 0 || ours < 0) {
			fprintf(stderr, "hop: failed: %s\n", bare < 0 ? "bare" : "stream");
			return 1;
		}
		if (i >= 0) { /* the first pair warms up */
			ratio[i] = bare / ours;
			rate[i] = RECORDS * (double)STREAM_CHUNK / ours / 1e9;
		}
	}
	qsort(ratio, PAIRS, sizeof(*ratio), by_value);
	qsort(rate, PAIRS, sizeof(*rate), by_value);
	printf("T12\tone hop of 1 GiB, beside a bare pipe of 1 MiB\t%.2f GB/s\t%.2f\t>= 0.8\n",
	       rate[PAIRS / 2], ratio[PAIRS / 2]);
	free(buf);
	return 0;
}
