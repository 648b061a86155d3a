/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lint_impl.h - what rules look at
 */
#ifndef QP_LINT_IMPL_H
#define QP_LINT_IMPL_H

#include <stdint.h>

#include "formats/gguf.h"
#include "formats/json.h"
#include "formats/lint.h"

enum lint_part { LINT_QWEIGHT, LINT_QZEROS, LINT_SCALES, LINT_G_IDX, LINT_PACKED, LINT_SCALE,
		 LINT_ZERO, LINT_SHAPE, LINT_CT_G_IDX, LINT_INPUT_SCALE, LINT_INPUT_ZERO,
		 LINT_WEIGHT, LINT_PARTS };

struct lint_tensor {
	char *name;
	const struct json *info; /* dtype, shape */
	const char *file;
};

/* A linear: "model.layers.0.mlp.up_proj" and the parts of it that are there. */
struct lint_module {
	char name[256];
	const struct json *part[LINT_PARTS];
};

struct lint {
	const struct lint_options *o;
	const struct lint_rule *rule; /* at work */
	unsigned only;                /* of its loaders those that a line is about; 0: all */
	struct buf *out;
	long n;
	const char *dir;
	struct json_doc *config_doc, *index_doc;
	const struct json *config, *index;  /* NULL: not there */
	const struct json *quant;           /* quantization_config, or NULL */
	const char *method;                 /* its quant_method, or "" */
	struct json_doc **heads;            /* of the shards */
	char **files;
	size_t n_heads;
	struct lint_tensor *t;
	size_t n_t;
	struct lint_module *m;
	size_t n_m;
	bool is_gguf;                       /* then there is none of the above */
	struct gguf gguf;
	bool gguf_bad;                      /* it cannot be opened: gguf_err */
	struct err gguf_err;
	struct err *e;
};

struct lint_rule {
	const char *name;
	unsigned loaders;
	const char *date, *source, *what;
	void (*check)(struct lint *l);
	bool gguf; /* of files of that kind, not of directories */
};

extern const struct lint_rule lint_rules[]; /* name NULL ends */

void lint_say(struct lint *l, const char *where, const char *fmt, ...) QP_PRINTF(3, 4);
const struct lint_module *lint_module(const struct lint *l, const char *name);
/* Its entry in the header, or NULL. */
const struct json *lint_tensor(const struct lint *l, const char *name);
bool lint_quantized(const struct lint_module *m);
/* Dimension i of a part; 0: it is not there. */
int64_t lint_dim(const struct json *part, size_t i);
const char *lint_dtype(const struct json *part); /* "": not there */
/* Rows and columns, group and bits of a quantized linear, 0: cannot be told. */
void lint_sizes(const struct lint *l, const struct lint_module *m, int64_t *rows, int64_t *cols,
		int64_t *group, int64_t *bits);

/* Of the model (lint_model.c). */
void lint_architecture(struct lint *l);
void lint_names(struct lint *l);
/* Of GPTQ and AWQ (lint_gptq.c). */
void lint_shapes(struct lint *l);
void lint_gptq_zero(struct lint *l);
void lint_act_order(struct lint *l);
void lint_gptq_f16(struct lint *l);
void lint_damp(struct lint *l);
/* Of compressed-tensors (lint_ct.c). */
void lint_ct_keys(struct lint *l);
void lint_ct_scheme(struct lint *l);
void lint_ct_cache(struct lint *l);
void lint_ct_parts(struct lint *l);
void lint_ct_cover(struct lint *l);
/* Do two modules have the same scheme, as far as config_groups tell? */
bool lint_ct_same(const struct lint *l, const char *a, const char *b);
/* Blocks of float8 that a linear's share of so many ranks, of its columns or rows, cuts. */
void lint_ct_blocks(struct lint *l, const struct lint_module *m, bool by_cols, long tp);
void lint_ct_places(struct lint *l);
/* Of GGUF files (lint_gguf.c). */
void lint_gguf_layout(struct lint *l);
void lint_gguf_version(struct lint *l);
void lint_gguf_vocab(struct lint *l);
void lint_gguf_f32(struct lint *l);

#endif
