/* SPDX-License-Identifier: Apache-2.0 */
/*
 * plan.h - how many bits each linear gets: a file that qp-alloc writes and quantizers obey
 *
 *     # quantpipe plan 1
 *     # shapes xxh64:8d0c9b1f22a3e47c
 *     model.layers.0.self_attn.q_proj.weight<TAB>4<TAB>64
 *
 * Lines: a tensor's name, bits (2 .. 8) and, if it is not the program's, the group (as -g).
 * Further lines that begin with # are comments.  The second line may be missing from a plan
 * written by hand; with it the plan serves no model of other names or shapes.
 */
#ifndef QP_PLAN_H
#define QP_PLAN_H

#include "lib/base/buf.h"
#include "lib/model/family.h"

struct plan_row {
	char name[256];
	int bits;
	bool has_group;
	long group;
};

struct plan {
	char shapes[32]; /* "xxh64:...", or empty */
	struct plan_row *rows; /* by name */
	size_t n, cap;
};

enum { PLAN_SHAPES = 32 };

/* The fingerprint of names and shapes of all linears of a model. */
void plan_shapes(const struct model *m, char out[PLAN_SHAPES]);

/* ERR_NOINPUT; ERR_DATA with the line that is no plan's; ERR_VERSION for a newer plan. */
int plan_read(struct plan *p, const char *path, struct err *e) MUST_USE;
void plan_release(struct plan *p);

/* ERR_DATA when the plan is for other shapes, or names what this model has no linear for. */
int plan_check(const struct plan *p, const struct model *m, struct err *e) MUST_USE;

/* The row of a linear's tensor, or NULL: the program's own options hold. */
const struct plan_row *plan_find(const struct plan *p, const char *name);

/* The two lines at the top, and one for a linear. */
void plan_put_head(struct buf *out, const struct model *m);
void plan_put_row(struct buf *out, const struct plan_row *row);

#endif
