/* SPDX-License-Identifier: Apache-2.0 */
/*
 * imageset_impl.h - an image set inside: for imageset*.c
 */
#ifndef QP_IMAGESET_IMPL_H
#define QP_IMAGESET_IMPL_H

#include "formats/imageset.h"
#include "formats/safetensors.h"

/* A file that holds many images. */
struct image_bank {
	struct image_bank *next;
	const char *name;               /* for messages: the last part of its path */
	char *path;
	int fd;                         /* CIFAR's; -1: a safetensors file's */
	struct safetensors st;
	const struct st_tensor *pixels;
	float *row;                     /* one image as the file has it, room for F64 */
};

struct image_entry {
	struct image_bank *bank; /* NULL: a picture by itself */
	char *path;              /* of that picture */
	size_t index;            /* in the bank */
	long label;              /* -1: none */
};

struct imageset {
	const struct image_model *m;
	struct image_bank *banks;
	struct image_entry *at;
	size_t n, cap;
	char name[512];          /* what imageset_name gave */
};

/* One more image; takes path, which it frees if it fails. */
int imageset_add(struct imageset *s, struct image_bank *bank, char *path, size_t index, long label,
		 struct err *e) MUST_USE;

/* imageset_bank.c: a CIFAR-10 or safetensors file, all its images; and reading one. */
int imageset_add_cifar(struct imageset *s, const char *path, struct err *e) MUST_USE;
int imageset_add_tensors(struct imageset *s, const char *path, struct err *e) MUST_USE;
int imageset_read_bank(struct imageset *s, size_t i, float *pixels, struct err *e) MUST_USE;
void imageset_close_bank(struct image_bank *b);

/* imageset_find.c: the pictures of a directory, or of a list ("-": standard input). */
int imageset_add_directory(struct imageset *s, const char *path, struct err *e) MUST_USE;
int imageset_add_list(struct imageset *s, const char *path, struct err *e) MUST_USE;

#endif
