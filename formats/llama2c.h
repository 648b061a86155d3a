/* SPDX-License-Identifier: Apache-2.0 */
/*
 * llama2c.h - the .bin files of llama2.c, f32
 *
 * Seven i32: dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size, seq_len; in the legacy
 * file at its beginning, where a negative vocab_size says that the head is stored too; in version 1
 * behind "24ka" (0x616b3432) and the version, with a byte after them, 1 if the head is the
 * embedding, and zeros up to byte 256.  Then the weights, each for all blocks:
 *     legacy     embedding, norm 1, q, k, v, o, norm 2, gate, down, up, final norm, two tables of
 *                rotary positions (not looked at), head
 *     version 1  norm 1, norm 2, final norm, embedding, q, k, v, o, gate, down, up, head
 * Rows of q and k are in pairs within each head, not in halves; they are put back.  The norms'
 * epsilon is 1e-5, theta 10000.
 *
 * The tokenizer is a file beside it, tokenizer.bin or tokN.bin (N: vocab_size): u32, the longest
 * text; f32 score, i32 length and text of each token.  Id 0 is unknown, 1 begins, 2 ends a text,
 * <0x00> to <0xFF> are bytes.
 */
#ifndef QP_LLAMA2C_H
#define QP_LLAMA2C_H

#include <stdbool.h>
#include <stddef.h>

#include "lib/base/err.h"

struct stream_in;
struct tokenizer_files;

enum { LLAMA2C_HEADER = 36 }; /* bytes that llama2c_looks wants to see */

/* Is this such a file, to judge by its first bytes?  A legacy one has no magic: its numbers make
 * sense as sizes of a model. */
bool llama2c_looks(const unsigned char *first, size_t n);

/* The model as a stream (checkpoint.h); without a tokenizer if there is none beside it. */
int llama2c_open(struct stream_in **in, const char *path, struct err *e) MUST_USE;

/* The text of a tokenizer.bin as files that others know; a tokenizer of so many tokens. */
int llama2c_tokenizer(struct tokenizer_files *f, const char *data, size_t n, size_t vocab,
		      const char *where, struct err *e) MUST_USE;

#endif
