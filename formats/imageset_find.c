/* SPDX-License-Identifier: Apache-2.0 */
/*
 * imageset_find.c - the pictures of a directory or of a list, and their labels
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "formats/imageset_impl.h"
#include "lib/data/slurp.h"

#define MAX_LIST ((size_t)1 << 30)

/* ---- directories -------------------------------------------------------------------------- */

struct names {
	char **at;
	size_t n, cap;
};

static void names_release(struct names *v)
{
	for (size_t i = 0; i < v->n; i++)
		free(v->at[i]);
	free(v->at);
}

static int names_add(struct names *v, const char *name, struct err *e)
{
	if (v->n == v->cap) {
		const size_t cap = v->cap ? 2 * v->cap : 64;
		char **at = realloc(v->at, cap * sizeof(*at));

		if (!at)
			return err_nomem(e, name, cap * sizeof(*at));
		v->at = at;
		v->cap = cap;
	}
	v->at[v->n] = strdup(name);
	return v->at[v->n] ? (v->n++, 0) : err_nomem(e, name, strlen(name) + 1);
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* What is in a directory, in the order of the names' bytes, without what begins with a dot. */
static int names_read(struct names *v, const char *path, struct err *e)
{
	DIR *d = opendir(path);
	const struct dirent *one;
	int ret = 0;

	memset(v, 0, sizeof(*v));
	if (!d)
		return err_errno(e, ERR_NOINPUT, path, "cannot open");
	errno = 0;
	while (!ret && (one = readdir(d)) != NULL) {
		if (one->d_name[0] != '.')
			ret = names_add(v, one->d_name, e);
		errno = 0;
	}
	if (!ret && errno)
		ret = err_errno(e, ERR_IO, path, "cannot read");
	closedir(d);
	if (ret)
		names_release(v);
	else if (v->n)
		qsort(v->at, v->n, sizeof(*v->at), by_name);
	return ret;
}

/* "dir/name", or name alone if dir is empty or name begins with a slash. */
static char *join(const char *dir, size_t len, const char *name, size_t n, struct err *e)
{
	char *path = malloc(len + n + 2);

	if (!path) {
		err_nomem(e, "images", len + n + 2);
		return NULL;
	}
	if (*name == '/' || !len)
		snprintf(path, len + n + 2, "%.*s", (int)n, name);
	else
		snprintf(path, len + n + 2, "%.*s%s%.*s", (int)len, dir,
			 dir[len - 1] == '/' ? "" : "/", (int)n, name);
	return path;
}

static bool is_dir(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static bool is_file(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

static bool picture_name(const char *name)
{
	static const char *const endings[] = { ".png", ".jpg", ".jpeg", ".ppm", ".pgm" };
	const char *dot = strrchr(name, '.');

	for (size_t i = 0; dot && i < sizeof(endings) / sizeof(endings[0]); i++)
		if (strcasecmp(dot, endings[i]) == 0)
			return true;
	return false;
}

/* Takes path. */
static int add_file(struct imageset *s, char *path, long label, struct err *e)
{
	const bool dir = is_dir(path);

	if (picture_name(path) && !dir)
		return imageset_add(s, NULL, path, 0, label, e);
	err_set(e, ERR_DATA, path, dir ? "a directory where only pictures should be" :
		"is not called as a picture is (*.png, *.jpg, *.jpeg, *.ppm, *.pgm)");
	free(path);
	return -1;
}

/* All of one directory. */
static int add_pictures(struct imageset *s, const char *path, long label, struct err *e)
{
	struct names v;
	int ret;

	if (names_read(&v, path, e))
		return -1;
	ret = v.n ? 0 : err_set(e, ERR_DATA, path, "has no picture in it");
	for (size_t i = 0; i < v.n && !ret; i++) {
		char *file = join(path, strlen(path), v.at[i], strlen(v.at[i]), e);

		ret = file ? add_file(s, file, label, e) : -1;
	}
	names_release(&v);
	return ret;
}

/*
 * Which class each directory is.  By its name (or number) if the model knows it; if it knows none
 * of them, by their order: they must be as many as there are classes then.
 */
static int directory_label(const struct image_model *m, const struct names *v, size_t i,
			   size_t known, const char *path, long *label, struct err *e)
{
	*label = image_model_class(m, v->at[i], strlen(v->at[i]));
	if (*label >= 0)
		return 0;
	*label = (long)i;
	if (known)
		return err_set(e, ERR_DATA, path, "the model has no class '%.80s'", v->at[i]);
	return v->n == m->nclasses ? 0 :
	       err_set(e, ERR_DATA, path, "has %zu directories for the model's %zu classes, and "
		       "none is called as one of them", v->n, m->nclasses);
}

static int add_classes(struct imageset *s, const struct names *v, const char *path, struct err *e)
{
	size_t known = 0;
	int ret = 0;

	for (size_t i = 0; i < v->n; i++)
		known += image_model_class(s->m, v->at[i], strlen(v->at[i])) >= 0;
	for (size_t i = 0; i < v->n && !ret; i++) {
		char *dir = join(path, strlen(path), v->at[i], strlen(v->at[i]), e);
		long label;

		ret = dir ? directory_label(s->m, v, i, known, path, &label, e) : -1;
		if (!ret)
			ret = add_pictures(s, dir, label, e);
		free(dir);
	}
	return ret;
}

int imageset_add_directory(struct imageset *s, const char *path, struct err *e)
{
	size_t dirs = 0;
	struct names v;
	int ret;

	if (names_read(&v, path, e))
		return -1;
	for (size_t i = 0; i < v.n; i++) {
		char *one = join(path, strlen(path), v.at[i], strlen(v.at[i]), e);

		if (!one) {
			names_release(&v);
			return -1;
		}
		dirs += is_dir(one);
		free(one);
	}
	if (dirs && dirs == v.n)
		ret = add_classes(s, &v, path, e);
	else
		ret = add_pictures(s, path, -1, e);
	names_release(&v);
	return ret;
}

/* ---- lists -------------------------------------------------------------------------------- */

struct list {
	struct imageset *s;
	const char *name; /* of the list, for messages */
	size_t dir;       /* so much of it is its directory */
	size_t line;      /* from 1 */
	struct err *e;
};

static int in_line(const struct list *l, enum err_class cls, const char *what, const char *text,
		   size_t len)
{
	char where[320];

	snprintf(where, sizeof(where), "%.200s: line %zu", l->name, l->line);
	for (size_t i = 0; i < len; i++)
		if ((unsigned char)text[i] < ' ')
			len = i;
	if (cls == ERR_NOINPUT)
		return err_errno(l->e, cls, where, "%s%.*s", what, len > 200 ? 200 : (int)len,
				 text);
	return err_set(l->e, cls, where, "%s'%.*s'", what, len > 80 ? 80 : (int)len, text);
}

static int take_line(const struct list *l, const char *text, size_t n)
{
	const char *tab = memchr(text, '\t', n);
	const size_t len = tab ? (size_t)(tab - text) : n;
	long label = -1;
	char *path;

	if (!len)
		return in_line(l, ERR_DATA, "no path before ", text, n);
	if (tab) {
		label = image_model_class(l->s->m, tab + 1, n - len - 1);
		if (label < 0)
			return in_line(l, ERR_DATA, "the model has no class ", tab + 1,
				       n - len - 1);
	}
	path = join(l->name, l->dir, text, len, l->e);
	if (!path)
		return -1;
	if (access(path, R_OK)) {
		free(path);
		return in_line(l, ERR_NOINPUT, "cannot open ", text, len);
	}
	return imageset_add(l->s, NULL, path, 0, label, l->e);
}

int imageset_add_list(struct imageset *s, const char *path, struct err *e)
{
	const bool in = strcmp(path, "-") == 0;
	const char *slash = is_file(path) ? strrchr(path, '/') : NULL;
	struct list l = { .s = s, .name = in ? "standard input" : path, .e = e,
			  .dir = slash ? (size_t)(slash - path) + 1 : 0 };
	struct buf text = { 0 };
	int ret = slurp(&text, path, MAX_LIST, e);

	if (!ret && text.n && memchr(text.p, '\0', text.n))
		ret = err_set(e, ERR_DATA, l.name, "neither a picture (PNG, JPEG, PPM, PGM), nor "
			      "*.bin, nor *.safetensors, nor a list of pictures");
	for (size_t i = 0, n; !ret && i < text.n; i += n + 1) {
		const char *end = memchr(text.p + i, '\n', text.n - i);
		size_t len;

		n = end ? (size_t)(end - text.p) - i : text.n - i;
		len = n && text.p[i + n - 1] == '\r' ? n - 1 : n;
		l.line++;
		if (len)
			ret = take_line(&l, text.p + i, len);
	}
	buf_release(&text);
	return ret;
}
