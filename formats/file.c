/* SPDX-License-Identifier: Apache-2.0 */
/*
 * file.c - reading foreign files
 */
#include "formats/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Large enough that the cost of a call is nothing, small enough to be interrupted. */
#define PIECE ((uint64_t)64 << 20)

const char *file_base(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

int file_open(const char *path, const char *where, uint64_t *size, struct err *e)
{
	struct stat st;
	/* A FIFO put in the place of a file must not hold us up: O_NONBLOCK. */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

	if (fd < 0)
		return err_errno(e, ERR_NOINPUT, where, "cannot open");
	if (fstat(fd, &st)) {
		err_errno(e, ERR_IO, where, "cannot stat");
	} else if (!S_ISREG(st.st_mode)) {
		err_set(e, ERR_NOINPUT, where, "%s",
			S_ISDIR(st.st_mode) ? "is a directory" : "is not a regular file");
	} else {
		*size = (uint64_t)st.st_size;
		return fd;
	}
	close(fd);
	return -1;
}

int file_pread(int fd, void *dst, uint64_t n, uint64_t offset, const char *where, struct err *e)
{
	char *p = dst;

	while (n) {
		ssize_t r = pread(fd, p, n < PIECE ? n : PIECE, (off_t)offset);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return err_errno(e, ERR_IO, where, "cannot read at byte %llu",
					 (unsigned long long)offset);
		if (r == 0)
			return err_set(e, ERR_DATA, where, "file ends at byte %llu, %llu short",
				       (unsigned long long)offset, (unsigned long long)n);
		p += r;
		n -= (uint64_t)r;
		offset += (uint64_t)r;
	}
	return 0;
}

int file_read(const char *path, const char *where, size_t max, char **text, size_t *n,
	      struct err *e)
{
	uint64_t size;
	int fd = file_open(path, where, &size, e);
	int ret = -1;

	if (fd < 0)
		return -1;
	*text = NULL;
	if (size > max) {
		err_set(e, ERR_DATA, where, "file of %llu bytes is too large (at most %zu)",
			(unsigned long long)size, max);
	} else if (!(*text = malloc((size_t)size + 1))) {
		err_nomem(e, where, size + 1);
	} else if (!file_pread(fd, *text, size, 0, where, e)) {
		(*text)[size] = '\0';
		*n = (size_t)size;
		ret = 0;
	}
	if (ret) {
		free(*text);
		*text = NULL;
	}
	close(fd);
	return ret;
}
