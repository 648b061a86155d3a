/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hf.h - a Hugging Face model directory: config.json, safetensors shards, tokenizer files
 */
#ifndef QP_HF_H
#define QP_HF_H

#include "lib/data/stream.h"
#include "lib/model/family.h"

struct hf;
struct hf_codes;
struct hf_run;

struct hf_tensor {
	const char *name;
	enum dtype dtype;
	int rank;
	int64_t shape[8];
	uint64_t nbytes;
};

/* config.json as transformers 4 (rope_theta, rope_scaling, torch_dtype) and as 5 (rope_parameters,
 * dtype) write it.  ERR_DATA naming key and value for what this build does not support. */
int hf_config_parse(struct model_config *c, const char *json, size_t n, struct err *e) MUST_USE;

/*
 * Open config.json, then model.safetensors or else the shards of model.safetensors.index.json,
 * and compare every tensor with the family's table: a missing, unknown, wrongly shaped or oddly
 * typed one (weights are F32, F16 or BF16, or what the format of config.json's quantization_config
 * makes of them) is refused by name before any data is read.  A tied
 * model may hold the shared matrix under either name, or under both if all bytes agree: what
 * config.json ties must be tied.  A tensor of a shard must be in the index, with that shard.
 * ERR_NOINPUT if dir, or a file that must be there, is not; ERR_DATA for the rest.
 */
int hf_open(struct hf **h, const char *dir, struct err *e) MUST_USE;
void hf_close(struct hf *h);
const struct model *hf_model(const struct hf *h);
/* By the family's name for the slot (aliases resolved).  0, or -1: the model has none such. */
int hf_tensor(const struct hf *h, const char *name, struct hf_tensor *t);
/* The bytes, dst[nbytes]; a value that is not finite is ERR_DATA with its row and column. */
int hf_read(const struct hf *h, const char *name, void *dst, struct err *e) MUST_USE;
/* n bytes of it from its byte `from` on, finite or not; 1: it is in codes. */
int hf_read_piece(const struct hf *h, const char *name, uint64_t from, void *dst, size_t n,
		  struct err *e) MUST_USE;
/* How a linear that is in codes is (hf_quant.h), or NULL: it has a weight.  hf_tensor tells the
 * type of its scales then, and hf_read is not for it unless it is dense. */
const struct hf_codes *hf_codes(const struct hf *h, const char *name);
/* The payload of its record codes, scale or zero. */
int hf_codes_read(const struct hf *h, const char *name, enum role role, void *dst,
		  struct err *e) MUST_USE;
/* The i-th of what a layer does at run time beside its linears: 1, 0: there are no more, or -1. */
int hf_run(const struct hf *h, long layer, size_t i, struct hf_run *r, struct err *e) MUST_USE;
/* Ask the kernel to read a block's tensors ahead. */
void hf_readahead(const struct hf *h, long layer);

/* The i-th file that travels with the model (config.json, generation_config.json, tokenizer.json,
 * tokenizer_config.json, special_tokens_map.json, ...) in fixed order: its name, or NULL. */
const char *hf_file(const struct hf *h, int i);
/* Its bytes, malloc'ed; more than 256 MiB is ERR_DATA. */
int hf_file_read(const struct hf *h, int i, char **text, size_t *n, struct err *e) MUST_USE;

#endif
