/* SPDX-License-Identifier: Apache-2.0 */
/*
 * files.h - files that a unit test writes: a folder of its own, emptied at the end
 */
#ifndef QP_TEST_FILES_H
#define QP_TEST_FILES_H

#include <dirent.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char files_dir[256];

/* The folder; made at the first call. */
static inline const char *files_in(void)
{
	const char *tmp = getenv("TMPDIR");

	if (!files_dir[0]) {
		snprintf(files_dir, sizeof(files_dir), "%.200s/quantpipe-unit-XXXXXX",
			 tmp ? tmp : "/tmp");
		if (!mkdtemp(files_dir)) {
			perror(files_dir);
			exit(2);
		}
	}
	return files_dir;
}

/* "folder/name", in a buffer that lasts until the fourth call after this one. */
__attribute__((format(printf, 1, 2)))
static inline const char *file_path(const char *fmt, ...)
{
	static char path[4][600];
	static int turn;
	char *p = path[turn++ & 3];
	va_list ap;
	int n = snprintf(p, 600, "%s/", files_in());

	va_start(ap, fmt);
	vsnprintf(p + n, (size_t)(600 - n), fmt, ap);
	va_end(ap);
	return p;
}

static inline void file_write(const char *path, const void *data, size_t n)
{
	FILE *f = fopen(path, "wb");

	if (!f || fwrite(data, 1, n, f) != n || fclose(f)) {
		perror(path);
		exit(2);
	}
}

/* The whole file with a NUL after it; NULL if it is not there. */
static inline char *file_slurp(const char *path, size_t *n)
{
	FILE *f = fopen(path, "rb");
	size_t cap = 1 << 16, got;
	char *p;

	if (!f)
		return NULL;
	p = malloc(cap);
	*n = 0;
	while (p && (got = fread(p + *n, 1, cap - *n - 1, f)) > 0) {
		*n += got;
		if (cap - *n == 1)
			p = realloc(p, cap *= 2);
	}
	fclose(f);
	if (p)
		p[*n] = '\0';
	return p;
}

/* A safetensors file: header, its length as `length` says (0: the truth), n bytes of data. */
static inline void file_write_st(const char *path, const char *header, uint64_t length,
				 const void *data, size_t n)
{
	FILE *f = fopen(path, "wb");
	size_t h = strlen(header);
	unsigned char le[8];

	for (int i = 0; i < 8; i++)
		le[i] = (unsigned char)((length ? length : h) >> (8 * i));
	if (!f || fwrite(le, 1, 8, f) != 8 || fwrite(header, 1, h, f) != h ||
	    fwrite(data, 1, n, f) != n || fclose(f)) {
		perror(path);
		exit(2);
	}
}

/* JSON is written with ' for " in the tests: the text with the quotes it should have, in a buffer
 * that lasts until the second call after this one. */
static inline const char *quoted(const char *json)
{
	static char text[2][4096];
	static int turn;
	char *s = text[turn++ & 1];

	snprintf(s, sizeof(text[0]), "%s", json);
	for (char *p = s; (p = strchr(p, '\'')); p++)
		*p = '"';
	return s;
}

/* Remove the folder: one level of folders in it. */
static inline void files_remove(void)
{
	char path[1024];
	struct dirent *d;
	DIR *dir;

	if (!files_dir[0])
		return;
	for (int depth = 0; depth < 2; depth++) {
		dir = opendir(files_dir);
		while (dir && (d = readdir(dir))) {
			DIR *sub;
			struct dirent *s;

			snprintf(path, sizeof(path), "%s/%s", files_dir, d->d_name);
			if (d->d_name[0] == '.' || unlink(path) == 0)
				continue;
			sub = opendir(path);
			while (sub && (s = readdir(sub))) {
				snprintf(path, sizeof(path), "%s/%s/%s", files_dir, d->d_name,
					 s->d_name);
				unlink(path);
			}
			if (sub)
				closedir(sub);
			snprintf(path, sizeof(path), "%s/%s", files_dir, d->d_name);
			rmdir(path);
		}
		if (dir)
			closedir(dir);
	}
	rmdir(files_dir);
	files_dir[0] = '\0';
}

/* A folder of models and texts beside the checkout, or what QP_SHARED says; "" if absent. */
static inline const char *shared_path(const char *name)
{
	static char path[1024];
	const char *base = getenv("QP_SHARED");

	snprintf(path, sizeof(path), "%s/%s", base ? base : "../shared/data", name);
	return access(path, R_OK) == 0 ? path : "";
}

#endif
