/* SPDX-License-Identifier: Apache-2.0 */
/*
 * device.c - norms, biases and matrices from items on the host to the device
 */
#include "lib/model/device.h"

#include <stdlib.h>

int device_vector(struct backend *be, float **dst, const struct item *it, size_t n, struct err *e)
{
	const size_t nbytes = n * sizeof(float);
	float *wide;
	int ret;

	if (it->rec.rank != 1 || (size_t)it->rec.shape[0] != n)
		return err_set(e, ERR_BUG, it->rec.name, "vector where [%zu] was expected", n);
	if (*dst == NULL)
		*dst = be->ops->alloc(be, nbytes, e);
	if (*dst == NULL)
		return -1;
	if (it->rec.dtype == DT_F32)
		return be->ops->upload(be, *dst, it->data, nbytes, e);
	wide = malloc(nbytes);
	if (wide == NULL)
		return err_nomem(e, it->rec.name, nbytes);
	ret = dtype_to_f32(wide, it->data, it->rec.dtype, n);
	if (ret < 0)
		err_set(e, ERR_DATA, it->rec.name, "%s is not a floating-point type of weights",
			dtype_name(it->rec.dtype));
	else
		ret = be->ops->upload(be, *dst, wide, nbytes, e);
	free(wide);
	return ret;
}

int device_matrix(struct backend *be, struct packed **p, const struct item *it, struct err *e)
{
	const struct record *r = &it->rec;
	size_t cols = 1;

	if (r->rank < 2 || (r->role != ROLE_WEIGHT && r->role != ROLE_REF))
		return err_set(e, ERR_DATA, r->name, "%s where a weight matrix was expected",
			       role_name(r->role));
	for (int i = 1; i < r->rank; i++)
		cols *= (size_t)r->shape[i];
	return be->ops->pack(be, p, it->data, r->dtype, (size_t)r->shape[0], cols, e);
}

static int fill(struct backend *be, float **dst, float *host, size_t n, float value, struct err *e)
{
	for (size_t i = 0; i < n; i++)
		host[i] = value;
	*dst = be->ops->alloc(be, n * sizeof(*host), e);
	return *dst == NULL ? -1 : be->ops->upload(be, *dst, host, n * sizeof(*host), e);
}

int device_constants(struct backend *be, float **ones, float **zeros, size_t n, struct err *e)
{
	float *host = malloc(n * sizeof(*host));
	int ret;

	if (host == NULL)
		return err_nomem(e, "norm", n * sizeof(*host));
	ret = fill(be, ones, host, n, 1, e);
	if (ret == 0)
		ret = fill(be, zeros, host, n, 0, e);
	free(host);
	return ret;
}
