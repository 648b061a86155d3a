/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stream.h - the tensor stream: records in, records out (man 5 quantpipe-stream)
 *
 * A stream is a sequence of msgpack values.  A record is a map, its header, followed
 * by `chunks` bin values of at most 16 MiB each, its payload.  The last record is
 * `end`; a stream without it is damaged.  `xxh` is the XXH3-64 of the payload bytes as
 * they lie in the chunks; the checksum in `end` is the XXH3-64 of every other byte before
 * `end` (all headers, and the bin prefixes of the chunks), so that together they cover
 * the stream while each payload byte is hashed once.
 *
 * msgpack-c is used for headers only; payloads go straight between the file and the
 * caller's memory.  zstd (per payload, `enc`, or the whole stream) is undone here.
 */
#ifndef QP_STREAM_H
#define QP_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"
#include "lib/data/dtype.h"

#define STREAM_MAJOR 1
#define STREAM_MINOR 0
#define STREAM_MAX_HEADER (1u << 20)  /* bytes of one header */
#define STREAM_MAX_NAME 255
#define STREAM_MAX_RANK 8
#define STREAM_CHUNK (16u << 20)      /* payload bytes of one chunk: all but the last have these */

enum rec_type {
	REC_STREAM, REC_FILE, REC_CALIB, REC_BLOCK, REC_BLOCK_END, REC_TENSOR,
	REC_ALIAS,  /* name is the tensor that key "of" names: tied weights */
	REC_RUN, REC_NOTE, REC_END,
	REC_OTHER,  /* a type this version does not know: passed on as it is */
};

enum role {
	ROLE_NONE, ROLE_WEIGHT, ROLE_BIAS, ROLE_STAT, ROLE_REF, ROLE_CODES, ROLE_SCALE,
	ROLE_ZERO, ROLE_PERM, ROLE_COMP, ROLE_OTHER
};

const char *role_name(enum role r);
enum role role_from_name(const char *s);

/*
 * One header.  The named fields are the keys this version knows; every other key is
 * kept, in order, in extra and written back.  Zero-initialise, record_clear when done.
 */
struct record {
	enum rec_type type;
	char type_name[32];
	char name[STREAM_MAX_NAME + 1]; /* empty: none */
	enum role role;
	char role_name[32];
	enum dtype dtype;       /* DT_NONE: the payload is bytes */
	int rank;               /* -1: no shape */
	int64_t shape[STREAM_MAX_RANK];
	uint64_t nbytes;        /* payload, before enc */
	bool must;              /* must be understood: refused (76) when it is not */
	unsigned char *extra;   /* n_extra msgpack key-value pairs, no map header */
	size_t extra_len, extra_cap;
	unsigned n_extra;
	/* as read; stream_copy needs them, stream_write ignores them */
	uint64_t chunks, xxh;
	char enc[16];           /* "", "zstd", "zstd-planes" */
};

void record_init(struct record *r, enum rec_type t, const char *name); /* clears first */
void record_clear(struct record *r);
int record_dup(struct record *dst, const struct record *src, struct err *e);

/* Extra keys.  get: 1 found, 0 absent, of another type or (str) too long for buf.  set replaces or
 * appends; -1 when out of memory; a raw value must not lie in r itself. */
int record_get_int(const struct record *r, const char *key, int64_t *v);
int record_get_double(const struct record *r, const char *key, double *v); /* or integer */
int record_get_bool(const struct record *r, const char *key, bool *v);
int record_get_str(const struct record *r, const char *key, char *buf, size_t cap);
/* The value's own msgpack bytes, inside r. */
int record_get_raw(const struct record *r, const char *key, const void **p, size_t *n);
int record_set_int(struct record *r, const char *key, int64_t v);
int record_set_double(struct record *r, const char *key, double v);
int record_set_bool(struct record *r, const char *key, bool v);
int record_set_str(struct record *r, const char *key, const char *v);
int record_set_raw(struct record *r, const char *key, const void *msgpack, size_t n);
void record_unset(struct record *r, const char *key);

/* ---- reading ------------------------------------------------------------------- */

/*
 * A source of records: a stream file or pipe, or anything that can present itself as
 * one (a model directory, formats/source.h).
 */
struct stream_in;

/* path NULL or "-": standard input (refused with ERR_USAGE if it is a terminal). */
int stream_open_in(struct stream_in **in, const char *path, struct err *e) MUST_USE;
void stream_close_in(struct stream_in *in);

/*
 * The next header.  1: *r is filled (any payload of the previous record that was not
 * taken is skipped, still verified).  0: END was read, counts and checksums agree, and
 * nothing follows it; never returned otherwise.  -1: *e.
 * A record marked must whose type or role is unknown is ERR_VERSION.  REC_END is not delivered.
 * r is zero-initialised or one that stream_next or record_init has filled before.
 *
 * r->nbytes agrees with dtype, shape and chunks and is at most 2^48; in a file it is also no more
 * than what is left of it.  From a pipe a header that lies consistently is believed: allocate,
 * do not clear, and memory is touched only as bytes come.
 */
int stream_next(struct stream_in *in, struct record *r, struct err *e) MUST_USE;

/* The current record's payload, decoded and verified, into dst[nbytes].  Once a record.  ERR_DATA
 * if damaged or cut short, ERR_VERSION for an encoding this version does not know. */
int stream_payload(struct stream_in *in, void *dst, struct err *e) MUST_USE;

/* The same while the caller does something else: dst, and in, are left alone until stream_await,
 * which returns what stream_payload would have.  Small payloads are taken at once.  nbytes: the
 * record's. */
int stream_payload_begin(struct stream_in *in, void *dst, uint64_t nbytes,
			 struct err *e) MUST_USE;
int stream_await(struct stream_in *in, struct err *e) MUST_USE;

/* The fingerprint of the calibration set that came by, or "". */
const char *stream_calib(const struct stream_in *in);

/* The same in pieces of a few 100 KiB, each a multiple of 8 bytes but the last: nobody holds all
 * of it.  Where the payload cannot be had in pieces (compressed ones; most foreign formats) it is
 * one, in memory that is kept for the next.  Pieces are handed out before the last of them has
 * shown whether all are sound: ERR_DATA then as ever.  nbytes: the record's. */
typedef int stream_take(void *ctx, const void *p, size_t n, struct err *e);
int stream_pieces(struct stream_in *in, uint64_t nbytes, stream_take *take, void *ctx,
		  struct err *e) MUST_USE;

/* Bytes taken from the input so far, and its size if it is a file, else 0: for progress. */
uint64_t stream_offset(const struct stream_in *in);
uint64_t stream_size_hint(const struct stream_in *in);

/* For sources that are not stream files: see formats/source.c for an implementation. */
struct stream_in_ops {
	int (*next)(void *self, struct record *r, struct err *e);      /* 1, 0, -1 */
	int (*payload)(void *self, void *dst, struct err *e);
	void (*close)(void *self);
	/* n bytes of the payload from its byte `from` on: 0; 1: not of this one; -1.  Or NULL. */
	int (*piece)(void *self, uint64_t from, void *dst, size_t n, struct err *e);
};
int stream_in_from(struct stream_in **in, const struct stream_in_ops *ops, void *self,
		   struct err *e) MUST_USE;

/* ---- writing ------------------------------------------------------------------- */

struct provenance {
	const char *program, *version;
	int n;                       /* options, "--bits=4"; no paths, hosts, times */
	const char *const *options;
	const char *backend;         /* kernels used, or NULL */
};

struct stream_out;

struct stream_out_options {
	const char *path; /* NULL or "-": standard output (a terminal is refused) */
	int zstd_level;   /* 0: none; else payloads are compressed, -z: needs memory for the
	                   * largest compressed payload */
};

/* A file is written under a temporary name beside path and renamed by stream_commit. */
int stream_open_out(struct stream_out **out, const struct stream_out_options *opt,
		    struct err *e) MUST_USE;

/* A REC_STREAM header with prov (NULL: none) appended to its "prov" list; the stream version is
 * set, unless it is a newer minor one: then records of it may follow. */
int stream_write_head(struct stream_out *out, struct record *head, const struct provenance *prov,
		      struct err *e) MUST_USE;

/* A record with its payload[r->nbytes] (NULL when nbytes is 0).  Written in full when it returns,
 * so that the next stage need not wait.  ERR_IO; ERR_BUG for nbytes that dtype and shape do not
 * make. */
int stream_write(struct stream_out *out, const struct record *r, const void *payload,
		 struct err *e) MUST_USE;

/*
 * The current record of in, header and payload, byte for byte: r as stream_next gave it (to
 * change a header, take the payload and write it).  With -z a payload of known type that was not
 * compressed is; then one payload is held in memory, as are those of a source that is no stream
 * file where it cannot hand them out in pieces.
 */
int stream_copy(struct stream_out *out, struct stream_in *in, const struct record *r,
		struct err *e) MUST_USE;

/* Write END, flush, fsync and rename a file into place.  Only a filter that succeeded
 * calls it. */
int stream_commit(struct stream_out *out, struct err *e) MUST_USE;
/* Close without END and remove the temporary file.  Also called after stream_commit. */
void stream_close_out(struct stream_out *out);

/* The name of the temporary file, for a signal handler to remove; NULL: there is none. */
const char *stream_out_temp(const struct stream_out *out);

/* CPU seconds spent in reading, writing, hashing and zstd, for -v. */
double stream_in_seconds(const struct stream_in *in);
double stream_out_seconds(const struct stream_out *out);

#endif
