/* SPDX-License-Identifier: Apache-2.0 */
/*
 * image_model.c - what images have to be for a model: its config.json and preprocessor_config.json
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "formats/file.h"
#include "formats/imageset.h"
#include "formats/json.h"
#include "lib/base/hash.h"
#include "lib/data/stream.h"

#define CONFIG "config.json"
#define PROCESSOR "preprocessor_config.json"
#define MAX_SIDE 16384
#define MAX_CLASSES (1 << 20)

void image_model_release(struct image_model *m)
{
	for (size_t i = 0; i < m->nclasses && m->classes; i++)
		free(m->classes[i]);
	free(m->classes);
	memset(m, 0, sizeof(*m));
}

/* ---- config.json ---------------------------------------------------------------------- */

/* An integer from 1 to max; absent, or null, it is `otherwise`, unless that is 0. */
static int take_count(const struct json *v, const char *key, size_t max, size_t otherwise,
		      size_t *to, struct err *e)
{
	const enum json_type t = json_type_of(v);
	const int64_t n = json_int(v, 0);

	*to = otherwise;
	if (otherwise && (t == JSON_NONE || t == JSON_NULL))
		return 0;
	*to = (size_t)n;
	return n >= 1 && (uint64_t)n <= max ? 0 :
	       err_set(e, ERR_DATA, CONFIG, "%s is not a number from 1 to %zu", key, max);
}

static int take_image_size(struct image_model *m, const struct json *v, struct err *e)
{
	if (json_type_of(v) == JSON_NONE || json_type_of(v) == JSON_NULL)
		return err_set(e, ERR_DATA, CONFIG, "no image_size: this model takes no images");
	if (json_type_of(v) == JSON_ARRAY && json_len(v) == 2)
		return take_count(json_at(v, 0), "image_size", MAX_SIDE, 0, &m->height, e) ||
		       take_count(json_at(v, 1), "image_size", MAX_SIDE, 0, &m->width, e) ? -1 : 0;
	if (take_count(v, "image_size", MAX_SIDE, 0, &m->height, e))
		return -1;
	m->width = m->height;
	return 0;
}

/* "17" to 17; -1: no such number, or not below n. */
static long index_of(const char *s, size_t len, size_t n)
{
	size_t v = 0;

	if (!len || len > 9)
		return -1;
	for (size_t i = 0; i < len; i++) {
		if (s[i] < '0' || s[i] > '9')
			return -1;
		v = 10 * v + (size_t)(s[i] - '0');
	}
	return v < n ? (long)v : -1;
}

/* The classes are numbered from 0 on; their names are free. */
static int take_classes(struct image_model *m, const struct json *names, struct err *e)
{
	const struct json *v;
	const char *key, *text;
	void *it = NULL;

	m->classes = calloc(m->nclasses, sizeof(*m->classes));
	if (!m->classes)
		return err_nomem(e, CONFIG, m->nclasses * sizeof(*m->classes));
	while ((it = json_iter(names, it, &key, &v)) != NULL) {
		const long i = index_of(key, strlen(key), m->nclasses);

		text = json_str(v, NULL);
		if (i < 0 || !text || m->classes[i])
			return err_set(e, ERR_DATA, CONFIG, "id2label: '%.80s' is not the number "
				       "of one of %zu classes, with its name", key, m->nclasses);
		m->classes[i] = strdup(text);
		if (!m->classes[i])
			return err_nomem(e, CONFIG, strlen(text));
	}
	return 0;
}

static int take_config(struct image_model *m, const struct json *root, struct err *e)
{
	const struct json *names = json_get(root, "id2label");
	const bool named = json_type_of(names) == JSON_OBJECT && json_len(names);

	if (json_type_of(root) != JSON_OBJECT)
		return err_set(e, ERR_DATA, CONFIG, "not a JSON object");
	if (take_image_size(m, json_get(root, "image_size"), e) ||
	    take_count(json_get(root, "num_channels"), "num_channels", 64, 3, &m->channels, e) ||
	    take_count(json_get(root, "num_labels"), "num_labels", MAX_CLASSES, 2, &m->nclasses,
		       e))
		return -1;
	if (named)
		m->nclasses = json_len(names);
	if (m->nclasses > MAX_CLASSES)
		return err_set(e, ERR_DATA, CONFIG, "id2label has %zu classes", m->nclasses);
	return take_classes(m, named ? names : NULL, e);
}

/* ---- files ------------------------------------------------------------------------------ */

int image_model_file(struct image_model *m, const char *name, const char *text, size_t n,
		     struct err *e)
{
	uint64_t high, low;
	struct json_doc *d;
	int ret;

	if (strcmp(name, PROCESSOR) == 0) {
		if (image_processor_parse(&m->processor, text, n, PROCESSOR, e))
			return -1;
		hash128(text, n, &high, &low);
		snprintf(m->fingerprint, sizeof(m->fingerprint), "xxh128:%016llx%016llx",
			 (unsigned long long)high, (unsigned long long)low);
		m->has_processor = true;
	}
	if (strcmp(name, CONFIG) != 0)
		return 0;
	if (m->classes)
		return err_set(e, ERR_DATA, CONFIG, "is there twice");
	if (json_parse(&d, text, n, CONFIG, e))
		return -1;
	ret = take_config(m, json_root(d), e);
	json_free(d);
	return ret;
}

int image_model_complete(const struct image_model *m, const char *where, struct err *e)
{
	return m->classes ? 0 : err_set(e, ERR_DATA, where, "has no " CONFIG);
}

int image_model_take(struct image_model *m, struct stream_in *in, const struct record *r,
		     struct err *e)
{
	char *text;
	int ret = -1;

	if (strcmp(r->name, CONFIG) && strcmp(r->name, PROCESSOR))
		return 0;
	text = malloc((size_t)r->nbytes + 1);
	if (!text)
		return err_nomem(e, r->name, r->nbytes);
	if (!r->nbytes || !stream_payload(in, text, e))
		ret = image_model_file(m, r->name, text, (size_t)r->nbytes, e);
	free(text);
	return ret;
}

static int open_stream(struct image_model *m, const char *path, struct err *e)
{
	struct record rec = { .rank = -1 };
	struct stream_in *in;
	int got;

	if (stream_open_in(&in, path, e))
		return -1;
	/* Files stand in front of the tensors: the rest of a stream need not be read. */
	while ((got = stream_next(in, &rec, e)) > 0 &&
	       (rec.type == REC_STREAM || rec.type == REC_FILE))
		if (rec.type == REC_FILE && image_model_take(m, in, &rec, e)) {
			got = -1;
			break;
		}
	record_clear(&rec);
	stream_close_in(in);
	return got < 0 ? -1 : 0;
}

static int open_file(struct image_model *m, const char *dir, const char *name, bool needed,
		     struct err *e)
{
	const size_t cap = strlen(dir) + strlen(name) + 2;
	char *path = malloc(cap), *text;
	size_t n;
	int ret = 0;

	if (!path)
		return err_nomem(e, dir, cap);
	snprintf(path, cap, "%s/%s", dir, name);
	if (needed || access(path, F_OK) == 0) {
		ret = file_read(path, path, FILE_MAX_WHOLE, &text, &n, e);
		if (!ret) {
			ret = image_model_file(m, name, text, n, e);
			free(text);
		}
	}
	free(path);
	return ret;
}

int image_model_open(struct image_model *m, const char *path, struct err *e)
{
	struct stat st;
	int ret;

	memset(m, 0, sizeof(*m));
	if (path && strcmp(path, "-") && stat(path, &st) == 0 && S_ISDIR(st.st_mode))
		ret = open_file(m, path, CONFIG, true, e) ||
		      open_file(m, path, PROCESSOR, false, e) ? -1 : 0;
	else
		ret = open_stream(m, path, e) || image_model_complete(m, path, e) ? -1 : 0;
	if (ret)
		image_model_release(m);
	return ret;
}

/* ---- labels ------------------------------------------------------------------------------ */

long image_model_class(const struct image_model *m, const char *name, size_t len)
{
	for (size_t i = 0; i < m->nclasses; i++)
		if (m->classes[i] && strlen(m->classes[i]) == len &&
		    memcmp(m->classes[i], name, len) == 0)
			return (long)i;
	return index_of(name, len, m->nclasses);
}
