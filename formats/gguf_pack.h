/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gguf_pack.h - codes of a quantized linear in ggml's blocks of 32, without loss where that is
 * possible
 *
 * A block has one scale d and, in types _1, one minimum m, both F16; q has 4, 5 or 8 bits. With
 * w = s (c - z) a tensor is held exactly
 *     by Q4_0, Q5_0, Q8_0   if d = s and all c - z are in -8 .. 7, -16 .. 15, -128 .. 127
 *     by Q4_1, Q5_1         if d = s, q = c and m = -s z is a number of F16
 * where s is a number of F16 and a group a multiple of 32 columns (s is repeated).
 * Codes on a grid of super-blocks (kgrid.h) are held by that grid's own type; others come to it
 * only by being quantized again.
 */
#ifndef QP_GGUF_PACK_H
#define QP_GGUF_PACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/err.h"
#include "lib/model/codes.h"

#define GGUF_PACK_AUTO UINT32_MAX
#define GGUF_BLOCK 32

/* A linear's records and payloads: codes_init and codes_fit have looked at them. */
struct gguf_codes {
	struct codes c;
	const void *codes, *scale, *zero;
};

enum gguf_pack_how {
	GGUF_PACK_EXACT,
	GGUF_PACK_ROUNDED, /* the codes as they are, scale or minimum rounded to F16 */
	GGUF_PACK_ANEW,    /* quantized again, by ggml's rule for the type, or kgrid_fit.h */
};

struct gguf_packing {
	uint32_t type; /* of ggml; F16 (ANEW): no block type fits */
	enum gguf_pack_how how;
};

/*
 * The smallest type that holds it exactly, or `want` if that does; else, if requantize, what comes
 * closest.  ERR_DATA: none does (the message says why, and which option of rtn and gptq helps).
 */
int gguf_pack_choose(struct gguf_packing *p, const struct gguf_codes *g, uint32_t want,
		     bool requantize, struct err *e) MUST_USE;

/* Scratch for rows of cols weights. */
struct gguf_pack_scratch {
	float *w;        /* [cols] */
	uint8_t *code;   /* [cols] */
};
int gguf_pack_scratch_new(struct gguf_pack_scratch *s, size_t cols, struct err *e) MUST_USE;
void gguf_pack_scratch_free(struct gguf_pack_scratch *s);

/* Row n in blocks of p's type into dst, and its weight in s->w.  ERR_DATA: a code does not fit its
 * bits, or a value of F16 is too large for it. */
int gguf_pack_row(unsigned char *dst, const struct gguf_packing *p, const struct gguf_codes *g,
		  size_t n, const struct gguf_pack_scratch *s, struct err *e) MUST_USE;

#endif
