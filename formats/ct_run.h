/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ct_run.h - what a compressed-tensors checkpoint does at run time beside its linears
 *
 *     kv_cache_scheme    keys (rotated) and values as the cache holds them are rounded, in all
 *                        layers alike: dynamic, a range for every group_size channels of a head
 *                        and token; or static, one range (strategy tensor) or one a head
 *                        (attn_head), in "...self_attn.k_scale", v_scale, k_zero_point,
 *                        v_zero_point
 *     transform_config   Hadamard matrices that are not in the weights: of what comes into
 *                        linears (R4), of rotated queries and keys (R3), head by head
 *
 * Both are run records of a stream (lib/model/run.h).
 */
#ifndef QP_CT_RUN_H
#define QP_CT_RUN_H

#include "formats/hf_quant.h"
#include "formats/safetensors_write.h"
#include "lib/model/run.h"

struct buf;
struct readback;

/* The attention module of a layer, "model.layers.3.self_attn"; buf[256] */
void ct_attention_name(const struct model *m, long layer, char *buf);
/* How well a target of config.json names a module: 3 by name, 2 by a pattern from its beginning, 1
 * by the class of linears, 0 not at all. */
int ct_target(const char *target, const char *module);

/* ---- read: as struct hf_quant has them ---- */

struct ct_run;

/* config: quantization_config.  ERR_DATA for what is not read. */
int ct_run_open(struct ct_run **r, const struct json *config, struct err *e) MUST_USE;
void ct_run_free(struct ct_run *r);
bool ct_run_take(struct ct_run *r, const struct model *m, const struct hf_place *p);
int ct_run_nth(struct ct_run *r, const struct model *m, long layer, size_t i, struct hf_run *run,
	       struct err *e) MUST_USE;

/* ---- written ---- */

/* What the layers so far have; zeroed at first. */
struct ct_runs {
	bool any_cache;
	struct hf_act cache;   /* without ranges */
	bool heads;            /* static: a range a head */
	char first[256];       /* the place that cache is of */
	struct ct_turn { int place; long layer; size_t order; } *turn;
	size_t n, cap;
};

/* The layer's ops at queries, keys and values, and its Hadamard matrices: tensors into w, records
 * as they will come back into b.  ERR_DATA naming the place for what the format has no words for,
 * with the option that would make it fit. */
int ct_runs_add(struct ct_runs *r, const struct model *m, const struct run_list *ops, long layer,
		struct st_writer *w, struct readback *b, struct err *e) MUST_USE;
/* "kv_cache_scheme":...,"transform_config":... */
void ct_runs_print(const struct ct_runs *r, const struct model *m, struct buf *out);
void ct_runs_release(struct ct_runs *r);

#endif
