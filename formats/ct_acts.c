/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ct_acts.c - quantized activations: compressed-tensors' words and ours (ct_acts.h)
 */
#include "formats/ct_acts.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "formats/json.h"
#include "lib/base/buf.h"

#define WHERE "config.json: quantization_config: input_activations"

/* ---- read -------------------------------------------------------------------------- */

int ct_acts_take(struct hf_act *a, const struct json *v, struct err *e)
{
	const char *type = json_str(json_get(v, "type"), NULL);
	const char *by = json_str(json_get(v, "strategy"), NULL);
	const bool dynamic = json_bool(json_get(v, "dynamic"), false);

	memset(a, 0, sizeof(*a));
	if (json_type_of(v) != JSON_OBJECT)
		return 0;
	if (!type || (strcmp(type, "int") && strcmp(type, "float")) ||
	    json_int(json_get(v, "num_bits"), 0) != 8)
		return err_set(e, ERR_DATA, WHERE, "only 8 bits, int or float, are read");
	a->kind = strcmp(type, "float") == 0 ? HF_ACT_E4M3 : HF_ACT_INT;
	a->bits = 8;
	a->asym = !json_bool(json_get(v, "symmetric"), true);
	a->fixed = !dynamic;
	if (!by || (dynamic ? strcmp(by, "token") && strcmp(by, "group") : strcmp(by, "tensor")))
		return err_set(e, ERR_DATA, WHERE, "strategy '%.32s' is not read for %s ranges (%s "
			       "is)", by ? by : "?", dynamic ? "dynamic" : "static",
			       dynamic ? "token or group" : "tensor");
	if (a->asym && (a->kind == HF_ACT_E4M3 || *by == 'g'))
		return err_set(e, ERR_DATA, WHERE, "asymmetric %s are not read",
			       *by == 'g' ? "groups" : "floats");
	if (*by == 'g')
		a->group = json_int(json_get(v, "group_size"), 0);
	return *by == 'g' && a->group < 1 ?
	       err_set(e, ERR_DATA, WHERE, "group_size is missing") : 0;
}

static bool is_one(const struct st_tensor *t)
{
	return t->rank == 0 || (t->rank == 1 && t->shape[0] == 1);
}

int ct_acts_read(struct hf_act *a, const struct hf_linear *l, struct err *e)
{
	const struct hf_place *scale = &l->part[HF_INPUT_SCALE], *zero = &l->part[HF_INPUT_ZERO];
	uint32_t bits;
	int8_t z;

	if (!a->fixed || a->kind == HF_ACT_NONE)
		return 0;
	if (!scale->t)
		return err_set(e, ERR_DATA, l->name, "has no input_scale, though config.json says "
			       "that its input's range is known");
	if (!is_one(scale->t) || (scale->t->dtype != DT_F32 && scale->t->dtype != DT_F16 &&
				  scale->t->dtype != DT_BF16))
		return err_set(e, ERR_DATA, scale->t->name, "expected one F32, F16 or BF16");
	if (hf_part_read(scale, &bits, e))
		return -1;
	if (dtype_to_f32(&a->scale, &bits, scale->t->dtype, 1) ||
	    !(isfinite(a->scale) && a->scale > 0))
		return err_set(e, ERR_DATA, scale->t->name, "%g is no scale", (double)a->scale);
	if (!a->asym)
		return 0;
	if (!zero->t || zero->t->dtype != DT_I8 || !is_one(zero->t))
		return err_set(e, ERR_DATA, zero->t ? zero->t->name : l->name,
			       "expected one I8 as input_zero_point");
	if (hf_part_read(zero, &z, e))
		return -1;
	a->zero = (float)(z + 128);
	return 0;
}

/* ---- written ------------------------------------------------------------------------- */

static int refuse(struct err *e, const char *place, const char *what, const char *fits)
{
	return err_set(e, ERR_DATA, place, "%s: this format has none such; %s", what, fits);
}

/* A range known before: its grid, as codes of a byte. */
static int take_fixed(struct hf_act *a, const struct run_op *op, const char *place, struct err *e)
{
	const struct quant_grid *g = op->quant.fixed;

	a->scale = g->scale;
	if (op->quant.format == QUANT_E4M3)
		return 0;
	a->zero = a->asym ? g->zero : 0;
	if (a->asym ? g->zero < 0 || g->zero > 255 : g->lo != -128)
		return refuse(e, place, "a grid whose zero is none of its codes", "--rule=ct");
	return 0;
}

/* Ranges are found by the loader, by its own rule. */
static int check_dynamic(const struct run_op *op, const char *place, struct err *e)
{
	const struct quant *q = &op->quant;
	char what[64];

	if (q->per == QUANT_TENSOR)
		return refuse(e, place, "a range of all tokens, found at run time",
			      "--per=token or --static before it");
	if (q->clip < 1)
		return refuse(e, place, "ranges that are narrowed at run time",
			      "--clip=1 before it");
	if (q->format == QUANT_E4M3 || q->rule == QUANT_CT || (q->rule == QUANT_GPTQ && !q->sym))
		return 0;
	snprintf(what, sizeof(what), "ranges by rule %s", quant_rule_name(q->rule));
	return refuse(e, place, what, "quant-acts --rule=ct before it");
}

int ct_acts_from(struct hf_act *a, const struct run_op *op, const char *place, struct err *e)
{
	const struct quant *q = &op->quant;
	char what[64];

	*a = (struct hf_act){ .kind = q->format == QUANT_E4M3 ? HF_ACT_E4M3 : HF_ACT_INT,
			      .bits = 8, .asym = !q->sym, .fixed = q->fixed != NULL };
	if (q->per == QUANT_GROUP)
		a->group = (int64_t)q->group;
	if (q->bits != 8) {
		snprintf(what, sizeof(what), "activations of %d bits", q->bits);
		return refuse(e, place, what, "quant-acts -b 8 before it");
	}
	if (q->clamp.group > 0)
		return refuse(e, place, "clamped codes", "quant-acts without --clamp before it");
	if (a->group && a->fixed)
		return refuse(e, place, "static ranges of groups of channels",
			      "--per=tensor before it");
	if (a->group && a->asym)
		return refuse(e, place, "asymmetric ranges of groups of channels",
			      "--sym or --per=token before it");
	return a->fixed ? take_fixed(a, op, place, e) : check_dynamic(op, place, e);
}

const char *ct_acts_strategy(const struct hf_act *a)
{
	return a->fixed ? "tensor" : a->group ? "group" : "token";
}

void ct_acts_print(struct buf *out, const struct hf_act *a, const char *strategy)
{
	if (a->kind == HF_ACT_NONE) {
		buf_puts(out, "null");
		return;
	}
	buf_printf(out, "{\"num_bits\":%d,\"type\":\"%s\",\"symmetric\":%s,\"strategy\":\"%s\"",
		   a->bits, a->kind == HF_ACT_E4M3 ? "float" : "int", a->asym ? "false" : "true",
		   strategy);
	if (a->group)
		buf_printf(out, ",\"group_size\":%lld", (long long)a->group);
	else
		buf_puts(out, ",\"group_size\":null");
	buf_printf(out, ",\"block_structure\":null,\"dynamic\":%s,\"actorder\":null,"
		   "\"observer\":%s,\"observer_kwargs\":{}}", a->fixed ? "false" : "true",
		   a->fixed ? "\"minmax\"" : "null");
}
