/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ct_write.h - a stream as a compressed-tensors directory
 */
#ifndef QP_CT_WRITE_H
#define QP_CT_WRITE_H

#include "formats/export.h"
#include "formats/hf_quant.h"

struct ct_options {
	enum dtype dtype;     /* of what is not in codes; DT_NONE: as it is */
	bool dynamic_token;   /* activations: 8 bits, a scale for each token found at run time */
	uint64_t max_shard;
	void (*progress)(uint64_t blocks);
};

/*
 * The stream that export_open has opened into dir, which the caller has opened and commits.  When
 * it returns, all files have been written and read back.  ERR_DATA naming the first thing that the
 * format, or what was asked for, cannot hold, and the option that would make it fit; a stream
 * without codes; and with what must be done at run time that the format has no words for.
 */
int ct_write(struct outdir *dir, struct stream_in *in, struct export *x,
	     const struct ct_options *o, struct err *e) MUST_USE;

/* ---- parts (ct_config.c) ---- */

enum ct_strategy { CT_TENSOR, CT_CHANNEL, CT_GROUP, CT_BLOCK };
enum ct_format { CT_PACKED, CT_INT, CT_FLOAT };

/* How a linear is quantized: a group of the configuration. */
struct ct_scheme {
	enum ct_format format;
	int bits;
	bool sym;
	enum ct_strategy strategy;
	long group, tall;
	struct hf_act act;    /* of what comes in; scale and zero are each linear's own */
};

struct buf;
struct ct_runs;
struct ct_schemes;

struct ct_schemes *ct_schemes_new(void);
void ct_schemes_free(struct ct_schemes *s);
/* A linear, by its weight's name. */
int ct_schemes_add(struct ct_schemes *s, const struct ct_scheme *scheme, const char *name,
		   struct err *e) MUST_USE;
/* quantization_config, as JSON: groups, as few as describe all, and as "ignore" every linear of the
 * model that none of them has; and what layers do beside their linears. */
int ct_schemes_print(struct ct_schemes *s, const struct model *m, const struct ct_runs *runs,
		     struct buf *out, struct err *e) MUST_USE;

#endif
