/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mpwalk.h - msgpack that nobody has checked yet: one token at a time, nothing allocated
 *
 * Headers come from outside.  msgpack-c's unpacker allocates an array by its declared length
 * before it has seen an element (2^32 of them: 96 GiB) and calls any depth above its own limit
 * a parse error; so a header is first measured here, within limits, and only what has passed is
 * given to anything else.  Any encoding is understood, not only the shortest.
 */
#ifndef QP_MPWALK_H
#define QP_MPWALK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MP_MAX_DEPTH 30 /* arrays and maps within one another; msgpack-c stops at 32 */

enum token_type { TOKEN_NIL, TOKEN_BOOL, TOKEN_INT, TOKEN_UINT, TOKEN_REAL, TOKEN_STR, TOKEN_BIN,
		  TOKEN_EXT, TOKEN_ARRAY, TOKEN_MAP };

struct token {
	enum token_type type;
	bool b;
	int64_t i;       /* TOKEN_INT: all integers that fit */
	uint64_t u;      /* TOKEN_UINT: those above INT64_MAX; set for every integer >= 0 */
	double d;        /* TOKEN_REAL, and every integer */
	uint64_t n;      /* bytes of a str, bin or ext; elements of an array; pairs of a map */
	const char *body;  /* of a str, bin or ext: n bytes, no NUL after them */
	size_t size;     /* bytes of the token, with the body of a str, bin or ext */
};

/*
 * The token at p.  1: *t is filled.  0: there are not enough bytes; t->size is how many are
 * needed at least.  -1: the byte at p begins no msgpack value.
 */
int token_read(struct token *t, const void *p, size_t n);

/*
 * How long the value at p is, arrays and maps with all they hold.  1: *size bytes.  0: more are
 * needed, *size at least (saturating).  -1: not msgpack, or deeper than MP_MAX_DEPTH.
 */
int token_extent(const void *p, size_t n, uint64_t *size);

/* Bytes that lie at p and form a msgpack bin's prefix, for n bytes of body; returns its length,
 * 2, 3 or 5. */
size_t bin_prefix(unsigned char p[5], uint32_t n);

#endif
