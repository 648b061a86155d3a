/* SPDX-License-Identifier: Apache-2.0 */
/*
 * experts.c - the note on the experts' coverage
 */
#include "lib/model/experts.h"

#include <stdio.h>
#include <string.h>

#include "lib/data/mp.h"

int experts_note(struct block *b, const struct forward *f, struct err *e)
{
	const uint64_t *count = forward_routed(f);
	struct buf tokens = { 0 };
	struct item *it;
	char name[64], kind[16];
	int ret;

	if (!model_is_sparse(b->model, b->layer))
		return 0;
	snprintf(name, sizeof(name), "layers.%ld.mlp.experts", b->layer);
	for (size_t i = 0; i < b->n; i++)
		if (b->items[i].rec.type == REC_NOTE && strcmp(b->items[i].rec.name, name) == 0 &&
		    record_get_str(&b->items[i].rec, "kind", kind, sizeof(kind)) == 1 &&
		    strcmp(kind, "coverage") == 0)
			b->items[i].drop = true;
	it = block_note(b, name, "coverage", e);
	if (it == NULL)
		return -1;
	mp_put_array(&tokens, (size_t)b->model->cfg.experts);
	for (long i = 0; i < b->model->cfg.experts; i++)
		mp_put_int(&tokens, (int64_t)count[i]);
	ret = buf_failed(&tokens, name, e);
	if (ret == 0 && record_set_raw(&it->rec, "tokens", tokens.p, tokens.n) < 0)
		ret = err_nomem(e, name, tokens.n);
	buf_release(&tokens);
	return ret;
}
