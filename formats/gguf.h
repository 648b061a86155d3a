/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gguf.h - read GGUF files (version 2 and 3, little-endian), trusting no length
 *
 * Layout: "GGUF", u32 version, u64 tensors, u64 keys; the keys with their values; for each tensor
 * name, dimensions (fastest first), type and offset; padding to general.alignment (32 unless
 * given); the data.  Every count and length is held to the size of the file before it is used,
 * keys and names are plain text and unique, and the tensors lie one after the other in the order
 * in which they are listed, each padded to the alignment, up to the end of the file (as ggml
 * writes them and wants them; the padding after the last may be missing).
 */
#ifndef QP_GGUF_H
#define QP_GGUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "formats/ggml.h"
#include "lib/base/err.h"

enum gguf_type {
	GGUF_U8, GGUF_I8, GGUF_U16, GGUF_I16, GGUF_U32, GGUF_I32, GGUF_F32, GGUF_BOOL,
	GGUF_STRING, GGUF_ARRAY, GGUF_U64, GGUF_I64, GGUF_F64, GGUF_TYPES
};

struct gguf_kv {
	char *key;
	enum gguf_type type;
	enum gguf_type elem; /* of an array; else type */
	uint64_t n;          /* elements; 1 unless an array */
	uint64_t at;         /* offset of the first */
};

struct gguf_tensor {
	char *name;
	const struct ggml_type *type;
	int rank;
	int64_t ne[4];      /* fastest first, as in the file */
	uint64_t at, nbytes; /* absolute offset in the file; padding not counted */
	int part;           /* 0: in this file; i: in part[i - 1] */
};

struct gguf {
	char *path;           /* for messages: the base name */
	int fd;               /* -1: in memory */
	uint64_t size;
	unsigned char *meta;  /* the file up to the tensors' data */
	uint64_t have, cap, pos; /* bytes of it read, its memory, and where the reader stands */
	uint32_t version;
	struct gguf_kv *kv;   /* sorted by key */
	size_t n_kv;
	struct gguf_tensor *t; /* sorted by name */
	size_t n;
	struct gguf *part;     /* the others of a model in parts (gguf_split.h) */
	int parts;
};

/* ERR_NOINPUT if it is not there, ERR_DATA naming key or tensor. */
int gguf_open(struct gguf *g, const char *path, struct err *e) MUST_USE;
/* The n bytes of a file; they stay the caller's and must outlive g. */
int gguf_parse(struct gguf *g, const void *data, size_t n, const char *where,
	       struct err *e) MUST_USE;
void gguf_close(struct gguf *g); /* a zeroed one too */

/* Does it begin as such a file does? */
bool gguf_magic(const void *first4);

const struct gguf_kv *gguf_find(const struct gguf *g, const char *key); /* or NULL */
const char *gguf_type_name(enum gguf_type t);

/*
 * Element i of a value (0 unless it is an array), which need not be there (kv NULL).  False if it
 * is of another kind: int takes every integer type that fits, real F32 and F64.
 */
bool gguf_int(const struct gguf *g, const struct gguf_kv *kv, uint64_t i, int64_t *v);
bool gguf_real(const struct gguf *g, const struct gguf_kv *kv, uint64_t i, double *v);
bool gguf_bool(const struct gguf *g, const struct gguf_kv *kv, bool *v);

/* The strings of a value one after the other: *at is 0 before the first.  s lies in g, n bytes and
 * no NUL after them.  False after the last, or if it has none. */
bool gguf_str(const struct gguf *g, const struct gguf_kv *kv, uint64_t *at, const char **s,
	      size_t *n);

/* Tensors were added: by name again.  ERR_DATA naming one that is there twice. */
int gguf_sort(struct gguf *g, struct err *e) MUST_USE;
const struct gguf_tensor *gguf_tensor(const struct gguf *g, const char *name); /* or NULL */
/* The file that holds it. */
int gguf_fd(const struct gguf *g, const struct gguf_tensor *t);
/* n bytes of a tensor from its byte `from` on. */
int gguf_read(const struct gguf *g, const struct gguf_tensor *t, uint64_t from, void *dst,
	      uint64_t n, struct err *e) MUST_USE;

#endif
