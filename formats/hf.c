/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hf.c - a Hugging Face model directory, compared with the family's table
 */
#include "formats/hf.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "formats/file.h"
#include "formats/hf_quant.h"
#include "formats/json.h"
#include "formats/safetensors.h"

#define WEIGHTS "model.safetensors"
#define INDEX "model.safetensors.index.json"

static const char *const carried[] = {
	"config.json", "generation_config.json", "tokenizer.json", "tokenizer.model",
	"tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
	"merges.txt", "chat_template.jinja", "preprocessor_config.json",
};
enum { N_CARRIED = sizeof(carried) / sizeof(carried[0]) };

/* A linear in codes: its parts; q.bits 0: it is none. */
struct coded {
	struct hf_place part[HF_PARTS];
	struct hf_codes q;
};

struct hf {
	char *dir;
	struct model model;
	struct safetensors *shards;
	size_t n_shards;
	struct hf_place *at;       /* [1 + layers, slots]: those outside of blocks, then by layer */
	const char *files[N_CARRIED + 1];
	const struct hf_quant *quant; /* NULL: nothing is in codes */
	void *format;                 /* its own */
	struct coded *coded;          /* as at */
};

static size_t index_of(const struct hf *h, enum slot s, long layer)
{
	return (size_t)(layer + 1) * (size_t)model_slots(&h->model) + (size_t)s;
}

static struct hf_place *place_of(const struct hf *h, enum slot s, long layer)
{
	return &h->at[index_of(h, s, layer)];
}

static char *path_new(const char *dir, const char *name, struct err *e)
{
	size_t n = strlen(dir) + strlen(name) + 2;
	char *p = malloc(n);

	if (p)
		snprintf(p, n, "%s%s%s", dir, *dir && dir[strlen(dir) - 1] == '/' ? "" : "/", name);
	else
		err_nomem(e, name, n);
	return p;
}

static bool exists(const struct hf *h, const char *name)
{
	struct err ignored;
	char *path = path_new(h->dir, name, &ignored);
	bool yes = path && access(path, F_OK) == 0;

	free(path);
	return yes;
}

static int read_whole(const struct hf *h, const char *name, char **text, size_t *n, struct err *e)
{
	char *path = path_new(h->dir, name, e);
	int ret = path ? file_read(path, path, FILE_MAX_WHOLE, text, n, e) : -1;

	free(path);
	return ret;
}

/* The reader of quantization_config, if there is one; hf_config_parse has seen that it is known. */
static int open_format(struct hf *h, const char *text, size_t n, struct err *e)
{
	const struct json *v;
	struct json_doc *d;
	int ret = 0;

	if (json_parse(&d, text, n, "config.json", e))
		return -1;
	v = json_get(json_root(d), "quantization_config");
	h->quant = hf_quant_find(json_str(json_get(v, "quant_method"), NULL));
	if (h->quant)
		ret = h->quant->open(&h->format, v, e);
	if (ret)
		h->quant = NULL; /* nothing to close */
	json_free(d);
	return ret;
}

static int open_config(struct hf *h, struct err *e)
{
	struct model_config c;
	char *text;
	size_t n;
	int ret;

	if (read_whole(h, "config.json", &text, &n, e))
		return -1;
	ret = hf_config_parse(&c, text, n, e);
	if (!ret)
		ret = open_format(h, text, n, e);
	free(text);
	return ret ? ret : model_init(&h->model, &c, e);
}

static int open_shard(struct hf *h, const char *name, struct err *e)
{
	char *path = path_new(h->dir, name, e);
	int ret;

	if (!path)
		return -1;
	ret = safetensors_open(&h->shards[h->n_shards], path, e);
	free(path);
	if (!ret)
		h->n_shards++;
	return ret;
}

static const struct safetensors *shard_named(const struct hf *h, const char *name)
{
	for (size_t i = 0; i < h->n_shards; i++)
		if (strcmp(h->shards[i].path, name) == 0)
			return &h->shards[i];
	return NULL;
}

/* Open every file that the map names, and find in it what the map puts there. */
static int open_mapped(struct hf *h, const struct json *map, struct err *e)
{
	const struct json *v;
	const char *tensor;
	void *it = NULL;

	/* As many as there are tensors, at most; open_shard counts those in use. */
	h->shards = calloc(json_len(map) + 1, sizeof(*h->shards));
	if (!h->shards)
		return err_nomem(e, INDEX, json_len(map) * sizeof(*h->shards));
	while ((it = json_iter(map, it, &tensor, &v))) {
		const char *file = json_str(v, NULL);
		const struct safetensors *s;

		if (!file || !*file || strchr(file, '/') || file[0] == '.')
			return err_set(e, ERR_DATA, INDEX, "%.128s: '%.128s' is not the name of a "
				       "file in this directory", tensor, file ? file : "");
		s = shard_named(h, file);
		if (!s) {
			if (open_shard(h, file, e))
				return -1;
			s = &h->shards[h->n_shards - 1];
		}
		if (!safetensors_find(s, tensor))
			return err_set(e, ERR_DATA, tensor, "is not in %s, where " INDEX
				       " puts it", file);
	}
	return 0;
}

/* A tensor that lies in a shard without the index saying so is a stale or a foreign shard. */
static int check_mapped(const struct hf *h, const struct json *map, struct err *e)
{
	for (size_t i = 0; i < h->n_shards; i++)
		for (size_t k = 0; k < h->shards[i].n; k++) {
			const char *name = h->shards[i].t[k].name;
			const char *file = json_str(json_get(map, name), NULL);

			if (!file)
				return err_set(e, ERR_DATA, name, "is in %s but not in " INDEX,
					       h->shards[i].path);
			if (strcmp(file, h->shards[i].path))
				return err_set(e, ERR_DATA, name, "is in %s, but " INDEX
					       " puts it in %s", h->shards[i].path, file);
		}
	return 0;
}

static int open_index(struct hf *h, struct err *e)
{
	struct json_doc *doc;
	const struct json *map;
	char *text;
	size_t n;
	int ret;

	if (read_whole(h, INDEX, &text, &n, e))
		return -1;
	ret = json_parse(&doc, text, n, INDEX, e);
	free(text);
	if (ret)
		return -1;
	map = json_get(json_root(doc), "weight_map");
	if (json_type_of(map) != JSON_OBJECT)
		ret = err_set(e, ERR_DATA, INDEX, "weight_map: expected an object");
	else if (open_mapped(h, map, e) || check_mapped(h, map, e))
		ret = -1;
	json_free(doc);
	return ret;
}

static int open_weights(struct hf *h, struct err *e)
{
	/* transformers looks for them in this order. */
	if (exists(h, WEIGHTS)) {
		h->shards = calloc(1, sizeof(*h->shards));
		return h->shards ? open_shard(h, WEIGHTS, e) :
		       err_nomem(e, WEIGHTS, sizeof(*h->shards));
	}
	if (exists(h, INDEX))
		return open_index(h, e);
	return err_set(e, ERR_NOINPUT, h->dir, "has neither " WEIGHTS " nor " INDEX "%s",
		       exists(h, "pytorch_model.bin") || exists(h, "pytorch_model.bin.index.json") ?
		       " (pytorch_model.bin is not read)" : "");
}

static bool is_ignored(const struct family *f, const char *name)
{
	size_t n = strlen(name);

	for (size_t i = 0; f->ignored[i]; i++) {
		size_t k = strlen(f->ignored[i]);

		if (n >= k && strcmp(name + n - k, f->ignored[i]) == 0)
			return true;
	}
	return false;
}

static bool float_type(enum dtype t)
{
	return t == DT_F32 || t == DT_F16 || t == DT_BF16;
}

/* The linear that a tensor is a part of: by its suffix, or a weight that is not of floats. */
static struct coded *coded_of(const struct hf *h, const struct st_tensor *t, enum hf_part *part)
{
	const size_t n = strlen(t->name);
	enum slot s;
	long layer;
	char name[256];

	for (const struct hf_suffix *x = h->quant->suffixes; x->suffix; x++) {
		const size_t k = strlen(x->suffix);

		if (n < k || n - k + sizeof(".weight") > sizeof(name) ||
		    strcmp(t->name + n - k, x->suffix))
			continue;
		snprintf(name, sizeof(name), "%.*s.weight", (int)(n - k), t->name);
		s = model_slot(&h->model, name, &layer);
		*part = x->part;
		return s == SLOT_NONE ? NULL : &h->coded[index_of(h, s, layer)];
	}
	s = float_type(t->dtype) ? SLOT_NONE : model_slot(&h->model, t->name, &layer);
	*part = HF_WEIGHT;
	return s == SLOT_NONE ? NULL : &h->coded[index_of(h, s, layer)];
}

/* Is it a part?  Then it has been put where it belongs. */
static bool place_part(struct hf *h, const struct safetensors *shard, const struct st_tensor *t)
{
	enum hf_part part;
	struct coded *c = h->quant ? coded_of(h, t, &part) : NULL;

	if (c)
		c->part[part] = (struct hf_place){ shard, t };
	return c;
}

/* Does the format know what to do with a tensor that the model has not? */
static bool takes(struct hf *h, const struct safetensors *shard, const struct st_tensor *t)
{
	const struct hf_place p = { shard, t };
	long layer;

	return h->quant && h->quant->take &&
	       model_slot(&h->model, t->name, &layer) == SLOT_NONE &&
	       h->quant->take(h->format, &h->model, &p);
}

/* Give every tensor of the files its slot.  The head of a tied model goes to SLOT_HEAD, which
 * such a model does not have: tie() looks at it. */
static int place_tensors(struct hf *h, struct err *e)
{
	const struct tensor_row *head = model_row(&h->model, SLOT_HEAD);
	const size_t slots = (size_t)model_slots(&h->model);

	h->at = calloc((1 + (size_t)h->model.cfg.layers) * slots, sizeof(*h->at));
	if (h->at && h->quant)
		h->coded = calloc((1 + (size_t)h->model.cfg.layers) * slots, sizeof(*h->coded));
	if (!h->at || (h->quant && !h->coded))
		return err_nomem(e, h->dir, (1 + (size_t)h->model.cfg.layers) * slots *
				 sizeof(*h->at));
	for (size_t i = 0; i < h->n_shards; i++)
		for (size_t k = 0; k < h->shards[i].n; k++) {
			const struct st_tensor *t = &h->shards[i].t[k];
			long layer;
			enum slot s = model_slot(&h->model, t->name, &layer);

			if (place_part(h, &h->shards[i], t) || takes(h, &h->shards[i], t))
				continue;
			if (s == SLOT_NONE && head && strcmp(t->name, head->name) == 0)
				s = SLOT_HEAD;
			if (s == SLOT_NONE && is_ignored(h->model.family, t->name))
				continue;
			if (s == SLOT_NONE)
				return err_set(e, ERR_DATA, t->name,
					       "is in %s, but is no tensor of a %s model as "
					       "config.json describes it", h->shards[i].path,
					       h->model.family->model_type);
			*place_of(h, s, layer) = (struct hf_place){ &h->shards[i], t };
		}
	return 0;
}

static void shape_text(char *buf, size_t cap, int rank, const int64_t *shape)
{
	size_t n = (size_t)snprintf(buf, cap, "[");

	for (int i = 0; i < rank && n < cap; i++)
		n += (size_t)snprintf(buf + n, cap - n, "%s%lld", i ? ", " : "",
				      (long long)shape[i]);
	if (n < cap)
		snprintf(buf + n, cap - n, "]");
}

static int check_tensor(const struct hf *h, const struct hf_place *p, enum slot s, struct err *e)
{
	char got[200], want[64];
	int64_t shape[MODEL_MAX_RANK];
	int rank = model_dims(&h->model, s, shape);

	if (!float_type(p->t->dtype))
		return err_set(e, ERR_DATA, p->t->name, "dtype %s is not supported (only F32, F16, "
			       "BF16)", p->t->dtype_name);
	if (p->t->rank == rank && !memcmp(p->t->shape, shape, (size_t)rank * sizeof(shape[0])))
		return 0;
	shape_text(got, sizeof(got), p->t->rank, p->t->shape);
	shape_text(want, sizeof(want), rank, shape);
	return err_set(e, ERR_DATA, p->t->name, "has shape %s, config.json makes it %s", got, want);
}

/* Both names of a tied matrix are there: they must say the same. */
static int compare(const struct hf_place *a, const struct hf_place *b, struct err *e)
{
	enum { N = 1 << 20 };
	bool same = a->t->dtype == b->t->dtype && a->t->nbytes == b->t->nbytes;
	char *x = malloc(2 * (size_t)N);
	int ret = x ? 0 : err_nomem(e, b->t->name, 2 * (size_t)N);

	for (uint64_t i = 0; !ret && same && i < a->t->nbytes; i += N) {
		uint64_t n = a->t->nbytes - i < N ? a->t->nbytes - i : N;

		ret = file_pread(a->shard->fd, x, n, a->t->begin + i, a->t->name, e);
		if (!ret)
			ret = file_pread(b->shard->fd, x + N, n, b->t->begin + i, b->t->name, e);
		same = ret || memcmp(x, x + N, (size_t)n) == 0;
	}
	free(x);
	if (!ret && !same)
		ret = err_set(e, ERR_DATA, b->t->name, "is not %s, though config.json says "
			      "tie_word_embeddings", a->t->name);
	return ret;
}

static int tie(struct hf *h, struct err *e)
{
	struct hf_place *embed = place_of(h, SLOT_EMBED, -1), *head = place_of(h, SLOT_HEAD, -1);

	if (!h->model.cfg.tied || !head->t)
		return 0;
	if (!embed->t) {
		*embed = *head;
		return 0;
	}
	/* Shapes first: the comparison is about bytes of the same meaning. */
	if (check_tensor(h, embed, SLOT_EMBED, e) || check_tensor(h, head, SLOT_HEAD, e))
		return -1;
	return compare(embed, head, e);
}

/* 1: the linear is in codes, and they are what they should be; 0: it has no parts; or -1. */
static int check_coded(const struct hf *h, enum slot s, long layer, const char *name,
		       struct err *e)
{
	struct coded *c = h->quant ? &h->coded[index_of(h, s, layer)] : NULL;
	struct hf_linear l = { .name = name };
	int64_t shape[MODEL_MAX_RANK];
	int parts = 0;

	for (int i = 0; c && i < HF_PARTS; i++)
		parts += c->part[i].t != NULL;
	if (parts == 0)
		return 0;
	if (place_of(h, s, layer)->t)
		return err_set(e, ERR_DATA, name, "is there both as a weight and in codes");
	if (model_dims(&h->model, s, shape) != 2)
		return err_set(e, ERR_DATA, name, "codes of what is no matrix");
	l.rows = shape[0];
	l.cols = shape[1];
	memcpy(l.part, c->part, sizeof(l.part));
	return h->quant->look(h->format, &l, &c->q, e) ? -1 : 1;
}

static int check_all(const struct hf *h, struct err *e)
{
	char name[256];
	enum slot s;
	long layer;

	for (size_t i = 0; model_nth(&h->model, i, &s, &layer); i++) {
		const struct hf_place *p = place_of(h, s, layer);
		int coded;

		model_tensor_name(&h->model, s, layer, name);
		coded = check_coded(h, s, layer, name, e);
		if (coded < 0)
			return -1;
		if (coded > 0)
			continue;
		if (!p->t) {
			return err_set(e, ERR_DATA, name, "is missing%s", s != SLOT_HEAD ? "" :
				       " (config.json does not say tie_word_embeddings)");
		}
		if (check_tensor(h, p, s, e))
			return -1;
	}
	return 0;
}

int hf_run(const struct hf *h, long layer, size_t i, struct hf_run *r, struct err *e)
{
	return h->quant && h->quant->run ? h->quant->run(h->format, &h->model, layer, i, r, e) : 0;
}

/* What is wrong with it is told before anything is read. */
static int check_runs(const struct hf *h, struct err *e)
{
	struct hf_run r = { 0 };
	int got = 1;

	for (long layer = 0; layer < h->model.cfg.layers && got >= 0; layer++)
		for (size_t i = 0; (got = hf_run(h, layer, i, &r, e)) > 0; i++)
			free(r.grid);
	return got;
}

int hf_open(struct hf **out, const char *dir, struct err *e)
{
	struct hf *h = calloc(1, sizeof(*h));
	int n = 0;

	if (h)
		h->dir = strdup(dir);
	if (!h || !h->dir) {
		free(h);
		return err_nomem(e, dir, sizeof(*h) + strlen(dir));
	}
	if (open_config(h, e) || open_weights(h, e) || place_tensors(h, e) || tie(h, e) ||
	    check_all(h, e) || check_runs(h, e)) {
		hf_close(h);
		return -1;
	}
	for (int i = 0; i < N_CARRIED; i++)
		if (exists(h, carried[i]))
			h->files[n++] = carried[i];
	*out = h;
	return 0;
}

void hf_close(struct hf *h)
{
	if (!h)
		return;
	for (size_t i = 0; i < h->n_shards; i++)
		safetensors_close(&h->shards[i]);
	if (h->quant)
		h->quant->close(h->format);
	free(h->shards);
	free(h->at);
	free(h->coded);
	free(h->dir);
	free(h);
}

const struct model *hf_model(const struct hf *h)
{
	return &h->model;
}

/* How a linear is in codes, or NULL. */
static const struct coded *find_coded(const struct hf *h, const char *name)
{
	long layer;
	const enum slot s = h->quant ? model_slot(&h->model, name, &layer) : SLOT_NONE;
	const struct coded *c = s == SLOT_NONE ? NULL : &h->coded[index_of(h, s, layer)];

	return c && c->q.bits ? c : NULL;
}

static int coded_linear(const struct hf *h, const char *name, const struct coded *c,
			struct hf_linear *l)
{
	int64_t shape[MODEL_MAX_RANK];
	long layer;

	memset(l, 0, sizeof(*l));
	if (model_dims(&h->model, model_slot(&h->model, name, &layer), shape) != 2)
		return -1;
	l->name = name;
	l->rows = shape[0];
	l->cols = shape[1];
	memcpy(l->part, c->part, sizeof(l->part));
	return 0;
}

const struct hf_codes *hf_codes(const struct hf *h, const char *name)
{
	const struct coded *c = find_coded(h, name);

	return c && !c->q.dense ? &c->q : NULL;
}

int hf_codes_read(const struct hf *h, const char *name, enum role role, void *dst, struct err *e)
{
	const struct coded *c = find_coded(h, name);
	struct hf_linear l;

	if (!c || coded_linear(h, name, c, &l))
		return err_set(e, ERR_BUG, name, "BUG: is not in codes");
	return h->quant->read(h->format, &l, &c->q, role, dst, e);
}

static const struct hf_place *find(const struct hf *h, const char *name)
{
	long layer;
	enum slot s = model_slot(&h->model, name, &layer);

	return s == SLOT_NONE ? NULL : place_of(h, s, layer);
}

int hf_tensor(const struct hf *h, const char *name, struct hf_tensor *t)
{
	const struct hf_place *p = find(h, name);
	const struct coded *c = find_coded(h, name);
	struct hf_linear l;

	if (!p)
		return -1;
	if (c && coded_linear(h, name, c, &l) == 0) {
		*t = (struct hf_tensor){ .name = name, .rank = 2, .shape = { l.rows, l.cols } };
		t->dtype = c->q.dense ? DT_F32 : c->q.scale;
		return dtype_nbytes(t->dtype, 2, t->shape, &t->nbytes);
	}
	t->name = name;
	t->dtype = p->t->dtype;
	t->rank = p->t->rank;
	memcpy(t->shape, p->t->shape, sizeof(t->shape));
	t->nbytes = p->t->nbytes;
	return 0;
}

static int check_finite(const struct st_tensor *t, const void *data, const char *name,
			struct err *e)
{
	size_t n = (size_t)(t->nbytes * 8 / (uint64_t)dtype_bits(t->dtype));
	int64_t i = dtype_first_nonfinite(data, t->dtype, n);
	int64_t cols = t->shape[t->rank - 1];
	float v;

	if (i < 0)
		return 0;
	dtype_to_f32(&v, (const char *)data + i * (dtype_bits(t->dtype) / 8), t->dtype, 1);
	if (t->rank == 1)
		return err_set(e, ERR_DATA, name, "value %lld is %f: not finite", (long long)i,
			       (double)v);
	return err_set(e, ERR_DATA, name, "value at row %lld column %lld is %f: not finite",
		       (long long)(i / cols), (long long)(i % cols), (double)v);
}

int hf_read(const struct hf *h, const char *name, void *dst, struct err *e)
{
	const struct hf_place *p = find(h, name);

	if (!p)
		return err_set(e, ERR_BUG, name, "BUG: the model has no such tensor");
	if (find_coded(h, name))
		return hf_codes_read(h, name, ROLE_WEIGHT, dst, e);
	if (safetensors_read(p->shard, p->t, dst, e))
		return -1;
	return check_finite(p->t, dst, name, e);
}

int hf_read_piece(const struct hf *h, const char *name, uint64_t from, void *dst, size_t n,
		  struct err *e)
{
	const struct hf_place *p = find(h, name);

	if (!p)
		return err_set(e, ERR_BUG, name, "BUG: the model has no such tensor");
	if (find_coded(h, name))
		return 1;
	return file_pread(p->shard->fd, dst, n, p->t->begin + from, p->t->name, e);
}

void hf_readahead(const struct hf *h, long layer)
{
	if (layer < 0 || layer >= h->model.cfg.layers)
		return;
	for (int s = 0; s < model_slots(&h->model); s++) {
		const struct hf_place *p = place_of(h, (enum slot)s, layer);

		/* Only advice: what it answers does not matter. */
		if (p->t)
			(void)posix_fadvise(p->shard->fd, (off_t)p->t->begin, (off_t)p->t->nbytes,
					    POSIX_FADV_WILLNEED);
	}
}

const char *hf_file(const struct hf *h, int i)
{
	return i >= 0 && i < N_CARRIED ? h->files[i] : NULL;
}

int hf_file_read(const struct hf *h, int i, char **text, size_t *n, struct err *e)
{
	if (!hf_file(h, i))
		return err_set(e, ERR_BUG, h->dir, "BUG: no file %d", i);
	return read_whole(h, hf_file(h, i), text, n, e);
}
