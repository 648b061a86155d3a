/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stream.c - records through a stream and back, and every way in which a stream can be damaged
 */
#include "lib/data/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <msgpack.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>
#include <zstd.h>

#include "lib/base/buf.h"
#include "lib/base/hash.h"
#include "lib/data/mpwalk.h"
#include "tests/unit/files.h"
#include "tests/unit/tap.h"

enum { PATH = 600 };

/* file_path of a name, in a place of its own. */
static void keep_path(char to[PATH], const char *name)
{
	snprintf(to, PATH, "%s", file_path("%s", name));
}

static struct buf load(const char *file)
{
	struct buf b = { 0 };

	b.p = file_slurp(file, &b.n);
	if (!b.p) {
		perror(file);
		exit(2);
	}
	b.cap = b.n;
	return b;
}

/* ---- reading all of a stream into one number */

/* What a stream says: its records, key by key, and payloads, decoded. */
static void digest_record(struct hash *h, const struct record *r, const void *payload)
{
	char text[1024];
	int n = snprintf(text, sizeof(text), "%s|%s|%s|%s|%d|%d|%u|%llu", r->type_name, r->name,
			 r->role_name, dtype_name(r->dtype), r->rank, r->must, r->n_extra,
			 (unsigned long long)r->nbytes);

	hash_add(h, text, (size_t)n);
	for (int i = 0; i < r->rank; i++)
		hash_add(h, &r->shape[i], sizeof(r->shape[i]));
	hash_add(h, r->extra, r->extra_len);
	hash_add(h, payload, r->nbytes);
}

/* how: 0 every payload is taken, 1 none.  0 and *digest, or the class of the error. */
static int read_stream(const char *file, int how, uint64_t *digest, struct err *e)
{
	struct stream_in *in;
	struct record r = { 0 };
	struct hash *h = hash_new(64);
	void *payload = NULL;
	int got = -1;

	memset(e, 0, sizeof(*e));
	if (stream_open_in(&in, file, e) == 0) {
		while ((got = stream_next(in, &r, e)) == 1) {
			if (how == 0 && r.nbytes > 0 && strcmp(r.enc, "new") != 0) {
				free(payload);
				payload = malloc(r.nbytes);
				if (!payload || stream_payload(in, payload, e) != 0) {
					got = payload ? -1 : err_nomem(e, r.name, r.nbytes);
					break;
				}
				digest_record(h, &r, payload);
			} else if (how == 0) {
				uint64_t nbytes = r.nbytes;

				r.nbytes = 0;
				digest_record(h, &r, NULL);
				r.nbytes = nbytes;
			}
		}
		if (got == 0 && stream_next(in, &r, e) != 0)
			got = -1; /* the end stays the end */
		stream_close_in(in);
	}
	*digest = hash_get64(h);
	record_clear(&r);
	hash_free(h);
	free(payload);
	return got == 0 ? 0 : e->cls ? (int)e->cls : -1;
}

/* A copy of the stream, record by record; 0 or the class. */
static int copy_stream(const char *from, const char *to, int level, struct err *e)
{
	static const char *const options[] = { "--alpha=0.75", "--calib=$CALIB" };
	const struct provenance prov = { "copy", "9.9", 2, options, "plain C" };
	struct stream_out_options opt = { .path = to, .zstd_level = level };
	struct stream_in *in = NULL;
	struct stream_out *out = NULL;
	struct record r = { 0 };
	int got = -1;

	memset(e, 0, sizeof(*e));
	if (stream_open_in(&in, from, e) == 0 && stream_open_out(&out, &opt, e) == 0)
		while ((got = stream_next(in, &r, e)) == 1) {
			int bad = r.type == REC_STREAM ? stream_write_head(out, &r, &prov, e) :
							 stream_copy(out, in, &r, e);

			if (bad) {
				got = -1;
				break;
			}
		}
	if (got == 0)
		got = stream_commit(out, e);
	record_clear(&r);
	stream_close_out(out);
	stream_close_in(in);
	return got == 0 ? 0 : e->cls ? (int)e->cls : -1;
}

/* ---- a small stream with every type of record */

static int put(struct stream_out *out, struct record *r, const void *payload, struct err *e)
{
	return stream_write(out, r, payload, e);
}

static int put_tensor(struct stream_out *out, const char *name, enum role role, enum dtype t,
		      int64_t rows, int64_t cols, const void *payload, struct err *e)
{
	struct record r = { 0 };
	int ret;

	record_init(&r, REC_TENSOR, name);
	r.role = role;
	r.dtype = t;
	r.rank = 2;
	r.shape[0] = rows;
	r.shape[1] = cols;
	if (dtype_nbytes(t, 2, r.shape, &r.nbytes) != 0)
		return -1;
	if (role == ROLE_STAT)
		record_set_str(&r, "stat", "absmax");
	ret = stream_write(out, &r, payload, e);
	record_clear(&r);
	return ret;
}

static int put_simple(struct stream_out *out, enum rec_type t, const char *name, const char *key,
		      const char *value, struct err *e)
{
	struct record r = { 0 };
	int ret;

	record_init(&r, t, name);
	if (key)
		record_set_str(&r, key, value);
	if (t == REC_BLOCK || t == REC_BLOCK_END)
		record_set_int(&r, "index", 0);
	ret = put(out, &r, NULL, e);
	record_clear(&r);
	return ret;
}

static unsigned char noise[70000]; /* does not compress */
static unsigned char soft[512];    /* does */

static int small_body(struct stream_out *out, struct err *e)
{
	struct record r = { 0 };
	int bad = 0;

	record_init(&r, REC_FILE, "config.json");
	r.nbytes = 13;
	bad |= put(out, &r, "{\"hidden\": 4}", e);
	record_init(&r, REC_CALIB, NULL);
	r.dtype = DT_I32;
	r.rank = 2;
	r.shape[0] = 2;
	r.shape[1] = 3;
	r.nbytes = 24;
	record_set_str(&r, "fingerprint", "xxh128:00");
	bad |= put(out, &r, noise, e);
	bad |= put_tensor(out, "model.embed_tokens.weight", ROLE_WEIGHT, DT_BF16, 8, 32, soft, e);
	bad |= put_simple(out, REC_BLOCK, NULL, NULL, NULL, e);
	bad |= put_tensor(out, "model.layers.0.mlp.up_proj.weight", ROLE_WEIGHT, DT_F32, 2, 2,
			  noise, e);
	bad |= put_tensor(out, "layers.0.mlp.in", ROLE_STAT, DT_F32, 1, 100, soft, e);
	bad |= put_tensor(out, "model.layers.0.q", ROLE_CODES, DT_U4, 3, 5, noise, e);
	bad |= put_tensor(out, "model.layers.0.none", ROLE_WEIGHT, DT_F32, 0, 5, NULL, e);
	bad |= put_simple(out, REC_RUN, "layers.0.mlp.in", "quantizer", "token", e);
	bad |= put_simple(out, REC_NOTE, "layers.0", "kind", "layer-error", e);
	bad |= put_simple(out, REC_BLOCK_END, NULL, NULL, NULL, e);
	bad |= put_simple(out, REC_ALIAS, "lm_head.weight", "of", "model.embed_tokens.weight", e);
	record_init(&r, REC_OTHER, "from.the.future");
	snprintf(r.type_name, sizeof(r.type_name), "sparkle");
	r.nbytes = 300;
	record_set_bool(&r, "odd", true);
	bad |= put(out, &r, noise, e);
	record_clear(&r);
	return bad;
}

static int write_small(const char *file, int level, struct err *e)
{
	const struct provenance prov = { "make", "1", 0, NULL, NULL };
	struct stream_out_options opt = { .path = file, .zstd_level = level };
	struct stream_out *out;
	struct record r = { 0 };
	int bad = stream_open_out(&out, &opt, e);

	if (bad)
		return bad;
	record_init(&r, REC_STREAM, NULL);
	record_set_str(&r, "family", "llama");
	bad = stream_write_head(out, &r, &prov, e) || small_body(out, e) || stream_commit(out, e);
	stream_close_out(out);
	record_clear(&r);
	return bad;
}

static void round_trips(void)
{
	char small[PATH], again[PATH];
	uint64_t a = 0, b = 1, skipped;
	struct err e;

	keep_path(small, "small");
	keep_path(again, "again");
	ok(write_small(small, 0, &e) == 0, "a stream with every type of record is written");
	ok(read_stream(small, 0, &a, &e) == 0, "read: %s: %s", e.where, e.what);
	ok(read_stream(small, 1, &skipped, &e) == 0, "read without taking payloads");
	ok(write_small(again, 0, &e) == 0, "written again");
	struct buf x = load(small), y = load(again);
	ok(x.n == y.n && memcmp(x.p, y.p, x.n) == 0, "the same bytes");
	buf_release(&x);
	buf_release(&y);

	ok(write_small(again, 3, &e) == 0 && read_stream(again, 0, &b, &e) == 0 && a == b,
	   "with -z it says the same");
	x = load(small);
	struct buf z = { 0 };
	char *room = buf_room(&z, ZSTD_compressBound(x.n));
	z.n = ZSTD_compress(room, ZSTD_compressBound(x.n), x.p, x.n, 3);
	file_write(again, z.p, z.n);
	ok(read_stream(again, 0, &b, &e) == 0 && a == b, "a whole stream under zstd");
	file_write(again, z.p, z.n - 1);
	ok(read_stream(again, 0, &b, &e) == ERR_DATA, "cut short: %s", e.what);
	z.p[z.n - 1] ^= 1;
	file_write(again, z.p, z.n);
	ok(read_stream(again, 0, &b, &e) == ERR_DATA || a == b, "damaged in its last byte");
	/* a skippable frame in front, two frames */
	struct buf two = { 0 };
	buf_add(&two, "\x50\x2a\x4d\x18\x02\x00\x00\x00hi", 10);
	for (int half = 0; half < 2; half++) {
		size_t from = half ? x.n / 2 : 0, n = half ? x.n - x.n / 2 : x.n / 2;

		room = buf_room(&two, ZSTD_compressBound(n));
		two.n += ZSTD_compress(room, ZSTD_compressBound(n), x.p + from, n, 3);
	}
	file_write(again, two.p, two.n);
	ok(read_stream(again, 0, &b, &e) == 0 && a == b, "as several zstd frames: %s", e.what);
	buf_release(&two);
	buf_release(&x);
	buf_release(&z);
}

/* A payload, by this thread or by another. */
static int take(struct stream_in *in, unsigned char *dst, size_t n, bool aside, struct err *e)
{
	if (!aside)
		return stream_payload(in, dst, e);
	return stream_payload_begin(in, dst, n, e) ? -1 : stream_await(in, e);
}

/* Payloads around the size of a chunk, of each kind of compression. */
static void large(void)
{
	static const size_t sizes[] = { 2, 254, 256, STREAM_CHUNK - 2, STREAM_CHUNK,
					STREAM_CHUNK + 2, 2 * (size_t)STREAM_CHUNK,
					2 * (size_t)STREAM_CHUNK + 30 };
	static const struct {
		enum dtype t;
		int level;
		bool soft;
		const char *enc;
	} kinds[] = {
		{ DT_U8, 0, true, "" }, { DT_U8, 1, true, "zstd" },
		{ DT_BF16, 1, true, "zstd-planes" }, { DT_F16, 2, true, "zstd-planes" },
		{ DT_U8, 1, false, "" },
	};
	size_t most = sizes[7];
	unsigned char *p = malloc(most), *q = malloc(most);
	const struct provenance prov = { "large", "1", 0, NULL, NULL };
	struct err e;

	for (size_t k = 0; k < sizeof(kinds) / sizeof(*kinds); k++) {
		struct stream_out_options opt = { file_path("large"), kinds[k].level };
		struct record r = { 0 };
		struct stream_out *out;
		struct stream_in *in;
		int bad = 0, wrong = 0, got = -1;
		uint64_t s = 1;

		for (size_t i = 0; i < most; i++) {
			s = s * 6364136223846793005u + 1442695040888963407u;
			p[i] = (unsigned char)(kinds[k].soft && i % 2 ? 0x3c + (s >> 63) : s >> 56);
		}
		bad |= stream_open_out(&out, &opt, &e);
		record_init(&r, REC_STREAM, NULL);
		bad |= stream_write_head(out, &r, &prov, &e);
		for (int i = 0; i < 8; i++)
			bad |= put_tensor(out, "x", ROLE_WEIGHT, kinds[k].t, 1,
					  (int64_t)sizes[i] * 8 / dtype_bits(kinds[k].t), p, &e);
		bad |= stream_commit(out, &e);
		stream_close_out(out);
		ok(!bad, "%s level %d: written", dtype_name(kinds[k].t), kinds[k].level);

		bad = stream_open_in(&in, opt.path, &e);
		for (int i = -1; !bad && (got = stream_next(in, &r, &e)) == 1; i++) {
			if (i < 0)
				continue;
			const char *enc = sizes[i] < 256 ? "" : kinds[k].enc;

			memset(q, 0xee, sizes[i]);
			wrong += strcmp(r.enc, enc) != 0 || r.nbytes != sizes[i] ||
				 r.chunks != (sizes[i] + STREAM_CHUNK - 1) / STREAM_CHUNK ||
				 take(in, q, sizes[i], (i + k) % 2 == 0, &e) != 0 ||
				 memcmp(p, q, sizes[i]) != 0;
		}
		ok(!bad && got == 0 && wrong == 0, "%s level %d: eight sizes come back, enc '%s'",
		   dtype_name(kinds[k].t), kinds[k].level, kinds[k].enc);
		stream_close_in(in);
		record_clear(&r);
	}
	free(p);
	free(q);
}

/* What goes wrong in another thread is told by stream_await. */
static void aside(void)
{
	const size_t n = 3 << 20;
	unsigned char *p = calloc(1, n), *q = malloc(n);
	const struct provenance prov = { "aside", "1", 0, NULL, NULL };
	struct stream_out_options opt = { file_path("aside"), 0 };
	struct record r = { 0 };
	struct stream_out *out;
	struct stream_in *in;
	struct err e = { 0 };

	record_init(&r, REC_STREAM, NULL);
	if (!ok(!stream_open_out(&out, &opt, &e) && !stream_write_head(out, &r, &prov, &e) &&
		!put_tensor(out, "x", ROLE_WEIGHT, DT_U8, 1, (int64_t)n, p, &e) &&
		!stream_commit(out, &e), "a tensor of 3 MiB: %s", e.what))
		return;
	stream_close_out(out);
	struct buf x = load(opt.path);
	for (int how = 0; how < 3; how++) {
		const char *const what[] = { "sound", "cut", "damaged" };
		const size_t at = x.n / 2;

		x.p[at] ^= how == 2;
		file_write(opt.path, x.p, how == 1 ? at : x.n);
		x.p[at] ^= how == 2;
		if (!ok(!stream_open_in(&in, opt.path, &e) && stream_next(in, &r, &e) == 1,
			"%s", what[how]))
			continue;
		/* Of a file, its length tells before anything is read. */
		if (stream_next(in, &r, &e) == 1)
			ok(!stream_payload_begin(in, q, n, &e) &&
			   stream_await(in, &e) == (how ? -1 : 0) &&
			   (!how || e.cls == ERR_DATA) && !stream_await(in, &e),
			   "%s: told once: %s", what[how], e.what);
		else
			ok(how == 1 && e.cls == ERR_DATA, "%s: %s", what[how], e.what);
		stream_close_in(in);
	}
	file_write(opt.path, x.p, x.n);
	ok(!stream_open_in(&in, opt.path, &e) && stream_next(in, &r, &e) == 1 &&
	   stream_next(in, &r, &e) == 1 && !stream_payload_begin(in, q, n, &e),
	   "closed while it is being taken");
	stream_close_in(in);
	record_clear(&r);
	buf_release(&x);
	free(p);
	free(q);
}

/* ---- damage */

/* A file in memory: tens of thousands of variants are written to it. */
static void put_memory(int fd, const void *p, size_t n)
{
	if (ftruncate(fd, 0) != 0 || pwrite(fd, p, n, 0) != (ssize_t)n) {
		perror("memfd");
		exit(2);
	}
}

static void damage(const char *what, int level)
{
	int wrong = 0, other = 0, first = -1, fd = memfd_create("bad", 0);
	char small[PATH], bad[64];
	uint64_t a, b;
	struct err e;

	keep_path(small, "small");
	snprintf(bad, sizeof(bad), "/proc/self/fd/%d", fd);
	if (!ok(write_small(small, level, &e) == 0 && read_stream(small, 0, &a, &e) == 0,
		"%s: %s", what, e.what))
		return;
	struct buf x = load(small);
	ok(!memmem(x.p, x.n, "zstd-planes", 11) == !level, "%s: %zu bytes", what, x.n);
	for (size_t n = 0; n < x.n; n++) {
		put_memory(fd, x.p, n);
		int how = (int)(n % 2), got = read_stream(bad, how, &b, &e);

		wrong += got != ERR_DATA;
		other += n > 4 && !strstr(e.what, "without an END record");
	}
	ok(wrong == 0, "%s: all %zu proper prefixes are refused (%d are not)", what, x.n, wrong);
	ok(other == 0, "%s: and said to lack END (%d are not)", what, other);

	wrong = 0;
	for (size_t i = 0; i < x.n; i++)
		for (int bit = 0; bit < 8; bit++) {
			x.p[i] ^= (char)(1 << bit);
			put_memory(fd, x.p, x.n);
			for (int how = 0; how < 2; how++) {
				int got = read_stream(bad, how, &b, &e);

				if (got == ERR_DATA || got == ERR_VERSION)
					continue;
				wrong++;
				if (first < 0)
					first = (int)i;
			}
			x.p[i] ^= (char)(1 << bit);
		}
	ok(wrong == 0, "%s: every single bit matters (%d do not, first in byte %d)", what, wrong,
	   first);

	buf_add(&x, "\xc0", 1);
	put_memory(fd, x.p, x.n);
	ok(read_stream(bad, 0, &b, &e) == ERR_DATA && strstr(e.what, "follow"), "%s: %s", what,
	   e.what);
	buf_release(&x);
	close(fd);
}

/* ---- streams made by hand, with msgpack-c */

struct hand {
	msgpack_sbuffer b;
	msgpack_packer pk;
	struct hash *sum;
	size_t summed;  /* bytes of b that sum has seen, or that it must not see */
	int records;
};

static void hand_str(struct hand *h, const char *s)
{
	msgpack_pack_str(&h->pk, strlen(s));
	msgpack_pack_str_body(&h->pk, s, strlen(s));
}

/* What was added since the last call belongs to the sum. */
static void hand_sum(struct hand *h)
{
	hash_add(h->sum, h->b.data + h->summed, h->b.size - h->summed);
	h->summed = h->b.size;
}

static void hand_open(struct hand *h, int major, int minor)
{
	msgpack_sbuffer_init(&h->b);
	msgpack_packer_init(&h->pk, &h->b, msgpack_sbuffer_write);
	h->sum = hash_new(64);
	h->summed = 0;
	h->records = 1;
	msgpack_pack_map(&h->pk, 2);
	hand_str(h, "t");
	hand_str(h, "stream");
	hand_str(h, "v");
	msgpack_pack_array(&h->pk, 2);
	msgpack_pack_int(&h->pk, major);
	msgpack_pack_int(&h->pk, minor);
	hand_sum(h);
}

static void hand_bin(struct hand *h, const void *p, size_t n)
{
	msgpack_pack_bin(&h->pk, n);
	hand_sum(h);
	msgpack_pack_bin_body(&h->pk, p, n);
	h->summed = h->b.size;
}

static void hand_close(struct hand *h, int records_off, uint64_t sum_off)
{
	uint64_t sum = hash_get64(h->sum) + sum_off;

	msgpack_pack_map(&h->pk, 3);
	hand_str(h, "t");
	hand_str(h, "end");
	hand_str(h, "records");
	msgpack_pack_int(&h->pk, h->records + records_off);
	hand_str(h, "sum");
	msgpack_pack_uint64(&h->pk, sum);
}

static int hand_read(struct hand *h, struct err *e)
{
	uint64_t digest;

	file_write(file_path("hand"), h->b.data, h->b.size);
	msgpack_sbuffer_destroy(&h->b);
	hash_free(h->sum);
	return read_stream(file_path("hand"), 0, &digest, e);
}

/* A record {"t": type, "name": "n", key: value ...}: the caller adds `more` pairs. */
static void hand_map(struct hand *h, const char *type, const char *name, size_t more)
{
	h->records++;
	msgpack_pack_map(&h->pk, 2 + more);
	hand_str(h, "t");
	hand_str(h, type);
	hand_str(h, "name");
	hand_str(h, name);
}

static void versions(void)
{
	struct hand h;
	struct err e;

	hand_open(&h, 1, 0);
	hand_close(&h, 0, 0);
	ok(hand_read(&h, &e) == 0, "version 1.0 %s", e.what);
	hand_open(&h, 1, 7);
	hand_close(&h, 0, 0);
	ok(hand_read(&h, &e) == 0, "a newer minor version is read");
	hand_open(&h, 2, 0);
	hand_close(&h, 0, 0);
	ok(hand_read(&h, &e) == ERR_VERSION && strcmp(e.where, "header") == 0 &&
	   strcmp(e.what, "stream version 2.0, this program reads version 1") == 0, "%s", e.what);
	hand_open(&h, 0, 1);
	hand_close(&h, 0, 0);
	ok(hand_read(&h, &e) == ERR_DATA, "version 0: %s", e.what);
	hand_open(&h, 1, 0);
	hand_close(&h, 1, 0);
	ok(hand_read(&h, &e) == ERR_DATA && strstr(e.what, "END says 2"), "%s", e.what);
	hand_open(&h, 1, 0);
	hand_close(&h, 0, 1);
	ok(hand_read(&h, &e) == ERR_DATA && strstr(e.what, "checksum of the headers"), "%s",
	   e.what);
	hand_open(&h, 1, 0);
	hand_map(&h, "stream", "x", 0);
	hand_sum(&h);
	hand_close(&h, 0, 0);
	ok(hand_read(&h, &e) == ERR_DATA && strstr(e.what, "second header"), "%s", e.what);

	/* a newer minor version stays when records of it pass through */
	hand_open(&h, 1, 7);
	hand_close(&h, 0, 0);
	file_write(file_path("minor"), h.b.data, h.b.size);
	ok(copy_stream(file_path("minor"), file_path("copied"), 0, &e) == 0,
	   "a newer minor is copied");
	struct buf x = load(file_path("copied"));
	ok(memmem(x.p, x.n, "\xa1v\x92\x01\x07", 5) != NULL, "and stays newer");
	buf_release(&x);
	msgpack_sbuffer_destroy(&h.b);
	hash_free(h.sum);
}

static void must(void)
{
	struct hand h;
	struct err e;

	for (int i = 0; i < 4; i++) {
		hand_open(&h, 1, 0);
		hand_map(&h, i == 2 ? "note" : i == 3 ? "run" : "sparkle", "from.the.future",
			 1 + (i == 3));
		if (i == 3) {
			hand_str(&h, "role");
			hand_str(&h, "glitter");
		}
		hand_str(&h, "must");
		if (i == 0)
			msgpack_pack_false(&h.pk);
		else
			msgpack_pack_true(&h.pk);
		hand_sum(&h);
		hand_close(&h, 0, 0);
		int got = hand_read(&h, &e);
		if (i % 2 == 0)
			ok(got == 0, i ? "must of a known type" : "must: false");
		else
			ok(got == ERR_VERSION && strcmp(e.where, "from.the.future") == 0 &&
			   strstr(e.what, "must be understood"), "%s: %s", e.where, e.what);
	}
	hand_open(&h, 1, 0);
	hand_map(&h, "file", "new", 4);
	hand_str(&h, "nbytes");
	msgpack_pack_int(&h.pk, 3);
	hand_str(&h, "chunks");
	msgpack_pack_int(&h.pk, 1);
	hand_str(&h, "enc");
	hand_str(&h, "lz9");
	hand_str(&h, "xxh");
	msgpack_pack_uint64(&h.pk, hash64("abc", 3));
	hand_sum(&h);
	hand_bin(&h, "abc", 3);
	hand_close(&h, 0, 0);
	ok(hand_read(&h, &e) == ERR_VERSION && strstr(e.what, "'lz9' is not known"), "%s", e.what);
}

static void no_stream(const char *bytes, size_t n, const char *what)
{
	struct err e;
	uint64_t d;

	file_write(file_path("x"), bytes, n);
	ok(read_stream(file_path("x"), 0, &d, &e) == ERR_DATA && strstr(e.what, what), "%s: %s",
	   e.where, e.what);
}

static void limits(void)
{
	static char big[2 << 20];
	struct hand h;
	struct err e;
	uint64_t d;

	hand_open(&h, 1, 0);
	hand_map(&h, "note", "big", 1);
	hand_str(&h, "data");
	msgpack_pack_bin(&h.pk, sizeof(big));
	msgpack_pack_bin_body(&h.pk, big, sizeof(big));
	hand_sum(&h);
	hand_close(&h, 0, 0);
	ok(hand_read(&h, &e) == ERR_DATA && strstr(e.what, "not a record (header of"),
	   "a header of 2 MiB: %s", e.what);

	hand_open(&h, 1, 0);
	hand_map(&h, "note", "big", 1);
	hand_str(&h, "data");
	msgpack_pack_bin(&h.pk, STREAM_MAX_HEADER - 100);
	msgpack_pack_bin_body(&h.pk, big, STREAM_MAX_HEADER - 100);
	hand_sum(&h);
	hand_close(&h, 0, 0);
	ok(hand_read(&h, &e) == 0, "a header of nearly 1 MiB is read %s", e.what);

	hand_open(&h, 1, 0);
	hand_map(&h, "file", "lies", 3);
	hand_str(&h, "nbytes");
	msgpack_pack_uint64(&h.pk, UINT64_C(1) << 48);
	hand_str(&h, "chunks");
	msgpack_pack_uint64(&h.pk, UINT64_C(1) << 24);
	hand_str(&h, "xxh");
	msgpack_pack_int(&h.pk, 0);
	hand_sum(&h);
	hand_close(&h, 0, 0);
	ok(hand_read(&h, &e) == ERR_DATA && strstr(e.what, "281474976710656 bytes, "),
	   "2^48 bytes are not in the file: %s", e.what);

	no_stream("", 0, "empty");
	no_stream("hello, world\n", 13, "not a quantpipe stream");
	no_stream("\x81\xa1t\xa4note", 8, "first record is 'note'");
	no_stream("\xdf\xff\xff\xff\xff", 5, "not a quantpipe stream (header of");
	ok(read_stream(files_in(), 0, &d, &e) == ERR_NOINPUT && strstr(e.what, "directory"), "%s",
	   e.what);
	ok(read_stream(file_path("absent"), 0, &d, &e) == ERR_NOINPUT, "%s: %s", e.where, e.what);
}

/* ---- passing on */

/* Encodings that no writer of ours makes, unknown keys, types and enc, chunks of any length. */
static void byte_for_byte(void)
{
	static const char odd[] =
		"\xdf\x00\x00\x00\x06"                       /* map 32 */
		"\xd9\x01t" "\xdb\x00\x00\x00\x04note"       /* str 8, str 32 */
		"\xa4" "bits" "\xcf\x00\x00\x00\x00\x00\x00\x00\x04" /* uint 64 */
		"\xa1" "f" "\xca\x3f\x80\x00\x00"            /* float 32 */
		"\xa1" "e" "\xd5\x07" "ab"                   /* ext */
		"\xda\x00\x04" "name" "\xa1n" "\xa1" "x" "\xd3\xff\xff\xff\xff\xff\xff\xff\xff";
	char in[PATH], out[PATH];
	struct hand h;
	struct err e;

	hand_open(&h, 1, 0);
	size_t start = h.b.size;
	msgpack_sbuffer_write(&h.b, odd, sizeof(odd) - 1);
	h.records++;
	hand_sum(&h);
	hand_map(&h, "sparkle", "y", 4);
	hand_str(&h, "nbytes");
	msgpack_pack_int(&h.pk, 1000000);
	hand_str(&h, "chunks");
	msgpack_pack_int(&h.pk, 3);
	hand_str(&h, "enc");
	hand_str(&h, "new");
	hand_str(&h, "xxh");
	msgpack_pack_uint64(&h.pk, hash64(noise, 5 + 60000));
	hand_sum(&h);
	hand_bin(&h, noise, 5);
	hand_bin(&h, noise, 0);
	hand_bin(&h, noise + 5, 60000);
	size_t end = h.b.size;
	hand_close(&h, 0, 0);
	keep_path(in, "in");
	keep_path(out, "out");
	file_write(in, h.b.data, h.b.size);
	for (int level = 0; level < 2; level++) {
		ok(copy_stream(in, out, level, &e) == 0, "odd encodings are copied %s", e.what);
		struct buf x = load(out);
		ok(x.n > end - start && memmem(x.p, x.n, h.b.data + start, end - start),
		   "byte for byte%s", level ? ", with -z too" : "");
		buf_release(&x);
	}
	msgpack_sbuffer_destroy(&h.b);
	hash_free(h.sum);
}

/* The list in the header after n copies. */
static void provenance(void)
{
	char a[PATH], b[PATH], s[32];
	struct stream_in *in;
	struct record r = { 0 };
	msgpack_unpacked u;
	const void *p;
	size_t n, off = 0;
	uint64_t d;
	struct err e;

	keep_path(a, "a");
	keep_path(b, "b");
	ok(write_small(a, 0, &e) == 0 && copy_stream(a, b, 1, &e) == 0 &&
	   copy_stream(b, a, 0, &e) == 0, "copied twice, compressed on the way %s", e.what);
	ok(read_stream(a, 0, &d, &e) == 0, "readable %s", e.what);
	if (!ok(stream_open_in(&in, a, &e) == 0 && stream_next(in, &r, &e) == 1 &&
		record_get_raw(&r, "prov", &p, &n), "with a provenance"))
		return;
	msgpack_unpacked_init(&u);
	ok(msgpack_unpack_next(&u, p, n, &off) == MSGPACK_UNPACK_SUCCESS &&
	   u.data.via.array.size == 3, "of three programs");
	const msgpack_object_map *m = &u.data.via.array.ptr[2].via.map;
	const msgpack_object *opt = &m->ptr[2].val;
	ok(m->size == 4 && strncmp(m->ptr[0].val.via.str.ptr, "copy", 4) == 0 &&
	   opt->via.array.size == 2 &&
	   strncmp(opt->via.array.ptr[0].via.str.ptr, "--alpha=0.75", 12) == 0 &&
	   strncmp(m->ptr[3].val.via.str.ptr, "plain C", 7) == 0, "program, options, backend");
	ok(record_get_str(&r, "family", s, sizeof(s)) && strcmp(s, "llama") == 0, "family stays");
	msgpack_unpacked_destroy(&u);
	record_clear(&r);
	stream_close_in(in);
}

/* ---- pipes */

struct pump {
	int fd;
	struct buf data;
	size_t step; /* bytes a write or read; 0: all */
	useconds_t pause;
};

static void *pump_in(void *arg)
{
	struct pump *p = arg;

	for (size_t at = 0; at < p->data.n;) {
		size_t n = p->step && p->step < p->data.n - at ? p->step : p->data.n - at;
		ssize_t w = write(p->fd, p->data.p + at, n);

		if (w <= 0)
			break;
		at += (size_t)w;
	}
	close(p->fd);
	return NULL;
}

static void *pump_out(void *arg)
{
	struct pump *p = arg;
	sigset_t set;
	ssize_t n;

	sigfillset(&set);
	pthread_sigmask(SIG_BLOCK, &set, NULL); /* signals are for the writer */
	while ((n = read(p->fd, buf_room(&p->data, p->step), p->step)) > 0) {
		p->data.n += (size_t)n;
		if (p->pause)
			usleep(p->pause);
	}
	close(p->fd);
	return NULL;
}

static void short_reads(void)
{
	static const size_t steps[] = { 1, 2, 3, 7, 0 };
	uint64_t a, b;
	struct err e;

	for (int level = 0; level < 2; level++)
		for (int i = 0; i < 5; i++) {
			struct pump p = { .step = steps[i] };
			pthread_t t;
			char name[32];
			int fd[2];

			if (write_small(file_path("s"), level, &e) != 0 ||
			    read_stream(file_path("s"), 0, &a, &e) != 0 || pipe(fd) != 0)
				exit(1);
			p.data = load(file_path("s"));
			p.fd = fd[1];
			snprintf(name, sizeof(name), "/dev/fd/%d", fd[0]);
			pthread_create(&t, NULL, pump_in, &p);
			int got = read_stream(name, 0, &b, &e);
			pthread_join(t, NULL);
			close(fd[0]);
			ok(got == 0 && a == b, "a pipe that brings %zu bytes at a time%s", steps[i],
			   level ? ", compressed" : "");
			buf_release(&p.data);
		}
}

static void tick(int sig)
{
	(void)sig;
}

/* A timer without SA_RESTART cuts writes short or makes them fail with EINTR. */
static void short_writes(void)
{
	struct sigaction sa = { .sa_handler = tick };
	struct itimerval often = { { 0, 300 }, { 0, 300 } }, never = { { 0, 0 }, { 0, 0 } };
	const struct provenance prov = { "slow", "1", 0, NULL, NULL };
	struct pump p = { .step = 65536, .pause = 100 };
	size_t n = 20u << 20;
	unsigned char *data = malloc(n);
	struct stream_out *out;
	struct record r = { 0 };
	char name[32];
	pthread_t t;
	int fd[2], bad;
	struct err e = { 0 };

	for (size_t i = 0; i < n; i++)
		data[i] = (unsigned char)(i * 2654435761u >> 17);
	if (pipe(fd) != 0)
		exit(1);
	p.fd = fd[0];
	pthread_create(&t, NULL, pump_out, &p);
	snprintf(name, sizeof(name), "/dev/fd/%d", fd[1]);
	struct stream_out_options opt = { name, 0 };
	bad = stream_open_out(&out, &opt, &e);
	close(fd[1]);
	sigaction(SIGALRM, &sa, NULL);
	setitimer(ITIMER_REAL, &often, NULL);
	record_init(&r, REC_STREAM, NULL);
	bad = bad || stream_write_head(out, &r, &prov, &e) ||
	      put_tensor(out, "x", ROLE_WEIGHT, DT_U8, 20, 1 << 20, data, &e) ||
	      stream_commit(out, &e);
	setitimer(ITIMER_REAL, &never, NULL);
	stream_close_out(out);
	pthread_join(t, NULL);
	file_write(file_path("slow"), p.data.p, p.data.n);
	uint64_t d;
	ok(!bad && read_stream(file_path("slow"), 0, &d, &e) == 0,
	   "interrupted writes lose nothing: %s", e.what);
	buf_release(&p.data);
	record_clear(&r);
	free(data);
}

/* ---- files */

static void files(void)
{
	const struct provenance prov = { "f", "1", 0, NULL, NULL };
	struct stream_out_options opt = { .path = NULL };
	char file[PATH], link[PATH];
	struct stream_out *out;
	struct record r = { 0 };
	struct err e = { 0 };
	struct stat st;
	uint64_t d;

	keep_path(file, "result");
	keep_path(link, "link");
	file_write(file, "old", 3);
	chmod(file, 0600);
	opt.path = file;
	ok(stream_open_out(&out, &opt, &e) == 0 && stream_out_temp(out), "an output file");
	record_init(&r, REC_STREAM, NULL);
	ok(stream_write_head(out, &r, &prov, &e) == 0, "with a header");
	ok(stat(file, &st) == 0 && st.st_size == 3, "the old file is there until the end");
	char temp[PATH + 64];
	snprintf(temp, sizeof(temp), "%s", stream_out_temp(out));
	ok(access(temp, F_OK) == 0, "the new one beside it");
	stream_close_out(out);
	ok(access(temp, F_OK) != 0 && stat(file, &st) == 0 && st.st_size == 3,
	   "closed without END: the new one is gone, the old one as it was");

	if (symlink("result", link) != 0)
		exit(1);
	ok(write_small(link, 0, &e) == 0 && lstat(link, &st) == 0 && S_ISLNK(st.st_mode),
	   "a symbolic link stays one");
	ok(read_stream(file, 0, &d, &e) == 0, "and its target is the new stream");

	ok(stream_open_out(&out, &opt, &e) == 0, "open");
	ok(put_simple(out, REC_NOTE, "x", NULL, NULL, &e) == -1 && e.cls == ERR_BUG,
	   "a record before the header is a bug: %s", e.what);
	ok(stream_commit(out, &e) == -1 && e.cls == ERR_BUG, "so is an empty stream");
	ok(stream_write_head(out, &r, &prov, &e) == 0 &&
	   stream_write_head(out, &r, &prov, &e) == -1 && e.cls == ERR_BUG, "and a second header");
	record_init(&r, REC_TENSOR, "x");
	r.dtype = DT_F32;
	r.rank = 1;
	r.shape[0] = 4;
	r.nbytes = 12;
	ok(stream_write(out, &r, noise, &e) == -1 && e.cls == ERR_BUG, "and wrong nbytes");
	r.nbytes = 16;
	ok(stream_write(out, &r, NULL, &e) == -1 && e.cls == ERR_BUG, "and no payload");
	stream_close_out(out);

	opt.path = "/nowhere/x";
	ok(stream_open_out(&out, &opt, &e) == -1 && e.cls == ERR_CANTCREAT, "%s: %s", e.where,
	   e.what);
	opt.path = files_in();
	ok(stream_open_out(&out, &opt, &e) == -1 && e.cls == ERR_CANTCREAT, "%s: %s", e.where,
	   e.what);
	ok(write_small("/dev/full", 0, &e) != 0 && e.cls == ERR_IO && e.sys == ENOSPC, "%s: %s",
	   e.where, e.what);
	record_clear(&r);
}

/* ---- sources that are no stream file */

struct model {
	int at;
};

static int model_next(void *self, struct record *r, struct err *e)
{
	struct model *m = self;

	(void)e;
	record_init(r, m->at ? REC_FILE : REC_STREAM, m->at ? "a.txt" : NULL);
	r->nbytes = m->at ? 3 : 0;
	return m->at++ < 2;
}

static int model_payload(void *self, void *dst, struct err *e)
{
	(void)self;
	(void)e;
	memcpy(dst, "abc", 3);
	return 0;
}

static void model_close(void *self)
{
	((struct model *)self)->at = -1;
}

static void sources(void)
{
	static const struct stream_in_ops ops = { model_next, model_payload, model_close, NULL };
	const struct provenance prov = { "s", "1", 0, NULL, NULL };
	struct stream_out_options opt = { .path = file_path("source") };
	struct model m = { 0 };
	struct stream_in *in;
	struct stream_out *out;
	struct record r = { 0 };
	struct err e = { 0 };
	uint64_t d;

	ok(stream_in_from(&in, &ops, &m, &e) == 0 && stream_open_out(&out, &opt, &e) == 0,
	   "a source");
	ok(stream_next(in, &r, &e) == 1 && stream_write_head(out, &r, &prov, &e) == 0,
	   "its header");
	ok(stream_next(in, &r, &e) == 1 && stream_copy(out, in, &r, &e) == 0, "a copied record");
	ok(stream_next(in, &r, &e) == 0 && stream_next(in, &r, &e) == 0, "its end");
	ok(stream_commit(out, &e) == 0 && read_stream(opt.path, 0, &d, &e) == 0, "make a stream");
	stream_close_in(in);
	stream_close_out(out);
	record_clear(&r);
	ok(m.at == -1, "it is told when nobody wants more");
}

int main(void)
{
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
	/* Nothing here may ask for more, whatever a header says. */
	struct rlimit most = { 600u << 20, 600u << 20 };

	setrlimit(RLIMIT_AS, &most);
#endif
	for (size_t i = 0; i < sizeof(noise); i++)
		noise[i] = (unsigned char)(i * 2654435761u >> 13);
	for (size_t i = 0; i < sizeof(soft); i++)
		soft[i] = i % 2 ? 0x3c : (unsigned char)(i % 6);
	round_trips();
	large();
	aside();
	damage("plain", 0);
	damage("compressed", 1);
	versions();
	must();
	limits();
	byte_for_byte();
	provenance();
	short_reads();
	short_writes();
	files();
	sources();
	files_remove();
	return done();
}
