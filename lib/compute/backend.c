/* SPDX-License-Identifier: Apache-2.0 */
/* backend.c - which column of the backend table a --device names */
#include <stdlib.h>
#include <string.h>

#include "lib/compute/backend.h"
#include "lib/compute/columns.h"

static int open_cuda(const char *device, struct err *e)
{
	const char *n = device + 4;

	if (*n && (*n != ':' || !n[1] || n[1 + strspn(n + 1, "0123456789")] || strlen(n) > 5))
		return err_set(e, ERR_USAGE, "--device", "expected cpu, cuda or cuda:N, got '%s'",
			       device);
	return err_set(e, ERR_UNAVAIL, "--device", "%s: this build has no CUDA backend", device);
}

int backend_open(struct backend *b, const char *device, int threads, struct err *e)
{
	memset(b, 0, sizeof(*b));
	if (!strcmp(device, "cpu"))
		return backend_cpu_open(b, threads, e);
	if (!strncmp(device, "cuda", 4))
		return open_cuda(device, e);
	return err_set(e, ERR_USAGE, "--device", "expected cpu, cuda or cuda:N, got '%s'", device);
}

int backend_compute(struct backend *b, const char *compute, struct err *e)
{
	for (int c = COMPUTE_F32; c <= COMPUTE_BF16X3; c++)
		if (!strcmp(compute, compute_name((enum compute)c))) {
			b->compute = (enum compute)c;
			backend_cpu_name(b);
			return 0;
		}
	if (!strcmp(compute, "int") || !strcmp(compute, "fake")) {
		b->integers = !strcmp(compute, "int");
		return 0;
	}
	return err_set(e, ERR_USAGE, "--compute", "expected f32, bf16, bf16x3, int or fake, "
		       "got '%s'", compute);
}

void backend_close(struct backend *b)
{
	if (b->ops)
		backend_cpu_close(b);
	memset(b, 0, sizeof(*b));
}
