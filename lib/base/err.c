/* SPDX-License-Identifier: Apache-2.0 */
/*
 * err.c - filling a struct err
 */
#include "lib/base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void fill(struct err *e, enum err_class cls, const char *where, int sys, const char *fmt,
		 va_list ap)
{
	e->cls = cls;
	e->sys = sys;
	/* where and what may be made from e's own text (wrapping): build, then copy. */
	char w[sizeof(e->where)], s[sizeof(e->what)];
	snprintf(w, sizeof(w), "%s", where ? where : "");
	int n = vsnprintf(s, sizeof(s), fmt, ap);
	if (sys && n >= 0 && (size_t)n < sizeof(s))
		snprintf(s + n, sizeof(s) - (size_t)n, "%s%s", n ? ": " : "", strerror(sys));
	memcpy(e->where, w, sizeof(w));
	memcpy(e->what, s, sizeof(s));
}

int err_set(struct err *e, enum err_class cls, const char *where, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	fill(e, cls, where, 0, fmt, ap);
	va_end(ap);
	return -1;
}

int err_errno(struct err *e, enum err_class cls, const char *where, const char *fmt, ...)
{
	int sys = errno;
	va_list ap;
	va_start(ap, fmt);
	fill(e, cls, where, sys, fmt, ap);
	va_end(ap);
	return -1;
}

int err_nomem(struct err *e, const char *where, unsigned long long nbytes)
{
	return err_set(e, ERR_NOMEM, where, "out of memory for %llu bytes", nbytes);
}
