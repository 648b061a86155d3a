/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stream_fuzz.c - random damage whose checksums are right again: refused or read, never worse
 *
 * Single bits are stopped by the checksums (stream.c).  Here END is made anew after the damage,
 * three times in four, so that what the headers say is looked at as well.  Every stream is read
 * and written again, in both ways; a sanitizer build sees what goes wrong silently.
 * stream_fuzz ROUNDS SEED runs longer.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib/base/hash.h"
#include "lib/data/mp.h"
#include "lib/data/mpwalk.h"
#include "lib/data/stream.h"
#include "tests/unit/files.h"
#include "tests/unit/tap.h"

enum { CAP = 1 << 16 };

static uint64_t state;

static uint64_t next(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

/* A stream that has something of everything. */
static size_t make(unsigned char *bytes, int level)
{
	static const struct { enum rec_type t; const char *name; enum role role; enum dtype d;
			      int rank; int64_t shape[2]; } list[] = {
		{ REC_FILE, "config.json", ROLE_NONE, DT_NONE, -1, { 0, 0 } },
		{ REC_BLOCK, "", ROLE_NONE, DT_NONE, -1, { 0, 0 } },
		{ REC_TENSOR, "model.layers.0.x.weight", ROLE_WEIGHT, DT_BF16, 2, { 16, 32 } },
		{ REC_TENSOR, "a", ROLE_CODES, DT_U4, 2, { 2, 3 } },
		{ REC_TENSOR, "layers.0.mlp.in", ROLE_STAT, DT_F32, 1, { 3, 0 } },
		{ REC_NOTE, "layers.0", ROLE_NONE, DT_NONE, -1, { 0, 0 } },
		{ REC_BLOCK_END, "", ROLE_NONE, DT_NONE, -1, { 0, 0 } },
		{ REC_OTHER, "from.the.future", ROLE_NONE, DT_NONE, -1, { 0, 0 } },
	};
	static const char *const options[] = { "--bits=4" };
	const struct provenance prov = { "fuzz", "1", 1, options, "plain C" };
	struct stream_out_options opt = { file_path("seed"), level };
	static unsigned char payload[1024];
	struct record r = { 0 };
	struct stream_out *out;
	struct err e;
	size_t n;
	int bad = stream_open_out(&out, &opt, &e);

	record_init(&r, REC_STREAM, NULL);
	record_set_str(&r, "family", "llama");
	bad = bad || stream_write_head(out, &r, &prov, &e);
	for (size_t i = 0; !bad && i < sizeof(list) / sizeof(*list); i++) {
		record_init(&r, list[i].t, list[i].name);
		if (list[i].t == REC_OTHER)
			snprintf(r.type_name, sizeof(r.type_name), "sparkle");
		r.role = list[i].role;
		r.dtype = list[i].d;
		r.rank = list[i].rank;
		memcpy(r.shape, list[i].shape, sizeof(list[i].shape));
		if (r.dtype == DT_NONE)
			r.nbytes = list[i].t == REC_FILE || list[i].t == REC_OTHER ? 40 : 0;
		else if (dtype_nbytes(r.dtype, r.rank, r.shape, &r.nbytes) != 0)
			bad = 1;
		record_set_double(&r, "value", 0.5);
		bad = bad || stream_write(out, &r, payload, &e);
	}
	if (bad || stream_commit(out, &e))
		exit(2);
	stream_close_out(out);
	record_clear(&r);
	char *p = file_slurp(opt.path, &n);
	if (!p || n > CAP / 2)
		exit(2);
	memcpy(bytes, p, n);
	free(p);
	return n;
}

static size_t damage_once(unsigned char *p, size_t n)
{
	static const unsigned char marks[] = { 0xc0, 0xc1, 0xc4, 0xc6, 0xcf, 0xd3, 0xdb, 0xdd, 0xdf,
					       0x80, 0x90, 0xa0, 0xff, 0x7f, 0xcb, 0xc9 };
	size_t at = next() % n, from = next() % n, k = 1 + next() % 8;

	switch (next() % 6) {
	case 0:
		p[at] ^= (unsigned char)(1 << next() % 8);
		break;
	case 1:
		p[at] = (unsigned char)next();
		break;
	case 2:
		p[at] = marks[next() % sizeof(marks)];
		break;
	case 3: /* bytes vanish */
		if (at + k < n) {
			memmove(p + at, p + at + k, n - at - k);
			n -= k;
		}
		break;
	case 4: /* bytes appear */
		memmove(p + at + k, p + at, n - at);
		for (size_t i = 0; i < k; i++)
			p[at + i] = (unsigned char)next();
		n += k;
		break;
	default: /* bytes of another place */
		k *= 8;
		if (from + k < n && at + k < n)
			memmove(p + at, p + from, k);
	}
	return n;
}

/* A new END after the last value that can be walked over. */
static size_t mend(unsigned char *p, size_t n)
{
	struct hash *h = hash_new(64);
	struct buf end = { 0 };
	uint64_t size, records = 0, sum;
	size_t pos = 0;
	struct token t;

	while (pos < n && token_extent(p + pos, n - pos, &size) == 1) {
		token_read(&t, p + pos, n - pos);
		if (t.type != TOKEN_BIN && memmem(p + pos, size, "\xa1t\xa3" "end", 6))
			break;
		hash_add(h, p + pos, t.type == TOKEN_BIN ? t.size - t.n : size);
		records += t.type != TOKEN_BIN;
		pos += size;
	}
	sum = hash_get64(h);
	mp_put_map(&end, 3);
	mp_put_str(&end, "t");
	mp_put_str(&end, "end");
	mp_put_str(&end, "records");
	mp_put_int(&end, (int64_t)records);
	mp_put_str(&end, "sum");
	buf_byte(&end, 0xcf);
	for (int i = 7; i >= 0; i--)
		buf_byte(&end, (int)(sum >> (8 * i) & 255));
	memcpy(p + pos, end.p, end.n);
	pos += end.n;
	buf_release(&end);
	hash_free(h);
	return pos;
}

/* how 0: copied; 1: payloads taken and written; 2: only read.  0 or the class of the error. */
static int pass(const char *path, int how, int level, struct err *e)
{
	const struct provenance prov = { "fuzz", "1", 0, NULL, NULL };
	struct stream_out_options opt = { "/dev/null", level };
	struct stream_out *out = NULL;
	struct stream_in *in = NULL;
	struct record r = { 0 };
	unsigned char *p = NULL;
	int got = -1, bad = 0;

	memset(e, 0, sizeof(*e));
	if (stream_open_in(&in, path, e) != 0 || stream_open_out(&out, &opt, e) != 0)
		goto done;
	while (!bad && (got = stream_next(in, &r, e)) == 1) {
		if (r.type == REC_STREAM) {
			bad = stream_write_head(out, &r, &prov, e);
		} else if (how == 0) {
			bad = stream_copy(out, in, &r, e);
		} else if (how == 1) {
			free(p);
			p = malloc(r.nbytes + 1);
			bad = !p ? err_nomem(e, r.name, r.nbytes) :
			      (r.nbytes && stream_payload(in, p, e)) || stream_write(out, &r, p, e);
		}
	}
	if (!bad && got == 0)
		bad = stream_commit(out, e);
done:
	free(p);
	record_clear(&r);
	stream_close_in(in);
	stream_close_out(out);
	return got == 0 && !bad ? 0 : e->cls ? (int)e->cls : -1;
}

static void rounds(long n, int level)
{
	static unsigned char seed[CAP], bytes[CAP];
	int fd = memfd_create("fuzz", 0);
	long read = 0, refused = 0, wrong = 0;
	size_t size = make(seed, level);
	char path[64], first[900] = "";
	struct err e;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	for (long i = 0; i < n; i++) {
		size_t len = size;

		memcpy(bytes, seed, size);
		for (uint64_t k = 1 + next() % 4; k > 0; k--)
			len = damage_once(bytes, len);
		if (next() % 4)
			len = mend(bytes, len);
		if (ftruncate(fd, 0) != 0 || pwrite(fd, bytes, len, 0) != (ssize_t)len)
			exit(2);
		int got = pass(path, (int)(next() % 3), (int)(next() % 2), &e);
		read += got == 0;
		refused += got == ERR_DATA || got == ERR_VERSION;
		if (got != 0 && got != ERR_DATA && got != ERR_VERSION && wrong++ == 0)
			snprintf(first, sizeof(first), ", %s: %s", e.where, e.what);
	}
	ok(wrong == 0 && read > 0 && refused > 0, "%ld streams, level %d: %ld read, %ld refused, "
	   "%ld ended otherwise%s", n, level, read, refused, wrong, first);
	close(fd);
}

int main(int argc, char **argv)
{
	long n = argc > 1 ? strtol(argv[1], NULL, 10) : 10000;

	state = 0x9e3779b97f4a7c15u ^ (argc > 2 ? strtoull(argv[2], NULL, 10) : 0);
	rounds(n, 0);
	rounds(n, 3);
	files_remove();
	return done();
}
