/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lint_gguf.c - rules about GGUF files
 */
#include <string.h>

#include "formats/gguf_model.h"
#include "formats/lint_impl.h"
#include "lib/data/stream.h"

/* Header, offsets in the order of the list, keys, names and shapes: what our reader says, which
 * trusts nothing (gguf.h). */
void lint_gguf_layout(struct lint *l)
{
	struct stream_in *in;
	struct err e;

	if (l->gguf_bad)
		lint_say(l, l->gguf_err.where, "%s", l->gguf_err.what);
	else if (gguf_model_open(&in, l->dir, &e))
		lint_say(l, e.where, "%s", e.what);
	else
		stream_close_in(in);
}

void lint_gguf_version(struct lint *l)
{
	int64_t v = 0;
	bool blocks = false;

	for (size_t i = 0; i < l->gguf.n; i++)
		blocks = blocks || l->gguf.t[i].type->block > 1;
	if (!l->gguf_bad && blocks &&
	    (!gguf_int(&l->gguf, gguf_find(&l->gguf, "general.quantization_version"), 0, &v) ||
	     v != 2))
		lint_say(l, l->gguf.path, "has tensors in blocks, but no "
			 "general.quantization_version 2");
}

/* Not a file without one, which says so. */
static bool has_vocab(const struct gguf *g)
{
	const struct gguf_kv *kv = gguf_find(g, "tokenizer.ggml.model");
	uint64_t at = 0;
	const char *s;
	size_t n;

	if (!kv || kv->type != GGUF_STRING || !gguf_str(g, kv, &at, &s, &n))
		return false;
	return !(n == 8 && memcmp(s, "no_vocab", 8) == 0) &&
	       !(n == 4 && memcmp(s, "none", 4) == 0);
}

/* With a vocabulary every row of the embedding has its token, type and (SPM) score. */
void lint_gguf_vocab(struct lint *l)
{
	static const char *const lists[] = { "tokenizer.ggml.tokens", "tokenizer.ggml.token_type",
					     "tokenizer.ggml.scores" };
	const struct gguf_tensor *t = gguf_tensor(&l->gguf, "token_embd.weight");
	const struct gguf_kv *kv;

	if (l->gguf_bad || !t || !has_vocab(&l->gguf))
		return;
	if (!gguf_find(&l->gguf, lists[0]))
		lint_say(l, lists[0], "is missing");
	for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
		kv = gguf_find(&l->gguf, lists[i]);
		if (kv && (int64_t)kv->n != t->ne[1])
			lint_say(l, lists[i], "has %llu elements, the embedding %lld rows",
				 (unsigned long long)kv->n, (long long)t->ne[1]);
	}
}

/* Vectors, and routers, are read as F32 by the kernels that use them. */
void lint_gguf_f32(struct lint *l)
{
	for (size_t i = 0; !l->gguf_bad && i < l->gguf.n; i++) {
		const struct gguf_tensor *t = &l->gguf.t[i];

		if ((t->rank == 1 || strstr(t->name, ".ffn_gate_inp")) &&
		    strcmp(t->type->name, "F32"))
			lint_say(l, t->name, "is of type %s; vectors and routers are F32",
				 t->type->name);
	}
}
