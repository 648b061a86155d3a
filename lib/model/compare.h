/* SPDX-License-Identifier: Apache-2.0 */
/*
 * compare.h - how far the tensors of two streams are apart
 *
 * Tensors are compared by value: a BF16 weight with an F32 one, a quantized weight (codes, scale
 * and zero; codes.h) by its dequantized values with anything.  A weight record beside codes of
 * the same name is the value; the codes are then not looked at.
 *
 * For a reference a and a value b of n elements, sums in f64:
 *     max_abs = max |a - b|                    rel = |a - b|_F / |a|_F   (0/0 = 0, x/0 = inf)
 *     snr_db  = 20 log10(1 / rel)              cosine = a.b / (|a| |b|)  (equal: 1)
 * Two NaN, or two infinities of one sign, are equal; a value that is not finite beside another
 * makes all errors infinite, max_abs too, and the cosine 0.  Integers are compared exactly.
 * Bytes of unknown type are equal or infinitely far apart.
 */
#ifndef QP_COMPARE_H
#define QP_COMPARE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/data/stream.h"
#include "lib/model/codes.h"

struct tensor_error {
	uint64_t n, unequal;
	bool infinite; /* a value that is not finite has no equal partner */
	double max_abs, d2, a2, b2, ab; /* d2: sum of squared differences, ... */
};

void tensor_error_add(struct tensor_error *s, const double *a, const double *b, size_t n);
double tensor_error_rel(const struct tensor_error *s);
double tensor_error_snr(const struct tensor_error *s);
double tensor_error_cosine(const struct tensor_error *s);

/* One tensor of a stream, with all that makes its value; or an alias, which has none. */
struct tensor_value {
	struct record rec;       /* weight, bias, stat ... or codes */
	struct record scale, zero; /* name empty: there is none */
	void *data, *scale_data, *zero_data;
};

void tensor_value_release(struct tensor_value *v);
/* "layers.0.mlp.in hessian": the name, and what of it (weight for codes). label[cap]. */
void tensor_value_label(const struct tensor_value *v, char *label, size_t cap);
/* The same tensor on two sides: name, role (codes are a weight) and kind of statistic. */
bool tensor_value_same_name(const struct tensor_value *a, const struct tensor_value *b);

/*
 * a against b.  1: *s is filled; 0: they cannot be compared (their shapes differ, or one is an
 * alias and the other is not, or they are aliases of different tensors): why[cap] says it; -1.
 */
int tensor_value_compare(struct tensor_error *s, const struct tensor_value *a,
			 const struct tensor_value *b, char *why, size_t cap,
			 struct err *e) MUST_USE;

/* The tensors of one stream, a block at a time. */
struct tensor_reader;

/* roles: bits 1 << ROLE_..., scale and zero going with ROLE_CODES, which goes with ROLE_WEIGHT.
 * NULL: ERR_NOMEM.  in stays the caller's. */
struct tensor_reader *tensor_reader_new(struct stream_in *in, unsigned roles, struct err *e);
void tensor_reader_free(struct tensor_reader *t);
/* Go to the next part of the stream (before the blocks, each block, between, behind): 1; 0: END. */
int tensor_reader_part(struct tensor_reader *t, struct err *e) MUST_USE;
/* The next tensor of this part, *v released by the caller: 1; 0: the part is over; -1. */
int tensor_reader_next(struct tensor_reader *t, struct tensor_value *v, struct err *e) MUST_USE;

/*
 * Pair the tensors of a with those of b, part by part, in any order within a part, and hand each
 * pair to pair(ctx, a, b, e): 0, or -1 with *e set.  What only one side has comes with NULL for
 * the other.  In memory are a part of a and one tensor of b.
 */
int compare_streams(struct tensor_reader *a, struct tensor_reader *b,
		    int (*pair)(void *ctx, const struct tensor_value *a,
				const struct tensor_value *b, struct err *e),
		    void *ctx, struct err *e) MUST_USE;

#endif
