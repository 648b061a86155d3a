/* SPDX-License-Identifier: Apache-2.0 */
/*
 * embed.h - the first hidden states: of token ids, or of images
 */
#ifndef QP_EMBED_H
#define QP_EMBED_H

#include "lib/compute/backend.h"
#include "lib/model/ends.h"

struct embed;

/* What stands in front of the blocks, made ready; n stays as it is and is read until
 * embed_free. */
int embed_new(struct embed **em, const struct model *m, struct backend *be, struct ends *n,
	      struct err *e) MUST_USE;
void embed_free(struct embed *em);

/* ERR_DATA for an id outside [0, vocab), with its position in ids [t]. */
int embed_check_ids(const struct model *m, const int32_t *ids, size_t t, struct err *e) MUST_USE;

/*
 * x [t, hidden] = project_in(embedding of ids) + positions, as far as the model has them, f32.
 * position [t], or NULL: the i-th token's is (first + i) mod seqlen.
 */
int embed_tokens(struct embed *em, const int32_t *ids, const int32_t *position, size_t first,
		 size_t seqlen, size_t t, float *x, struct err *e) MUST_USE;

/*
 * x [n * max_positions, hidden] = for each image the class token, then its patches row by row,
 * each the patch embedding (linear over channel, row, column) of pixels [n, channels, size, size];
 * plus positions.
 */
int embed_images(struct embed *em, const float *pixels, size_t n, float *x,
		 struct err *e) MUST_USE;

/* The patches of an image [channels, size, size], row by row, each as channel, row, column:
 * [patches, DIM_PIXELS].  image_size is a multiple of patch. */
void embed_patches(const struct model *m, const float *image, float *patches);

#endif
