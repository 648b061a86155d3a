/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tiny.h - a random Llama of any small shape in memory, for unit tests of lib/model
 */
#ifndef QP_TINY_H
#define QP_TINY_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/model/block.h"

static uint64_t tiny_state = 0x9e3779b97f4a7c15u;

/* Uniform in (-1, 1); xorshift64*, so that runs repeat. */
static inline float tiny_random(void)
{
	tiny_state ^= tiny_state >> 12;
	tiny_state ^= tiny_state << 25;
	tiny_state ^= tiny_state >> 27;
	return (float)((double)(tiny_state * 0x2545f4914f6cdd1du >> 11) / (double)(1ull << 52) - 1);
}

static inline struct model_config tiny_config(void)
{
	return (struct model_config){
		.model_type = "llama", .hidden = 8, .layers = 2, .heads = 4, .kv_heads = 2,
		.head_dim = 6, .ffn = 12, .vocab = 20, .max_positions = 64, .norm_eps = 1e-5,
		.rope = ROPE_PLAIN, .rope_theta = 10000, .bos = 1, .eos = 2,
	};
}

static inline struct model tiny_model(const struct model_config *c)
{
	struct model m;
	struct err e;

	if (model_init(&m, c, &e) < 0) {
		printf("Bail out! %s: %s\n", e.where, e.what);
		exit(1);
	}
	return m;
}

/* The header of a tensor, F32. */
static inline void tiny_record(const struct model *m, enum slot s, long layer, struct record *r)
{
	char name[256];

	model_tensor_name(m, s, layer, name);
	record_init(r, REC_TENSOR, name);
	r->rank = model_dims(m, s, r->shape);
	r->role = strstr(name, ".bias") != NULL ? ROLE_BIAS : ROLE_WEIGHT;
	r->dtype = DT_F32;
	r->nbytes = 4;
	for (int i = 0; i < r->rank; i++)
		r->nbytes *= (uint64_t)r->shape[i];
}

static inline void tiny_fill(float *x, size_t n, float mean, float scale)
{
	for (size_t i = 0; i < n; i++)
		x[i] = mean + scale * tiny_random();
}

/* b, initialised, becomes block `layer` with random weights. */
static inline int tiny_block(struct block *b, long layer, struct err *e)
{
	struct record r = { .rank = -1 };

	b->layer = layer;
	for (int s = 0; s < model_slots(b->model); s++) {
		struct item *it;

		if (!slot_in_block(s) || !model_has(b->model, s, layer))
			continue;
		tiny_record(b->model, s, layer, &r);
		it = block_add(b, &r, e);
		if (it == NULL)
			return -1;
		if (s == SLOT_NORM1 || s == SLOT_NORM2)
			tiny_fill(it->data, it->rec.nbytes / 4, 1, 0.3f);
		else
			tiny_fill(it->data, it->rec.nbytes / 4, 0, 0.6f);
	}
	record_clear(&r);
	return 0;
}

static inline const float *tiny_weight(struct block *b, enum slot s)
{
	const struct item *it = block_find(b, s, ROLE_WEIGHT);

	return it != NULL ? it->data : NULL;
}

#endif
