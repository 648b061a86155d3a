/* SPDX-License-Identifier: Apache-2.0 */
/*
 * onednn.c - our matrix products beside oneDNN's, in one run (row T1); see pairs.h
 *
 * oneDNN is loaded where it is installed with its headers; nothing else needs it.  Its weights are
 * packed once, in the form it asks for, as ours are.  We get X in f32, which we round on the way;
 * so does oneDNN in the rows that say so, otherwise X is bf16 beforehand.  int8 is signed on both
 * sides, into int32.  What it showed, and the decision: lib/compute/cpu_linear.c.
 */
#include <dlfcn.h>
#include <stdint.h>

#include "tests/bench/pairs.h"

#if defined(__has_include) && __has_include(<oneapi/dnnl/dnnl.h>)
#include <oneapi/dnnl/dnnl.h>

#define LIBRARY "libdnnl.so.2"
#define CALLS(X)                                                                                \
	X(engine_create) X(stream_create) X(stream_wait) X(memory_desc_init_by_tag)             \
	X(matmul_desc_init) X(primitive_desc_create) X(primitive_desc_query_md)                 \
	X(primitive_create) X(primitive_execute) X(memory_create)                               \
	X(reorder_primitive_desc_create) X(primitive_desc_destroy) X(primitive_destroy)         \
	X(memory_destroy)

static struct {
#define CALL(name) __typeof__(dnnl_##name) *name;
	CALLS(CALL)
#undef CALL
	dnnl_engine_t engine;
	dnnl_stream_t stream;
} dnn;

static void good(dnnl_status_t s)
{
	if (s != dnnl_success) {
		fprintf(stderr, "bench: oneDNN: status %d\n", (int)s);
		exit(70);
	}
}

/* With so many threads as the backend; 0: it is not here. */
static int load(void)
{
	char n[16];
	void *lib, *f;

	snprintf(n, sizeof(n), "%d", threads);
	setenv("OMP_NUM_THREADS", n, 1);
	lib = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
	if (!lib)
		return 0;
#define CALL(name)                                                                              \
	f = dlsym(lib, "dnnl_" #name);                                                          \
	if (!f)                                                                                 \
		return 0;                                                                       \
	memcpy(&dnn.name, &f, sizeof(f));
	CALLS(CALL)
#undef CALL
	good(dnn.engine_create(&dnn.engine, dnnl_cpu, 0));
	good(dnn.stream_create(&dnn.stream, dnn.engine, dnnl_stream_default_flags));
	return 1;
}

static dnnl_memory_desc_t matrix(size_t rows, size_t columns, dnnl_data_type_t t,
				 dnnl_format_tag_t tag)
{
	const dnnl_dims_t dims = { (dnnl_dim_t)rows, (dnnl_dim_t)columns };
	dnnl_memory_desc_t d;

	good(dnn.memory_desc_init_by_tag(&d, 2, dims, t, tag));
	return d;
}

static dnnl_memory_t memory(const dnnl_memory_desc_t *d, void *at)
{
	dnnl_memory_t m;

	good(dnn.memory_create(&m, d, dnn.engine, at));
	return m;
}

static dnnl_primitive_t primitive(dnnl_primitive_desc_t d)
{
	dnnl_primitive_t p;

	good(dnn.primitive_create(&p, d));
	good(dnn.primitive_desc_destroy(d));
	return p;
}

static dnnl_primitive_t reorder(const dnnl_memory_desc_t *from, const dnnl_memory_desc_t *to)
{
	dnnl_primitive_desc_t d;

	good(dnn.reorder_primitive_desc_create(&d, from, dnn.engine, to, dnn.engine, NULL));
	return primitive(d);
}

static void move(dnnl_primitive_t p, dnnl_memory_t from, dnnl_memory_t to)
{
	const dnnl_exec_arg_t args[] = { { DNNL_ARG_FROM, from }, { DNNL_ARG_TO, to } };

	good(dnn.primitive_execute(p, dnn.stream, 2, args));
	good(dnn.stream_wait(dnn.stream));
}

/* One product, theirs and ours. */
struct product {
	size_t t, n, k;
	float *x, *w, *y;
	struct packed *p;
	struct packed_i8 *p8;
	dnnl_primitive_t matmul, round; /* round: X to the type of the product */
	dnnl_memory_t from, xm, wm, ym; /* from: X as it is given */
};

static void run_theirs(void *arg)
{
	struct product *p = arg;
	const dnnl_exec_arg_t args[] = {
		{ DNNL_ARG_SRC, p->xm }, { DNNL_ARG_WEIGHTS, p->wm }, { DNNL_ARG_DST, p->ym },
	};

	good(dnn.primitive_execute(p->matmul, dnn.stream, 3, args));
	good(dnn.stream_wait(dnn.stream));
}

static void run_rounding(void *arg)
{
	struct product *p = arg;

	move(p->round, p->from, p->xm);
	run_theirs(p);
}

static void run_ours(void *arg)
{
	struct product *p = arg;
	struct err e;

	if (p->p8)
		check(all.ops->linear_i8(&all, (int32_t *)p->y, p->n, (int8_t *)p->x, p->k, p->t,
					 p->p8, &e), &e);
	else
		check(all.ops->linear(&all, p->y, p->n, p->x, p->k, p->t, p->p, NULL, 0, &e), &e);
}

/* Their threads spin for a while when they have nothing more to do. */
static void rest(void *arg)
{
	struct timespec t = { 0, 20000000 };

	(void)arg;
	nanosleep(&t, NULL);
}

/* type: what is multiplied; given: what X and W are beforehand. */
static void theirs_init(struct product *p, dnnl_data_type_t type, dnnl_data_type_t given)
{
	dnnl_memory_desc_t x = matrix(p->t, p->k, type, dnnl_ab);
	dnnl_memory_desc_t from = matrix(p->t, p->k, given, dnnl_ab);
	dnnl_memory_desc_t any = matrix(p->k, p->n, type, dnnl_format_tag_any);
	dnnl_memory_desc_t w = matrix(p->k, p->n, given, dnnl_ba);
	dnnl_memory_desc_t y = matrix(p->t, p->n, type == dnnl_s8 ? dnnl_s32 : dnnl_f32, dnnl_ab);
	const dnnl_memory_desc_t *packed;
	dnnl_primitive_desc_t pd;
	dnnl_primitive_t pack;
	dnnl_matmul_desc_t d;
	dnnl_memory_t plain;

	good(dnn.matmul_desc_init(&d, &x, &any, NULL, &y));
	good(dnn.primitive_desc_create(&pd, &d, NULL, dnn.engine, NULL));
	packed = dnn.primitive_desc_query_md(pd, dnnl_query_weights_md, 0);
	p->from = memory(&from, p->x);
	p->xm = memory(&x, DNNL_MEMORY_ALLOCATE);
	p->wm = memory(packed, DNNL_MEMORY_ALLOCATE);
	p->ym = memory(&y, p->y);
	plain = memory(&w, p->w);
	pack = reorder(&w, packed);
	move(pack, plain, p->wm);
	good(dnn.primitive_destroy(pack));
	good(dnn.memory_destroy(plain));
	p->matmul = primitive(pd);
	p->round = reorder(&from, &x);
	move(p->round, p->from, p->xm);
}

static void theirs_release(struct product *p)
{
	dnnl_memory_t m[] = { p->from, p->xm, p->wm, p->ym };

	for (size_t i = 0; i < 4; i++)
		good(dnn.memory_destroy(m[i]));
	good(dnn.primitive_destroy(p->matmul));
	good(dnn.primitive_destroy(p->round));
}

static void row(const struct product *p, const char *type, const char *how,
		void (*run)(void *arg))
{
	struct side ours = { run_ours, (void *)p, 0, rest }, theirs = { run, (void *)p, 0, NULL };
	double ops = 2e-9 * (double)p->t * (double)p->n * (double)p->k, ta, tb;
	double r = compare(&ours, &theirs, &ta, &tb);
	char what[128];

	snprintf(what, sizeof(what), "%s %zu x %zu x %zu / oneDNN%s (%.0f)", type, p->t, p->n, p->k,
		 how, ops / tb);
	report("T1", what, ops / ta, r, 0.95);
}

static void bench(const char *type, size_t t, size_t n, size_t k)
{
	struct product p = { .t = t, .n = n, .k = k };
	int i8 = !strcmp(type, "int8"), bf16 = !strcmp(type, "bf16");
	struct err e;

	p.x = randoms(&all, i8 ? t * k / 4 + 1 : t * k);
	p.w = randoms(&all, i8 ? n * k / 4 + 1 : n * k);
	p.y = randoms(&all, t * n);
	check(backend_compute(&all, bf16 ? "bf16" : "f32", &e), &e);
	if (i8)
		check(all.ops->pack_i8(&all, &p.p8, (int8_t *)p.w, n, k, &e), &e);
	else
		check(all.ops->pack(&all, &p.p, p.w, DT_F32, n, k, &e), &e);
	theirs_init(&p, i8 ? dnnl_s8 : bf16 ? dnnl_bf16 : dnnl_f32, i8 ? dnnl_s8 : dnnl_f32);
	row(&p, type, "", run_theirs);
	if (bf16)
		row(&p, type, ", which rounds X", run_rounding);
	theirs_release(&p);
	all.ops->pack_free(&all, p.p);
	all.ops->pack_i8_free(&all, p.p8);
	all.ops->free(&all, p.x);
	all.ops->free(&all, p.w);
	all.ops->free(&all, p.y);
}

static void bench_all(void)
{
	static const char *const types[] = { "bf16", "f32", "int8" };
	static const size_t shapes[][2] = {
		{ 576, 576 }, { 1536, 576 }, { 576, 1536 }, { 2048, 2048 }, { 4096, 4096 },
	};

	if (!load()) {
		puts("T1\tnot measured: no oneDNN (" LIBRARY ")\t\t\t\t");
		return;
	}
	for (size_t i = 0; i < 3; i++)
		for (size_t j = 0; j < sizeof(shapes) / sizeof(*shapes); j++)
			bench(types[i], 2048, shapes[j][0], shapes[j][1]);
}
#else
static void bench_all(void)
{
	puts("T1\tnot measured: built without the headers of oneDNN\t\t\t\t");
}
#endif

int main(int argc, char **argv)
{
	int ret = pairs_begin(argc, argv);

	if (ret)
		return ret;
	if (want("T1"))
		bench_all();
	pairs_end();
	return 0;
}
