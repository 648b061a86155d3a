/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hidden.c - hidden states of all tokens: in memory, or in an unlinked file (--spill)
 */
#include "lib/model/hidden.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib/base/err.h"

/* A nameless file of nbytes in dir.  The space is taken now: a page that finds no room later
 * would be a signal, not an error. */
static int spill_file(const char *dir, size_t nbytes, struct err *e)
{
	char name[4096];
	int fd, ret;

	if (snprintf(name, sizeof(name), "%s/quantpipe-XXXXXX", dir) >= (int)sizeof(name))
		return err_set(e, ERR_CANTCREAT, dir, "name too long");
	fd = mkostemp(name, O_CLOEXEC);
	if (fd < 0)
		return err_errno(e, ERR_CANTCREAT, dir, "cannot create a spill file");
	unlink(name);
	do
		ret = posix_fallocate(fd, 0, (off_t)nbytes);
	while (ret == EINTR);
	if (ret != 0) {
		close(fd);
		errno = ret;
		return err_errno(e, ERR_IO, dir, "cannot reserve %zu bytes", nbytes);
	}
	return fd;
}

int hidden_open(struct hidden *h, size_t tokens, size_t width, const char *spill_dir,
		struct err *e)
{
	int fd = -1;
	void *p;

	memset(h, 0, sizeof(*h));
	if (tokens == 0 || width == 0 || tokens > SIZE_MAX / sizeof(float) / width)
		return err_set(e, ERR_DATA, "hidden states", "%zu tokens of %zu", tokens, width);
	h->mapped = tokens * width * sizeof(float);
	if (spill_dir != NULL) {
		fd = spill_file(spill_dir, h->mapped, e);
		if (fd < 0)
			return -1;
		p = mmap(NULL, h->mapped, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		close(fd);
	} else {
		p = mmap(NULL, h->mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			 0);
	}
	if (p == MAP_FAILED)
		return err_nomem(e, "hidden states", h->mapped);
	if (spill_dir == NULL)
		(void)madvise(p, h->mapped, MADV_HUGEPAGE); /* advice only */
	h->x = p;
	h->tokens = tokens;
	h->width = width;
	h->spilled = spill_dir != NULL;
	return 0;
}

void hidden_drop(struct hidden *h, size_t from, size_t n)
{
	const size_t page = (size_t)sysconf(_SC_PAGESIZE), row = h->width * sizeof(float);
	const size_t begin = from * row / page * page, end = (from + n) * row / page * page;

	/* A shared mapping: the pages stay in the file, only our hold on them ends. */
	if (h->spilled && end > begin)
		(void)madvise((char *)h->x + begin, end - begin, MADV_DONTNEED);
}

void hidden_close(struct hidden *h)
{
	if (h->x != NULL)
		munmap(h->x, h->mapped);
	memset(h, 0, sizeof(*h));
}
