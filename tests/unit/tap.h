/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tap.h - the smallest producer of TAP: one line for each assertion, the plan at the end
 *
 *     #include "tests/unit/tap.h"
 *
 *     int main(void)
 *     {
 *             ok(1 + 1 == 2, "one and one");
 *             ok_near(x, 0.5, 1e-12, "half, row %d", 3);
 *             return done();
 *     }
 */
#ifndef QP_TAP_H
#define QP_TAP_H

#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static int tap_count, tap_failed;

static inline bool tap_line(bool good, const char *file, int line, const char *fmt, va_list ap)
{
	printf("%sok %d - ", good ? "" : "not ", ++tap_count);
	vprintf(fmt, ap);
	putchar('\n');
	if (!good) {
		tap_failed++;
		printf("#   at %s:%d\n", file, line);
	}
	fflush(stdout); /* what was tested must be seen if the next line crashes */
	return good;
}

__attribute__((format(printf, 4, 5)))
static inline bool tap_ok(bool good, const char *file, int line, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	tap_line(good, file, line, fmt, ap);
	va_end(ap);
	return good;
}

/* |got - want| <= tol; a NaN on either side fails. */
__attribute__((format(printf, 6, 7)))
static inline bool tap_near(double got, double want, double tol, const char *file, int line,
			    const char *fmt, ...)
{
	bool good = fabs(got - want) <= tol;
	va_list ap;

	va_start(ap, fmt);
	tap_line(good, file, line, fmt, ap);
	va_end(ap);
	if (!good)
		printf("#   got %.17g, want %.17g within %g\n", got, want, tol);
	return good;
}

__attribute__((format(printf, 5, 6)))
static inline bool tap_str(const char *got, const char *want, const char *file, int line,
			   const char *fmt, ...)
{
	bool good = got && want && strcmp(got, want) == 0;
	va_list ap;

	va_start(ap, fmt);
	tap_line(good, file, line, fmt, ap);
	va_end(ap);
	if (!good)
		printf("#   got '%s', want '%s'\n", got ? got : "(null)", want ? want : "(null)");
	return good;
}

__attribute__((format(printf, 1, 2)))
static inline void skip(const char *fmt, ...)
{
	va_list ap;

	printf("ok %d - # SKIP ", ++tap_count);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
}

/* Each gives the truth of its condition, so that "if (!ok(...)) return done();" works. */
#define ok(cond, ...) tap_ok((cond), __FILE__, __LINE__, __VA_ARGS__)
#define ok_near(got, want, tol, ...) \
	tap_near((got), (want), (tol), __FILE__, __LINE__, __VA_ARGS__)
#define ok_str(got, want, ...) tap_str((got), (want), __FILE__, __LINE__, __VA_ARGS__)

/* The plan; the value for main to return. */
static inline int done(void)
{
	printf("1..%d\n", tap_count);
	return tap_failed != 0;
}

#endif
