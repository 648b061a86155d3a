/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ct_read.c - linears of compressed-tensors: pack-, int-, float- and naive-quantized
 *
 * Packed codes are unsigned, u = q + 2^(bits-1), lowest bits first, in words of 32 bits along the
 * row; zero points the same down the columns.  Widths that do not divide 32 are one stream of bits
 * (compressed-tensors since May 2026) or leave bits of each word unused (before): the number of
 * words tells which.  A group of config.json describes a linear if its tensors are what that group
 * would make of it; "targets" are looked at where more than one would do, "ignore" is not.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/ct_acts.h"
#include "formats/ct_run.h"
#include "formats/json.h"

enum strategy { BY_TENSOR, BY_CHANNEL, BY_GROUP, BY_BLOCK };

struct group {
	bool packed, is_float, sym;
	int bits;
	enum strategy strategy;
	int64_t group, tall;
	struct hf_act act;
	char **target;          /* modules, "re:" and a pattern, or a class; NULL behind the last */
};

struct ct {
	struct ct_run *run;
	size_t n;
	struct group group[];
};

#define WHERE "config.json: quantization_config"

static int64_t words_dense(int64_t n, int bits)
{
	return (n * bits + 31) / 32;
}

static int64_t words_padded(int64_t n, int bits)
{
	return (n + 32 / bits - 1) / (32 / bits);
}

/* ---- configuration ----------------------------------------------------------------- */

static int refuse(struct err *e, const char *key, const struct json *v, const char *only)
{
	const char *s = json_str(v, NULL);

	return err_set(e, ERR_DATA, WHERE, "%s '%.64s' is not read (%s is)", key, s ? s : "?",
		       only);
}

static int take_format(struct group *g, const struct json *group, const struct json *config,
		       struct err *e)
{
	const struct json *v = json_get(group, "format");
	const char *s;

	if (!json_str(v, NULL))
		v = json_get(config, "format");
	s = json_str(v, NULL);
	g->packed = s && strcmp(s, "pack-quantized") == 0;
	if (g->packed || (s && (!strcmp(s, "int-quantized") || !strcmp(s, "float-quantized") ||
				!strcmp(s, "naive-quantized"))))
		return 0;
	return refuse(e, "format", v, "pack-, int-, float- or naive-quantized");
}

static int take_strategy(struct group *g, const struct json *w, struct err *e)
{
	static const char *const names[] = { "tensor", "channel", "group", "block", NULL };
	const struct json *block = json_get(w, "block_structure");
	const char *s = json_str(json_get(w, "strategy"), NULL);
	int i = 0;

	while (names[i] && (!s || strcmp(s, names[i])))
		i++;
	if (!names[i])
		return refuse(e, "strategy", json_get(w, "strategy"),
			      "tensor, channel, group or block");
	g->strategy = (enum strategy)i;
	g->group = json_int(json_get(w, "group_size"), 0);
	g->tall = 1;
	if (i == BY_BLOCK) {
		g->tall = json_int(json_at(block, 0), 0);
		g->group = json_int(json_at(block, 1), 0);
	}
	if (i >= BY_GROUP && (g->group < 1 || g->tall < 1))
		return err_set(e, ERR_DATA, WHERE, "strategy '%s' without its sizes", names[i]);
	return 0;
}

static int take_targets(struct group *g, const struct json *v, struct err *e)
{
	const size_t n = json_len(v);

	g->target = calloc(n + 1, sizeof(*g->target));
	for (size_t i = 0; g->target && i < n; i++) {
		const char *s = json_str(json_at(v, i), NULL);

		g->target[i] = strdup(s ? s : "");
		if (!g->target[i])
			return err_nomem(e, WHERE, 64);
	}
	return g->target ? 0 : err_nomem(e, WHERE, n * sizeof(*g->target));
}

static int take_group(struct group *g, const struct json *group, const struct json *config,
		      struct err *e)
{
	const struct json *w = json_get(group, "weights");
	const char *type = json_str(json_get(w, "type"), NULL);
	int64_t bits = json_int(json_get(w, "num_bits"), 0);

	if (json_type_of(w) != JSON_OBJECT)
		return err_set(e, ERR_DATA, WHERE, "a group of config_groups has no weights");
	if (take_format(g, group, config, e) || take_strategy(g, w, e))
		return -1;
	g->is_float = type && strcmp(type, "float") == 0;
	g->bits = (int)bits;
	g->sym = json_bool(json_get(w, "symmetric"), true);
	if (g->is_float ? bits != 8 || g->packed : bits < 1 || bits > 8)
		return err_set(e, ERR_DATA, WHERE, "weights of %lld bits, type '%.16s', are not "
			       "read", (long long)bits, type ? type : "int");
	if (json_type_of(json_get(group, "output_activations")) == JSON_OBJECT)
		return err_set(e, ERR_DATA, WHERE, "output_activations are not read");
	return ct_acts_take(&g->act, json_get(group, "input_activations"), e) ||
	       take_targets(g, json_get(group, "targets"), e) ? -1 : 0;
}

/* Of what else changes the arithmetic: an object with something in it. */
static int refuse_more(const struct json *config, struct err *e)
{
	const char *sparse = json_str(json_get(json_get(config, "sparsity_config"), "format"),
				      NULL);
	const char *status = json_str(json_get(config, "quantization_status"), NULL);

	if (sparse && strcmp(sparse, "dense"))
		return err_set(e, ERR_DATA, WHERE, "sparsity_config '%.32s' is not read", sparse);
	if (status && strcmp(status, "compressed"))
		return err_set(e, ERR_DATA, WHERE, "quantization_status is '%.32s', not "
			       "'compressed'", status);
	return 0;
}

static void ct_close(void *self)
{
	struct ct *c = self;

	for (size_t i = 0; i < c->n; i++) {
		for (char **t = c->group[i].target; t && *t; t++)
			free(*t);
		free(c->group[i].target);
	}
	ct_run_free(c->run);
	free(c);
}

static int ct_open(void **self, const struct json *config, struct err *e)
{
	const struct json *groups = json_get(config, "config_groups"), *v;
	struct ct *c;
	const char *key;
	void *it = NULL;

	if (refuse_more(config, e))
		return -1;
	if (json_type_of(groups) != JSON_OBJECT || json_len(groups) == 0)
		return err_set(e, ERR_DATA, WHERE, "config_groups: expected an object with groups");
	c = calloc(1, sizeof(*c) + json_len(groups) * sizeof(c->group[0]));
	if (!c)
		return err_nomem(e, WHERE, sizeof(*c));
	while ((it = json_iter(groups, it, &key, &v)))
		if (take_group(&c->group[c->n++], v, config, e)) {
			ct_close(c);
			return -1;
		}
	if (ct_run_open(&c->run, config, e)) {
		ct_close(c);
		return -1;
	}
	*self = c;
	return 0;
}

static bool ct_take(void *self, const struct model *m, const struct hf_place *p)
{
	return ct_run_take(((struct ct *)self)->run, m, p);
}

static int ct_run(void *self, const struct model *m, long layer, size_t i, struct hf_run *r,
		  struct err *e)
{
	return ct_run_nth(((struct ct *)self)->run, m, layer, i, r, e);
}

/* ---- a linear ------------------------------------------------------------------------ */

/* Scale's shape, as the group would have it. */
static void scale_shape(const struct group *g, const struct hf_linear *l, int64_t shape[2])
{
	shape[0] = g->strategy == BY_TENSOR ? 1 : (l->rows + g->tall - 1) / g->tall;
	shape[1] = g->strategy <= BY_CHANNEL ? 1 : (l->cols + g->group - 1) / g->group;
}

static bool has_shape(const struct st_tensor *t, const int64_t shape[2])
{
	if (t->rank == 2)
		return t->shape[0] == shape[0] && t->shape[1] == shape[1];
	/* one scale for all may have one dimension, or none */
	return shape[0] == 1 && shape[1] == 1 &&
	       (t->rank == 0 || (t->rank == 1 && t->shape[0] == 1));
}

static bool fits(const struct group *g, const struct hf_linear *l)
{
	const struct st_tensor *packed = l->part[HF_CODES].t, *plain = l->part[HF_WEIGHT].t;
	const struct st_tensor *scale = l->part[HF_SCALE].t;
	int64_t shape[2];

	scale_shape(g, l, shape);
	if (g->packed ? !packed : !plain)
		return false;
	if (g->packed && (packed->dtype != DT_I32 || packed->rank != 2 ||
			  (packed->shape[1] != words_dense(l->cols, g->bits) &&
			   packed->shape[1] != words_padded(l->cols, g->bits))))
		return false;
	if (!g->packed && plain->dtype != (g->is_float ? DT_F8_E4M3 : DT_I8))
		return false;
	return scale && has_shape(scale, shape) && (g->sym || l->part[HF_ZERO].t) &&
	       (g->strategy != BY_GROUP || l->cols % g->group == 0);
}

static int targets(const struct group *g, const struct hf_linear *l)
{
	char module[256];
	int best = 0;

	snprintf(module, sizeof(module), "%.*s", (int)(strlen(l->name) - strlen(".weight")),
		 l->name);
	for (char **t = g->target; *t; t++) {
		const int how = ct_target(*t, module);

		best = how > best ? how : best;
	}
	return best;
}

static const struct group *find_group(const struct ct *c, const struct hf_linear *l,
				      struct err *e)
{
	const struct group *g = NULL;
	int best = -1;

	for (size_t i = 0; i < c->n; i++) {
		const int how = fits(&c->group[i], l) ? targets(&c->group[i], l) : -1;

		if (how > best) {
			best = how;
			g = &c->group[i];
		}
	}
	if (g)
		return g;
	err_set(e, ERR_DATA, l->name, "its %s is not what any group of config.json's "
		"quantization_config would make of %lld rows and %lld columns",
		!l->part[HF_SCALE].t ? "scale is missing, or" :
		l->part[HF_CODES].t ? "weight_packed or weight_scale" : "weight or weight_scale",
		(long long)l->rows, (long long)l->cols);
	return NULL;
}

static int check_zero(const struct group *g, const struct hf_linear *l, const int64_t shape[2],
		      struct err *e)
{
	const struct st_tensor *z = l->part[HF_ZERO].t;

	if (g->sym)
		return 0; /* if there is one it says nothing */
	if (g->packed && g->strategy != BY_TENSOR)
		return hf_part_check(l, HF_ZERO, DT_I32, 2,
				     z->shape[0] == words_padded(l->rows, g->bits) ? z->shape[0] :
				     words_dense(l->rows, g->bits), shape[1], e);
	if (z->dtype != DT_I8 || !has_shape(z, shape))
		return err_set(e, ERR_DATA, z->name, "expected I8 of the shape of the scale");
	return 0;
}

static int check_shape(const struct hf_linear *l, struct err *e)
{
	int64_t shape[2];

	if (hf_part_check(l, HF_CODES, DT_I32, 2, l->rows, l->part[HF_CODES].t->shape[1], e) ||
	    hf_part_check(l, HF_SHAPE, DT_I64, 1, 2, 0, e) ||
	    hf_part_read(&l->part[HF_SHAPE], shape, e))
		return -1;
	if (shape[0] != l->rows || shape[1] != l->cols)
		return err_set(e, ERR_DATA, l->part[HF_SHAPE].t->name, "says [%lld, %lld], the "
			       "model has [%lld, %lld]", (long long)shape[0], (long long)shape[1],
			       (long long)l->rows, (long long)l->cols);
	return 0;
}

/* Are the groups where they would be without the indices? */
static int check_g_idx(const struct group *g, const struct hf_linear *l, bool *scattered,
		       struct err *e)
{
	const size_t cols = (size_t)l->cols;
	int32_t *index;
	int ret;

	*scattered = false;
	if (!l->part[HF_G_IDX].t || g->strategy != BY_GROUP)
		return 0;
	if (hf_part_check(l, HF_G_IDX, DT_I32, 1, l->cols, 0, e))
		return -1;
	index = malloc(cols * sizeof(*index));
	if (!index)
		return err_nomem(e, l->name, cols * sizeof(*index));
	ret = hf_part_read(&l->part[HF_G_IDX], index, e);
	for (size_t k = 0; !ret && k < cols; k++)
		if (index[k] != (int64_t)k / g->group)
			*scattered = true;
	free(index);
	if (!ret && *scattered)
		ret = err_set(e, ERR_DATA, l->part[HF_G_IDX].t->name, "groups whose columns are "
			      "not neighbours are not read");
	return ret;
}

static bool is_scale_type(enum dtype t)
{
	return t == DT_F32 || t == DT_F16 || t == DT_BF16;
}

static int ct_look(const void *self, const struct hf_linear *l, struct hf_codes *q,
		   struct err *e)
{
	const struct group *g = find_group(self, l, e);
	bool scattered;

	if (!g)
		return -1;
	memset(q, 0, sizeof(*q));
	scale_shape(g, l, q->scale_shape);
	if ((g->packed ? check_shape(l, e) :
	     hf_part_check(l, HF_WEIGHT, g->is_float ? DT_F8_E4M3 : DT_I8, 2, l->rows, l->cols,
			   e)) ||
	    check_zero(g, l, q->scale_shape, e) || check_g_idx(g, l, &scattered, e))
		return -1;
	q->bits = g->bits;
	q->sym = g->sym;
	q->act = g->act;
	if (ct_acts_read(&q->act, l, e))
		return -1;
	q->group = g->strategy <= BY_CHANNEL ? l->cols : g->group;
	q->tall = g->strategy == BY_BLOCK ? g->tall : 1;
	q->codes = g->is_float ? DT_F8_E4M3 : g->bits == 2 ? DT_U2 : g->bits == 3 ? DT_U3 :
		   g->bits == 4 ? DT_U4 : DT_U8;
	if (!g->packed && !g->is_float)
		q->codes = DT_U8;
	q->scale = l->part[HF_SCALE].t->dtype;
	if (!is_scale_type(q->scale))
		return err_set(e, ERR_DATA, l->part[HF_SCALE].t->name,
			       "dtype %s, expected F32, F16 or BF16",
			       l->part[HF_SCALE].t->dtype_name);
	return 0;
}

/* Code i of a run of n in words at distance step. */
static unsigned code_at(const uint32_t *w, size_t step, size_t i, int bits, bool padded)
{
	const size_t per = 32 / (size_t)bits, at = padded ? i % per * (size_t)bits :
			   i * (size_t)bits % 32;
	const size_t word = padded ? i / per : i * (size_t)bits / 32;
	uint64_t v = w[word * step];

	if (at + (size_t)bits > 32)
		v |= (uint64_t)w[(word + 1) * step] << 32;
	return (unsigned)(v >> at) & ((1u << bits) - 1);
}

/* Rows of words into rows of codes: a stream's packed bytes, or a code a byte. */
static void unpack(const struct hf_codes *q, const struct hf_linear *l, const uint32_t *w,
		   size_t words, bool padded, uint8_t *dst)
{
	const size_t cols = (size_t)l->cols, row = (cols * (size_t)q->bits + 7) / 8;
	const int bits = q->bits;

	for (size_t n = 0; n < (size_t)l->rows; n++, w += words) {
		if (!padded && q->codes != DT_U8) {
			memcpy(dst + n * row, w, row); /* the same stream of bits */
			continue;
		}
		for (size_t k = 0; q->codes == DT_U8 && k < cols; k++)
			dst[n * cols + k] = (uint8_t)code_at(w, 1, k, bits, padded);
		if (q->codes == DT_U8)
			continue;
		memset(dst + n * row, 0, row);
		for (size_t k = 0; k < cols; k++) {
			const unsigned v = code_at(w, 1, k, bits, padded) << (k * (size_t)bits % 8);

			dst[n * row + k * (size_t)bits / 8] |= (uint8_t)v;
			if (v >> 8)
				dst[n * row + k * (size_t)bits / 8 + 1] |= (uint8_t)(v >> 8);
		}
	}
}

static int read_packed(const struct hf_linear *l, const struct hf_codes *q, void *dst,
		       struct err *e)
{
	const struct hf_place *p = &l->part[HF_CODES];
	const size_t words = (size_t)p->t->shape[1];
	const bool padded = p->t->shape[1] != words_dense(l->cols, q->bits);
	/* Where the words are the stream's bytes, they are read to where they go. */
	const bool same = !padded && (q->codes != DT_U8 || q->bits == 8) &&
			  (size_t)l->cols * (size_t)q->bits % 32 == 0;
	uint32_t *w;
	int ret;

	if (same)
		return hf_part_read(p, dst, e);
	w = malloc((size_t)p->t->nbytes + 4);
	if (!w)
		return err_nomem(e, p->t->name, p->t->nbytes);
	ret = hf_part_read(p, w, e);
	if (!ret)
		unpack(q, l, w, words, padded, dst);
	free(w);
	return ret;
}

static int read_zero(const struct hf_linear *l, const struct hf_codes *q, uint8_t *dst,
		     struct err *e)
{
	const struct hf_place *p = &l->part[HF_ZERO];
	const size_t rows = (size_t)q->scale_shape[0], groups = (size_t)q->scale_shape[1];
	uint32_t *w;
	int ret;

	if (p->t->dtype == DT_I8) {
		if (hf_part_read(p, dst, e))
			return -1;
		for (size_t i = 0; i < rows * groups; i++)
			dst[i] = (uint8_t)(dst[i] + (1 << (q->bits - 1)));
		return 0;
	}
	w = malloc((size_t)p->t->nbytes + 4);
	if (!w)
		return err_nomem(e, p->t->name, p->t->nbytes);
	ret = hf_part_read(p, w, e);
	for (size_t n = 0; !ret && n < rows; n++)
		for (size_t g = 0; g < groups; g++)
			dst[n * groups + g] = (uint8_t)code_at(w + g, groups, n, q->bits,
				p->t->shape[0] != words_dense(l->rows, q->bits));
	free(w);
	return ret;
}

static int ct_read(void *self, const struct hf_linear *l, const struct hf_codes *q,
		   enum role role, void *dst, struct err *e)
{
	uint8_t *u = dst;

	(void)self;
	if (role == ROLE_SCALE)
		return hf_part_read(&l->part[HF_SCALE], dst, e);
	if (role == ROLE_ZERO)
		return read_zero(l, q, dst, e);
	if (l->part[HF_CODES].t)
		return read_packed(l, q, dst, e);
	if (hf_part_read(&l->part[HF_WEIGHT], dst, e))
		return -1;
	if (q->codes == DT_U8)
		for (size_t i = 0; i < (size_t)(l->rows * l->cols); i++)
			u[i] = (uint8_t)(u[i] + (1 << (q->bits - 1)));
	return 0;
}

static const struct hf_suffix suffixes[] = {
	{ ".weight_packed", HF_CODES }, { ".weight_scale", HF_SCALE },
	{ ".weight_zero_point", HF_ZERO }, { ".weight_shape", HF_SHAPE },
	{ ".weight_g_idx", HF_G_IDX }, { ".input_scale", HF_INPUT_SCALE },
	{ ".input_zero_point", HF_INPUT_ZERO }, { NULL, HF_PARTS },
};

const struct hf_quant hf_quant_ct = {
	"compressed-tensors", suffixes, ct_open, ct_look, ct_read, ct_close, ct_take,
	ct_run,
};
