/* SPDX-License-Identifier: Apache-2.0 */
/*
 * image_processor.c - preprocessor_config.json, and what it says done to a picture
 */
#include "formats/image_processor.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "formats/json.h"

#define MAX_SIDE 16384

/* What absent keys mean, by the type's name. */
static const struct defaults {
	const char *name;
	bool crop;
	size_t size;
	enum image_filter filter;
} types[] = {
	{ "ViT", false, 224, FILTER_BILINEAR },
	{ "DeiT", true, 256, FILTER_BICUBIC },
};

/* The same thing by its names in several versions of transformers. */
static const char *const suffixes[] = {
	"ImageProcessor", "ImageProcessorFast", "ImageProcessorPil", "FeatureExtractor"
};

/* Keys that do not change the pixels. */
static const char *const ignored[] = {
	"processor_class", "_processor_class", "_valid_processor_keys", "transformers_version",
	"do_convert_rgb", "disable_grouping", "return_tensors", "device", "_name_or_path",
};

struct parser {
	struct image_processor *p;
	const char *where;
	struct err *e;
	bool square; /* a size that is a number is that of both sides */
};

static bool absent(const struct json *v)
{
	return json_type_of(v) == JSON_NONE || json_type_of(v) == JSON_NULL;
}

/* ---- single values ------------------------------------------------------------------- */

static const struct defaults *type_of(const char *name, size_t len)
{
	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
		const size_t n = strlen(types[i].name);

		if (len <= n || memcmp(name, types[i].name, n))
			continue;
		for (size_t k = 0; k < sizeof(suffixes) / sizeof(suffixes[0]); k++)
			if (len - n == strlen(suffixes[k]) &&
			    memcmp(name + n, suffixes[k], len - n) == 0)
				return &types[i];
	}
	return NULL;
}

static int take_type(struct parser *s, const struct json *root, const struct defaults **d)
{
	static const char *const keys[] = { "feature_extractor_type", "image_processor_type" };
	const struct json *v;
	const char *name;
	size_t len;

	*d = &types[0];
	for (size_t i = 0; i < 2; i++) {
		v = json_get(root, keys[i]);
		if (absent(v))
			continue;
		name = json_str(v, &len);
		*d = name ? type_of(name, len) : NULL;
		if (!*d)
			return err_set(s->e, ERR_DATA, s->where, "%s '%.80s' is not supported "
				       "(ViTImageProcessor and DeiTImageProcessor are)", keys[i],
				       name ? name : "that is not a string");
	}
	return 0;
}

static int take_bool(struct parser *s, const struct json *v, const char *key, bool *to)
{
	if (absent(v))
		return 0;
	if (json_type_of(v) != JSON_BOOL)
		return err_set(s->e, ERR_DATA, s->where, "%s is neither true nor false", key);
	*to = json_bool(v, false);
	return 0;
}

static bool side(const struct json *v, size_t *to)
{
	const int64_t n = json_int(v, 0);

	*to = n >= 1 && n <= MAX_SIDE ? (size_t)n : 0;
	return *to != 0;
}

/* A number, [height, width], {height, width} or {shortest_edge}; shortest 0: not that. */
static int take_size(struct parser *s, const struct json *v, const char *key, size_t *height,
		     size_t *width, size_t *shortest)
{
	const bool object = json_type_of(v) == JSON_OBJECT;
	bool good;

	if (absent(v))
		return 0;
	*shortest = 0;
	if (object && json_len(v) == 1 && json_get(v, "shortest_edge")) {
		good = side(json_get(v, "shortest_edge"), shortest);
	} else if (object && json_len(v) == 2) {
		good = side(json_get(v, "height"), height) && side(json_get(v, "width"), width);
	} else if (json_type_of(v) == JSON_ARRAY && json_len(v) == 2) {
		good = side(json_at(v, 0), height) && side(json_at(v, 1), width);
	} else {
		good = side(v, height);
		*width = *height;
		if (good && !s->square)
			*shortest = *height;
	}
	return good ? 0 : err_set(s->e, ERR_DATA, s->where, "%s is not supported: it must be "
				  "a number, height and width, or shortest_edge, from 1 to %d",
				  key, MAX_SIDE);
}

static int take_three(struct parser *s, const struct json *v, const char *key, bool divisor,
		      float to[3])
{
	const bool list = json_type_of(v) == JSON_ARRAY;

	if (absent(v))
		return 0;
	if (list && json_len(v) != 3)
		return err_set(s->e, ERR_DATA, s->where, "%s has %zu values, not 3", key,
			       json_len(v));
	for (size_t i = 0; i < 3; i++) {
		to[i] = (float)json_num(list ? json_at(v, i) : v, NAN);
		if (!isfinite(to[i]) || (divisor && to[i] == 0))
			return err_set(s->e, ERR_DATA, s->where, "%s: value %zu is not a "
				       "number%s", key, i, divisor ? " other than 0" : "");
	}
	return 0;
}

static int take_filter(struct parser *s, const struct json *v)
{
	const int64_t code = json_int(v, -1);

	if (absent(v))
		return 0;
	if (code < 0 || code >= FILTER_COUNT)
		return err_set(s->e, ERR_DATA, s->where, "resample is not one of Pillow's "
			       "filters, 0 to %d", FILTER_COUNT - 1);
	s->p->filter = (enum image_filter)code;
	return 0;
}

static int take_factor(struct parser *s, const struct json *v)
{
	if (absent(v))
		return 0;
	s->p->factor = json_num(v, NAN);
	return isfinite((float)s->p->factor) ? 0 :
	       err_set(s->e, ERR_DATA, s->where, "rescale_factor is not a number");
}

/* ---- the whole ------------------------------------------------------------------------ */

static int take_keys(struct parser *s, const struct json *root)
{
	struct image_processor *p = s->p;
	size_t no_shortest = 0;

	if (take_bool(s, json_get(root, "default_to_square"), "default_to_square", &s->square) ||
	    take_bool(s, json_get(root, "do_resize"), "do_resize", &p->resize) ||
	    take_size(s, json_get(root, "size"), "size", &p->height, &p->width, &p->shortest) ||
	    take_filter(s, json_get(root, "resample")) ||
	    take_bool(s, json_get(root, "do_center_crop"), "do_center_crop", &p->crop) ||
	    take_bool(s, json_get(root, "do_rescale"), "do_rescale", &p->rescale) ||
	    take_factor(s, json_get(root, "rescale_factor")) ||
	    take_bool(s, json_get(root, "do_normalize"), "do_normalize", &p->normalize) ||
	    take_three(s, json_get(root, "image_mean"), "image_mean", false, p->mean) ||
	    take_three(s, json_get(root, "image_std"), "image_std", true, p->std))
		return -1;
	s->square = true;
	if (take_size(s, json_get(root, "crop_size"), "crop_size", &p->crop_height,
		      &p->crop_width, &no_shortest))
		return -1;
	return no_shortest ? err_set(s->e, ERR_DATA, s->where, "crop_size is not supported: it "
				     "must be a number, or height and width") : 0;
}

static bool known(const char *key)
{
	static const char *const taken[] = {
		"image_processor_type", "feature_extractor_type", "default_to_square",
		"do_resize", "size", "resample", "do_center_crop", "crop_size", "do_rescale",
		"rescale_factor", "do_normalize", "image_mean", "image_std",
	};

	for (size_t i = 0; i < sizeof(taken) / sizeof(taken[0]); i++)
		if (strcmp(key, taken[i]) == 0)
			return true;
	for (size_t i = 0; i < sizeof(ignored) / sizeof(ignored[0]); i++)
		if (strcmp(key, ignored[i]) == 0)
			return true;
	return false;
}

static int refuse_others(struct parser *s, const struct json *root)
{
	const struct json *v;
	const char *key, *text;
	void *it = NULL;

	while ((it = json_iter(root, it, &key, &v)) != NULL) {
		if (known(key) || absent(v) ||
		    (json_type_of(v) == JSON_BOOL && !json_bool(v, true)))
			continue;
		text = json_str(v, NULL);
		if (strcmp(key, "data_format") == 0 && text && strcmp(text, "channels_first") == 0)
			continue;
		return err_set(s->e, ERR_DATA, s->where, "%.80s is not supported", key);
	}
	return 0;
}

int image_processor_parse(struct image_processor *p, const char *json, size_t n,
			  const char *where, struct err *e)
{
	struct parser s = { .p = p, .where = where, .e = e, .square = true };
	const struct defaults *d = &types[0];
	struct json_doc *doc;
	const struct json *root;
	int ret;

	if (json_parse(&doc, json, n, where, e))
		return -1;
	root = json_root(doc);
	if (json_type_of(root) != JSON_OBJECT)
		ret = err_set(e, ERR_DATA, where, "not a JSON object");
	else
		ret = take_type(&s, root, &d);
	if (!ret) {
		*p = (struct image_processor){
			.resize = true, .crop = d->crop, .rescale = true, .normalize = true,
			.height = d->size, .width = d->size, .filter = d->filter,
			.crop_height = 224, .crop_width = 224, .factor = 1 / 255.0,
			.mean = { 0.5f, 0.5f, 0.5f }, .std = { 0.5f, 0.5f, 0.5f },
		};
		ret = take_keys(&s, root) || refuse_others(&s, root) ? -1 : 0;
	}
	json_free(doc);
	return ret;
}

/* ---- a picture ------------------------------------------------------------------------- */

/* Height and width after resizing; 0 for what does not fit into memory. */
static void resized(const struct image_processor *p, const struct image *im, size_t *height,
		    size_t *width)
{
	const bool tall = im->width <= im->height;
	const size_t small = tall ? im->width : im->height, large = tall ? im->height : im->width;
	size_t other;

	*height = p->resize ? p->height : im->height;
	*width = p->resize ? p->width : im->width;
	if (!p->resize || !p->shortest)
		return;
	other = (size_t)((double)(p->shortest * large) / (double)small);
	if (other > IMAGE_MAX_PIXELS / p->shortest)
		other = 0;
	*height = tall ? other : p->shortest;
	*width = tall ? p->shortest : other;
}

int image_processor_size(const struct image_processor *p, const struct image *im, size_t *height,
			 size_t *width, const char *where, struct err *e)
{
	resized(p, im, height, width);
	if (!*height || !*width)
		return err_set(e, ERR_DATA, where, "%zu x %zu pixels are too narrow to be resized "
			       "by the shorter side", im->width, im->height);
	if (!p->crop)
		return 0;
	if (p->crop_height > *height || p->crop_width > *width)
		return err_set(e, ERR_DATA, where, "crop_size %zu x %zu does not fit into %zu x "
			       "%zu pixels", p->crop_width, p->crop_height, *width, *height);
	*height = p->crop_height;
	*width = p->crop_width;
	return 0;
}

/* One value of 256, for channel c. */
static float value(const struct image_processor *p, size_t c, unsigned level)
{
	float x = (float)level;

	if (p->rescale)
		x = (float)((double)level * p->factor);
	return p->normalize ? (x - p->mean[c]) / p->std[c] : x;
}

int image_processor_run(const struct image_processor *p, struct image *im, size_t height,
			size_t width, float *pixels, const char *where, struct err *e)
{
	size_t h, w;

	if (image_processor_size(p, im, &h, &w, where, e))
		return -1;
	if (h != height || w != width)
		return err_set(e, ERR_DATA, where, "%zu x %zu pixels%s; the model takes %zu x %zu",
			       w, h, p->resize || p->crop ? " after preprocessing" : "", width,
			       height);
	resized(p, im, &h, &w);
	if (p->resize && image_resize(im, h, w, p->filter, e)) {
		snprintf(e->where, sizeof(e->where), "%s", where);
		return -1;
	}
	if (p->crop)
		image_center_crop(im, height, width);
	for (size_t c = 0; c < 3; c++) {
		float of[256];

		for (unsigned level = 0; level < 256; level++)
			of[level] = value(p, c, level);
		for (size_t i = 0; i < height * width; i++)
			pixels[c * height * width + i] = of[im->px[3 * i + c]];
	}
	return 0;
}
