/* SPDX-License-Identifier: Apache-2.0 */
/*
 * device.h - small things of a block on the device: norms, biases, tables
 */
#ifndef QP_DEVICE_H
#define QP_DEVICE_H

#include "lib/compute/backend.h"
#include "lib/model/block.h"

/*
 * *dst [n] f32 on the device from a float item on the host (which stays as it is), allocated if
 * NULL.  ERR_BUG if the item has another length.
 */
int device_vector(struct backend *be, float **dst, const struct item *it, size_t n,
		  struct err *e) MUST_USE;

/* A weight matrix packed for the device, a tensor of more dimensions as the first by the product of
 * the others; *p is reused. */
int device_matrix(struct backend *be, struct packed **p, const struct item *it,
		  struct err *e) MUST_USE;

/* *ones and *zeros [n]: gain and bias of a norm that has none of its own. */
int device_constants(struct backend *be, float **ones, float **zeros, size_t n,
		     struct err *e) MUST_USE;

#endif
