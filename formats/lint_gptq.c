/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lint_gptq.c - rules about GPTQ and AWQ: shapes, zeros, order of columns
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/lint_impl.h"
#include "formats/safetensors.h"
#include "lib/data/bits.h"

static bool is(const struct lint *l, const char *method)
{
	return strcmp(l->method, method) == 0;
}

static void want(struct lint *l, const struct lint_module *m, enum lint_part p, const char *what,
		 int64_t d0, int64_t d1)
{
	const struct json *t = m->part[p];

	if (t && (lint_dim(t, 0) != d0 || lint_dim(t, 1) != d1))
		lint_say(l, m->name, "%s is [%lld, %lld], not [%lld, %lld]", what,
			 (long long)lint_dim(t, 0), (long long)lint_dim(t, 1), (long long)d0,
			 (long long)d1);
}

/* The words that qweight has tell the linear; groups and zeros follow. */
void lint_shapes(struct lint *l)
{
	const bool awq = is(l, "awq");
	const int64_t group = json_int(json_get(l->quant, "group_size"), 0);

	for (size_t i = 0; (awq || is(l, "gptq")) && i < l->n_m; i++) {
		const struct lint_module *m = &l->m[i];
		int64_t rows, cols, own, bits, groups;

		if (!m->part[LINT_QWEIGHT])
			continue;
		lint_sizes(l, m, &rows, &cols, &own, &bits);
		/* Other bits are said by "dynamic", which goes by expressions. */
		if (group == 0 || bits < 1 || json_get(l->quant, "dynamic"))
			continue;
		groups = group < 0 ? 1 : (cols + group - 1) / group;
		if (group > 0 && cols % group && awq)
			lint_say(l, m->name, "%lld columns are no whole groups of %lld",
				 (long long)cols, (long long)group);
		want(l, m, LINT_SCALES, "scales", groups, rows);
		want(l, m, LINT_QZEROS, "qzeros", groups, rows * bits / 32);
		want(l, m, LINT_G_IDX, "g_idx", cols, 0);
	}
}

/* The qzeros of a module, malloc'ed; *n words.  NULL: they cannot be had, which others tell. */
static uint32_t *zeros_of(const struct lint *l, const char *module, size_t *n)
{
	char name[300], path[4096];
	const struct st_tensor *t = NULL;
	struct safetensors s;
	uint32_t *w = NULL;
	struct err ignored;

	snprintf(name, sizeof(name), "%s.qzeros", module);
	for (size_t i = 0; i < l->n_t && !t; i++) {
		if (strcmp(l->t[i].name, name))
			continue;
		snprintf(path, sizeof(path), "%s/%s", l->dir, l->t[i].file);
		if (safetensors_open(&s, path, &ignored))
			return NULL;
		t = safetensors_find(&s, name);
		if (t && t->nbytes % 4 == 0)
			w = malloc((size_t)t->nbytes + 4);
		if (w && safetensors_read(&s, t, w, &ignored)) {
			free(w);
			w = NULL;
		}
		*n = t ? (size_t)t->nbytes / 4 : 0;
		safetensors_close(&s);
		break;
	}
	return w;
}

/* v1 stores a zero less one: what should be 0 wraps, and is read as 2^bits by some. */
void lint_gptq_zero(struct lint *l)
{
	const char *format = json_str(json_get(l->quant, "checkpoint_format"), NULL);
	const int64_t bits = json_int(json_get(l->quant, "bits"), 0);

	if (!is(l, "gptq") || (bits != 2 && bits != 3 && bits != 4 && bits != 8) ||
	    json_bool(json_get(l->quant, "sym"), true) ||
	    (format && strcmp(format, "gptq_v2") == 0))
		return;
	for (size_t i = 0; i < l->n_m; i++) {
		const int64_t row = lint_dim(l->m[i].part[LINT_QZEROS], 1) * 32 / bits;
		size_t n = 0, bad = 0;
		uint32_t *w = l->m[i].part[LINT_QZEROS] ? zeros_of(l, l->m[i].name, &n) : NULL;
		uint8_t *code = w && row ? malloc((size_t)row) : NULL;
		const size_t words = (size_t)(row * bits / 32);

		for (size_t g = 0; code && g + words <= n; g += words) {
			bits_unpack_row(code, (const uint8_t *)(w + g), (size_t)row, (int)bits);
			for (int64_t k = 0; k < row; k++)
				bad += code[k] == (1u << bits) - 1;
		}
		if (bad)
			lint_say(l, l->m[i].name, "%zu zeros are stored as %u, which some loaders "
				 "take for 0 and some for %u: to-awq or to-ct can say them", bad,
				 (1u << bits) - 1, 1u << bits);
		free(code);
		free(w);
	}
}

/* With the order of columns kept at run time the kernels want whole tiles. */
void lint_act_order(struct lint *l)
{
	for (size_t i = 0; is(l, "gptq") && i < l->n_m; i++) {
		int64_t rows, cols, group, bits;

		if (!json_bool(json_get(l->quant, "desc_act"), false) ||
		    !l->m[i].part[LINT_QWEIGHT])
			continue;
		lint_sizes(l, &l->m[i], &rows, &cols, &group, &bits);
		if (rows % 64 || cols % 128)
			lint_say(l, l->m[i].name, "%lld rows of %lld columns with desc_act: rows "
				 "are to be a multiple of 64, columns of 128", (long long)rows,
				 (long long)cols);
	}
}

/* What is not symmetric of 4 or 8 bits goes to kernels of F16. */
void lint_gptq_f16(struct lint *l)
{
	const int64_t bits = json_int(json_get(l->quant, "bits"), 0);
	const char *t = json_str(json_get(l->config, "torch_dtype"), NULL);

	if (!t)
		t = json_str(json_get(l->config, "dtype"), NULL);
	if (is(l, "gptq") && t && strcmp(t, "float16") &&
	    (bits == 2 || bits == 3 || !json_bool(json_get(l->quant, "sym"), true)))
		lint_say(l, "config.json", "GPTQ of %lld bits, %s, in a model of %s: its kernels "
			 "are of float16 only", (long long)bits,
			 json_bool(json_get(l->quant, "sym"), true) ? "symmetric" : "asymmetric",
			 t);
}

void lint_damp(struct lint *l)
{
	const struct json *damp = json_get(l->quant, "damp_percent");
	const double x = json_num(damp, 0.01);

	if (is(l, "gptq") && !(x > 0 && x < 1))
		lint_say(l, "config.json", "damp_percent %g is not between 0 and 1", x);
}
