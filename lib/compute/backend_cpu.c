/* SPDX-License-Identifier: Apache-2.0 */
/*
 * backend_cpu.c - the CPU column: its table and its memory
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "lib/compute/columns.h"
#include "lib/compute/cpu.h"

void *cpu_malloc(size_t nbytes)
{
	size_t align = nbytes >= CPU_HUGE ? CPU_HUGE : CPU_ALIGN;
	void *p;

	if (nbytes > SIZE_MAX - align)
		return NULL;
	nbytes = nbytes ? (nbytes + CPU_ALIGN - 1) / CPU_ALIGN * CPU_ALIGN : CPU_ALIGN;
	if (posix_memalign(&p, align, nbytes))
		return NULL;
	if (align == CPU_HUGE)
		madvise(p, nbytes, MADV_HUGEPAGE); /* a wish: failing costs speed only */
	return p;
}

static void *cpu_alloc(struct backend *b, size_t nbytes, struct err *e)
{
	void *p = cpu_malloc(nbytes);

	(void)b;
	if (!p)
		err_nomem(e, "", nbytes);
	return p;
}

static void cpu_free(struct backend *b, void *p)
{
	(void)b;
	free(p);
}

static int cpu_copy(struct backend *b, void *dst, const void *src, size_t nbytes, struct err *e)
{
	(void)b;
	(void)e;
	if (nbytes)
		memmove(dst, src, nbytes);
	return 0;
}

int cpu_scratch(struct backend *b, size_t nbytes, struct err *e)
{
	struct cpu *c = cpu_of(b);

	if (nbytes <= c->scratch_bytes)
		return 0;
	c->scratch_bytes = 0;
	for (int i = 0; i < c->threads; i++) {
		free(c->scratch[i]);
		c->scratch[i] = cpu_malloc(nbytes);
		if (!c->scratch[i])
			return err_nomem(e, "", nbytes);
	}
	c->scratch_bytes = nbytes;
	return 0;
}

int cpu_shared(struct backend *b, size_t nbytes, struct err *e)
{
	struct cpu *c = cpu_of(b);

	if (nbytes <= c->shared_bytes)
		return 0;
	free(c->shared);
	c->shared_bytes = 0;
	c->shared = cpu_malloc(nbytes);
	if (!c->shared)
		return err_nomem(e, "", nbytes);
	c->shared_bytes = nbytes;
	return 0;
}

size_t cpu_parts(size_t n, size_t max, size_t unit, size_t *part)
{
	size_t count = (n + max - 1) / max;

	if (!count)
		count = 1;
	*part = (n + count - 1) / count;
	*part = (*part + unit - 1) / unit * unit;
	return *part ? (n + *part - 1) / *part : 0;
}

static const struct backend_ops cpu_ops = {
	.alloc = cpu_alloc,
	.free = cpu_free,
	.upload = cpu_copy,
	.download = cpu_copy,
	.pack = cpu_pack,
	.pack_free = cpu_pack_free,
	.linear = cpu_linear,
	.pack_i8 = cpu_pack_i8,
	.pack_i8_free = cpu_pack_i8_free,
	.linear_i8 = cpu_linear_i8,
	.rmsnorm = cpu_rmsnorm,
	.layernorm = cpu_layernorm,
	.rope = cpu_rope,
	.attention = cpu_attention,
	.gate = cpu_gate,
	.hadamard = cpu_hadamard,
	.gather = cpu_gather,
	.scatter_add = cpu_scatter_add,
	.affine = cpu_affine,
	.quantize = cpu_quantize,
	.nll = cpu_nll,
	.colstats = cpu_colstats,
	.hessian_new = cpu_hessian_new,
	.hessian_free = cpu_hessian_free,
	.hessian_zero = cpu_hessian_zero,
	.hessian_add = cpu_hessian_add,
	.hessian_get = cpu_hessian_get,
	.panel_factor = cpu_panel_factor,
	.gemm = cpu_gemm,
	.gemm64 = cpu_gemm64,
	.eigen64 = cpu_eigen64,
};

void backend_cpu_name(struct backend *b)
{
	const struct cpu *c = cpu_of(b);
	char version[32] = "";

	sscanf(c->blas.config(), "OpenBLAS %31s", version);
	snprintf(b->name, sizeof(b->name), "cpu %s%s %s, openblas %s %s", c->set.name,
		 c->set.refused, compute_name(b->compute), version, c->blas.corename());
}

int backend_cpu_open(struct backend *b, int threads, struct err *e)
{
	bool shared = threads < 1;
	struct cpu *c;

	if (shared)
		threads = pool_cores();
	c = calloc(1, sizeof(*c));
	if (!c)
		return err_nomem(e, "", sizeof(*c));
	b->priv = c;
	b->ops = &cpu_ops;
	if (vec_select(&c->set, e) < 0) {
		backend_cpu_close(b);
		return -1;
	}
	c->vec = c->set.ops;
	if (c->set.level == VEC_PLAIN)
		b->warning = "without AVX2 plain C computes, slowly";
	c->threads = threads;
	c->scratch = calloc((size_t)threads, sizeof(*c->scratch));
	if (!c->scratch) {
		backend_cpu_close(b);
		return err_nomem(e, "", (size_t)threads * sizeof(*c->scratch));
	}
	b->pool = pool_new(threads, e);
	if (!b->pool || blas_open(&c->blas, &c->set, threads, e) < 0) {
		backend_cpu_close(b);
		return -1;
	}
	b->alone.cls = ERR_NONE;
	if (shared && pool_share(b->pool, &b->alone) == 0)
		b->alone.cls = ERR_NONE;
	backend_cpu_name(b);
	return 0;
}

void backend_cpu_close(struct backend *b)
{
	struct cpu *c = cpu_of(b);

	if (b->pool)
		pool_free(b->pool);
	for (int i = 0; c->scratch && i < c->threads; i++)
		free(c->scratch[i]);
	free(c->scratch);
	free(c->shared);
	free(c);
	memset(b, 0, sizeof(*b));
}
