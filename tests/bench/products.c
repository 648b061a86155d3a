/* SPDX-License-Identifier: Apache-2.0 */
/*
 * products.c - matrix products of short numbers beside the registers and OpenBLAS (row T1);
 * see pairs.h
 */
#include "lib/compute/vec.h"
#include "tests/bench/pairs.h"

#define PEAK_STEPS 2000000

#ifdef __x86_64__
/* 24 sums that never leave the registers; 48 products of numbers in a step for each 16 lanes. */
#define PEAK(name, insn)                                                                     \
	static void name(void *ctx, size_t task, int thread)                                 \
	{                                                                                    \
		long n = PEAK_STEPS;                                                         \
                                                                                             \
		(void)ctx;                                                                   \
		(void)task;                                                                  \
		(void)thread;                                                                \
		__asm__ volatile(                                                            \
			".irp r,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22," \
			"23,24,25\n vpxord %%zmm\\r,%%zmm\\r,%%zmm\\r\n .endr\n"             \
			"1:\n"                                                               \
			".irp r,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22," \
			"23\n " insn " %%zmm24,%%zmm25,%%zmm\\r\n .endr\n"                   \
			"dec %0\n jnz 1b\n vzeroupper\n"                                     \
			: "+r"(n) :: "cc");                                                  \
	}

PEAK(peak_i8, "vpdpbusd")
PEAK(peak_bf16, "vdpbf16ps")
#else
static void peak_i8(void *ctx, size_t task, int thread)
{
	(void)ctx;
	(void)task;
	(void)thread;
}
#define peak_bf16 peak_i8
#endif

struct peak {
	void (*fn)(void *ctx, size_t task, int thread);
};

static void run_peak(void *arg)
{
	const struct peak *p = arg;

	pool_run(all.pool, (size_t)threads, p->fn, NULL);
}

/* Operations of run_peak with so many products in a lane of 32 bits. */
static double peak_ops(int products)
{
	return (double)threads * PEAK_STEPS * 24 * 16 * 2 * products;
}

struct product {
	size_t t, n, k;
	int8_t *x, *w;
	int32_t *y;
	struct packed_i8 *p;
};

static void run_i8(void *arg)
{
	struct product *p = arg;
	struct err e;

	check(all.ops->linear_i8(&all, p->y, p->n, p->x, p->k, p->t, p->p, &e), &e);
}

static void bench_i8(size_t t, size_t n, size_t k, double aim)
{
	struct product p = { .t = t, .n = n, .k = k };
	double ops = 2.0 * (double)t * (double)n * (double)k, ta, tb, r;
	struct peak peak = { peak_i8 };
	struct side ours = { run_i8, &p, 0, NULL }, theirs = { run_peak, &peak, 0, NULL };
	char what[96];
	struct err e;

	p.x = (int8_t *)randoms(&all, t * k / 4 + 1);
	p.w = (int8_t *)randoms(&all, n * k / 4 + 1);
	p.y = (int32_t *)randoms(&all, t * n);
	check(all.ops->pack_i8(&all, &p.p, p.w, n, k, &e), &e);
	r = compare(&ours, &theirs, &ta, &tb);
	snprintf(what, sizeof(what), "int8 %zu x %zu x %zu / vpdpbusd in registers", t, n, k);
	report("T1", what, ops / ta * 1e-9, r * ops / peak_ops(4), aim);
	all.ops->pack_i8_free(&all, p.p);
	all.ops->free(&all, p.x);
	all.ops->free(&all, p.w);
	all.ops->free(&all, p.y);
}

struct linear {
	struct backend *b;
	size_t t, n, k;
	float *x, *w, *y;
	struct packed *p;
};

static void run_linear(void *arg)
{
	struct linear *l = arg;
	struct err e;

	check(l->b->ops->linear(l->b, l->y, l->n, l->x, l->k, l->t, l->p, NULL, 0, &e), &e);
}

static void run_sgemm(void *arg)
{
	struct linear *l = arg;

	cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)l->t, (int)l->n, (int)l->k, 1.0f,
		    l->x, (int)l->k, l->w, (int)l->k, 0.0f, l->y, (int)l->n);
}

/* bf16 beside the registers and OpenBLAS's f32. */
static void bench_bf16(size_t t, size_t n, size_t k, double aim, double aim_sgemm)
{
	struct linear l = { &all, t, n, k, NULL, NULL, NULL, NULL };
	double ops = 2.0 * (double)t * (double)n * (double)k, ta, tb, r;
	struct peak peak = { peak_bf16 };
	struct side ours = { run_linear, &l, 0, NULL }, registers = { run_peak, &peak, 0, NULL };
	struct side theirs = { run_sgemm, &l, threads, NULL };
	char what[96];
	struct err e;

	l.x = randoms(&all, t * k);
	l.w = randoms(&all, n * k);
	l.y = randoms(&all, t * n);
	check(backend_compute(&all, "bf16", &e), &e);
	check(all.ops->pack(&all, &l.p, l.w, DT_F32, n, k, &e), &e);
	r = compare(&ours, &registers, &ta, &tb);
	snprintf(what, sizeof(what), "bf16 %zu x %zu x %zu / vdpbf16ps in registers", t, n, k);
	report("T1", what, ops / ta * 1e-9, r * ops / peak_ops(2), aim);
	r = compare(&ours, &theirs, &ta, &tb);
	snprintf(what, sizeof(what), "bf16 %zu x %zu x %zu / sgemm", t, n, k);
	report("T1", what, ops / ta * 1e-9, r, aim_sgemm);
	check(backend_compute(&all, "f32", &e), &e);
	all.ops->pack_free(&all, l.p);
	all.ops->free(&all, l.x);
	all.ops->free(&all, l.w);
	all.ops->free(&all, l.y);
}

int main(int argc, char **argv)
{
	int ret = pairs_begin(argc, argv);

	if (ret)
		return ret;
	if (want("T1") && vec_level() < VEC_BF16) {
		puts("T1\tnot measured: no AVX-512 VNNI and BF16 here\t\t\t\t");
	} else if (want("T1")) {
		bench_bf16(2048, 2048, 2048, 0.85, 2.0);
		bench_bf16(2048, 4096, 4096, 0.85, 2.0);
		bench_bf16(2048, 576, 576, 0, 0);
		bench_bf16(2048, 1536, 576, 0, 0);
		bench_bf16(2048, 576, 1536, 0, 0);
		bench_i8(2048, 2048, 2048, 0.5);
		bench_i8(2048, 576, 576, 0);
		bench_i8(2048, 1536, 576, 0);
		bench_i8(2048, 576, 1536, 0);
		bench_i8(2048, 4096, 4096, 0);
	}
	pairs_end();
	return 0;
}
