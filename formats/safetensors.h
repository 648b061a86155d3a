/* SPDX-License-Identifier: Apache-2.0 */
/*
 * safetensors.h - read tensors out of safetensors files, trusting no length
 *
 * Layout: u64 header length N (at most 100,000,000), N bytes of JSON starting with '{', then the
 * data.  Each range is checked against dtype, shape and file; ranges must cover the data without
 * holes or overlap; duplicate names are refused.
 */
#ifndef QP_SAFETENSORS_H
#define QP_SAFETENSORS_H

#include <stdint.h>

#include "lib/base/err.h"
#include "lib/data/dtype.h"

struct st_tensor {
	char *name;
	enum dtype dtype;   /* DT_NONE: a type this build does not know, dtype_name has it */
	char dtype_name[16];
	int rank;
	int64_t shape[8];
	uint64_t begin, nbytes; /* absolute file offset */
};

struct safetensors {
	char *path;         /* for messages: the base name */
	int fd;
	struct st_tensor *t; /* sorted by name */
	size_t n;
};

int safetensors_open(struct safetensors *s, const char *path, struct err *e) MUST_USE;
void safetensors_close(struct safetensors *s);
const struct st_tensor *safetensors_find(const struct safetensors *s, const char *name);
int safetensors_read(const struct safetensors *s, const struct st_tensor *t, void *dst,
		     struct err *e) MUST_USE;

#endif
