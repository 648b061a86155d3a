/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hf_quant.c - formats of quantized checkpoints, and what their readers share
 */
#include "formats/hf_quant.h"

#include <stdio.h>
#include <string.h>

#include "formats/file.h"

static const struct hf_quant *const formats[] = { &hf_quant_ct, &hf_quant_gptq, &hf_quant_awq };
enum { N_FORMATS = sizeof(formats) / sizeof(formats[0]) };

const struct hf_quant *hf_quant_find(const char *method)
{
	for (int i = 0; method && i < N_FORMATS; i++)
		if (strcmp(formats[i]->method, method) == 0)
			return formats[i];
	return NULL;
}

void hf_quant_names(char *buf, size_t cap)
{
	size_t n = 0;

	*buf = '\0';
	for (int i = 0; i < N_FORMATS && n < cap; i++)
		n += (size_t)snprintf(buf + n, cap - n, "%s%s", i ? ", " : "", formats[i]->method);
}

bool hf_act_same(const struct hf_act *a, const struct hf_act *b)
{
	return a->kind == b->kind && a->bits == b->bits && a->asym == b->asym &&
	       a->fixed == b->fixed && a->group == b->group && a->scale == b->scale &&
	       a->zero == b->zero;
}

static const char *part_name(enum hf_part part)
{
	static const char *const names[HF_PARTS] = {
		"weight", "packed codes", "scale", "zero point", "shape", "group indices",
		"input scale", "input zero point",
	};

	return names[part];
}

int hf_part_check(const struct hf_linear *l, enum hf_part part, enum dtype dtype, int rank,
		  int64_t d0, int64_t d1, struct err *e)
{
	const struct st_tensor *t = l->part[part].t;

	if (!t)
		return err_set(e, ERR_DATA, l->name, "has no %s", part_name(part));
	if (t->dtype != dtype)
		return err_set(e, ERR_DATA, t->name, "dtype %s, expected %s", t->dtype_name,
			       dtype_name(dtype));
	if (t->rank != rank || t->shape[0] != d0 || (rank == 2 && t->shape[1] != d1))
		return err_set(e, ERR_DATA, t->name, rank == 2 ? "expected shape [%lld, %lld]" :
			       "expected shape [%lld]", (long long)d0, (long long)d1);
	return 0;
}

int hf_part_read(const struct hf_place *p, void *dst, struct err *e)
{
	return safetensors_read(p->shard, p->t, dst, e);
}

int hf_part_piece(const struct hf_place *p, uint64_t from, size_t n, void *dst, struct err *e)
{
	if (from > p->t->nbytes || n > p->t->nbytes - from)
		return err_set(e, ERR_BUG, p->t->name, "BUG: beyond the end");
	return file_pread(p->shard->fd, dst, n, p->t->begin + from, p->t->name, e);
}
