/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ct_config.c - quantization_config of a compressed-tensors checkpoint
 */
#include <stdlib.h>
#include <string.h>

#include "formats/ct_acts.h"
#include "formats/ct_run.h"
#include "formats/ct_write.h"
#include "lib/base/buf.h"

struct group {
	struct ct_scheme scheme;
	char **module;  /* without ".weight" */
	size_t n, cap;
};

struct ct_schemes {
	struct group *g;
	size_t n;
};

static const char *const formats[] = { "pack-quantized", "int-quantized", "float-quantized" };
static const char *const strategies[] = { "tensor", "channel", "group", "block" };

struct ct_schemes *ct_schemes_new(void)
{
	return calloc(1, sizeof(struct ct_schemes));
}

void ct_schemes_free(struct ct_schemes *s)
{
	for (size_t i = 0; s && i < s->n; i++) {
		for (size_t k = 0; k < s->g[i].n; k++)
			free(s->g[i].module[k]);
		free(s->g[i].module);
	}
	if (s)
		free(s->g);
	free(s);
}

static bool same(const struct ct_scheme *a, const struct ct_scheme *b)
{
	/* Rows as groups have other widths in other layers; only of groups the number counts. */
	return a->format == b->format && a->bits == b->bits && a->sym == b->sym &&
	       a->strategy == b->strategy && hf_act_same(&a->act, &b->act) &&
	       (a->strategy < CT_GROUP || (a->group == b->group && a->tall == b->tall));
}

static struct group *find(struct ct_schemes *s, const struct ct_scheme *scheme)
{
	struct group *g;

	for (size_t i = 0; i < s->n; i++)
		if (same(&s->g[i].scheme, scheme)) {
			if (s->g[i].scheme.group != scheme->group)
				s->g[i].scheme.group = 0; /* rows of several widths */
			return &s->g[i];
		}
	g = realloc(s->g, (s->n + 1) * sizeof(*g));
	if (!g)
		return NULL;
	s->g = g;
	g = &s->g[s->n++];
	*g = (struct group){ .scheme = *scheme };
	return g;
}

static int reserve(struct group *g, size_t n, struct err *e)
{
	const size_t cap = n > 2 * g->cap ? n + 64 : 2 * g->cap;
	char **p;

	if (n <= g->cap)
		return 0;
	p = realloc(g->module, cap * sizeof(*p));
	if (!p)
		return err_nomem(e, "config.json", cap * sizeof(*p));
	g->module = p;
	g->cap = cap;
	return 0;
}

int ct_schemes_add(struct ct_schemes *s, const struct ct_scheme *scheme, const char *name,
		   struct err *e)
{
	struct group *g = find(s, scheme);

	if (g && reserve(g, g->n + 1, e))
		return -1;
	if (g)
		g->module[g->n] = strndup(name, strlen(name) - strlen(".weight"));
	if (!g || !g->module[g->n])
		return err_nomem(e, name, sizeof(*g));
	g->n++;
	return 0;
}

/* Rows as wide as another scheme's groups of columns are one such group each. */
static bool covers(const struct ct_scheme *groups, const struct ct_scheme *rows)
{
	struct ct_scheme as = *rows;

	as.strategy = CT_GROUP;
	return rows->strategy == CT_CHANNEL && same(groups, &as);
}

/* As few schemes as can be: the converter of llama.cpp takes one only. */
static int merge(struct ct_schemes *s, struct err *e)
{
	for (size_t i = 0; i < s->n; i++)
		for (size_t k = 0; k < s->n; k++) {
			struct group *to = &s->g[i], *from = &s->g[k];

			if (!covers(&to->scheme, &from->scheme))
				continue;
			if (reserve(to, to->n + from->n, e))
				return -1;
			memcpy(to->module + to->n, from->module, from->n * sizeof(char *));
			to->n += from->n;
			free(from->module);
			memmove(from, from + 1, (--s->n - k) * sizeof(*from));
			i = (size_t)-1; /* what lay behind has moved */
			break;
		}
	return 0;
}

static int by_text(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static bool has(const struct ct_schemes *s, const char *module)
{
	for (size_t i = 0; i < s->n; i++)
		if (bsearch(&module, s->g[i].module, s->g[i].n, sizeof(char *), by_text))
			return true;
	return false;
}

/* A module by the name of its weight, into a list of strings. */
static void print_module(struct buf *out, const char *name, size_t n)
{
	buf_puts(out, out->n && out->p[out->n - 1] == '[' ? "\"" : ",\"");
	buf_add(out, name, n);
	buf_byte(out, '"');
}

static void print_ignored(const struct ct_schemes *s, const struct model *m, struct buf *out)
{
	static const enum slot ends[] = { SLOT_PROJECT_IN, SLOT_PROJECT_OUT, SLOT_HEAD };
	const size_t suffix = strlen(".weight");
	struct linear_row row;
	char name[256];

	for (long layer = 0; layer < m->cfg.layers; layer++)
		for (size_t i = 0; model_linear(m, layer, i, &row); i++) {
			model_tensor_name(m, row.weight, layer, name);
			name[strlen(name) - suffix] = '\0';
			if (!has(s, name))
				print_module(out, name, strlen(name));
		}
	/* A tied head is a module too, though it has no tensor. */
	for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
		const struct tensor_row *t = model_row(m, ends[i]);

		if (t && (ends[i] == SLOT_HEAD || model_has(m, ends[i], -1)))
			print_module(out, t->name, strlen(t->name) - suffix);
	}
}

static void print_sizes(struct buf *out, const struct ct_scheme *c)
{
	if (c->strategy == CT_GROUP)
		buf_printf(out, ",\"group_size\":%ld", c->group);
	else
		buf_puts(out, ",\"group_size\":null");
	if (c->strategy == CT_BLOCK)
		buf_printf(out, ",\"block_structure\":[%ld,%ld]", c->tall, c->group);
	else
		buf_puts(out, ",\"block_structure\":null");
}

static void print_group(struct buf *out, const struct group *g, size_t i, bool all)
{
	const struct ct_scheme *c = &g->scheme;

	buf_printf(out, "%s\"group_%zu\":{\"targets\":[", i ? "," : "", i);
	if (all)
		buf_puts(out, "\"Linear\"");
	for (size_t k = 0; !all && k < g->n; k++)
		print_module(out, g->module[k], strlen(g->module[k]));
	buf_printf(out, "],\"format\":\"%s\",\"weights\":{\"num_bits\":%d,\"type\":\"%s\","
		   "\"symmetric\":%s,\"strategy\":\"%s\"", formats[c->format], c->bits,
		   c->format == CT_FLOAT ? "float" : "int", c->sym ? "true" : "false",
		   strategies[c->strategy]);
	print_sizes(out, c);
	buf_puts(out, ",\"dynamic\":false,\"actorder\":null,\"observer\":\"minmax\","
		 "\"observer_kwargs\":{}},\"input_activations\":");
	ct_acts_print(out, &c->act, ct_acts_strategy(&c->act));
	buf_puts(out, ",\"output_activations\":null}");
}

int ct_schemes_print(struct ct_schemes *s, const struct model *m, const struct ct_runs *runs,
		     struct buf *out, struct err *e)
{
	const char *format;

	if (merge(s, e))
		return -1;
	format = formats[s->g[0].scheme.format];
	for (size_t i = 0; i < s->n; i++) {
		qsort(s->g[i].module, s->g[i].n, sizeof(char *), by_text);
		if (s->g[i].scheme.format != s->g[0].scheme.format)
			format = "mixed-precision";
	}
	/* The version whose layout of 3, 5, 6 and 7 bits this is: one stream of bits. */
	buf_printf(out, "{\"quant_method\":\"compressed-tensors\",\"version\":\"0.19.0\","
		   "\"format\":\"%s\",\"quantization_status\":\"compressed\","
		   "\"global_compression_ratio\":null,\"sparsity_config\":{},", format);
	ct_runs_print(runs, m, out);
	buf_puts(out, ",\"ignore\":[");
	print_ignored(s, m, out);
	buf_puts(out, "],\"config_groups\":{");
	for (size_t i = 0; i < s->n; i++)
		print_group(out, &s->g[i], i, s->n == 1);
	buf_puts(out, "}}");
	return buf_failed(out, "config.json", e);
}
