/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cpu_blas.c - OpenBLAS, loaded when a backend is opened
 *
 * It is not linked, for two things happen that cannot be undone.  Its constructor starts a
 * thread per core, which the pool has no use for and which in little memory it waits for
 * without end; so it is loaded with OPENBLAS_NUM_THREADS=1, and by programs that compute only.
 * And where it finds no memory for the buffer that a call works in it tries again without end;
 * so it gets a buffer for every thread here, where their lack can be reported.  It keeps them
 * for all later calls: a call takes one and gives it back.
 */
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "lib/compute/cpu.h"

#define LIBRARY	    "libopenblas.so.0"
#define LIBRARY_MIB 64 /* at least what it takes with the Fortran library it needs */
#define BUFFER_MIB  128 /* BUFFER_SIZE of OpenBLAS on x86-64 and arm64 */
#define MORE_CALLS  512 /* NEW_BUFFERS of OpenBLAS */

static int room_for(size_t mib)
{
	void *p = mmap(NULL, mib << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return p != MAP_FAILED && munmap(p, mib << 20) == 0;
}

/* An environment variable set for a while; *keep is what it was. */
static int borrow(const char *var, const char *value, char **keep)
{
	const char *was = getenv(var);

	*keep = was ? strdup(was) : NULL;
	return (was && !*keep) || setenv(var, value, 1) != 0 ? -1 : 0;
}

static void give_back(const char *var, char *keep)
{
	if (keep)
		setenv(var, keep, 1);
	else
		unsetenv(var);
	free(keep);
}

/* It chooses its kernels by itself when it is loaded; below what the processor has it must be told.
 * NULL: by itself. */
static const char *core_for(const struct vec_set *set)
{
	if (!set->capped || set->level > VEC_VNNI || getenv("OPENBLAS_CORETYPE"))
		return NULL;
	return set->level >= VEC_AVX512 ? "SkylakeX" : set->level == VEC_AVX2 ? "Haswell" :
									       "Prescott";
}

/* dlopen with OPENBLAS_NUM_THREADS=1, and OPENBLAS_CORETYPE where QP_CPU asks for less. */
static void *load(const struct vec_set *set, struct err *e)
{
	static const char threads[] = "OPENBLAS_NUM_THREADS", type[] = "OPENBLAS_CORETYPE";
	const char *core = core_for(set);
	char *keep[2] = { NULL, NULL };
	void *lib = NULL;

	if (!room_for(LIBRARY_MIB) || borrow(threads, "1", &keep[0]) < 0 ||
	    (core && borrow(type, core, &keep[1]) < 0)) {
		free(keep[0]);
		free(keep[1]);
		err_nomem(e, LIBRARY, (size_t)LIBRARY_MIB << 20);
		return NULL;
	}
	/* it stays when its handle is closed, for the functions and the next backend */
	lib = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
	if (!lib)
		err_set(e, ERR_UNAVAIL, "", "%s", dlerror());
	give_back(threads, keep[0]);
	if (core)
		give_back(type, keep[1]);
	return lib;
}

static int find(struct blas *b, void *lib, struct err *e)
{
	const struct {
		const char *name;
		void *to; /* a pointer to a function */
	} want[] = {
		{ "cblas_sgemm", &b->sgemm },
		{ "cblas_ssyrk", &b->ssyrk },
		{ "dsyevd_", &b->dsyevd },
		{ "openblas_get_config", &b->config },
		{ "openblas_get_corename", &b->corename },
		{ "openblas_get_parallel", &b->parallel },
		{ "openblas_set_num_threads", &b->set_num_threads },
		{ "blas_memory_alloc", &b->memory_alloc },
		{ "blas_memory_free", &b->memory_free },
	};

	for (size_t i = 0; i < sizeof(want) / sizeof(want[0]); i++) {
		void *f = dlsym(lib, want[i].name);

		/* not of its interface, and needed only where memory is short */
		if (!f && strncmp(want[i].name, "blas_memory_", 12) == 0)
			continue;
		if (!f)
			return err_set(e, ERR_UNAVAIL, LIBRARY, "it has no %s", want[i].name);
		memcpy(want[i].to, &f, sizeof(f));
	}
	return 0;
}

/* From how many threads it can be called at the same time; further calls would write a message
 * to standard output and fail.  Its configuration names half of the buffers it has room to note
 * without allocating more of it. */
static int most_threads(const struct blas *b)
{
	const char *name = "MAX_THREADS=", *max = strstr(b->config(), name);

	if (b->parallel() == 0) /* it takes its buffers without a lock */
		return 1;
	return (max ? 2 * (int)strtol(max + strlen(name), NULL, 10) : 0) + MORE_CALLS;
}

/* All at the same time, so that OpenBLAS has as many as there are threads. */
static int reserve(const struct blas *b, int threads, struct err *e)
{
	void **buffer;
	int n = 0;

	if (!b->memory_alloc || !b->memory_free)
		return 0;
	buffer = calloc((size_t)threads, sizeof(*buffer));
	while (buffer && n < threads && room_for(BUFFER_MIB))
		buffer[n++] = b->memory_alloc(0);
	for (int i = 0; i < n; i++)
		b->memory_free(buffer[i]);
	free(buffer);
	if (n < threads)
		return err_set(e, ERR_NOMEM, LIBRARY, "out of memory for %d buffer%s of %d MiB, "
			       "one a thread", threads, threads == 1 ? "" : "s", BUFFER_MIB);
	return 0;
}

int blas_open(struct blas *b, const struct vec_set *set, int threads, struct err *e)
{
	void *lib = load(set, e);
	int rc;

	if (!lib)
		return -1;
	rc = find(b, lib, e);
	dlclose(lib);
	if (rc < 0)
		return -1;
	b->set_num_threads(1); /* someone else may have loaded it before */
	if (threads > most_threads(b))
		return err_set(e, ERR_UNAVAIL, LIBRARY, "this build of OpenBLAS can be called from "
			       "%d thread%s at most, not %d; see -j", most_threads(b),
			       most_threads(b) == 1 ? "" : "s", threads);
	return reserve(b, threads, e);
}
