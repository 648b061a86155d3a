/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gguf_split.h - a model in several GGUF files
 *
 * As llama-gguf-split writes them: NAME-00001-of-0000N.gguf has every key, each part has
 * split.no (from 0) and split.count, the first split.tensors.count, and a tensor is in one of them.
 */
#ifndef QP_GGUF_SPLIT_H
#define QP_GGUF_SPLIT_H

#include "formats/gguf.h"

/* g was opened from path: if it is the first of several parts, the others, beside it, are opened
 * too and all tensors are g's; gguf_close closes them.  Nothing for a whole file.  ERR_DATA for a
 * part that is not the first, not named so, another's, or with a tensor that is there already, and
 * when tensors are missing; ERR_NOINPUT for a part that is not there. */
int gguf_join(struct gguf *g, const char *path, struct err *e) MUST_USE;

#endif
