/* SPDX-License-Identifier: Apache-2.0 */
/*
 * experts.c - the note on the experts' coverage
 */
#include "lib/model/experts.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "lib/data/mp.h"

bool experts_is_note(const struct record *r)
{
	char kind[16];

	return r->type == REC_NOTE && record_get_str(r, "kind", kind, sizeof(kind)) == 1 &&
	       strcmp(kind, "coverage") == 0;
}

int experts_note(struct block *b, const struct forward *f, struct err *e)
{
	const uint64_t *count = forward_routed(f);
	struct buf tokens = { 0 };
	struct item *it;
	char name[64];
	int ret;

	if (!model_is_sparse(b->model, b->layer))
		return 0;
	snprintf(name, sizeof(name), "layers.%ld.mlp.experts", b->layer);
	for (size_t i = 0; i < b->n; i++)
		if (experts_is_note(&b->items[i].rec) && strcmp(b->items[i].rec.name, name) == 0)
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

void experts_head(struct buf *out)
{
	buf_printf(out, "%-24s %7s %10s %8s %8s  %s\n", "layer", "experts", "tokens", "least",
		   "most", "of each");
}

int experts_row(struct buf *out, const struct record *r, struct err *e)
{
	int64_t least = INT64_MAX, most = 0, sum = 0, n;
	struct mp_doc *doc;
	const void *p;
	size_t len, experts;
	struct buf each = { 0 };

	if (!experts_is_note(r))
		return 0;
	if (record_get_raw(r, "tokens", &p, &len) != 1)
		return err_set(e, ERR_DATA, r->name, "coverage without its tokens");
	if (mp_parse(&doc, p, len, r->name, e))
		return -1;
	experts = mp_type_of(mp_root(doc)) == MP_ARRAY ? mp_len(mp_root(doc)) : 0;
	for (size_t i = 0; i < experts; i++) {
		if (!mp_int(mp_at(mp_root(doc), i), &n) || n < 0 || n > INT64_MAX - sum) {
			experts = 0;
			break;
		}
		sum += n;
		least = n < least ? n : least;
		most = n > most ? n : most;
		buf_printf(&each, " %" PRId64, n);
	}
	mp_free(doc);
	if (experts > 0)
		buf_printf(out, "%-24s %7zu %10" PRId64 " %8" PRId64 " %8" PRId64 " %.*s\n",
			   r->name, experts, sum, least, most, (int)each.n, each.p);
	out->failed |= each.failed;
	buf_release(&each);
	return experts > 0 ? 1 :
	       err_set(e, ERR_DATA, r->name, "coverage that is no list of counts");
}
