/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lint.c - headers and configuration of a model directory, for the rules to look at
 */
#include <dirent.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "formats/file.h"
#include "formats/lint_impl.h"
#include "formats/safetensors.h"

static const struct {
	const char *name;
	unsigned bit;
} loaders[] = {
	{ "vllm", LINT_VLLM }, { "sglang", LINT_SGLANG }, { "transformers", LINT_TRANSFORMERS },
	{ "llama.cpp", LINT_LLAMA_CPP },
};
enum { N_LOADERS = sizeof(loaders) / sizeof(loaders[0]) };

unsigned lint_loaders(const char *text)
{
	unsigned set = 0;

	for (const char *s = text; ; s++) {
		const size_t n = strcspn(s, ",");
		unsigned bit = 0;

		for (int i = 0; i < N_LOADERS; i++)
			if (strlen(loaders[i].name) == n && !strncmp(loaders[i].name, s, n))
				bit = loaders[i].bit;
		if (!bit)
			return 0;
		set |= bit;
		s += n;
		if (!*s)
			return set;
	}
}

static void put_loaders(struct buf *out, unsigned set)
{
	const char *comma = "";

	for (int i = 0; i < N_LOADERS; i++)
		if (set & loaders[i].bit) {
			buf_printf(out, "%s%s", comma, loaders[i].name);
			comma = ",";
		}
}

void lint_list(struct buf *out)
{
	for (const struct lint_rule *r = lint_rules; r->name; r++) {
		buf_printf(out, "%-16s ", r->name);
		put_loaders(out, r->loaders);
		buf_printf(out, "\n    %s\n    %s, %s\n", r->what, r->source, r->date);
	}
}

void lint_say(struct lint *l, const char *where, const char *fmt, ...)
{
	char what[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	buf_printf(l->out, "%s: ", l->rule ? l->rule->name : "readable");
	put_loaders(l->out, (l->only ? l->only : l->rule ? l->rule->loaders : LINT_ALL) &
		    l->o->loaders);
	buf_printf(l->out, ": %s: %s\n", where, what);
	l->n++;
}

/* ---- what there is ------------------------------------------------------------------------ */

/* An error of reading is a problem of the directory. */
static void problem(struct lint *l, const struct err *e)
{
	lint_say(l, e->where, "%s", e->what);
}

static struct json_doc *parse(struct lint *l, const char *name)
{
	char path[4096];
	struct json_doc *d;
	struct err e;

	snprintf(path, sizeof(path), "%s/%s", l->dir, name);
	if (access(path, F_OK) != 0)
		return NULL;
	if (json_parse_file(&d, path, &e) == 0)
		return d;
	problem(l, &e);
	return NULL;
}

/* The JSON at the head of a shard. */
static struct json_doc *parse_head(struct lint *l, const char *name)
{
	char path[4096], *text = NULL;
	unsigned char size[8];
	struct json_doc *d = NULL;
	uint64_t all, n = 0;
	struct err e;
	int fd;

	snprintf(path, sizeof(path), "%s/%s", l->dir, name);
	fd = file_open(path, name, &all, &e);
	if (fd < 0 || file_pread(fd, size, 8, 0, name, &e))
		goto out;
	for (int i = 0; i < 8; i++)
		n |= (uint64_t)size[i] << 8 * i;
	if (n > 100000000 || n + 8 > all) {
		err_set(&e, ERR_DATA, name, "its header is longer than the file");
		goto out;
	}
	text = malloc((size_t)n + 1);
	if (!text)
		err_nomem(&e, name, n);
	else if (file_pread(fd, text, n, 8, name, &e) || json_parse(&d, text, (size_t)n, name, &e))
		d = NULL;
out:
	if (!d)
		problem(l, &e);
	free(text);
	if (fd >= 0)
		close(fd);
	return d;
}

/* What the reader of safetensors says of a shard whose head is JSON. */
static void look_inside(struct lint *l, const char *name)
{
	char path[4096];
	struct safetensors s;
	struct err e;

	snprintf(path, sizeof(path), "%s/%s", l->dir, name);
	if (safetensors_open(&s, path, &e) < 0)
		problem(l, &e);
	else
		safetensors_close(&s);
}

static int is_shard(const struct dirent *d)
{
	const size_t n = strlen(d->d_name), k = strlen(".safetensors");

	return n > k && strcmp(d->d_name + n - k, ".safetensors") == 0;
}

static int open_shards(struct lint *l)
{
	struct dirent **found;
	const int n = scandir(l->dir, &found, is_shard, alphasort);

	if (n < 0)
		return err_errno(l->e, ERR_NOINPUT, l->dir, "%s", "");
	l->heads = calloc((size_t)n + 1, sizeof(*l->heads));
	l->files = calloc((size_t)n + 1, sizeof(*l->files));
	for (int i = 0; i < n; i++) {
		struct json_doc *d = l->heads && l->files ? parse_head(l, found[i]->d_name) : NULL;

		if (d) {
			look_inside(l, found[i]->d_name);
			l->heads[l->n_heads] = d;
			l->files[l->n_heads++] = strdup(found[i]->d_name);
		}
		free(found[i]);
	}
	free(found);
	return l->heads && l->files ? 0 : err_nomem(l->e, l->dir, (unsigned long long)n * 16);
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct lint_tensor *)a)->name, ((const struct lint_tensor *)b)->name);
}

static int list_tensors(struct lint *l)
{
	const struct json *v;
	const char *key;
	size_t n = 0;

	for (size_t i = 0; i < l->n_heads; i++)
		n += json_len(json_root(l->heads[i]));
	l->t = calloc(n + 1, sizeof(*l->t));
	l->m = calloc(n + 1, sizeof(*l->m));
	if (!l->t || !l->m)
		return err_nomem(l->e, l->dir, n * sizeof(*l->m));
	for (size_t i = 0; i < l->n_heads; i++)
		for (void *it = NULL; (it = json_iter(json_root(l->heads[i]), it, &key, &v));)
			if (strcmp(key, "__metadata__") && json_type_of(v) == JSON_OBJECT) {
				l->t[l->n_t].info = v;
				l->t[l->n_t].file = l->files[i];
				l->t[l->n_t].name = strdup(key);
				if (!l->t[l->n_t++].name)
					return err_nomem(l->e, key, strlen(key));
			}
	qsort(l->t, l->n_t, sizeof(*l->t), by_name);
	return 0;
}

/* ---- modules ------------------------------------------------------------------------------ */

static const char *const suffixes[LINT_PARTS] = {
	".qweight", ".qzeros", ".scales", ".g_idx", ".weight_packed", ".weight_scale",
	".weight_zero_point", ".weight_shape", ".weight_g_idx", ".input_scale",
	".input_zero_point", ".weight",
};

/* Sorted by name, a module's tensors are neighbours, but for another's whose name it begins. */
static void list_modules(struct lint *l)
{
	for (size_t i = 0; i < l->n_t; i++)
		for (int p = 0; p < LINT_PARTS; p++) {
			const size_t n = strlen(l->t[i].name), k = strlen(suffixes[p]);
			struct lint_module *m = NULL;

			if (n <= k || n - k >= sizeof(m->name) ||
			    strcmp(l->t[i].name + n - k, suffixes[p]))
				continue;
			for (size_t j = l->n_m; j-- > 0 && !m;)
				if (strlen(l->m[j].name) == n - k &&
				    !strncmp(l->m[j].name, l->t[i].name, n - k))
					m = &l->m[j];
			if (!m) {
				m = &l->m[l->n_m++];
				memcpy(m->name, l->t[i].name, n - k);
			}
			m->part[p] = l->t[i].info;
		}
}

const struct lint_module *lint_module(const struct lint *l, const char *name)
{
	for (size_t i = 0; i < l->n_m; i++)
		if (strcmp(l->m[i].name, name) == 0)
			return &l->m[i];
	return NULL;
}

const struct json *lint_tensor(const struct lint *l, const char *name)
{
	for (size_t i = 0; i < l->n_t; i++)
		if (strcmp(l->t[i].name, name) == 0)
			return l->t[i].info;
	return NULL;
}

bool lint_quantized(const struct lint_module *m)
{
	return m->part[LINT_QWEIGHT] || m->part[LINT_PACKED] || m->part[LINT_SCALE];
}

int64_t lint_dim(const struct json *part, size_t i)
{
	return json_int(json_at(json_get(part, "shape"), i), 0);
}

const char *lint_dtype(const struct json *part)
{
	const char *s = json_str(json_get(part, "dtype"), NULL);

	return s ? s : "";
}

void lint_sizes(const struct lint *l, const struct lint_module *m, int64_t *rows, int64_t *cols,
		int64_t *group, int64_t *bits)
{
	const struct json *q = m->part[LINT_QWEIGHT], *s = m->part[LINT_SCALES];
	const bool awq = strcmp(l->method, "awq") == 0;

	*rows = *cols = *group = 0;
	*bits = json_int(json_get(l->quant, "bits"), awq ? 4 : 0);
	if (q) {
		*rows = awq ? lint_dim(q, 1) * 8 : lint_dim(q, 1);
		*cols = awq ? lint_dim(q, 0) : *bits ? lint_dim(q, 0) * 32 / *bits : 0;
		*group = lint_dim(s, 0) ? *cols / lint_dim(s, 0) : 0;
	} else if (m->part[LINT_WEIGHT]) {
		*rows = lint_dim(m->part[LINT_WEIGHT], 0);
		*cols = lint_dim(m->part[LINT_WEIGHT], 1);
	}
	/* compressed-tensors: words of a row, and how many of it are a group, say no bits. */
	if (m->part[LINT_PACKED]) {
		*rows = lint_dim(m->part[LINT_PACKED], 0);
		*group = lint_dim(m->part[LINT_SCALE], 1);
		*bits = lint_dim(m->part[LINT_PACKED], 1);
	}
}

/* ---- all ------------------------------------------------------------------------------------ */

static void release(struct lint *l)
{
	for (size_t i = 0; i < l->n_t; i++)
		free(l->t[i].name);
	for (size_t i = 0; i < l->n_heads; i++) {
		json_free(l->heads[i]);
		free(l->files[i]);
	}
	free(l->heads);
	free(l->files);
	free(l->t);
	free(l->m);
	json_free(l->config_doc);
	json_free(l->index_doc);
	if (l->is_gguf && !l->gguf_bad)
		gguf_close(&l->gguf);
}

static int lint_directory(struct lint *l)
{
	l->config_doc = parse(l, "config.json");
	l->index_doc = parse(l, "model.safetensors.index.json");
	l->config = l->config_doc ? json_root(l->config_doc) : NULL;
	l->index = l->index_doc ? json_root(l->index_doc) : NULL;
	l->quant = json_get(l->config, "quantization_config");
	l->method = json_str(json_get(l->quant, "quant_method"), NULL);
	l->method = l->method ? l->method : "";
	if (open_shards(l) || list_tensors(l))
		return -1;
	if (!l->config && l->n == 0 && l->n_heads == 0)
		return err_set(l->e, ERR_NOINPUT, l->dir, "is no model directory: it has neither "
			       "config.json nor safetensors files");
	list_modules(l);
	return 0;
}

static void apply(struct lint *l)
{
	for (l->rule = lint_rules; l->rule->name; l->rule++)
		if ((l->rule->loaders & l->o->loaders) && l->rule->gguf == l->is_gguf)
			l->rule->check(l);
}

int lint(struct buf *out, long *n, const char *path, const struct lint_options *o, struct err *e)
{
	struct lint l = { .o = o, .out = out, .dir = path, .e = e };
	const size_t len = strlen(path);
	int ret = 0;

	if (access(path, F_OK) != 0)
		return err_errno(e, ERR_NOINPUT, path, "%s", "");
	l.is_gguf = len > 5 && strcmp(path + len - 5, ".gguf") == 0;
	if (l.is_gguf)
		l.gguf_bad = gguf_open(&l.gguf, path, &l.gguf_err) != 0;
	else
		ret = lint_directory(&l);
	if (!ret)
		apply(&l);
	*n = l.n;
	release(&l);
	return ret ? ret : buf_failed(out, path, e);
}
