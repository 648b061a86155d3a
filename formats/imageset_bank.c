/* SPDX-License-Identifier: Apache-2.0 */
/*
 * imageset_bank.c - files of many images: CIFAR-10's binary version, safetensors with pixel_values
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "formats/file.h"
#include "formats/imageset_impl.h"

/* https://www.cs.toronto.edu/~kriz/cifar.html: a label, then 32 x 32 red, green and blue values. */
#define CIFAR_SIDE 32
#define CIFAR_PLANE (CIFAR_SIDE * CIFAR_SIDE)
#define CIFAR_RECORD (1 + 3 * CIFAR_PLANE)
#define CIFAR_CLASSES 10

void imageset_close_bank(struct image_bank *b)
{
	if (b->fd >= 0)
		close(b->fd);
	safetensors_close(&b->st);
	free(b->row);
	free(b->path);
	free(b);
}

static struct image_bank *bank_new(struct imageset *s, const char *path, struct err *e)
{
	struct image_bank *b = calloc(1, sizeof(*b));

	if (b)
		b->path = strdup(path);
	if (!b || !b->path) {
		free(b);
		err_nomem(e, path, sizeof(*b));
		return NULL;
	}
	b->name = b->path;
	b->fd = -1;
	b->next = s->banks;
	s->banks = b;
	return b;
}

/* ---- CIFAR-10 ----------------------------------------------------------------------------- */

int imageset_add_cifar(struct imageset *s, const char *path, struct err *e)
{
	struct image_bank *b = bank_new(s, path, e);
	uint64_t size;
	uint8_t label;

	if (!b)
		return -1;
	b->fd = file_open(path, path, &size, e);
	if (b->fd < 0)
		return -1;
	if (!size || size % CIFAR_RECORD)
		return err_set(e, ERR_DATA, path, "%llu bytes are not CIFAR-10 images of %d bytes",
			       (unsigned long long)size, CIFAR_RECORD);
	for (size_t i = 0; i < size / CIFAR_RECORD; i++) {
		if (file_pread(b->fd, &label, 1, (uint64_t)i * CIFAR_RECORD, path, e))
			return -1;
		if (label >= CIFAR_CLASSES)
			return err_set(e, ERR_DATA, path, "image %zu has the label %d; CIFAR-10 "
				       "has %d classes", i, label, CIFAR_CLASSES);
		if (label >= s->m->nclasses)
			return err_set(e, ERR_DATA, path, "image %zu has the label %d; the model "
				       "has %zu classes", i, label, s->m->nclasses);
		if (imageset_add(s, b, NULL, i, label, e))
			return -1;
	}
	return 0;
}

static int read_cifar(struct imageset *s, size_t i, float *pixels, struct err *e)
{
	const struct image_entry *at = &s->at[i];
	uint8_t planes[3 * CIFAR_PLANE];
	struct image im;
	int ret;

	if (file_pread(at->bank->fd, planes, sizeof(planes),
		       (uint64_t)at->index * CIFAR_RECORD + 1, at->bank->name, e) ||
	    image_alloc(&im, CIFAR_SIDE, CIFAR_SIDE, at->bank->name, e))
		return -1;
	for (size_t c = 0; c < 3; c++)
		for (size_t k = 0; k < CIFAR_PLANE; k++)
			im.px[3 * k + c] = planes[c * CIFAR_PLANE + k];
	ret = image_processor_run(&s->m->processor, &im, s->m->height, s->m->width, pixels,
				  at->bank->name, e);
	image_release(&im);
	return ret;
}

/* ---- safetensors -------------------------------------------------------------------------- */

static int check_pixels(const struct imageset *s, const struct st_tensor *t, const char *path,
			struct err *e)
{
	const struct image_model *m = s->m;

	if (t->dtype != DT_F32 && t->dtype != DT_F16 && t->dtype != DT_BF16 && t->dtype != DT_F64)
		return err_set(e, ERR_DATA, path, "pixel_values are %s; F32, F16, BF16 and F64 "
			       "are read", t->dtype_name);
	if (t->rank != 4 || t->shape[0] < 1)
		return err_set(e, ERR_DATA, path, "pixel_values are not [images, channels, height, "
			       "width]");
	if (t->shape[1] != (int64_t)m->channels || t->shape[2] != (int64_t)m->height ||
	    t->shape[3] != (int64_t)m->width)
		return err_set(e, ERR_DATA, path, "pixel_values are %lld x %lld x %lld; the model "
			       "takes %zu x %zu x %zu", (long long)t->shape[1],
			       (long long)t->shape[2], (long long)t->shape[3], m->channels,
			       m->height, m->width);
	return 0;
}

/* The labels in a new [n]; NULL and -1 if something is wrong, NULL and 0 if there are none. */
static int take_labels(struct image_bank *b, size_t n, int64_t **labels, struct err *e)
{
	const struct st_tensor *t = safetensors_find(&b->st, "labels");
	int32_t *narrow;

	*labels = NULL;
	if (!t)
		return 0;
	if ((t->dtype != DT_I64 && t->dtype != DT_I32) || t->rank != 1 ||
	    t->shape[0] != (int64_t)n)
		return err_set(e, ERR_DATA, b->path, "labels are not I64 or I32 for %zu images", n);
	*labels = malloc(n * sizeof(**labels));
	if (!*labels)
		return err_nomem(e, b->path, n * sizeof(**labels));
	if (safetensors_read(&b->st, t, *labels, e)) {
		free(*labels);
		*labels = NULL;
		return -1;
	}
	narrow = (int32_t *)(void *)*labels;
	for (size_t i = n; t->dtype == DT_I32 && i-- > 0;) {
		int32_t v;

		memcpy(&v, narrow + i, sizeof(v));
		(*labels)[i] = v;
	}
	return 0;
}

static int add_rows(struct imageset *s, struct image_bank *b, size_t n, const int64_t *labels,
		    struct err *e)
{
	for (size_t i = 0; i < n; i++) {
		if (labels && (labels[i] < 0 || labels[i] >= (int64_t)s->m->nclasses))
			return err_set(e, ERR_DATA, b->path, "image %zu has the label %lld; the "
				       "model has %zu classes", i, (long long)labels[i],
				       s->m->nclasses);
		if (imageset_add(s, b, NULL, i, labels ? (long)labels[i] : -1, e))
			return -1;
	}
	return 0;
}

int imageset_add_tensors(struct imageset *s, const char *path, struct err *e)
{
	struct image_bank *b = bank_new(s, path, e);
	const struct st_tensor *t;
	int64_t *labels;
	int ret;

	if (!b || safetensors_open(&b->st, path, e))
		return -1;
	t = safetensors_find(&b->st, "pixel_values");
	if (!t)
		return err_set(e, ERR_DATA, path, "has no pixel_values");
	if (check_pixels(s, t, path, e) || take_labels(b, (size_t)t->shape[0], &labels, e))
		return -1;
	b->pixels = t;
	b->row = malloc(imageset_floats(s) * sizeof(double));
	ret = b->row ? add_rows(s, b, (size_t)t->shape[0], labels, e) :
	      err_nomem(e, path, imageset_floats(s) * sizeof(double));
	free(labels);
	return ret;
}

static int read_tensors(struct imageset *s, size_t i, float *pixels, struct err *e)
{
	const struct image_entry *at = &s->at[i];
	const struct st_tensor *t = at->bank->pixels;
	const size_t n = imageset_floats(s);
	const uint64_t bytes = (uint64_t)n * (unsigned)dtype_bits(t->dtype) / 8;
	int64_t bad;

	if (file_pread(at->bank->st.fd, at->bank->row, bytes, t->begin + at->index * bytes,
		       at->bank->name, e))
		return -1;
	if (dtype_to_f32(pixels, at->bank->row, t->dtype, n))
		return err_set(e, ERR_BUG, at->bank->name, "BUG: pixel_values that are no floats");
	bad = f32_first_nonfinite(pixels, n);
	return bad < 0 ? 0 : err_set(e, ERR_DATA, imageset_name(s, i), "value %lld is not finite",
				     (long long)bad);
}

int imageset_read_bank(struct imageset *s, size_t i, float *pixels, struct err *e)
{
	return s->at[i].bank->pixels ? read_tensors(s, i, pixels, e) : read_cifar(s, i, pixels, e);
}
