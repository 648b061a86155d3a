/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ct_acts.h - how compressed-tensors says that what comes into a linear is quantized
 *
 * input_activations of a group of config.json, and of a static range the tensors input_scale and
 * input_zero_point beside the weight.  Values are divided by the scale, the zero added, rounded
 * half to even; ranges found at run time are those of rule ct (lib/compute/quant.h).
 */
#ifndef QP_CT_ACTS_H
#define QP_CT_ACTS_H

#include "formats/hf_quant.h"
#include "lib/model/run.h"

struct buf;
struct json;

/* The group's input_activations; scale and zero are not set.  ERR_DATA for what is not read. */
int ct_acts_take(struct hf_act *a, const struct json *v, struct err *e) MUST_USE;
/* Scale and zero of a static range, by the linear's tensors. */
int ct_acts_read(struct hf_act *a, const struct hf_linear *l, struct err *e) MUST_USE;

/* What a run record says; ERR_DATA naming the place for what cannot be said in this format, with
 * the option that would make it fit. */
int ct_acts_from(struct hf_act *a, const struct run_op *op, const char *place,
		 struct err *e) MUST_USE;
/* A scheme of config.json by that strategy; "null" for none. */
void ct_acts_print(struct buf *out, const struct hf_act *a, const char *strategy);
/* The strategy of inputs of linears. */
const char *ct_acts_strategy(const struct hf_act *a);

#endif
