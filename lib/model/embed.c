/* SPDX-License-Identifier: Apache-2.0 */
/*
 * embed.c - the first hidden states
 */
#include "lib/model/embed.h"

#include <stdlib.h>
#include <string.h>

#include "lib/model/device.h"

#define CHUNK 1024 /* tokens at a time through a linear */

struct embed {
	const struct model *m;
	struct backend *be;
	struct ends *n;
	struct packed *mat;  /* of tokens: the projection; of images: the patch embedding */
	float *bias;
	float *position;     /* host [rows, hidden] f32, or NULL */
	float *class_token;  /* host [hidden] f32, or NULL */
	float *host;         /* [CHUNK, wider of the linear's input and output] */
	float *in, *out;     /* device, the same */
	size_t width;        /* the linear's input */
};

void embed_free(struct embed *em)
{
	if (em == NULL)
		return;
	if (em->mat != NULL)
		em->be->ops->pack_free(em->be, em->mat);
	if (em->bias != NULL)
		em->be->ops->free(em->be, em->bias);
	if (em->in != NULL)
		em->be->ops->free(em->be, em->in);
	if (em->out != NULL)
		em->be->ops->free(em->be, em->out);
	free(em->position);
	free(em->class_token);
	free(em->host);
	free(em);
}

static int widen(float *dst, const struct item *it, size_t from, size_t n, struct err *e)
{
	const size_t size = (size_t)dtype_bits(it->rec.dtype) / 8;

	if (dtype_to_f32(dst, (const char *)it->data + from * size, it->rec.dtype, n) < 0)
		return err_set(e, ERR_DATA, it->rec.name,
			       "%s is not a floating-point type of weights",
			       dtype_name(it->rec.dtype));
	return 0;
}

/* A table of the model as f32; NULL if the model has none. */
static int table(struct embed *em, enum slot s, float **dst, struct err *e)
{
	const struct item *it = ends_item(em->n, s);
	size_t n = 1;

	if (!model_has(em->m, s, -1))
		return 0;
	for (int i = 0; i < it->rec.rank; i++)
		n *= (size_t)it->rec.shape[i];
	*dst = malloc(n * sizeof(**dst));
	return *dst == NULL ? err_nomem(e, it->rec.name, n * sizeof(**dst)) :
	       widen(*dst, it, 0, n, e);
}

static int make_linear(struct embed *em, enum slot weight, enum slot bias, struct err *e)
{
	const size_t d = (size_t)em->m->cfg.hidden;
	int64_t shape[2];
	size_t wider;

	if (!model_has(em->m, weight, -1))
		return 0;
	model_shape(em->m, weight, shape);
	em->width = (size_t)shape[1];
	wider = em->width > d ? em->width : d;
	em->host = malloc(CHUNK * wider * sizeof(*em->host));
	if (em->host == NULL)
		return err_nomem(e, "embedding", CHUNK * wider * sizeof(*em->host));
	em->in = em->be->ops->alloc(em->be, CHUNK * em->width * sizeof(float), e);
	em->out = em->in == NULL ? NULL :
		  em->be->ops->alloc(em->be, CHUNK * d * sizeof(float), e);
	if (em->out == NULL || device_matrix(em->be, &em->mat, ends_item(em->n, weight), e) < 0)
		return -1;
	return !model_has(em->m, bias, -1) ? 0 :
	       device_vector(em->be, &em->bias, ends_item(em->n, bias), d, e);
}

int embed_new(struct embed **out, const struct model *m, struct backend *be, struct ends *n,
	      struct err *e)
{
	const bool images = m->family->images;
	struct embed *em = calloc(1, sizeof(*em));

	if (em == NULL)
		return err_nomem(e, "embedding", sizeof(*em));
	em->m = m;
	em->be = be;
	em->n = n;
	if (table(em, SLOT_POSITIONS, &em->position, e) < 0 ||
	    table(em, SLOT_CLASS, &em->class_token, e) < 0 ||
	    make_linear(em, images ? SLOT_PATCH : SLOT_PROJECT_IN,
			images ? SLOT_PATCH_B : SLOT_NONE, e) < 0) {
		embed_free(em);
		return -1;
	}
	*out = em;
	return 0;
}

int embed_check_ids(const struct model *m, const int32_t *ids, size_t t, struct err *e)
{
	for (size_t i = 0; i < t; i++)
		if (ids[i] < 0 || ids[i] >= m->cfg.vocab)
			return err_set(e, ERR_DATA, "token ids",
				       "id %ld at position %zu is outside the vocabulary of %ld",
				       (long)ids[i], i, m->cfg.vocab);
	return 0;
}

/* x [t, hidden] = linear(host [t, width]), t <= CHUNK */
static int apply(struct embed *em, size_t t, float *x, struct err *e)
{
	const struct backend_ops *ops = em->be->ops;
	const size_t d = (size_t)em->m->cfg.hidden;

	if (ops->upload(em->be, em->in, em->host, t * em->width * sizeof(*em->host), e) < 0 ||
	    ops->linear(em->be, em->out, d, em->in, em->width, t, em->mat, em->bias, 0, e) < 0)
		return -1;
	return ops->download(em->be, x, em->out, t * d * sizeof(*x), e);
}

static void add_row(float *x, const float *row, size_t d)
{
	for (size_t j = 0; j < d; j++)
		x[j] += row[j];
}

int embed_tokens(struct embed *em, const int32_t *ids, const int32_t *position, size_t first,
		 size_t seqlen, size_t t, float *x, struct err *e)
{
	const struct item *table_of = ends_item(em->n, SLOT_EMBED);
	const size_t d = (size_t)em->m->cfg.hidden, w = (size_t)em->m->cfg.embed_dim;

	if (embed_check_ids(em->m, ids, t, e) < 0)
		return -1;
	for (size_t i = 0, n; i < t; i += n) {
		float *rows = em->mat != NULL ? em->host : x + i * d;

		n = t - i < CHUNK ? t - i : CHUNK;
		for (size_t k = 0; k < n; k++)
			if (widen(rows + k * w, table_of, (size_t)ids[i + k] * w, w, e) < 0)
				return -1;
		if (em->mat != NULL && apply(em, n, x + i * d, e) < 0)
			return -1;
		for (size_t k = i; em->position != NULL && k < i + n; k++) {
			const size_t at = position != NULL ? (size_t)position[k] :
					  (first + k) % seqlen;

			add_row(x + k * d, em->position +
				(at + (size_t)em->m->family->position_offset) * d, d);
		}
	}
	return 0;
}

/* The patch in row py, column px as channel, row, column. */
static void cut_patch(const struct model_config *c, const float *image, long py, long px,
		      float *out)
{
	for (long ch = 0; ch < c->channels; ch++)
		for (long y = 0; y < c->patch; y++, out += c->patch)
			memcpy(out, image + (ch * c->image_size + py * c->patch + y) *
				    c->image_size + px * c->patch,
			       (size_t)c->patch * sizeof(*out));
}

void embed_patches(const struct model *m, const float *image, float *patches)
{
	const long side = m->cfg.image_size / m->cfg.patch, n = model_dim(m, DIM_PIXELS);

	for (long i = 0; i < side * side; i++)
		cut_patch(&m->cfg, image, i / side, i % side, patches + i * n);
}

static int embed_image(struct embed *em, const float *image, float *x, struct err *e)
{
	const struct model_config *c = &em->m->cfg;
	const size_t d = (size_t)c->hidden;
	const long side = c->image_size / c->patch;

	memcpy(x, em->class_token, d * sizeof(*x));
	for (long i = 0, n; i < side * side; i += n) {
		n = side * side - i < CHUNK ? side * side - i : CHUNK;
		for (long k = 0; k < n; k++)
			cut_patch(c, image, (i + k) / side, (i + k) % side,
				  em->host + (size_t)k * em->width);
		if (apply(em, (size_t)n, x + (1 + (size_t)i) * d, e) < 0)
			return -1;
	}
	add_row(x, em->position, (size_t)c->max_positions * d);
	return 0;
}

int embed_images(struct embed *em, const float *pixels, size_t n, float *x, struct err *e)
{
	const struct model_config *c = &em->m->cfg;
	const size_t one = (size_t)(c->channels * c->image_size * c->image_size);
	const size_t rows = (size_t)(c->max_positions * c->hidden);

	for (size_t i = 0; i < n; i++)
		if (embed_image(em, pixels + i * one, x + i * rows, e) < 0)
			return -1;
	return 0;
}
