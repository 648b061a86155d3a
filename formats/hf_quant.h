/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hf_quant.h - linears in codes in a model directory, whatever a format calls their parts
 *
 * A format of quantized checkpoints (config.json's quantization_config.quant_method) is a row of
 * hf_quant.c's table.  Which linears are in codes the tensors tell, not the configuration: those
 * that have parts.  A plain weight stays one.
 */
#ifndef QP_HF_QUANT_H
#define QP_HF_QUANT_H

#include <stdbool.h>

#include "formats/safetensors.h"
#include "lib/data/stream.h"

struct json;
struct model;

enum hf_part { HF_WEIGHT, HF_CODES, HF_SCALE, HF_ZERO, HF_SHAPE, HF_G_IDX, HF_INPUT_SCALE,
	       HF_INPUT_ZERO, HF_PARTS };

/* Where a tensor lies; t NULL: nowhere. */
struct hf_place {
	const struct safetensors *shard;
	const struct st_tensor *t;
};

struct hf_linear {
	const char *name;       /* of the weight, "model.layers.3.mlp.up_proj.weight" */
	int64_t rows, cols;     /* by the family's table */
	struct hf_place part[HF_PARTS];
};

/* What comes in is rounded to bits (8, but of a cache): integers or e4m3; by a range found at run
 * time, of a token or of `group` channels of it (0: all), or (fixed) one known before: scale and
 * zero as run records have them (lib/model/run.h), zero 0 but with asym. */
struct hf_act {
	enum hf_act_kind { HF_ACT_NONE, HF_ACT_INT, HF_ACT_E4M3 } kind;
	int bits;
	bool asym, fixed;
	int64_t group;
	float scale, zero;
};

/* What a layer does at run time beside its linears. */
struct hf_run {
	int place;          /* enum run_place (lib/model/run.h) */
	size_t order;       /* turned by Hadamard matrices of that order; 0: rounded, as act says */
	struct hf_act act;  /* but for scale and zero: */
	float *grid;        /* malloc'ed, act.fixed: scale and zero of each grid */
	size_t grids;
};

bool hf_act_same(const struct hf_act *a, const struct hf_act *b);

/* As a stream has it (lib/model/codes.h). */
struct hf_codes {
	int bits;
	bool sym;
	int64_t group, tall;    /* columns and rows that share a scale */
	enum dtype codes, scale;
	int64_t scale_shape[2];
	struct hf_act act;
	bool dense;             /* codes cannot say it (scattered groups): a weight in F32 */
};

struct hf_suffix {
	const char *suffix;     /* after the module's name: ".weight_packed" */
	enum hf_part part;
};

struct hf_quant {
	const char *method;
	const struct hf_suffix *suffixes; /* suffix NULL ends */
	/* config: the value of quantization_config.  ERR_DATA for what cannot be read. */
	int (*open)(void **self, const struct json *config, struct err *e);
	/* Fill *q by the parts that are there, checked: each has the shape and type it must. */
	int (*look)(const void *self, const struct hf_linear *l, struct hf_codes *q,
		    struct err *e);
	/* role codes, scale, zero, or (dense) weight, as the record of a stream has them. */
	int (*read)(void *self, const struct hf_linear *l, const struct hf_codes *q,
		    enum role role, void *dst, struct err *e);
	void (*close)(void *self);
	/* A tensor of no linear: is it one of the format's?  May be NULL. */
	bool (*take)(void *self, const struct model *m, const struct hf_place *p);
	/* The i-th of what a layer does at run time: 1, 0: there are no more, or -1.  May be
	 * NULL. */
	int (*run)(void *self, const struct model *m, long layer, size_t i, struct hf_run *r,
		   struct err *e);
};

/* NULL: none of that name. */
const struct hf_quant *hf_quant_find(const char *method);
/* "compressed-tensors, gptq": for messages. */
void hf_quant_names(char *buf, size_t cap);

/* Rows of formats. */
extern const struct hf_quant hf_quant_ct, hf_quant_gptq, hf_quant_awq;

/* ---- for formats ---- */

/* The part is there, of that type and shape (rank 1 or 2); ERR_DATA naming it. */
int hf_part_check(const struct hf_linear *l, enum hf_part part, enum dtype dtype, int rank,
		  int64_t d0, int64_t d1, struct err *e) MUST_USE;
int hf_part_read(const struct hf_place *p, void *dst, struct err *e) MUST_USE;
/* n bytes of it, from byte `from` on. */
int hf_part_piece(const struct hf_place *p, uint64_t from, size_t n, void *dst,
		  struct err *e) MUST_USE;

#endif
